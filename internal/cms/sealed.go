package cms

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // named in envelopes for tokens whose OAEP knows no other hash
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

const (
	keySize   = 32 // AES-256
	nonceSize = 12
	tagSize   = 16
)

// ErrOpen says that an envelope could not be opened, and nothing more: whether
// the key, the wrapped key or the tag was wrong is nobody's business
// (RFC 3218 tells why).
var ErrOpen = errors.New("cms: the envelope does not open with this key")

// ErrRecipient says that an envelope is for another certificate.
var ErrRecipient = errors.New("cms: the envelope is for another certificate than the one given")

var (
	keyWrap256  = algorithm(oid.AES256Wrap)
	keyAgree    = algorithm(oid.ECDHStandardSHA256, keyWrap256...)
	oaepSHA1    = algorithm(oid.KeyRSAOAEP, 0x30, 0) // all parameters at their defaults, which are SHA-1's
	oaepSHA256  = oaep(algorithmSHA256)
	oaepSHA256N = oaep(algorithm(oid.DigestSHA256, derNull...)) // as RFC 4055, Section 2.1 writes it
)

// oaep encodes RSAES-OAEP with one hash for the label and for MGF1
// (RFC 4055, Section 4.1).
func oaep(hash []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddBytes(hash) })
		b.AddASN1(tag1, func(b *cryptobyte.Builder) { b.AddBytes(algorithm(oid.MaskMGF1, hash...)) })
	})
	return algorithm(oid.KeyRSAOAEP, b.BytesOrPanic()...)
}

// Sealer seals for one recipient.
type Sealer struct {
	Recipient []byte      // certificate, DER
	OAEP      crypto.Hash // for an RSA key: SHA256 (also when zero), or SHA1 where the recipient's token knows no other
	Rand      io.Reader   // nil: crypto/rand
}

// Seal encrypts plain to a recipient's certificate as AuthEnvelopedData. A nil
// rand means crypto/rand.
func Seal(plain []byte, recipient []byte, rand io.Reader) ([]byte, error) {
	return (&Sealer{Recipient: recipient, Rand: rand}).Seal(plain)
}

// Seal encrypts plain to the recipient as AuthEnvelopedData. It refuses a
// certificate whose key usage does not allow it. Errors never hold plain.
func (s *Sealer) Seal(plain []byte) ([]byte, error) {
	random := s.Rand
	if random == nil {
		random = rand.Reader
	}
	cert, err := x509.ParseCertificate(s.Recipient)
	if err != nil {
		return nil, fmt.Errorf("sealing: reading the recipient's certificate: %w", err)
	}
	secret := make([]byte, keySize+nonceSize)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, fmt.Errorf("sealing: drawing a key: %w", err)
	}
	defer clear(secret)
	cek, nonce := secret[:keySize], secret[keySize:]
	var recipient []byte
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		recipient, err = agreeCertificate(cert, key, cek, random)
	case *rsa.PublicKey:
		recipient, err = transportRecipient(cert, key, s.OAEP, cek, random)
	default:
		err = errUnsupportedKey
	}
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	gcm, err := newGCM(cek)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return marshalEnvelope(recipient, nonce, gcm.Seal(nil, nonce, plain, nil))
}

func newGCM(cek []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// contentEncryption is AES-256-GCM with the tag's size stated: left out it would
// mean 12 (RFC 5084, Section 3.2).
func contentEncryption(nonce []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(nonce)
		b.AddASN1Int64(tagSize)
	})
	return algorithm(oid.AES256GCM, b.BytesOrPanic()...)
}

// marshalEnvelope encodes AuthEnvelopedData (RFC 5083, Section 2.1).
func marshalEnvelope(recipient, nonce, sealed []byte) ([]byte, error) {
	return wrap(oid.CMSAuthEnvelopedData, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(recipient) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid.CMSData)
			b.AddBytes(contentEncryption(nonce))
			b.AddASN1(tag0Primitive, func(b *cryptobyte.Builder) { b.AddBytes(sealed[:len(sealed)-tagSize]) })
		})
		b.AddASN1OctetString(sealed[len(sealed)-tagSize:])
	})
}

// agreeCertificate names the recipient by its certificate, which must be one for key
// agreement.
func agreeCertificate(cert *x509.Certificate, key *ecdsa.PublicKey, cek []byte, random io.Reader) ([]byte, error) {
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyAgreement == 0 {
		return nil, errors.New("cms: the recipient's key usage has no keyAgreement: give its encryption certificate")
	}
	id, err := identify(cert.Raw)
	if err != nil {
		return nil, err
	}
	return agreeRecipient(id.add, key, cek, random)
}

