package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hufu/store"
)

// pet is a record of another package's table: one index with one key, one with many.
type pet struct {
	Name  string
	Kind  string
	Foods []string
}

var pets = store.Table[pet]{Name: "pet", Key: func(p *pet) []byte { return store.Key(p.Name) }, Codec: store.JSON[pet](),
	Indexes: []store.Index[pet]{
		{Name: "kind", Keys: func(p *pet) [][]byte { return [][]byte{store.Key(p.Kind)} }},
		{Name: "food", Keys: func(p *pet) (keys [][]byte) {
			for _, f := range p.Foods {
				keys = append(keys, store.Key(f))
			}
			return keys
		}},
	}}

func names(rows []*pet) (list []string) {
	for _, p := range rows {
		list = append(list, p.Name)
	}
	return list
}

// found returns the names of the pets in that part of an index, by Scan.
func found(t testing.TB, tx *store.Tx, index string, prefix []byte) (list []string) {
	t.Helper()
	for p, err := range pets.Scan(tx, index, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Name)
	}
	return list
}

func TestTable(t *testing.T) {
	b := create(t, &pets)
	update(t, b, func(tx *store.Tx) error {
		for _, p := range []pet{{"tom", "cat", []string{"fish", "mice", "fish"}}, {"rex", "dog", nil}, {"ada", "cat", []string{"mice"}}} {
			if err := pets.Insert(tx, &p); err != nil {
				return err
			}
		}
		if got := found(t, tx, "food", nil); !slices.Equal(got, []string{"tom", "ada", "tom"}) {
			t.Errorf("before the commit, those who eat are %q", got)
		}
		return nil
	})
	view(t, b, func(tx *store.Tx) error {
		if p, err := pets.Get(tx, store.Key("tom")); err != nil || p.Kind != "cat" {
			t.Errorf("tom is %v, %v", p, err)
		}
		if got := found(t, tx, "", nil); !slices.Equal(got, []string{"ada", "rex", "tom"}) {
			t.Errorf("all are %q", got)
		}
		if got := found(t, tx, "kind", store.Key("cat")); !slices.Equal(got, []string{"ada", "tom"}) {
			t.Errorf("the cats are %q", got)
		}
		if p, err := pets.Last(tx, "kind", store.Key("cat")); err != nil || p.Name != "tom" {
			t.Errorf("the last cat is %v, %v", p, err)
		}
		return nil
	})
	update(t, b, func(tx *store.Tx) error {
		if err := pets.Put(tx, &pet{"tom", "tiger", []string{"mice", "deer"}}); err != nil {
			return err
		}
		if got := found(t, tx, "kind", store.Key("cat")); !slices.Equal(got, []string{"ada"}) {
			t.Errorf("in the transaction, the cats left are %q", got)
		}
		return pets.Delete(tx, store.Key("rex"))
	})
	view(t, b, func(tx *store.Tx) error {
		for _, c := range []struct{ index, key, want string }{{"kind", "cat", "ada"}, {"kind", "tiger", "tom"}, {"kind", "dog", ""},
			{"food", "fish", ""}, {"food", "deer", "tom"}, {"food", "mice", "ada tom"}} {
			if got := strings.Join(found(t, tx, c.index, store.Key(c.key)), " "); got != c.want {
				t.Errorf("index %s has %q for %s, want %q", c.index, got, c.key, c.want)
			}
		}
		return nil
	})
}

func TestTableRefuses(t *testing.T) {
	b := create(t, &pets)
	update(t, b, func(tx *store.Tx) error { return pets.Insert(tx, &pet{Name: "tom", Kind: "cat"}) })
	for what, c := range map[string]struct {
		f    func(tx *store.Tx) error
		is   error
		says string
	}{
		"a second insert": {func(tx *store.Tx) error { return pets.Insert(tx, &pet{Name: "tom"}) }, store.ErrExists, "pet tom: exists already"},
		"a row that is not there": {func(tx *store.Tx) error {
			_, err := pets.Get(tx, store.Key("rex"))
			return err
		}, store.ErrNotFound, "pet rex: not found"},
		"deleting what is not there": {func(tx *store.Tx) error { return pets.Delete(tx, store.Key("rex")) }, store.ErrNotFound, "rex"},
		"the last of none": {func(tx *store.Tx) error {
			_, err := pets.Last(tx, "kind", store.Key("dog"))
			return err
		}, store.ErrNotFound, "dog"},
		"an index that is none": {func(tx *store.Tx) error {
			_, _, err := pets.Page(tx, store.Query{Index: "colour"})
			return err
		}, nil, "no index \"colour\""},
		"a place of another query": {func(tx *store.Tx) error {
			_, _, err := pets.Page(tx, store.Query{Index: "kind", Prefix: store.Key("cat"), After: store.Key("dog", "rex")})
			return err
		}, store.ErrConflict, "does not belong"},
		"a long key": {func(tx *store.Tx) error { return pets.Insert(tx, &pet{Name: strings.Repeat("x", store.MaxKey)}) }, nil, "at most"},
		"a long index key": {func(tx *store.Tx) error {
			return pets.Insert(tx, &pet{Name: "x", Kind: strings.Repeat("x", store.MaxKey)})
		}, nil, "at most"},
		"a large row": {func(tx *store.Tx) error {
			return pets.Insert(tx, &pet{Name: "x", Foods: []string{strings.Repeat("x", store.MaxValue)}})
		}, nil, "at most"},
	} {
		err := b.Update(ctx, c.f)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := b.View(ctx, func(tx *store.Tx) error { return pets.Put(tx, &pet{Name: "tom"}) }); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("a Put in a View: %v", err)
	}
	var kept *store.Tx
	view(t, b, func(tx *store.Tx) error { kept = tx; return nil })
	if _, err := pets.Get(kept, store.Key("tom")); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a Get after the end of the transaction: %v", err)
	}
	update(t, b, func(tx *store.Tx) error { kept = tx; return nil })
	if err := pets.Put(kept, &pet{Name: "tom"}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a Put after the end of the transaction: %v", err)
	}
}

