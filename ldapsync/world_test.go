package ldapsync_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hufu/internal/slapd"
	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

const (
	base             = "o=Hufu,c=CN"
	directoryTimeout = 5 * time.Second
)

// pki is the hierarchy that all tests share, with the directories' certificates.
var pki = sync.OnceValue(func() (p struct {
	*testpki.World
	server, publisher *testpki.Leaf
	key               crypto.Signer // signs statements
}) {
	// Nobody listens at port 1, and no name server is waited for to say so.
	p.World = testpki.Must(testpki.New(testpki.Config{BaseURL: "http://127.0.0.1:1"}))
	p.server = testpki.Must(p.Server("ldap.services.card.example"))
	p.publisher = testpki.Must(p.Client("publisher", ""))
	p.key = testpki.Must(testpki.Key())
	return p
})

func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(testpki.Must(x509.ParseCertificate(pki().Root.Record.Certificate)))
	return &tls.Config{RootCAs: roots, ServerName: "ldap.services.card.example", Certificates: []tls.Certificate{pki().publisher.TLS()}}
}

// startDirectory starts a slapd that is stopped when the test ends.
func startDirectory(t testing.TB) *slapd.Server {
	t.Helper()
	s, err := slapd.Start(context.Background(), slapd.Config{
		Dir: t.TempDir(), Suffix: base, Schema: ldapsync.Schema,
		Certificate: pki().server.PEM(), Key: pki().server.KeyPEM(), ClientCA: testpki.PEM("CERTIFICATE", pki().Root.Record.Certificate),
		Publisher: pki().publisher.PEM(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// server is a directory of any make.
type server interface {
	URL() string
	SecureURL() string
}

func directory(name string, s server) ldapsync.Directory {
	return ldapsync.Directory{Name: name, URL: s.SecureURL(), Base: base, TLS: clientTLS(), Timeout: directoryTimeout}
}

// book is a book with the working CAs of the hierarchy, to be filled as package ca would.
type book struct {
	*store.Book
	t      testing.TB
	engine store.Engine
	path   string
	crls   int64
}

func newBook(t testing.TB) *book {
	t.Helper()
	return newBookOf(t, "root", "device", "330100", "330200", "services", "staff")
}

// newBookOf is a book with some of the CAs.
func newBookOf(t testing.TB, cas ...string) *book {
	t.Helper()
	b := &book{t: t, path: filepath.Join(t.TempDir(), "book")}
	b.engine = openEngine(t, b.path)
	sb, err := store.Create(t.Context(), b.config())
	if err != nil {
		t.Fatal(err)
	}
	b.keep(sb)
	b.update(func(tx *store.Tx) error {
		for _, id := range cas {
			r := pki().CA(id).Record
			r.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: r.ID})
			if err := store.CAs.Insert(tx, &r); err != nil {
				return err
			}
		}
		return nil
	})
	return b
}

func openEngine(t testing.TB, path string) store.Engine {
	t.Helper()
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (b *book) config() store.Config {
	return store.Config{Engine: b.engine, Tables: ldapsync.Tables()}
}

// keep takes an open book over and checks it when the test ends.
func (b *book) keep(sb *store.Book) {
	b.Book = sb
	b.t.Cleanup(func() {
		if b.Book != sb {
			return
		}
		if err := sb.Check(context.Background(), nil); err != nil {
			b.t.Error(err)
		}
		if err := sb.Close(); err != nil {
			b.t.Error(err)
		}
	})
}

func (b *book) update(f func(*store.Tx) error) {
	b.t.Helper()
	if err := b.Update(context.Background(), f); err != nil {
		b.t.Fatal(err)
	}
}

// issue records n certificates of a CA.
func (b *book) issue(ca string, n int) []*store.Certificate {
	b.t.Helper()
	var certs []*store.Certificate
	for range n {
		certs = append(certs, newCertificate(ca))
	}
	b.record(certs)
	return certs
}

func (b *book) record(certs []*store.Certificate) {
	b.t.Helper()
	b.update(func(tx *store.Tx) error {
		for _, c := range certs {
			tx.Append(store.Event{Kind: store.KindIntent, CA: c.CA, Serial: c.Serial})
			c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial})
			if err := store.Certificates.Insert(tx, c); err != nil {
				return err
			}
			s := &store.Status{CA: c.CA, Serial: c.Serial, State: store.Good, Time: tx.Now(), NotAfter: c.NotAfter, Seq: c.Seq}
			if err := store.Statuses.Insert(tx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

var readers = struct {
	sync.Mutex
	n int
}{}

func newCertificate(ca string) *store.Certificate {
	readers.Lock()
	readers.n++
	number := fmt.Sprintf("%08d", readers.n)
	readers.Unlock()
	leaf := testpki.Must(pki().CA(ca).New("reader-sign", policy.Name{Reader: number, City: ca}))
	c := leaf.Record
	c.Line, c.Requester = c.Serial.String(), "test"
	return &c
}

// set changes the state of a certificate, as package ca does.
func (b *book) set(c *store.Certificate, state store.State, reason int) uint64 {
	b.t.Helper()
	var seq uint64
	b.update(func(tx *store.Tx) error {
		kind := map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}[state]
		s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
		if err != nil {
			return err
		}
		s.State, s.Reason, s.Time = state, reason, tx.Now()
		s.Seq = tx.Append(store.Event{Kind: kind, CA: c.CA, Serial: c.Serial})
		seq = s.Seq
		return store.Statuses.Put(tx, s)
	})
	return seq
}

// closeIntent records a serial number that never got a certificate.
func (b *book) closeIntent(ca string) store.Serial {
	b.t.Helper()
	c := newCertificate(ca)
	b.update(func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindIntent, CA: ca, Serial: c.Serial})
		seq := tx.Append(store.Event{Kind: store.KindIntentClosed, CA: ca, Serial: c.Serial})
		return store.Statuses.Insert(tx, &store.Status{CA: ca, Serial: c.Serial, State: store.Revoked, Time: tx.Now(), NotAfter: c.NotAfter, Unissued: true, Seq: seq})
	})
	return c.Serial
}

// publishCRL records a full CRL of all that is not good.
func (b *book) publishCRL(id string) []byte {
	b.t.Helper()
	ca := pki().CA(id)
	var entries []x509.RevocationListEntry
	err := b.View(context.Background(), func(tx *store.Tx) error {
		for s, err := range store.Statuses.Scan(tx, "crl", store.Key(id)) {
			if err != nil {
				return err
			}
			entries = append(entries, x509.RevocationListEntry{SerialNumber: s.Serial.BigInt(), RevocationTime: s.Time, ReasonCode: s.Reason})
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.crls++
	now := time.Now().UTC().Truncate(time.Second)
	der := testpki.Must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(b.crls), ThisUpdate: now, NextUpdate: now.Add(time.Hour), RevokedCertificateEntries: entries,
	}, testpki.Must(x509.ParseCertificate(ca.Record.Certificate)), ca.Signer))
	b.update(func(tx *store.Tx) error {
		c := &store.CRL{CA: id, Number: uint64(b.crls), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: len(entries)}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: id})
		return store.PutCRL(tx, c, bytes.NewReader(der))
	})
	return der
}

