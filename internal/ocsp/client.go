package ocsp

import (
	"bytes"
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

// ResponseError is an unsuccessful response. It is unsigned: anybody on the way
// may have made it, and it says nothing of any certificate.
type ResponseError struct{ Status ResponseStatus }

func (e *ResponseError) Error() string {
	return fmt.Sprintf("the OCSP responder answered %v", e.Status)
}

// Response is a successful response as a client reads it. Its slices lie in the
// bytes that were parsed.
type Response struct {
	ResponseData
	ResponderName []byte // DER of the name, where the responder is named byName and Responder is nil
	TBS           []byte // what is signed
	Algorithm     []byte // DER of the signature's AlgorithmIdentifier
	Signature     []byte
	Certificates  [][]byte
}

// ParseResponse reads a response of at most max octets. An unsuccessful one is a
// *ResponseError. Nothing in a Response may be believed before CheckSignature.
func ParseResponse(der []byte, max int) (*Response, error) {
	if len(der) > max {
		return nil, fmt.Errorf("parsing OCSP response: %d octets, at most %d are read", len(der), max)
	}
	basic, err := readOuter(der)
	if err != nil {
		return nil, fmt.Errorf("parsing OCSP response: %w", err)
	}
	var r Response
	var tbs, algorithm cryptobyte.String
	if !basic.ReadASN1Element(&tbs, cbasn1.SEQUENCE) || !basic.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) ||
		!basic.ReadASN1BitStringAsBytes(&r.Signature) {
		return nil, errors.New("parsing OCSP response: not a BasicOCSPResponse")
	}
	r.TBS, r.Algorithm = tbs, algorithm
	if err := r.readCertificates(&basic); err != nil {
		return nil, fmt.Errorf("parsing OCSP response: %w", err)
	}
	if err := r.readData(tbs); err != nil {
		return nil, fmt.Errorf("parsing OCSP response: %w", err)
	}
	return &r, nil
}

// readOuter unwraps OCSPResponse down to the contents of BasicOCSPResponse.
func readOuter(der []byte) (basic cryptobyte.String, err error) {
	input := cryptobyte.String(der)
	var outer, explicit, bytesSeq, kind, octets cryptobyte.String
	var status int
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1Enum(&status) || status < 0 || status > 255 {
		return nil, errors.New("not an OCSPResponse")
	}
	if status != int(Successful) {
		if !outer.Empty() {
			return nil, errors.New("an unsuccessful response with an answer")
		}
		return nil, &ResponseError{ResponseStatus(status)}
	}
	if !outer.ReadASN1(&explicit, tagExplicit0) || !outer.Empty() || !explicit.ReadASN1(&bytesSeq, cbasn1.SEQUENCE) || !explicit.Empty() ||
		!bytesSeq.ReadASN1(&kind, cbasn1.OBJECT_IDENTIFIER) || !bytesSeq.ReadASN1(&octets, cbasn1.OCTET_STRING) || !bytesSeq.Empty() {
		return nil, errors.New("a successful response without an answer")
	}
	if !bytes.Equal(kind, derBasic) {
		return nil, errors.New("the response is not a BasicOCSPResponse")
	}
	if !octets.ReadASN1(&basic, cbasn1.SEQUENCE) || !octets.Empty() {
		return nil, errors.New("not a BasicOCSPResponse")
	}
	return basic, nil
}

func (r *Response) readCertificates(basic *cryptobyte.String) error {
	if basic.Empty() {
		return nil
	}
	var explicit, list cryptobyte.String
	if !basic.ReadASN1(&explicit, tagExplicit0) || !basic.Empty() || !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() {
		return errors.New("unexpected data after the signature")
	}
	for !list.Empty() {
		var cert cryptobyte.String
		if !list.ReadASN1Element(&cert, cbasn1.SEQUENCE) {
			return errors.New("reading certificates: not a certificate")
		}
		r.Certificates = append(r.Certificates, cert)
	}
	return nil
}

