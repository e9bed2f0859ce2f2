package responder_test

import (
	"bytes"
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oracle "golang.org/x/crypto/ocsp"

	"hufu/ca/responder"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/store"
)

// refused asserts an unsigned OCSP error.
func refused(t *testing.T, what string, body []byte, want ocsp.ResponseStatus) {
	t.Helper()
	_, err := ocsp.ParseResponse(body, 1<<16)
	if e := (*ocsp.ResponseError)(nil); !errors.As(err, &e) || e.Status != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestNextRequestShowsTheChange: what Update has returned, the very next answer tells.
func TestNextRequestShowsTheChange(t *testing.T) {
	t.Run("watching", func(t *testing.T) { nextRequestShowsTheChange(t, newWorld(t, nil)) })
	t.Run("looking", func(t *testing.T) {
		nextRequestShowsTheChange(t, newWorld(t, func(_ *world, c *responder.Config) { c.Changed = nil }))
	})
}

func nextRequestShowsTheChange(t *testing.T, w *world) {
	c := w.issue()
	for range 20 {
		if s := w.status(c.Serial); s.Status != ocsp.Good {
			t.Fatalf("issued: %v", s.Status)
		}
		w.set(c, store.Held, 6)
		if s := w.status(c.Serial); s.Status != ocsp.Revoked || s.Reason != 6 {
			t.Fatalf("held: %+v", s)
		}
		w.set(c, store.Good, 0)
	}
	w.set(c, store.Revoked, 1)
	if s := w.status(c.Serial); s.Status != ocsp.Revoked || s.Reason != 1 || time.Since(s.RevokedAt) > time.Minute {
		t.Errorf("revoked: %+v", s)
	}
}

// TestNeverIssuedIsUnknown: no serial number is good that the book does not hold,
// one that is only intended included; once issued it is good at once.
func TestNeverIssuedIsUnknown(t *testing.T) {
	w := newWorld(t, nil)
	var serial store.Serial
	copy(serial[:], "\x01never issued ever")
	if s := w.status(serial); s.Status != ocsp.Unknown {
		t.Errorf("never issued: %v", s.Status)
	}
	w.update(func(tx *store.Tx) error {
		seq := tx.Append(store.Event{Kind: store.KindIntent, CA: "services", Serial: serial})
		return store.Intents.Insert(tx, &store.Intent{CA: "services", Serial: serial, Seq: seq})
	})
	if s := w.status(serial); s.Status != ocsp.Unknown {
		t.Errorf("only intended: %v", s.Status)
	}
	w.update(func(tx *store.Tx) error {
		seq := tx.Append(store.Event{Kind: store.KindIntentClosed, CA: "services", Serial: serial})
		return store.Statuses.Insert(tx, &store.Status{CA: "services", Serial: serial, State: store.Revoked, Reason: 5, Time: tx.Now(), Unissued: true, Seq: seq})
	})
	if s := w.status(serial); s.Status != ocsp.Revoked {
		t.Errorf("an intent that was closed may have been signed: %v", s.Status)
	}
	for _, odd := range [][]byte{{5}, {0xff}, bytes.Repeat([]byte{1}, 20)} {
		id := w.issuer().CertID(crypto.SHA1, odd)
		r, err := w.ask(nil, id)
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Find(id); s == nil || s.Status != ocsp.Unknown {
			t.Errorf("serial number %x: %+v", odd, s)
		}
	}
}

func TestSeveralSerialsAndNonce(t *testing.T) {
	w := newWorld(t, nil)
	good, held, other := w.issue(), w.issue(), w.issue()
	w.set(held, store.Held, 6)
	foreign := testpki.Must(ocsp.NewIssuer(w.CA("device").Record.Certificate)).CertID(crypto.SHA256, other.Serial[:])
	for _, size := range []int{0, 1, 16, 32, 128} {
		var nonce []byte
		if size > 0 {
			nonce = bytes.Repeat([]byte{7}, size)
		}
		ids := []ocsp.CertID{w.id(good.Serial), w.issuer().CertID(crypto.SHA1, held.Serial[:]), foreign}
		r, err := w.ask(nonce, ids...)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Nonce, nonce) {
			t.Errorf("the nonce %x came back as %x", nonce, r.Nonce)
		}
		for i, want := range []ocsp.Status{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
			if s := r.Find(ids[i]); s == nil || s.Status != want {
				t.Errorf("answer %d: %+v, want %v", i, s, want)
			}
		}
	}
	before := w.signer.Count()
	for range 3 {
		if r, err := w.ask(make([]byte, 32), w.id(good.Serial)); err != nil || len(r.Nonce) != 32 {
			t.Fatal(err)
		}
	}
	if n := w.signer.Count() - before; n != 3 {
		t.Errorf("three nonces made %d signatures", n)
	}
}

