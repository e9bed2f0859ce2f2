package main

import (
	"context"
	"path/filepath"
	"sync"

	"hufu/bench/world"
)

// node is the node that is measured.
type node struct {
	*world.World
	pid int

	mu      sync.Mutex
	serials []string // of certificates that it issued
}

// startNode starts the node when it is first needed.
func (b *bench) startNode(ctx context.Context) (*node, error) {
	if b.node != nil {
		return b.node, nil
	}
	b.say("  setting up a node: hufu quickstart")
	w, err := world.Start(ctx, b.hufu, filepath.Join(b.dir, "world"), 0)
	if err != nil {
		return nil, err
	}
	b.atEnd(w.Stop)
	b.node = &node{World: w}
	b.node.pid, err = w.Node()
	return b.node, err
}

func (n *node) keep(serial string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.serials) < statusSample {
		n.serials = append(n.serials, serial)
	}
}
