package path

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/internal/ocsp"
)

// maxAsking bounds how deep signers of lists are themselves looked up.
const maxAsking = 4

// answer is one OCSP answer.
type answer struct{ *ocsp.Response }

// readStatus reads every list and answer. One that cannot be read settles nothing,
// and says so where nothing else settles it.
func (j *judge) readStatus() *Fault {
	if j.r.NoStatus {
		return nil
	}
	serials := map[string]bool{j.target.serial: true}
	for _, group := range j.pool {
		for _, c := range group {
			serials[c.serial] = true
		}
	}
	for i, r := range j.r.CRLs {
		if r == nil {
			return fault(BadRequest, nil, "list %d is not there", i+1)
		}
		l, err := j.readList(r, serials)
		if j.ctx.Err() != nil {
			return fault(Interrupted, nil, "%v", j.ctx.Err())
		}
		if err != nil {
			j.cannotUse("list %d: %v", i+1, err)
			continue
		}
		j.lists = append(j.lists, l)
	}
	for i, der := range j.r.OCSP {
		a, err := ocsp.ParseResponse(der, MaxAnswer)
		if err == nil {
			err = weakSigner(a)
		}
		if err != nil {
			j.cannotUse("OCSP answer %d: %v", i+1, err)
			continue
		}
		j.answers = append(j.answers, &answer{a})
	}
	return nil
}

func (j *judge) cannotUse(format string, args ...any) {
	if j.unusable == nil {
		j.unusable = fault(StatusUnreadable, nil, format, args...)
	}
}

// weakSigner refuses an answer that brings a certificate that could not be read in a
// path, or whose key would not be accepted there.
func weakSigner(r *ocsp.Response) error {
	for _, der := range r.Certificates {
		c, err := parse(der)
		if err != nil {
			return err
		}
		if c.broken != nil {
			return c.broken
		}
		if f := keyFault(c); f != nil {
			return f
		}
	}
	return nil
}

// statuses describes a path whose certificates are all good, or says which is not.
func (j *judge) statuses(path []*cert) ([]Link, *Fault) {
	links := describe(path)
	links[len(links)-1].Source = "anchor"
	if j.r.NoStatus {
		return links, nil
	}
	good, f := j.status(path, nil)
	if f != nil {
		return nil, f
	}
	for i, g := range good {
		links[len(links)-2-i].Source, links[len(links)-2-i].AsOf = g.source, g.asOf
	}
	return links, nil
}

// evidence is what a good status rests on.
type evidence struct {
	source string
	asOf   time.Time
}

// status asks about each certificate of a path from below the anchor downward.
// asking holds those whose status is already being looked for, which cannot vouch
// for themselves.
func (j *judge) status(path []*cert, asking []*cert) ([]evidence, *Fault) {
	var all []evidence
	if len(asking) == maxAsking {
		return nil, fault(StatusUnknown, path[len(path)-1], "it depends on too many other lists")
	}
	for i := 1; i < len(path); i++ {
		e, f := j.statusOf(path[:i+1], append(slices.Clip(asking), path[i]))
		if f != nil {
			return nil, f
		}
		all = append(all, e)
	}
	return all, nil
}

// finding gathers what all sources say of one certificate.
type finding struct {
	c       *cert
	good    evidence
	revoked *Fault
	stale   error // of something that would have settled it
	other   error
}

func (f *finding) found(source string, reason int, at time.Time) {
	id := Revoked
	if reason == certificateHold {
		id = OnHold
	}
	if f.revoked == nil || id == Revoked {
		f.revoked = fault(id, f.c, "says the %s, since %s, reason %d", source, stamp(at), reason)
	}
}

// settle: a revocation from anywhere outweighs everything else.
func (f *finding) settle(j *judge) (evidence, *Fault) {
	switch {
	case f.revoked != nil:
		return evidence{}, f.revoked
	case f.good.source != "":
		return f.good, nil
	case f.stale != nil:
		return evidence{}, fault(StatusStale, f.c, "%v", f.stale)
	case f.other != nil:
		return evidence{}, fault(StatusUnknown, f.c, "%v", f.other)
	case j.unusable != nil:
		return evidence{}, j.unusable
	}
	return evidence{}, fault(StatusUnknown, f.c, "no list and no OCSP answer is about it")
}

// statusOf settles the last certificate of path.
func (j *judge) statusOf(path, asking []*cert) (evidence, *Fault) {
	f := &finding{c: path[len(path)-1]}
	j.askAnswers(f, path[len(path)-2])
	j.askLists(f, path, asking)
	if bad := j.spent(); bad != nil {
		return evidence{}, bad
	}
	return f.settle(j)
}

// askAnswers looks through the OCSP answers (RFC 6960, Section 3.2).
func (j *judge) askAnswers(f *finding, issuer *cert) {
	if len(j.answers) == 0 {
		return
	}
	names, err := ocsp.NewIssuer(issuer.x.Raw)
	if err != nil {
		f.other = err
		return
	}
	for _, a := range j.answers {
		for i := range a.Responses {
			s := &a.Responses[i]
			if !names.Issued(&s.ID) || string(s.ID.Serial) != f.c.serial {
				continue
			}
			if j.signatures++; j.signatures > maxSignatures {
				return
			}
			if err := a.CheckSignature(issuer.x.Raw, j.now); err != nil {
				f.other = err
				break
			}
			j.askAnswer(f, s)
		}
	}
}

