package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

var (
	ErrWrongPIN    = errors.New("the token refuses the PIN")
	ErrTokenGone   = errors.New("the token is not there")
	ErrKeyNotFound = errors.New("the token holds no such key")
	ErrKeyExists   = errors.New("the token holds a key with this label already")
	ErrBusy        = errors.New("every session of the token is in use")
	ErrClosed      = errors.New("the token was closed")
	ErrBlob        = errors.New("the wrapped key does not open")
)

// errLost says that a connection is dead although no return value said so, for
// instance because the key search came back empty on a token that lost its login.
var errLost = errors.New("the connection to the token is lost")

// errDead says that a connection was lost before the operation had begun.
var errDead = errors.New("the connection to the token was lost")

// problem is an error whose remedy is kept apart, so that Doctor can show the
// two in two columns.
type problem struct {
	err    error
	remedy string
}

func (p *problem) Error() string { return p.err.Error() + "; " + p.remedy }
func (p *problem) Unwrap() error { return p.err }

func remedied(remedy, format string, args ...any) error {
	return &problem{err: fmt.Errorf(format, args...), remedy: remedy}
}

// lost reports whether err means that the connection must be made anew.
// CKR_GENERAL_ERROR is not among these: tokens return it for a request that they
// merely refuse, and a reconnect would turn that into stale handles everywhere.
func lost(err error) bool {
	if errors.Is(err, errLost) {
		return true
	}
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED,
		pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_USER_NOT_LOGGED_IN:
		return true
	}
	return false
}

// stale reports whether err means that an object handle no longer points at its
// object. The key is searched again first; only when it is not found on a token
// that is not well, the connection counts as lost.
func stale(err error) bool {
	return is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) || is(err, pkcs11.CKR_KEY_HANDLE_INVALID) ||
		is(err, pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID) || is(err, pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID)
}

// refusedPIN reports whether err means that the PIN itself was not accepted.
func refusedPIN(err error) bool {
	return is(err, pkcs11.CKR_PIN_INCORRECT) || is(err, pkcs11.CKR_PIN_LOCKED) || is(err, pkcs11.CKR_PIN_INVALID) ||
		is(err, pkcs11.CKR_PIN_LEN_RANGE) || is(err, pkcs11.CKR_PIN_EXPIRED)
}

func is(err error, code uint) bool {
	var got pkcs11.Error
	return errors.As(err, &got) && uint(got) == code
}

// failed names the PKCS#11 function in its error.
func failed(function string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", function, err)
}
