package ocsp

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
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
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagExplicit2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(d.Responder) })
		addTime(b, d.ProducedAt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i := range d.Responses {
				addSingle(b, &d.Responses[i])
			}
		})
		if d.Nonce != nil {
			addNonce(b, tagExplicit1, d.Nonce)
		}
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding OCSP response: %w", err)
	}
	return tbs, nil
}

func addSingle(b *cryptobyte.Builder, s *SingleResponse) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addCertID(b, &s.ID)
		switch s.Status {
		case Good, Unknown:
			b.AddASN1(cbasn1.Tag(s.Status).ContextSpecific(), func(*cryptobyte.Builder) {})
		case Revoked:
			b.AddASN1(tagExplicit1, func(b *cryptobyte.Builder) { // IMPLICIT SEQUENCE
				addTime(b, s.RevokedAt)
				if s.Reason != 0 {
					b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		default:
			b.SetError(fmt.Errorf("encoding answer: no such %v", s.Status))
		}
		addTime(b, s.ThisUpdate)
		if !s.NextUpdate.IsZero() {
			b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { addTime(b, s.NextUpdate) })
		}
	})
}

// addTime writes GeneralizedTime in UTC without a fraction, whatever the year
// (RFC 6960, Section 4.2.2.1; RFC 5280, Section 4.1.2.5.2).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.IsZero() {
		b.SetError(errors.New("encoding time: it is missing"))
		return
	}
	b.AddASN1GeneralizedTime(t.UTC())
}

// Assemble wraps signed data into a successful OCSPResponse. algorithm is the DER
// of the signature's AlgorithmIdentifier; certificates are DER, the delegated
// responder's first, none where the CA signed itself.
func Assemble(tbs, algorithm, signature []byte, certificates [][]byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(Successful))
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid.OCSPBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddBytes(algorithm)
						b.AddASN1BitString(signature)
						if len(certificates) > 0 {
							addCertificates(b, certificates)
						}
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("assembling OCSP response: %w", err)
	}
	return der, nil
}

func addCertificates(b *cryptobyte.Builder, certificates [][]byte) {
	b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, c := range certificates {
				b.AddBytes(c)
			}
		})
	})
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
