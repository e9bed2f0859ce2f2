package ca_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

func TestIssue(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(order(server("a.example")))[0]
	if cert.CA != "services" || cert.Line != cert.Serial.String() || cert.Requester != "tester" || cert.Seq == 0 || len(cert.Names) != 1 {
		t.Errorf("the record is %+v", cert)
	}
	if s := w.status(ref(cert)); s.State != store.Good || s.Seq != cert.Seq || !s.NotAfter.Equal(cert.NotAfter) {
		t.Errorf("the status is %+v", s)
	}
	o := pair("42")
	o.Hold = true
	certs := w.issue(o)
	sign, encrypt := certs[0], certs[1]
	if sign.Profile != "reader-sign" || encrypt.Profile != "reader-encrypt" || sign.Subject != encrypt.Subject ||
		!sign.NotBefore.Equal(encrypt.NotBefore) || !sign.NotAfter.Equal(encrypt.NotAfter) || sign.Reader != "42" {
		t.Errorf("the pair does not belong together: %+v, %+v", sign, encrypt)
	}
	for _, c := range certs {
		if s := w.status(ref(c)); s.State != store.Held || s.Reason != 6 {
			t.Errorf("%s was not issued on hold: %+v", c.Profile, s)
		}
	}
}

// TestBudget pins what one certificate costs: one signature, two commits. That
// no directory is asked is held by the imports of the package.
func TestBudget(t *testing.T) {
	w := newWorld(t)
	w.issue(order(server("first.example"))) // the node enters the book once
	signer := w.pki.CA("services").Signer
	o := order(server("a.example"))
	o.IdempotencyKey = "once"
	signatures, commits := signer.Count(), w.engine.commits.Load()
	w.issue(o)
	if n := signer.Count() - signatures; n != 1 {
		t.Errorf("one certificate took %d signatures", n)
	}
	if n := w.engine.commits.Load() - commits; n != 2 {
		t.Errorf("one certificate took %d commits", n)
	}
	signatures, commits = signer.Count(), w.engine.commits.Load()
	w.issue(o)
	if signer.Count() != signatures || w.engine.commits.Load() != commits {
		t.Error("the answer to a repeated order was made anew")
	}
}

