package responder_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"hufu/ca/responder"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/store"
)

// FuzzAsk holds one property: whatever is asked, by POST and by GET, the answer is one
// of OCSP, is never an internal error or tryLater, and says good only of what was
// issued and is good, signed by the CA's responder.
func FuzzAsk(f *testing.F) {
	w := newWorld(f, func(_ *world, c *responder.Config) { c.Patience = time.Hour })
	good, held := w.issue(), w.issue()
	w.set(held, store.Held, 6)
	for _, nonce := range [][]byte{nil, make([]byte, 32)} {
		for _, ids := range [][]ocsp.CertID{{w.id(good.Serial)}, {w.id(held.Serial)}, {w.id(good.Serial), w.id(held.Serial)}} {
			der := testpki.Must(ocsp.MakeRequest(nonce, ids...))
			f.Add(der, base64.StdEncoding.EncodeToString(der))
			f.Add(der, url.PathEscape(base64.StdEncoding.EncodeToString(der)))
		}
	}
	f.Add([]byte("rubbish"), "//%25zz+ =")
	ca := w.CA("services").Record.Certificate
	handler := w.responder.Handler()
	ask := func(t *testing.T, req *http.Request) {
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, req)
		if rw.Code != http.StatusOK || rw.Header().Get("Content-Type") != "application/ocsp-response" {
			t.Fatalf("%d, %v", rw.Code, rw.Header())
		}
		r, err := ocsp.ParseResponse(rw.Body.Bytes(), 1<<20)
		if e := (*ocsp.ResponseError)(nil); errors.As(err, &e) {
			if e.Status != ocsp.MalformedRequest && e.Status != ocsp.Unauthorized {
				t.Fatal(err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckSignature(ca, time.Now()); err != nil {
			t.Fatal(err)
		}
		for i := range r.Responses {
			s := &r.Responses[i]
			if s.Status == ocsp.Good && (!bytes.Equal(s.ID.Serial, good.Serial[:]) || !w.issuer().Issued(&s.ID)) {
				t.Fatalf("good of %x", s.ID.Serial)
			}
		}
	}
	f.Fuzz(func(t *testing.T, der []byte, path string) {
		ask(t, httptest.NewRequest(http.MethodPost, "/ocsp/services", bytes.NewReader(der)))
		ask(t, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/ocsp/services/" + path}, Header: http.Header{}})
	})
}
