// Package ocsp reads and writes OCSP requests and responses (RFC 6960, RFC 9919,
// RFC 9654).
//
// It is a codec: it holds no key, asks no network and decides no status. The
// server's half is ParseRequest, ResponseData.Marshal, Assemble and
// ErrorResponse; the client's half is MakeRequest, ParseResponse and
// Response.CheckSignature.
//
// It refuses critical extensions that it does not know, responses in another
// form than BasicOCSPResponse, and a delegated responder whose own revocation
// would have to be looked up. The signature that a request may carry is not
// checked: anybody may ask.
package ocsp

import (
	"bytes"
	"crypto"
	"crypto/sha1" // names a CA in a CertID, secures nothing
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// CertID names one certificate: the hashes of its issuer's name and key, and its
// serial number (RFC 6960, Section 4.1.1).
type CertID struct {
	Hash   crypto.Hash // SHA1 or SHA256; 0 when the request names another one
	Bare   bool        // the hash algorithm stands without the NULL parameters
	Name   []byte      // hash of the issuer's distinguished name
	Key    []byte      // hash of the issuer's public key bits
	Serial []byte      // content octets of the INTEGER
	Raw    []byte      // the DER as received, echoed in the response; nil = encoded anew
}

// equal compares what two CertIDs say, not how they are encoded: the parameters
// of the hash algorithm may be NULL or absent.
func (id *CertID) equal(other *CertID) bool {
	return id.Hash == other.Hash && bytes.Equal(id.Serial, other.Serial) &&
		bytes.Equal(id.Name, other.Name) && bytes.Equal(id.Key, other.Key)
}

// Issuer is a CA as requests name it: its hashes, ready made.
type Issuer struct {
	sha1, sha256 struct{ name, key []byte }
}

// NewIssuer computes the hashes of a CA certificate.
func NewIssuer(certificate []byte) (*Issuer, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("parsing issuer certificate: %w", err)
	}
	bits, err := keyBits(cert)
	if err != nil {
		return nil, err
	}
	var i Issuer
	name1, key1 := sha1.Sum(cert.RawSubject), sha1.Sum(bits)
	i.sha1.name, i.sha1.key = name1[:], key1[:]
	name256, key256 := sha256.Sum256(cert.RawSubject), sha256.Sum256(bits)
	i.sha256.name, i.sha256.key = name256[:], key256[:]
	return &i, nil
}

// CertID names a certificate of this issuer. Hash is SHA1 or SHA256.
func (i *Issuer) CertID(hash crypto.Hash, serial []byte) CertID {
	h := &i.sha256
	if hash == crypto.SHA1 {
		h = &i.sha1
	}
	return CertID{Hash: hash, Name: h.name, Key: h.key, Serial: serial}
}

// Issued reports whether id names a certificate of this issuer. Name and key
// must both fit: a name alone may be shared by generations of a CA, a key alone
// by names.
func (i *Issuer) Issued(id *CertID) bool {
	h := &i.sha256
	switch id.Hash {
	case crypto.SHA1:
		h = &i.sha1
	case crypto.SHA256:
	default:
		return false
	}
	return bytes.Equal(h.key, id.Key) && bytes.Equal(h.name, id.Name)
}

// KeyHash is the SHA-1 of a certificate's public key bits, by which a responder
// names itself (RFC 6960, Section 4.2.1: KeyHash is SHA-1 whatever else is used).
func KeyHash(certificate []byte) ([]byte, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("parsing responder certificate: %w", err)
	}
	return keyHash(cert)
}

func keyHash(cert *x509.Certificate) ([]byte, error) {
	bits, err := keyBits(cert)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(bits)
	return sum[:], nil
}

// keyBits is the value of the subjectPublicKey BIT STRING, without tag, length
// and the number of unused bits.
func keyBits(cert *x509.Certificate) ([]byte, error) {
	spki := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	var inner cryptobyte.String
	var bits []byte
	if !spki.ReadASN1(&inner, cbasn1.SEQUENCE) || !inner.SkipASN1(cbasn1.SEQUENCE) || !inner.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("reading public key: not a SubjectPublicKeyInfo")
	}
	return bits, nil
}

// Content octets of the object identifiers that are compared while parsing.
var (
	derSHA1   = contents(oid.DigestSHA1)
	derSHA256 = contents(oid.DigestSHA256)
	derNonce  = contents(oid.OCSPNonce)
	derBasic  = contents(oid.OCSPBasic)
)

func contents(id asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(id)
	if err != nil {
		panic("ocsp: " + err.Error()) // a constant of internal/oid
	}
	return der[2:]
}

var (
	tagExplicit0 = cbasn1.Tag(0).Constructed().ContextSpecific()
	tagExplicit1 = cbasn1.Tag(1).Constructed().ContextSpecific()
	tagExplicit2 = cbasn1.Tag(2).Constructed().ContextSpecific()
)

