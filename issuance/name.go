package issuance

import (
	"encoding/asn1"
	"strings"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
	"hufu/policy"
)

// A stem is what every subject below a CA begins with: the country and the
// organisation of the CA itself.
type stem []policy.Attribute

func newStem(attributes []policy.TypedAttribute) stem {
	var s stem
	for i := range attributes {
		if a := &attributes[i]; a.Type.Equal(oid.AttributeCountry) || a.Type.Equal(oid.AttributeOrganization) {
			s = append(s, a.Attribute)
		}
	}
	return s
}

func (s stem) organisation() string {
	for i := range s {
		if s[i].Type.Equal(oid.AttributeOrganization) {
			return s[i].Value
		}
	}
	return ""
}

// with encodes the Name that begins with the stem. An organisation among the
// attributes takes the place of the stem's.
func (s stem) with(attributes []policy.Attribute) []byte {
	own := len(attributes) > 0 && attributes[0].Type.Equal(oid.AttributeOrganization)
	e := &encoder{make([]byte, 0, 192)}
	e.sequence(func() {
		for i := range s {
			if !own || !s[i].Type.Equal(oid.AttributeOrganization) {
				e.attribute(&s[i])
			}
		}
		for i := range attributes {
			e.attribute(&attributes[i])
		}
	})
	return e.der
}

// attribute writes an RDN of one attribute. Country and serial number are
// PrintableString by their definition, all others UTF8String (RFC 5280, Section
// 4.1.2.4 and Appendix A.1).
func (e *encoder) attribute(a *policy.Attribute) {
	tag := cbasn1.UTF8String
	if a.Type.Equal(oid.AttributeCountry) || a.Type.Equal(oid.AttributeSerialNumber) {
		tag = cbasn1.PrintableString
	}
	e.element(cbasn1.SET, func() {
		e.sequence(func() {
			e.oid(a.Type)
			e.text(tag, a.Value)
		})
	})
}

// shortNames are the attributes that subjects have.
var shortNames = []struct {
	id   asn1.ObjectIdentifier
	name string
}{
	{oid.AttributeCommonName, "CN"},
	{oid.AttributeSerialNumber, "SERIALNUMBER"},
	{oid.AttributeCountry, "C"},
	{oid.AttributeOrganization, "O"},
	{oid.AttributeOrganizationalUnit, "OU"},
}

// subjectText writes a subject for people and for the book's index, last
// attribute first (RFC 4514, Section 2).
func subjectText(attributes []policy.TypedAttribute) string {
	var b strings.Builder
	for i := len(attributes) - 1; i >= 0; i-- {
		a := &attributes[i]
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for _, s := range shortNames {
			if s.id.Equal(a.Type) {
				b.WriteString(s.name)
			}
		}
		b.WriteByte('=')
		for k, r := range a.Value {
			if strings.ContainsRune(`,+"\<>;`, r) || k == 0 && r == '#' {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}
