package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/store"
	"hufu/store/bolt"
)

// kept is a keeper over a real book, in the time of a synctest bubble.
type kept struct {
	*keeper
	t    *testing.T
	pki  *testpki.World
	book *store.Book
}

// keep makes a keeper over the book in dir, which is made when it is not there.
func keep(t *testing.T, pki *testpki.World, dir string, wrap func(store.Engine) store.Engine) *kept {
	t.Helper()
	path := filepath.Join(dir, "book.db")
	_, err := os.Stat(path)
	fresh := err != nil
	engine := store.Engine(testpki.Must(bolt.Open(path, bolt.Options{})))
	if wrap != nil {
		engine = wrap(engine)
	}
	cfg := store.Config{Engine: engine, Tables: tables()}
	var book *store.Book
	if fresh {
		book = testpki.Must(store.Create(t.Context(), cfg))
		err = book.Update(t.Context(), func(tx *store.Tx) error {
			for _, c := range pki.CAs() {
				record := c.Record
				record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
				if err := store.CAs.Insert(tx, &record); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			err = os.Mkdir(filepath.Join(dir, "tls"), 0o700)
		}
	} else {
		book, err = store.Open(t.Context(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Check(context.Background(), nil); err != nil {
			t.Error(err)
		}
		book.Close()
	})
	authority := testpki.Must(ca.New(ca.Config{Book: book, Issuers: pki.Issuers(), Node: "n1"}))
	if _, err := authority.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := &keeper{name: "node", dir: filepath.Join(dir, "tls"), ca: "services", profile: "server", dns: []string{"api.card.example"},
		book: book, authority: authority, now: time.Now, log: slog.New(slog.DiscardHandler)}
	return &kept{keeper: k, t: t, pki: pki, book: book}
}

// start takes the certificate up and keeps it until stop is called.
func (k *kept) start() (stop func()) {
	k.t.Helper()
	if err := k.take(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
	}
}

// connect makes a connection as a client that checks everything, and gives the
// certificate that it was shown.
func (k *kept) connect() (*tls.Conn, *x509.Certificate, error) {
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{GetCertificate: k.server})
	go func() {
		if server.Handshake() == nil {
			buf := make([]byte, 1)
			for {
				if _, err := server.Read(buf); err != nil {
					break
				}
				server.Write(buf)
			}
		}
		server.Close()
	}()
	c := tls.Client(near, &tls.Config{RootCAs: k.pki.Pool(), ServerName: "api.card.example"})
	if err := c.Handshake(); err != nil {
		near.Close()
		return nil, nil, err
	}
	return c, c.ConnectionState().PeerCertificates[0], nil
}

// shown is what a new connection is shown, once the keeper has come to rest.
func (k *kept) shown() *x509.Certificate {
	k.t.Helper()
	synctest.Wait()
	c, cert, err := k.connect()
	if err != nil {
		k.t.Fatalf("a new connection at %v: %v", time.Now(), err)
	}
	c.Close()
	return cert
}

func (k *kept) issued() (n int) {
	k.t.Helper()
	err := k.book.View(k.t.Context(), func(tx *store.Tx) error {
		n = 0
		for _, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

const day = 24 * time.Hour

// TestKeeperRenews: new connections are shown a new certificate in time, old
// connections go on, and no more is issued than is needed.
func TestKeeperRenews(t *testing.T) {
	for name, life := range map[string]time.Duration{"the profile's 90 days": 0, "an hour": time.Hour, "a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, testpki.Must(testpki.New(testpki.Config{})), t.TempDir(), nil)
				k.life = life
				span := life
				if span == 0 {
					span = 90 * day
				}
				defer k.start()()
				first := k.shown()
				old, _, err := k.connect()
				if err != nil {
					t.Fatal(err)
				}
				defer old.Close()
				time.Sleep(span * 6 / 10)
				if got := k.shown(); !got.Equal(first) {
					t.Error("it was renewed long before its time")
				}
				time.Sleep(span / 10)
				second := k.shown()
				if second.Equal(first) {
					t.Error("two thirds of its life are over, and it was not renewed")
				}
				file, err := tls.LoadX509KeyPair(k.path(), k.path())
				if err != nil || !file.Leaf.Equal(second) {
					t.Errorf("the file does not hold what is shown (%v)", err)
				}
				if _, err := old.Write([]byte{7}); err != nil {
					t.Errorf("the old connection: %v", err)
				}
				if _, err := old.Read(make([]byte, 1)); err != nil {
					t.Errorf("the old connection: %v", err)
				}
				for range 100 {
					time.Sleep(span / 10)
					k.shown()
				}
				if n := k.issued(); n > 18 {
					t.Errorf("%d certificates were issued in eleven lives", n)
				}
			})
		})
	}
}

// TestKeeperServesOn: while nothing can be renewed the old certificate serves;
// when it can again, the new one is there within a minute.
func TestKeeperServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pki := testpki.Must(testpki.New(testpki.Config{}))
		signer := pki.CA("services").Signer
		var broken atomic.Bool
		signer.Before = func(int64) error {
			if broken.Load() {
				return errors.New("the token is locked")
			}
			return nil
		}
		k := keep(t, pki, t.TempDir(), nil)
		k.life = time.Hour
		stop := k.start()
		first, count := k.shown(), signer.Count()
		broken.Store(true)
		for range 59 {
			time.Sleep(time.Minute)
			if !k.shown().Equal(first) {
				t.Fatal("another certificate is shown, though none could be issued")
			}
		}
		if n := signer.Count() - count; n < 15 || n > 25 {
			t.Errorf("%d tries in the last twenty minutes", n)
		}

		// A restart in that time changes nothing.
		stop()
		k.cur.Store(nil)
		stop = k.start()
		if !k.shown().Equal(first) {
			t.Error("after a restart another certificate is shown")
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		if k.shown().Equal(first) {
			t.Error("it was not renewed when it could be")
		}
		stop()
	})
}

