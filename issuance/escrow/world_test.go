package escrow_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca"
	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/softhsm"
	"hufu/internal/testpki"
	"hufu/issuance/escrow"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/verify"
)

const (
	city  = "330100"
	label = "kmc"
)

var tables = slices.Concat(ca.Tables, escrow.Tables)

// world is a centre over a real token, a real book and a real hierarchy.
type world struct {
	*escrow.Escrow
	t     testing.TB
	home  *softhsm.Home
	token *hsm.Token
	pki   *testpki.World
	path  string // of the book
	book  *store.Book
	spine *ca.Authority
	log   *logged
	ahead atomic.Int64
	conf  escrow.Config
	made  map[string]bool // hashes of every key that was ever seen, which never go away
}

// logged is a log that a test can read.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func openToken(t testing.TB, h *softhsm.Home) *hsm.Token {
	t.Helper()
	token, err := hsm.Open(context.Background(), hsm.Config{
		Module: h.Module(), URI: "pkcs11:token=kmc", Patience: 5 * time.Second, PIN: func() ([]byte, error) { return []byte("1234"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

func newHome(t testing.TB) *softhsm.Home {
	t.Helper()
	h := testpki.Must(softhsm.New(t.TempDir()))
	if err := h.Activate(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Init("kmc", []byte("12345678"), []byte("1234")); err != nil {
		t.Fatal(err)
	}
	return h
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, log: &logged{}, made: map[string]bool{}}
	w.home = newHome(t)
	w.token = openToken(t, w.home)
	w.pki = testpki.Must(testpki.New(testpki.Config{Now: w.now}))
	w.path = filepath.Join(t.TempDir(), "book")
	engine := testpki.Must(bolt.Open(w.path, bolt.Options{}))
	w.book = testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Now: w.now, Tables: tables}))
	w.update(func(tx *store.Tx) error {
		for _, c := range w.pki.CAs() {
			rec := c.Record
			rec.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: rec.ID})
			if err := store.CAs.Put(tx, &rec); err != nil {
				return err
			}
		}
		return nil
	})
	w.up()
	t.Cleanup(func() {
		w.check()
		w.book.Close()
	})
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// up makes what stands on the book.
func (w *world) up() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.log, nil))
	w.spine = testpki.Must(ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: "node-1", MayHold: escrow.MayHold, Now: w.now, Log: log}))
	verifier := &verify.Verifier{Anchors: w.pki.Anchors(), Domain: testpki.Domain, Status: verify.FromBook(w.book), Now: w.now}
	for _, c := range w.pki.CAs()[1:] {
		verifier.Intermediates = append(verifier.Intermediates, c.Record.Certificate)
	}
	w.conf = escrow.Config{Book: w.book, Token: w.token, Wrapping: label, Spare: 20, Verifier: verifier, Now: w.now, Log: log}
	w.Escrow = testpki.Must(escrow.New(w.t.Context(), w.conf))
}

// run lets the centre work until the test, or stop, ends it.
func (w *world) run() (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("running the centre: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// full waits until the pool is full.
func (w *world) full() {
	w.t.Helper()
	w.until("the pool to be full", func() bool { c := w.counts(); return c.Spare >= c.Wanted })
}

// until waits for a condition of the book; every change of the book looks again.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	for {
		changed := w.book.Changed()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s; the log:\n%s", what, w.log)
		}
	}
}

func (w *world) counts() escrow.Counts {
	w.t.Helper()
	return testpki.Must(w.Status(context.Background()))
}

