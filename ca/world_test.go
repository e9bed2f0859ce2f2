package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/crl"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

// soak multiplies the counts of counted tests.
func soak() int {
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		return n
	}
	return 1
}

// counter is an engine that counts commits.
type counter struct {
	store.Engine
	commits atomic.Int64
}

func (c *counter) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	wrote := false
	err := c.Engine.Update(ctx, func(s store.Snapshot) ([]store.Write, error) {
		w, err := f(s)
		wrote = len(w) > 0
		return w, err
	})
	if err == nil && wrote {
		c.commits.Add(1)
	}
	return err
}

// clock is a clock that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// world is a book on disk, a hierarchy, and an authority over both.
type world struct {
	*ca.Authority
	t      testing.TB
	pki    *testpki.World
	book   *store.Book
	engine *counter
	clock  *clock
	issued []ca.Ref // by issue
}

func newWorld(t testing.TB) *world { return newWorldOf(t, testpki.Config{}) }

func newWorldOf(t testing.TB, cfg testpki.Config) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}}
	cfg.Now = w.clock.now
	w.pki = testpki.Must(testpki.New(cfg))
	w.engine = &counter{Engine: testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))}
	w.book = testpki.Must(store.Create(t.Context(), store.Config{Engine: w.engine, Now: w.clock.now, Tables: ca.Tables}))
	w.addCAs()
	w.Authority = w.node("node-1")
	t.Cleanup(func() {
		w.check()
		w.book.Close()
	})
	return w
}

// node is one more process on the same book.
func (w *world) node(name string) *ca.Authority {
	return testpki.Must(ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: name, Now: w.clock.now}))
}

func (w *world) addCAs() {
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
}

func (w *world) update(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.book.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) view(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.book.View(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) head() (seq uint64) {
	w.view(func(tx *store.Tx) error { seq = tx.Head(); return nil })
	return seq
}

// server is a request for a new key.
func server(name string) ca.Request { return serverFor(testpki.Must(testpki.Key()), name) }

func serverFor(key crypto.Signer, name string) ca.Request {
	return ca.Request{CA: "services", Profile: "server", CSR: testpki.Must(testpki.CSR(key)), Name: policy.Name{DNS: []string{name}}}
}

// pair is an order for a reader's pair.
func pair(number string) ca.Order {
	sign, encrypt := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	csr := testpki.Must(testpki.PairCSR(sign, encrypt.Public()))
	name := policy.Name{Reader: number, City: "330100"}
	return ca.Order{Requester: "tester", Requests: []ca.Request{
		{CA: "330100", Profile: "reader-sign", CSR: csr, Name: name},
		{CA: "330100", Profile: "reader-encrypt", SPKI: testpki.Must(ca.EncryptionKeyOf(csr)), Name: name},
	}}
}

func order(requests ...ca.Request) ca.Order {
	return ca.Order{Requester: "tester", Requests: requests}
}

// issue grants an order that must be granted.
func (w *world) issue(o ca.Order) []*store.Certificate {
	w.t.Helper()
	certs, err := w.Issue(w.t.Context(), o)
	if err != nil {
		w.t.Fatalf("issuing: %v", err)
	}
	for _, c := range certs {
		w.issued = append(w.issued, ref(c))
	}
	return certs
}

func ref(c *store.Certificate) ca.Ref { return ca.Ref{CA: c.CA, Serial: c.Serial} }

func (w *world) status(r ca.Ref) (s *store.Status) {
	w.t.Helper()
	w.view(func(tx *store.Tx) (err error) {
		s, err = store.Statuses.Get(tx, store.SerialKey(r.CA, r.Serial))
		return err
	})
	return s
}

// intents returns the intents that are open.
func (w *world) intents() (open []*store.Intent) {
	w.t.Helper()
	w.view(func(tx *store.Tx) error {
		open = nil
		for i, err := range store.Intents.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			open = append(open, i)
		}
		return nil
	})
	return open
}

