// Package enginetest holds every store.Engine to one contract. It is for tests only.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hufu/store"
)

// patience is how long something may take that should not take long, on a machine that has other things to do.
const patience = 30 * time.Second

// Run holds the engines that open returns to the contract of store.Engine. open returns a fresh, empty engine each time; Run closes it.
func Run(t *testing.T, open func(t *testing.T) store.Engine) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, store.Engine)
	}{
		{"Values", testValues},
		{"Limits", testLimits},
		{"Ranges", testRanges},
		{"ScanInScan", testScanInScan},
		{"NothingKept", testNothingKept},
		{"CancelledContext", testCancelledContext},
		{"SnapshotIsOld", testSnapshotIsOld},
		{"ReaderBlocksNobody", testReaderBlocksNobody},
		{"UpdatesAreSerial", testUpdatesAreSerial},
		{"UpdateSeesNewest", testUpdateSeesNewest},
		{"Changed", testChanged},
		{"ChangedMissesNothing", testChangedMissesNothing},
		{"Model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := open(t)
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			test.f(t, e)
		})
	}
	t.Run("Close", func(t *testing.T) { testClose(t, open(t)) })
}

// write makes writes from pairs of key and value; "-" deletes. It may run on any goroutine.
func write(t testing.TB, e store.Engine, pairs ...string) {
	t.Helper()
	if err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { return writes(pairs...), nil }); err != nil {
		t.Error(err)
	}
}

func writes(pairs ...string) []store.Write {
	var list []store.Write
	for i := 0; i < len(pairs); i += 2 {
		w := store.Write{Key: pairs[i], Value: []byte(pairs[i+1])}
		if pairs[i+1] == "-" {
			w.Value = nil
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b store.Write) int { return strings.Compare(a.Key, b.Key) })
	return list
}