// TestRefusals: each bad request gets its named error and leaves no trace.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	taken := ecKey(t)
	w.issue(order(serverFor(taken, "taken.example")))
	weak := testpki.Must(rsa.GenerateKey(rand.Reader, 1024))
	good := server("a.example")

	with := func(change func(*ca.Request)) ca.Order {
		r := server("a.example")
		change(&r)
		return order(r)
	}
	extended := func(value []byte) []byte {
		return testpki.Must(testpki.CSR(ecKey(t), pkix.Extension{Id: oid.ExtBasicConstraints, Critical: true, Value: value}))
	}
	forged := bytes.Clone(good.CSR)
	forged[len(forged)-1] ^= 1
	bare := pair("7")
	bare.Requests[0].CSR = testpki.Must(testpki.CSR(ecKey(t)))
	foreign := pair("8")
	foreign.Requests[1].Name.Reader = "9"
	alone := pair("10")
	alone.Requests = alone.Requests[1:]
	oneKey := pair("11")
	key := ecKey(t)
	oneKey.Requests[0].CSR = testpki.Must(testpki.PairCSR(key, key.Public()))
	oneKey.Requests[1].SPKI = testpki.Must(x509.MarshalPKIXPublicKey(key.Public()))

	for name, c := range map[string]struct {
		order ca.Order
		want  string // rule or problem, or the type of the error
	}{
		"rubbish":                   {with(func(r *ca.Request) { r.CSR = []byte("rubbish") }), "csr-form"},
		"trailing octets":           {with(func(r *ca.Request) { r.CSR = append(r.CSR, 0) }), "csr-form"},
		"oversized":                 {with(func(r *ca.Request) { r.CSR = make([]byte, 1<<20) }), "csr-size"},
		"no proof of possession":    {with(func(r *ca.Request) { r.CSR = forged }), "csr-signature"},
		"CA:TRUE":                   {with(func(r *ca.Request) { r.CSR = extended([]byte{0x30, 3, 1, 1, 0xff}) }), "csr-ca"},
		"broken constraints":        {with(func(r *ca.Request) { r.CSR = extended([]byte{1, 2, 3}) }), "csr-ca"},
		"short RSA key":             {with(func(r *ca.Request) { r.CSR = testpki.Must(testpki.CSR(weak)) }), "key-size"},
		"unknown profile":           {with(func(r *ca.Request) { r.Profile = "root-of-all" }), "request-profile"},
		"profile of another CA":     {with(func(r *ca.Request) { r.Profile = "device" }), ""},
		"profile of a CA":           {with(func(r *ca.Request) { r.Profile = "working-ca" }), "ca-profile"},
		"unknown CA":                {with(func(r *ca.Request) { r.CA = "999999" }), "*ca.CAError"},
		"no key":                    {with(func(r *ca.Request) { r.CSR = nil }), "request-key"},
		"a bare key that signs":     {with(func(r *ca.Request) { r.SPKI, r.CSR = []byte{1}, nil }), "request-key"},
		"two keys":                  {with(func(r *ca.Request) { r.SPKI = []byte{1} }), "request-key"},
		"ends after its CA":         {with(func(r *ca.Request) { r.NotAfter = time.Now().AddDate(30, 0, 0) }), ""},
		"unknown line":              {with(func(r *ca.Request) { r.Line = "no such line" }), "request-line"},
		"a long requester":          {ca.Order{Requests: []ca.Request{good}, Requester: strings.Repeat("x", 256)}, "request-order"},
		"a long line":               {with(func(r *ca.Request) { r.Line = strings.Repeat("x", 4096) }), "request-line"},
		"no requester":              {ca.Order{Requests: []ca.Request{good}}, "request-order"},
		"nothing":                   {order(), "request-order"},
		"a taken key":               {order(serverFor(taken, "other.example")), "*ca.KeyTakenError"},
		"a CA's key":                {order(serverFor(w.pki.CA("services").Signer.Key, "other.example")), "*ca.KeyTakenError"},
		"one key for two":           {order(serverFor(key, "a.example"), serverFor(key, "b.example")), "*ca.KeyTakenError"},
		"one key for a pair":        {oneKey, "*ca.KeyTakenError"},
		"nobody vouches":            {bare, "request-key"},
		"vouched for by a stranger": {foreign, "request-key"},
		"encryption key alone":      {alone, "request-key"},
	} {
		t.Run(name, func(t *testing.T) {
			head, signed := w.head(), w.pki.CA("services").Signer.Count()+w.pki.CA("330100").Signer.Count()
			certs, err := w.Issue(t.Context(), c.order)
			if err == nil {
				t.Fatalf("it was granted: %v", certs)
			}
			if got := problem(err); c.want != "" && got != c.want {
				t.Errorf("refused as %q: %v", got, err)
			}
			if w.head() != head || len(w.intents()) > 0 {
				t.Error("the refusal left something in the book")
			}
			if w.pki.CA("services").Signer.Count()+w.pki.CA("330100").Signer.Count() != signed {
				t.Error("something was signed")
			}
		})
	}
}

// problem names what an error is about.
func problem(err error) string {
	var violation *policy.Violation
	var request *ca.RequestError
	var caErr *ca.CAError
	var taken *ca.KeyTakenError
	switch {
	case errors.As(err, &violation):
		return violation.Rule
	case errors.As(err, &request):
		return request.Problem
	case errors.As(err, &caErr):
		return "*ca.CAError"
	case errors.As(err, &taken):
		return "*ca.KeyTakenError"
	}
	return fmt.Sprintf("%T", err)
}

func TestRetiredCA(t *testing.T) {
	w := newWorld(t)
	w.update(func(tx *store.Tx) error {
		rec, err := store.CAs.Get(tx, store.Key("services"))
		if err != nil {
			return err
		}
		rec.State = "retiring"
		rec.Seq = tx.Append(store.Event{Kind: store.KindCARetired, CA: rec.ID})
		return store.CAs.Put(tx, rec)
	})
	_, err := w.Issue(t.Context(), order(server("a.example")))
	if e := new(ca.CAError); !errors.As(err, &e) {
		t.Fatalf("a retiring CA answered %v", err)
	}
	// Its list goes on.
	if _, err := w.PublishCRL(t.Context(), "services"); err != nil {
		t.Error(err)
	}
}

