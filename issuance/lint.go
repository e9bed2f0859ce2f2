package issuance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"hufu/policy"
)

// Lint judges a completed certificate by zlint, whose rules nobody here wrote.
// What a rule of it finds and Waivers does not excuse is an error.
//
// It is too slow for each certificate: samples of each profile, the ceremony's
// certificates and tests are what it is for.
func Lint(der []byte) error {
	certificate, err := zx509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("linting a certificate: %w", err)
	}
	var found []string
	for name, result := range zlint.LintCertificate(certificate).Results {
		if result.Status >= lint.Warn && !waived(name) {
			found = append(found, strings.TrimSpace(fmt.Sprintf("%s (%s) %s", name, result.Status, result.Details)))
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	return fmt.Errorf("linting a certificate: %s", strings.Join(found, "; "))
}

// Lint judges the certificate that the token stands for, before it is signed.
func (t *Token) Lint() error {
	return Lint(assemble(t.tbs, t.issuer.algorithm.id, t.issuer.algorithm.placeholder))
}

// LintSamples judges one sample of each profile that the issuer may issue. It
// signs nothing: a node calls it at its start, so that a profile that somebody
// spoilt is found before it is used.
func (i *Issuer) LintSamples() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the key of the samples: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("making the key of the samples: %w", err)
	}
	var errs []error
	for _, p := range policy.Profiles {
		if p.CA || !slices.Contains(p.Kinds, i.ca.Kind) {
			continue
		}
		serial, err := NewSerial(rand.Reader)
		if err != nil {
			return err
		}
		token, err := i.Prepare(Request{Profile: p.Name, SPKI: spki, Name: sampleNames[p.Form], Serial: serial})
		if err == nil {
			err = token.Lint()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sample of profile %s by CA %q: %w", p.Name, i.ca.ID, err))
		}
	}
	return errors.Join(errs...)
}

var sampleNames = map[policy.NameForm]policy.Name{
	policy.FormDevice: {Reader: "1"},
	policy.FormReader: {Reader: "1"},
	policy.FormServer: {DNS: []string{"sample.example"}},
	policy.FormClient: {CommonName: "Sample"},
	policy.FormPerson: {Person: "Sample"},
}
