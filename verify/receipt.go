package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"hufu/internal/oid"
)

// Receipt is what a reader signs with its new key when it has its pair.
type Receipt struct {
	Session  string
	Number   string
	City     string
	Ticket   string // empty where no ticket brought the reader
	Firmware string
	Time     time.Time // by the reader's clock, or by its host's
	Sign     [32]byte  // SHA-256 of the signing certificate
	Encrypt  [32]byte  // of the encryption certificate
	Device   [32]byte  // of the device certificate; zero where it has none
}

func (r *Receipt) fields(c *coder) {
	c.id("session", &r.Session, 16)
	c.readerNumber(&r.Number)
	c.city("city", &r.City)
	c.id("ticket", &r.Ticket, 0)
	c.words("firmware", &r.Firmware, 1, 64)
	c.time("time", &r.Time)
	c.hash("hash of the signing certificate", &r.Sign)
	c.hash("hash of the encryption certificate", &r.Encrypt)
	c.hash("hash of the device certificate", &r.Device)
}

// Marshal encodes the receipt as DER.
func (r *Receipt) Marshal() ([]byte, error) { return encode("the receipt", r) }

// ParseReceipt reads what Marshal wrote, and nothing else.
func ParseReceipt(der []byte) (*Receipt, error) { return parse[Receipt]("the receipt", der) }

// Receipt verifies a reader's receipt: all that ReceiptFile does, and the status of
// its signer. A certificate on hold is no refusal here, since the receipt is what
// its hold waits for; the Evidence tells. All else than good and on hold is refused.
func (v *Verifier) Receipt(ctx context.Context, der []byte) (*Receipt, *Message, error) {
	r, m, err := v.ReceiptFile(der)
	if err != nil {
		return nil, nil, err
	}
	if m.Evidence, err = v.CheckHeld(ctx, m.Signer); err != nil {
		return nil, nil, err
	}
	return r, m, nil
}

// CheckHeld is CheckStatus for a certificate that may be on hold. The CAs above it
// may not.
func (v *Verifier) CheckHeld(ctx context.Context, c *Cert) (Evidence, error) {
	e, err := v.CheckStatus(ctx, c)
	held, ok := errors.AsType[*HeldError](err)
	if !ok || e.State != OnHold || held.Subject != c.Subject {
		return e, err
	}
	if c.Issuer.Issuer == nil {
		return e, nil
	}
	_, err = v.CheckStatus(ctx, c.Issuer)
	return e, err
}

// ReceiptFile verifies a receipt but for the status of its signer: the signer is
// the reader itself, by the signing certificate that the receipt names. Whether the
// other two certificates and the session fit tells the caller, or ReceiptLine.
func (v *Verifier) ReceiptFile(der []byte) (*Receipt, *Message, error) {
	return v.receipt(der, nil)
}

func (v *Verifier) receipt(der []byte, more [][]byte) (*Receipt, *Message, error) {
	m, err := v.signed(der, v.MaxMessage, more, oid.ContentReceipt, ReaderSigning)
	if err != nil {
		return nil, nil, err
	}
	r, err := ParseReceipt(m.Content)
	if err != nil {
		return nil, nil, err
	}
	if err := firstMismatch([]comparison{
		{"reader of the receipt", m.Signer.Reader, r.Number},
		{"city of the receipt", m.Signer.City, r.City},
		{"signing certificate of the receipt", hex.EncodeToString(m.Signer.Hash[:]), hex.EncodeToString(r.Sign[:])},
	}); err != nil {
		return nil, nil, err
	}
	return r, m, nil
}

// ReceiptLine is one line of a receipts file: a receipt with the certificates that
// it names, so that the centre needs nothing else to judge it.
type ReceiptLine struct {
	Number  string `json:"number"`
	Receipt []byte `json:"receipt"`
	Sign    []byte `json:"sign"`
	Encrypt []byte `json:"encrypt"`
	Device  []byte `json:"device,omitempty"` // none where the receipt names none

	// CAs that the receipt does not carry: the one of the device certificate.
	Chain [][]byte `json:"chain,omitempty"`
}

// Receipted is a receipt whose certificates all fit.
type Receipted struct {
	*Receipt
	Message *Message // Signer is the signing certificate
	Encrypt *Cert
	Device  *Cert // nil where the receipt names none
}

// ReceiptLine verifies a line of a receipts file from the anchors alone. It asks
// for no status.
func (v *Verifier) ReceiptLine(l *ReceiptLine) (*Receipted, error) {
	r, m, err := v.receipt(l.Receipt, l.Chain)
	if err != nil {
		return nil, err
	}
	encrypt, device := sha256.Sum256(l.Encrypt), [32]byte{}
	if len(l.Device) > 0 {
		device = sha256.Sum256(l.Device)
	}
	if err := firstMismatch([]comparison{
		{"number of the line", r.Number, l.Number},
		{"encryption certificate of the line", hex.EncodeToString(r.Encrypt[:]), hex.EncodeToString(encrypt[:])},
		{"device certificate of the line", hex.EncodeToString(r.Device[:]), hex.EncodeToString(device[:])},
	}); err != nil {
		return nil, err
	}
	if !bytes.Equal(l.Sign, m.Signer.DER) {
		return nil, &MismatchError{Field: "signing certificate of the line", Want: hex.EncodeToString(r.Sign[:]), Have: hexSum(l.Sign)}
	}
	c := &Receipted{Receipt: r, Message: m}
	if c.Encrypt, err = v.pairOf(m, l.Encrypt); err != nil {
		return nil, err
	}
	if len(l.Device) == 0 {
		return c, nil
	}
	if c.Device, err = v.Chain(l.Device, m.Certificates, Device); err != nil {
		return nil, err
	}
	if c.Device.Reader != r.Number {
		return nil, &MismatchError{Field: "reader of the device certificate", Want: r.Number, Have: c.Device.Reader}
	}
	return c, nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
