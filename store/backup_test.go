package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"hufu/store"
)

func backup(t testing.TB, b *store.Book) []byte {
	t.Helper()
	var stream bytes.Buffer
	if err := b.Backup(ctx, &stream, nil); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

// records returns all of contents but what the book knows of itself and the last of the events.
func records(t testing.TB, path string) (lines []string) {
	for line := range strings.Lines(string(contents(t, path))) {
		if line[:2] != "62" && line[:2] != "65" && line[:2] != "6e" { // b, e, n
			lines = append(lines, line)
		}
	}
	return lines
}

func TestBackupAndRestore(t *testing.T) {
	w := newWorld(t)
	var stream bytes.Buffer
	var before store.Tree
	var id string
	w.open(t, func(b *store.Book) {
		before, id = tree(t, b), b.ID()
		var last, total int64
		if err := b.Backup(ctx, &stream, func(done, of int64) { last, total = done, of }); err != nil || last != total || total < 50 {
			t.Fatalf("the backup ends at %d of %d, %v", last, total, err)
		}
	})
	about, err := store.VerifyBackup(ctx, bytes.NewReader(stream.Bytes()), nil)
	if err != nil || about.Book != id || about.Epoch != 1 || about.Size != before.Size || about.Root != before.Root || about.Format != store.Format {
		t.Errorf("the backup says %+v, %v", about, err)
	}

	path := filepath.Join(t.TempDir(), "book")
	now := time.Now().Add(time.Hour)
	b, err := store.Restore(ctx, store.Config{Engine: engineAt(t, path), Now: func() time.Time { return now }}, iotest.OneByteReader(&stream), "operator")
	if err != nil {
		t.Fatal(err)
	}
	if b.ID() != id || b.Epoch() != uint64(now.UnixMilli()) || tree(t, b).Size != before.Size+1 {
		t.Errorf("the restored book is %s, epoch %d, %d events", b.ID(), b.Epoch(), tree(t, b).Size)
	}
	epochs := b.Epochs()
	if len(epochs) != 2 || epochs[1].Epoch != b.Epoch() || epochs[1].Size != before.Size {
		t.Errorf("its epochs are %v", epochs)
	}
	events, err := b.Events(ctx, uint64(before.Size), 0)
	if err != nil || len(events) != 1 || events[0].Kind != store.KindBookRestored || events[0].Actor != "operator" {
		t.Fatalf("the new epoch begins with %v, %v", events, err)
	}
	var said struct {
		Epoch      uint64     `json:"epoch"`
		From       uint64     `json:"from_epoch"`
		Size       int64      `json:"size"`
		Root       store.Hash `json:"root"`
		Checkpoint struct {
			Event uint64     `json:"event"`
			Size  int64      `json:"size"`
			Root  store.Hash `json:"root"`
		} `json:"checkpoint"`
	}
	if err := json.Unmarshal([]byte(events[0].Detail), &said); err != nil || said.Epoch != b.Epoch() || said.From != 1 || said.Size != before.Size ||
		said.Root != before.Root || said.Checkpoint.Event != uint64(before.Size) || said.Checkpoint.Size != before.Size-1 {
		t.Errorf("it says %s, %v", events[0].Detail, err)
	}
	check(t, b)
	issue(t, b, "330100", 2)
	check(t, b)
	closeBook(t, b)
	w2 := *w
	w2.path = path
	w2.open(t, func(b *store.Book) { check(t, b) })
}

// TestRestoreIsExact compares every record of the old file with the new one's.
func TestRestoreIsExact(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "book")
	w.open(t, func(b *store.Book) {
		r, err := store.Restore(ctx, store.Config{Engine: engineAt(t, path)}, bytes.NewReader(backup(t, b)), "")
		if err != nil {
			t.Fatal(err)
		}
		closeBook(t, r)
	})
	old, restored := records(t, w.path), records(t, path)
	if len(old) < 200 || strings.Join(old, "") != strings.Join(restored, "") {
		t.Errorf("%d records became %d, or others", len(old), len(restored))
	}
}

// TestBackupWhileWriting makes backups under load; each is consistent, and none stops the writers.
func TestBackupWhileWriting(t *testing.T) {
	b := create(t)
	issue(t, b, "330100", 50)
	reading, writing := io.Pipe()
	done := make(chan error)
	go func() { done <- errors.Join(b.Backup(ctx, writing, nil), writing.Close()) }()
	first := make([]byte, 10)
	if _, err := io.ReadFull(reading, first); err != nil { // the snapshot is taken
		t.Fatal(err)
	}
	size := tree(t, b).Size
	issue(t, b, "330100", 500)
	r, err := store.Restore(ctx, store.Config{Engine: engine(t)}, io.MultiReader(bytes.NewReader(first), reading), "")
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	defer closeBook(t, r)
	check(t, r)
	if got := tree(t, r).Size; got != size+1 {
		t.Errorf("the backup has %d events; when it began there were %d", got-1, size)
	}
}

