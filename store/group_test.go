package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hufu/store"
)

// patience is how long something may take that should not take long, on a machine that has other things to do.
const patience = 30 * time.Second

// gate is an engine whose commits can be counted, held back, made to fail, and made to run their function again.
type gate struct {
	store.Engine
	commits atomic.Int64
	before  func() error // called when the functions have run, before the engine commits; nil = nothing
	again   int          // how often the functions run for nothing first
}

func (g *gate) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	return g.Engine.Update(ctx, func(s store.Snapshot) (writes []store.Write, err error) {
		for range g.again + 1 {
			if writes, err = f(s); err != nil {
				return nil, err
			}
		}
		if len(writes) > 0 {
			g.commits.Add(1)
			if g.before != nil {
				err = g.before()
			}
		}
		return writes, err
	})
}

func gated(t testing.TB) (*store.Book, *gate) {
	t.Helper()
	g := &gate{Engine: engine(t)}
	b, err := store.Create(ctx, store.Config{Engine: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		check(t, b)
		closeBook(t, b)
	})
	g.commits.Store(0)
	return b, g
}

// hold keeps the next commit back until release is called, and says when it has come so far.
func (g *gate) hold() (held chan struct{}, release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.before = func() error {
		first := false
		once.Do(func() { first = true; close(held) })
		if first {
			<-free
		}
		return nil
	}
	return held, func() { close(free) }
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

func wait(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited too long until %s", what)
	}
}

// TestGroup holds one commit back while writers of every temper gather behind it.
func TestGroup(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("leader")) })
	wait(t, "the leader commits", held)

	refusal := errors.New("refusal")
	var unwound atomic.Int64
	tempers := map[string]func(tx *store.Tx) error{
		"good":   append1("good"),
		"good2":  append1("good"),
		"failed": func(tx *store.Tx) error { tx.Append(store.Event{Kind: "failed"}); return refusal },
		"panics": func(tx *store.Tx) error { tx.Append(store.Event{Kind: "panics"}); panic("panic") },
		"ends":   func(tx *store.Tx) error { tx.Append(store.Event{Kind: "ends"}); runtime.Goexit(); return nil },
		"reads":  func(tx *store.Tx) error { return nil },
	}
	for name, f := range tempers {
		for range 8 {
			go func() {
				defer group.Done()
				defer func() {
					if recover() != nil || name == "ends" {
						unwound.Add(1)
					}
				}()
				err := b.Update(ctx, f)
				if want := map[string]error{"failed": refusal}[name]; !errors.Is(err, want) {
					t.Errorf("%s: %v", name, err)
				}
			}()
			group.Add(1)
		}
	}
	until(t, "all wait", func() bool { return store.Waiting(b) == 8*len(tempers) })
	release()
	group.Wait()

	// Where one that unwinds is the next leader, its group commits under another.
	if n := g.commits.Load(); n != 2 {
		t.Errorf("%d writers made %d commits, want 2", 8*len(tempers)+1, n)
	}
	if n := unwound.Load(); n != 16 {
		t.Errorf("%d functions unwound of 16", n)
	}
	kinds := map[string]int{}
	events, err := b.Events(ctx, 1, 0)
	for _, e := range events {
		kinds[e.Kind]++
	}
	if err != nil || len(kinds) != 2 || kinds["leader"] != 1 || kinds["good"] != 16 {
		t.Errorf("the journal has %v, %v", kinds, err)
	}
}

// TestLeaderUnwinds lets a leader panic, and end its goroutine, before those behind it have run.
func TestLeaderUnwinds(t *testing.T) {
	for name, unwind := range map[string]func(){"panic": func() { panic("panic") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			b, _ := gated(t)
			inside, free, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { recover() }()
				b.Update(ctx, func(tx *store.Tx) error {
					close(inside)
					<-free
					tx.Append(store.Event{Kind: "never"})
					unwind()
					return nil
				})
			}()
			wait(t, "the leader runs", inside)
			var group sync.WaitGroup
			for range 10 {
				group.Go(func() { update(t, b, append1("good")) })
			}
			until(t, "all wait", func() bool { return store.Waiting(b) == 10 })
			close(free)
			group.Wait()
			wait(t, "the leader is gone", ended)
			if tree, err := b.Tree(ctx); err != nil || tree.Size != 11 {
				t.Errorf("the journal has %d events of 11, %v", tree.Size, err)
			}
		})
	}
}