// TestGetForms: every way in which clients write the base64 into the path.
func TestGetForms(t *testing.T) {
	w := newWorld(t, func(_ *world, c *responder.Config) { c.BasePath = "/pki/" })
	w.url = strings.TrimSuffix(w.url, "/")
	c := w.issue()
	var der []byte
	for { // until it has all that is awkward, two slashes in a row among it
		id := w.issuer().CertID(crypto.SHA1, c.Serial[:])
		nonce := testpki.Must(hex.DecodeString(fmt.Sprintf("%032x", mathrand.Uint64())))
		der = testpki.Must(ocsp.MakeRequest(append([]byte{0xff, 0xff, 0xff, 0xfb, 0xef, 0xbe}, nonce...), id))
		if b := base64.StdEncoding.EncodeToString(der); strings.Contains(b, "//") && strings.Contains(b, "+") && strings.HasSuffix(b, "=") {
			break
		}
	}
	plain := base64.StdEncoding.EncodeToString(der)
	escaped := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(plain)
	for name, form := range map[string]string{
		"plain":             plain,
		"escaped":           escaped,
		"escaped twice":     strings.ReplaceAll(escaped, "%", "%25"),
		"lower case":        strings.ReplaceAll(escaped, "%2F", "%2f"),
		"without padding":   strings.TrimRight(plain, "="),
		"plus as space":     strings.ReplaceAll(plain, "+", "%20"),
		"address ends in /": "/" + plain,
	} {
		res, body := w.get("/ocsp/services/" + form)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/ocsp-response" {
			t.Fatalf("%s: %v", name, res)
		}
		r, err := oracle.ParseResponse(body, nil)
		if err != nil || r.Status != oracle.Good || r.SerialNumber.Cmp(c.Serial.BigInt()) != 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	_, body := w.get("/ocsp/services/" + url.PathEscape(plain[:len(plain)-8]))
	refused(t, "cut", body, ocsp.MalformedRequest)
	_, body = w.get("/ocsp/services/%25zz")
	refused(t, "badly escaped", body, ocsp.MalformedRequest)
	_, body = w.get("/ocsp/services/" + strings.Repeat("M", 100_000))
	refused(t, "too long", body, ocsp.MalformedRequest)
	_, body = w.get("/ocsp/services")
	refused(t, "empty", body, ocsp.MalformedRequest)
	if res, _ := w.get("/../ocsp/services/" + plain); res.StatusCode != http.StatusNotFound {
		t.Errorf("below no base path: %s", res.Status)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t, nil)
	c := w.issue()
	ours := testpki.Must(ocsp.MakeRequest(nil, w.id(c.Serial)))
	root := testpki.Must(ocsp.NewIssuer(w.Root.Record.Certificate))
	rootRequest := testpki.Must(ocsp.MakeRequest(nil, root.CertID(crypto.SHA1, c.Serial[:])))
	post := func(path string, der []byte) []byte {
		t.Helper()
		res, body := w.send(http.MethodPost, path, der, "Content-Type", "application/ocsp-request")
		if res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, res.Header.Get("Cache-Control"))
		}
		return body
	}
	refused(t, "another CA's certificate", post("/ocsp/device", ours), ocsp.Unauthorized)
	refused(t, "no such CA", post("/ocsp/nobody", ours), ocsp.Unauthorized)
	refused(t, "the root, whose key is elsewhere", post("/ocsp/root", rootRequest), ocsp.Unauthorized)
	refused(t, "rubbish", post("/ocsp/services", []byte("rubbish")), ocsp.MalformedRequest)
	refused(t, "nothing", post("/ocsp/services", nil), ocsp.MalformedRequest)
	refused(t, "too large", post("/ocsp/services", make([]byte, ocsp.MaxRequest+1)), ocsp.MalformedRequest)
	if w.renewed.Load() != 0 {
		t.Error("a request that was refused had a certificate made")
	}
	if res, _ := w.send(http.MethodPut, "/ocsp/services", nil); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %v", res)
	}
	if res, _ := w.send(http.MethodPost, "/crl/services.crl", nil); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST of a CRL: %s", res.Status)
	}
	for _, path := range []string{"/", "/ocsp", "/crl/services", "/crl/services.crl", "/crl/nobody.crl", "/issuer/nobody.cer", "/issuer/services.crl"} {
		if res, _ := w.get(path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestCaching(t *testing.T) {
	w := newWorld(t, nil)
	c := w.issue()
	path := "/ocsp/services/" + url.PathEscape(base64.StdEncoding.EncodeToString(testpki.Must(ocsp.MakeRequest(nil, w.id(c.Serial)))))
	res, body := w.get(path)
	r := testpki.Must(ocsp.ParseResponse(body, 1<<16))
	h := res.Header
	expires, err := http.ParseTime(h.Get("Expires"))
	if err != nil || time.Until(expires) > 6*time.Second {
		t.Errorf("Expires %q, %v", h.Get("Expires"), err)
	}
	if h.Get("Cache-Control") != "max-age=5, public, no-transform, must-revalidate" || h.Get("Etag") == "" ||
		h.Get("Last-Modified") != r.Responses[0].ThisUpdate.Format(http.TimeFormat) || !r.Responses[0].NextUpdate.Equal(r.Responses[0].ThisUpdate.Add(time.Hour)) {
		t.Errorf("headers %v", h)
	}
	again, same := w.get(path)
	if !bytes.Equal(same, body) || again.Header.Get("Etag") != h.Get("Etag") || w.signer.Count() != 1 {
		t.Errorf("asked twice: %d signatures", w.signer.Count())
	}
	for _, header := range [][]string{{"If-None-Match", h.Get("Etag")}, {"If-None-Match", `"x", W/` + h.Get("Etag")}, {"If-Modified-Since", h.Get("Last-Modified")}} {
		if res, body := w.get(path, header...); res.StatusCode != http.StatusNotModified || len(body) > 0 || res.Header.Get("Etag") != h.Get("Etag") {
			t.Errorf("%v: %s, %d octets", header, res.Status, len(body))
		}
	}
	if res, body := w.get(path, "If-None-Match", `"other"`); res.StatusCode != 200 || !bytes.Equal(body, same) {
		t.Errorf("another ETag: %s", res.Status)
	}
	w.set(c, store.Revoked, 1)
	if res, body := w.get(path, "If-None-Match", h.Get("Etag")); res.StatusCode != 200 || bytes.Equal(body, same) {
		t.Errorf("revoked, but %s", res.Status)
	}
	head, _ := w.send(http.MethodHead, path, nil)
	if head.StatusCode != 200 || head.ContentLength < 100 {
		t.Errorf("HEAD: %v", head)
	}
}

// TestOneSignature: many who ask at once for the same share one signature, and one
// certificate of the responder.
func TestOneSignature(t *testing.T) {
	w := newWorld(t, nil)
	c := w.issue()
	together(50, func(int) {
		if r, err := w.ask(nil, w.id(c.Serial)); err != nil || r.Responses[0].Status != ocsp.Good {
			t.Errorf("%+v, %v", r, err)
		}
	})
	if n := w.signer.Count(); n != 1 || w.renewed.Load() != 1 {
		t.Errorf("%d signatures, %d certificates", n, w.renewed.Load())
	}
}

// TestTokenAway: without a key there is tryLater, and an answer that was signed
// before only while it is true.
func TestTokenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	kept, fresh := w.issue(), w.issue()
	w.away.Store(true)
	tryLater := func(what string, serial store.Serial) {
		t.Helper()
		_, err := w.ask(nil, w.id(serial))
		if e := (*ocsp.ResponseError)(nil); !errors.As(err, &e) || e.Status != ocsp.TryLater {
			t.Errorf("%s: %v, want tryLater", what, err)
		}
	}
	tryLater("nothing can be certified", kept.Serial)
	w.away.Store(false)
	eventually(t, "the token is back", func() bool { _, err := w.ask(nil, w.id(kept.Serial)); return err == nil })

	w.away.Store(true)
	if s := w.status(kept.Serial); s.Status != ocsp.Good {
		t.Errorf("what was signed and is true: %v", s.Status)
	}
	tryLater("not signed yet", fresh.Serial)
	w.set(kept, store.Revoked, 1)
	tryLater("signed, but true no longer", kept.Serial)
	w.away.Store(false)
	eventually(t, "the token is back", func() bool { _, err := w.ask(nil, w.id(kept.Serial)); return err == nil })
	if s := w.status(kept.Serial); s.Status != ocsp.Revoked {
		t.Errorf("the token is back: %v", s.Status)
	}
}

// TestRenewal: answers and responder certificates are renewed while they are asked
// for, and no answer outlives the certificate of its signer.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world, c *responder.Config) {
		c.Validity, c.MaxAge, w.validity = 8*time.Second, time.Second, 12*time.Second
	})
	w.run()
	c := w.issue()
	first := w.status(c.Serial)
	lazy := w.issue()
	w.status(lazy.Serial)
	var last *ocsp.SingleResponse
	eventually(t, "a newer answer and a newer certificate", func() bool {
		asked := time.Now()
		last = w.status(c.Serial)
		if left := last.NextUpdate.Sub(asked); left < time.Second {
			t.Fatalf("an answer was given out %v before its end", left)
		}
		return last.ThisUpdate.After(first.ThisUpdate) && w.renewed.Load() > 1
	})
	eventually(t, "what nobody asks for is forgotten", func() bool { w.status(c.Serial); return w.responder.Kept() == 1 })
}

