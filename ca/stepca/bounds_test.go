package stepca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// client is an ACME client with a key of its own.
func (w *world) client(t *testing.T) *acme.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// Only a nonce that is too old is worth another try here.
	retry := func(n int, _ *http.Request, a *http.Response) time.Duration {
		if a.StatusCode == http.StatusBadRequest && n < 3 {
			return time.Millisecond
		}
		return -1
	}
	return &acme.Client{Key: key, DirectoryURL: w.url + "/acme/hufu/directory", RetryBackoff: retry,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pki.Pool()}}}}
}

func (w *world) account(t *testing.T) *acme.Client {
	t.Helper()
	c := w.client(t)
	if _, err := c.Register(t.Context(), &acme.Account{}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	return c
}

// challenge has the node ask the name "localhost" for an answer, by http-01, and
// returns what the applicant is told.
func (w *world) challenge(t *testing.T) string {
	t.Helper()
	c := w.account(t)
	o, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.GetAuthorization(t.Context(), o.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range a.Challenges {
		if ch.Type == "http-01" {
			got, err := c.Accept(t.Context(), ch)
			if err != nil {
				return err.Error()
			}
			return fmt.Sprint(got.Error)
		}
	}
	t.Fatal("there is no http-01")
	return ""
}

// serve answers http-01 on the port that the node asks.
func (w *world) serve(t *testing.T, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+w.http)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
}

// TestAnswersOfStrangers: an applicant's server does not make the node read
// without end, and cannot have it read out what only the node can see.
func TestAnswersOfStrangers(t *testing.T) {
	const secret = "hufu_certificates 42"
	t.Run("endless", func(t *testing.T) {
		w := newWorld(t)
		var sent atomic.Int64
		w.serve(t, func(rw http.ResponseWriter, _ *http.Request) {
			for sent.Load() < 64<<20 {
				n, err := rw.Write(make([]byte, 64<<10))
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		w.challenge(t)
		if n := sent.Load(); n > 16<<20 {
			t.Errorf("the node read %d octets", n)
		}
	})
	t.Run("read out", func(t *testing.T) {
		w := newWorld(t)
		w.serve(t, func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, secret) })
		if told := w.challenge(t); strings.Contains(told, secret) {
			t.Errorf("the applicant is told %s", told)
		}
	})
	t.Run("redirect", func(t *testing.T) {
		w := newWorld(t)
		var asked atomic.Int64
		inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		defer inner.Close()
		_, port, _ := net.SplitHostPort(inner.Listener.Addr().String())
		for _, to := range []string{inner.URL, "http://localhost:" + port + "/metrics"} {
			w.serveOnce(t, func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, to, http.StatusFound) })
		}
		if n := asked.Load(); n > 0 {
			t.Errorf("the node was sent to another service %d times", n)
		}
	})
}

// serveOnce is serve for one challenge.
func (w *world) serveOnce(t *testing.T, h http.HandlerFunc) {
	t.Run("", func(t *testing.T) {
		w.serve(t, h)
		w.challenge(t)
	})
}

// TestBoundsOfStrangers: an order of very many names, and very many accounts from
// one address, are refused in words that clients know.
func TestBoundsOfStrangers(t *testing.T) {
	w := newWorld(t)
	c := w.account(t)
	var names []string
	for i := range 16 {
		names = append(names, fmt.Sprintf("h%d.card.example", i))
	}
	if _, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(names...)); err != nil {
		t.Errorf("an order of 16 names: %v", err)
	}
	problem := func(err error) *acme.Error {
		p, ok := errors.AsType[*acme.Error](err)
		if !ok {
			return &acme.Error{}
		}
		return p
	}
	_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs(append(names, "one.more.example")...))
	if p := problem(err); p.StatusCode != http.StatusBadRequest || !strings.HasSuffix(p.ProblemType, ":rejectedIdentifier") {
		t.Errorf("an order of 17 names: %v", err)
	}
	refused := error(nil)
	for range 60 {
		if _, refused = w.client(t).Register(t.Context(), &acme.Account{}, acme.AcceptTOS); refused != nil {
			break
		}
	}
	if p := problem(refused); p.StatusCode != http.StatusTooManyRequests || !strings.HasSuffix(p.ProblemType, ":rateLimited") || p.Header.Get("Replay-Nonce") == "" {
		t.Errorf("60 accounts from one address: %v", refused)
	}
	w.ahead.Add(int64(time.Minute))
	w.account(t)
}

// TestOrdersAreForgotten: what strangers began and never ended does not stay in
// the book for ever.
func TestOrdersAreForgotten(t *testing.T) {
	w := newWorld(t)
	c := w.account(t)
	old, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.card.example", "b.card.example"))
	if err != nil {
		t.Fatal(err)
	}
	next := func() {
		t.Helper()
		if _, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("c.card.example")); err != nil {
			t.Fatal(err)
		}
	}
	next()
	if _, err := c.GetOrder(t.Context(), old.URI); err != nil {
		t.Errorf("a fresh order: %v", err)
	}
	w.ahead.Add(int64(9 * 24 * time.Hour))
	next()
	if _, err := c.GetOrder(t.Context(), old.URI); err == nil {
		t.Error("an order that ended eight days ago is still there")
	}
	for _, u := range old.AuthzURLs {
		if _, err := c.GetAuthorization(t.Context(), u); err == nil {
			t.Error("its authorisation is still there")
		}
	}
}
