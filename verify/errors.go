package verify

import "time"

// Half is one half of the tally.
type Half string

// The two halves.
const (
	Presented Half = "presented" // what the other side brought: the message and its certificates
	Kept      Half = "kept"      // what we hold: status, agreements, the ledger
)

// Misfit is any refusal of this package: it says which half did not fit.
type Misfit interface {
	error
	Half() Half
}

// SizeError says that something is larger than its limit.
type SizeError struct {
	What      string
	Size, Max int
}

func (e *SizeError) Error() string { return "size" }

// Half implements Misfit.
func (e *SizeError) Half() Half { return Presented }

// FormError says that something is not the DER that it should be.
type FormError struct {
	What string
	Err  error
}

func (e *FormError) Error() string { return "form" }

// Unwrap returns the parser's error.
func (e *FormError) Unwrap() error { return e.Err }

// Half implements Misfit.
func (e *FormError) Half() Half { return Presented }

// ChainError says that a certificate does not chain to an anchor.
type ChainError struct {
	Subject string
	Err     error
}

func (e *ChainError) Error() string { return "chain" }

// Unwrap returns the path builder's error.
func (e *ChainError) Unwrap() error { return e.Err }

// Half implements Misfit.
func (e *ChainError) Half() Half { return Presented }

// ValidityError says that a certificate is used outside its time.
type ValidityError struct {
	Subject             string
	NotBefore, NotAfter time.Time
	Now                 time.Time
}

func (e *ValidityError) Error() string { return "validity" }

// Half implements Misfit.
func (e *ValidityError) Half() Half { return Presented }

// NameError says that a name is not one that the issuer may give.
type NameError struct{ Subject, Detail string }

func (e *NameError) Error() string { return "name" }

// Half implements Misfit.
func (e *NameError) Half() Half { return Presented }

// PolicyError says that the certificate policy is not the one for the purpose.
type PolicyError struct{ Subject, Detail string }

func (e *PolicyError) Error() string { return "policy" }

// Half implements Misfit.
func (e *PolicyError) Half() Half { return Presented }

// PurposeError says that a certificate is not for this use.
type PurposeError struct{ Subject, Detail string }

func (e *PurposeError) Error() string { return "purpose" }

// Half implements Misfit.
func (e *PurposeError) Half() Half { return Presented }

// SignatureError says that the signature is not the signer's over this content.
type SignatureError struct {
	Subject string
	Err     error
}

func (e *SignatureError) Error() string { return "signature" }

// Unwrap returns the cause.
func (e *SignatureError) Unwrap() error { return e.Err }

// Half implements Misfit.
func (e *SignatureError) Half() Half { return Presented }

// PairError says that a reader's two certificates do not belong together.
type PairError struct{ Subject, Detail string }

func (e *PairError) Error() string { return "pair" }

// Half implements Misfit.
func (e *PairError) Half() Half { return Presented }

// MismatchError says that a field of a message contradicts what it answers or
// who signed it.
type MismatchError struct{ Field, Want, Have string }

func (e *MismatchError) Error() string { return "mismatch" }

// Half implements Misfit.
func (e *MismatchError) Half() Half { return Presented }

// ExpiredError says that a message is past its expiry.
type ExpiredError struct {
	What        string
	Expiry, Now time.Time
}

func (e *ExpiredError) Error() string { return "expired" }

// Half implements Misfit.
func (e *ExpiredError) Half() Half { return Presented }

// RevokedError says that a certificate is revoked.
type RevokedError struct {
	Subject  string
	Evidence Evidence
}

func (e *RevokedError) Error() string { return "revoked" }

// Half implements Misfit.
func (e *RevokedError) Half() Half { return Kept }

// HeldError says that a certificate is on hold.
type HeldError struct {
	Subject  string
	Evidence Evidence
}

func (e *HeldError) Error() string { return "held" }

// Half implements Misfit.
func (e *HeldError) Half() Half { return Kept }

// UnknownError says that the CA never issued a certificate with this serial.
type UnknownError struct {
	Subject  string
	Evidence Evidence
}

func (e *UnknownError) Error() string { return "unknown" }

// Half implements Misfit.
func (e *UnknownError) Half() Half { return Kept }

// StaleError says that no fresh status could be had.
type StaleError struct {
	Subject  string
	Evidence Evidence // the best that was found
	Err      error
}

func (e *StaleError) Error() string { return "stale" }

// Unwrap returns the cause.
func (e *StaleError) Unwrap() error { return e.Err }

// Half implements Misfit.
func (e *StaleError) Half() Half { return Kept }
