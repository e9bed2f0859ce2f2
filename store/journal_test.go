package store_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"hufu/store"
)

// TestMerkleVectors holds the tree to vectors that another program computed (RFC 6962, Section 2.1).
func TestMerkleVectors(t *testing.T) {
	var v struct {
		Leaves      []string `json:"leaves_ascii"`
		Hashes      []string `json:"leaf_hashes"`
		Empty       string   `json:"empty_root"`
		Root1       string   `json:"root_1"`
		Root3       string   `json:"root_3"`
		Root4       string   `json:"root_4"`
		Root5       string   `json:"root_5"`
		Inclusion   []string `json:"inclusion_index2_size5"`
		Consistency []string `json:"consistency_3_to_5"`
	}
	text, err := os.ReadFile("testdata/merkle.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for _, leaf := range v.Leaves {
		leaves = append(leaves, []byte(leaf))
	}
	for size, want := range map[int]string{0: v.Empty, 1: v.Root1, 3: v.Root3, 4: v.Root4, 5: v.Root5} {
		if root, _ := store.GrowTree(leaves[:size]...); !strings.EqualFold(root.String(), want) {
			t.Errorf("the root of %d leaves is %s, want %s", size, root, want)
		}
	}
	_, nodes := store.GrowTree(leaves...)
	reader := tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
		for _, i := range indexes {
			list = append(list, tlog.Hash(nodes[i]))
		}
		return list, nil
	})
	for i, want := range v.Hashes {
		if got := nodes[tlog.StoredHashIndex(0, int64(i))]; !strings.EqualFold(got.String(), want) {
			t.Errorf("leaf %d is %s, want %s", i, got, want)
		}
	}
	inclusion, err := tlog.ProveRecord(5, 2, reader)
	compare(t, "inclusion", inclusion, err, v.Inclusion)
	consistency, err := tlog.ProveTree(5, 3, reader)
	compare(t, "consistency", consistency, err, v.Consistency)
}

func compare(t *testing.T, what string, proof []tlog.Hash, err error, want []string) {
	t.Helper()
	var got []string
	for _, h := range proof {
		got = append(got, strings.ToUpper(hex.EncodeToString(h[:])))
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the proof of %s is %q, %v; want %q", what, got, err, want)
	}
}

// TestProofs proves every event in, and the consistency of, the trees of every size of a small book, appended to by ones and by several.
func TestProofs(t *testing.T) {
	b := create(t)
	trees := []store.Tree{{}, tree(t, b)}
	for len(trees) < 70 {
		update(t, b, append1("test"))
		trees = append(trees, tree(t, b))
	}
	update(t, b, func(tx *store.Tx) error {
		for range 100 {
			tx.Append(store.Event{Kind: "test"})
		}
		return nil
	})
	for update(t, b, append1("test")); int64(len(trees)) <= tree(t, b).Size; {
		trees = append(trees, store.Tree{}) // sizes that nobody saw
	}
	trees[len(trees)-1] = tree(t, b)
	events, err := b.Events(ctx, 0, len(trees))
	if err != nil || len(events) != len(trees)-1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for size, to := range trees {
		for from := 1; from <= size && to.Size > 0; from++ {
			p, err := b.ProveInclusion(ctx, uint64(from), int64(size))
			if err == nil {
				err = store.CheckInclusion(p, &events[from-1], to.Root)
			}
			if err != nil {
				t.Fatalf("event %d in size %d: %v", from, size, err)
			}
			if trees[from].Size == 0 {
				continue
			}
			if p, err = b.ProveConsistency(ctx, int64(from), int64(size)); err == nil {
				err = store.CheckConsistency(p, trees[from].Root, to.Root)
			}
			if err != nil {
				t.Fatalf("size %d before size %d: %v", from, size, err)
			}
		}
	}
	testWrongProofs(t, b, events, trees)
}

