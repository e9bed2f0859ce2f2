// Package cms reads and writes the two Cryptographic Message Syntax forms that
// Hufu exchanges: SignedData with exactly one signer and AuthEnvelopedData for
// exactly one recipient.
package cms

import (
	"crypto"
	"crypto/ecdh"
	"encoding/asn1"
	"errors"
	"io"
	"time"
)

var errNotBuilt = errors.New("cms: not built")

// SignedData is a parsed message.
type SignedData struct {
	ContentType  asn1.ObjectIdentifier
	Content      []byte
	Certificates [][]byte // the certificates that travel with it, DER, in the order of their encoding
}

// Sign makes SignedData over content with one signer. The signer's certificate
// and the chain travel in the message.
func Sign(contentType asn1.ObjectIdentifier, content []byte, cert []byte, chain [][]byte, key crypto.Signer, t time.Time) ([]byte, error) {
	return nil, errNotBuilt
}

// Parse reads a message of at most max bytes. It checks no signature.
func Parse(der []byte, max int) (*SignedData, error) { return nil, errNotBuilt }

// Signer returns the travelling certificate that the signer named, or nil.
func (s *SignedData) Signer() []byte { return nil }

// SigningTime is the time that the signer claims.
func (s *SignedData) SigningTime() time.Time { return time.Time{} }

// CheckSignature checks that the message was signed by the holder of cert.
func (s *SignedData) CheckSignature(cert []byte) error { return errNotBuilt }

// CheckSignatureBy is CheckSignature for a caller that has parsed the key of
// cert before.
func (s *SignedData) CheckSignatureBy(cert []byte, key crypto.PublicKey) error { return errNotBuilt }

// Sealer seals for one recipient.
type Sealer struct {
	Recipient []byte      // certificate, DER
	OAEP      crypto.Hash // for an RSA recipient: SHA256 (also when zero), or SHA1 where the recipient's token knows no other
	Rand      io.Reader   // nil: crypto/rand
}

// Seal encrypts plain to the recipient as AuthEnvelopedData.
func (s *Sealer) Seal(plain []byte) ([]byte, error) { return nil, errNotBuilt }

// Seal encrypts plain to a recipient's certificate as AuthEnvelopedData. A nil
// rand means crypto/rand.
func Seal(plain []byte, recipient []byte, rand io.Reader) ([]byte, error) { return nil, errNotBuilt }

// Opener opens what was sealed for one certificate. One of the keys is set.
type Opener struct {
	Certificate []byte
	ECDH        ecdh.KeyExchanger
	RSA         crypto.Decrypter
}

// Open returns the plaintext. Whatever is wrong below the outer form is ErrOpen.
func (o *Opener) Open(der []byte) ([]byte, error) { return nil, errNotBuilt }

// ErrOpen says that an envelope could not be opened, and nothing more, so that a
// stranger learns nothing from trying.
var ErrOpen = errors.New("cms: the envelope does not open with this key")
