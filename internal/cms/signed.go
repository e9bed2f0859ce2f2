package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// SignedData is a parsed message. Its slices lie in the octets that were parsed.
type SignedData struct {
	ContentType  asn1.ObjectIdentifier
	Content      []byte
	Certificates [][]byte // those that travel with it, DER, in the order of their encoding

	signer     identity
	hash       crypto.Hash
	signature  []byte
	algorithm  []byte // signatureAlgorithm, DER
	attributes []byte // signedAttrs as they are signed: a SET OF
	digest     []byte // attribute messageDigest
	certHash   []byte // attribute signingCertificateV2
	certDigest crypto.Hash
	time       time.Time
}

// digests names the hashes, the digestAlgorithm without parameters and with NULL,
// as older programs write it (RFC 5754, Section 2), and the ECDSA algorithm that
// goes with the hash.
var digests = []struct {
	hash                crypto.Hash
	digest, null, ecdsa []byte
}{
	{crypto.SHA256, algorithmSHA256, algorithm(oid.DigestSHA256, derNull...), algorithm(oid.SignatureECDSASHA256)},
	{crypto.SHA384, algorithm(oid.DigestSHA384), algorithm(oid.DigestSHA384, derNull...), algorithm(oid.SignatureECDSASHA384)},
	{crypto.SHA512, algorithm(oid.DigestSHA512), algorithm(oid.DigestSHA512, derNull...), algorithm(oid.SignatureECDSASHA512)},
}

// signatureRSA is rsaEncryption, which RFC 3370, Section 3.2 demands of everyone.
// sha256WithRSAEncryption would mean the same and is refused, so that a message
// has one spelling.
var signatureRSA = algorithm(oid.KeyRSA, derNull...)

// Sign makes SignedData over content with exactly one signer. The signer's
// certificate and the chain travel in the message. The signature is checked with
// the certificate before the message is returned, so a key that is not the
// certificate's is noticed here.
func Sign(contentType asn1.ObjectIdentifier, content []byte, cert []byte, chain [][]byte, key crypto.Signer, t time.Time) ([]byte, error) {
	signer, err := identify(cert)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	s := &SignedData{ContentType: contentType, Content: content, signer: signer}
	if err := s.choose(key.Public()); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	s.certDigest = crypto.SHA256
	s.digest, s.certHash = sum(s.hash, content), sum(s.certDigest, cert)
	if s.attributes, err = s.marshalAttributes(t); err != nil {
		return nil, fmt.Errorf("signing: encoding the attributes: %w", err)
	}
	if s.signature, err = key.Sign(rand.Reader, sum(s.hash, s.attributes), s.hash); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	s.Certificates = append([][]byte{cert}, chain...)
	slices.SortFunc(s.Certificates, bytes.Compare)
	s.Certificates = slices.CompactFunc(s.Certificates, bytes.Equal)
	if len(s.Certificates) > MaxCertificates {
		return nil, fmt.Errorf("signing: %d certificates, at most %d travel", len(s.Certificates), MaxCertificates)
	}
	if err := s.CheckSignature(cert); err != nil {
		return nil, fmt.Errorf("signing: checking the signature with the certificate: %w", err)
	}
	return s.marshal()
}

// choose picks the algorithms for a key: the hash as strong as the curve.
func (s *SignedData) choose(key crypto.PublicKey) error {
	d := digests[0]
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 384:
			d = digests[1]
		case 521:
			d = digests[2]
		}
		s.algorithm = d.ecdsa
	case *rsa.PublicKey:
		s.algorithm = signatureRSA
	default:
		return errUnsupportedKey
	}
	s.hash = d.hash
	return nil
}

func sum(hash crypto.Hash, b []byte) []byte {
	h := hash.New()
	h.Write(b)
	return h.Sum(nil)
}

// marshalAttributes encodes the signed attributes as the SET OF that is signed:
// sorted by encoding, with the tag of a SET (RFC 5652, Section 5.4).
func (s *SignedData) marshalAttributes(t time.Time) ([]byte, error) {
	var failed error
	attribute := func(id asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) []byte {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			b.AddASN1(cbasn1.SET, value)
		})
		der, err := b.Bytes()
		failed = errors.Join(failed, err)
		return der
	}
	moment, err := marshalTime(t)
	if err != nil {
		return nil, err
	}
	set := [][]byte{
		attribute(oid.CMSContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(s.ContentType) }),
		attribute(oid.CMSSigningTime, func(b *cryptobyte.Builder) { b.AddBytes(moment) }),
		attribute(oid.CMSMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(s.digest) }),
		// SigningCertificateV2 with one ESSCertIDv2: SHA-256 is its default
		// hash and left out; so is the issuer, which the SignerInfo names
		// (RFC 5035, Section 4).
		attribute(oid.CMSSigningCertificateV2, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(s.certHash) })
				})
			})
		}),
	}
	if failed != nil {
		return nil, failed
	}
	slices.SortFunc(set, bytes.Compare)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(set, nil)) })
	return b.Bytes()
}