// agreeRecipient encodes KeyAgreeRecipientInfo with an ephemeral key
// (RFC 5652, Section 6.2.2; RFC 5753, Section 3.1.1); name writes who it is for.
func agreeRecipient(name func(*cryptobyte.Builder), key *ecdsa.PublicKey, cek []byte, random io.Reader) ([]byte, error) {
	if err := checkEC(key); err != nil {
		return nil, err
	}
	remote, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	ephemeral, err := remote.Curve().GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("drawing an ephemeral key: %w", err)
	}
	z, err := ephemeral.ECDH(remote)
	if err != nil {
		return nil, err
	}
	kek := deriveKey(z, oid.AES256Wrap, keySize, nil)
	wrapped, err := wrapKey(kek, cek)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag1, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag1, func(b *cryptobyte.Builder) {
				b.AddBytes(algorithm(oid.KeyEC))
				b.AddASN1BitString(ephemeral.PublicKey().Bytes())
			})
		})
		b.AddBytes(keyAgree)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				name(b)
				b.AddASN1OctetString(wrapped)
			})
		})
	})
	return b.Bytes()
}

// transportRecipient encodes KeyTransRecipientInfo (RFC 5652, Section 6.2.1).
func transportRecipient(cert *x509.Certificate, key *rsa.PublicKey, oaep crypto.Hash, cek []byte, random io.Reader) ([]byte, error) {
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		return nil, errors.New("cms: the recipient's key usage has no keyEncipherment: give its encryption certificate")
	}
	if err := checkRSA(key); err != nil {
		return nil, err
	}
	hash, name := crypto.SHA256, oaepSHA256
	switch oaep {
	case 0, crypto.SHA256:
	case crypto.SHA1:
		hash, name = crypto.SHA1, oaepSHA1
	default:
		return nil, fmt.Errorf("cms: OAEP with %v is not supported: use SHA-256 or SHA-1", oaep)
	}
	wrapped, err := rsa.EncryptOAEP(hash.New(), random, key, cek, nil)
	if err != nil {
		return nil, err
	}
	id, err := identify(cert.Raw)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		id.add(b)
		b.AddBytes(name)
		b.AddASN1OctetString(wrapped)
	})
	return b.Bytes()
}

// sharedInfo is ECC-CMS-SharedInfo (RFC 5753, Section 7.2).
func sharedInfo(wrap asn1.ObjectIdentifier, size int, ukm []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(algorithm(wrap))
		if ukm != nil {
			b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(ukm) })
		}
		b.AddASN1(cbasn1.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(binary.BigEndian.AppendUint32(nil, uint32(8*size)))
		})
	})
	return b.BytesOrPanic()
}

// deriveKey is the X9.63 KDF over SHA-256 (SEC 1, Section 3.6.1), for keys of at
// most one hash: one block, counter 1.
func deriveKey(z []byte, wrap asn1.ObjectIdentifier, size int, ukm []byte) []byte {
	h := sha256.New()
	h.Write(z)
	h.Write([]byte{0, 0, 0, 1})
	h.Write(sharedInfo(wrap, size, ukm))
	return h.Sum(nil)[:size]
}

// Opener opens what was sealed for one certificate. One of the keys is set.
type Opener struct {
	Certificate []byte            // DER; an envelope for any other is ErrRecipient; nil for OpenKey: the bare ECDH key
	ECDH        ecdh.KeyExchanger // the certificate's key on an EC curve
	RSA         crypto.Decrypter  // the certificate's RSA key
}

// envelope is a parsed AuthEnvelopedData.
type envelope struct {
	recipient  identity
	keyID      []byte // in place of recipient, for a bare key
	ephemeral  []byte // point, for key agreement
	ukm        []byte
	hash       crypto.Hash // of OAEP, for key transport
	wrapped    []byte
	nonce      []byte
	ciphertext []byte // with the tag
}

// Open returns the plaintext of an envelope of at most MaxMessage octets. A form
// that is not an envelope, and an envelope for another certificate, have errors
// of their own, and so has a token that fails; all the rest is ErrOpen, after the
// same work.
func (o *Opener) Open(der []byte) ([]byte, error) {
	e, err := parseEnvelope(der)
	if err != nil {
		return nil, err
	}
	id, err := identify(o.Certificate)
	if err != nil {
		return nil, err
	}
	if !id.equal(e.recipient) {
		return nil, ErrRecipient
	}
	key, ok, err := o.unwrap(e)
	if err != nil {
		return nil, err
	}
	// A wrong wrapped key is replaced by a random one, and the tag fails then.
	cek := make([]byte, keySize)
	rand.Read(cek)
	if ok && len(key) == keySize {
		copy(cek, key)
	}
	clear(key)
	defer clear(cek)
	gcm, err := newGCM(cek)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, e.nonce, e.ciphertext, nil)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// unwrap returns the content key as far as it can be had. An error is one of the
// token that holds the key: that a token failed with a valid point says nothing of
// the envelope. With OAEP the two cannot be told apart.
func (o *Opener) unwrap(e *envelope) (cek []byte, ok bool, err error) {
	switch {
	case e.hash != 0 && o.RSA != nil:
		cek, err := o.RSA.Decrypt(rand.Reader, e.wrapped, &rsa.OAEPOptions{Hash: e.hash})
		return cek, err == nil, nil
	case e.hash == 0 && o.ECDH != nil:
		remote, err := o.ECDH.Curve().NewPublicKey(e.ephemeral)
		if err != nil {
			return nil, false, nil
		}
		z, err := o.ECDH.ECDH(remote)
		if err != nil {
			return nil, false, fmt.Errorf("opening the envelope: agreeing on a key: %w", err)
		}
		defer clear(z)
		cek, ok = unwrapKey(deriveKey(z, oid.AES256Wrap, keySize, e.ukm), e.wrapped)
	}
	return cek, ok, nil
}