// TestGenerations: a line's newest generation issues, the older one is still
// reached by name, and keeps its list.
func TestGenerations(t *testing.T) {
	w := newWorld(t)
	testpki.Must(w.pki.AddCA("services.2", policy.KindServices, ""))
	w.addCAs()
	w.Authority = w.node("node-1")
	if c := w.issue(order(server("a.example")))[0]; c.CA != "services.2" {
		t.Errorf("the line's certificate came from %s", c.CA)
	}
	if _, err := w.PublishCRL(t.Context(), "services"); err != nil {
		t.Error(err)
	}
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	key := ecKey(t)
	first := w.issue(order(serverFor(key, "a.example")))[0]
	renew := serverFor(key, "a.example")
	renew.Line = first.Line
	second := w.issue(order(renew))[0]
	if second.Line != first.Line || second.Serial == first.Serial {
		t.Errorf("the renewal is of line %s", second.Line)
	}

	other := serverFor(key, "b.example")
	other.Line = first.Line
	if _, err := w.Issue(t.Context(), order(other)); problem(err) != "request-line" {
		t.Errorf("a renewal for other names: %v", err)
	}
	stranger := server("a.example")
	stranger.Line = first.Line
	w.issue(order(stranger)) // a new key may join the line
	w.issue(order(renew))

	w.update(func(tx *store.Tx) error { return w.Revoke(tx, ref(second), 1, time.Time{}, "tester") })
	_, err := w.Issue(t.Context(), order(renew))
	if taken := new(ca.KeyTakenError); !errors.As(err, &taken) || !taken.Compromised {
		t.Errorf("a compromised key was renewed: %v", err)
	}
}

// TestNothingOfTheRequest: names and extensions of a CSR do not reach the
// certificate.
func TestNothingOfTheRequest(t *testing.T) {
	w := newWorld(t)
	csr := testpki.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "evil.example", Organization: []string{"Evil"}}, DNSNames: []string{"evil.example"},
		ExtraExtensions: []pkix.Extension{{Id: oid.ExtExtendedKeyUsage, Value: []byte{0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0}}},
	}, ecKey(t)))
	r := server("good.example")
	r.CSR = csr
	cert := testpki.Must(x509.ParseCertificate(w.issue(order(r))[0].DER))
	if bytes.Contains(cert.Raw, []byte("vil")) || len(cert.UnknownExtKeyUsage) > 0 || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("the certificate took over what the request said: %v %v", cert.Subject, cert.ExtKeyUsage)
	}
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t)
	o := order(server("a.example"))
	o.IdempotencyKey = "k"
	signer := w.pki.CA("services").Signer

	// While the first is at the token, the others wait for it.
	var started, release sync.WaitGroup
	started.Add(1)
	release.Add(1)
	var once sync.Once
	signer.Before = func(int64) error {
		once.Do(func() { started.Done(); release.Wait() })
		return nil
	}
	before := signer.Count()
	const callers = 8
	answers := make([]*store.Certificate, callers)
	var wg sync.WaitGroup
	ask := func(i int) {
		certs, err := w.Issue(t.Context(), o)
		if err != nil {
			t.Errorf("caller %d: %v", i, err)
			return
		}
		answers[i] = certs[0]
	}
	wg.Go(func() { ask(0) })
	started.Wait()
	for i := 1; i < callers; i++ {
		wg.Go(func() { ask(i) })
	}
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.Issue(late, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an order under way was answered: %v", err)
	}
	release.Done()
	wg.Wait()
	for _, c := range answers {
		if c == nil || c.Serial != answers[0].Serial {
			t.Fatal("one order got two certificates")
		}
	}
	if n := signer.Count() - before; n != 1 {
		t.Errorf("one order took %d signatures", n)
	}

	other := order(server("b.example"))
	other.IdempotencyKey = "k"
	if _, err := w.Issue(t.Context(), other); !errors.As(err, new(*ca.IdempotencyError)) {
		t.Errorf("the key answered another order: %v", err)
	}
	other.Requester = "somebody else"
	w.issue(other)
}