// readCertID reads a CertID whose slices lie in s.
func readCertID(s *cryptobyte.String, id *CertID) bool {
	var raw, seq, algorithm, hash, name, key, serial cryptobyte.String
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return false
	}
	id.Raw = raw
	if !raw.ReadASN1(&seq, cbasn1.SEQUENCE) ||
		!seq.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1(&hash, cbasn1.OBJECT_IDENTIFIER) ||
		!seq.ReadASN1(&name, cbasn1.OCTET_STRING) ||
		!seq.ReadASN1(&key, cbasn1.OCTET_STRING) ||
		!seq.ReadASN1(&serial, cbasn1.INTEGER) || !seq.Empty() || !minimalInteger(serial) {
		return false
	}
	id.Name, id.Key, id.Serial = name, key, serial
	var size int
	switch {
	case bytes.Equal(hash, derSHA256):
		id.Hash, size = crypto.SHA256, sha256.Size
	case bytes.Equal(hash, derSHA1):
		id.Hash, size = crypto.SHA1, sha1.Size
	default:
		// Another hash is a request that nobody here can answer, not a malformed one.
		return true
	}
	id.Bare = algorithm.Empty()
	return readNullOrNothing(&algorithm) && len(name) == size && len(key) == size
}

// readNullOrNothing reads the parameters of a hash algorithm: both forms are met.
func readNullOrNothing(s *cryptobyte.String) bool {
	if s.Empty() {
		return true
	}
	var null cryptobyte.String
	return s.ReadASN1(&null, cbasn1.NULL) && null.Empty() && s.Empty()
}

// minimalInteger holds the contents of an INTEGER to X.690, Section 8.3.2.
func minimalInteger(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	return !(b[0] == 0 && b[1] < 0x80) && !(b[0] == 0xff && b[1] >= 0x80)
}

func (w *back) certID(id *CertID) {
	if id.Raw != nil {
		w.raw(id.Raw)
		return
	}
	end := w.end()
	if !minimalInteger(id.Serial) {
		w.fail("encoding CertID: serial %x is not the contents of a DER INTEGER", id.Serial)
	}
	w.value(cbasn1.INTEGER, id.Serial)
	w.value(cbasn1.OCTET_STRING, id.Key)
	w.value(cbasn1.OCTET_STRING, id.Name)
	switch {
	case id.Hash == crypto.SHA1 && id.Bare:
		w.raw(bareSHA1)
	case id.Hash == crypto.SHA1:
		w.raw(algorithmSHA1)
	case id.Hash == crypto.SHA256 && id.Bare:
		w.raw(bareSHA256)
	case id.Hash == crypto.SHA256:
		w.raw(algorithmSHA256)
	default:
		w.fail("encoding CertID: hash %d is neither SHA-1 nor SHA-256", id.Hash)
	}
	w.header(cbasn1.SEQUENCE, end)
}

// nonce writes an Extensions with the nonce alone. The value is wrapped twice: an
// OCTET STRING within extnValue (RFC 9654, Section 2.1).
func (w *back) nonce(explicit cbasn1.Tag, nonce []byte) {
	if len(nonce) < 1 || len(nonce) > MaxNonce {
		w.fail("encoding nonce: %d octets, RFC 9654 allows 1 to %d", len(nonce), MaxNonce)
		return
	}
	end := w.end()
	w.value(cbasn1.OCTET_STRING, nonce)
	w.header(cbasn1.OCTET_STRING, end)
	w.value(cbasn1.OBJECT_IDENTIFIER, derNonce)
	w.header(cbasn1.SEQUENCE, end)
	w.header(cbasn1.SEQUENCE, end)
	w.header(explicit, end)
}

// readExtensions reads the contents of an explicitly tagged Extensions and
// returns the nonce if there is one. Unknown extensions are passed over unless
// they are critical.
func readExtensions(explicit cryptobyte.String) (nonce []byte, err error) {
	var list cryptobyte.String
	if !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() || list.Empty() {
		return nil, errors.New("reading extensions: not a list of extensions")
	}
	for !list.Empty() {
		var ext, id, value cryptobyte.String
		critical := false
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
			return nil, errors.New("reading extensions: not an extension")
		}
		if ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
			return nil, errors.New("reading extensions: critical is not a BOOLEAN")
		}
		if !ext.ReadASN1(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
			return nil, errors.New("reading extensions: no value")
		}
		switch {
		case bytes.Equal(id, derNonce):
			var inner cryptobyte.String
			if nonce != nil || !value.ReadASN1(&inner, cbasn1.OCTET_STRING) || !value.Empty() {
				return nil, errors.New("reading nonce: not one OCTET STRING")
			}
			if len(inner) < 1 || len(inner) > MaxNonce {
				return nil, fmt.Errorf("reading nonce: %d octets, RFC 9654 allows 1 to %d", len(inner), MaxNonce)
			}
			nonce = inner
		case critical:
			return nil, fmt.Errorf("reading extensions: critical extension %x is not known here", []byte(id))
		}
	}
	return nonce, nil
}
