package hsm

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// InitToken initialises a free token and sets its user PIN; it returns the serial that
// the token gave itself. It never initialises one that is in use, and refuses a label
// that another token bears.
func InitToken(module, label string, soPIN, pin []byte) (serial string, err error) {
	if label == "" || len(label) > 32 {
		return "", errors.New("initialising a token: its label has 1 to 32 bytes")
	}
	if len(soPIN) == 0 || len(pin) == 0 {
		return "", errors.New("initialising a token: it needs a security officer's PIN and a user's PIN")
	}
	m, err := loadModule(module)
	if err != nil {
		return "", err
	}
	defer m.release()
	if err := m.enter(context.Background()); err != nil {
		return "", err
	}
	defer m.leave()
	serial, err = m.initToken(label, soPIN, pin)
	if err != nil {
		return "", fmt.Errorf("initialising the token %q: %w", label, err)
	}
	return serial, nil
}

func (m *module) initToken(label string, soPIN, pin []byte) (string, error) {
	tokens, err := m.tokens()
	if err != nil {
		return "", err
	}
	for _, p := range tokens {
		if p.info.Label == label {
			return "", fmt.Errorf("a token with this label is there already (serial %s)", p.info.SerialNumber)
		}
	}
	slot, err := m.freeSlot()
	if err != nil {
		return "", err
	}
	if err := m.ctx.InitToken(slot, view(soPIN), label); err != nil {
		return "", failed("C_InitToken", err)
	}
	info, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return "", failed("C_GetTokenInfo", err)
	}
	s, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return "", failed("C_OpenSession", err)
	}
	defer m.ctx.CloseSession(s) // logs out, being the last
	if err := m.ctx.Login(s, pkcs11.CKU_SO, view(soPIN)); err != nil {
		return "", failed("C_Login", err)
	}
	return info.SerialNumber, failed("C_InitPIN", m.ctx.InitPIN(s, view(pin)))
}

func (m *module) freeSlot() (uint, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, failed("C_GetSlotList", err)
	}
	for _, slot := range slots {
		if info, err := m.ctx.GetTokenInfo(slot); err == nil && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			return slot, nil
		}
	}
	return 0, errors.New("the module shows no free token")
}

// view shows a PIN as the string that the library wrapper wants, without a Go copy that
// could not be wiped. The wrapper and the library make their own for the call.
func view(pin []byte) string { return unsafe.String(unsafe.SliceData(pin), len(pin)) }