// readData reads ResponseData.
func (r *Response) readData(element cryptobyte.String) error {
	var tbs, list cryptobyte.String
	if !element.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return errors.New("not a ResponseData")
	}
	if err := readVersion(&tbs); err != nil {
		return err
	}
	if err := r.readResponder(&tbs); err != nil {
		return err
	}
	if !readTime(&tbs, &r.ProducedAt) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) {
		return errors.New("reading ResponseData: no time of production or no answers")
	}
	for !list.Empty() {
		if len(r.Responses) == MaxSerials {
			return fmt.Errorf("reading ResponseData: more than %d answers", MaxSerials)
		}
		var s SingleResponse
		if err := readSingle(&list, &s); err != nil {
			return err
		}
		r.Responses = append(r.Responses, s)
	}
	if tbs.Empty() {
		return nil
	}
	var extensions cryptobyte.String
	if !tbs.ReadASN1(&extensions, tagExplicit1) || !tbs.Empty() {
		return errors.New("reading ResponseData: unexpected data after the answers")
	}
	var err error
	r.Nonce, err = readExtensions(extensions)
	return err
}

func (r *Response) readResponder(tbs *cryptobyte.String) error {
	var explicit, value cryptobyte.String
	switch {
	case tbs.PeekASN1Tag(tagExplicit1):
		if !tbs.ReadASN1(&explicit, tagExplicit1) || !explicit.ReadASN1Element(&value, cbasn1.SEQUENCE) || !explicit.Empty() {
			return errors.New("reading responder: not a Name")
		}
		r.ResponderName = value
	case tbs.PeekASN1Tag(tagExplicit2):
		if !tbs.ReadASN1(&explicit, tagExplicit2) || !explicit.ReadASN1(&value, cbasn1.OCTET_STRING) || !explicit.Empty() {
			return errors.New("reading responder: not a KeyHash")
		}
		r.Responder = value
	default:
		return errors.New("reading responder: neither byName nor byKey")
	}
	return nil
}

func readSingle(list *cryptobyte.String, s *SingleResponse) error {
	var single, status, explicit cryptobyte.String
	var tag cbasn1.Tag
	if !list.ReadASN1(&single, cbasn1.SEQUENCE) || !readCertID(&single, &s.ID) || !single.ReadAnyASN1(&status, &tag) {
		return errors.New("reading answer: not a SingleResponse")
	}
	switch tag {
	case cbasn1.Tag(Good).ContextSpecific(), cbasn1.Tag(Unknown).ContextSpecific():
		if !status.Empty() {
			return errors.New("reading answer: a status with contents")
		}
		s.Status = Status(tag & 0x1f)
	case tagExplicit1:
		s.Status = Revoked
		if !readTime(&status, &s.RevokedAt) {
			return errors.New("reading answer: no time of revocation")
		}
		if !status.Empty() {
			if !status.ReadASN1(&explicit, tagExplicit0) || !status.Empty() || !explicit.ReadASN1Enum(&s.Reason) || !explicit.Empty() {
				return errors.New("reading answer: not a CRLReason")
			}
		}
	default:
		return fmt.Errorf("reading answer: no status has the tag %#x", uint8(tag))
	}
	if !readTime(&single, &s.ThisUpdate) {
		return errors.New("reading answer: no thisUpdate")
	}
	if single.PeekASN1Tag(tagExplicit0) {
		if !single.ReadASN1(&explicit, tagExplicit0) || !readTime(&explicit, &s.NextUpdate) || !explicit.Empty() {
			return errors.New("reading answer: not a nextUpdate")
		}
	}
	if single.Empty() {
		return nil
	}
	if !single.ReadASN1(&explicit, tagExplicit1) || !single.Empty() {
		return errors.New("reading answer: unexpected data at the end")
	}
	_, err := readExtensions(explicit)
	return err
}

// readTime reads a GeneralizedTime in UTC, with seconds and without a fraction
// (RFC 5280, Section 4.1.2.5.2).
func readTime(s *cryptobyte.String, t *time.Time) bool {
	peek := *s
	var text cryptobyte.String
	if !peek.ReadASN1(&text, cbasn1.GeneralizedTime) || len(text) != len("20060102150405Z") || text[14] != 'Z' {
		return false
	}
	return s.ReadASN1GeneralizedTime(t)
}

