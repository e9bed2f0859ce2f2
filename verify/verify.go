// Package verify is the relying party's half of the tally: it holds what somebody
// presents against what we keep, and says which half did not fit.
//
// A message is judged in this order: sizes, chain, names, policy, purpose,
// signature, and then status. The chain is built from the caller's own anchors by
// crypto/x509 (RFC 5280, Section 6.1; name constraints among it); what Go leaves
// out is demanded here: certificate policies and extended key usages that narrow
// from the top to the bottom, and of whatever a city CA signed exactly one dNSName
// below the city and no other form of name, since a certificate without one would
// escape the constraint (RFC 5280, Section 4.2.1.10).
//
// Status comes from the book, from OCSP (RFC 6960) or from a fresh CRL (RFC 5280,
// Section 6.3), always from addresses of our own configuration, never from those
// in a certificate or a message. What cannot be told, or is not fresh, is refused:
// there is no soft failure. A Verifier without anchors, or without a status source,
// refuses everything.
//
// Every refusal is a Misfit. The package also holds the contents of the top-up
// messages (load.go) and of those of a reader's first days (ticket.go, enrol.go,
// receipt.go), since both sides need them.
package verify

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"sync"
	"time"

	"hufu/internal/cms"
	"hufu/store"
)

// Verifier judges messages and certificates. It is used by pointer and by any
// number of goroutines at once; its fields do not change after first use.
type Verifier struct {
	Anchors       [][]byte         // trusted roots, DER; none: everything is refused
	Intermediates [][]byte         // working CAs known beforehand, DER
	Domain        string           // below which cities and readers are named: "card.example"
	Status        StatusFunc       // nil: everything is refused
	Now           func() time.Time // nil: time.Now
	MaxMessage    int              // octets of a message; 0: 64 KiB
	CacheSize     int              // verified chains to remember; 0: 4096

	once  sync.Once
	known known
	cache cache
}

// Cert is a certificate whose chain, names, policy and purpose fit.
type Cert struct {
	DER       []byte
	Hash      [32]byte     // SHA-256 of DER
	Serial    store.Serial // zero where the number is not one that Hufu gives
	Subject   string
	Name      string // the dNSName, the first where there are several
	City      string // of what a city CA signed
	Reader    string // the number, of a reader's or a device's certificate
	NotBefore time.Time
	NotAfter  time.Time
	Key       crypto.PublicKey
	X509      *x509.Certificate
	Issuer    *Cert // nil for an anchor
}

// Message is a verified message.
type Message struct {
	ContentType  asn1.ObjectIdentifier
	Content      []byte
	Certificates [][]byte // that travelled with it; only the signer's is verified
	Signer       *Cert
	SigningTime  time.Time // as the signer claims
	Hash         [32]byte  // SHA-256 of the whole message
	Evidence     Evidence  // of the signer's status
}

// Message verifies SignedData of the wanted content type, signed by a certificate
// of one of the purposes.
func (v *Verifier) Message(ctx context.Context, der []byte, want asn1.ObjectIdentifier, purposes ...Purpose) (*Message, error) {
	m, err := v.signed(der, v.MaxMessage, nil, want, purposes...)
	if err != nil {
		return nil, err
	}
	if m.Evidence, err = v.CheckStatus(ctx, m.Signer); err != nil {
		return nil, err
	}
	return m, nil
}

// signed judges all of a message but the status of its signer. More CAs than those
// that travel with it may help to build the chain.
func (v *Verifier) signed(der []byte, max int, more [][]byte, want asn1.ObjectIdentifier, purposes ...Purpose) (*Message, error) {
	s, err := cms.Parse(der, max)
	if err != nil {
		if e, ok := errors.AsType[*cms.SizeError](err); ok {
			return nil, &SizeError{What: "the message", Size: e.Size, Max: e.Max}
		}
		return nil, &FormError{What: "the message", Err: err}
	}
	if !s.ContentType.Equal(want) {
		return nil, &MismatchError{Field: "content type", Want: want.String(), Have: s.ContentType.String()}
	}
	signer := s.Signer()
	if signer == nil {
		return nil, &ChainError{Subject: "the signer", Err: errors.New("its certificate does not travel with the message")}
	}
	s.Certificates = slices.Concat(s.Certificates, more)
	cert, err := v.Chain(signer, s.Certificates, purposes...)
	if err != nil {
		return nil, err
	}
	if err := s.CheckSignatureBy(cert.DER, cert.Key); err != nil {
		return nil, &SignatureError{Subject: cert.Subject, Err: err}
	}
	return &Message{
		ContentType: s.ContentType, Content: s.Content, Certificates: s.Certificates,
		Signer: cert, SigningTime: s.SigningTime(), Hash: sha256.Sum256(der),
	}, nil
}

// Peer verifies the certificates that a TLS peer presented, its own first, for one
// of the purposes, and its status. TLS itself has proved that the peer holds the
// key.
func (v *Verifier) Peer(ctx context.Context, raw [][]byte, purposes ...Purpose) (*Cert, error) {
	if len(raw) == 0 {
		return nil, &ChainError{Subject: "the peer", Err: errors.New("it presented no certificate")}
	}
	cert, err := v.Chain(raw[0], raw[1:], purposes...)
	if err != nil {
		return nil, err
	}
	_, err = v.CheckStatus(ctx, cert)
	return cert, err
}

// VerifyPeer is Peer in the form that tls.Config.VerifyPeerCertificate wants, for
// a server with ClientAuth RequireAnyClientCert. It is not called for a session
// that is resumed: such a server sets SessionTicketsDisabled.
func (v *Verifier) VerifyPeer(purposes ...Purpose) func(raw [][]byte, chains [][]*x509.Certificate) error {
	return func(raw [][]byte, _ [][]*x509.Certificate) error {
		ctx, cancel := context.WithTimeout(context.Background(), peerTimeout)
		defer cancel()
		_, err := v.Peer(ctx, raw, purposes...)
		return err
	}
}

// peerTimeout bounds the status look-up of a TLS handshake, which has no context.
const peerTimeout = 10 * time.Second

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}
