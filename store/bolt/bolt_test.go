package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hufu/store"
	"hufu/store/bolt"
	"hufu/store/enginetest"
)

var background = context.Background()

// crowded, in the environment of a child, makes the test binary write to the file that it names until it fails.
const crowded = "HUFU_BOLT_CROWDED"

func TestMain(m *testing.M) {
	if path := os.Getenv(crowded); path != "" {
		if err := writeUntilItFails(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestContract(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) store.Engine { return open(t, filepath.Join(t.TempDir(), "book")) })
}

func open(t testing.TB, path string) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func put(e *bolt.Engine, key, value string) error {
	return e.Update(background, func(store.Snapshot) ([]store.Write, error) {
		return []store.Write{{Key: key, Value: []byte(value)}}, nil
	})
}

func get(t testing.TB, e *bolt.Engine, key string) (value string) {
	t.Helper()
	err := e.View(t.Context(), func(s store.Snapshot) error {
		v, err := s.Get([]byte(key))
		value = string(v)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	e := open(t, path)
	if err := put(e, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	e = open(t, path)
	defer e.Close()
	if got := get(t, e, "a"); got != "1" {
		t.Errorf("after a reopen there is %q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	held := open(t, path("held"))
	defer held.Close()
	open(t, path("wide")).Close()
	open(t, path("short")).Close()
	if err := errors.Join(os.Chmod(path("wide"), 0o640), os.WriteFile(path("rubbish"), []byte(strings.Repeat("rubbish ", 2000)), 0o600),
		os.Truncate(path("short"), 1000), os.Mkdir(path("directory"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opt  bolt.Options
		is   error
		says string
	}{
		{"held", bolt.Options{Timeout: 60 * time.Millisecond}, nil, fmt.Sprintf("process %d (", os.Getpid())},
		{"wide", bolt.Options{}, nil, "chmod 600"},
		{"rubbish", bolt.Options{}, store.ErrCorrupt, "restore a backup"},
		{"absent", bolt.Options{MustExist: true}, store.ErrNotFound, "no such file"},
		{"absent", bolt.Options{ReadOnly: true}, store.ErrNotFound, "no such file"},
		{"no/such/directory", bolt.Options{}, os.ErrNotExist, "no/such/directory"},
		{"directory", bolt.Options{}, nil, "not a file"},
	} {
		e, err := bolt.Open(path(c.name), c.opt)
		if err == nil {
			e.Close()
			t.Errorf("%s is opened", c.name)
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if e, err := bolt.Open(path("short"), bolt.Options{}); err == nil {
		e.Close()
		t.Error("a file that was cut is opened")
	}
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	e := open(t, path)
	if err := errors.Join(put(e, "a", "1"), e.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // readers share the file
		r, err := bolt.Open(path, bolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := put(r, "a", "2"); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("writing to a file opened for reading: %v", err)
		}
		if got := get(t, r, "a"); got != "1" {
			t.Errorf("a reader sees %q", got)
		}
	}
}

// TestFailedWriteIsFinal lets a child run into a limit of the file's size in the middle of its work.
func TestFailedWriteIsFinal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), crowded+"="+path)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e := open(t, path)
	defer e.Close()
	if got := get(t, e, "last"); got != strings.TrimSpace(string(out)) {
		t.Errorf("the child was told that %s is on the disk; there is %q", out, got)
	}
	if err := put(e, "last", "next"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// writeUntilItFails prints the last value that it was told is durable.
func writeUntilItFails(path string) error {
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	// The file has its first size before the limit comes, so that the limit strikes in the middle of a commit.
	if err := put(e, "last", "none"); err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: before.Max}); err != nil {
		return err
	}
	last := "none"
	for i := 0; err == nil; i++ {
		err = e.Update(background, func(store.Snapshot) ([]store.Write, error) {
			return []store.Write{{Key: fmt.Sprintf("fill%06d", i), Value: make([]byte, 50_000)}, {Key: "last", Value: fmt.Append(nil, i)}}, nil
		})
		if err == nil {
			last = fmt.Sprint(i)
		}
	}
	if !errors.Is(err, store.ErrFailed) {
		return fmt.Errorf("the write that did not fit: %w", err)
	}
	// There is room again, but nobody knows what is on the disk.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := put(e, "last", "never"); !errors.Is(err, store.ErrFailed) {
		return fmt.Errorf("a write after the one that failed: %v", err)
	}
	if err := e.View(background, func(store.Snapshot) error { return nil }); !errors.Is(err, store.ErrFailed) {
		return fmt.Errorf("a read after a write that failed: %v", err)
	}
	if last == "none" {
		return errors.New("not one write fitted")
	}
	fmt.Println(last)
	return nil
}
