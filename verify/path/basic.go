package path

import (
	"crypto/x509"
	"slices"
)

// state is the working state of RFC 5280, Section 6.1.2, without the issuer's name
// and key: walk has already held names and signatures against each other.
type state struct {
	graph    policyGraph
	explicit int
	anyLeft  int
	mapping  int
	maxPath  int
	fence    fence
}

// basic is RFC 5280, Section 6.1, from initialisation to wrap-up, for a path whose
// signatures fit, the anchor first. It returns the user-constrained policy set. The
// revocation of Section 6.1.3 (a)(3) is asked for after it.
func (j *judge) basic(path []*cert, policies []string) ([]string, *Fault) {
	n := len(path) - 1
	start := func(set bool) int {
		if set {
			return 0
		}
		return n + 1
	}
	s := &state{
		graph: newPolicyGraph(), explicit: start(j.r.ExplicitPolicy), anyLeft: start(j.r.InhibitAny), mapping: start(j.r.InhibitMapping),
		maxPath: n, fence: fence{left: &j.comparisons},
	}
	if f := s.enter(j, path[0]); f != nil {
		return nil, f
	}
	policies = acceptable(path[0], policies)
	for i, c := range path[1:] {
		last := i+1 == n
		if f := j.sound(c); f != nil {
			return nil, f
		}
		if !c.selfIssued || last { // (b) and (c)
			if f := s.fence.check(c); f != nil {
				return nil, f
			}
		}
		// (d), (e) and (f)
		s.graph = s.graph.grow(c, s.anyLeft > 0 || !last && c.selfIssued)
		if s.explicit == 0 && s.graph == nil {
			return nil, fault(Policy, c, "no policy of the certificates above it holds here, and one is demanded")
		}
		if last {
			break
		}
		if f := s.prepare(c); f != nil {
			return nil, f
		}
	}
	return s.wrapUp(path[n], policies)
}

// enter takes over the anchor's own limits (RFC 5937, Section 3). A certificate
// without extensions has none.
func (s *state) enter(j *judge, a *cert) *Fault {
	if f := j.sound(a); f != nil {
		return f
	}
	if a.x.Version < 3 {
		return nil
	}
	if f := mayIssue(a); f != nil {
		return f
	}
	if a.pathLen != none {
		s.maxPath = min(s.maxPath, a.pathLen)
	}
	s.fence.add(a.constraints)
	narrow(&s.explicit, a.requireExplicit)
	narrow(&s.mapping, a.inhibitMapping)
	narrow(&s.anyLeft, a.inhibitAny)
	return nil
}

// acceptable leaves of the user's policies those of the anchor (RFC 5937, Section
// 3.2); nil is any, an empty list none.
func acceptable(a *cert, policies []string) []string {
	if !a.hasPolicies || slices.Contains(a.policies, anyPolicy) {
		return policies
	}
	if policies == nil {
		return a.policies
	}
	both := []string{}
	for _, p := range policies {
		if slices.Contains(a.policies, p) {
			both = append(both, p)
		}
	}
	return both
}

// sound is what holds for every certificate, whatever its place: it could be read,
// it is of its time, its key is good, and nothing critical in it is unknown (RFC
// 5280, Section 6.1.4 (o) and Section 6.1.5 (f)).
func (j *judge) sound(c *cert) *Fault {
	switch {
	case c.broken != nil:
		return fault(Unreadable, c, "%v", c.broken).per("RFC 5280, Section 4.2")
	case j.now.Before(c.x.NotBefore):
		return fault(NotYetValid, c, "it is valid from %s", stamp(c.x.NotBefore))
	case j.now.After(c.x.NotAfter):
		return fault(Expired, c, "it ended at %s", stamp(c.x.NotAfter))
	case c.unknown != "":
		return fault(Critical, c, "its critical extension %s is not known here", c.unknown)
	}
	return keyFault(c)
}

// mayIssue is RFC 5280, Section 6.1.4 (k) and (n).
func mayIssue(c *cert) *Fault {
	switch {
	case c.x.Version < 3:
		return fault(NotCA, c, "it has version %d and cannot say that it is a CA", c.x.Version)
	case !c.basic || !c.ca:
		return fault(NotCA, c, "it issued another one, and its basic constraints do not say that it is a CA")
	case c.usage && c.x.KeyUsage&x509.KeyUsageCertSign == 0:
		return fault(KeyUsage, c, "its key usage does not hold keyCertSign")
	}
	return nil
}

// prepare is RFC 5280, Section 6.1.4.
func (s *state) prepare(c *cert) *Fault {
	for _, m := range c.mappings { // (a)
		if m.issuer == anyPolicy || m.subject == anyPolicy {
			return fault(PolicyMapping, c, "it maps %s to %s", dotted(m.issuer), dotted(m.subject))
		}
	}
	s.graph = s.graph.mapTo(c.mappings, s.mapping > 0) // (b)
	s.fence.add(c.constraints)                         // (g)
	if !c.selfIssued {                                 // (h)
		for _, left := range []*int{&s.explicit, &s.mapping, &s.anyLeft} {
			*left = max(*left-1, 0)
		}
	}
	narrow(&s.explicit, c.requireExplicit) // (i)
	narrow(&s.mapping, c.inhibitMapping)
	narrow(&s.anyLeft, c.inhibitAny) // (j)
	if f := mayIssue(c); f != nil {  // (k) and (n)
		return f
	}
	if !c.selfIssued { // (l)
		if s.maxPath == 0 {
			return fault(PathLength, c, "a CA above it does not allow this many CAs below itself")
		}
		s.maxPath--
	}
	narrow(&s.maxPath, c.pathLen) // (m)
	return nil
}

func narrow(n *int, to int) {
	if to != none {
		*n = min(*n, to)
	}
}

// wrapUp is RFC 5280, Section 6.1.5.
func (s *state) wrapUp(c *cert, policies []string) ([]string, *Fault) {
	s.explicit = max(s.explicit-1, 0) // (a)
	if c.requireExplicit == 0 {       // (b)
		s.explicit = 0
	}
	held := s.graph.settle(policies) // (g)
	if s.explicit == 0 && len(held) == 0 {
		return nil, fault(Policy, c, "a policy is demanded, and none that is acceptable holds for the whole path").per("RFC 5280, Section 6.1.5 (g)")
	}
	return slices.Clone(held), nil
}
