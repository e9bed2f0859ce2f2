package store

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Proof is a list of node hashes (RFC 6962, Section 2.1.1 and 2.1.2). From is the Seq of the event for an inclusion proof, and the size of the
// older tree for a consistency proof; Size is the size of the tree that it leads to.
type Proof struct {
	From   uint64 `json:"from"`
	Size   int64  `json:"size"`
	Hashes []Hash `json:"hashes"`
}

// ProveInclusion proves that the event stands in the tree of that size (0 = the present one).
func (b *Book) ProveInclusion(ctx context.Context, seq uint64, size int64) (Proof, error) {
	return b.prove(ctx, "inclusion", seq, size, func(size int64, r tlog.HashReader) ([]tlog.Hash, error) {
		return tlog.ProveRecord(size, int64(seq)-1, r)
	})
}

// ProveConsistency proves that the tree of size old is the beginning of the tree of the given size (0 = the present one).
func (b *Book) ProveConsistency(ctx context.Context, old, size int64) (Proof, error) {
	return b.prove(ctx, "consistency", uint64(old), size, func(size int64, r tlog.HashReader) ([]tlog.Hash, error) {
		return tlog.ProveTree(size, old, r)
	})
}

func (b *Book) prove(ctx context.Context, what string, from uint64, size int64, hashes func(int64, tlog.HashReader) ([]tlog.Hash, error)) (p Proof, err error) {
	err = b.View(ctx, func(tx *Tx) error {
		h, err := tx.head()
		if err != nil {
			return err
		}
		if size == 0 {
			size = int64(h.seq)
		}
		if from < 1 || from > uint64(size) || size < 0 || uint64(size) > h.seq {
			return fmt.Errorf("from %d to size %d, in a journal of %d events: %w", from, size, h.seq, ErrNotFound)
		}
		list, err := hashes(size, nodeReader(tx.snap))
		p = Proof{From: from, Size: size, Hashes: make([]Hash, len(list))}
		for i, hash := range list {
			p.Hashes[i] = Hash(hash)
		}
		return err
	})
	if err != nil {
		return Proof{}, fmt.Errorf("proving %s: %w", what, err)
	}
	return p, nil
}

// CheckInclusion checks a proof that e stands in the tree with that root.
func CheckInclusion(p Proof, e *Event, root Hash) error {
	if e.Seq != p.From || p.From < 1 {
		return fmt.Errorf("checking inclusion: the proof is for event %d, not for %d", p.From, e.Seq)
	}
	leaf := tlog.Hash(leafHash(AppendEvent(nil, e)))
	if tlog.CheckRecord(p.list(), p.Size, tlog.Hash(root), int64(p.From)-1, leaf) != nil {
		return errors.New("checking inclusion: the proof does not lead from this event to this root")
	}
	return nil
}

// CheckConsistency checks a proof that the tree with root old is the beginning of the one with root.
func CheckConsistency(p Proof, old, root Hash) error {
	if p.From < 1 || tlog.CheckTree(p.list(), p.Size, tlog.Hash(root), int64(p.From), tlog.Hash(old)) != nil {
		return errors.New("checking consistency: the proof does not lead from the older root to this one")
	}
	return nil
}

func (p *Proof) list() []tlog.Hash {
	list := make([]tlog.Hash, len(p.Hashes))
	for i, h := range p.Hashes {
		list[i] = tlog.Hash(h)
	}
	return list
}