func (w *world) update(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.book.Update(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

// check is run after every step: the book is whole, the centre is whole, what was ever
// seen is still there, and the journal tells of every key.
func (w *world) check() {
	w.t.Helper()
	ctx := context.Background()
	if err := w.book.Check(ctx, nil); err != nil {
		w.t.Errorf("checking the book: %v", err)
	}
	if err := w.Check(ctx); err != nil {
		w.t.Error(err)
	}
	now := map[string]bool{}
	for _, k := range w.all() {
		now[k.Hash.String()] = true
	}
	for hash := range w.made {
		if !now[hash] {
			w.t.Errorf("the kept key %s is gone", hash)
		}
	}
	w.made = now
	told := 0
	for _, e := range w.events() {
		if e.Kind == escrow.KindMade {
			var n int
			if _, err := fmt.Sscanf(e.Detail, `{"keys":%d`, &n); err != nil {
				w.t.Errorf("%s: %v", e.Detail, err)
			}
			told += n
		}
	}
	if told != len(now) {
		w.t.Errorf("the journal tells of %d keys and %d are kept", told, len(now))
	}
}

func (w *world) events() (all []store.Event) {
	w.t.Helper()
	for {
		after := uint64(0)
		if len(all) > 0 {
			after = all[len(all)-1].Seq
		}
		some := testpki.Must(w.book.Events(context.Background(), after, 1000))
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}

// since returns the kinds of the centre's events after one.
func (w *world) since(seq uint64) (kinds []string) {
	for _, e := range w.events() {
		if e.Seq > seq && strings.HasPrefix(e.Kind, "escrow.") && e.Kind != escrow.KindMade {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func (w *world) head() uint64 {
	w.t.Helper()
	return uint64(testpki.Must(w.book.Tree(context.Background())).Size)
}

func (w *world) all() []*escrow.Key { return testpki.Must(escrow.All(context.Background(), w.book)) }

// reader is one reader as far as it concerns the centre.
type reader struct {
	number    string
	spki      []byte
	transport *ecdsa.PrivateKey
	certs     []*store.Certificate
	key       []byte // PKCS #8, as it was opened
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return testpki.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func spkiOf(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	return testpki.Must(x509.MarshalPKIXPublicKey(pub))
}

// order is the order for a reader's pair with a kept encryption key.
func (w *world) order(r *reader) ca.Order {
	w.t.Helper()
	name := policy.Name{Reader: r.number, City: city}
	return ca.Order{Requester: "tester", Hold: true,
		Requests: []ca.Request{
			{CA: city, Profile: "reader-sign", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: name},
			{CA: city, Profile: "reader-encrypt", SPKI: r.spki, Kept: true, Name: name},
		},
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error { return w.Claimed(tx, r.spki, r.number) },
		Commit:  func(tx *store.Tx, certs []*store.Certificate) error { return w.InUse(tx, r.spki, certs[1]) },
	}
}

// initialise takes a reader through its second stage as far as it concerns the centre.
func (w *world) initialise(number string) *reader {
	w.t.Helper()
	ctx := context.Background()
	r := &reader{number: number, transport: newKey(w.t)}
	r.spki = testpki.Must(w.Claim(ctx, number, city))
	certs, err := w.spine.Issue(ctx, w.order(r))
	if err != nil {
		w.t.Fatal(err)
	}
	r.certs = certs
	r.open(w, testpki.Must(w.Deliver(ctx, r.spki, spkiOf(w.t, r.transport.Public()))))
	return r
}

// open opens what was delivered, as a reader does, and proves that it is the key of the
// reader's certificate by using it.
func (r *reader) open(w *world, envelope []byte) {
	w.t.Helper()
	o := &cms.Opener{ECDH: testpki.Must(r.transport.ECDH())}
	key, err := o.OpenKey(envelope, r.spki)
	if err != nil {
		w.t.Fatalf("reader %s cannot open its key: %v", r.number, err)
	}
	if r.key != nil && !bytes.Equal(r.key, key) {
		w.t.Errorf("reader %s got another key", r.number)
	}
	r.key = key
	if len(r.certs) > 0 {
		proves(w.t, key, r.certs[1].DER)
	}
}

// proves opens what is sealed to a certificate.
func proves(t testing.TB, pkcs8, cert []byte) {
	t.Helper()
	secret := []byte("load key of a card")
	sealed := testpki.Must(cms.Seal(secret, cert, nil))
	private := testpki.Must(x509.ParsePKCS8PrivateKey(pkcs8)).(*ecdsa.PrivateKey)
	o := &cms.Opener{Certificate: cert, ECDH: testpki.Must(private.ECDH())}
	if plain, err := o.Open(sealed); err != nil || !bytes.Equal(plain, secret) {
		t.Errorf("the key does not open what is sealed to its certificate: %v", err)
	}
}

// signing is the order of a reader that would have its kept key certified for signing: it
// has the key by now, and makes a request with it.
func (w *world) signing(r *reader) ca.Order {
	w.t.Helper()
	private := testpki.Must(x509.ParsePKCS8PrivateKey(r.key)).(*ecdsa.PrivateKey)
	return ca.Order{Requester: "tester", Requests: []ca.Request{
		{CA: city, Profile: "reader-sign", CSR: testpki.Must(testpki.CSR(private)), Name: policy.Name{Reader: r.number, City: city}},
	}}
}

func (w *world) revoke(c *store.Certificate) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		return w.spine.Revoke(tx, ca.Ref{CA: c.CA, Serial: c.Serial}, 4, time.Time{}, "tester")
	})
}

// recipient is a person who may receive a recovered key.
func (w *world) recipient(name string) (*store.Certificate, *ecdsa.PrivateKey) {
	w.t.Helper()
	key := newKey(w.t)
	certs, err := w.spine.Issue(context.Background(), ca.Order{Requester: "tester",
		Requests: []ca.Request{{CA: "staff", Profile: "recipient", CSR: testpki.Must(testpki.CSR(key)), Name: policy.Name{Person: name}}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return certs[0], key
}

func isState(err error) bool { return errors.As(err, new(*escrow.StateError)) }

func parse(der []byte) (*x509.Certificate, error) { return x509.ParseCertificate(der) }

func openOther(t testing.TB, w *world) (*hsm.Token, error) {
	token, err := hsm.Open(context.Background(), hsm.Config{
		Module: w.home.Module(), URI: "pkcs11:token=other", PIN: func() ([]byte, error) { return []byte("1234"), nil },
	})
	if err == nil {
		t.Cleanup(func() { token.Close() })
	}
	return token, err
}
