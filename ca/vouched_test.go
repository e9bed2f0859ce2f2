package ca_test

import (
	"crypto/x509"
	"testing"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/policy"
)

// TestVouched: the key of a manifest is certified as a device, and as nothing else.
func TestVouched(t *testing.T) {
	w := newWorld(t)
	spki := testpki.Must(x509.MarshalPKIXPublicKey(ecKey(t).Public()))
	for i := range policy.Profiles {
		p := &policy.Profiles[i]
		kinds := map[string]string{"device": "device", "city": "330100", "services": "services", "staff": "staff", "root": "root"}
		r := ca.Request{CA: kinds[p.Kinds[0]], Profile: p.Name, SPKI: spki, Vouched: true, Name: policy.Name{Reader: "30"}}
		certs, err := w.Issue(t.Context(), order(r))
		if p.Name != "device" {
			if err == nil {
				t.Errorf("%s took a key that nobody proved", p.Name)
			}
			continue
		}
		if err != nil || certs[0].Reader != "30" {
			t.Errorf("%+v, %v", certs, err)
		}
		r.Kept = true
		if _, err := w.Issue(t.Context(), order(r)); problem(err) == "" {
			t.Errorf("vouched for and kept: %v", err)
		}
	}
	r := ca.Request{CA: "device", Profile: "device", SPKI: spki, Name: policy.Name{Reader: "31"}}
	if _, err := w.Issue(t.Context(), order(r)); problem(err) != "request-key" {
		t.Errorf("a bare key that nobody vouches for: %v", err)
	}
}
