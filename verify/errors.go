package verify

import (
	"fmt"
	"time"
)

// Half is one half of the tally.
type Half string

// The two halves.
const (
	Presented Half = "presented" // what the other side brought: the message and its certificates
	Kept      Half = "kept"      // what we hold against it: status, agreements, the ledger
)

// Misfit is a refusal: it says which half did not fit.
type Misfit interface {
	error
	Half() Half
}

// SizeError says that something is larger than its limit. Nothing of it was read.
type SizeError struct {
	What      string
	Size, Max int
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s is too large: %d, at most %d", e.What, e.Size, e.Max)
}

// Half returns Presented.
func (e *SizeError) Half() Half { return Presented }

// FormError says that something is not the DER that it should be.
type FormError struct {
	What string
	Err  error
}

func (e *FormError) Error() string { return fmt.Sprintf("reading %s: %v", e.What, e.Err) }

// Unwrap returns the parser's error.
func (e *FormError) Unwrap() error { return e.Err }

// Half returns Presented.
func (e *FormError) Half() Half { return Presented }

// ChainError says that a certificate does not lead to one of our anchors.
type ChainError struct {
	Subject string
	Err     error
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("the certificate of %s does not lead to a root that is trusted here: %v", e.Subject, e.Err)
}

// Unwrap returns the path builder's error.
func (e *ChainError) Unwrap() error { return e.Err }

// Half returns Presented.
func (e *ChainError) Half() Half { return Presented }

// ValidityError says that a certificate is used outside its time.
type ValidityError struct {
	Subject                  string
	NotBefore, NotAfter, Now time.Time
}

func (e *ValidityError) Error() string {
	if e.Now.Before(e.NotBefore) {
		return fmt.Sprintf("the certificate of %s is not valid before %s: check the clocks", e.Subject, stamp(e.NotBefore))
	}
	return fmt.Sprintf("the certificate of %s ended at %s: renew it", e.Subject, stamp(e.NotAfter))
}

// Half returns Presented.
func (e *ValidityError) Half() Half { return Presented }

// NameError says that a name is not one that the issuer may give, or not one for
// the purpose.
type NameError struct{ Subject, Detail string }

func (e *NameError) Error() string {
	return fmt.Sprintf("the names of %s do not fit: %s", e.Subject, e.Detail)
}

// Half returns Presented.
func (e *NameError) Half() Half { return Presented }

// PolicyError says that the certificate policy is not the one for the purpose.
type PolicyError struct{ Subject, Detail string }

func (e *PolicyError) Error() string {
	return fmt.Sprintf("the policy of %s does not fit: %s", e.Subject, e.Detail)
}

// Half returns Presented.
func (e *PolicyError) Half() Half { return Presented }

// PurposeError says that a certificate is not for this use.
type PurposeError struct{ Subject, Detail string }

func (e *PurposeError) Error() string {
	return fmt.Sprintf("the certificate of %s is for something else: %s", e.Subject, e.Detail)
}

// Half returns Presented.
func (e *PurposeError) Half() Half { return Presented }

// SignatureError says that a signature is not the signer's over this content.
type SignatureError struct {
	Subject string
	Err     error
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("the signature of %s does not fit: %v", e.Subject, e.Err)
}

// Unwrap returns the cause.
func (e *SignatureError) Unwrap() error { return e.Err }

// Half returns Presented.
func (e *SignatureError) Half() Half { return Presented }

// PairError says that two certificates are not one reader's pair.
type PairError struct{ Subject, Detail string }

func (e *PairError) Error() string {
	return fmt.Sprintf("the certificates of %s are not a pair: %s", e.Subject, e.Detail)
}

// Half returns Presented.
func (e *PairError) Half() Half { return Presented }

// MismatchError says that a field contradicts who signed it, or what it answers.
type MismatchError struct{ Field, Want, Have string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("the %s does not fit: it is %q and should be %q", e.Field, e.Have, e.Want)
}

// Half returns Presented.
func (e *MismatchError) Half() Half { return Presented }

// ExpiredError says that a message came too late.
type ExpiredError struct {
	What        string
	Expiry, Now time.Time
}

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("%s ended at %s and it is %s: begin anew", e.What, stamp(e.Expiry), stamp(e.Now))
}

// Half returns Presented.
func (e *ExpiredError) Half() Half { return Presented }

// RevokedError says that a certificate is revoked.
type RevokedError struct {
	Subject  string
	Evidence Evidence
}

func (e *RevokedError) Error() string {
	return fmt.Sprintf("the certificate of %s was revoked at %s (reason %d), says %v: it stays refused",
		e.Subject, stamp(e.Evidence.Since), e.Evidence.Reason, e.Evidence)
}

// Half returns Kept.
func (e *RevokedError) Half() Half { return Kept }

// HeldError says that a certificate is on hold.
type HeldError struct {
	Subject  string
	Evidence Evidence
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("the certificate of %s is on hold since %s, says %v: have it resumed", e.Subject, stamp(e.Evidence.Since), e.Evidence)
}

// Half returns Kept.
func (e *HeldError) Half() Half { return Kept }

// UnknownError says that the CA knows of no such certificate, although it bears
// the CA's signature.
type UnknownError struct {
	Subject  string
	Evidence Evidence
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the certificate of %s is not one that its CA has on record, says %v: report it to the CA", e.Subject, e.Evidence)
}

// Half returns Kept.
func (e *UnknownError) Half() Half { return Kept }

// StaleError says that no fresh status could be had.
type StaleError struct {
	Subject  string
	Evidence Evidence // the best that was found, if any
	Err      error
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("the status of %s cannot be told, so it is refused: %v", e.Subject, e.Err)
}

// Unwrap returns the cause.
func (e *StaleError) Unwrap() error { return e.Err }

// Half returns Kept.
func (e *StaleError) Half() Half { return Kept }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
