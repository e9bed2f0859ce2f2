package path_test

import (
	"bytes"
	"context"
	"crypto"
	"io"
	"iter"
	"testing"
	"time"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
	"hufu/verify/path"
)

// TestHufu: what Hufu itself issues is judged right, with the lists of its shards
// and the deltas to them, and with the answers of its delegated responder.
func TestHufu(t *testing.T) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	city, now := w.CA("330100"), time.Now()
	key := testpki.Must(testpki.Key())
	leaf := testpki.Must(city.Certify(key, issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "7", City: "330100"}, Shard: 3}))
	places := leaf.X509().CRLDistributionPoints
	if len(places) == 0 {
		t.Fatal("the certificate names no place of its list")
	}
	list := func(ca *testpki.CA, change func(*crl.Template), revoked ...crl.Entry) []byte {
		l := crl.Template{ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour), Number: 10}
		if change != nil {
			change(&l)
		}
		var entries iter.Seq2[crl.Entry, error] = func(yield func(crl.Entry, error) bool) {
			for _, e := range revoked {
				if !yield(e, nil) {
					return
				}
			}
		}
		var b bytes.Buffer
		if err := ca.SignCRL(t.Context(), l, entries, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	shard := func(l *crl.Template) { l.Point = &crl.Point{URIs: places} }
	delta := func(l *crl.Template) { shard(l); l.Delta, l.Base, l.Number, l.ThisUpdate = true, 10, 11, now }
	gone := func(reason int) crl.Entry {
		return crl.Entry{Serial: leaf.Serial[:], RevokedAt: now.Add(-time.Hour), Reason: reason}
	}
	root := list(w.Root, nil)
	for name, tc := range map[string]struct {
		lists [][]byte
		want  string
	}{
		"the shard's list":          {[][]byte{root, list(city, shard)}, ""},
		"the list of the whole CA":  {[][]byte{root, list(city, nil)}, ""},
		"revoked":                   {[][]byte{root, list(city, shard, gone(1))}, path.Revoked},
		"on hold":                   {[][]byte{root, list(city, shard, gone(6))}, path.OnHold},
		"another shard's list":      {[][]byte{root, list(city, func(l *crl.Template) { l.Point = &crl.Point{URIs: []string{places[0] + "x"}} })}, path.StatusUnknown},
		"the delta revokes":         {[][]byte{root, list(city, shard), list(city, delta, gone(1))}, path.Revoked},
		"the delta lifts the hold":  {[][]byte{list(city, delta, gone(8)), root, list(city, shard, gone(6))}, ""},
		"the delta alone":           {[][]byte{root, list(city, delta)}, path.StatusUnknown},
		"no list of the root":       {[][]byte{list(city, shard)}, path.StatusUnknown},
		"the list of another city":  {[][]byte{root, list(w.CA("330200"), nil)}, path.StatusUnknown},
		"the full list of the past": {[][]byte{root, list(city, func(l *crl.Template) { l.ThisUpdate, l.NextUpdate = now.Add(-2*time.Hour), now.Add(-time.Hour) })}, path.StatusStale},
	} {
		r := path.Request{Certificate: leaf.Certificate, Intermediates: leaf.Chain, Anchors: w.Anchors(), Purpose: "client", Name: leaf.X509().DNSNames[0]}
		for _, der := range tc.lists {
			r.CRLs = append(r.CRLs, bytes.NewReader(der))
		}
		a := path.Validate(t.Context(), &r)
		if a.Valid != (tc.want == "") || !a.Valid && a.Reason.ID != tc.want {
			t.Errorf("%s: %v, %v, want %q", name, a.Valid, a.Reason, tc.want)
		}
	}

	responder := testpki.Must(city.Responder())
	issuer := testpki.Must(ocsp.NewIssuer(city.Record.Certificate))
	for status, want := range map[ocsp.Status]string{ocsp.Good: "", ocsp.Revoked: path.Revoked, ocsp.Unknown: path.StatusUnknown} {
		for _, serial := range []store.Serial{leaf.Serial, {1, 2, 3}} {
			d := ocsp.ResponseData{ProducedAt: now, Responses: []ocsp.SingleResponse{{
				ID: issuer.CertID(crypto.SHA256, serial[:]), Status: status, RevokedAt: now, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
			}}}
			answer := testpki.Must(responder.SignOCSP(context.Background(), d))
			a := path.Validate(t.Context(), &path.Request{
				Certificate: leaf.Certificate, Intermediates: leaf.Chain, Anchors: w.Anchors(), OCSP: [][]byte{answer}, CRLs: []io.Reader{bytes.NewReader(root)},
			})
			id := want
			if serial != leaf.Serial {
				id = path.StatusUnknown
			}
			if a.Valid != (id == "") || !a.Valid && a.Reason.ID != id {
				t.Errorf("OCSP %v of %s: %v, %v, want %q", status, serial, a.Valid, a.Reason, id)
			}
		}
	}
}