func parseEnvelope(der []byte) (*envelope, error) {
	r, err := contentInfo(der, MaxMessage, oid.CMSAuthEnvelopedData)
	if err != nil {
		return nil, err
	}
	e := &envelope{}
	r.version(0, "authEnvelopedData version")
	e.parseRecipient(r, false)

	content := r.into(cbasn1.SEQUENCE, "authEncryptedContentInfo")
	content.identifier(oid.CMSData, "inner content type")
	cipher := content.into(cbasn1.SEQUENCE, "contentEncryptionAlgorithm")
	cipher.identifier(oid.AES256GCM, "contentEncryptionAlgorithm: not AES-256-GCM")
	parameters := cipher.into(cbasn1.SEQUENCE, "GCMParameters")
	cipher.end("contentEncryptionAlgorithm")
	e.nonce = parameters.content(cbasn1.OCTET_STRING, "GCM nonce")
	parameters.version(tagSize, "GCM tag size")
	parameters.end("GCMParameters")
	ciphertext := content.content(tag0Primitive, "encryptedContent")
	content.end("authEncryptedContentInfo")
	tag := r.content(cbasn1.OCTET_STRING, "mac")
	r.end("authEnvelopedData: attributes are refused")
	if *r.err == nil && (len(e.nonce) != nonceSize || len(tag) != tagSize) {
		r.fail("GCM nonce and tag")
	}
	if *r.err != nil {
		return nil, *r.err
	}
	e.ciphertext = append(bytes.Clone(ciphertext), tag...)
	return e, nil
}

// parseRecipient reads the one recipient; bare allows one that has no certificate.
func (e *envelope) parseRecipient(r *reader, bare bool) {
	set := r.into(cbasn1.SET, "recipientInfos")
	if set.next(tag1) {
		e.parseAgreement(set.into(tag1, "keyAgreeRecipientInfo"), bare)
	} else {
		e.parseTransport(set.into(cbasn1.SEQUENCE, "keyTransRecipientInfo"))
	}
	set.end("recipientInfos: there is one recipient")
}

func (e *envelope) parseAgreement(r *reader, bare bool) {
	r.version(3, "keyAgreeRecipientInfo version")
	originator := r.into(tag0, "originator")
	public := originator.into(tag1, "originatorKey")
	originator.end("originator")
	// The curve is the recipient's: parameters SHOULD be absent (RFC 5753,
	// Section 3.1.1), and must be here.
	alg := public.into(cbasn1.SEQUENCE, "originatorKey algorithm")
	alg.identifier(oid.KeyEC, "originatorKey algorithm")
	alg.end("originatorKey algorithm: parameters are left out")
	point := public.content(cbasn1.BIT_STRING, "originatorKey")
	public.end("originatorKey")
	if len(point) < 2 || point[0] != 0 {
		r.fail("originatorKey")
		return
	}
	e.ephemeral = point[1:]
	if r.next(tag1) {
		ukm := r.into(tag1, "ukm")
		e.ukm = ukm.content(cbasn1.OCTET_STRING, "ukm")
		ukm.end("ukm")
	}
	r.exactly(keyAgree, "keyEncryptionAlgorithm: not ECDH with SHA-256 and AES-256 key wrap")
	keys := r.into(cbasn1.SEQUENCE, "recipientEncryptedKeys")
	r.end("keyAgreeRecipientInfo")
	key := keys.into(cbasn1.SEQUENCE, "recipientEncryptedKey")
	keys.end("recipientEncryptedKeys: there is one recipient")
	if bare && key.next(tag0) {
		id := key.into(tag0, "rKeyId")
		e.keyID = id.content(cbasn1.OCTET_STRING, "subjectKeyIdentifier")
		id.end("rKeyId: no date and no other attribute")
	} else {
		e.recipient = key.identity()
	}
	e.wrapped = key.content(cbasn1.OCTET_STRING, "encryptedKey")
	key.end("recipientEncryptedKey")
}

func (e *envelope) parseTransport(r *reader) {
	r.version(0, "keyTransRecipientInfo version")
	e.recipient = r.identity()
	name := r.element(cbasn1.SEQUENCE, "keyEncryptionAlgorithm")
	switch {
	case bytes.Equal(name, oaepSHA256), bytes.Equal(name, oaepSHA256N):
		e.hash = crypto.SHA256
	case bytes.Equal(name, oaepSHA1):
		e.hash = crypto.SHA1
	default:
		r.fail("keyEncryptionAlgorithm: not RSA-OAEP with SHA-256 or SHA-1")
	}
	e.wrapped = r.content(cbasn1.OCTET_STRING, "encryptedKey")
	r.end("keyTransRecipientInfo")
}
