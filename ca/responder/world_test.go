package responder_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca/responder"
	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

// world is a hierarchy, a book that holds its working CAs, and a responder behind a
// real HTTP server.
type world struct {
	*testpki.World
	t         testing.TB
	book      *store.Book
	responder *responder.Responder
	url       string
	signer    *testpki.Signer // key of the responder certificates
	renewed   atomic.Int64    // calls of Renew
	away      atomic.Bool     // the token is away: no key signs and nothing is certified
	validity  time.Duration   // of responder certificates; 0 = by the profile
}

var ctx = context.Background()

func newWorld(t testing.TB, change func(*world, *responder.Config)) *world {
	t.Helper()
	pki, err := testpki.New(testpki.Config{Cities: []string{"330100"}})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book, err := store.Create(ctx, store.Config{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{World: pki, t: t, book: book, signer: &testpki.Signer{Key: testpki.Must(testpki.Key())}}
	w.signer.Before = func(int64) error { return w.token() }
	t.Cleanup(func() {
		if err := book.Check(ctx, nil); err != nil {
			t.Error(err)
		}
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	w.update(w.addCAs)
	cfg := responder.Config{Book: book, Renew: w.renew, Changed: engine.Changed}
	if change != nil {
		change(w, &cfg)
	}
	w.responder = responder.New(cfg)
	server := httptest.NewServer(w.responder.Handler())
	t.Cleanup(server.Close)
	w.url = server.URL + cfg.BasePath
	return w
}

// addCAs brings the hierarchy into a book.
func (w *world) addCAs(tx *store.Tx) error {
	for _, ca := range w.CAs() {
		record := ca.Record
		if record.ID != "root" {
			record.KeyURI = "pkcs11:object=" + record.ID
		}
		record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
		if err := store.CAs.Insert(tx, &record); err != nil {
			return err
		}
	}
	return nil
}

// run runs the responder's background work until the test ends.
func (w *world) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.responder.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

type awayError struct{}

func (awayError) Error() string { return "the token is away" }

func (w *world) token() error {
	if w.away.Load() {
		return awayError{}
	}
	return nil
}

func (w *world) renew(_ context.Context, id string) ([]byte, crypto.Signer, error) {
	if err := w.token(); err != nil {
		return nil, nil, err
	}
	w.renewed.Add(1)
	r := issuance.Request{Profile: "ocsp"}
	if w.validity > 0 {
		r.NotAfter = time.Now().Add(w.validity)
	}
	leaf, err := w.CA(id).Certify(w.signer, r)
	if err != nil {
		return nil, nil, err
	}
	return leaf.Certificate, w.signer, nil
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.book.Update(ctx, f); err != nil {
		w.t.Fatal(err)
	}
}

// issue brings a new server certificate into the book, good.
func (w *world) issue() *store.Certificate {
	w.t.Helper()
	ca := w.CA("services")
	serial := testpki.Must(issuance.NewSerial(rand.Reader))
	token, err := ca.Prepare(issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"a.card.example"}},
		SPKI: testpki.Must(x509.MarshalPKIXPublicKey(testpki.Must(testpki.Key()).Public())), Serial: serial})
	if err != nil {
		w.t.Fatal(err)
	}
	c := token.Record()
	w.update(func(tx *store.Tx) error {
		seq := tx.Append(store.Event{Kind: store.KindIntent, CA: c.CA, Serial: serial})
		return store.Intents.Insert(tx, &store.Intent{CA: c.CA, Serial: serial, TBSHash: token.TBSHash(), SPKI: c.SPKI, Time: tx.Now(), Seq: seq})
	})
	if c.DER, err = ca.Issuer.Issue(ctx, token); err != nil {
		w.t.Fatal(err)
	}
	w.update(func(tx *store.Tx) error {
		c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: serial})
		if err := store.Certificates.Insert(tx, &c); err != nil {
			return err
		}
		return store.Statuses.Insert(tx, &store.Status{CA: c.CA, Serial: serial, State: store.Good, Time: tx.Now(), NotAfter: c.NotAfter, Seq: c.Seq})
	})
	return &c
}

var changes = map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}

// set changes the status of a certificate.
func (w *world) set(c *store.Certificate, state store.State, reason int) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
		if err != nil {
			return err
		}
		s.State, s.Reason, s.Time = state, reason, tx.Now()
		s.Seq = tx.Append(store.Event{Kind: changes[state], CA: c.CA, Serial: c.Serial})
		return store.Statuses.Put(tx, s)
	})
}

// publish signs a CRL of the services CA and puts it into the book.
func (w *world) publish(number uint64, entries int) []byte {
	w.t.Helper()
	return w.publishList(store.CRL{CA: "services", Number: number}, entries)
}

// publishList signs and records the list that c describes.
func (w *world) publishList(c store.CRL, entries int) []byte {
	w.t.Helper()
	var der bytes.Buffer
	at := time.Now().UTC().Truncate(time.Second)
	template := crl.Template{Number: c.Number, ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour), Delta: c.Delta, Base: c.Base}
	list := func(yield func(crl.Entry, error) bool) {
		for i := range entries {
			if !yield(crl.Entry{Serial: []byte{1, byte(i >> 16), byte(i >> 8), byte(i)}, RevokedAt: at, Reason: 1}, nil) {
				return
			}
		}
	}
	if err := w.CA("services").SignCRL(ctx, template, list, &der); err != nil {
		w.t.Fatal(err)
	}
	w.update(func(tx *store.Tx) error {
		c := c
		c.ThisUpdate, c.NextUpdate, c.Entries = at, template.NextUpdate, entries
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: c.CA})
		return store.PutCRL(tx, &c, bytes.NewReader(der.Bytes()))
	})
	return der.Bytes()
}

func (w *world) issuer() *ocsp.Issuer {
	return testpki.Must(ocsp.NewIssuer(w.CA("services").Record.Certificate))
}

func (w *world) id(serial store.Serial) ocsp.CertID {
	return w.issuer().CertID(crypto.SHA256, serial[:])
}

// ask posts a request and returns the parsed response, whose signature is checked.
func (w *world) ask(nonce []byte, ids ...ocsp.CertID) (*ocsp.Response, error) {
	der, err := ocsp.MakeRequest(nonce, ids...)
	if err != nil {
		return nil, err
	}
	res, err := http.Post(w.url+"/ocsp/services", "application/ocsp-request", bytes.NewReader(der))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	r, err := ocsp.ParseResponse(body, 1<<16)
	if err != nil {
		return nil, err
	}
	return r, r.CheckSignature(w.CA("services").Record.Certificate, time.Now())
}

// status asks for one certificate.
func (w *world) status(serial store.Serial) *ocsp.SingleResponse {
	w.t.Helper()
	id := w.id(serial)
	r, err := w.ask(nil, id)
	if err != nil {
		w.t.Fatal(err)
	}
	s := r.Find(id)
	if s == nil {
		w.t.Fatalf("no answer for %s", serial)
	}
	return s
}

// get fetches a path with header values in pairs.
func (w *world) get(path string, header ...string) (*http.Response, []byte) {
	w.t.Helper()
	return w.send(http.MethodGet, path, nil, header...)
}

// send is get with any method and a body. The body of the response is read and closed.
func (w *world) send(method, path string, sent []byte, header ...string) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, bytes.NewReader(sent))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, body
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the condition
	}
}

// together runs f n times at once and waits for all.
func together(n int, f func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}
