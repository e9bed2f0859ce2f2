// Package trust is how the example's programs know whom to believe: the root
// they were given, and OCSP and the root's CRL at addresses of their own
// configuration. Nothing of a message or a certificate says where to ask, and
// what cannot be asked is refused.
package trust

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"hufu/verify"
)

// Config says where trust comes from.
type Config struct {
	Roots   string   // PEM file: the root, and the working CAs below it
	Publish string   // address of OCSP and CRLs, "http://127.0.0.1:8080"
	Domain  string   // below which readers and cities are named
	CAs     []string // IDs of the working CAs in Roots, in their order
}

// Open makes a verifier that fails closed.
func Open(c Config) (*verify.Verifier, error) {
	raw, err := os.ReadFile(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("reading the roots: %w", err)
	}
	v := &verify.Verifier{Domain: c.Domain}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Roots, err)
		}
		if cert.CheckSignatureFrom(cert) == nil {
			v.Anchors = append(v.Anchors, cert.Raw)
		} else {
			v.Intermediates = append(v.Intermediates, cert.Raw)
		}
	}
	if len(v.Anchors) != 1 || len(v.Intermediates) != len(c.CAs) {
		return nil, fmt.Errorf("%s holds %d roots and %d working CAs; one root and %d working CAs were expected", c.Roots, len(v.Anchors), len(v.Intermediates), len(c.CAs))
	}
	responders := &verify.OCSP{}
	for i, id := range c.CAs {
		responders.Responders = append(responders.Responders, verify.Source{Issuer: v.Intermediates[i], URL: c.Publish + "/ocsp/" + id})
	}
	lists := &verify.CRLs{Lists: []verify.Source{{Issuer: v.Anchors[0], URL: c.Publish + "/crl/root.crl"}}, MaxAge: 400 * 24 * time.Hour}
	// The root is offline and has no OCSP: its own CRL tells of working CAs.
	v.Status = func(ctx context.Context, cert *verify.Cert) (verify.Evidence, error) {
		if cert.Issuer != nil && cert.Issuer.Issuer == nil {
			return lists.Status(ctx, cert)
		}
		return responders.Status(ctx, cert)
	}
	return v, nil
}

// Pool is the verifier's anchors for crypto/tls.
func Pool(v *verify.Verifier) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range v.Anchors {
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
		}
	}
	return pool
}
