// Package policy says what Hufu will certify and who may ask for it: profiles,
// rules, key quality, names and rights, all as values.
//
// Everything here is pure: no clock, no file, no key, no network. Rules are
// judged over the bytes that will exist, parsed anew by this package's own
// reader (Parse), never over the structures that the bytes were made from. A
// rule that was not met is a *Violation, which names the rule and the clause.
//
// The package refuses: extensions that a profile does not list, CA certificates
// from any but the two CA profiles, names outside the form of the profile, keys
// of a kind, size or making that is known to be weak, and every operation that
// the rights table does not grant.
//
// It follows RFC 5280 (certificates), RFC 5480 and RFC 8813 (elliptic curve
// keys), RFC 8017 (RSA), RFC 6960 (responder certificates) and X.690 (DER).
package policy

import "fmt"

// A Rule is one thing that must hold of a certificate.
type Rule struct {
	ID       string
	Citation string
	Applies  func(*Subject) bool   // nil = always
	Check    func(*Subject) string // "" = fits, else what does not
}

// A Violation is a rule that was not met.
type Violation struct {
	Rule     string
	Citation string
	Detail   string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("rule %s is not met: %s (%s)", v.Rule, v.Detail, v.Citation)
}

// Judge holds s against the rules in order and returns the first *Violation.
func Judge(rules []Rule, s *Subject) error {
	for i := range rules {
		r := &rules[i]
		if r.Applies != nil && !r.Applies(s) {
			continue
		}
		if detail := r.Check(s); detail != "" {
			return &Violation{Rule: r.ID, Citation: r.Citation, Detail: detail}
		}
	}
	return nil
}
