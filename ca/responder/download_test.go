package responder_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"testing"

	"hufu/internal/testpki"
	"hufu/store"
)

func TestCRLDownload(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	w := newWorld(t, nil)
	for number, entries := range []int{0, 3, 15_000} { // the last goes through a file
		der := w.publish(uint64(number)+1, entries)
		res, body := w.get("/crl/services.crl")
		if res.StatusCode != 200 || !bytes.Equal(body, der) {
			t.Fatalf("%d entries: %s, %d of %d octets", entries, res.Status, len(body), len(der))
		}
		list, err := x509.ParseRevocationList(body)
		if err != nil {
			t.Fatal(err)
		}
		h := res.Header
		if h.Get("Content-Type") != "application/pkix-crl" || h.Get("Cache-Control") != "max-age=5, public, no-transform, must-revalidate" ||
			h.Get("Last-Modified") != list.ThisUpdate.Format(http.TimeFormat) || h.Get("Etag") == "" || h.Get("Expires") == "" {
			t.Errorf("%d entries: %v", entries, h)
		}
		if res, body := w.get("/crl/services.crl", "If-None-Match", h.Get("Etag")); res.StatusCode != http.StatusNotModified || len(body) > 0 {
			t.Errorf("%d entries, known already: %s", entries, res.Status)
		}
		from := len(der) / 2
		res, body = w.get("/crl/services.crl", "Range", fmt.Sprintf("bytes=%d-", from), "If-Range", h.Get("Etag"))
		if res.StatusCode != http.StatusPartialContent || !bytes.Equal(body, der[from:]) {
			t.Errorf("%d entries, second half: %s, %d octets", entries, res.Status, len(body))
		}
		res, _ = w.get("/crl/services.crl", "Range", "bytes=99999999-")
		if res.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%d entries, behind the end: %s", entries, res.Status)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestListsOfShards: every list has a place of its own, and no other.
func TestListsOfShards(t *testing.T) {
	w := newWorld(t, nil)
	lists := map[string][]byte{"/crl/services.crl": w.publish(1, 1)}
	for path, c := range map[string]store.CRL{
		"/crl/services.delta.crl":       {CA: "services", Number: 2, Delta: true, Base: 1},
		"/crl/services/1.crl":           {CA: "services", Shard: 1, Number: 3},
		"/crl/services/1.delta.crl":     {CA: "services", Shard: 1, Number: 4, Delta: true, Base: 3},
		"/crl/services/65535.crl":       {CA: "services", Shard: 65535, Number: 5},
		"/crl/services/65535.delta.crl": {CA: "services", Shard: 65535, Number: 6, Delta: true, Base: 5},
	} {
		lists[path] = w.publishList(c, int(c.Number))
	}
	for range 2 { // from the book, and kept
		for path, der := range lists {
			if res, body := w.get(path); res.StatusCode != 200 || !bytes.Equal(body, der) {
				t.Errorf("%s: %s, %d of %d octets", path, res.Status, len(body), len(der))
			}
		}
	}
	for _, path := range []string{"/crl/services/0.crl", "/crl/services/01.crl", "/crl/services/2.crl", "/crl/services/65536.crl", "/crl/services/65537.crl", "/crl/services/+1.crl",
		"/crl/services/.crl", "/crl/services/1/1.crl", "/crl/services/1.delta.delta.crl", "/crl/device.crl", "/crl/.crl", "/crl/.delta.crl"} {
		if res, _ := w.get(path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

// TestCRLWhileItChanges: who reads while a new list is published gets one of the two,
// whole.
func TestCRLWhileItChanges(t *testing.T) {
	w := newWorld(t, nil)
	const entries = 15_000 // goes through a file
	lists := [][]byte{w.publish(1, entries)}
	together(4, func(i int) {
		if i == 0 {
			for n := range 3 {
				lists = append(lists, w.publish(uint64(n)+2, entries+n))
			}
			return
		}
		for range 3 {
			_, body := w.get("/crl/services.crl")
			list, err := x509.ParseRevocationList(body)
			if err != nil {
				t.Error(err)
				return
			}
			if err := list.CheckSignatureFrom(testpki.Must(x509.ParseCertificate(w.CA("services").Record.Certificate))); err != nil {
				t.Error(err)
			}
		}
	})
	if _, body := w.get("/crl/services.crl"); !bytes.Equal(body, lists[len(lists)-1]) {
		t.Error("what is served at the end is not the newest")
	}
}

func TestIssuerDownload(t *testing.T) {
	w := newWorld(t, nil)
	for _, ca := range w.CAs() {
		res, body := w.get("/issuer/" + ca.Record.ID + ".cer")
		if res.StatusCode != 200 || !bytes.Equal(body, ca.Record.Certificate) || res.Header.Get("Content-Type") != "application/pkix-cert" {
			t.Errorf("%s: %s %v", ca.Record.ID, res.Status, res.Header)
		}
		if res, _ := w.get("/issuer/"+ca.Record.ID+".cer", "If-None-Match", res.Header.Get("Etag")); res.StatusCode != http.StatusNotModified {
			t.Errorf("%s, known already: %s", ca.Record.ID, res.Status)
		}
	}
	if w.renewed.Load() > 0 {
		t.Error("a download had a certificate made")
	}
}