// TestFirstOfGroupUnwinds lets the first of those who wait panic in front of the others of its own group.
func TestFirstOfGroupUnwinds(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("leader")) })
	wait(t, "the leader commits", held)
	for i := range 10 {
		group.Go(func() {
			defer func() { recover() }()
			err := b.Update(ctx, func(tx *store.Tx) error {
				if i == 0 {
					panic("panic")
				}
				tx.Append(store.Event{Kind: "good"})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		until(t, "it waits", func() bool { return store.Waiting(b) == i+1 })
	}
	release()
	group.Wait()
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 11 {
		t.Errorf("the journal has %d events of 11, %v", tree.Size, err)
	}
}

// TestLoneWriter sees on the fake clock of a bubble that no timer is waited for.
func TestLoneWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, g := gated(t)
		begun := time.Now()
		for range 10 {
			update(t, b, append1("lone"))
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("a lone writer waited %v", waited)
		}
		if n := g.commits.Load(); n != 10 {
			t.Errorf("10 writes one after the other made %d commits", n)
		}
	})
}

// TestManyWriters counts what 64 writers do when nobody holds them.
func TestManyWriters(t *testing.T) {
	b, g := gated(t)
	const writers, each = 64, 20
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				var seq uint64
				err := b.Update(ctx, func(tx *store.Tx) error {
					seq = tx.Append(store.Event{Kind: "test", Actor: fmt.Sprint(w), Detail: fmt.Sprint(i)})
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				events, err := b.Events(ctx, seq-1, 1)
				if err != nil || len(events) != 1 || events[0].Actor != fmt.Sprint(w) || events[0].Detail != fmt.Sprint(i) {
					t.Errorf("event %d is %v, %v; want %d of writer %d", seq, events, err, i, w)
				}
			}
		})
	}
	group.Wait()
	if n := g.commits.Load(); n >= writers*each {
		t.Errorf("%d updates made %d commits", writers*each, n)
	}
}

// TestFailedCommit tells everybody in the group.
func TestFailedCommit(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("leader")) })
	wait(t, "the leader commits", held)
	broken := errors.New("broken")
	for i := range 10 {
		group.Go(func() {
			err := b.Update(ctx, func(tx *store.Tx) error {
				tx.Append(store.Event{Kind: "lost"})
				if i%2 == 0 {
					return errors.New("what it read may never have been")
				}
				return nil
			})
			if !errors.Is(err, broken) {
				t.Errorf("after a commit that failed: %v", err)
			}
		})
	}
	until(t, "all wait", func() bool { return store.Waiting(b) == 10 })
	g.before = func() error { return broken }
	release()
	group.Wait()
	g.before = nil
	update(t, b, append1("after"))
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 3 {
		t.Errorf("the journal has %d events of 3, %v", tree.Size, err)
	}
}

// TestRunAgain lets the engine run every function three times, as a serialisation failure would.
func TestRunAgain(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("leader")) })
	wait(t, "the leader commits", held)
	for i := range 10 {
		group.Go(func() {
			defer func() { recover() }()
			runs := 0
			err := b.Update(ctx, func(tx *store.Tx) error {
				runs++
				if i == 5 {
					panic("panic")
				}
				tx.Append(store.Event{Kind: "good"})
				return pets.Insert(tx, &pet{Name: fmt.Sprint(i)})
			})
			if err != nil || runs != 3 {
				t.Errorf("the function ran %d times of 3: %v", runs, err)
			}
		})
	}
	until(t, "all wait", func() bool { return store.Waiting(b) == 10 })
	g.again = 2
	release()
	group.Wait()
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 11 {
		t.Errorf("the journal has %d events of 11, %v", tree.Size, err)
	}
}

