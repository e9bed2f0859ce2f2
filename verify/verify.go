// Package verify is the relying party's half of the tally.
package verify

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"time"

	"hufu/internal/cms"
	"hufu/store"
)

var errNotBuilt = errors.New("verify: not built")

// Purpose says what a certificate is to be used for.
type Purpose uint8

// Purposes.
const (
	ReaderSigning    Purpose = iota + 1 // a reader signs load requests and results
	ReaderEncryption                    // scripts are sealed to a reader
	CitySigning                         // a city signs load permissions
	Device                              // a reader's first-stage identity
	Staff                               // a person signs approvals or opens a TLS connection
	Server                              // a TLS server
	Client                              // a machine as TLS client
	ReaderClient                        // a reader as TLS client
)

// Verifier judges messages and certificates. It is used by pointer and by any
// number of goroutines; its fields do not change after first use.
type Verifier struct {
	Anchors       [][]byte         // trusted roots, DER; none: everything is refused
	Intermediates [][]byte         // working CAs known beforehand, DER
	Domain        string           // below which cities and readers are named, "card.example"
	Status        StatusFunc       // nil: everything is refused
	Now           func() time.Time // nil: time.Now
}

// Cert is a certificate whose chain, names, policy and purpose fit.
type Cert struct {
	DER        []byte
	Hash       [32]byte // SHA-256 of DER
	Serial     store.Serial
	Subject    string
	Name       string // its one dNSName, for what a city CA signed; else the first dNSName
	City       string // for what a city CA signed
	Reader     string // for a reader: its number
	NotBefore  time.Time
	NotAfter   time.Time
	Key        crypto.PublicKey
	Issuer     []byte // the issuer's certificate, DER
	X509       *x509.Certificate
	IssuerX509 *x509.Certificate
}

// StatusFunc tells the present status of a certificate. An error means that it
// cannot be told; a Verifier then refuses.
type StatusFunc func(ctx context.Context, c *Cert) (Evidence, error)

// Evidence is what a status rests on.
type Evidence struct {
	Source string    `json:"source"` // "book", "ocsp", "crl" and where
	Epoch  uint64    `json:"epoch,omitempty"`
	Seq    uint64    `json:"seq,omitempty"` // head of the journal when it was read
	Time   time.Time `json:"time"`
	State  string    `json:"state"` // "good", "on-hold", "revoked", "unknown"
	Reason int       `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"` // of a hold or a revocation
}

// FromBook tells the status from the book.
func FromBook(b *store.Book) StatusFunc {
	return func(context.Context, *Cert) (Evidence, error) { return Evidence{}, errNotBuilt }
}

// BookStatus tells the status within a transaction.
func BookStatus(tx *store.Tx, c *Cert) (Evidence, error) { return Evidence{}, errNotBuilt }

// Message is a verified message.
type Message struct {
	ContentType  asn1.ObjectIdentifier
	Content      []byte
	Certificates [][]byte
	Signer       *Cert
	SigningTime  time.Time
	Hash         [32]byte // SHA-256 of the whole message
	Evidence     Evidence // of the signer
}

// Message verifies SignedData: sizes, chain, names, policy, purpose, signature,
// then status.
func (v *Verifier) Message(ctx context.Context, der []byte, want asn1.ObjectIdentifier, purpose Purpose) (*Message, error) {
	_, err := cms.Parse(der, 0)
	return nil, err
}

// Chain verifies a certificate for one of the purposes: sizes, chain, names,
// policy, purpose. It asks for no status.
func (v *Verifier) Chain(cert []byte, intermediates [][]byte, purposes ...Purpose) (*Cert, error) {
	return nil, errNotBuilt
}

// CheckStatus asks for the status of a certificate and of the CAs above it; only
// good is nil.
func (v *Verifier) CheckStatus(ctx context.Context, c *Cert) (Evidence, error) {
	return Evidence{}, errNotBuilt
}

// Peer verifies the certificates that a TLS peer presented, status included.
func (v *Verifier) Peer(ctx context.Context, raw [][]byte, purposes ...Purpose) (*Cert, error) {
	return nil, errNotBuilt
}

// VerifyPeer is Peer in the form that tls.Config.VerifyPeerCertificate wants.
func (v *Verifier) VerifyPeer(purposes ...Purpose) func(raw [][]byte, chains [][]*x509.Certificate) error {
	return func([][]byte, [][]*x509.Certificate) error { return errNotBuilt }
}
