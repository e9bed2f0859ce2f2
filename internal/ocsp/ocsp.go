// Package ocsp reads and writes OCSP requests and responses (RFC 6960, RFC 9919,
// RFC 9654).
//
// It is a codec: it holds no key, asks no network and decides no status. The
// server's half is ParseRequest, ResponseData.Marshal, Assemble and
// ErrorResponse; the client's half is MakeRequest, ParseResponse and
// Response.CheckSignature.
package ocsp

import (
	"crypto"
	"errors"
	"time"
)

// MaxRequest is the largest request that ParseRequest reads.
const MaxRequest = 16 << 10

// MaxSerials is the largest number of certificates asked for in one request.
const MaxSerials = 64

// MaxNonce is the largest nonce (RFC 9654, Section 2.1).
const MaxNonce = 128

var errNotBuilt = errors.New("ocsp: not built yet")

// CertID names one certificate: the hashes of its issuer's name and key, and its
// serial number (RFC 6960, Section 4.1.1).
type CertID struct {
	Hash   crypto.Hash // SHA1 or SHA256; 0 when the request names another one
	Name   []byte      // hash of the issuer's distinguished name
	Key    []byte      // hash of the issuer's public key bits
	Serial []byte      // content octets of the INTEGER
	Raw    []byte      // the DER as received, echoed in the response; nil = encoded anew
}

// Issuer is a CA as requests name it: its hashes, ready made.
type Issuer struct {
	sha1, sha256 struct{ name, key []byte }
}

// NewIssuer computes the hashes of a CA certificate.
func NewIssuer(certificate []byte) (*Issuer, error) { return nil, errNotBuilt }

// CertID names a certificate of this issuer. Hash is SHA1 or SHA256.
func (i *Issuer) CertID(hash crypto.Hash, serial []byte) CertID { return CertID{} }

// Issued reports whether id names a certificate of this issuer.
func (i *Issuer) Issued(id *CertID) bool { return false }

// Request is what a client asks. Its slices lie in the bytes that were parsed.
type Request struct {
	IDs   []CertID
	Nonce []byte // nil when the request carries none
}

// ParseRequest reads a request. Anything that it refuses is malformedRequest.
func ParseRequest(der []byte) (*Request, error) { return nil, errNotBuilt }

// MakeRequest builds an unsigned request. A nil nonce leaves it out.
func MakeRequest(nonce []byte, ids ...CertID) ([]byte, error) { return nil, errNotBuilt }

// Status is what a response says of one certificate.
type Status uint8

// The three answers (RFC 6960, Section 2.2).
const (
	Good Status = iota
	Revoked
	Unknown
)

// SingleResponse is the answer for one certificate.
type SingleResponse struct {
	ID         CertID
	Status     Status
	RevokedAt  time.Time // for Revoked
	Reason     int       // for Revoked; 0 (unspecified) is left out
	ThisUpdate time.Time
	NextUpdate time.Time
}

// ResponseData is the signed part of a response (RFC 6960, Section 4.2.1).
type ResponseData struct {
	Responder  []byte // SHA-1 of the responder's public key bits: byKey. issuance fills it in
	ProducedAt time.Time
	Responses  []SingleResponse
	Nonce      []byte // nil leaves it out
}

// Marshal encodes the bytes that are signed.
func (d *ResponseData) Marshal() ([]byte, error) { return nil, errNotBuilt }

// KeyHash is the SHA-1 of a certificate's public key bits, by which a
// responder names itself.
func KeyHash(certificate []byte) ([]byte, error) { return nil, errNotBuilt }

// Assemble wraps signed data into a successful OCSPResponse. algorithm is the DER
// of the signature's AlgorithmIdentifier; certificates are DER, the delegated
// responder's first, none where the CA signed itself.
func Assemble(tbs, algorithm, signature []byte, certificates [][]byte) ([]byte, error) {
	return nil, errNotBuilt
}

// ResponseStatus is the outermost, unsigned status (RFC 6960, Section 4.2.1).
type ResponseStatus uint8

// The values of OCSPResponseStatus.
const (
	Successful       ResponseStatus = 0
	MalformedRequest ResponseStatus = 1
	InternalError    ResponseStatus = 2
	TryLater         ResponseStatus = 3
	SigRequired      ResponseStatus = 5
	Unauthorized     ResponseStatus = 6
)

// ErrorResponse is the whole, unsigned response for a status other than
// Successful. The caller must not change the bytes.
func ErrorResponse(s ResponseStatus) []byte { return nil }

// ResponseError is an unsuccessful response.
type ResponseError struct{ Status ResponseStatus }

func (e *ResponseError) Error() string { return "ocsp: responder answered" }

// Response is a successful response as a client reads it.
type Response struct {
	ResponseData
	ResponderName []byte // DER of the name where the responder is named byName
	TBS           []byte
	Algorithm     []byte // DER of the AlgorithmIdentifier
	Signature     []byte
	Certificates  [][]byte
}

// ParseResponse reads a response of at most max bytes. An unsuccessful one is a
// *ResponseError.
func ParseResponse(der []byte, max int) (*Response, error) { return nil, errNotBuilt }

// Find returns the answer for the certificate that id names, or nil.
func (r *Response) Find(id CertID) *SingleResponse { return nil }

// CheckSignature checks that the response was signed by the CA whose certificate
// is given, or by a responder that this CA itself certified for the purpose,
// valid at now. It judges neither freshness nor nonce.
func (r *Response) CheckSignature(issuer []byte, now time.Time) error { return errNotBuilt }