func tree(t testing.TB, b *store.Book) store.Tree {
	t.Helper()
	tree, err := b.Tree(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func testWrongProofs(t *testing.T, b *store.Book, events []store.Event, trees []store.Tree) {
	p, err := b.ProveInclusion(ctx, 20, 60)
	if err != nil {
		t.Fatal(err)
	}
	edited := events[19]
	edited.Detail = "edited"
	wrong := store.Proof{From: p.From, Size: p.Size, Hashes: slices.Clone(p.Hashes)}
	wrong.Hashes[2][5] ^= 1
	for what, err := range map[string]error{
		"another event":  store.CheckInclusion(p, &events[20], trees[60].Root),
		"an edited one":  store.CheckInclusion(p, &edited, trees[60].Root),
		"another root":   store.CheckInclusion(p, &events[19], trees[59].Root),
		"another hash":   store.CheckInclusion(wrong, &events[19], trees[60].Root),
		"no proof":       store.CheckInclusion(store.Proof{}, &store.Event{}, trees[60].Root),
		"of consistency": store.CheckConsistency(store.Proof{From: 1, Size: 60}, trees[1].Root, trees[60].Root),
		"of nothing":     store.CheckConsistency(store.Proof{}, trees[1].Root, trees[60].Root),
	} {
		if err == nil {
			t.Errorf("%s is believed", what)
		}
	}
	for _, c := range []struct {
		from uint64
		size int64
	}{{0, 5}, {6, 5}, {1, int64(len(trees))}, {1, -1}} {
		if p, err := b.ProveInclusion(ctx, c.from, c.size); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("inclusion from %d to %d: %v, %v", c.from, c.size, p, err)
		}
		if p, err := b.ProveConsistency(ctx, int64(c.from), c.size); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("consistency from %d to %d: %v, %v", c.from, c.size, p, err)
		}
	}
	if p, err := b.ProveInclusion(ctx, 3, 0); err != nil || p.Size != int64(len(trees)-1) {
		t.Errorf("a proof to the present tree leads to %d, %v", p.Size, err)
	}
}

func TestEvents(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 10, time.FixedZone("CST", 8*3600))
	b, err := store.Create(ctx, store.Config{Engine: engine(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeBook(t, b)
	own := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	update(t, b, func(tx *store.Tx) error {
		for i := range 10 {
			if seq := tx.Append(store.Event{Kind: "test"}); seq != uint64(i)+2 || tx.Head() != seq {
				t.Errorf("event %d has Seq %d, the head is %d", i, seq, tx.Head())
			}
		}
		tx.Append(store.Event{Kind: "old", Time: own})
		if !tx.Now().Equal(now) || tx.Now().Location() != time.UTC {
			t.Errorf("the transaction has the time %v", tx.Now())
		}
		return nil
	})
	for _, c := range []struct {
		after uint64
		limit int
		want  int
	}{{0, 0, 12}, {0, 5, 5}, {5, 100, 7}, {11, 1, 1}, {12, 5, 0}} {
		events, err := b.Events(ctx, c.after, c.limit)
		if err != nil || len(events) != c.want {
			t.Errorf("after %d, limit %d: %d events, %v", c.after, c.limit, len(events), err)
		}
		for i, e := range events {
			if e.Seq != c.after+uint64(i)+1 {
				t.Errorf("after %d there is %d at place %d", c.after, e.Seq, i)
			}
		}
	}
	if _, err := b.Events(ctx, 13, 0); !errors.Is(err, store.ErrConflict) {
		t.Errorf("events beyond the end: %v", err)
	}
	if _, err := b.Follow(ctx, 13, 0); !errors.Is(err, store.ErrConflict) {
		t.Errorf("following from beyond the end: %v", err)
	}
	view(t, b, func(tx *store.Tx) error {
		for seq, want := range map[uint64]time.Time{1: now.UTC(), 12: own} {
			if e, err := tx.Event(seq); err != nil || e.Time != want {
				t.Errorf("event %d has the time %v, %v", seq, e.Time, err)
			}
		}
		if _, err := tx.Event(13); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("event 13: %v", err)
		}
		return nil
	})
}

// TestFollow lets many readers follow many writers.
func TestFollow(t *testing.T) {
	b := create(t)
	const readers, writers, each = 8, 8, 50
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for after := uint64(0); after < writers*each+1; {
				events, err := b.Follow(ctx, after, 7)
				if err != nil || len(events) == 0 || len(events) > 7 {
					t.Errorf("following from %d gives %d events, %v", after, len(events), err)
					return
				}
				for _, e := range events {
					if after++; e.Seq != after {
						t.Errorf("event %d comes where %d belongs", e.Seq, after)
					}
				}
			}
		})
	}
	for range writers {
		group.Go(func() {
			for range each {
				if err := b.Update(ctx, append1("test")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	waiting, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Follow(waiting, writers*each+1, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("following with a cancelled context: %v", err)
	}
}

// TestFollowEndsWithContext ends the context of a reader that waits.
func TestFollowEndsWithContext(t *testing.T) {
	b := create(t)
	waiting, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		_, err := b.Follow(waiting, 1, 0)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow ends with %v", err)
	}
}
