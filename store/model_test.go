package store_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hufu/store"
)

// TestModel makes random transactions, some of which fail, and compares what can be read, in the transaction and after it, with a map.
func TestModel(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		cfg := store.Config{Engine: engineAt(t, filepath.Join(dir, fmt.Sprint(n))), Tables: []store.Checked{&pets}}
		b, err := store.Create(ctx, cfg)
		if err != nil {
			r.Fatal(err)
		}
		m := &model{rows: map[string]pet{}, events: 1}
		r.Repeat(map[string]func(*rapid.T){
			"update": func(r *rapid.T) { m.update(r, b) },
			"view": func(r *rapid.T) {
				if err := b.View(ctx, func(tx *store.Tx) error { m.compare(r, tx); return nil }); err != nil {
					r.Fatal(err)
				}
			},
		})
		if err := errors.Join(b.Check(ctx, nil), b.Close()); err != nil {
			r.Fatal(err)
		}
	})
}

// model is what the book should hold.
type model struct {
	rows   map[string]pet
	events uint64
}

var (
	drawName = rapid.SampledFrom([]string{"a", "aa", "ab", "b", "b\x00", "c"})
	drawKind = rapid.SampledFrom([]string{"", "k", "kk", "l"})
)

// update makes a transaction of several steps, which is kept or not.
func (m *model) update(r *rapid.T, b *store.Book) {
	next := &model{rows: maps.Clone(m.rows), events: m.events}
	steps := rapid.IntRange(0, 6).Draw(r, "steps")
	refusal := errors.New("refusal")
	keep := rapid.Bool().Draw(r, "keep")
	err := b.Update(ctx, func(tx *store.Tx) error {
		for range steps {
			next.step(r, tx)
			if rapid.Bool().Draw(r, "look") {
				next.compare(r, tx)
			}
		}
		if !keep {
			return refusal
		}
		return nil
	})
	if keep && err != nil || !keep && !errors.Is(err, refusal) {
		r.Fatalf("Update returns %v", err)
	}
	if keep {
		*m = *next
	}
}

func (m *model) step(r *rapid.T, tx *store.Tx) {
	p := pet{Name: drawName.Draw(r, "name"), Kind: drawKind.Draw(r, "kind"), Foods: rapid.SliceOfN(drawKind, 0, 2).Draw(r, "foods")}
	_, exists := m.rows[p.Name]
	var err error
	switch rapid.SampledFrom([]string{"insert", "put", "delete", "event"}).Draw(r, "step") {
	case "insert":
		if err = pets.Insert(tx, &p); exists && errors.Is(err, store.ErrExists) {
			return
		}
		m.rows[p.Name] = p
	case "put":
		err = pets.Put(tx, &p)
		m.rows[p.Name] = p
	case "delete":
		if err = pets.Delete(tx, store.Key(p.Name)); !exists && errors.Is(err, store.ErrNotFound) {
			return
		}
		delete(m.rows, p.Name)
	case "event":
		if seq := tx.Append(store.Event{Kind: "test", Detail: p.Name}); seq != m.events+1 {
			r.Fatalf("event %d after %d", seq, m.events)
		}
		m.events++
	}
	if err != nil {
		r.Fatalf("with %v there (%v): %v", p, exists, err)
	}
}

// compare reads in every way.
func (m *model) compare(r *rapid.T, tx *store.Tx) {
	name := drawName.Draw(r, "name")
	got, err := pets.Get(tx, store.Key(name))
	if want, ok := m.rows[name]; ok && (err != nil || !reflect.DeepEqual(*got, want)) || !ok && !errors.Is(err, store.ErrNotFound) {
		r.Fatalf("%q is %v, %v; want %v", name, got, err, want)
	}
	kind := drawKind.Draw(r, "kind")
	reverse := rapid.Bool().Draw(r, "reverse")
	var want []string
	for _, name := range slices.Sorted(maps.Keys(m.rows)) {
		if m.rows[name].Kind == kind {
			want = append(want, name)
		}
	}
	slices.SortFunc(want, func(a, b string) int { return slices.Compare(store.Key(a), store.Key(b)) })
	if reverse {
		slices.Reverse(want)
	}
	var all []string
	for q := (store.Query{Index: "kind", Prefix: store.Key(kind), Limit: rapid.IntRange(1, 3).Draw(r, "limit"), Reverse: reverse}); ; {
		rows, next, err := pets.Page(tx, q)
		if err != nil {
			r.Fatal(err)
		}
		if all, q.After = append(all, names(rows)...), next; next == nil {
			break
		}
	}
	if !slices.Equal(all, want) {
		r.Fatalf("pages of kind %q give %q, want %q", kind, all, want)
	}
	n := 0
	for p, err := range pets.Scan(tx, "", nil) {
		if n++; err != nil || !reflect.DeepEqual(*p, m.rows[p.Name]) {
			r.Fatalf("the scan gives %v, %v", p, err)
		}
	}
	if n != len(m.rows) || tx.Head() != m.events {
		r.Fatalf("there are %d rows and %d events, want %d and %d", n, tx.Head(), len(m.rows), m.events)
	}
	if e, err := tx.Event(m.events); err != nil || e.Seq != m.events {
		r.Fatalf("the newest event is %v, %v", e, err)
	}
}