// TestKeeperWithoutDisk: a certificate that cannot be kept is not taken up.
func TestKeeperWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, testpki.Must(testpki.New(testpki.Config{})), t.TempDir(), nil)
		if err := k.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, dir := k.shown(), k.dir
		k.dir = filepath.Join(dir, "gone")
		if err := k.renew(t.Context()); err == nil {
			t.Error("it was kept nowhere, and nobody was told")
		}
		if !k.shown().Equal(first) {
			t.Error("a certificate is shown that no file holds")
		}
	})
}

// imaging copies a folder after every commit: what a crash would have left.
type imaging struct {
	store.Engine
	dir    string
	images []string
	on     bool
	t      *testing.T
}

func (e *imaging) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	if err := e.Engine.Update(ctx, f); err != nil || !e.on {
		return err
	}
	image := e.t.TempDir()
	if err := os.CopyFS(image, os.DirFS(e.dir)); err != nil {
		return err
	}
	e.images = append(e.images, image)
	return os.Chmod(filepath.Join(image, "book.db"), 0o600) // CopyFS keeps no mode
}

// TestKeeperCrash: wherever a crash falls in a renewal, the next start finds a
// pair that serves, and renews it.
func TestKeeperCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pki := testpki.Must(testpki.New(testpki.Config{}))
		dir := t.TempDir()
		e := &imaging{t: t, dir: dir}
		k := keep(t, pki, dir, func(inner store.Engine) store.Engine { e.Engine = inner; return e })
		if err := k.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := k.shown()
		time.Sleep(70 * day)
		e.on = true
		if err := k.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.on = false
		if len(e.images) != 2 {
			t.Fatalf("a renewal took %d commits, not the two of the spine", len(e.images))
		}
		for i, image := range e.images {
			// The last thing before the rename, too: half of the new pair lies
			// beside the old one.
			half := testpki.Must(os.ReadFile(k.path()))[:100]
			if err := os.WriteFile(filepath.Join(image, "tls", "node.pem.new"), half, 0o600); err != nil {
				t.Fatal(err)
			}
			after := keep(t, pki, image, nil)
			if err := after.take(t.Context()); err != nil {
				t.Fatalf("after commit %d: %v", i+1, err)
			}
			if !after.shown().Equal(first) {
				t.Errorf("after commit %d another certificate is shown than before", i+1)
			}
			stop := after.start()
			if after.shown().Equal(first) {
				t.Errorf("after commit %d it is due and was not renewed", i+1)
			}
			stop()
			if left, _ := filepath.Glob(filepath.Join(image, "tls", "*")); len(left) != 1 {
				t.Errorf("after commit %d there lie %v", i+1, left)
			}
		}
	})
}

// TestKeeperAsksTheBook: what the book does not know as good is replaced at the
// start, and so is what has ended.
func TestKeeperAsksTheBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pki := testpki.Must(testpki.New(testpki.Config{}))
		k := keep(t, pki, t.TempDir(), nil)
		if err := k.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		restart := func(why string) {
			t.Helper()
			before := k.shown()
			if err := k.take(t.Context()); err != nil || !k.shown().Equal(before) {
				t.Errorf("it was replaced for nothing (%v)", err)
			}
			switch why {
			case "revoked":
				serial := testpki.Must(store.SerialFrom(before.SerialNumber))
				if err := k.book.Update(t.Context(), func(tx *store.Tx) error {
					return k.authority.Revoke(tx, ca.Ref{CA: "services", Serial: serial}, 1, time.Time{}, "tester")
				}); err != nil {
					t.Fatal(err)
				}
			case "ended":
				time.Sleep(91 * day)
			case "unknown":
				stranger := keep(t, pki, t.TempDir(), nil)
				if err := errors.Join(stranger.take(t.Context()), os.Rename(stranger.path(), k.path())); err != nil {
					t.Fatal(err)
				}
				before = stranger.shown()
			}
			if err := k.take(t.Context()); err != nil {
				t.Fatalf("%s: %v", why, err)
			}
			if k.shown().Equal(before) {
				t.Errorf("a certificate that is %s is shown", why)
			}
		}
		restart("revoked")
		restart("unknown")
		restart("ended")
	})
}