// marshalTime is UTCTime until 2049 (RFC 5652, Section 11.3).
func marshalTime(t time.Time) ([]byte, error) {
	var b cryptobyte.Builder
	t = t.UTC().Truncate(time.Second)
	if y := t.Year(); y >= 1950 && y < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
	return b.Bytes()
}

// version is 1 for plain data and 3 for any other content (RFC 5652, Section 5.1).
func (s *SignedData) version() byte {
	if s.ContentType.Equal(oid.CMSData) {
		return 1
	}
	return 3
}

func (s *SignedData) digestAlgorithm() []byte {
	for _, d := range digests {
		if d.hash == s.hash {
			return d.digest
		}
	}
	return nil
}

func (s *SignedData) marshal() ([]byte, error) {
	return wrap(oid.CMSSignedData, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(s.version()))
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(s.digestAlgorithm()) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(s.ContentType)
			b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(s.Content) })
		})
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			for _, c := range s.Certificates {
				b.AddBytes(c)
			}
		})
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				s.signer.add(b)
				b.AddBytes(s.digestAlgorithm())
				b.AddBytes(retag(s.attributes, byte(tag0)))
				b.AddBytes(s.algorithm)
				b.AddASN1OctetString(s.signature)
			})
		})
	})
}

// retag copies an element and changes its tag. The attributes are signed as a
// SET OF and travel as [0] (RFC 5652, Section 5.4).
func retag(element []byte, tag byte) []byte {
	e := bytes.Clone(element)
	e[0] = tag
	return e
}

// Parse reads a message of at most max octets; 0 means MaxMessage. It checks no
// signature: nothing of what it returns may be believed before CheckSignature.
func Parse(der []byte, max int) (*SignedData, error) {
	r, err := contentInfo(der, max, oid.CMSSignedData)
	if err != nil {
		return nil, err
	}
	s := &SignedData{}
	version := r.element(cbasn1.INTEGER, "version")
	set := r.into(cbasn1.SET, "digestAlgorithms")
	digest := set.element(cbasn1.SEQUENCE, "digestAlgorithm")
	set.end("digestAlgorithms")

	encap := r.into(cbasn1.SEQUENCE, "encapContentInfo")
	s.ContentType = encap.oid("eContentType")
	content := encap.into(tag0, "eContent")
	s.Content = content.content(cbasn1.OCTET_STRING, "eContent")
	content.end("eContent")
	encap.end("encapContentInfo")

	s.parseCertificates(r)
	infos := r.into(cbasn1.SET, "signerInfos")
	r.end("signedData")
	info := infos.into(cbasn1.SEQUENCE, "signerInfo")
	infos.end("signerInfos: there is one signer")
	s.parseSigner(info, digest)
	if *r.err == nil && !bytes.Equal(version, []byte{2, 1, s.version()}) {
		r.fail("version")
	}
	if *r.err != nil {
		return nil, *r.err
	}
	return s, nil
}

// parseCertificates reads a set of certificates in DER order, none twice.
func (s *SignedData) parseCertificates(r *reader) {
	if !r.next(tag0) {
		return
	}
	set := r.into(tag0, "certificates")
	for set.more() {
		c := set.element(cbasn1.SEQUENCE, "certificate")
		n := len(s.Certificates)
		if n == MaxCertificates || len(c) > MaxCertificate || n > 0 && bytes.Compare(s.Certificates[n-1], c) >= 0 {
			set.fail("certificates: too many, too large or out of order")
		}
		s.Certificates = append(s.Certificates, c)
	}
}

func (s *SignedData) parseSigner(r *reader, digest []byte) {
	r.version(1, "signerInfo version")
	s.signer = r.identity()
	r.exactly(digest, "signerInfo digestAlgorithm")
	attributes := r.element(tag0, "signedAttrs")
	s.algorithm = r.element(cbasn1.SEQUENCE, "signatureAlgorithm")
	s.signature = r.content(cbasn1.OCTET_STRING, "signature")
	r.end("signerInfo: unsigned attributes are refused")
	for _, d := range digests {
		if bytes.Equal(digest, d.digest) || bytes.Equal(digest, d.null) {
			s.hash = d.hash
		}
	}
	if s.hash == 0 {
		r.fail("digestAlgorithm: not SHA-256, SHA-384 or SHA-512")
	}
	if *r.err != nil {
		return
	}
	s.attributes = retag(attributes, byte(cbasn1.SET))
	s.parseAttributes(r)
}

// The attributes that are read, as their types are encoded.
var (
	attributeContentType        = identifier(oid.CMSContentType)
	attributeMessageDigest      = identifier(oid.CMSMessageDigest)
	attributeSigningTime        = identifier(oid.CMSSigningTime)
	attributeSigningCertificate = identifier(oid.CMSSigningCertificateV2)
)