// check is the world checker: it holds the book, the certificates and the CRLs
// against each other, from outside.
func (w *world) check() {
	w.t.Helper()
	ctx := context.Background()
	if err := checkCA(ctx, w.book, w.pki.CAs()); err != nil {
		w.t.Fatalf("the world does not fit together: %v", err)
	}
	for _, c := range w.pki.CAs()[1:] {
		list, err := w.PublishCRL(ctx, c.Record.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.checkCRL(c, list); err != nil {
			w.t.Fatalf("the CRL of %s: %v", c.Record.ID, err)
		}
	}
}

// checkCA checks every certificate in the book: it is one of its CA, as its
// record says, its serial and its key are used once, and somebody intended it.
func checkCA(ctx context.Context, book *store.Book, cas []*testpki.CA) error {
	if err := book.Check(ctx, nil); err != nil {
		return err
	}
	issuer := map[string]*x509.Certificate{}
	for _, c := range cas {
		issuer[c.Record.ID] = testpki.Must(x509.ParseCertificate(c.Record.Certificate))
	}
	intended := map[ca.Ref]bool{}
	certified := 0
	events, err := allEvents(ctx, book)
	if err != nil {
		return err
	}
	for _, e := range events {
		switch r := (ca.Ref{CA: e.CA, Serial: e.Serial}); e.Kind {
		case store.KindIntent:
			intended[r] = true
		case store.KindIssued:
			certified++
			if !intended[r] {
				return fmt.Errorf("%s was issued and not intended", e.Serial)
			}
		}
	}
	serials, lines := map[store.Serial]bool{}, map[store.Hash]string{}
	return book.View(ctx, func(tx *store.Tx) error {
		for c, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			certified--
			cert, err := x509.ParseCertificate(c.DER)
			if err != nil {
				return err
			}
			if err := cert.CheckSignatureFrom(issuer[c.CA]); err != nil {
				return fmt.Errorf("%s: %w", c.Serial, err)
			}
			switch {
			case cert.SerialNumber.Cmp(c.Serial.BigInt()) != 0, !cert.NotAfter.Equal(c.NotAfter), cert.IsCA:
				return fmt.Errorf("%s is not what its record says", c.Serial)
			case serials[c.Serial]:
				return fmt.Errorf("serial %s is used twice", c.Serial)
			case store.Sum(cert.RawSubjectPublicKeyInfo) != c.SPKI:
				return fmt.Errorf("%s holds another key than its record says", c.Serial)
			case lines[c.SPKI] != "" && lines[c.SPKI] != c.Line:
				return fmt.Errorf("the key of %s belongs to two lines", c.Serial)
			}
			serials[c.Serial], lines[c.SPKI] = true, c.Line
		}
		if certified != 0 {
			return fmt.Errorf("%d certificates more were journalled than there are", certified)
		}
		return nil
	})
}

func allEvents(ctx context.Context, book *store.Book) (all []store.Event, err error) {
	for after := uint64(0); ; {
		some, err := book.Events(ctx, after, 1000)
		if err != nil || len(some) == 0 {
			return all, err
		}
		all = append(all, some...)
		after = all[len(all)-1].Seq
	}
}

// checkCRL holds a CRL against the statuses: its entries are what is held or
// revoked and has not ended long ago.
func (w *world) checkCRL(c *testpki.CA, rec *store.CRL) error {
	listed := map[store.Serial]crl.Entry{}
	var list *crl.List
	err := w.book.View(context.Background(), func(tx *store.Tx) (err error) {
		list, err = crl.Parse(store.OpenCRL(tx, rec), func(e crl.Entry) error {
			e.Serial = bytes.Clone(e.Serial)
			listed[store.Serial(e.Serial)] = e
			return nil
		})
		if err != nil {
			return err
		}
		for s, err := range store.Statuses.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if s.CA != c.Record.ID {
				continue
			}
			e, ok := listed[s.Serial]
			delete(listed, s.Serial)
			switch {
			case s.State == store.Good && ok:
				return fmt.Errorf("%s is good and listed", s.Serial)
			case s.State != store.Good && !ok && s.NotAfter.After(w.clock.now().Add(-time.Hour)):
				return fmt.Errorf("%s is %s and not listed", s.Serial, s.State)
			case ok && e.Reason != s.Reason:
				return fmt.Errorf("%s is listed for reason %d, not %d", s.Serial, e.Reason, s.Reason)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(listed) > 0 {
		return fmt.Errorf("%d entries are of certificates that do not exist", len(listed))
	}
	if list.Number.Uint64() != rec.Number {
		return fmt.Errorf("its number is %d, the record says %d", list.Number, rec.Number)
	}
	return list.CheckSignature(c.Record.Certificate)
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return testpki.Must(testpki.Key()).(*ecdsa.PrivateKey)
}
