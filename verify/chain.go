package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"hufu/internal/cms"
	"hufu/store"
)

// maxIntermediates bounds what path building has to try.
const maxIntermediates = cms.MaxCertificates

var errSelfSigned = errors.New("no CA of ours signed it")

// known holds the parsed anchors and intermediates of a Verifier.
type known struct {
	roots         *x509.CertPool
	intermediates *x509.CertPool
	err           error
}

func (v *Verifier) prepare() {
	v.known.roots, v.known.intermediates = x509.NewCertPool(), x509.NewCertPool()
	for _, der := range v.Anchors {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			v.known.err = fmt.Errorf("reading an anchor: %w", err)
			return
		}
		v.known.roots.AddCert(c)
	}
	for _, der := range v.Intermediates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			v.known.err = fmt.Errorf("reading a known CA: %w", err)
			return
		}
		v.known.intermediates.AddCert(c)
	}
	if v.CacheSize <= 0 {
		v.cache.size = 4096
	} else {
		v.cache.size = v.CacheSize
	}
}

// Chain verifies a certificate for one of the purposes: sizes, chain, names,
// policy, purpose. It asks for no status. Where none of several purposes fits, the
// error is that of the first.
func (v *Verifier) Chain(cert []byte, intermediates [][]byte, purposes ...Purpose) (*Cert, error) {
	v.once.Do(v.prepare)
	if len(cert) > cms.MaxCertificate {
		return nil, &SizeError{What: "the certificate", Size: len(cert), Max: cms.MaxCertificate}
	}
	if len(purposes) == 0 {
		return nil, &PurposeError{Subject: "the certificate", Detail: "nobody said what it should be for"}
	}
	hash, now := sha256.Sum256(cert), v.now()
	for _, p := range purposes {
		if c := v.cache.get(cached{hash, p}, now); c != nil {
			return c, nil
		}
	}
	chains, err := v.build(cert, intermediates, now)
	if err != nil {
		return nil, err
	}
	var first error
	for _, p := range purposes {
		for _, chain := range chains {
			c := certs(chain)
			err := p.fits(c, chain, v.Domain)
			if err == nil {
				v.cache.put(cached{hash, p}, c)
				return c, nil
			}
			if first == nil {
				first = err
			}
		}
	}
	return nil, first
}

// build finds the paths from a certificate to our anchors.
func (v *Verifier) build(der []byte, intermediates [][]byte, now time.Time) ([][]*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &FormError{What: "the certificate", Err: err}
	}
	subject := leaf.Subject.String()
	if v.known.err != nil {
		return nil, &ChainError{Subject: subject, Err: v.known.err}
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, &ValidityError{Subject: subject, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Now: now}
	}
	if len(intermediates) > maxIntermediates {
		return nil, &SizeError{What: "the list of certificates", Size: len(intermediates), Max: maxIntermediates}
	}
	pool := v.known.intermediates.Clone()
	for _, d := range intermediates {
		if bytes.Equal(d, der) {
			continue
		}
		if len(d) > cms.MaxCertificate {
			return nil, &SizeError{What: "a certificate", Size: len(d), Max: cms.MaxCertificate}
		}
		c, err := x509.ParseCertificate(d)
		if err != nil {
			return nil, &FormError{What: "a certificate", Err: err}
		}
		if c.IsCA {
			pool.AddCert(c)
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.known.roots, Intermediates: pool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // Purpose looks at them
	})
	if err != nil {
		return nil, chainError(subject, err)
	}
	return chains, nil
}

// chainError tells a name that a constraint forbids from the other reasons why
// there is no path.
func chainError(subject string, err error) error {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch e.Reason {
		case x509.CANotAuthorizedForThisName, x509.NameConstraintsWithoutSANs, x509.UnconstrainedName:
			return &NameError{Subject: subject, Detail: err.Error()}
		case x509.Expired:
			return &ChainError{Subject: subject, Err: fmt.Errorf("a CA above it is outside its time: %w", err)}
		}
	}
	return &ChainError{Subject: subject, Err: err}
}

// certs turns a built chain into Certs, each with its issuer.
func certs(chain []*x509.Certificate) *Cert {
	var above *Cert
	for i := len(chain) - 1; i >= 0; i-- {
		x := chain[i]
		serial, _ := store.SerialFrom(x.SerialNumber) // zero where it is not ours
		above = &Cert{
			DER: x.Raw, Hash: sha256.Sum256(x.Raw), Serial: serial, Subject: x.Subject.String(),
			NotBefore: x.NotBefore, NotAfter: x.NotAfter, Key: x.PublicKey, X509: x, Issuer: above,
		}
	}
	return above
}

// cache remembers verified chains, so that a reader that is known costs one
// signature and one status. It holds what fitted, never a refusal, and no status.
// When the young half is full it becomes the old half, and the old one is dropped.
type cache struct {
	mu         sync.Mutex
	size       int // of both halves
	young, old map[cached]*Cert
}

type cached struct {
	hash    [32]byte
	purpose Purpose
}

// get returns what is remembered while every certificate of its chain is valid.
func (m *cache) get(k cached, now time.Time) *Cert {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.young[k]
	if !ok {
		if c, ok = m.old[k]; !ok {
			return nil
		}
		m.add(k, c)
	}
	for x := c; x != nil; x = x.Issuer {
		if now.Before(x.NotBefore) || now.After(x.NotAfter) {
			return nil
		}
	}
	return c
}

func (m *cache) put(k cached, c *Cert) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(k, c)
}

func (m *cache) add(k cached, c *Cert) {
	if m.young == nil || len(m.young) >= m.size/2 {
		m.young, m.old = make(map[cached]*Cert), m.young
	}
	m.young[k] = c
}
