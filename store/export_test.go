package store

import (
	"context"
	"io"
)

// Waiting returns how many writers wait for the next commit.
func Waiting(b *Book) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// GrowTree returns the root and all nodes of the tree over leaves.
func GrowTree(leaves ...[]byte) (root Hash, nodes []Hash) {
	h := new(head)
	for _, leaf := range leaves {
		nodes = h.push(leafHash(leaf), nodes)
	}
	h.seal()
	return h.root, nodes
}

// OpenWith opens a book with steps that the program of the day does not have yet.
func OpenWith(ctx context.Context, cfg Config, steps ...func(*Tx) error) (*Book, error) {
	return openBook(ctx, cfg, upgradesOf(steps))
}

// RestoreWith is Restore by a program with such steps.
func RestoreWith(ctx context.Context, cfg Config, r io.Reader, steps ...func(*Tx) error) (*Book, error) {
	return restore(ctx, cfg, r, "test", upgradesOf(steps))
}

func upgradesOf(steps []func(*Tx) error) (list []upgrade) {
	for _, s := range steps {
		list = append(list, s)
	}
	return list
}

// Forge edits events and then makes the whole tree anew, as somebody would who knows this package and owns the file.
func Forge(ctx context.Context, engine Engine, edit func(*Event)) error {
	return engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		old, err := readHead(s)
		if err != nil {
			return nil, err
		}
		g := &group{snap: ended{}, head: head{epoch: old.epoch, rows: old.rows, note: old.note}}
		for pair := range s.Scan([]byte{spaceEvents}, []byte{spaceEvents + 1}, false) {
			var e Event
			if err := DecodeEvent(pair.Value, &e); err != nil {
				return nil, err
			}
			edit(&e)
			data := AppendEvent(nil, &e)
			g.writes.put(pair.Key, data)
			g.nodes = g.head.push(leafHash(data), g.nodes)
		}
		return g.finish(&head{})
	})
}
