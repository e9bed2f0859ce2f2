package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"hufu/store"
	"hufu/store/bolt"
)

const (
	// victim, in the environment of a child, makes the test binary write to the book that it names until it is killed.
	victim = "HUFU_STORE_VICTIM"

	killTrials    = 15 // times HUFU_SOAK
	victimWriters = 16
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victim); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// soak is by how much a count that is run for confidence is multiplied.
func soak() int {
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		return n
	}
	return 1
}

// writeUntilKilled issues certificates and revokes some of them, and says so as soon as the book has answered: "i" for an intent, after which a
// signature would be made, "c" for a certificate, "r" for a revocation.
func writeUntilKilled(path string) error {
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	b, err := store.Open(ctx, store.Config{Engine: e})
	if err != nil {
		return err
	}
	var saying sync.Mutex
	say := func(what string, s store.Serial) {
		saying.Lock()
		defer saying.Unlock()
		fmt.Println(what, s)
	}
	failed := make(chan error)
	for range victimWriters {
		go func() {
			m := newMint(&testing.B{})
			for n := 0; ; n++ {
				c, i := m.certificate("330100")
				err := b.Update(ctx, func(tx *store.Tx) error { return reserve(tx, i) })
				if err == nil {
					say("i", c.Serial)
					err = b.Update(ctx, func(tx *store.Tx) error { return commit(tx, c) })
				}
				if err == nil {
					say("c", c.Serial)
				}
				if err == nil && n%3 == 0 {
					if err = b.Update(ctx, func(tx *store.Tx) error { return setState(tx, c, store.Revoked, store.KindRevoked) }); err == nil {
						say("r", c.Serial)
					}
				}
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// TestKill kills a process that writes under load, at random moments, and looks for every write that was acknowledged.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	b, err := store.Create(ctx, store.Config{Engine: engineAt(t, path)})
	if err != nil {
		t.Fatal(err)
	}
	closeBook(t, b)
	said := make(map[store.Serial]string) // the last thing said of each serial number
	trials, acknowledged := killTrials*soak(), 0
	for range trials {
		acknowledged += killOnce(t, path, said)
		w := &world{path: path}
		w.open(t, func(b *store.Book) {
			check(t, b)
			lookFor(t, b, said)
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d acknowledged writes, 0 lost", trials, acknowledged)
	if acknowledged == 0 {
		t.Error("nothing was ever acknowledged")
	}
}

// killOnce lets a victim write until it has said a random number of things, kills it, and returns how much it said.
func killOnce(t *testing.T, path string, said map[store.Serial]string) (acknowledged int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, 4*patience) // for a victim that hangs
	defer cancel()
	child := exec.CommandContext(limit, exe)
	child.Env = append(os.Environ(), victim+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	enough := rand.IntN(400)
	if enough == 0 {
		child.Process.Kill()
	}
	// What was written to the pipe before the kill is read to its end. Of a line that was cut nobody has heard.
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		if acknowledged++; acknowledged == enough {
			child.Process.Kill()
		}
		number, err := store.ParseSerial(line[2 : len(line)-1])
		if err != nil {
			t.Fatal(err)
		}
		said[number] = line[:1]
	}
	if err := child.Wait(); child.ProcessState.Exited() {
		t.Errorf("the victim ended by itself: %v", err)
	}
	return acknowledged
}

// lookFor finds everything that was said, in the book.
func lookFor(t *testing.T, b *store.Book, said map[store.Serial]string) {
	t.Helper()
	view(t, b, func(tx *store.Tx) error {
		for number, what := range said {
			key := store.SerialKey("330100", number)
			if _, err := store.Intents.Get(tx, key); err != nil {
				t.Errorf("a signature of %s without its intent: %v", number, err)
			}
			if what == "i" {
				continue
			}
			c, err := store.FindCertificate(tx, "330100", number)
			if err != nil {
				t.Errorf("certificate %s was acknowledged and lost: %v", number, err)
				continue
			}
			if e, err := tx.Event(c.Seq); err != nil || e.Serial != number {
				t.Errorf("certificate %s has the event %v, %v", number, e, err)
			}
			if s, err := store.Statuses.Get(tx, key); err != nil || what == "r" && s.State != store.Revoked {
				t.Errorf("%s was revoked, and that was acknowledged and lost: %v, %v", number, s, err)
			}
		}
		return nil
	})
}
