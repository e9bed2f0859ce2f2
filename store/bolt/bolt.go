// Package bolt is the engine of a book in one file, on go.etcd.io/bbolt.
package bolt

import (
	"context"
	"errors"
	"time"

	"hufu/store"
)

// Options of Open. The zero value serves.
type Options struct {
	Timeout time.Duration // how long to wait for another process to let go of the file; 0 = 5 s
}

// Engine is a store.Engine in one file.
type Engine struct{}

// Open opens the file, or makes it with mode 0600.
func Open(path string, opt Options) (*Engine, error) { return nil, errNotBuilt }

// View implements store.Engine.
func (e *Engine) View(ctx context.Context, f func(store.Snapshot) error) error { return errNotBuilt }

// Update implements store.Engine.
func (e *Engine) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	return errNotBuilt
}

// Changed implements store.Engine.
func (e *Engine) Changed() <-chan struct{} { return nil }

// Close implements store.Engine.
func (e *Engine) Close() error { return errNotBuilt }

var errNotBuilt = errors.New("not built yet")

var _ store.Engine = (*Engine)(nil)
