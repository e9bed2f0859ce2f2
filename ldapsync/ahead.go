package ldapsync

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// AheadError says that a directory knows of changes that the book does not have: the book was put back to an older state. Nothing is
// published there, since that could make a revoked certificate good again.
type AheadError struct {
	Directory string
	Reason    string
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("directory %s is ahead of the book: %s; restore the book and bring back what the directory knows: hufu restore --from-directory %s", e.Directory, e.Reason, e.Directory)
}

// recall is the row that says how far what a directory knew of a lost stretch of the book was brought back.
type recall struct {
	Directory string
	Epoch     uint64
	Complete  uint64 // every change of the epoch up to here, whoever else knows of it
	Latest    uint64 // the latest change that this directory knew of
}

// recalls has the primary key Key(Directory, Epoch) and the index "epoch" Key(Epoch).
var recalls = store.Table[recall]{
	Name: "ldapsync.recall", Key: func(r *recall) []byte { return store.Key(r.Directory, r.Epoch) }, Codec: store.JSON[recall](),
	Indexes: []store.Index[recall]{{Name: "epoch", Keys: func(r *recall) [][]byte { return [][]byte{store.Key(r.Epoch)} }}},
}

// Tables lists the tables that this package keeps in the book.
func Tables() []store.Checked { return []store.Checked{&recalls, &sights} }

// Ahead asks every directory whether it is ahead of the book. A node calls it before it serves and refuses to start when the list is not
// empty. A directory that does not answer is not in the list; should it turn out to be ahead later, nothing is published to it.
func (p *Publisher) Ahead(ctx context.Context) []*AheadError {
	found := make([]*AheadError, len(p.workers))
	var group sync.WaitGroup
	for i, w := range p.workers {
		group.Go(func() {
			l, err := connect(ctx, w.dir)
			if err != nil {
				return
			}
			defer l.close()
			m, err := l.watermark(p.book.ID())
			if err == nil {
				_, err = p.judge(ctx, l, m)
			}
			errors.As(err, &found[i])
		})
	}
	group.Wait()
	var all []*AheadError
	for _, a := range found {
		if a != nil {
			all = append(all, a)
		}
	}
	return all
}

// stretch is one epoch as the book has it: all events up to end, and what was brought back of those that a restore cut off.
type stretch struct {
	epoch uint64
	end   uint64
	known uint64 // changes up to here are in the book, in another place; end if none were brought back
}

