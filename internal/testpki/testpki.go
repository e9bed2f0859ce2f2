// Package testpki makes a real hierarchy in memory, in milliseconds, for tests,
// examples and benchmarks: a root, the working CAs device, 330100, 330200,
// services and staff, and the certificates below them, all by package issuance.
//
// Its keys are made by software and forgotten with the process. Nothing that
// Hufu keeps for real may come from here.
package testpki

import (
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

var errNotBuilt = errors.New("not built")

// Domain is the domain of the hierarchy.
const Domain = "card.example"

// Must returns v, or panics where there is an error.
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
	Key     func() (crypto.Signer, error) // makes the CAs' keys; nil = P-256 in memory
	Cities  []string                      // nil = 330100 and 330200
}

// A World is the hierarchy.
type World struct {
	Root *CA
}

// New makes a hierarchy.
func New(cfg Config) (*World, error) { return nil, errNotBuilt }

// CA returns the CA of that ID: "root", "device", "330100", "330200", "services", "staff".
func (w *World) CA(id string) *CA { return nil }

// CAs returns every CA, the root first.
func (w *World) CAs() []*CA { return nil }

// Anchors is the root's certificate, as verifiers take it.
func (w *World) Anchors() [][]byte { return nil }

// A CA is one CA of the hierarchy.
type CA struct {
	*issuance.Issuer
	Record store.CA
	Signer *Signer
}

// Issue certifies the public key of key.
func (c *CA) Issue(profile string, name policy.Name, key crypto.Signer) (*Leaf, error) {
	return nil, errNotBuilt
}

// Responder makes an OCSP responder of this CA, certificate and key.
func (c *CA) Responder() (*issuance.Responder, error) { return nil, errNotBuilt }

// A Leaf is a certificate with its private key.
type Leaf struct {
	Certificate []byte   // DER
	Chain       [][]byte // issuers upward, root last
	Key         crypto.Signer
	Serial      store.Serial
	Record      store.Certificate // as the book would keep it, but for Requester, Line and Seq
}

// TLS is the leaf as TLS servers and clients take it, without the root.
func (l *Leaf) TLS() tls.Certificate { return tls.Certificate{} }

// A Reader is a reader's pair of certificates.
type Reader struct {
	Sign    *Leaf
	Encrypt *Leaf
}

// Reader makes a reader's pair.
func (w *World) Reader(city, number string) (*Reader, error) { return nil, errNotBuilt }

// Device makes a device certificate.
func (w *World) Device(number string) (*Leaf, error) { return nil, errNotBuilt }

// CitySigner makes a city's signing certificate.
func (w *World) CitySigner(city string) (*Leaf, error) { return nil, errNotBuilt }

// Server makes a TLS server's certificate.
func (w *World) Server(dns ...string) (*Leaf, error) { return nil, errNotBuilt }

// Client makes the certificate of a machine, of a city or ("") of the centre.
func (w *World) Client(name, city string) (*Leaf, error) { return nil, errNotBuilt }

// Operator makes the certificate of a person, of a city or ("") of the centre.
func (w *World) Operator(person, city string) (*Leaf, error) { return nil, errNotBuilt }

// Key makes a P-256 key in memory.
func Key() (crypto.Signer, error) { return nil, errNotBuilt }

// CSR makes a PKCS#10 request of key.
func CSR(key crypto.Signer) ([]byte, error) { return nil, errNotBuilt }

// PairCSR makes the request of a reader's signing key that carries the public
// encryption key of the pair.
func PairCSR(sign crypto.Signer, encrypt crypto.PublicKey) ([]byte, error) { return nil, errNotBuilt }

// A Signer counts what it signs, and fails where it is told to. The embedded
// key does the work.
type Signer struct {
	Key crypto.Signer
	// Before, when set, is asked before a signature is made; After once it was
	// made and before it is handed out. An error of theirs is the signer's.
	// Set them while nobody signs.
	Before, After func(n int64) error

	n atomic.Int64
}

// Public is the public key.
func (s *Signer) Public() crypto.PublicKey { return s.Key.Public() }

// Count is the number of signatures that were asked for.
func (s *Signer) Count() int64 { return s.n.Load() }

// Sign counts, and signs unless it is told to fail.
func (s *Signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	n := s.n.Add(1)
	if s.Before != nil {
		if err := s.Before(n); err != nil {
			return nil, err
		}
	}
	signature, err := s.Key.Sign(rand, digest, opts)
	if err == nil && s.After != nil {
		err = s.After(n)
	}
	if err != nil {
		return nil, err
	}
	return signature, nil
}
