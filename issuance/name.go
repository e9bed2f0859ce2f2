package issuance

import (
	"golang.org/x/crypto/cryptobyte"
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
	b := cryptobyte.NewBuilder(make([]byte, 0, 256))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for i := range s {
			if !own || !s[i].Type.Equal(oid.AttributeOrganization) {
				addAttribute(b, &s[i])
			}
		}
		for i := range attributes {
			addAttribute(b, &attributes[i])
		}
	})
	return b.BytesOrPanic()
}

// addAttribute writes one RDN of one attribute. Country and serial number are
// PrintableString by their definition, all others UTF8String (RFC 5280, Section
// 4.1.2.4 and Appendix A.1).
func addAttribute(b *cryptobyte.Builder, a *policy.Attribute) {
	tag := cbasn1.UTF8String
	if a.Type.Equal(oid.AttributeCountry) || a.Type.Equal(oid.AttributeSerialNumber) {
		tag = cbasn1.PrintableString
	}
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.Type)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.Value)) })
		})
	})
}
