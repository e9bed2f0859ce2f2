package issuance

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hufu/policy"
	"hufu/store"
)

// A CARequest is our record of a working CA that the root is to certify.
type CARequest struct {
	ID         string // "330100", "330100.2": its subject is made from it
	Kind       string // policy.KindDevice and so on
	City       string // for a city CA
	CSR        []byte // PKCS#10, for the proof of possession; nothing else of it is used
	CommonName string // "" = made from the organisation and the ID
	Serial     store.Serial
	NotBefore  time.Time // zero = now
	NotAfter   time.Time // zero = by the profile, cut to the root's own end
}

// PrepareCA builds and judges the certificate of a working CA. Only a root can.
func (i *Issuer) PrepareCA(r CARequest) (*Token, error) {
	profile, err := policy.Find("working-ca")
	if err != nil {
		return nil, err
	}
	kind, err := policy.FindKind(r.Kind)
	if err != nil {
		return nil, err
	}
	if !caID.MatchString(r.ID) {
		return nil, fmt.Errorf("certifying CA %q: an ID has 1 to 32 lower-case letters, digits, dots and hyphens", r.ID)
	}
	if kind.Fenced != (r.City != "") {
		return nil, fmt.Errorf("certifying CA %q of kind %s: a city CA has a city, no other has one", r.ID, r.Kind)
	}
	csr, err := parseCSR(r.CSR, true)
	if err != nil {
		return nil, err
	}
	if err := policy.CheckKey(csr.SPKI, profile, i.blocked); err != nil {
		return nil, err
	}
	if r.CommonName == "" {
		r.CommonName = i.stem.organisation() + " CA " + r.ID
	}
	attributes, _, err := profile.Form.Names(policy.Name{City: r.City, CommonName: r.CommonName}, i.facts.Context)
	if err != nil {
		return nil, err
	}
	t := tbs{profile: profile, kind: kind, city: r.City, serial: r.Serial, subject: i.stem.with(attributes), spki: csr.SPKI}
	t.notBefore, t.notAfter = i.validity(profile, r.NotBefore, r.NotAfter)
	token, err := i.finish(&t)
	if err != nil {
		return nil, err
	}
	token.record.City = r.City
	return token, nil
}

// A RootRequest is our record of a root.
type RootRequest struct {
	ID           string // "" = "root"
	Country      string // two letters
	Organisation string // what every subject of the hierarchy begins with
	CommonName   string
	Domain       string
	Serial       store.Serial
	NotBefore    time.Time // must be given: there is no clock here
	NotAfter     time.Time // zero = by the profile
}

// PrepareRoot builds and judges the self-signed certificate of key.
func PrepareRoot(key crypto.Signer, r RootRequest) (*Token, error) {
	profile, err := policy.Find("root")
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("reading the root's public key: %w", err)
	}
	if err := policy.CheckKey(spki, profile); err != nil {
		return nil, err
	}
	if err := policy.ValidDomain(r.Domain); err != nil {
		return nil, err
	}
	if r.NotBefore.IsZero() {
		return nil, errors.New("preparing a root: it has no notBefore")
	}
	s, err := newSigner(key, key.Public())
	if err != nil {
		return nil, err
	}
	if r.ID == "" {
		r.ID = "root"
	}
	facts := policy.Issuer{Context: policy.Context{ID: r.ID, Kind: policy.KindRoot, Domain: r.Domain}, Algorithm: s.algorithm.id}
	attributes, _, err := profile.Form.Names(policy.Name{Country: r.Country, Organisation: r.Organisation, CommonName: r.CommonName}, facts.Context)
	if err != nil {
		return nil, err
	}
	t := tbs{profile: profile, serial: r.Serial, subject: stem(nil).with(attributes), spki: spki}
	facts.Name = t.subject
	i := &Issuer{signer: *s, ca: store.CA{ID: r.ID}, facts: facts}
	t.notBefore, t.notAfter = i.validity(profile, r.NotBefore, r.NotAfter)
	token, err := i.finish(&t)
	if err != nil {
		return nil, err
	}
	token.self = true
	return token, nil
}

// SelfSign signs what PrepareRoot prepared and returns the certificate.
func SelfSign(ctx context.Context, t *Token) ([]byte, error) {
	if !t.self {
		return nil, ErrWrongIssuer
	}
	return t.issuer.Issue(ctx, t)
}