func (j *judge) askAnswer(f *finding, s *ocsp.SingleResponse) {
	err := j.fresh(s.ThisUpdate, s.NextUpdate)
	gone := s.Status == ocsp.Revoked && s.Reason != certificateHold && !s.ThisUpdate.After(j.now.Add(skew))
	switch {
	case gone, err == nil && s.Status == ocsp.Revoked: // for good, however old that word is
		f.found("OCSP answer", s.Reason, s.RevokedAt)
	case err != nil:
		f.stale = fmt.Errorf("the OCSP answer: %w", err)
	case s.Status == ocsp.Good:
		f.good = evidence{"ocsp", s.ThisUpdate}
	case f.revoked == nil:
		f.revoked = fault(StatusUnknown, f.c, "the OCSP answer of %s says that the CA does not know it", stamp(s.ThisUpdate)).per("RFC 6960, Section 2.2")
	}
}

// askLists is RFC 5280, Section 6.3.3 for one certificate: the lists that cover it,
// the newest of each scope with what its deltas change, until every reason is
// covered.
func (j *judge) askLists(f *finding, path, asking []*cert) {
	var usable []*list
	mask, signer := map[*list]reasons{}, map[*list]*cert{}
	for _, l := range j.lists {
		m := covered(l, f.c)
		if m == 0 {
			continue
		}
		by, err := j.signer(l, path, asking)
		if err != nil {
			f.other = fmt.Errorf("the list %s: %w", l.label(), err)
			continue
		}
		if l.ThisUpdate.After(j.now.Add(skew)) {
			f.stale = fmt.Errorf("the list %s is from the future", l.label())
			continue
		}
		usable, mask[l], signer[l] = append(usable, l), m, by
	}
	var all reasons
	asOf := j.now
	for i, l := range usable {
		// Of the same scope, and signed with the same key: by (h) for deltas, and since
		// another key of this name may be another CA's, whose list replaces none.
		series := func(o *list) bool { return o.same(l) && signer[o].spki == signer[l].spki }
		if l.Base != nil || slices.ContainsFunc(usable[:i], func(o *list) bool { return o.Base == nil && series(o) && !l.newer(o) }) ||
			slices.ContainsFunc(usable[i+1:], func(o *list) bool { return o.Base == nil && series(o) && o.newer(l) }) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(usable), func(o *list) bool { return o == l || !series(o) })
		when, err := j.askScope(f, l, others)
		if err != nil {
			f.stale = fmt.Errorf("the list %s: %w", l.label(), err)
			continue
		}
		all |= mask[l]
		if when.Before(asOf) {
			asOf = when
		}
	}
	switch {
	case all == allReasons && f.good.source == "":
		f.good = evidence{"crl", asOf}
	case all != 0 && all != allReasons && f.other == nil:
		f.other = errors.New("the lists tell only about some reasons")
	}
}

// askScope looks into the newest complete list of a scope and the deltas among the
// others of it, and returns as of when that holds. Something old still says what is
// revoked for good.
func (j *judge) askScope(f *finding, base *list, others []*list) (time.Time, error) {
	var delta *list
	for _, d := range others {
		// RFC 5280, Section 5.2.4: a delta is for lists from its base on.
		if d.Base != nil && d.Number != nil && base.Number != nil &&
			d.Base.Cmp(base.Number) <= 0 && d.Number.Cmp(base.Number) > 0 && (delta == nil || d.newer(delta)) {
			delta = d
		}
	}
	err, asOf := j.fresh(base.ThisUpdate, base.NextUpdate), base.ThisUpdate
	h, latest := base.find(f.c), base
	if delta != nil {
		current := j.fresh(delta.ThisUpdate, delta.NextUpdate) == nil
		if current {
			err, asOf = nil, delta.ThisUpdate
		}
		latest = delta
		switch changed := delta.find(f.c); {
		case changed == nil:
		case changed.reason != removeFromCRL:
			h = changed
		case current && h != nil && h.reason == certificateHold: // (k), and nothing but a hold is lifted (RFC 5280, Section 5.3.1)
			h = nil
		}
	}
	for _, o := range others {
		// A delta to a list that was not given may still revoke, and so may another list
		// of this very number and time.
		if o.Base != nil && !o.newer(latest) || o.Base == nil && (o.newer(base) || base.newer(o)) {
			continue
		}
		if changed := o.find(f.c); changed != nil && (o.Base == nil || changed.reason != removeFromCRL) {
			h = changed
		}
	}
	if h != nil && (err == nil || h.reason != certificateHold) {
		f.found("list "+base.label(), h.reason, h.at)
	}
	return asOf, err
}

// covered is the union over all distribution points, and the one that RFC 5280,
// Section 6.3.3 assumes for lists that none of them names: the issuer's name.
func covered(l *list, c *cert) reasons {
	assumed := point{place: place{full: append([]generalName{{form: directoryName, dir: c.issuer}}, c.issuerNames...)}}
	m := assumed.covers(l, c)
	for i := range c.points {
		m |= c.points[i].covers(l, c)
	}
	return m
}

// label names a list for people.
func (l *list) label() string {
	number := "without a number"
	if l.Number != nil {
		number = fmt.Sprintf("number %v", l.Number)
	}
	return fmt.Sprintf("%s of %s", number, stamp(l.ThisUpdate))
}
