package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Writers commit in groups, without a goroutine or a timer. The first that finds nobody at work leads: it opens the engine's transaction and
// lets every writer of its group run its function, one after the other, each on its own goroutine. So a function that panics or ends its
// goroutine unwinds where it was called, and takes nobody along. While the engine commits, the next writers gather in the queue; when it
// is done, the leader makes the first of them the next leader.

// maxGroup bounds the octets that a group writes before it commits; whoever comes after that waits for the next one.
const maxGroup = 16 << 20

// writer is one call of Update.
type writer struct {
	ctx   context.Context
	f     func(*Tx) error
	calls chan call // from the leader; there is never more than one on its way
	taken bool      // it belongs to a group, or is to lead one, and can no longer withdraw; guarded by Book.mu
	ran   bool      // f has run in the group that is being committed
	gone  bool      // f panicked or ended the goroutine; nobody waits here any more
	err   error     // what f returned
}

// call is what the leader tells a writer: to run in a group, to lead, or else how the commit came out.
type call struct {
	group *group
	lead  bool
	err   error
}

// Update runs f in a transaction that commits, durably, before Update returns nil. f may run more than once and so has no effect
// outside the transaction; it must not call Update. When f returns an error or panics, nothing of it is kept, and others are not touched.
// Update gives up when ctx ends while it waits for its turn; once f has run, the outcome is waited for.
func (b *Book) Update(ctx context.Context, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &writer{ctx: ctx, f: f, calls: make(chan call, 1)}
	if !b.join(w) {
		if lead, err := b.follow(w); !lead {
			return err
		}
	}
	return b.lead(w)
}

// join puts w into the queue, or makes it the leader when there is none.
func (b *Book) join(w *writer) (lead bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.busy {
		b.busy, w.taken = true, true
		return true
	}
	b.queue = append(b.queue, w)
	return false
}

// follow does what the leader says until the outcome is known or w is to lead.
func (b *Book) follow(w *writer) (lead bool, err error) {
	done := w.ctx.Done()
	for {
		select {
		case c := <-w.calls:
			switch {
			case c.lead:
				return true, nil
			case c.group == nil:
				return false, c.err
			}
			w.serve(c.group)
		case <-done:
			if b.withdraw(w) {
				return false, w.ctx.Err()
			}
			done = nil
		}
	}
}

// withdraw takes w out of the queue, unless it is no longer there.
func (b *Book) withdraw(w *writer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.taken {
		return false
	}
	b.queue = slices.DeleteFunc(b.queue, func(other *writer) bool { return other == w })
	return true
}

// serve runs the writer's function in the group of somebody else, and gives the turn back whatever happens.
func (w *writer) serve(g *group) {
	w.gone = true
	defer func() { g.back <- struct{}{} }()
	w.err = g.run(w.ctx, w.f)
	w.gone = false
}

// lead commits a group of all who wait, with w as the first, and tells them how it came out.
func (b *Book) lead(w *writer) error {
	b.mu.Lock()
	group := append([]*writer{w}, b.queue...)
	b.queue = nil
	for _, w := range group {
		w.taken = true
	}
	b.mu.Unlock()

	err := errors.New("the commit ended in a panic and its outcome is not known: restart the process")
	unwinding := true
	defer func() {
		var again []*writer
		for _, other := range group[1:] {
			switch {
			case other.gone:
			case unwinding && w.gone, !unwinding && !other.ran:
				// The leader's own function unwound before anything was committed, or the group was full.
				again = append(again, other)
			default:
				other.calls <- call{err: other.outcome(err)}
			}
		}
		b.pass(again)
	}()
	err = b.commit(group)
	unwinding = false
	return w.outcome(err)
}

// outcome is what Update returns after a commit that ended with err. What a function found wrong in a group that then failed to commit may
// rest on what never was.
func (w *writer) outcome(err error) error {
	if err != nil {
		return err
	}
	return w.err
}