// backup returns the book as it is now.
func (b *book) backup() []byte {
	b.t.Helper()
	var buf bytes.Buffer
	if err := b.Backup(context.Background(), &buf, nil); err != nil {
		b.t.Fatal(err)
	}
	return buf.Bytes()
}

// restore replaces the book by a backup, in a new epoch.
func (b *book) restore(backup []byte) {
	b.t.Helper()
	b.close()
	b.engine = openEngine(b.t, filepath.Join(b.t.TempDir(), "restored"))
	sb, err := store.Restore(context.Background(), b.config(), bytes.NewReader(backup), "test")
	if err != nil {
		b.t.Fatal(err)
	}
	b.keep(sb)
}

// close ends the book before the test does.
func (b *book) close() {
	b.t.Helper()
	old := b.Book
	b.Book = nil
	if err := old.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// copyFile is the thoughtless kind of backup.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// publisher is a running Publisher.
type publisher struct {
	*ldapsync.Publisher
	stop func()
}

func newPublisher(t testing.TB, b *book, node string, dirs ...ldapsync.Directory) *ldapsync.Publisher {
	t.Helper()
	return newPublisherWith(t, b, node, pki().key, dirs...)
}

func newPublisherWith(t testing.TB, b *book, node string, key crypto.Signer, dirs ...ldapsync.Directory) *ldapsync.Publisher {
	t.Helper()
	p, err := ldapsync.New(ldapsync.Config{
		Book: b.Book, Directories: dirs, Key: key, Node: node, Lease: 3 * time.Second,
		Log: slog.New(slog.NewTextHandler(testLog(t), nil)).With("node", cmp.Or(node, "node")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// publish starts a Publisher that stops when the test ends, or before.
func publish(t testing.TB, b *book, node string, dirs ...ldapsync.Directory) *publisher {
	t.Helper()
	return publishWith(t, b, node, pki().key, dirs...)
}

func publishWith(t testing.TB, b *book, node string, key crypto.Signer, dirs ...ldapsync.Directory) *publisher {
	t.Helper()
	return run(t, newPublisherWith(t, b, node, key, dirs...))
}

func run(t testing.TB, p *ldapsync.Publisher) *publisher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &publisher{p, stop}
}

// testLog hands lines to the test while it runs.
func testLog(t testing.TB) io.Writer {
	w := &logWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return w
}

type logWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second) // the slowest machine that is still worth a test
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// inStep waits until the directories have everything that the book has now.
func (p *publisher) inStep(t testing.TB, b *book, names ...string) {
	t.Helper()
	tree, err := b.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		until(t, name+" in step", func() bool {
			s := p.of(name)
			return s.State == "in step" && s.Watermark >= uint64(tree.Size) && s.Epoch == b.Epoch()
		})
	}
}

// of returns the status of one directory.
func (p *publisher) of(name string) ldapsync.DirectoryStatus {
	for _, s := range p.Status(context.Background()) {
		if s.Name == name {
			return s
		}
	}
	panic("no directory " + name)
}
