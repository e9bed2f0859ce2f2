package dn_test

import (
	"strings"
	"testing"

	"hufu/internal/dn"
)

// element writes a short DER element.
func element(tag byte, contents ...string) string {
	all := strings.Join(contents, "")
	if len(all) > 127 {
		return string([]byte{tag, 0x82, byte(len(all) >> 8), byte(len(all))}) + all
	}
	return string([]byte{tag, byte(len(all))}) + all
}

// attribute is {2 5 4 n} with a value.
func attribute(n byte, tag byte, value string) string {
	return element(0x30, "\x06\x03\x55\x04"+string([]byte{n}), element(tag, value))
}

func name(rdns ...string) []byte {
	var sets []string
	for _, r := range rdns {
		sets = append(sets, element(0x31, r))
	}
	return []byte(element(0x30, sets...))
}

const (
	utf8String = 12
	printable  = 19
	t61        = 20
	ia5        = 22
	universal  = 28
	bmp        = 30
	bits       = 3
	cn, org    = 3, 10
)

func mustParse(t *testing.T, der []byte) dn.Name {
	t.Helper()
	n, err := dn.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEqual: RFC 5280, Section 7.1.
func TestEqual(t *testing.T) {
	for what, tc := range map[string]struct {
		a, b []byte
		want bool
	}{
		"octets":               {name(attribute(cn, printable, "Hufu")), name(attribute(cn, printable, "Hufu")), true},
		"case":                 {name(attribute(cn, printable, "Hufu CA")), name(attribute(cn, printable, "hUFU ca")), true},
		"string type":          {name(attribute(cn, printable, "Hufu")), name(attribute(cn, utf8String, "Hufu")), true},
		"spaces":               {name(attribute(cn, printable, "  Hufu   CA ")), name(attribute(cn, utf8String, "Hufu CA")), true},
		"a space less":         {name(attribute(cn, printable, "Hufu CA")), name(attribute(cn, printable, "HufuCA")), false},
		"another space":        {name(attribute(cn, utf8String, "Hufu\u00a0CA")), name(attribute(cn, printable, "Hufu CA")), true},
		"a tab":                {name(attribute(cn, utf8String, "Hufu\tCA")), name(attribute(cn, printable, "Hufu CA")), true},
		"full width":           {name(attribute(cn, utf8String, "Ｈｕｆｕ")), name(attribute(cn, printable, "hufu")), true},
		"composed":             {name(attribute(cn, utf8String, "Caf\u00e9")), name(attribute(cn, utf8String, "CAFE\u0301")), true},
		"sharp s":              {name(attribute(cn, utf8String, "Straße")), name(attribute(cn, utf8String, "STRASSE")), true},
		"ligature":             {name(attribute(cn, utf8String, "ﬁn")), name(attribute(cn, printable, "FIN")), true},
		"soft hyphen":          {name(attribute(cn, utf8String, "Hu\u00adfu")), name(attribute(cn, printable, "Hufu")), true},
		"zero width":           {name(attribute(cn, utf8String, "Hu\u200bfu")), name(attribute(cn, printable, "Hufu")), true},
		"Greek":                {name(attribute(cn, utf8String, "ΣΊΣΥΦΟΣ")), name(attribute(cn, utf8String, "σίσυφος")), true},
		"Chinese":              {name(attribute(cn, utf8String, "虎符")), name(attribute(cn, bmp, "\x86\x4e\x7b\x26")), true},
		"look-alikes":          {name(attribute(cn, utf8String, "Нufu")), name(attribute(cn, printable, "Hufu")), false},
		"an accent":            {name(attribute(cn, utf8String, "Cafe\u0301")), name(attribute(cn, printable, "Cafe")), false},
		"IA5String":            {name(attribute(cn, ia5, "A@x")), name(attribute(cn, utf8String, "a@X")), true},
		"another attribute":    {name(attribute(cn, printable, "x")), name(attribute(org, printable, "x")), false},
		"order of names":       {name(attribute(cn, printable, "x"), attribute(org, printable, "y")), name(attribute(org, printable, "y"), attribute(cn, printable, "x")), false},
		"order in one":         {name(attribute(cn, printable, "x") + attribute(org, printable, "Y")), name(attribute(org, printable, "y") + attribute(cn, utf8String, "x")), true},
		"one more in one":      {name(attribute(cn, printable, "x") + attribute(org, printable, "y")), name(attribute(cn, printable, "x")), false},
		"split differently":    {name(attribute(cn, printable, "x") + attribute(org, printable, "y")), name(attribute(cn, printable, "x"), attribute(org, printable, "y")), false},
		"a bit string":         {name(attribute(cn, bits, "\x00\x41")), name(attribute(cn, bits, "\x00\x41")), true},
		"bits, another letter": {name(attribute(cn, bits, "\x00\x41")), name(attribute(cn, bits, "\x00\x61")), false},
		"bits and text":        {name(attribute(cn, bits, "A")), name(attribute(cn, printable, "A")), false},
		"only spaces":          {name(attribute(cn, printable, "  ")), name(attribute(cn, printable, " ")), true},
		"nothing":              {name(), name(), true},
		"a mark on a space":    {name(attribute(cn, utf8String, "a  \u0301b")), name(attribute(cn, utf8String, "a\u0301b")), false},
	} {
		a, b := mustParse(t, tc.a), mustParse(t, tc.b)
		if a.Equal(b) != tc.want || b.Equal(a) != tc.want || (a.Key() == b.Key()) != tc.want {
			t.Errorf("%s: equal is %v, want %v: %q %q", what, a.Equal(b), tc.want, a, b)
		}
	}
}

func TestWithin(t *testing.T) {
	whole := mustParse(t, name(attribute(6, printable, "CN"), attribute(org, printable, "Hufu"), attribute(cn, printable, "x")))
	for _, tc := range []struct {
		base []byte
		want bool
	}{
		{name(), true}, {name(attribute(6, printable, "cn")), true}, {name(attribute(6, printable, "CN"), attribute(org, utf8String, "HUFU")), true},
		{name(attribute(org, printable, "Hufu")), false}, {name(attribute(6, printable, "CN"), attribute(org, printable, "Huf")), false},
		{name(attribute(6, printable, "CN"), attribute(org, printable, "Hufu"), attribute(cn, printable, "x"), attribute(cn, printable, "y")), false},
	} {
		if got := whole.Within(mustParse(t, tc.base)); got != tc.want {
			t.Errorf("within %x: %v", tc.base, got)
		}
	}
}

// TestRefused: what cannot be compared is refused, never called different.
func TestRefused(t *testing.T) {
	for what, der := range map[string][]byte{
		"T61String beyond ASCII":    name(attribute(cn, t61, "Caf\xe9")),
		"UniversalString":           name(attribute(cn, universal, "\x00\x00\x00A")),
		"half a BMPString":          name(attribute(cn, bmp, "\x00")),
		"surrogates":                name(attribute(cn, bmp, "\xd8\x00\xdc\x00")),
		"no UTF-8":                  name(attribute(cn, utf8String, "\xff")),
		"unassigned":                name(attribute(cn, utf8String, "a\u0378")),
		"private use":               name(attribute(cn, utf8String, "\ue000")),
		"replacement character":     name(attribute(cn, utf8String, "\ufffd")),
		"PrintableString of 8 bits": name(attribute(cn, printable, "\xc3\xa9")),
		"an empty relative name":    name(""),
		"octets behind":             append(name(), 0),
		"not a sequence":            {0x31, 0},
		"nothing":                   nil,
		"too many relative names":   name(strings.Split(strings.Repeat(attribute(cn, printable, "x")+"|", 70), "|")[:70]...),
		"too long":                  make([]byte, 17<<10),
	} {
		if n, err := dn.Parse(der); err == nil {
			t.Errorf("%s: %q", what, n)
		}
	}
}

func TestEmails(t *testing.T) {
	mail := element(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", element(ia5, "A@x.example"))
	all, err := dn.Emails(name(attribute(cn, printable, "x")+mail, mail))
	if err != nil || len(all) != 2 || all[0] != "A@x.example" {
		t.Errorf("%q, %v", all, err)
	}
}

// FuzzParse: no panic; a name equals itself, lies within itself, and its parts
// prepare to the same when prepared again.
func FuzzParse(f *testing.F) {
	f.Add(name(attribute(cn, printable, "Hufu CA")))
	f.Add(name(attribute(cn, utf8String, "虎 符ß\u0301"), attribute(org, bmp, "\x86\x4e")))
	f.Fuzz(func(t *testing.T, der []byte) {
		if n, err := dn.Parse(der); err == nil {
			again, err := dn.Parse(der)
			if err != nil || !n.Equal(again) || !n.Within(again) {
				t.Errorf("%q is not itself: %v", n, err)
			}
		}
		once, err := dn.Prepare(string(der))
		if err != nil {
			return
		}
		if twice, err := dn.Prepare(once); err != nil || twice != once {
			t.Errorf("%q becomes %q, %v", once, twice, err)
		}
	})
}