// TestPages walks through an index page by page, both ways, with rows coming and going between the pages.
func TestPages(t *testing.T) {
	b := create(t, &pets)
	var cats []string
	update(t, b, func(tx *store.Tx) error {
		for i := range 25 {
			p := &pet{Name: fmt.Sprintf("cat%02d", i), Kind: "cat"}
			cats = append(cats, p.Name)
			if err := errors.Join(pets.Insert(tx, p), pets.Insert(tx, &pet{Name: fmt.Sprintf("dog%02d", i), Kind: "dog"})); err != nil {
				return err
			}
		}
		return pets.Insert(tx, &pet{Name: "ape", Kind: "ca"})
	})
	pages := func(reverse bool, between func(page int)) (all []string) {
		q := store.Query{Index: "kind", Prefix: store.Key("cat"), Limit: 5, Reverse: reverse}
		for page := 0; ; page++ {
			view(t, b, func(tx *store.Tx) error {
				rows, next, err := pets.Page(tx, q)
				all, q.After = append(all, names(rows)...), next
				return err
			})
			if q.After == nil {
				return all
			}
			between(page)
		}
	}
	nothing := func(int) {}
	if got := pages(false, nothing); !slices.Equal(got, cats) {
		t.Errorf("the pages give %q", got)
	}
	backward := slices.Clone(cats)
	slices.Reverse(backward)
	if got := pages(true, nothing); !slices.Equal(got, backward) {
		t.Errorf("the pages backward give %q", got)
	}
	got := pages(false, func(page int) {
		if page > 0 {
			return
		}
		update(t, b, func(tx *store.Tx) error {
			return errors.Join(pets.Delete(tx, store.Key("cat04")), // the row where the next page begins
				pets.Delete(tx, store.Key("cat09")), pets.Insert(tx, &pet{Name: "cat075", Kind: "cat"}),
				pets.Insert(tx, &pet{Name: "cat", Kind: "cat"}))
		})
	})
	want := append(slices.Clone(cats[:8]), append([]string{"cat075", "cat08"}, cats[10:]...)...)
	if !slices.Equal(got, want) {
		t.Errorf("the pages give %q, want %q", got, want)
	}
	view(t, b, func(tx *store.Tx) error {
		rows, next, err := pets.Page(tx, store.Query{})
		if len(rows) != 51 || next != nil {
			t.Errorf("a page without a limit has %d rows of 51", len(rows))
		}
		return err
	})
}

// TestScanWhileChanging changes rows in the loop that finds them.
func TestScanWhileChanging(t *testing.T) {
	b := create(t, &pets)
	update(t, b, func(tx *store.Tx) error {
		for i := range 600 {
			if err := pets.Insert(tx, &pet{Name: fmt.Sprintf("%03d", i), Kind: "old"}); err != nil {
				return err
			}
		}
		return nil
	})
	update(t, b, func(tx *store.Tx) error {
		n := 0
		for p, err := range pets.Scan(tx, "kind", store.Key("old")) {
			if err != nil {
				return err
			}
			if n++; n%3 == 0 {
				if err := pets.Delete(tx, store.Key(p.Name)); err != nil {
					return err
				}
				continue
			}
			p.Kind = "new"
			if err := pets.Put(tx, p); err != nil {
				return err
			}
			// The row two further on goes before the scan comes to it.
			if n%3 == 1 && n < 597 {
				if err := pets.Delete(tx, store.Key(fmt.Sprintf("%03d", n+1))); err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
			}
		}
		return nil
	})
	view(t, b, func(tx *store.Tx) error {
		if left := found(t, tx, "kind", store.Key("old")); len(left) > 0 {
			t.Errorf("%q were missed", left)
		}
		if len(found(t, tx, "kind", store.Key("new"))) != len(found(t, tx, "", nil)) {
			t.Error("index and table differ")
		}
		return nil
	})
}
