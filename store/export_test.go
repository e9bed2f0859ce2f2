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
