// Package dn compares distinguished names (RFC 5280, Section 7.1).
//
// Two values are equal when the string preparation of RFC 4518 makes them the same
// octets: letters are folded, compatibility forms composed, invisible characters
// dropped and runs of spaces made one. So PrintableString and UTF8String compare,
// and "Hufu  CA " is "hufu ca".
//
// What cannot be compared is refused rather than called different: a name that
// seems different from itself would slip past an excluded subtree or a revocation.
// Refused are T61String beyond ASCII, UniversalString, code points that are
// unassigned or for private use, and names beyond the limits below.
package dn

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Limits of one name.
const (
	maxName   = 16 << 10 // octets
	maxRDNs   = 64
	maxValues = 16 // in one RDN
)

// Name is a distinguished name in the form in which it is compared: each relative
// distinguished name as one string.
type Name []string

// Parse reads the DER of a Name. The empty sequence is an empty Name.
func Parse(der []byte) (Name, error) {
	if len(der) > maxName {
		return nil, fmt.Errorf("reading a name: %d octets, at most %d are read", len(der), maxName)
	}
	input := cryptobyte.String(der)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() {
		return nil, errors.New("reading a name: not a sequence")
	}
	name := Name{}
	for !list.Empty() {
		var set cryptobyte.String
		if !list.ReadASN1(&set, asn1.SET) || len(name) == maxRDNs {
			return nil, errors.New("reading a name: not a list of relative names, or too many")
		}
		rdn, err := parseRDN(set)
		if err != nil {
			return nil, fmt.Errorf("reading a name: %w", err)
		}
		name = append(name, rdn)
	}
	return name, nil
}

// Append returns the name below n that the contents of a
// RelativeDistinguishedName makes (RFC 5280, Section 4.2.1.13).
func (n Name) Append(set []byte) (Name, error) {
	rdn, err := parseRDN(set)
	if err != nil {
		return nil, fmt.Errorf("reading a relative name: %w", err)
	}
	return append(slices.Clone(n), rdn), nil
}

// Equal reports whether two names match.
func (n Name) Equal(m Name) bool { return slices.Equal(n, m) }

// Within reports whether n is base or lies below it (RFC 5280, Section 7.1).
func (n Name) Within(base Name) bool { return len(n) >= len(base) && slices.Equal(n[:len(base)], base) }

// Key is the same string for equal names, and another for others.
func (n Name) Key() string {
	var b strings.Builder
	for _, rdn := range n {
		fmt.Fprintf(&b, "%d:%s", len(rdn), rdn)
	}
	return b.String()
}

// parseRDN reads the contents of one SET and writes its attributes, each with its
// lengths, in an order that does not depend on theirs.
func parseRDN(set cryptobyte.String) (string, error) {
	var all []string
	for !set.Empty() {
		var attribute, id, value cryptobyte.String
		var tag asn1.Tag
		if !set.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) || len(id) == 0 ||
			!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() || len(all) == maxValues {
			return "", errors.New("not an attribute, or too many")
		}
		kind, text, err := canonical(tag, value)
		if err != nil {
			return "", err
		}
		all = append(all, fmt.Sprintf("%d:%s%s%d:%s", len(id), string(id), kind, len(text), text))
	}
	if len(all) == 0 {
		return "", errors.New("a relative name without attributes")
	}
	slices.Sort(all)
	return strings.Join(all, ""), nil
}

// canonical prepares a value. Strings are of kind "s" whatever their tag; other
// values compare as octets.
func canonical(tag asn1.Tag, value []byte) (kind, text string, err error) {
	s, isText, err := decode(tag, value)
	switch {
	case err != nil:
		return "", "", err
	case !isText:
		return fmt.Sprintf("t%d.", tag), string(value), nil
	}
	text, err = Prepare(s)
	return "s", text, err
}

// tagUniversal is UniversalString, tagVisible VisibleString.
const (
	tagNumeric   = asn1.Tag(18)
	tagVisible   = asn1.Tag(26)
	tagUniversal = asn1.Tag(28)
	tagBMP       = asn1.Tag(30)
)

