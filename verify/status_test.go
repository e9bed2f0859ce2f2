package verify_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/verify"
)

// chain judges a reader's signing certificate, for its status to be asked.
func (w *world) chain(t *testing.T, leaf *testpki.Leaf) *verify.Cert {
	t.Helper()
	c, err := w.verifier.Chain(leaf.Certificate, leaf.Chain, verify.ReaderSigning)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newBook(t testing.TB) *store.Book {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book, err := store.Create(context.Background(), store.Config{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Check(context.Background(), nil); err != nil {
			t.Errorf("checking the book: %v", err)
		}
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	return book
}

func update(t testing.TB, book *store.Book, f func(tx *store.Tx) error) {
	t.Helper()
	if err := book.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// fill writes the CAs into the book.
func (w *world) fill(t testing.TB, book *store.Book) {
	t.Helper()
	update(t, book, func(tx *store.Tx) error {
		for _, ca := range w.CAs() {
			r := ca.Record
			r.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: r.ID})
			if err := store.CAs.Insert(tx, &r); err != nil {
				return err
			}
		}
		return nil
	})
}

// record writes a certificate into the book as the spine would, and mark changes
// its status.
func record(t testing.TB, book *store.Book, ca string, leaf *testpki.Leaf) {
	t.Helper()
	update(t, book, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindIntent, CA: ca, Serial: leaf.Serial})
		r := leaf.Record
		r.CA, r.Serial, r.DER = ca, leaf.Serial, leaf.Certificate
		r.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: ca, Serial: leaf.Serial})
		if err := store.Certificates.Insert(tx, &r); err != nil {
			return err
		}
		return store.Statuses.Put(tx, &store.Status{CA: ca, Serial: leaf.Serial, State: store.Good, Time: tx.Now(), NotAfter: r.NotAfter, Seq: r.Seq})
	})
}

func mark(t testing.TB, book *store.Book, ca string, leaf *testpki.Leaf, state store.State, kind string, reason int) {
	t.Helper()
	update(t, book, func(tx *store.Tx) error {
		s, err := store.Statuses.Get(tx, store.SerialKey(ca, leaf.Serial))
		if err != nil {
			return err
		}
		s.State, s.Reason, s.Time = state, reason, tx.Now()
		s.Seq = tx.Append(store.Event{Kind: kind, CA: ca, Serial: leaf.Serial})
		return store.Statuses.Put(tx, s)
	})
}

func TestFromBook(t *testing.T) {
	w := newWorld(t)
	book := newBook(t)
	w.fill(t, book)
	w.verifier.Status = verify.FromBook(book)
	good, held, revoked, missing := w.reader(t, "330100", "1").Sign, w.reader(t, "330100", "2").Sign, w.reader(t, "330100", "3").Sign, w.reader(t, "330100", "4").Sign
	for _, leaf := range []*testpki.Leaf{good, held, revoked} {
		record(t, book, "330100", leaf)
	}
	mark(t, book, "330100", held, store.Held, store.KindHeld, 6)
	mark(t, book, "330100", revoked, store.Revoked, store.KindRevoked, 1)

	check := func(leaf *testpki.Leaf) (verify.Evidence, error) {
		return w.verifier.CheckStatus(t.Context(), w.chain(t, leaf))
	}
	e, err := check(good)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := book.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e.Source != verify.SourceBook || e.Epoch != book.Epoch() || e.Seq != uint64(tree.Size) || e.State != verify.Good {
		t.Errorf("evidence %+v at %d", e, tree.Size)
	}
	_, err = check(held)
	misfit[*verify.HeldError](t, "held", verify.Kept, err)
	if h, _ := errors.AsType[*verify.HeldError](err); h.Evidence.Since.IsZero() || h.Evidence.Reason != 6 || !strings.Contains(err.Error(), "sequence") {
		t.Errorf("a poor reason: %v", err)
	}
	_, err = check(revoked)
	misfit[*verify.RevokedError](t, "revoked", verify.Kept, err)
	_, err = check(missing)
	misfit[*verify.UnknownError](t, "not in the book", verify.Kept, err)

	// A twin with the serial number of a good one is not the one in the book.
	twin := forge(t, w.CA("330100"), good, func(c *x509.Certificate) { c.SerialNumber = good.Serial.BigInt() })
	_, err = check(twin)
	misfit[*verify.UnknownError](t, "a twin", verify.Kept, err)

	mark(t, book, "330100", good, store.Revoked, store.KindRevoked, 1)
	_, err = check(good)
	misfit[*verify.RevokedError](t, "revoked meanwhile", verify.Kept, err)

	// Of another book's certificates it cannot tell, and the next source is asked.
	stranger := newWorld(t)
	stranger.verifier.Status = verify.FromBook(book)
	elsewhere := stranger.chain(t, stranger.reader(t, "330100", "1").Sign)
	_, err = stranger.verifier.CheckStatus(t.Context(), elsewhere)
	misfit[*verify.StaleError](t, "another book's", verify.Kept, err)
	stranger.verifier.Status = verify.First(verify.FromBook(book), stranger.status)
	if _, err := stranger.verifier.CheckStatus(t.Context(), elsewhere); err != nil {
		t.Errorf("the second source is not asked: %v", err)
	}
	if _, err := verify.First()(t.Context(), elsewhere); err == nil {
		t.Error("no source at all can tell")
	}
}