// Find returns the answer for the certificate that id names, or nil.
func (r *Response) Find(id CertID) *SingleResponse {
	for i := range r.Responses {
		if r.Responses[i].ID.equal(&id) {
			return &r.Responses[i]
		}
	}
	return nil
}

// CheckSignature checks that the response was signed by the CA whose certificate
// is given, or by a responder that this CA itself certified for the purpose, valid
// at now (RFC 6960, Section 4.2.2.2). It judges neither freshness nor nonce, nor
// whether the answers are of this CA: Find with a CertID of the CA does.
func (r *Response) CheckSignature(issuer []byte, now time.Time) error {
	algorithm, err := signatureAlgorithm(r.Algorithm)
	if err != nil {
		return fmt.Errorf("checking OCSP response: %w", err)
	}
	ca, err := x509.ParseCertificate(issuer)
	if err != nil {
		return fmt.Errorf("checking OCSP response: parsing issuer certificate: %w", err)
	}
	signer := ca
	if !r.signedBy(ca) {
		if signer, err = r.delegate(ca, now); err != nil {
			return fmt.Errorf("checking OCSP response: %w", err)
		}
	}
	if err := signer.CheckSignature(algorithm, r.TBS, r.Signature); err != nil {
		return fmt.Errorf("checking OCSP response: %w", err)
	}
	return nil
}

// signedBy reports whether the response names the certificate's holder as its
// signer.
func (r *Response) signedBy(cert *x509.Certificate) bool {
	if r.ResponderName != nil {
		return bytes.Equal(r.ResponderName, cert.RawSubject)
	}
	hash, err := keyHash(cert)
	return err == nil && bytes.Equal(hash, r.Responder)
}

// delegate finds the certificate of the responder that the response names and
// that the CA authorised.
func (r *Response) delegate(ca *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	for _, der := range r.Certificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil || !r.signedBy(cert) {
			continue
		}
		switch {
		case !bytes.Equal(cert.RawIssuer, ca.RawSubject) || cert.CheckSignatureFrom(ca) != nil:
			return nil, errors.New("the responder's certificate was not issued by the CA itself")
		case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, errors.New("the responder's certificate is not for OCSP signing")
		case has(cert, oid.ExtKeyUsage) && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
			return nil, errors.New("the responder's key may not sign")
		case now.Before(cert.NotBefore) || now.After(cert.NotAfter):
			return nil, fmt.Errorf("the responder's certificate is valid from %s to %s, not at %s",
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		case !has(cert, oid.OCSPNoCheck):
			// Looking its status up would lead back to the same responder.
			return nil, errors.New("the responder's certificate lacks id-pkix-ocsp-nocheck")
		case len(cert.UnhandledCriticalExtensions) > 0:
			return nil, fmt.Errorf("the responder's certificate has an unknown critical extension %v", cert.UnhandledCriticalExtensions[0])
		}
		return cert, nil
	}
	return nil, errors.New("signed neither by the CA nor by a responder whose certificate is with the response")
}

// has reports whether a certificate has an extension, whatever it holds.
func has(cert *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(id) {
			return true
		}
	}
	return false
}

// signatureAlgorithm names the algorithms that a response may be signed with;
// SHA-1 is not among them.
func signatureAlgorithm(der []byte) (x509.SignatureAlgorithm, error) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	if !input.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) || !readNullOrNothing(&seq) {
		return 0, errors.New("reading signature algorithm: unknown form")
	}
	switch {
	case id.Equal(oid.SignatureECDSASHA256):
		return x509.ECDSAWithSHA256, nil
	case id.Equal(oid.SignatureECDSASHA384):
		return x509.ECDSAWithSHA384, nil
	case id.Equal(oid.SignatureECDSASHA512):
		return x509.ECDSAWithSHA512, nil
	case id.Equal(oid.SignatureRSASHA256):
		return x509.SHA256WithRSA, nil
	case id.Equal(oid.SignatureRSASHA384):
		return x509.SHA384WithRSA, nil
	case id.Equal(oid.SignatureRSASHA512):
		return x509.SHA512WithRSA, nil
	}
	return 0, fmt.Errorf("signature algorithm %v is not accepted", id)
}
