package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// ErrOtherKey says that an envelope opened and holds the private key of another public
// key than the one that was waited for.
var ErrOtherKey = errors.New("cms: the envelope holds the private key of another public key")

// KeyRecipient is who a private key is sealed for: the holder of a certificate, or of a
// bare key that has none.
type KeyRecipient struct {
	Certificate []byte      // DER; or else
	SPKI        []byte      // a P-256 key
	OAEP        crypto.Hash // as in Sealer
}

// wrapPad256 is the content encryption; it has no parameters (RFC 5649, Section 5).
var wrapPad256 = algorithm(oid.AES256WrapPad)

// KeyID names a bare key: the leftmost 160 bits of the SHA-256 of its public key
// (RFC 7093, Section 2, method 1).
func KeyID(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(point)
	return sum[:20], nil
}

// SealKey draws a content key, has wrap encrypt a private key (PKCS #8) under it by AES
// key wrap with padding, and returns EnvelopedData for the recipient. The plaintext of
// the private key does not come here; the content key is wiped.
func SealKey(to KeyRecipient, wrap func(content []byte) ([]byte, error)) ([]byte, error) {
	content := make([]byte, keySize)
	rand.Read(content)
	defer clear(content)
	recipient, version, err := to.info(content)
	if err != nil {
		return nil, fmt.Errorf("sealing a private key: %w", err)
	}
	wrapped, err := wrap(content)
	if err != nil {
		return nil, fmt.Errorf("sealing a private key: %w", err)
	}
	return marshalKey(recipient, version, wrapped)
}

// info encodes the RecipientInfo and tells the version that it asks of the whole
// (RFC 5652, Section 6.1).
func (to *KeyRecipient) info(content []byte) (der []byte, version int64, err error) {
	if to.Certificate == nil {
		key, err := bareKey(to.SPKI)
		if err != nil {
			return nil, 0, err
		}
		id, err := KeyID(key)
		if err != nil {
			return nil, 0, err
		}
		der, err = agreeRecipient(func(b *cryptobyte.Builder) {
			b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(id) })
		}, key, content, rand.Reader)
		return der, 2, err
	}
	cert, err := x509.ParseCertificate(to.Certificate)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the recipient's certificate: %w", err)
	}
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		der, err = agreeCertificate(cert, key, content, rand.Reader)
		return der, 2, err
	case *rsa.PublicKey:
		der, err = transportRecipient(cert, key, to.OAEP, content, rand.Reader)
		return der, 0, err
	}
	return nil, 0, errUnsupportedKey
}

// bareKey reads the SubjectPublicKeyInfo of a one-time key.
func bareKey(spki []byte) (*ecdsa.PublicKey, error) {
	const refusal = "cms: a bare recipient is a P-256 key in DER"
	if len(spki) > MaxCertificate {
		return nil, errors.New(refusal)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", refusal, err)
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New(refusal)
	}
	return key, nil
}

// marshalKey encodes EnvelopedData (RFC 5652, Section 6.1).
func marshalKey(recipient []byte, version int64, wrapped []byte) ([]byte, error) {
	return wrap(oid.CMSEnvelopedData, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(version)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(recipient) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid.ContentPrivateKey)
			b.AddBytes(wrapPad256)
			b.AddASN1(tag0Primitive, func(b *cryptobyte.Builder) { b.AddBytes(wrapped) })
		})
	})
}

// OpenKey opens what SealKey made and returns the private key as PKCS #8. It must belong
// to the public key spki, or is ErrOtherKey; the other errors are those of Open. An
// Opener without a certificate opens what is sealed for its bare ECDH key.
func (o *Opener) OpenKey(der, spki []byte) ([]byte, error) {
	e, err := parseKey(der)
	if err != nil {
		return nil, err
	}
	if err := o.isFor(e); err != nil {
		return nil, err
	}
	key, ok, err := o.unwrap(e)
	if err != nil {
		return nil, err
	}
	// As in Open, a wrong key goes the way of a right one.
	content := make([]byte, keySize)
	rand.Read(content)
	if ok && len(key) == keySize {
		copy(content, key)
	}
	clear(key)
	defer clear(content)
	plain, ok := unwrapPadded(content, e.ciphertext)
	if !ok {
		return nil, ErrOpen
	}
	plain, err = privateKey(plain, spki)
	if err != nil {
		return nil, err
	}
	return plain, nil
}

// isFor tells whether the envelope names this opener.
func (o *Opener) isFor(e *envelope) error {
	if o.Certificate != nil {
		id, err := identify(o.Certificate)
		if err == nil && (e.keyID != nil || !id.equal(e.recipient)) {
			err = ErrRecipient
		}
		return err
	}
	if o.ECDH == nil {
		return errors.New("cms: an opener has a certificate or an ECDH key")
	}
	sum := sha256.Sum256(o.ECDH.PublicKey().Bytes())
	if e.hash != 0 || !bytes.Equal(e.keyID, sum[:20]) {
		return ErrRecipient
	}
	return nil
}

// privateKey reads what a token wrapped, and checks that it is the private key of a
// public key. Some tokens fill up the PKCS #8 with zeros to whole blocks before they wrap
// it with padding; these are taken off.
func privateKey(plain, spki []byte) ([]byte, error) {
	rest := cryptobyte.String(plain)
	var pkcs8 cryptobyte.String
	ok := rest.ReadASN1Element(&pkcs8, cbasn1.SEQUENCE) && len(rest) < 8 && bytes.Equal(rest, make([]byte, len(rest)))
	private, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if !ok || err != nil {
		clear(plain)
		// Not wrapped: the text of a parser is no place for a key's octets.
		return nil, errors.New("cms: what the envelope holds is no PKCS #8 private key")
	}
	if have, ok := private.(interface{ Public() crypto.PublicKey }); ok {
		if public, err := x509.MarshalPKIXPublicKey(have.Public()); err == nil && bytes.Equal(public, spki) {
			return pkcs8, nil
		}
	}
	clear(plain)
	return nil, ErrOtherKey
}

func parseKey(der []byte) (*envelope, error) {
	r, err := contentInfo(der, MaxMessage, oid.CMSEnvelopedData)
	if err != nil {
		return nil, err
	}
	e := &envelope{}
	version := r.element(cbasn1.INTEGER, "envelopedData version")
	e.parseRecipient(r, true)
	want := []byte{2, 1, 2}
	if e.hash != 0 { // RFC 5652, Section 6.1: every RecipientInfo has version 0
		want[2] = 0
	}
	if *r.err == nil && !bytes.Equal(version, want) {
		r.fail("envelopedData version")
	}
	content := r.into(cbasn1.SEQUENCE, "encryptedContentInfo")
	content.identifier(oid.ContentPrivateKey, "contentType: not a private key")
	content.exactly(wrapPad256, "contentEncryptionAlgorithm: not AES-256 key wrap with padding")
	e.ciphertext = content.content(tag0Primitive, "encryptedContent")
	content.end("encryptedContentInfo")
	r.end("envelopedData: attributes are refused")
	if *r.err != nil {
		return nil, *r.err
	}
	return e, nil
}
