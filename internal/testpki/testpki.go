// Package testpki makes a real hierarchy in memory, in milliseconds, for tests
// and benchmarks: a root, the working CAs device, 330100, 330200, services and
// staff, and certificates below them, all by package issuance.
//
// Its keys are made by software and forgotten with the process. Nothing that is
// kept for real may come from here.
package testpki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// Domain is the domain of the hierarchy.
const Domain = "card.example"

// Must returns v and panics where there is an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Config says what may differ from the usual. The zero value is useful.
type Config struct {
	Now     func() time.Time              // nil = time.Now
	BaseURL string                        // "" = http://pki.card.example
	Key     func() (crypto.Signer, error) // makes the CAs' keys; nil = Key
	Cities  []string                      // nil = 330100 and 330200
	Shards  uint16                        // of the working CAs' CRLs
	Deltas  bool                          // the working CAs publish delta CRLs
}

// A World is the hierarchy.
type World struct {
	Root *CA
	cas  []*CA
	cfg  Config
}

// New makes a hierarchy. Its CA certificates began an hour ago.
func New(cfg Config) (*World, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BaseURL == "" {
		cfg.BaseURL = "http://pki." + Domain
	}
	if cfg.Key == nil {
		cfg.Key = Key
	}
	if cfg.Cities == nil {
		cfg.Cities = []string{"330100", "330200"}
	}
	w := &World{cfg: cfg}
	if err := w.addRoot(); err != nil {
		return nil, fmt.Errorf("making the root: %w", err)
	}
	kinds := [][2]string{{policy.KindDevice, ""}, {policy.KindServices, ""}, {policy.KindStaff, ""}}
	for _, city := range cfg.Cities {
		kinds = append(kinds, [2]string{policy.KindCity, city})
	}
	for _, k := range kinds {
		id := k[0]
		if k[1] != "" {
			id = k[1]
		}
		if _, err := w.AddCA(id, k[0], k[1]); err != nil {
			return nil, fmt.Errorf("making CA %s: %w", id, err)
		}
	}
	return w, nil
}

func (w *World) addRoot() error {
	key, err := w.cfg.Key()
	if err != nil {
		return err
	}
	signer := &Signer{Key: key}
	serial, err := issuance.NewSerial(rand.Reader)
	if err != nil {
		return err
	}
	token, err := issuance.PrepareRoot(signer, issuance.RootRequest{
		Country: "CN", Organisation: "Hufu", CommonName: "Hufu Root", Domain: Domain, Serial: serial, NotBefore: w.cfg.Now().Add(-time.Hour),
	})
	if err != nil {
		return err
	}
	der, err := issuance.SelfSign(context.Background(), token)
	if err != nil {
		return err
	}
	w.Root, err = w.add(store.CA{ID: "root", Line: "root", Kind: policy.KindRoot, Certificate: der, SPKI: token.Record().SPKI}, signer)
	return err
}

// AddCA makes one more working CA; an ID like "330100.2" makes another
// generation. It is not safe for concurrent use.
func (w *World) AddCA(id, kind, city string) (*CA, error) {
	key, err := w.cfg.Key()
	if err != nil {
		return nil, err
	}
	csr, err := CSR(key)
	if err != nil {
		return nil, err
	}
	serial, err := issuance.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	token, err := w.Root.PrepareCA(issuance.CARequest{ID: id, Kind: kind, City: city, CSR: csr, Serial: serial, NotBefore: w.cfg.Now().Add(-time.Hour)})
	if err != nil {
		return nil, err
	}
	der, err := w.Root.Issuer.Issue(context.Background(), token)
	if err != nil {
		return nil, err
	}
	return w.add(store.CA{
		ID: id, Line: id, Kind: kind, City: city, Certificate: der, Chain: [][]byte{w.Root.Record.Certificate}, SPKI: token.Record().SPKI,
	}, &Signer{Key: key})
}

func (w *World) add(record store.CA, signer *Signer) (*CA, error) {
	record.Generation, record.Suite, record.State = 1, "intl", "active"
	if n := len(record.ID); n > 2 && record.ID[n-2] == '.' {
		record.Line, record.Generation = record.ID[:n-2], int(record.ID[n-1]-'0')
	}
	cfg := issuance.Config{CA: record, Key: signer, Domain: Domain, BaseURL: w.cfg.BaseURL, Now: w.cfg.Now}
	if record.Kind != policy.KindRoot {
		cfg.Shards, cfg.Deltas = w.cfg.Shards, w.cfg.Deltas
	}
	issuer, err := issuance.NewIssuer(cfg)
	if err != nil {
		return nil, err
	}
	ca := &CA{Issuer: issuer, Record: record, Signer: signer}
	w.cas = append(w.cas, ca)
	return ca, nil
}

// CA returns the CA of that ID: "root", "device", "330100", "330200", "services",
// "staff". It panics where there is none.
func (w *World) CA(id string) *CA {
	i := slices.IndexFunc(w.cas, func(c *CA) bool { return c.Record.ID == id })
	if i < 0 {
		panic("testpki: there is no CA " + id)
	}
	return w.cas[i]
}

// CAs returns every CA, the root first.
func (w *World) CAs() []*CA { return slices.Clone(w.cas) }

// Issuers returns the issuers of the working CAs, without the root.
func (w *World) Issuers() []*issuance.Issuer {
	var list []*issuance.Issuer
	for _, c := range w.cas[1:] {
		list = append(list, c.Issuer)
	}
	return list
}

// Anchors is the root's certificate, as verifiers take it.
func (w *World) Anchors() [][]byte { return [][]byte{w.Root.Record.Certificate} }

// Pool is Anchors for crypto/tls and crypto/x509.
func (w *World) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(Must(x509.ParseCertificate(w.Root.Record.Certificate)))
	return pool
}

// A CA is one CA of the hierarchy.
type CA struct {
	*issuance.Issuer
	Record store.CA
	Signer *Signer
}

// Certify certifies the public key of key, which makes a Leaf of it.
func (c *CA) Certify(key crypto.Signer, r issuance.Request) (*Leaf, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	r.SPKI = spki
	if r.Serial == (store.Serial{}) {
		if r.Serial, err = issuance.NewSerial(rand.Reader); err != nil {
			return nil, err
		}
	}
	token, err := c.Prepare(r)
	if err != nil {
		return nil, err
	}
	der, err := c.Issuer.Issue(context.Background(), token)
	if err != nil {
		return nil, err
	}
	record := token.Record()
	record.DER = der
	return &Leaf{
		Certificate: der, Chain: append([][]byte{c.Record.Certificate}, c.Record.Chain...), Key: key, Serial: r.Serial, Record: record,
	}, nil
}

// New makes a key and certifies it.
func (c *CA) New(profile string, name policy.Name) (*Leaf, error) {
	key, err := Key()
	if err != nil {
		return nil, err
	}
	return c.Certify(key, issuance.Request{Profile: profile, Name: name})
}

// Responder makes an OCSP responder of this CA, certificate and key.
func (c *CA) Responder() (*issuance.Responder, error) {
	if c.Record.Kind == policy.KindRoot {
		return nil, errors.New("the root has no responder")
	}
	leaf, err := c.New("ocsp", policy.Name{})
	if err != nil {
		return nil, err
	}
	return issuance.NewResponder(issuance.ResponderConfig{Issuer: c.Record.Certificate, Certificate: leaf.Certificate, Key: leaf.Key})
}