// TestWithdraw ends the context of writers that wait, and of one whose function has run.
func TestWithdraw(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	leading, cancelLeader := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := b.Update(leading, append1("leader")); err != nil {
			t.Errorf("the writer whose function had run: %v", err)
		}
	})
	wait(t, "the leader commits", held)
	cancelLeader()
	for i := range 10 {
		waiting, cancel := context.WithCancel(ctx)
		group.Go(func() {
			err := b.Update(waiting, append1("waiting"))
			if i%2 == 0 && !errors.Is(err, context.Canceled) || i%2 == 1 && err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
		until(t, "it waits", func() bool { return store.Waiting(b) == i/2+1 })
		if i%2 == 0 {
			cancel()
			until(t, "it is gone", func() bool { return store.Waiting(b) == i/2 })
		}
		defer cancel()
	}
	release()
	group.Wait()
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 7 {
		t.Errorf("the journal has %d events of 7, %v", tree.Size, err)
	}
	if err := b.Update(leading, append1("never")); !errors.Is(err, context.Canceled) {
		t.Errorf("Update with a cancelled context: %v", err)
	}
}

// TestCancelAfterRun ends the context of a follower whose function has run: the answer is how the commit came out.
func TestCancelAfterRun(t *testing.T) {
	b, g := gated(t)
	held, free := make(chan struct{}), make(chan struct{})
	g.before = func() error {
		held <- struct{}{}
		<-free
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("first")) })
	wait(t, "the first commits", held)
	group.Go(func() { update(t, b, append1("leader")) })
	until(t, "the leader waits", func() bool { return store.Waiting(b) == 1 })
	following, cancel := context.WithCancel(ctx)
	answered := make(chan struct{})
	group.Go(func() {
		defer close(answered)
		if err := b.Update(following, append1("follower")); err != nil {
			t.Errorf("a writer whose commit came out well: %v", err)
		}
	})
	until(t, "the follower waits", func() bool { return store.Waiting(b) == 2 })
	free <- struct{}{}
	wait(t, "the second group commits", held)
	cancel()
	select {
	case <-answered:
		t.Error("the follower is answered before the commit")
	case <-time.After(50 * time.Millisecond): // it has had its chance to go wrong
	}
	free <- struct{}{}
	group.Wait()
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 4 {
		t.Errorf("the journal has %d events of 4, %v", tree.Size, err)
	}
}

// TestLargeGroup lets more gather than fits into one commit.
func TestLargeGroup(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("leader")) })
	wait(t, "the leader commits", held)
	const writers = 40
	octets := make([]byte, 900_000)
	for i := range writers {
		group.Go(func() {
			update(t, b, func(tx *store.Tx) error {
				tx.Append(store.Event{Kind: "large"})
				return pets.Insert(tx, &pet{Name: fmt.Sprint(i)})
			})
		})
		group.Go(func() {
			update(t, b, func(tx *store.Tx) error {
				crl := &store.CRL{CA: fmt.Sprint(i), Number: 1}
				crl.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: crl.CA})
				return store.PutCRL(tx, crl, bytes.NewReader(octets))
			})
		})
	}
	until(t, "all wait", func() bool { return store.Waiting(b) == 2*writers })
	release()
	group.Wait()
	if n := g.commits.Load(); n < 3 || n > 6 {
		t.Errorf("36 MB made %d commits, want 3 or a few more", n)
	}
	if tree, err := b.Tree(ctx); err != nil || tree.Size != 2*writers+2 {
		t.Errorf("the journal has %d events of %d, %v", tree.Size, 2*writers+2, err)
	}
}

// TestViewDoesNotWait reads, again and again, while a commit is held back, and sees nothing of it.
func TestViewDoesNotWait(t *testing.T) {
	b, g := gated(t)
	held, release := g.hold()
	var group sync.WaitGroup
	group.Go(func() { update(t, b, append1("held")) })
	wait(t, "the leader commits", held)
	for range 100 {
		if tree, err := b.Tree(ctx); err != nil || tree.Size != 1 {
			t.Errorf("the journal has %d events, %v", tree.Size, err)
		}
	}
	release()
	group.Wait()
}

func TestClose(t *testing.T) {
	b, err := store.Create(ctx, store.Config{Engine: engine(t)})
	if err != nil {
		t.Fatal(err)
	}
	followed := make(chan error)
	go func() {
		_, err := b.Follow(ctx, 1, 0)
		followed <- err
	}()
	closeBook(t, b)
	select {
	case err := <-followed:
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("Follow over a Close: %v", err)
		}
	case <-time.After(patience):
		t.Error("Follow goes on after Close")
	}
	if err := b.Update(ctx, append1("never")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	if err := b.View(ctx, func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("View after Close: %v", err)
	}
}
