package ocsp

import (
	"errors"
	"fmt"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Status is what a response says of one certificate.
type Status uint8

// The three answers (RFC 6960, Section 2.2).
const (
	Good Status = iota
	Revoked
	Unknown
)

func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// SingleResponse is the answer for one certificate.
type SingleResponse struct {
	ID         CertID
	Status     Status
	RevokedAt  time.Time // for Revoked
	Reason     int       // for Revoked; 0 (unspecified) is left out
	ThisUpdate time.Time
	NextUpdate time.Time // zero is left out
}

// ResponseData is the signed part of a response (RFC 6960, Section 4.2.1).
type ResponseData struct {
	Responder  []byte // SHA-1 of the responder's public key bits (byKey); whoever signs fills it in
	ProducedAt time.Time
	Responses  []SingleResponse
	Nonce      []byte // nil leaves it out
}

// Marshal encodes the bytes that are signed.
func (d *ResponseData) Marshal() ([]byte, error) {
	if len(d.Responder) == 0 || len(d.Responses) == 0 {
		return nil, errors.New("encoding OCSP response: responder or answers are missing")
	}
	w := newBack(128 + len(d.Nonce) + 192*len(d.Responses))
	if d.Nonce != nil {
		w.nonce(tagExplicit1, d.Nonce)
	}
	end := w.end()
	for i := len(d.Responses) - 1; i >= 0; i-- {
		w.single(&d.Responses[i])
	}
	w.header(cbasn1.SEQUENCE, end)
	w.time(d.ProducedAt)
	end = w.end()
	w.value(cbasn1.OCTET_STRING, d.Responder)
	w.header(tagExplicit2, end)
	w.header(cbasn1.SEQUENCE, 0)
	tbs, err := w.bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding OCSP response: %w", err)
	}
	return tbs, nil
}

// single writes a SingleResponse.
func (w *back) single(s *SingleResponse) {
	end := w.end()
	if !s.NextUpdate.IsZero() {
		inner := w.end()
		w.time(s.NextUpdate)
		w.header(tagExplicit0, inner)
	}
	w.time(s.ThisUpdate)
	switch s.Status {
	case Good, Unknown:
		w.value(cbasn1.Tag(s.Status).ContextSpecific(), nil)
	case Revoked:
		inner := w.end()
		switch {
		case s.Reason < 0 || s.Reason > 0x7f:
			w.fail("encoding answer: %d is no CRLReason", s.Reason)
		case s.Reason != 0:
			w.value(cbasn1.ENUM, []byte{byte(s.Reason)})
			w.header(tagExplicit0, inner)
		}
		w.time(s.RevokedAt)
		w.header(tagExplicit1, inner) // IMPLICIT SEQUENCE
	default:
		w.fail("encoding answer: no such %v", s.Status)
	}
	w.certID(&s.ID)
	w.header(cbasn1.SEQUENCE, end)
}

// Assemble wraps signed data into a successful OCSPResponse. algorithm is the DER
// of the signature's AlgorithmIdentifier; certificates are DER, the delegated
// responder's first, none where the CA signed itself. The last of them is the end of
// the response.
func Assemble(tbs, algorithm, signature []byte, certificates ...[]byte) []byte {
	size := 64 + len(tbs) + len(algorithm) + len(signature)
	for _, c := range certificates {
		size += len(c)
	}
	w := newBack(size)
	if len(certificates) > 0 {
		for i := len(certificates) - 1; i >= 0; i-- {
			w.raw(certificates[i])
		}
		w.header(cbasn1.SEQUENCE, 0)
		w.header(tagExplicit0, 0)
	}
	end := w.end()
	w.raw(signature)
	w.octet(0) // no unused bits
	w.header(cbasn1.BIT_STRING, end)
	w.raw(algorithm)
	w.raw(tbs)
	w.header(cbasn1.SEQUENCE, 0)
	w.header(cbasn1.OCTET_STRING, 0)
	w.value(cbasn1.OBJECT_IDENTIFIER, derBasic)
	w.header(cbasn1.SEQUENCE, 0)
	w.header(tagExplicit0, 0)
	w.value(cbasn1.ENUM, []byte{byte(Successful)})
	w.header(cbasn1.SEQUENCE, 0)
	return w.buf[w.at:]
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

func (s ResponseStatus) String() string {
	switch s {
	case Successful:
		return "successful"
	case MalformedRequest:
		return "malformedRequest"
	case InternalError:
		return "internalError"
	case TryLater:
		return "tryLater"
	case SigRequired:
		return "sigRequired"
	case Unauthorized:
		return "unauthorized"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// ErrorResponse is the whole, unsigned response for a status other than
// Successful.
func ErrorResponse(s ResponseStatus) []byte {
	return []byte{0x30, 3, 0x0a, 1, byte(s)}
}