// responder is an OCSP responder of the world that can be made to misbehave.
type responder struct {
	w      *world
	ca     *testpki.CA
	state  ocsp.Status
	reason int
	change func(*ocsp.ResponseData)
	answer []byte // instead of one that is signed
}

func (r *responder) ServeHTTP(rw http.ResponseWriter, q *http.Request) {
	if r.answer != nil {
		rw.Write(r.answer)
		return
	}
	body, _ := io.ReadAll(q.Body)
	request, err := ocsp.ParseRequest(body)
	if err != nil {
		rw.Write(ocsp.ErrorResponse(ocsp.MalformedRequest))
		return
	}
	now := r.w.now()
	d := ocsp.ResponseData{ProducedAt: now, Nonce: request.Nonce}
	for _, id := range request.IDs {
		d.Responses = append(d.Responses, ocsp.SingleResponse{
			ID: id, Status: r.state, Reason: r.reason, RevokedAt: now.Add(-time.Hour), ThisUpdate: now, NextUpdate: now.Add(time.Minute),
		})
	}
	if r.change != nil {
		r.change(&d)
	}
	rw.Write(testpki.Must(testpki.Must(r.ca.Responder()).SignOCSP(q.Context(), d)))
}

func TestOCSP(t *testing.T) {
	w := newWorld(t)
	city := w.CA("330100")
	r := &responder{w: w, ca: city}
	server := httptest.NewServer(r)
	defer server.Close()
	o := &verify.OCSP{Responders: []verify.Source{{Issuer: city.Record.Certificate, URL: server.URL}}, Now: w.now}
	w.verifier.Status = verify.First(o.Status, w.status) // the working CAs' own status is not at issue here
	leaf := w.chain(t, w.reader(t, "330100", "1").Sign)
	ask := func() (verify.Evidence, error) { return o.Status(t.Context(), leaf) }

	e, err := ask()
	if err != nil || e.State != verify.Good || !strings.HasPrefix(e.Source, "ocsp http") || e.Time.IsZero() {
		t.Fatalf("good: %+v, %v", e, err)
	}
	if _, err := w.verifier.CheckStatus(t.Context(), leaf); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		state  ocsp.Status
		reason int
		want   string
	}{{ocsp.Revoked, 1, verify.Revoked}, {ocsp.Revoked, 6, verify.OnHold}, {ocsp.Unknown, 0, verify.Unknown}} {
		r.state, r.reason = c.state, c.reason
		if e, err := ask(); err != nil || e.State != c.want {
			t.Errorf("%s: %+v, %v", c.want, e, err)
		}
	}
	r.state, r.reason = ocsp.Good, 0
	for what, change := range map[string]func(*ocsp.ResponseData){
		"without a nonce": func(d *ocsp.ResponseData) { d.Nonce = nil },
		"another nonce":   func(d *ocsp.ResponseData) { d.Nonce = make([]byte, 32) },
		"old": func(d *ocsp.ResponseData) {
			d.Responses[0].NextUpdate = w.now().Add(-time.Second)
			d.Responses[0].ThisUpdate = w.now().Add(-time.Hour)
		},
		"from the future": func(d *ocsp.ResponseData) {
			d.Responses[0].ThisUpdate = w.now().Add(time.Hour)
			d.Responses[0].NextUpdate = w.now().Add(2 * time.Hour)
		},
		"for ever":              func(d *ocsp.ResponseData) { d.Responses[0].NextUpdate = time.Time{} },
		"another certificate's": func(d *ocsp.ResponseData) { d.Responses[0].ID.Serial = []byte{1, 2, 3}; d.Responses[0].ID.Raw = nil },
	} {
		r.change = change
		if e, err := ask(); err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
	r.change = nil
	other := &verify.OCSP{Responders: []verify.Source{{Issuer: city.Record.Certificate, URL: server.URL}}, Now: func() time.Time { return w.now().Add(time.Hour) }}
	if e, err := other.Status(t.Context(), leaf); err == nil {
		t.Errorf("with a clock an hour ahead: %+v", e)
	}
	r.ca = w.CA("330200")
	if e, err := ask(); err == nil {
		t.Errorf("signed for another CA: %+v", e)
	}
	r.ca = city
	for what, answer := range map[string][]byte{"rubbish": []byte("rubbish"), "try later": ocsp.ErrorResponse(ocsp.TryLater), "large": make([]byte, 1<<20), "empty": {}} {
		r.answer = answer
		if e, err := ask(); err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
	if e, err := o.Status(t.Context(), w.chain(t, w.reader(t, "330200", "1").Sign)); err == nil {
		t.Errorf("no address for it: %+v", e)
	}
	server.Close()
	_, err = ask()
	if err == nil {
		t.Error("nobody answers")
	}
}

// lister serves a CA's revocation list.
type lister struct {
	ca       *testpki.CA
	template crl.Template
	revoked  map[store.Serial]int
	asked    atomic.Int32
	answer   []byte
}

func (l *lister) ServeHTTP(rw http.ResponseWriter, q *http.Request) {
	l.asked.Add(1)
	if l.answer != nil {
		rw.Write(l.answer)
		return
	}
	var entries iter.Seq2[crl.Entry, error] = func(yield func(crl.Entry, error) bool) {
		for serial, reason := range l.revoked {
			if !yield(crl.Entry{Serial: serial[:], RevokedAt: l.template.ThisUpdate, Reason: reason}, nil) {
				return
			}
		}
	}
	var b bytes.Buffer
	if err := l.ca.SignCRL(q.Context(), l.template, entries, &b); err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Write(b.Bytes())
}

func TestCRLs(t *testing.T) {
	w := newWorld(t)
	city := w.CA("330100")
	start := w.now()
	leaf, bad, held := w.reader(t, "330100", "1").Sign, w.reader(t, "330100", "2").Sign, w.reader(t, "330100", "3").Sign
	l := &lister{ca: city, template: crl.Template{ThisUpdate: start, NextUpdate: start.Add(24 * time.Hour), Number: 5}, revoked: map[store.Serial]int{bad.Serial: 1, held.Serial: 6}}
	server := httptest.NewServer(l)
	defer server.Close()
	source := func() *verify.CRLs {
		return &verify.CRLs{Lists: []verify.Source{{Issuer: city.Record.Certificate, URL: server.URL}}, MaxAge: time.Hour, Now: w.now}
	}
	lists := source()
	for what, c := range map[string]struct {
		leaf *testpki.Leaf
		want string
	}{"good": {leaf, verify.Good}, "revoked": {bad, verify.Revoked}, "held": {held, verify.OnHold}} {
		e, err := lists.Status(t.Context(), w.chain(t, c.leaf))
		if err != nil || e.State != c.want || !strings.HasPrefix(e.Source, "crl http") || e.Time.IsZero() {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
	}
	if n := l.asked.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	cert := w.chain(t, leaf)
	ask := func(lists *verify.CRLs) error {
		_, err := lists.Status(t.Context(), cert)
		return err
	}

	w.wait(2 * time.Hour)
	if ask(lists) == nil || l.asked.Load() != 2 {
		t.Errorf("a list of two hours is taken, or was not fetched again (%d)", l.asked.Load())
	}
	l.template.ThisUpdate, l.template.Number = w.now(), 6
	if err := ask(lists); err != nil {
		t.Errorf("the next list: %v", err)
	}
	w.wait(2 * time.Hour)
	l.template.ThisUpdate, l.template.Number = w.now(), 4
	if err := ask(lists); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("an older number: %v", err)
	}
	fresh := l.template
	for what, change := range map[string]func(*crl.Template){
		"past its end": func(c *crl.Template) {
			c.ThisUpdate, c.NextUpdate = w.now().Add(-30*time.Minute), w.now().Add(-time.Second)
		},
		"from the future":       func(c *crl.Template) { c.ThisUpdate, c.NextUpdate = w.now().Add(time.Hour), w.now().Add(2*time.Hour) },
		"a delta":               func(c *crl.Template) { c.Delta, c.Base = true, 1 },
		"of CAs":                func(c *crl.Template) { c.Point = &crl.Point{OnlyCAs: true} },
		"of another place":      func(c *crl.Template) { c.Point = &crl.Point{URIs: []string{"http://elsewhere/x.crl"}} },
		"of another, for users": func(c *crl.Template) { c.Point = &crl.Point{URIs: []string{"http://elsewhere/x.crl"}, OnlyUsers: true} },
	} {
		l.template = fresh
		change(&l.template)
		if ask(source()) == nil {
			t.Errorf("%s: taken", what)
		}
	}
	l.template = fresh
	l.template.Point = &crl.Point{URIs: cert.X509.CRLDistributionPoints, OnlyUsers: true}
	if err := ask(source()); len(cert.X509.CRLDistributionPoints) > 0 && err != nil {
		t.Errorf("of its own place: %v", err)
	}
	l.template = fresh
	l.ca = w.CA("330200")
	if ask(source()) == nil {
		t.Error("signed by another CA: taken")
	}
	l.answer = []byte("rubbish")
	if ask(source()) == nil {
		t.Error("rubbish: taken")
	}
	if ask(&verify.CRLs{}) == nil {
		t.Error("no list: told")
	}
	server.Close()
	if ask(source()) == nil {
		t.Error("nobody answers: told")
	}
}

// A relying party without a book asks OCSP about readers and the root's list about
// the CAs above them.
func TestOutsider(t *testing.T) {
	w := newWorld(t)
	city := w.CA("330100")
	r := w.reader(t, "330100", "1")
	answers := httptest.NewServer(&responder{w: w, ca: city})
	defer answers.Close()
	now := w.now()
	list := &lister{ca: w.Root, template: crl.Template{ThisUpdate: now, NextUpdate: now.Add(time.Hour), Number: 1}, revoked: map[store.Serial]int{}}
	lists := httptest.NewServer(list)
	defer lists.Close()
	check := func() error {
		o := &verify.OCSP{Responders: []verify.Source{{Issuer: city.Record.Certificate, URL: answers.URL}}, Now: w.now}
		l := &verify.CRLs{Lists: []verify.Source{{Issuer: w.Root.Record.Certificate, URL: lists.URL}}, Now: w.now}
		v := &verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Now: w.now, Status: verify.First(o.Status, l.Status)}
		_, err := v.LoadRequest(t.Context(), w.sign(t, r, w.request(r)))
		return err
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	serial, err := store.SerialFrom(testpki.Must(x509.ParseCertificate(city.Record.Certificate)).SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	list.revoked[serial] = 2
	misfit[*verify.RevokedError](t, "city CA on the root's list", verify.Kept, check())
	lists.Close()
	misfit[*verify.StaleError](t, "no list", verify.Kept, check())
}
