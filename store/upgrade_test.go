package store_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"hufu/store"
)

// closer is a place for a backup.
type closer struct {
	bytes.Buffer
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// rename is a step to a new format: all pets get another kind.
func rename(kind string) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		for p, err := range pets.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			p.Kind += kind
			if err := pets.Put(tx, p); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	var old []byte
	w.open(t, func(b *store.Book) { old = backup(t, b) })
	e := engineAt(t, w.path)
	steps := []func(*store.Tx) error{rename("+2"), rename("+3")}
	var format *store.FormatError
	if _, err := store.OpenWith(ctx, store.Config{Engine: e}, steps...); !errors.As(err, &format) || format.Book != 1 || format.Program != 3 {
		t.Errorf("an older book without a place for its backup: %v", err)
	}
	full := errors.New("no room")
	_, err := store.OpenWith(ctx, store.Config{Engine: e, Backup: func(int) (io.WriteCloser, error) { return nil, full }}, steps...)
	if !errors.Is(err, full) {
		t.Errorf("an older book whose backup fails: %v", err)
	}
	var place closer
	cfg := store.Config{Engine: e, Tables: []store.Checked{&pets}, Backup: func(format int) (io.WriteCloser, error) {
		if format != 1 {
			t.Errorf("the backup is of format %d", format)
		}
		return &place, nil
	}}
	// A step that fails leaves what the steps before it made.
	if _, err := store.OpenWith(ctx, cfg, steps[0], func(tx *store.Tx) error { return full }); !errors.Is(err, full) {
		t.Errorf("a step that fails: %v", err)
	}
	if !place.closed || place.Len() == 0 {
		t.Error("there is no backup from before the upgrade")
	}
	if about, err := store.VerifyBackup(ctx, &place.Buffer, nil); err != nil || about.Format != 1 {
		t.Errorf("the backup is %+v, %v", about, err)
	}
	cfg.Backup = func(format int) (io.WriteCloser, error) { return &closer{}, nil }
	b, err := store.OpenWith(ctx, cfg, steps...)
	if err != nil {
		t.Fatal(err)
	}
	upgraded(t, b)
	if _, err := store.OpenWith(ctx, store.Config{Engine: e}, steps...); err != nil {
		t.Errorf("opening it again: %v", err)
	}
	if _, err := store.Open(ctx, cfg); !errors.As(err, &format) || format.Book != 3 || format.Program != 1 {
		t.Errorf("a newer book: %v", err)
	}
	newer := backup(t, b)
	closeBook(t, b)

	// The same from a backup.
	r, err := store.RestoreWith(ctx, store.Config{Engine: engine(t)}, bytes.NewReader(old), steps...)
	if err != nil {
		t.Fatal(err)
	}
	upgraded(t, r)
	closeBook(t, r)
	fresh := engine(t)
	if _, err := store.Restore(ctx, store.Config{Engine: fresh}, bytes.NewReader(newer), ""); !errors.As(err, &format) || !empty(t, fresh) {
		t.Errorf("restoring a newer backup: %v", err)
	}
	fresh.Close()
}

// upgraded sees that both steps were made, once, and recorded.
func upgraded(t *testing.T, b *store.Book) {
	t.Helper()
	check(t, b)
	view(t, b, func(tx *store.Tx) error {
		if got := found(t, tx, "kind", store.Key("cat+2+3")); !slices.Equal(got, []string{"tom"}) {
			t.Errorf("after the steps, those found are %q", got)
		}
		return nil
	})
	events, err := b.Events(ctx, 0, 0)
	n := 0
	for _, e := range events {
		if e.Kind == store.KindBookUpgraded {
			n++
		}
	}
	if err != nil || n != 2 {
		t.Errorf("the journal has %d upgrades, %v", n, err)
	}
}