// decode is the first step of RFC 4518, Section 2.1: transcode.
func decode(tag asn1.Tag, value []byte) (s string, isText bool, err error) {
	switch tag {
	case asn1.UTF8String:
		if !utf8.Valid(value) {
			return "", false, errors.New("a UTF8String that is not UTF-8")
		}
		return string(value), true, nil
	case asn1.PrintableString, asn1.IA5String, asn1.T61String, tagNumeric, tagVisible:
		// T61String has no agreed meaning beyond ASCII.
		if bytes.ContainsFunc(value, func(r rune) bool { return r >= utf8.RuneSelf }) {
			return "", false, errors.New("a string with octets that its type does not have")
		}
		return string(value), true, nil
	case tagBMP:
		if len(value)%2 != 0 {
			return "", false, errors.New("a BMPString of an odd length")
		}
		var units []uint16
		for i := 0; i < len(value); i += 2 {
			units = append(units, uint16(value[i])<<8|uint16(value[i+1]))
		}
		if slices.ContainsFunc(units, func(u uint16) bool { return utf16.IsSurrogate(rune(u)) }) {
			return "", false, errors.New("a BMPString with surrogates")
		}
		return string(utf16.Decode(units)), true, nil
	case tagUniversal:
		return "", false, errors.New("a UniversalString, which is not compared here")
	}
	return "", false, nil
}

// Prepare is RFC 4518, Sections 2.2 to 2.6, with the case folding that RFC 5280,
// Section 7.1 adds. Runs of spaces become one and those at the ends go, which
// makes the same values equal as the two spaces that RFC 4518 writes.
func Prepare(s string) (string, error) {
	if plain(s) {
		return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r == ' ' }), " "), nil
	}
	mapped := strings.Map(mapRune, s)
	folded := mapped
	for range 2 { // RFC 3454, Appendix B.2: fold, compose, and fold what came of it
		folded = norm.NFKC.String(cases.Fold().String(folded))
	}
	// Composing may have made spaces of others, and removed characters of none.
	for _, r := range folded {
		if r != ' ' && !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S) || r == unicode.ReplacementChar {
			return "", fmt.Errorf("a string with the character %U, which RFC 4518 prohibits", r)
		}
	}
	return squeeze(folded), nil
}

// plain reports whether s is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// mapRune is RFC 4518, Section 2.2.
func mapRune(r rune) rune {
	switch {
	case r >= 0x09 && r <= 0x0d, r == 0x85, unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp):
		return ' '
	case r < 0x20, r >= 0x7f && r <= 0x9f, r == 0xad, r == 0x034f, r == 0x1806, r == 0xfffc,
		r >= 0x180b && r <= 0x180d, r >= 0xfe00 && r <= 0xfe0f, unicode.Is(unicode.Cf, r):
		return -1
	}
	return r
}

// squeeze is RFC 4518, Section 2.6.1. A space that carries a mark is none.
func squeeze(s string) string {
	var b strings.Builder
	pending := false
	runes := []rune(s)
	for i, r := range runes {
		if r == ' ' && !(i+1 < len(runes) && unicode.Is(unicode.M, runes[i+1])) {
			pending = b.Len() > 0
			continue
		}
		if pending {
			b.WriteByte(' ')
			pending = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Emails returns the values of the emailAddress attributes in the DER of a name,
// to which constraints of rfc822Name apply (RFC 5280, Section 4.2.1.10).
func Emails(der []byte) ([]string, error) {
	input := cryptobyte.String(der)
	var list, set, attribute, id, value cryptobyte.String
	var tag asn1.Tag
	var all []string
	if !input.ReadASN1(&list, asn1.SEQUENCE) {
		return nil, errors.New("reading a name: not a sequence")
	}
	for !list.Empty() {
		if !list.ReadASN1(&set, asn1.SET) {
			return nil, errors.New("reading a name: not a relative name")
		}
		for !set.Empty() {
			if !set.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&value, &tag) {
				return nil, errors.New("reading a name: not an attribute")
			}
			if string(id) != emailAddress {
				continue
			}
			s, isText, err := decode(tag, value)
			if err != nil || !isText {
				return nil, errors.New("an emailAddress that is not a string")
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// emailAddress is the contents of the object identifier 1.2.840.113549.1.9.1
// (RFC 2985, Section 5.2.1).
const emailAddress = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"
