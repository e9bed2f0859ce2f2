// Package cms reads and writes the three forms of the Cryptographic Message Syntax
// that Hufu exchanges: SignedData with exactly one signer, AuthEnvelopedData for
// exactly one recipient, and EnvelopedData with a private key that a token wrapped.
//
// SignedData (RFC 5652, Section 5) carries its content, names its content type
// explicitly, and signs the attributes contentType, messageDigest, signingTime
// and signingCertificateV2 (RFC 5035); the last one binds the signer's
// certificate, so that no other certificate for the same key can be put in its
// place. Signatures are ECDSA or RSA PKCS #1 v1.5 over SHA-2.
//
// AuthEnvelopedData (RFC 5083) is AES-256-GCM with a nonce of 12 octets and the
// tag's 16 octets stated (RFC 5084), for an EC key by ECDH with the X9.63 KDF over
// SHA-256 and AES-256 key wrap (RFC 5753, RFC 3565), for an RSA key by OAEP with
// the hash named (RFC 8017, RFC 4055). Its inner type is id-data and it has no
// authenticated attributes, since OpenSSL 3.0 cannot read them.
//
// EnvelopedData (RFC 5652, Section 6) holds a private key whose plaintext is known to
// the token that wrapped it and to the recipient alone: the content is encrypted by
// AES-256 key wrap with padding (RFC 5649), which is sealed with no further tag. The
// recipient is a certificate, or a bare P-256 key named by its key identifier.
//
// The package refuses whatever it would not write itself, but for attributes that
// are signed: BER, trailing data, sets out of order, several signers or
// recipients, unsigned attributes, CRLs, unnamed certificates, other algorithms.
// So no octet of a message can be changed without notice. Sizes are checked before
// anything is parsed. It judges neither chains nor purposes nor status: that is
// package verify.
package cms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// Limits, checked before anything is taken apart.
const (
	MaxMessage      = 64 << 10 // of a message, where the caller names no limit
	MaxCertificate  = 16 << 10
	MaxCertificates = 8

	maxAttributes = 16
	minRSABits    = 2048
	maxRSABits    = 4096
)

var errUnsupportedKey = errors.New("cms: the key is neither ECDSA on P-256, P-384 or P-521 nor RSA of 2048 to 4096 bits")

// Context tags.
var (
	tag0            = cbasn1.Tag(0).ContextSpecific().Constructed()
	tag1            = cbasn1.Tag(1).ContextSpecific().Constructed()
	tag0Primitive   = cbasn1.Tag(0).ContextSpecific()
	tagUTCTime      = cbasn1.UTCTime
	tagGeneralTime  = cbasn1.GeneralizedTime
	derNull         = []byte{5, 0}
	algorithmSHA256 = algorithm(oid.DigestSHA256)
)

// algorithm encodes an AlgorithmIdentifier; parameters are DER, none when left out.
func algorithm(id asn1.ObjectIdentifier, parameters ...byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddBytes(parameters)
	})
	return b.BytesOrPanic() // only identifiers of this package come here
}

// identifier encodes an OBJECT IDENTIFIER.
func identifier(id asn1.ObjectIdentifier) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(id)
	return b.BytesOrPanic() // only identifiers of this package come here
}

// reader takes DER apart from left to right. It keeps the first error, which names
// the field where it stood; after that every read returns nothing. cryptobyte
// refuses indefinite and overlong lengths, so BER does not pass.
type reader struct {
	in  cryptobyte.String
	err *error
}

func newReader(der []byte) *reader { return &reader{in: der, err: new(error)} }

func (r *reader) fail(what string) {
	if *r.err == nil {
		*r.err = fmt.Errorf("cms: reading %s: not the DER that is expected there", what)
	}
	r.in = nil
}

// into enters the next element.
func (r *reader) into(tag cbasn1.Tag, what string) *reader {
	var in cryptobyte.String
	if *r.err != nil || !r.in.ReadASN1(&in, tag) {
		r.fail(what)
	}
	return &reader{in: in, err: r.err}
}

// content returns the content octets of the next element.
func (r *reader) content(tag cbasn1.Tag, what string) []byte { return r.into(tag, what).in }

// element returns the whole next element.
func (r *reader) element(tag cbasn1.Tag, what string) []byte {
	var e cryptobyte.String
	if *r.err != nil || !r.in.ReadASN1Element(&e, tag) {
		r.fail(what)
	}
	return e
}