// TestTokenAwayTooLong: what was signed is given out while it is fresh, and from then
// on there is tryLater, whatever the status.
func TestTokenAwayTooLong(t *testing.T) {
	var ahead atomic.Int64 // of the clock
	w := newWorld(t, func(_ *world, c *responder.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	c := w.issue()
	first := w.status(c.Serial)
	w.away.Store(true)
	for _, at := range []struct {
		after time.Duration
		given bool
	}{{29 * time.Minute, true}, {44 * time.Minute, true}, {46 * time.Minute, false}, {59 * time.Minute, false}, {61 * time.Minute, false}, {6 * time.Hour, false}} {
		ahead.Store(int64(at.after))
		for _, nonce := range [][]byte{nil, make([]byte, 32)} {
			r, err := w.ask(nonce, w.id(c.Serial))
			e := (*ocsp.ResponseError)(nil)
			switch {
			case at.given && nonce == nil:
				if err != nil || !r.Responses[0].ThisUpdate.Equal(first.ThisUpdate) {
					t.Errorf("after %v: %+v, %v, want the answer of before", at.after, r, err)
				}
			case !errors.As(err, &e) || e.Status != ocsp.TryLater:
				t.Errorf("after %v, with a nonce of %d: %+v, %v, want tryLater", at.after, len(nonce), r, err)
			}
		}
	}
	ahead.Store(int64(62 * time.Minute))
	w.away.Store(false)
	eventually(t, "the token is back", func() bool { _, err := w.ask(nil, w.id(c.Serial)); return err == nil })
	if s := w.status(c.Serial); s.Status != ocsp.Good || s.ThisUpdate.Before(first.NextUpdate) {
		t.Errorf("the token is back: %+v", s)
	}
}

// TestTokenStuck: a token that does not come back from a call holds nobody up longer
// than a client waits.
func TestTokenStuck(t *testing.T) {
	const patience = 200 * time.Millisecond
	w := newWorld(t, func(_ *world, c *responder.Config) { c.Patience = patience })
	kept, other := w.issue(), w.issue()
	w.status(kept.Serial)
	stuck := make(chan struct{})
	w.signer.Before = func(int64) error { <-stuck; return nil }
	together(20, func(i int) {
		began := time.Now()
		_, err := w.ask(make([]byte, 16+i%2), w.id(other.Serial))
		if e := (*ocsp.ResponseError)(nil); !errors.As(err, &e) || e.Status != ocsp.TryLater {
			t.Errorf("stuck: %v, want tryLater", err)
		}
		if took := time.Since(began); took < patience/2 || took > 10*time.Second {
			t.Errorf("the answer came after %v", took)
		}
	})
	if s := w.status(kept.Serial); s.Status != ocsp.Good {
		t.Errorf("what was signed before: %v", s.Status)
	}
	close(stuck)
	if s := w.status(other.Serial); s.Status != ocsp.Good {
		t.Errorf("no longer stuck: %v", s.Status)
	}
}

// TestNonceLengths: 0 and more than 128 octets are malformed (RFC 9654, Section 2.1);
// all others come back, also those that a responder may pass over.
func TestNonceLengths(t *testing.T) {
	w := newWorld(t, nil)
	c := w.issue()
	type request struct {
		TBS struct {
			List []asn1.RawValue
			Ext  []pkix.Extension `asn1:"explicit,tag:2"`
		}
	}
	plain := testpki.Must(ocsp.MakeRequest([]byte{1}, w.id(c.Serial)))
	for _, size := range []int{0, 1, 15, 16, 32, 33, 128, 129, 4096} {
		var r request
		if _, err := asn1.Unmarshal(plain, &r); err != nil {
			t.Fatal(err)
		}
		nonce := bytes.Repeat([]byte{9}, size)
		r.TBS.Ext[0].Value = testpki.Must(asn1.Marshal(nonce))
		_, body := w.send(http.MethodPost, "/ocsp/services", testpki.Must(asn1.Marshal(r)), "Content-Type", "application/ocsp-request")
		if size < 1 || size > 128 {
			refused(t, fmt.Sprintf("a nonce of %d", size), body, ocsp.MalformedRequest)
			continue
		}
		if a, err := ocsp.ParseResponse(body, 1<<16); err != nil || !bytes.Equal(a.Nonce, nonce) {
			t.Errorf("a nonce of %d: %+v, %v", size, a, err)
		}
	}
}

// TestReplacedAtOnce: what was asked for and changes is signed anew before it is asked
// for again.
func TestReplacedAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.run()
	c := w.issue()
	var before int64
	// The follower begins somewhere: a change behind it is followed, one before it is not.
	eventually(t, "an answer is replaced", func() bool {
		w.status(c.Serial)
		before = w.signer.Count()
		w.set(c, store.Held, 6)
		for range 50 {
			if w.signer.Count() > before && w.responder.Kept() == 1 {
				return true
			}
			time.Sleep(10 * time.Millisecond) // between two looks at the condition
		}
		w.set(c, store.Good, 0)
		return false
	})
	if s := w.status(c.Serial); s.Status != ocsp.Revoked || w.signer.Count() != before+1 {
		t.Errorf("replaced, then asked: %v, %d signatures", s.Status, w.signer.Count()-before)
	}
}

// TestBoundedRate: however many answers get old at the same time, the token is asked
// for one after the other, and no quicker than need be.
func TestBoundedRate(t *testing.T) {
	t.Parallel()
	const certificates, answers, validity = 20, 320, 8 * time.Second
	const pace = validity / 4 / (2 * answers)
	w := newWorld(t, func(_ *world, c *responder.Config) { c.Answers, c.Validity, c.MaxAge = answers, validity, time.Second })
	var mu sync.Mutex
	var times []time.Time
	var renewing atomic.Bool
	w.signer.Before = func(int64) error {
		if renewing.Load() {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
		}
		return nil
	}
	var serials []store.Serial
	for range certificates {
		serials = append(serials, w.issue().Serial)
	}
	askAll := func() (latest time.Time) {
		for _, serial := range serials {
			if s := w.status(serial); s.ThisUpdate.After(latest) {
				latest = s.ThisUpdate
			}
		}
		return latest
	}
	signed := askAll()
	// Asked for again in a later second, all are to be renewed.
	eventually(t, "the second is over", func() bool { return time.Now().After(signed.Add(time.Second)) })
	askAll()
	renewing.Store(true)
	w.run()
	eventually(t, "all are renewed", func() bool { mu.Lock(); defer mu.Unlock(); return len(times) >= certificates })
	mu.Lock()
	defer mu.Unlock()
	if took, least := times[certificates-1].Sub(times[0]), (certificates-2)*pace; took < least {
		t.Errorf("%d answers were renewed within %v; at %v each that takes %v", certificates, took, pace, least)
	}
}

// TestBoundedMemory: however many are asked for, no more are kept than allowed.
func TestBoundedMemory(t *testing.T) {
	const most = 64
	w := newWorld(t, func(_ *world, c *responder.Config) { c.Answers = most })
	var serials []store.Serial
	for range 100 {
		serials = append(serials, w.issue().Serial)
	}
	for _, serial := range serials {
		if s := w.status(serial); s.Status != ocsp.Good {
			t.Fatal(s.Status)
		}
	}
	if n := w.responder.Kept(); n == 0 || n > most {
		t.Errorf("%d answers are kept, at most %d may be", n, most)
	}
}

// TestRetired: a CA that is retired is served no more.
func TestRetired(t *testing.T) {
	w := newWorld(t, nil)
	w.run()
	c := w.issue()
	w.status(c.Serial)
	w.update(func(tx *store.Tx) error {
		ca, err := store.CAs.Get(tx, store.Key("services"))
		if err != nil {
			return err
		}
		ca.State = "retired"
		ca.Seq = tx.Append(store.Event{Kind: store.KindCARetired, CA: ca.ID})
		return store.CAs.Put(tx, ca)
	})
	eventually(t, "unauthorized", func() bool {
		_, err := w.ask(nil, w.id(c.Serial))
		e := (*ocsp.ResponseError)(nil)
		return errors.As(err, &e) && e.Status == ocsp.Unauthorized
	})
}

// trials is how many changes TestNoStaleGood makes; HUFU_SOAK multiplies it.
const trials = 40

// TestNoStaleGood changes statuses at random while many ask, and holds every answer
// against what had been committed before it was asked for: no good after the Update
// of a revocation or a hold returned.
func TestNoStaleGood(t *testing.T) {
	t.Run("watching", func(t *testing.T) { noStaleGood(t, newWorld(t, nil)) })
	t.Run("looking", func(t *testing.T) {
		noStaleGood(t, newWorld(t, func(_ *world, c *responder.Config) { c.Changed = nil }))
	})
}

func noStaleGood(t *testing.T, w *world) {
	w.run()
	const certificates = 4
	type subject struct {
		*store.Certificate
		// bad is the time since the test began when the last Update that took good
		// away returned, 0 while good is given back.
		bad atomic.Int64
	}
	subjects := make([]*subject, certificates)
	for i := range subjects {
		subjects[i] = &subject{Certificate: w.issue()}
	}
	began := time.Now()
	var done atomic.Bool
	var asked, goods atomic.Int64
	together(certificates+4, func(i int) {
		if i < certificates {
			defer done.Store(true)
			s := subjects[i]
			for range trials * soak(t) {
				w.set(s.Certificate, store.Held, 6)
				s.bad.Store(int64(time.Since(began)))
				if r, err := w.ask(nil, w.id(s.Serial)); err != nil || r.Responses[0].Status != ocsp.Revoked {
					t.Errorf("held, then asked: %+v, %v", r, err)
				}
				s.bad.Store(0)
				w.set(s.Certificate, store.Good, 0)
			}
			w.set(s.Certificate, store.Revoked, 1)
			s.bad.Store(int64(time.Since(began)))
			return
		}
		for !done.Load() {
			s := subjects[mathrand.IntN(certificates)]
			bad := s.bad.Load() // not 0: good was taken away before this moment …
			id := w.id(s.Serial)
			if mathrand.IntN(2) == 0 {
				id = w.issuer().CertID(crypto.SHA1, s.Serial[:])
			}
			var nonce []byte
			if mathrand.IntN(4) == 0 {
				nonce = make([]byte, 16)
			}
			r, err := w.ask(nonce, id)
			if err != nil {
				t.Error(err)
				return
			}
			asked.Add(1)
			if r.Find(id).Status == ocsp.Good {
				goods.Add(1)
				if bad != 0 && s.bad.Load() == bad { // … and not given back until after the answer
					t.Errorf("%s was good %v after its hold", s.Serial, time.Since(began)-time.Duration(bad))
				}
			}
		}
	})
	for _, s := range subjects {
		if got := w.status(s.Serial).Status; got != ocsp.Revoked {
			t.Errorf("at the end %s is %v", s.Serial, got)
		}
	}
	t.Logf("%d questions, %d of them good", asked.Load(), goods.Load())
}

func soak(t *testing.T) int {
	n := 1
	if s := os.Getenv("HUFU_SOAK"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil || n < 1 {
			t.Fatalf("HUFU_SOAK=%q is not a number", s)
		}
	}
	return n
}
