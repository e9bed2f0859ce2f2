package path

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// judge answers one request.
type judge struct {
	ctx context.Context
	r   *Request
	now time.Time

	target  *cert
	anchors map[string][]*cert // by subject
	pool    map[string][]*cert // what may stand between
	dropped *Fault             // an anchor or an intermediate that could not be read

	lists    []*list
	answers  []*answer
	unusable *Fault // a list or an answer that could not be read

	signed     map[[2]*cert]bool
	steps      int
	paths      int
	signatures int

	comparisons int // of names that are left
}

// spent reports that the work has reached its bound.
func (j *judge) spent() *Fault {
	switch {
	case j.ctx.Err() != nil:
		return fault(Interrupted, nil, "%v", j.ctx.Err())
	case j.steps > maxSteps, j.paths > maxPaths, j.signatures > maxSignatures:
		return fault(TooComplex, nil, "after %d paths, %d signatures and %d steps none was found valid; give fewer certificates", j.paths, j.signatures, j.steps)
	}
	return nil
}

// judge reads the request, tries one path after the other, and keeps the best
// reason.
func (j *judge) judge() Answer {
	policies, u, f := j.read()
	if f != nil {
		return Answer{Reason: f}
	}
	if f := j.readStatus(); f != nil {
		return Answer{Reason: f}
	}
	var best attempt
	var valid *Answer
	j.walk([]*cert{j.target}, nil, &best, func(p []*cert) bool {
		j.paths++
		held, f := j.basic(p, policies)
		if f == nil {
			f = u.fits(p)
		}
		var links []Link
		if f == nil {
			if links, f = j.statuses(p); f != nil {
				best.keep(stageStatus, f, p)
				return false
			}
			valid = &Answer{Valid: true, Path: links}
			for _, id := range held {
				valid.Policies = append(valid.Policies, dotted(id))
			}
			return true
		}
		best.keep(stageRules, f, p)
		return false
	})
	if valid != nil {
		return *valid
	}
	if f := j.spent(); f != nil {
		return Answer{Reason: f}
	}
	if j.dropped != nil && best.stage == stageIssuer { // it might have been the one that is missing
		return Answer{Reason: j.dropped}
	}
	return Answer{Reason: best.fault, Path: describe(best.path)}
}

// attempt is the path that came furthest, and what stopped it.
type attempt struct {
	stage int
	fault *Fault
	path  []*cert
}

const (
	stageIssuer    = iota + 1 // nobody of that name
	stageSignature            // somebody, but no signature that fits
	stageRules                // a whole path that breaks a rule
	stageStatus               // one that breaks none, but for its status
)

func (a *attempt) keep(stage int, f *Fault, path []*cert) {
	if stage > a.stage {
		a.stage, a.fault, a.path = stage, f, slices.Clone(path)
	}
}

// describe names a path from the certificate to the anchor.
func describe(path []*cert) []Link {
	var links []Link
	for _, c := range slices.Backward(path) {
		links = append(links, Link{Subject: c.x.Subject.String(), Serial: fmt.Sprintf("%x", c.x.SerialNumber), SHA256: fmt.Sprintf("%x", c.hash)})
	}
	return links
}

// read reads everything but the status.
func (j *judge) read() (policies []string, u *use, f *Fault) {
	r := j.r
	switch {
	case len(r.Certificate) == 0:
		return nil, nil, fault(BadRequest, nil, "there is no certificate to judge")
	case len(r.Intermediates) > MaxIntermediates, len(r.Anchors) > MaxAnchors, len(r.CRLs) > MaxLists, len(r.OCSP) > MaxAnswers, len(r.Policies) > MaxPolicies:
		return nil, nil, fault(TooLarge, nil, "at most %d intermediates, %d anchors, %d lists, %d OCSP answers and %d policies are read", MaxIntermediates, MaxAnchors, MaxLists, MaxAnswers, MaxPolicies)
	case len(r.Anchors) == 0:
		return nil, nil, fault(NoAnchor, nil, "there is no anchor: give the certificate of a root that you trust")
	case len(r.Certificate) > MaxCertificate:
		return nil, nil, fault(TooLarge, nil, "the certificate has %d octets, at most %d are read", len(r.Certificate), MaxCertificate)
	case j.now.Year() < 1 || j.now.Year() > 9999: // no certificate can be of that time
		return nil, nil, fault(BadRequest, nil, "the time is of no year from 1 to 9999")
	case r.MaxAge < 0:
		return nil, nil, fault(BadRequest, nil, "the greatest age is negative")
	}
	if u, f = findUse(r.Purpose); f != nil {
		return nil, nil, f
	}
	for _, p := range r.Policies {
		id, err := contents(p)
		if err != nil {
			return nil, nil, fault(BadRequest, nil, "the policy %v", err)
		}
		policies = append(policies, id)
	}
	if slices.Contains(policies, anyPolicy) {
		policies = nil
	}
	var err error
	if j.target, err = parse(r.Certificate); err != nil {
		return nil, nil, fault(Unreadable, nil, "the certificate: %v", err)
	}
	if r.Name != "" && !bears(j.target, r.Name) {
		return nil, nil, fault(NameMismatch, j.target, "none of its alternative names is %s", quote(r.Name))
	}
	return policies, u, j.readPool()
}

