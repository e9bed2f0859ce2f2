package path

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/dn"
)

// reasons is a set of revocation reasons, bit i for the i-th of ReasonFlags (RFC
// 5280, Section 4.2.1.13).
type reasons uint16

// allReasons are keyCompromise to aACompromise.
const allReasons reasons = 0x1fe

// maxPoints bounds the distribution points of one certificate.
const maxPoints = 32

// place is a DistributionPointName. Both fields empty: it is not there.
type place struct {
	full     []generalName
	relative []byte // contents of a RelativeDistinguishedName
}

func (p *place) absent() bool { return p.full == nil && p.relative == nil }

// names makes a relative name whole below each of the bases.
func (p *place) names(bases ...dn.Name) []generalName {
	if p.relative == nil {
		return p.full
	}
	var all []generalName
	for _, base := range bases {
		if whole, err := base.Append(p.relative); err == nil {
			all = append(all, generalName{form: directoryName, dir: whole})
		}
	}
	return all
}

// point is a DistributionPoint of a certificate (RFC 5280, Section 4.2.1.13).
type point struct {
	place   place
	reasons reasons // 0: it does not say
	issuers []generalName
}

// scope is the issuingDistributionPoint of a list (RFC 5280, Section 5.2.5).
type scope struct {
	place                              place
	onlyUsers, onlyCAs, onlyAttributes bool
	reasons                            reasons // 0: it does not say
	indirect                           bool
}

func readPoints(v cryptobyte.String) ([]point, error) {
	list, ok := sequence(v)
	if !ok || list.Empty() {
		return nil, errExtension
	}
	var all []point
	for !list.Empty() {
		var seq, names cryptobyte.String
		var present bool
		var p point
		if !list.ReadASN1(&seq, asn1.SEQUENCE) || len(all) == maxPoints {
			return nil, errExtension
		}
		var err error
		if p.place, err = readPlace(&seq); err != nil {
			return nil, err
		}
		if p.reasons, err = readReasons(&seq, 1); err != nil {
			return nil, err
		}
		if !seq.ReadOptionalASN1(&names, &present, asn1.Tag(2).Constructed().ContextSpecific()) || !seq.Empty() {
			return nil, errExtension
		}
		if present {
			if p.issuers, err = parseGeneralNames(names); err != nil {
				return nil, err
			}
		}
		if p.place.absent() && p.issuers == nil { // RFC 5280, Section 4.2.1.13
			return nil, errExtension
		}
		all = append(all, p)
	}
	return all, nil
}

// readPlace reads distributionPoint, if it is there.
func readPlace(seq *cryptobyte.String) (p place, err error) {
	var explicit, value cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&explicit, &present, asn1.Tag(0).Constructed().ContextSpecific()) {
		return p, errExtension
	}
	if !present {
		return p, nil
	}
	var tag asn1.Tag
	if !explicit.ReadAnyASN1(&value, &tag) || !explicit.Empty() {
		return p, errExtension
	}
	switch tag {
	case asn1.Tag(0).Constructed().ContextSpecific():
		p.full, err = parseGeneralNames(value)
		return p, err
	case asn1.Tag(1).Constructed().ContextSpecific():
		if _, err = (dn.Name{}).Append(value); err != nil {
			return p, err
		}
		p.relative = value
		return p, nil
	}
	return p, errExtension
}

// readReasons reads a ReasonFlags, if it is there. A set without a reason is
// refused.
func readReasons(seq *cryptobyte.String, tag asn1.Tag) (reasons, error) {
	var bits cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&bits, &present, tag.ContextSpecific()) {
		return 0, errExtension
	}
	if !present {
		return 0, nil
	}
	if len(bits) < 2 || len(bits) > 3 || bits[0] > 7 {
		return 0, errExtension
	}
	var set reasons
	for i := range 8 * (len(bits) - 1) {
		if bits[1+i/8]>>(7-i%8)&1 == 1 {
			set |= 1 << i
		}
	}
	if set &= allReasons; set == 0 {
		return 0, errExtension
	}
	return set, nil
}

// readScope reads an issuingDistributionPoint; nil is none.
func readScope(der []byte) (*scope, error) {
	if der == nil {
		return nil, nil
	}
	seq, ok := sequence(der)
	if !ok {
		return nil, errExtension
	}
	var s scope
	var err error
	if s.place, err = readPlace(&seq); err != nil {
		return nil, err
	}
	for _, flag := range []struct {
		tag asn1.Tag
		set *bool
	}{{1, &s.onlyUsers}, {2, &s.onlyCAs}, {3, nil}, {4, &s.indirect}, {5, &s.onlyAttributes}} {
		if flag.set == nil {
			if s.reasons, err = readReasons(&seq, flag.tag); err != nil {
				return nil, err
			}
			continue
		}
		var octet cryptobyte.String
		var present bool
		if !seq.ReadOptionalASN1(&octet, &present, flag.tag.ContextSpecific()) || present && (len(octet) != 1 || octet[0] != 0 && octet[0] != 0xff) {
			return nil, errExtension
		}
		*flag.set = present && octet[0] != 0
	}
	if !seq.Empty() {
		return nil, errExtension
	}
	return &s, nil
}

// covers is RFC 5280, Section 6.3.3 (b) and (d): the reasons for which a list
// tells about a certificate at one of its distribution points; 0 is none.
func (p *point) covers(l *list, c *cert) reasons {
	s := l.scope
	bases := []dn.Name{c.issuer}
	if p.issuers != nil { // (b)(1)
		bases = nil
		for _, g := range p.issuers {
			if g.form == directoryName {
				bases = append(bases, g.dir)
			}
		}
		if s == nil || !s.indirect || !slices.ContainsFunc(bases, l.issuer.Equal) {
			return 0
		}
	} else if !l.issuer.Equal(c.issuer) {
		return 0
	}
	if s == nil {
		return orAll(p.reasons)
	}
	if !s.place.absent() { // (b)(2)(i)
		mine := p.issuers
		if !p.place.absent() {
			mine = p.place.names(bases...)
		}
		theirs := s.place.names(l.issuer)
		if !slices.ContainsFunc(mine, func(g generalName) bool { return slices.ContainsFunc(theirs, g.equal) }) {
			return 0
		}
	}
	if s.onlyUsers && c.ca || s.onlyCAs && !c.ca || s.onlyAttributes { // (b)(2)(ii) to (iv)
		return 0
	}
	return orAll(p.reasons) & orAll(s.reasons) // (d)
}

func orAll(r reasons) reasons {
	if r == 0 {
		return allReasons
	}
	return r
}