// pass puts writers back to the front of the queue and makes the first in it the next leader.
func (b *Book) pass(again []*writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range again {
		w.taken = false
	}
	b.queue = append(again, b.queue...)
	if len(b.queue) == 0 {
		b.busy = false
		return
	}
	next := b.queue[0]
	b.queue = b.queue[1:]
	next.taken = true
	next.calls <- call{lead: true}
}

// commit lets the writers run in one transaction of the engine. The first is the leader, whose goroutine this is.
func (b *Book) commit(writers []*writer) error {
	// The transaction belongs to all of them: the end of the leader's context does not end it.
	ctx := context.WithoutCancel(writers[0].ctx)
	return b.engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		h, err := readHead(s)
		if err != nil {
			return nil, err
		}
		if h.epoch != b.epoch {
			return nil, fmt.Errorf("the book went from epoch %d to %d under this process: restart it: %w", b.epoch, h.epoch, ErrConflict)
		}
		g := &group{snap: s, now: b.now, head: *h, back: make(chan struct{})}
		for i, w := range writers {
			w.ran = g.writes.size < maxGroup
			switch {
			case w.gone || !w.ran:
			case i == 0:
				w.gone = true // until the function returns
				w.err = g.run(w.ctx, w.f)
				w.gone = false
			default:
				w.calls <- call{group: g}
				<-g.back
			}
		}
		return g.finish(h)
	})
}

// group is what the writers that commit together have written so far.
type group struct {
	snap   Snapshot
	now    func() time.Time
	head   head
	writes overlay
	own    overlay // of the transaction that runs
	nodes  []Hash  // of the tree, not yet written
	back   chan struct{}
}

// run runs one function on top of what the others wrote, and keeps what it wrote only if it returns nil.
func (g *group) run(ctx context.Context, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.own.reset()
	tx := &Tx{ctx: ctx, snap: g.snap, group: g, own: &g.own, now: g.now().UTC().Round(0)}
	defer tx.end()
	err := f(tx)
	if err == nil {
		err = tx.err
	}
	if err != nil {
		return err
	}
	for key, value := range g.own.values {
		g.writes.add(key, value)
	}
	for _, leaf := range tx.leaves {
		g.nodes = g.head.push(leaf, g.nodes)
	}
	g.head.rows += uint64(tx.rows)
	if tx.note > 0 {
		g.head.note = tx.note
	}
	return nil
}

// finish returns the writes of the group, with the nodes of the tree and the new head among them.
func (g *group) finish(old *head) ([]Write, error) {
	if len(g.writes.values) == 0 {
		return nil, nil
	}
	if g.head.seq != old.seq {
		if err := g.storeNodes(old.seq); err != nil {
			return nil, err
		}
		g.head.seal()
	}
	if g.head.seq != old.seq || g.head.rows != old.rows {
		g.writes.put(headKey, g.head.append(nil))
	}
	keys := g.writes.keys()
	writes := make([]Write, len(keys))
	for i, key := range keys {
		writes[i] = Write{Key: key, Value: g.writes.values[key]}
	}
	return writes, nil
}

// storeNodes writes the new nodes of the tree, which had size leaves before.
func (g *group) storeNodes(size uint64) error {
	at := storedNodes(size)
	var chunk []byte
	if at%nodesInChunk != 0 {
		begun, err := g.snap.Get(nodeKey(at / nodesInChunk))
		if err != nil {
			return fmt.Errorf("reading the last nodes of the journal's tree: %w", err)
		}
		if int64(len(begun)) != at%nodesInChunk*int64(len(Hash{})) {
			return fmt.Errorf("%w: the last nodes of the journal's tree are missing", ErrCorrupt)
		}
		chunk = slices.Clone(begun)
	}
	for i, node := range g.nodes {
		chunk = append(chunk, node[:]...)
		if at++; at%nodesInChunk == 0 || i == len(g.nodes)-1 {
			g.writes.put(nodeKey((at-1)/nodesInChunk), chunk)
			chunk = nil
		}
	}
	return nil
}