func (j *judge) readPool() *Fault {
	j.signed = map[[2]*cert]bool{}
	j.anchors, j.pool = map[string][]*cert{}, map[string][]*cert{}
	seen := map[[32]byte]bool{}
	for i, der := range j.r.Anchors {
		c, err := parse(der)
		if err != nil {
			if j.dropped == nil {
				j.dropped = fault(Unreadable, nil, "anchor %d: %v", i+1, err)
			}
			continue
		}
		if !seen[c.hash] {
			seen[c.hash] = true
			j.anchors[c.subjectKey] = append(j.anchors[c.subjectKey], c)
		}
	}
	if len(j.anchors) == 0 {
		return fault(BadRequest, nil, "no anchor can be read: %s", j.dropped.Detail)
	}
	seen[j.target.hash] = true
	for i, der := range j.r.Intermediates {
		c, err := parse(der)
		if err != nil {
			if j.dropped == nil {
				j.dropped = fault(Unreadable, nil, "intermediate %d: %v", i+1, err)
			}
			continue
		}
		if !seen[c.hash] {
			seen[c.hash] = true
			j.pool[c.subjectKey] = append(j.pool[c.subjectKey], c)
		}
	}
	return nil
}

// candidates lists those that bear the issuer's name, those whose key identifier
// fits first and those where it contradicts last: it only guides the search (RFC
// 5280, Section 4.2.1.1).
func candidates(c *cert, of map[string][]*cert) []*cert {
	rank := func(i *cert) int {
		switch {
		case c.authorityKeyID == nil || i.keyID == nil:
			return 1
		case bytes.Equal(c.authorityKeyID, i.keyID):
			return 0
		}
		return 2
	}
	found := slices.Clone(of[c.issuerKey])
	slices.SortStableFunc(found, func(a, b *cert) int { return rank(a) - rank(b) })
	return found
}

// walk builds every path from below upward and shows each whole one, the anchor
// first, until visit says that it is enough. only, where it is not nil, is the one
// anchor that counts. No certificate and no name with the same key stands twice in
// a path. It returns whether to stop.
func (j *judge) walk(below []*cert, only *cert, best *attempt, visit func([]*cert) bool) bool {
	top := below[len(below)-1]
	if j.steps++; j.spent() != nil {
		return true
	}
	if f := algorithmFault(top, j.r.SHA1); f != nil {
		best.keep(stageSignature, f, nil)
		return false
	}
	best.keep(stageIssuer, fault(NoIssuer, top, "neither an anchor nor a given certificate bears the name of its issuer %s", top.x.Issuer), nil)
	for _, a := range candidates(top, j.anchors) {
		if only != nil && a != only || !j.issued(a, top, best) {
			continue
		}
		path := append(slices.Clone(below), a)
		slices.Reverse(path)
		if visit(path) {
			return true
		}
		if j.spent() != nil {
			return true
		}
	}
	if len(below) == maxPath {
		best.keep(stageSignature, fault(TooComplex, top, "a path has more than %d certificates", maxPath), nil)
		return false
	}
	for _, c := range candidates(top, j.pool) {
		if slices.ContainsFunc(below, func(b *cert) bool { return b.subjectKey == c.subjectKey && b.spki == c.spki }) || !j.issued(c, top, best) {
			continue
		}
		if j.walk(append(slices.Clip(below), c), only, best, visit) {
			return true
		}
	}
	return false
}

// issued reports whether a certificate was signed with an issuer's key. Each pair
// is computed once.
func (j *judge) issued(issuer, c *cert, best *attempt) bool {
	if f := keyFault(issuer); f != nil {
		best.keep(stageSignature, f, nil)
		return false
	}
	pair := [2]*cert{issuer, c}
	ok, known := j.signed[pair]
	if !known {
		if j.signatures++; j.signatures > maxSignatures {
			return false
		}
		ok = issuer.x.CheckSignature(c.x.SignatureAlgorithm, c.x.RawTBSCertificate, c.x.Signature) == nil
		j.signed[pair] = ok
	}
	if !ok {
		best.keep(stageSignature, fault(Signature, c, "it was not signed with the key of %s", issuer.x.Subject), nil)
	}
	return ok
}

var errTooLarge = errors.New("it is larger than what is read here")