// exactly reads the next octets, which must be these.
func (r *reader) exactly(want []byte, what string) {
	var have []byte
	if *r.err != nil || !r.in.ReadBytes(&have, len(want)) || string(have) != string(want) {
		r.fail(what)
	}
}

// version reads an INTEGER, which must be this.
func (r *reader) version(want byte, what string) { r.exactly([]byte{2, 1, want}, what) }

func (r *reader) oid(what string) asn1.ObjectIdentifier {
	var id asn1.ObjectIdentifier
	if *r.err != nil || !r.in.ReadASN1ObjectIdentifier(&id) {
		r.fail(what)
	}
	return id
}

func (r *reader) identifier(want asn1.ObjectIdentifier, what string) {
	if id := r.oid(what); !id.Equal(want) {
		r.fail(what)
	}
}

// next reports whether an element with this tag follows.
func (r *reader) next(tag cbasn1.Tag) bool { return *r.err == nil && r.in.PeekASN1Tag(tag) }

func (r *reader) more() bool { return *r.err == nil && !r.in.Empty() }

// end demands that nothing follows.
func (r *reader) end(what string) {
	if *r.err == nil && !r.in.Empty() {
		r.fail("the end of " + what)
	}
}

// identity is what CMS names a certificate by: IssuerAndSerialNumber
// (RFC 5652, Section 10.2.4), both as DER.
type identity struct{ issuer, serial []byte }

func (i identity) equal(o identity) bool {
	return bytes.Equal(i.serial, o.serial) && bytes.Equal(i.issuer, o.issuer)
}

func (i identity) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(i.issuer)
		b.AddBytes(i.serial)
	})
}

// identity reads IssuerAndSerialNumber.
func (r *reader) identity() (i identity) {
	in := r.into(cbasn1.SEQUENCE, "issuerAndSerialNumber")
	i.issuer = in.element(cbasn1.SEQUENCE, "issuer")
	i.serial = in.element(cbasn1.INTEGER, "serialNumber")
	in.end("issuerAndSerialNumber")
	return i
}

// identify reads the issuer and the serial number of a certificate.
func identify(cert []byte) (i identity, err error) {
	if len(cert) > MaxCertificate {
		return i, fmt.Errorf("cms: a certificate has %d octets, more than %d", len(cert), MaxCertificate)
	}
	r := newReader(cert)
	tbs := r.into(cbasn1.SEQUENCE, "certificate").into(cbasn1.SEQUENCE, "tbsCertificate")
	if tbs.next(tag0) {
		tbs.element(tag0, "certificate version")
	}
	i.serial = tbs.element(cbasn1.INTEGER, "certificate serial number")
	tbs.element(cbasn1.SEQUENCE, "certificate signature algorithm")
	i.issuer = tbs.element(cbasn1.SEQUENCE, "certificate issuer")
	return i, *r.err
}

// contentInfo opens the outermost structure (RFC 5652, Section 3).
func contentInfo(der []byte, max int, kind asn1.ObjectIdentifier) (*reader, error) {
	if max <= 0 {
		max = MaxMessage
	}
	if len(der) > max {
		return nil, &SizeError{Size: len(der), Max: max}
	}
	r := newReader(der)
	outer := r.into(cbasn1.SEQUENCE, "contentInfo")
	r.end("contentInfo")
	outer.identifier(kind, "contentType")
	body := outer.into(tag0, "content")
	outer.end("contentInfo")
	in := body.into(cbasn1.SEQUENCE, "content")
	body.end("content")
	return in, *r.err
}

// wrap encodes the outermost structure.
func wrap(kind asn1.ObjectIdentifier, body func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(kind)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, body) })
	})
	return b.Bytes()
}

// checkRSA refuses sizes before any arithmetic is done with them.
func checkRSA(key *rsa.PublicKey) error {
	if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
		return errUnsupportedKey
	}
	return nil
}

// checkEC refuses the curves that Hufu does not use.
func checkEC(key *ecdsa.PublicKey) error {
	switch key.Curve.Params().Name {
	case "P-256", "P-384", "P-521":
		return nil
	}
	return errUnsupportedKey
}

// SizeError says that a message is larger than its reader allows.
type SizeError struct{ Size, Max int }

func (e *SizeError) Error() string {
	return fmt.Sprintf("cms: the message has %d octets, more than %d", e.Size, e.Max)
}