// stretches returns the epochs of the book as far as they concern a directory, the present one last.
func (p *Publisher) stretches(ctx context.Context, directory string) (all []stretch, err error) {
	known := map[uint64]bool{}
	for _, e := range p.epochs {
		known[e.Epoch] = true
	}
	err = p.book.View(ctx, func(tx *store.Tx) error {
		all = nil
		// An epoch of another restore of the same backup: the book has none of it but what was brought back.
		for r, err := range recalls.Scan(tx, "epoch", nil) {
			if err != nil {
				return err
			}
			if !known[r.Epoch] {
				s := stretch{epoch: r.Epoch, known: r.Complete}
				if r.Directory == directory {
					s.known = max(s.known, r.Latest)
				}
				all = append(all, s)
			}
		}
		for i, e := range p.epochs {
			s := stretch{epoch: e.Epoch, end: tx.Head()}
			if i+1 < len(p.epochs) {
				s.end = uint64(p.epochs[i+1].Size)
			}
			s.known = s.end
			for r, err := range recalls.Scan(tx, "epoch", store.Key(e.Epoch)) {
				if err != nil {
					return err
				}
				s.known = max(s.known, r.Complete)
				if r.Directory == directory {
					s.known = max(s.known, r.Latest)
				}
			}
			all = append(all, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the epochs of the book: %w", err)
	}
	return all, nil
}

// judge compares what a directory holds with the book. It returns the event up to which the directory has everything, 0 if it does not
// say or its statement cannot be believed, or an *AheadError.
func (p *Publisher) judge(ctx context.Context, l *link, m *watermark) (start uint64, err error) {
	ahead := func(format string, args ...any) error {
		return &AheadError{Directory: l.dir.Name, Reason: fmt.Sprintf(format, args...)}
	}
	stretches, err := p.stretches(ctx, l.dir.Name)
	if err != nil {
		return 0, err
	}
	for _, s := range stretches {
		e, err := l.oneAfter(p.book.ID(), s.epoch, s.known)
		if err != nil {
			return 0, fmt.Errorf("looking for later entries: %w", err)
		}
		if e == nil {
			continue
		}
		// Another node of this book may have written it since the epochs were read.
		found := (&Entry{Attributes: attributesOf(e)}).position()
		if tree, err := p.book.Tree(ctx); err != nil {
			return 0, err
		} else if s.epoch == p.book.Epoch() && found.seq <= uint64(tree.Size) {
			continue
		}
		return 0, ahead("its entry %s is of %v, and the book has nothing of that epoch after %d", e.DN, found, s.end)
	}
	e, err := l.oneOfEpoch(p.book.ID(), p.book.Epoch()+1)
	if err != nil {
		return 0, fmt.Errorf("looking for later entries: %w", err)
	}
	if e != nil {
		return 0, ahead("its entry %s is of a later epoch than the book's %d", e.DN, p.book.Epoch())
	}
	if m == nil || m.note == "" {
		return 0, nil
	}
	st, err := ParseStatement([]byte(m.note), p.key.Public())
	if err != nil || st.Book != p.book.ID() {
		// Not a word of ours, so there is nothing to go by but the entries. They are guarded one by one.
		p.log.Warn("watermark is not signed by this book's key; publishing everything again", "directory", l.dir.Name, "error", err)
		return 0, nil
	}
	return p.judgeStatement(ctx, st, stretches, ahead)
}

func (p *Publisher) judgeStatement(ctx context.Context, st *Statement, stretches []stretch, ahead func(string, ...any) error) (uint64, error) {
	for _, s := range stretches {
		if s.epoch != st.Epoch {
			continue
		}
		if st.Seq > s.known {
			return 0, ahead("its watermark stands at %v, and the book has nothing of that epoch after %d", position{st.Epoch, st.Seq}, s.end)
		}
		// The rest of an epoch that a restore cut off cannot be compared; what the directory knows of it was looked at above.
		if st.Journal.Size <= int64(s.end) || st.Epoch == p.book.Epoch() {
			err := p.book.CompareCheckpoint(ctx, &store.Checkpoint{
				Origin: fmt.Sprintf("hufu/book/%s/%d", st.Book, st.Epoch), Epoch: st.Epoch, Size: st.Journal.Size, Root: st.Journal.Root, Time: st.Time,
			})
			if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrCorrupt) {
				return 0, ahead("its statement tells of another history: %v", err)
			}
			if err != nil {
				return 0, err
			}
		}
		return min(st.Seq, s.end), nil
	}
	return 0, ahead("its statement is of epoch %d, which the book, in epoch %d, never was in", st.Epoch, p.book.Epoch())
}

// oneAfter returns some entry of an epoch that lies after a sequence number, nil if there is none.
func (l *link) oneAfter(book string, epoch, seq uint64) (*ldap.Entry, error) {
	if seq == math.MaxUint64 {
		return nil, nil
	}
	return l.one(aheadFilter(book, epoch, seq))
}

func (l *link) oneOfEpoch(book string, epoch uint64) (*ldap.Entry, error) {
	return l.one(fmt.Sprintf("(&(objectClass=hufuEntry)(hufuBook=%s)(hufuEpoch>=%d))", ldap.EscapeFilter(book), epoch))
}

func (l *link) one(filter string) (*ldap.Entry, error) {
	r, err := l.ldap.Search(ldap.NewSearchRequest(l.dir.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 1, 0, false, filter, []string{attrEpoch, attrSeq}, nil))
	// More than the one asked for is as good as one.
	if err != nil && !ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultSizeLimitExceeded) {
		return nil, err
	}
	if r == nil || len(r.Entries) == 0 {
		return nil, nil
	}
	return r.Entries[0], nil
}
