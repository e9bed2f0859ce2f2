package store

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// The journal is a Merkle tree as RFC 6962, Section 2.1, has it: the leaf for the event with Seq n is the n'th, counted from 1, and its
// data is the event's encoding. The head record holds the roots of the complete subtrees, so that an append reads nothing else. All
// nodes are kept, in the order of tlog.StoredHashIndex and in chunks, so that a proof reads a few of them only.

// Tree names a state of the journal: how many events it has, which is the Seq of the newest, and the root of the Merkle tree over them.
type Tree struct {
	Size int64
	Root Hash
}

// head is the record of how far the book has come. Every Update that appends events writes it.
type head struct {
	epoch    uint64
	seq      uint64 // of the newest event
	rows     uint64 // in all tables
	note     uint64 // Seq of the newest checkpoint event, 0 for none
	root     Hash
	frontier []Hash // roots of the complete subtrees, the largest first
}

var headKey = []byte{spaceBook, 'h', 'e', 'a', 'd'}

func readHead(s Snapshot) (*head, error) {
	raw, err := s.Get(headKey)
	if err != nil {
		return nil, fmt.Errorf("reading the head of the book: %w", err)
	}
	h, err := decodeHead(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the head of the book: %w", ErrCorrupt, err)
	}
	return h, nil
}

func decodeHead(raw []byte) (*head, error) {
	d, err := open(raw)
	if err != nil {
		return nil, err
	}
	h := &head{epoch: d.uint64(), seq: d.uint64(), rows: d.uint64(), note: d.uint64(), root: d.hash()}
	for range len(d.src) / len(Hash{}) {
		h.frontier = append(h.frontier, d.hash())
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *head) append(dst []byte) []byte {
	dst = append(dst, layout)
	for _, n := range [...]uint64{h.epoch, h.seq, h.rows, h.note} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = append(dst, h.root[:]...)
	for _, node := range h.frontier {
		dst = append(dst, node[:]...)
	}
	return dst
}

// push adds the leaf of the next event to the tree and appends the nodes that this completes to nodes.
func (h *head) push(leaf Hash, nodes []Hash) []Hash {
	nodes = append(nodes, leaf)
	for n := h.seq; n&1 == 1; n >>= 1 {
		last := len(h.frontier) - 1
		leaf = nodeHash(h.frontier[last], leaf)
		h.frontier = h.frontier[:last]
		nodes = append(nodes, leaf)
	}
	h.frontier = append(h.frontier, leaf)
	h.seq++
	return nodes
}

// seal computes the root.
func (h *head) seal() {
	if len(h.frontier) == 0 {
		h.root = Sum(nil)
		return
	}
	h.root = h.frontier[len(h.frontier)-1]
	for i := len(h.frontier) - 2; i >= 0; i-- {
		h.root = nodeHash(h.frontier[i], h.root)
	}
}

func leafHash(event []byte) Hash { return Hash(tlog.RecordHash(event)) }

func nodeHash(left, right Hash) Hash { return Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right))) }

func eventKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{spaceEvents}, seq) }

// nodesInChunk is how many nodes lie under one key: 1 KiB, which is written again until it is full.
const nodesInChunk = 32

func nodeKey(chunk int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceNodes}, uint64(chunk))
}

// readNode reads one stored node.
func readNode(s Snapshot, index int64) (h Hash, err error) {
	chunk, err := s.Get(nodeKey(index / nodesInChunk))
	if err != nil {
		return Hash{}, fmt.Errorf("reading node %d of the journal's tree: %w", index, err)
	}
	at := int(index%nodesInChunk) * len(h)
	if len(chunk) < at+len(h) {
		return Hash{}, fmt.Errorf("%w: node %d of the journal's tree is missing", ErrCorrupt, index)
	}
	copy(h[:], chunk[at:])
	return h, nil
}

// nodeReader lets package tlog read the stored nodes.
func nodeReader(s Snapshot) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			h, err := readNode(s, index)
			if err != nil {
				return nil, err
			}
			hashes[i] = tlog.Hash(h)
		}
		return hashes, nil
	})
}

// Tree returns the present state of the journal.
func (b *Book) Tree(ctx context.Context) (t Tree, err error) {
	err = b.View(ctx, func(tx *Tx) error {
		h, err := tx.head()
		if err == nil {
			t = Tree{Size: int64(h.seq), Root: h.root}
		}
		return err
	})
	return t, err
}

// eventsInPage is how many events Events returns when nobody says.
const eventsInPage = 1000

// Changed returns a channel that is closed at the latest before the Update that next commits returns. A reader that takes the channel, then
// looks in a View, may go on believing what it saw for as long as the channel is open.
func (b *Book) Changed() <-chan struct{} { return b.engine.Changed() }

// Events returns up to limit events (0 = 1000) with Seq > after, without a gap. It does not wait for any. If the book does not even reach
// to after, it was cut or rolled back since the caller read it: that is ErrConflict.
func (b *Book) Events(ctx context.Context, after uint64, limit int) (events []Event, err error) {
	err = b.View(ctx, func(tx *Tx) error {
		events, err = tx.Events(after, limit)
		return err
	})
	return events, err
}

// Follow is Events, but waits until there is at least one.
func (b *Book) Follow(ctx context.Context, after uint64, limit int) ([]Event, error) {
	for {
		// The channel is taken before the look, so that no commit falls between the two.
		changed := b.engine.Changed()
		events, err := b.Events(ctx, after, limit)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Event returns one event of the journal, or ErrNotFound.
func (tx *Tx) Event(seq uint64) (*Event, error) {
	raw, err := tx.get(eventKey(seq))
	if err == nil && raw == nil {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading event %d: %w", seq, err)
	}
	return decodeEvent(seq, raw)
}

// Events is Book.Events inside a transaction.
func (tx *Tx) Events(after uint64, limit int) ([]Event, error) {
	if limit <= 0 {
		limit = eventsInPage
	}
	newest := tx.Head()
	if tx.err != nil {
		return nil, tx.err
	}
	if after > newest {
		return nil, fmt.Errorf("reading events after %d: the book ends at %d: %w", after, newest, ErrConflict)
	}
	events := make([]Event, 0, min(uint64(limit), newest-after))
	for pair, err := range tx.scan(eventKey(after+1), eventKey(newest+1), false) {
		if err != nil {
			return nil, fmt.Errorf("reading events: %w", err)
		}
		if len(events) == limit {
			return events, nil
		}
		e, err := decodeEvent(after+uint64(len(events))+1, pair.Value)
		if err != nil {
			return nil, err
		}
		events = append(events, *e)
	}
	if len(events) < cap(events) {
		return nil, fmt.Errorf("%w: event %d is missing", ErrCorrupt, after+uint64(len(events))+1)
	}
	return events, nil
}

// decodeEvent reads the event that must have that Seq.
func decodeEvent(seq uint64, raw []byte) (*Event, error) {
	e := new(Event)
	if err := DecodeEvent(raw, e); err != nil {
		return nil, fmt.Errorf("%w: event %d: %w", ErrCorrupt, seq, err)
	}
	if e.Seq != seq {
		return nil, fmt.Errorf("%w: where event %d belongs lies event %d", ErrCorrupt, seq, e.Seq)
	}
	return e, nil
}

// storedNodes is how many nodes a tree of that size has.
func storedNodes(size uint64) int64 { return tlog.StoredHashCount(int64(size)) }
