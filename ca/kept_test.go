package ca_test

import (
	"crypto/x509"
	"testing"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/policy"
)

// TestKept: a key of the key management centre needs nobody who vouches for it, and is
// for encryption alone: no profile with a key that could sign takes one.
func TestKept(t *testing.T) {
	w := newWorld(t)
	spki := testpki.Must(x509.MarshalPKIXPublicKey(ecKey(t).Public()))
	taken := 0
	for i := range policy.Profiles {
		p := &policy.Profiles[i]
		whole := pair("20")
		r := whole.Requests[1]
		r.Profile, r.SPKI, r.CSR, r.Kept = p.Name, spki, nil, true
		certs, err := w.Issue(t.Context(), order(r))
		if p.Name == "reader-encrypt" {
			if err != nil {
				t.Fatal(err)
			}
			taken++
			cert := testpki.Must(x509.ParseCertificate(certs[0].DER))
			if cert.KeyUsage != x509.KeyUsageKeyAgreement || certs[0].Reader != "20" {
				t.Errorf("key usage %b for reader %q", cert.KeyUsage, certs[0].Reader)
			}
			continue
		}
		if problem(err) != "request-kept" {
			t.Errorf("%s took a kept key: %v", p.Name, err)
		}
	}
	if taken != 1 {
		t.Errorf("%d profiles took a kept key, not one", taken)
	}
	both := pair("21").Requests[1]
	both.CSR, both.Kept = testpki.Must(testpki.CSR(ecKey(t))), true
	if _, err := w.Issue(t.Context(), order(both)); problem(err) != "request-key" {
		t.Errorf("a kept key and a CSR: %v", err)
	}
	none := pair("22").Requests[1]
	none.SPKI, none.Kept = nil, true
	if _, err := w.Issue(t.Context(), ca.Order{Requests: []ca.Request{none}, Requester: "x"}); problem(err) != "request-key" {
		t.Errorf("a kept key that is not named: %v", err)
	}
}