func empty(t testing.TB, e store.Engine) bool {
	t.Helper()
	found := false
	err := e.View(ctx, func(s store.Snapshot) error {
		for range s.Scan(nil, nil, false) {
			found = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return !found
}

// TestRestoreRefusesDamage changes, cuts and lengthens a backup at many places; the engine stays empty, and good for the next try.
func TestRestoreRefusesDamage(t *testing.T) {
	w := newWorld(t)
	var good []byte
	w.open(t, func(b *store.Book) { good = backup(t, b) })
	if _, err := store.VerifyBackup(ctx, bytes.NewReader(good), nil); err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"nothing": nil, "an octet more": append(bytes.Clone(good), 0), "another stream": []byte("hufu backup 9\n")}
	for n := 0; n < len(good); n += 1 + len(good)/400 {
		edited := bytes.Clone(good)
		edited[n] ^= 0x20
		damaged["an edit"] = edited
		damaged["a cut"] = good[:n]
		for what, stream := range damaged {
			if _, err := store.VerifyBackup(ctx, bytes.NewReader(stream), nil); err == nil {
				t.Errorf("a backup with %s at %d is believed", what, n)
			}
		}
	}
	e := engine(t)
	for _, stream := range [][]byte{good[:len(good)-1], good[:len(good)/2], good[:100], nil} {
		if b, err := store.Restore(ctx, store.Config{Engine: e}, bytes.NewReader(stream), ""); err == nil {
			t.Errorf("a backup of %d octets in place of %d is restored: %v", len(stream), len(good), b)
		}
		if !empty(t, e) {
			t.Error("what was read of a damaged backup is still there")
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	stream := io.MultiReader(bytes.NewReader(good[:len(good)/2]), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.ErrNoProgress }))
	if _, err := store.Restore(cancelled, store.Config{Engine: e}, stream, ""); err == nil || !empty(t, e) {
		t.Errorf("a restore that was cancelled: %v", err)
	}
	b, err := store.Restore(ctx, store.Config{Engine: e}, bytes.NewReader(good), "")
	if err != nil {
		t.Fatal(err)
	}
	check(t, b)
	if _, err := store.Restore(ctx, store.Config{Engine: e}, bytes.NewReader(good), ""); !errors.Is(err, store.ErrExists) {
		t.Errorf("restoring over a book: %v", err)
	}
	if _, err := store.Create(ctx, store.Config{Engine: e}); err == nil {
		t.Error("a book is created over a book")
	}
	check(t, b)
	closeBook(t, b)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestRestoreCutShort finds what a restore left behind that could not even clean up.
func TestRestoreCutShort(t *testing.T) {
	w := newWorld(t)
	var good []byte
	w.open(t, func(b *store.Book) { good = backup(t, b) })
	e := engine(t)
	err := e.Update(ctx, func(store.Snapshot) ([]store.Write, error) {
		return []store.Write{{Key: "brestoring", Value: []byte{}}, {Key: eventAt(1), Value: []byte("rest")}, {Key: "tcert\x00zzz", Value: []byte("rest")}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, store.Config{Engine: e}); err == nil || !strings.Contains(err.Error(), "restore was cut short") {
		t.Errorf("opening it says: %v", err)
	}
	b, err := store.Restore(ctx, store.Config{Engine: e}, bytes.NewReader(good), "")
	if err != nil {
		t.Fatal(err)
	}
	check(t, b)
	closeBook(t, b)
}

func TestOpenNothing(t *testing.T) {
	e := engine(t)
	defer e.Close()
	if _, err := store.Open(ctx, store.Config{Engine: e}); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "no book here") {
		t.Errorf("opening an empty engine: %v", err)
	}
	err := e.Update(ctx, func(store.Snapshot) ([]store.Write, error) { return []store.Write{{Key: "x", Value: []byte("y")}}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(ctx, store.Config{Engine: e}); err == nil || !strings.Contains(err.Error(), "choose another place") {
		t.Errorf("creating a book over something: %v", err)
	}
	if _, err := store.Restore(ctx, store.Config{Engine: e}, strings.NewReader(""), ""); !errors.Is(err, store.ErrExists) {
		t.Errorf("restoring a book over something: %v", err)
	}
}

// FuzzVerifyBackup puts the right checksum behind whatever it is given, so that what lies behind the checksum is tried too.
func FuzzVerifyBackup(f *testing.F) {
	b, err := store.Create(ctx, store.Config{Engine: engine(f)})
	if err != nil {
		f.Fatal(err)
	}
	good := backup(f, b)
	closeBook(f, b)
	good = good[:len(good)-len(store.Hash{})]
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte("hufu backup 1\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		sum := store.Sum(stream)
		about, err := store.VerifyBackup(ctx, bytes.NewReader(append(bytes.Clone(stream), sum[:]...)), nil)
		if err == nil && (about.Book != b.ID() && len(about.Book) != 32 || about.Size < 0) {
			t.Errorf("a backup of no book is believed: %+v", about)
		}
	})
}
