package verify

import (
	"context"

	"hufu/internal/oid"
)

// Enrolment is what a reader signs to be given a pair of certificates: at first
// with its device key, and for a renewal with its present signing key.
type Enrolment struct {
	Session   string // 32 hexadecimal digits, chosen by the node
	Challenge []byte // 32 octets, chosen by the node
	Number    string
	City      string
	Firmware  string
	CSR       []byte // PKCS #10 of the new signing key, with oid.EncryptionKey or oid.TransportKey
}

func (e *Enrolment) fields(c *coder) {
	c.id("session", &e.Session, 16)
	c.octets("challenge", &e.Challenge, 32, 32)
	c.readerNumber(&e.Number)
	c.city("city", &e.City)
	c.words("firmware", &e.Firmware, 1, 64)
	c.octets("certificate request", &e.CSR, 1, 16<<10)
}

// Marshal encodes the enrolment as DER.
func (e *Enrolment) Marshal() ([]byte, error) { return encode("the enrolment", e) }

// ParseEnrolment reads what Marshal wrote, and nothing else.
func ParseEnrolment(der []byte) (*Enrolment, error) { return parse[Enrolment]("the enrolment", der) }

// Enrolment verifies a reader's enrolment: all that EnrolmentFile does, and the
// status of its signer.
func (v *Verifier) Enrolment(ctx context.Context, der []byte) (*Enrolment, *Message, error) {
	e, m, err := v.EnrolmentFile(der)
	if err != nil {
		return nil, nil, err
	}
	if m.Evidence, err = v.CheckStatus(ctx, m.Signer); err != nil {
		return nil, nil, err
	}
	return e, m, nil
}

// EnrolmentFile verifies an enrolment but for the status of its signer: the signer
// is the reader itself, by its device certificate, whose City is empty, or by the
// signing certificate that it has. Whether the challenge is the session's, whether
// the CSR's own signature fits and whether the device certificate is the ticket's
// tells the caller. Without a line to the centre the ticket vouches for the device.
func (v *Verifier) EnrolmentFile(der []byte) (*Enrolment, *Message, error) {
	m, err := v.signed(der, v.MaxMessage, nil, oid.ContentEnrolment, Device, ReaderSigning)
	if err != nil {
		return nil, nil, err
	}
	e, err := ParseEnrolment(m.Content)
	if err != nil {
		return nil, nil, err
	}
	all := []comparison{{"reader of the enrolment", m.Signer.Reader, e.Number}}
	if m.Signer.City != "" {
		all = append(all, comparison{"city of the enrolment", m.Signer.City, e.City})
	}
	if err := firstMismatch(all); err != nil {
		return nil, nil, err
	}
	return e, m, nil
}