func view(t testing.TB, e store.Engine, f func(s store.Snapshot)) {
	t.Helper()
	err := e.View(t.Context(), func(s store.Snapshot) error {
		f(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// get returns a value as text, "-" for none.
func get(t testing.TB, s store.Snapshot, key string) string {
	t.Helper()
	v, err := s.Get([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return "-"
	}
	return string(v)
}

func want(t testing.TB, e store.Engine, key, value string) {
	t.Helper()
	view(t, e, func(s store.Snapshot) {
		t.Helper()
		if got := get(t, s, key); got != value {
			t.Fatalf("value of %q is %q, want %q", key, got, value)
		}
	})
}

// keys returns the keys in a range, in the order of the scan.
func keys(t testing.TB, s store.Snapshot, from, to []byte, reverse bool) []string {
	t.Helper()
	list := []string{}
	for pair, err := range s.Scan(from, to, reverse) {
		if err != nil {
			t.Fatal(err)
		}
		if string(pair.Value) != "v"+string(pair.Key) {
			t.Fatalf("the scan gives %q for %q", pair.Value, pair.Key)
		}
		list = append(list, string(pair.Key))
	}
	return list
}

func testValues(t *testing.T, e store.Engine) {
	want(t, e, "absent", "-")
	write(t, e, "a", "1", "b", "2", "empty", "")
	want(t, e, "a", "1")
	want(t, e, "b", "2")
	want(t, e, "empty", "") // an empty value is not none
	write(t, e, "a", "one", "b", "-", "nothing there", "-")
	want(t, e, "a", "one")
	want(t, e, "b", "-")
	write(t, e, "b", "back")
	want(t, e, "b", "back")
}

func testLimits(t *testing.T, e store.Engine) {
	long, large := strings.Repeat("k", store.MaxKey), strings.Repeat("v", store.MaxValue)
	write(t, e, "k", "short", long, large, long[1:], "")
	want(t, e, long, large)
	want(t, e, "k", "short")
	write(t, e, long, "-")
	want(t, e, long, "-")
}

func testRanges(t *testing.T, e store.Engine) {
	all := []string{"\x00", "\x00\x00", "a", "a\x00", "ab", "b", "b\xff", "b\xff\xff", "c", "cc", "\xff", "\xff\xff"}
	var pairs []string
	for _, k := range all {
		pairs = append(pairs, k, "v"+k)
	}
	write(t, e, pairs...)
	bounds := [][]byte{nil, {0}, {0, 1}, []byte("a"), []byte("a\x00"), []byte("aa"), []byte("b"), []byte("b\xff"), []byte("bb"), []byte("c"),
		[]byte("d"), {0xff}, {0xff, 0xff, 0xff}}
	view(t, e, func(s store.Snapshot) {
		for _, from := range bounds {
			for _, to := range bounds {
				expect := []string{}
				for _, k := range all {
					if k >= string(from) && (to == nil || k < string(to)) {
						expect = append(expect, k)
					}
				}
				if got := keys(t, s, from, to, false); !slices.Equal(got, expect) {
					t.Errorf("scan from %q to %q gives %q, want %q", from, to, got, expect)
				}
				slices.Reverse(expect)
				if got := keys(t, s, from, to, true); !slices.Equal(got, expect) {
					t.Errorf("reverse scan from %q to %q gives %q, want %q", from, to, got, expect)
				}
			}
		}
	})
}

// testScanInScan reads in all ways while a scan goes on, and leaves scans early.
func testScanInScan(t *testing.T, e store.Engine) {
	write(t, e, "a", "va", "b", "vb", "c", "vc")
	view(t, e, func(s store.Snapshot) {
		var seen []string
		for outer := range s.Scan([]byte("a"), nil, false) {
			for inner := range s.Scan([]byte("a"), nil, true) {
				seen = append(seen, string(outer.Key)+string(inner.Key)+get(t, s, "b"))
				if bytes.Equal(inner.Key, outer.Key) {
					break
				}
			}
		}
		expect := []string{"acvb", "abvb", "aavb", "bcvb", "bbvb", "ccvb"}
		if !slices.Equal(seen, expect) {
			t.Errorf("saw %q, want %q", seen, expect)
		}
	})
}

func testNothingKept(t *testing.T, e store.Engine) {
	write(t, e, "a", "1")
	refusal := errors.New("refusal")
	err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { return writes("a", "2"), refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("Update returns %v in place of the error of its function", err)
	}
	func() {
		defer func() {
			if recover() != "panic" {
				t.Error("the panic of the function is gone")
			}
		}()
		e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { panic("panic") })
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { runtime.Goexit(); return nil, nil })
	}()
	wait(t, ended)
	if err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	want(t, e, "a", "1")
	write(t, e, "a", "3") // and it still works
	want(t, e, "a", "3")
}

func testCancelledContext(t *testing.T, e store.Engine) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.View(ctx, func(store.Snapshot) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("View with a cancelled context: %v", err)
	}
	if err := e.Update(ctx, func(store.Snapshot) ([]store.Write, error) { return writes("a", "1"), nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update with a cancelled context: %v", err)
	}
	want(t, e, "a", "-")
}

func testSnapshotIsOld(t *testing.T, e store.Engine) {
	write(t, e, "a", "va", "b", "vb")
	view(t, e, func(s store.Snapshot) {
		value, err := s.Get([]byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			write(t, e, "a", strconv.Itoa(i), "b", "-", fmt.Sprintf("c%03d", i), strings.Repeat("x", 10_000))
		}
		if string(value) != "va" || get(t, s, "a") != "va" {
			t.Error("what a snapshot gave changed under a later commit")
		}
		if got := keys(t, s, nil, nil, false); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("a snapshot sees %q after later commits", got)
		}
	})
	want(t, e, "a", "99")
	want(t, e, "b", "-")
}

// testReaderBlocksNobody holds a snapshot while the engine grows by far more than it began with.
func testReaderBlocksNobody(t *testing.T, e store.Engine) {
	write(t, e, "a", "va")
	view(t, e, func(s store.Snapshot) {
		written := make(chan struct{})
		go func() {
			defer close(written)
			large := strings.Repeat("x", store.MaxValue)
			for i := range 24 {
				write(t, e, fmt.Sprintf("large%03d", i), large)
			}
		}()
		wait(t, written)
		if got := keys(t, s, nil, nil, false); !slices.Equal(got, []string{"a"}) {
			t.Errorf("the snapshot sees %q", got)
		}
	})
}

func testUpdatesAreSerial(t *testing.T, e store.Engine) {
	const writers, each = 8, 25
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				err := e.Update(t.Context(), func(s store.Snapshot) ([]store.Write, error) {
					v, err := s.Get([]byte("counter"))
					if err != nil {
						return nil, err
					}
					n, _ := strconv.Atoi(string(v))
					return writes("counter", strconv.Itoa(n+1)), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	want(t, e, "counter", strconv.Itoa(writers*each))
}

func testUpdateSeesNewest(t *testing.T, e store.Engine) {
	for i := range 10 {
		err := e.Update(t.Context(), func(s store.Snapshot) ([]store.Write, error) {
			if n := len(keys(t, s, nil, nil, false)); n != i {
				t.Errorf("Update sees %d keys of %d", n, i)
			}
			k := strconv.Itoa(i)
			return writes(k, "v"+k), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func testChanged(t *testing.T, e store.Engine) {
	changed := e.Changed()
	go write(t, e, "a", "1")
	wait(t, changed)
	want(t, e, "a", "1")
}

// testChangedMissesNothing follows a counter as a reader of the journal does: a channel, a look, a wait.
func testChangedMissesNothing(t *testing.T, e store.Engine) {
	const last = "200"
	go func() {
		for i := range 201 {
			write(t, e, "counter", strconv.Itoa(i))
		}
	}()
	for seen := "-"; seen != last; {
		changed := e.Changed()
		view(t, e, func(s store.Snapshot) { seen = get(t, s, "counter") })
		if seen != last {
			wait(t, changed)
		}
	}
}

// testModel makes random writes and compares all that can be read with a map.
func testModel(t *testing.T, e store.Engine) {
	model := make(map[string]string)
	key := rapid.StringMatching(`[a-c][a-c\x00\xff]{0,3}`)
	rapid.Check(t, func(r *rapid.T) {
		batch := rapid.MapOfN(key, rapid.SampledFrom([]string{"", "-", "one", "two"}), 0, 8).Draw(r, "writes")
		var pairs []string
		for k, v := range batch {
			pairs = append(pairs, k, v)
		}
		if rapid.Bool().Draw(r, "kept") {
			write(t, e, pairs...)
			for k, v := range batch {
				if model[k] = v; v == "-" {
					delete(model, k)
				}
			}
		} else if e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { return writes(pairs...), errors.New("no") }) == nil {
			r.Fatal("the error of the function is gone")
		}
		from, to := rapid.String().Draw(r, "from"), key.Draw(r, "to")
		reverse := rapid.Bool().Draw(r, "reverse")
		view(t, e, func(s store.Snapshot) {
			expect := slices.Sorted(maps.Keys(model))
			expect = slices.DeleteFunc(expect, func(k string) bool { return k < from || k >= to })
			if reverse {
				slices.Reverse(expect)
			}
			i := 0
			for k, v := range scan(s, from, to, reverse) {
				if i == len(expect) || k != expect[i] || v != model[k] {
					r.Fatalf("the scan from %q to %q gives %q = %q at place %d of %q", from, to, k, v, i, expect)
				}
				i++
			}
			if i != len(expect) {
				r.Fatalf("the scan from %q to %q ends after %d of %q", from, to, i, expect)
			}
		})
	})
}

func scan(s store.Snapshot, from, to string, reverse bool) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for pair, err := range s.Scan([]byte(from), []byte(to), reverse) {
			if err != nil {
				yield("error", err.Error())
				return
			}
			if !yield(string(pair.Key), string(pair.Value)) {
				return
			}
		}
	}
}

func testClose(t *testing.T, e store.Engine) {
	changed := e.Changed()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, changed)
	if err := e.View(t.Context(), func(store.Snapshot) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("View of a closed engine: %v", err)
	}
	if err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) { return nil, nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update of a closed engine: %v", err)
	}
	wait(t, e.Changed())
}

func wait(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("waited too long")
	}
}
