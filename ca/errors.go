package ca

import (
	"fmt"

	"hufu/store"
)

// RequestError tells what is wrong with a request that no rule of policy is
// about. What a rule is about is a *policy.Violation.
type RequestError struct {
	Problem string // stable: "request-order", "request-profile", "request-key", "request-line", "request-time"
	Detail  string
	Remedy  string
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("the request is refused (%s): %s: %s", e.Problem, e.Detail, e.Remedy)
}

// KeyTakenError says that a key already belongs to another certificate line, or
// was revoked as compromised.
type KeyTakenError struct {
	SPKI        store.Hash
	Line        string // the line that holds the key
	Compromised bool
}

func (e *KeyTakenError) Error() string {
	if e.Compromised {
		return fmt.Sprintf("the public key %s was revoked as compromised: make a new key pair", e.SPKI)
	}
	return fmt.Sprintf("the public key %s belongs to another certificate line, %s: make a new key pair, or renew that line", e.SPKI, e.Line)
}

// IdempotencyError says that an idempotency key was used before for another
// order.
type IdempotencyError struct {
	Key string
}

func (e *IdempotencyError) Error() string {
	return fmt.Sprintf("the idempotency key %q was used for a different order: use a new key for a new order", e.Key)
}

// StateError says that a certificate's present state does not allow a change.
type StateError struct {
	Ref   Ref
	State store.State // the present state
	Want  string      // what was asked: "suspend", "resume", "revoke"
}

func (e *StateError) Error() string {
	remedy := "a revocation is final: issue a new certificate"
	switch e.State {
	case store.Good:
		remedy = "only a certificate on hold can be resumed"
	case store.Held:
		remedy = "resume or revoke it"
	}
	return fmt.Sprintf("cannot %s certificate %s of CA %s, it is %s: %s", e.Want, e.Ref.Serial, e.Ref.CA, e.State, remedy)
}

// ReasonError says that a CRLReason cannot be given for a revocation.
type ReasonError struct {
	Reason int
}

func (e *ReasonError) Error() string {
	return fmt.Sprintf("reason %d cannot be given for a revocation (RFC 5280, Section 5.3.1): use 0, 1, 3, 4, 5 or 9; to put a certificate on hold, suspend it", e.Reason)
}

// CAError says that a CA cannot issue here.
type CAError struct {
	CA     string
	Detail string
	Remedy string
}

func (e *CAError) Error() string {
	return fmt.Sprintf("CA %q: %s: %s", e.CA, e.Detail, e.Remedy)
}

// ListError says why a CRL that was signed elsewhere is not taken up.
type ListError struct {
	Detail string
	Remedy string
}

func (e *ListError) Error() string {
	return fmt.Sprintf("the CRL is refused: %s: %s", e.Detail, e.Remedy)
}

// SigningError says that a key could not sign: the request is good, and may be
// made again when the token is well.
type SigningError struct {
	Ref Ref
	Err error
}

func (e *SigningError) Error() string {
	return fmt.Sprintf("signing certificate %s of CA %s: %v: ask again when the token is back", e.Ref.Serial, e.Ref.CA, e.Err)
}

// Unwrap returns the reason.
func (e *SigningError) Unwrap() error { return e.Err }
