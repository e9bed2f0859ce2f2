// Package path says whether a certificate may be relied on, and if not, why: the
// path validation of RFC 5280, Section 6.1, and the revocation checks of its
// Section 6.3.
//
// It is given everything (anchors, certificates, lists, OCSP answers, the time) and
// asks no network. It builds the paths itself, among certificates that nobody
// trusts, within fixed bounds. crypto/x509 reads single certificates and computes
// signatures; its Verify is not asked.
//
// The package fails closed. What it does not know, cannot read, or would have to
// guess is "invalid" with that reason: unknown critical extensions, DSA, MD5, SHA-1
// unless it is asked for, short keys, name forms that it cannot compare under a
// constraint, and a status that nothing fresh settles. Sizes are looked at before
// anything is parsed.
//
// Where RFC 5280 leaves a choice it takes the narrower one: the anchor's own limits
// count (RFC 5937), extended key usages narrow from the top to the bottom, and a
// revocation from any source outweighs "good" from another. Policies are computed
// by the graph of RFC 9618, which gives the answers of the tree of RFC 5280 without
// its growth.
package path

import (
	"context"
	"io"
	"time"
)

// Limits of one request. What is larger is refused before it is read.
const (
	MaxCertificate   = 64 << 10 // octets
	MaxIntermediates = 64
	MaxAnchors       = 1024
	MaxLists         = 64
	MaxList          = 1 << 30 // octets; lists are read as streams
	MaxAnswers       = 64
	MaxAnswer        = 64 << 10 // octets of an OCSP answer
	MaxPolicies      = 256
	maxPath          = 16   // certificates below the anchor
	maxPaths         = 64   // whole paths that are tried
	maxSteps         = 4096 // certificates looked at while paths are built
	maxSignatures    = 512  // signatures computed
	maxComparisons   = 1 << 18
)

// skew is how far the clock of whoever signed a status may be ahead.
const skew = 5 * time.Minute

// Request is one question: may this certificate be relied on?
type Request struct {
	Certificate   []byte      // DER: the one in question
	Intermediates [][]byte    // DER, in any order; nobody trusts them
	Anchors       [][]byte    // DER; trusted
	CRLs          []io.Reader // DER; each is read once, to its end
	OCSP          [][]byte    // DER of OCSPResponses
	Time          time.Time   // as of when; zero means now

	Purpose string // a name of Purposes, a dotted extended key usage, or "" for any
	Name    string // DNS name, IP address or mailbox that it must bear; "" for any

	// The user's policies (RFC 5280, Section 6.1.1 (c), (e), (f), (g)).
	Policies       []string // dotted; none means any
	ExplicitPolicy bool     // a policy is demanded; without it a path without any policy is valid, whatever Policies say
	InhibitMapping bool
	InhibitAny     bool

	NoStatus bool          // do not ask whether anything is revoked
	MaxAge   time.Duration // of a list or an OCSP answer, since its thisUpdate; 0: until its nextUpdate
	SHA1     bool          // accept certificates that were signed with SHA-1
}

// Answer is Valid, or says why not.
type Answer struct {
	Valid    bool      `json:"valid"`
	Time     time.Time `json:"time"`
	Reason   *Fault    `json:"reason,omitempty"`   // set exactly when it is not valid
	Path     []Link    `json:"path,omitempty"`     // the certificate first, the anchor last; the nearest one when it is not valid
	Policies []string  `json:"policies,omitempty"` // that hold for the path (RFC 5280, Section 6.1.6); 2.5.29.32.0 is any
}

// Fault is a reason.
type Fault struct {
	ID          string `json:"id"`                    // stable; the list is Reasons
	Detail      string `json:"detail"`                // for people
	RFC         string `json:"rfc"`                   // the clause
	Certificate string `json:"certificate,omitempty"` // subject of the certificate that it is about
	Serial      string `json:"serial,omitempty"`      // and its serial number, hexadecimal
	SHA256      string `json:"sha256,omitempty"`      // and the hash of the whole certificate
}

func (f *Fault) Error() string {
	s := f.ID + ": " + f.Detail
	if f.Certificate != "" {
		s += " (" + f.Certificate + ")"
	}
	return s
}

// Link is one certificate of a path.
type Link struct {
	Subject string    `json:"subject"`
	Serial  string    `json:"serial"`
	SHA256  string    `json:"sha256"`
	Source  string    `json:"source,omitempty"` // "crl" or "ocsp" where its status was found good, "anchor" for the anchor
	AsOf    time.Time `json:"asOf,omitzero"`    // of that status
}

// Validate answers. It never panics, whatever it is given, and its work is bounded
// whatever the certificates say; only the length of the lists adds to it. When ctx
// ends, so does the work, and the answer is not valid.
func Validate(ctx context.Context, r *Request) Answer {
	now := r.Time
	if now.IsZero() {
		now = time.Now()
	}
	now = now.UTC().Truncate(time.Second)
	j := &judge{ctx: ctx, r: r, now: now, comparisons: maxComparisons}
	answer := j.judge()
	answer.Time = now
	return answer
}