// TestHooks: what Reserve and Commit write stands or falls with the order.
func TestHooks(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("refused")
	note := func(kind string) func(*store.Tx, []*store.Certificate) error {
		return func(tx *store.Tx, certs []*store.Certificate) error {
			tx.Append(store.Event{Kind: kind, CA: certs[0].CA, Serial: certs[0].Serial})
			return nil
		}
	}
	fail := func(*store.Tx, []*store.Certificate) error { return refused }
	count := func(kind string) (n int) {
		for _, e := range testpki.Must(allEvents(t.Context(), w.book)) {
			if e.Kind == kind {
				n++
			}
		}
		return n
	}

	o := order(server("a.example"))
	o.Reserve, o.Commit = note("test.reserve"), note("test.commit")
	w.issue(o)
	if count("test.reserve") != 1 || count("test.commit") != 1 {
		t.Error("the hooks did not run")
	}

	o = order(server("b.example"))
	o.Reserve = fail
	head := w.head()
	if _, err := w.Issue(t.Context(), o); !errors.Is(err, refused) || w.head() != head {
		t.Errorf("a failing Reserve: %v, head %d → %d", err, head, w.head())
	}

	o.Reserve, o.Commit = nil, fail
	if _, err := w.Issue(t.Context(), o); !errors.Is(err, refused) {
		t.Errorf("a failing Commit: %v", err)
	}
	if len(w.intents()) > 0 || count(store.KindIntentClosed) != 1 {
		t.Error("the intents of a failing Commit are open")
	}
	o.Commit = nil
	w.issue(o) // the key is free again
}

// TestBatch: orders of a batch share commits, and the refused ones take nobody
// down.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	const n = 300
	orders := make([]ca.Order, n)
	for i := range orders {
		orders[i] = order(server(fmt.Sprintf("h%d.example", i)))
		orders[i].IdempotencyKey = fmt.Sprint(i)
		switch i % 50 {
		case 7: // a refusal of policy
			orders[i].Requests[0].Profile = "device"
		case 8: // a refusal in the reserve transaction
			orders[i].Requests[0].Line = "no such line"
		case 9: // a failure after signing
			orders[i].Commit = func(*store.Tx, []*store.Certificate) error { return errors.New("no") }
		}
	}
	orders[20] = orders[10] // the same order twice in one chunk
	bad := func(i int) bool { return i%50 >= 7 && i%50 <= 9 }
	w.issue(order(server("first.example")))
	commits := w.engine.commits.Load()
	serials := map[store.Serial]int{}
	next := 0
	run := func() {
		next = 0
		err := w.IssueBatch(t.Context(), orders, func(i int, certs []*store.Certificate, err error) error {
			if i != next {
				t.Fatalf("order %d came in place of %d", i, next)
			}
			next++
			if (err != nil) != bad(i) {
				t.Errorf("order %d: %v", i, err)
			}
			for _, c := range certs {
				serials[c.Serial]++
			}
			return nil
		})
		if err != nil || next != n {
			t.Fatalf("the batch ended after %d orders: %v", next, err)
		}
	}
	run()
	if got := w.engine.commits.Load() - commits; got > 10 {
		t.Errorf("%d orders took %d commits", n, got)
	}
	if want := n - 3*n/50 - 1; len(serials) != want {
		t.Errorf("%d certificates came of it, not %d", len(serials), want)
	}
	w.check()
	run()
	for s, times := range serials {
		if times != 2 && times != 4 {
			t.Fatalf("certificate %s was the answer %d times", s, times)
		}
	}

	stop := errors.New("stop")
	if err := w.IssueBatch(t.Context(), orders, func(int, []*store.Certificate, error) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the batch went on: %v", err)
	}
}

// TestAdopt: a certificate that came back by another way holds its key again.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	key := ecKey(t)
	leaf := testpki.Must(w.pki.CA("services").Certify(key, issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"a.example"}}}))
	rec := leaf.Record
	rec.Line = rec.Serial.String()
	w.update(func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindIntent, CA: rec.CA, Serial: rec.Serial})
		rec.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: rec.CA, Serial: rec.Serial})
		revoked := tx.Append(store.Event{Kind: store.KindRevoked, CA: rec.CA, Serial: rec.Serial})
		s := store.Status{CA: rec.CA, Serial: rec.Serial, State: store.Revoked, Reason: 1, Time: tx.Now(), NotAfter: rec.NotAfter, Seq: revoked}
		if err := errors.Join(store.Certificates.Insert(tx, &rec), store.Statuses.Insert(tx, &s)); err != nil {
			return err
		}
		return ca.Adopt(tx, &rec)
	})
	renew := serverFor(key, "a.example")
	renew.Line = rec.Line
	for _, r := range []ca.Request{serverFor(key, "b.example"), renew} {
		if _, err := w.Issue(t.Context(), order(r)); !errors.As(err, new(*ca.KeyTakenError)) {
			t.Errorf("a key that was compromised before the restore: %v", err)
		}
	}
}