// parseAttributes reads the signed attributes: in DER order, the four that Hufu
// needs once each, and any others, which mean nothing here.
func (s *SignedData) parseAttributes(outer *reader) {
	r := (&reader{in: s.attributes, err: outer.err}).into(cbasn1.SET, "signedAttrs")
	var last []byte
	var kinds, digests, times, certs int
	for n := 0; r.more(); n++ {
		element := r.element(cbasn1.SEQUENCE, "attribute")
		if bytes.Compare(last, element) >= 0 || n == maxAttributes {
			r.fail("signedAttrs: out of order or too many")
			return
		}
		last = element
		a := (&reader{in: element, err: r.err}).into(cbasn1.SEQUENCE, "attribute")
		id := a.element(cbasn1.OBJECT_IDENTIFIER, "attribute type")
		values := a.into(cbasn1.SET, "attribute values")
		a.end("attribute")
		switch string(id) {
		case string(attributeContentType):
			kinds++
			values.identifier(s.ContentType, "contentType attribute")
		case string(attributeMessageDigest):
			digests++
			s.digest = values.content(cbasn1.OCTET_STRING, "messageDigest attribute")
		case string(attributeSigningTime):
			times++
			s.time = values.moment()
		case string(attributeSigningCertificate):
			certs++
			s.parseSigningCertificate(values)
		default:
			continue
		}
		values.end("attribute values")
	}
	if kinds != 1 || digests != 1 || times != 1 || certs != 1 {
		r.fail("signedAttrs: contentType, messageDigest, signingTime and signingCertificateV2 are there once each")
	}
}

// parseSigningCertificate reads the first ESSCertIDv2, which is the signer's. Its
// hash is SHA-256 where none is named (RFC 5035, Section 4).
func (s *SignedData) parseSigningCertificate(r *reader) {
	attribute := r.into(cbasn1.SEQUENCE, "signingCertificateV2")
	certs := attribute.into(cbasn1.SEQUENCE, "signingCertificateV2 certs")
	attribute.end("signingCertificateV2")
	first := certs.into(cbasn1.SEQUENCE, "ESSCertIDv2")
	s.certDigest = crypto.SHA256
	if first.next(cbasn1.SEQUENCE) {
		hash := first.element(cbasn1.SEQUENCE, "ESSCertIDv2 hashAlgorithm")
		switch {
		case bytes.Equal(hash, digests[1].digest):
			s.certDigest = crypto.SHA384
		case bytes.Equal(hash, digests[2].digest):
			s.certDigest = crypto.SHA512
		default:
			first.fail("ESSCertIDv2 hashAlgorithm")
		}
	}
	s.certHash = first.content(cbasn1.OCTET_STRING, "ESSCertIDv2 hash")
}

func (r *reader) moment() time.Time {
	var t time.Time
	switch {
	case r.next(tagUTCTime) && r.in.ReadASN1UTCTime(&t):
	case r.next(tagGeneralTime) && r.in.ReadASN1GeneralizedTime(&t):
	default:
		r.fail("signingTime attribute")
	}
	return t.UTC()
}

// Signer returns the travelling certificate that the signer named, or nil.
func (s *SignedData) Signer() []byte {
	for _, c := range s.Certificates {
		if id, err := identify(c); err == nil && id.equal(s.signer) {
			return c
		}
	}
	return nil
}

// SigningTime is the time that the signer claims. It proves nothing.
func (s *SignedData) SigningTime() time.Time { return s.time }

// CheckSignature checks that the message was signed with the key of cert, by a
// signer who meant this certificate.
func (s *SignedData) CheckSignature(cert []byte) error {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("reading the signer's certificate: %w", err)
	}
	return s.CheckSignatureBy(cert, c.PublicKey)
}

// Reasons why a signature does not fit.
var (
	errOtherSigner    = errors.New("cms: the message names another certificate as its signer's")
	errOtherContent   = errors.New("cms: the content is not what was signed")
	errBadSignature   = errors.New("cms: the signature is not one by the signer's key")
	errWrongAlgorithm = errors.New("cms: the signature algorithm does not go with the signer's key")
)

// CheckSignatureBy is CheckSignature for a caller that has the parsed key of cert.
func (s *SignedData) CheckSignatureBy(cert []byte, key crypto.PublicKey) error {
	id, err := identify(cert)
	if err != nil {
		return err
	}
	if !id.equal(s.signer) || !bytes.Equal(sum(s.certDigest, cert), s.certHash) {
		return errOtherSigner
	}
	if !bytes.Equal(sum(s.hash, s.Content), s.digest) {
		return errOtherContent
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return s.checkECDSA(key)
	case *rsa.PublicKey:
		if err := checkRSA(key); err != nil {
			return err
		}
		if !bytes.Equal(s.algorithm, signatureRSA) {
			return errWrongAlgorithm
		}
		if rsa.VerifyPKCS1v15(key, s.hash, sum(s.hash, s.attributes), s.signature) != nil {
			return errBadSignature
		}
		return nil
	}
	return errUnsupportedKey
}

func (s *SignedData) checkECDSA(key *ecdsa.PublicKey) error {
	if err := checkEC(key); err != nil {
		return err
	}
	for _, d := range digests {
		if d.hash == s.hash && !bytes.Equal(s.algorithm, d.ecdsa) {
			return errWrongAlgorithm
		}
	}
	if !ecdsa.VerifyASN1(key, sum(s.hash, s.attributes), s.signature) {
		return errBadSignature
	}
	return nil
}
