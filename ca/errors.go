package ca

import (
	"fmt"

	"hufu/store"
)

// RequestError tells what is wrong with a request before any rule of policy
// was asked.
type RequestError struct {
	Problem string // stable: "request-size", "request-syntax", "request-signature", "request-ca", "request-key", "request-order"
	Detail  string
	Remedy  string
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("the request is refused (%s): %s; %s", e.Problem, e.Detail, e.Remedy)
}

// KeyTakenError says that a key already belongs to another certificate line.
type KeyTakenError struct {
	SPKI store.Hash
	Line string // the line that holds the key
}

func (e *KeyTakenError) Error() string {
	return fmt.Sprintf("the public key %s already belongs to certificate line %s; make a new key pair, or renew that line", e.SPKI, e.Line)
}

// IdempotencyError says that an idempotency key was used before for another
// order.
type IdempotencyError struct {
	Key string
}

func (e *IdempotencyError) Error() string {
	return fmt.Sprintf("the idempotency key %q was used for a different order; use a new key for a new order", e.Key)
}

// StateError says that a certificate's present state does not allow a change.
type StateError struct {
	Ref   Ref
	State store.State // the present state
	Want  string      // what was asked: "suspend", "resume", "revoke"
}

func (e *StateError) Error() string {
	return fmt.Sprintf("cannot %s certificate %s of %s: it is %s", e.Want, e.Ref.Serial, e.Ref.CA, e.State)
}

// CAError says that a CA cannot issue here.
type CAError struct {
	CA     string
	Detail string
	Remedy string
}

func (e *CAError) Error() string {
	return fmt.Sprintf("CA %q: %s; %s", e.CA, e.Detail, e.Remedy)
}
