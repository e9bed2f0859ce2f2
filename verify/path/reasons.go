package path

import "fmt"

// The identifiers of reasons. They do not change.
const (
	BadRequest       = "bad-request"
	TooLarge         = "too-large"
	TooComplex       = "too-complex"
	Interrupted      = "interrupted"
	Unreadable       = "unreadable"
	NoAnchor         = "no-anchor"
	NoIssuer         = "no-issuer"
	Signature        = "signature"
	Algorithm        = "algorithm"
	Key              = "key"
	NotYetValid      = "not-yet-valid"
	Expired          = "expired"
	NotPermitted     = "name-not-permitted"
	Excluded         = "name-excluded"
	NameForm         = "name-form"
	Policy           = "policy"
	PolicyMapping    = "policy-mapping"
	NotCA            = "not-a-ca"
	PathLength       = "path-length"
	KeyUsage         = "key-usage"
	Critical         = "critical-extension"
	Purpose          = "purpose"
	NameMismatch     = "name-mismatch"
	Revoked          = "revoked"
	OnHold           = "on-hold"
	StatusUnknown    = "status-unknown"
	StatusStale      = "status-stale"
	StatusUnreadable = "status-unreadable"
)

// Reasons lists every identifier in the order in which the checks are made, with
// the clause and what it means.
var Reasons = []struct{ ID, RFC, Words string }{
	{BadRequest, "", "the question itself is wrong"},
	{Interrupted, "", "the work was stopped before it ended"},
	{TooLarge, "", "something is larger than what is read here"},
	{TooComplex, "", "deciding would take more work than is done here"},
	{Unreadable, "RFC 5280, Section 4.1", "a certificate is not of the form that RFC 5280 gives it, or uses one that is not supported"},
	{NoAnchor, "RFC 5280, Section 6.1.1", "no trust anchor was given"},
	{NoIssuer, "RFC 5280, Section 6.1", "no given certificate bears the issuer's name, so no path leads to an anchor"},
	{Algorithm, "RFC 5280, Section 6.1.3 (a)(1)", "a signature algorithm is not accepted"},
	{Key, "RFC 5280, Section 6.1.4 (d)", "a public key is too short or of a kind that is not accepted"},
	{Signature, "RFC 5280, Section 6.1.3 (a)(1)", "a signature was not made with the issuer's key"},
	{NotYetValid, "RFC 5280, Section 6.1.3 (a)(2)", "a certificate is not valid yet"},
	{Expired, "RFC 5280, Section 6.1.3 (a)(2)", "a certificate has ended"},
	{NotPermitted, "RFC 5280, Section 6.1.3 (b)", "a name is not among those that a CA above may certify"},
	{Excluded, "RFC 5280, Section 6.1.3 (c)", "a name is among those that a CA above must not certify"},
	{NameForm, "RFC 5280, Section 4.2.1.10", "a name cannot be compared with a constraint that applies to it"},
	{Policy, "RFC 5280, Section 6.1.3 (f)", "no certificate policy that is acceptable holds for the whole path"},
	{PolicyMapping, "RFC 5280, Section 6.1.4 (a)", "a policy is mapped from or to anyPolicy"},
	{NotCA, "RFC 5280, Section 6.1.4 (k)", "an issuer is not a CA"},
	{PathLength, "RFC 5280, Section 6.1.4 (l)", "more CAs follow than a CA allows"},
	{KeyUsage, "RFC 5280, Section 6.1.4 (n)", "the key of an issuer may not sign certificates"},
	{Critical, "RFC 5280, Section 4.2", "a critical extension is not known here"},
	{Purpose, "RFC 5280, Section 4.2.1.12", "the certificate is not for this purpose"},
	{NameMismatch, "RFC 9525, Section 6", "the certificate does not bear this name"},
	{Revoked, "RFC 5280, Section 6.3.3", "a certificate is revoked"},
	{OnHold, "RFC 5280, Section 5.3.1", "a certificate is on hold"},
	{StatusUnknown, "RFC 5280, Section 6.3.3", "nothing that was given tells whether a certificate is revoked"},
	{StatusStale, "RFC 5280, Section 6.3.3", "what tells the status of a certificate is too old"},
	{StatusUnreadable, "RFC 5280, Section 5.1", "a list or an OCSP answer cannot be used"},
}

// fault makes a Fault about a certificate, which may be nil.
func fault(id string, c *cert, format string, args ...any) *Fault {
	f := &Fault{ID: id, Detail: fmt.Sprintf(format, args...)}
	for _, r := range Reasons {
		if r.ID == id {
			f.RFC = r.RFC
		}
	}
	if c != nil {
		f.Certificate, f.Serial, f.SHA256 = c.x.Subject.String(), fmt.Sprintf("%x", c.x.SerialNumber), fmt.Sprintf("%x", c.hash)
	}
	return f
}

// per names a more exact clause than the usual one.
func (f *Fault) per(clause string) *Fault {
	f.RFC = clause
	return f
}
