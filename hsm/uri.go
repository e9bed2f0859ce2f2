package hsm

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// URI is a PKCS#11 URI, RFC 7512. Empty fields are absent. An attribute that this
// package does not know is refused when parsed: dropping it would widen the match.
// So is pin-value: a PIN in a URI ends up in configuration, logs and argv.
type URI struct {
	Token, Manufacturer, Serial, Model                      string
	LibraryManufacturer, LibraryDescription, LibraryVersion string
	SlotManufacturer, SlotDescription, SlotID               string
	Object, Type                                            string
	ID                                                      []byte

	PINSource, ModuleName, ModulePath string
}

// attribute is one name of RFC 7512, Section 2.3 and the field it fills.
type attribute struct {
	name  string
	field func(*URI) *string
}

var pathAttributes = []attribute{
	{"token", func(u *URI) *string { return &u.Token }},
	{"manufacturer", func(u *URI) *string { return &u.Manufacturer }},
	{"serial", func(u *URI) *string { return &u.Serial }},
	{"model", func(u *URI) *string { return &u.Model }},
	{"library-manufacturer", func(u *URI) *string { return &u.LibraryManufacturer }},
	{"library-description", func(u *URI) *string { return &u.LibraryDescription }},
	{"library-version", func(u *URI) *string { return &u.LibraryVersion }},
	{"slot-manufacturer", func(u *URI) *string { return &u.SlotManufacturer }},
	{"slot-description", func(u *URI) *string { return &u.SlotDescription }},
	{"slot-id", func(u *URI) *string { return &u.SlotID }},
	{"object", func(u *URI) *string { return &u.Object }},
	{"type", func(u *URI) *string { return &u.Type }},
}

var queryAttributes = []attribute{
	{"pin-source", func(u *URI) *string { return &u.PINSource }},
	{"module-name", func(u *URI) *string { return &u.ModuleName }},
	{"module-path", func(u *URI) *string { return &u.ModulePath }},
}

// ParseURI reads a PKCS#11 URI.
func ParseURI(s string) (*URI, error) {
	const scheme = "pkcs11:"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return nil, fmt.Errorf("parsing PKCS#11 URI %q: it must begin with %q", s, scheme)
	}
	path, query, asked := strings.Cut(s[len(scheme):], "?")
	u := new(URI)
	if err := u.parse(path, ";", pathAttributes); err != nil {
		return nil, fmt.Errorf("parsing PKCS#11 URI: %w", err)
	}
	if asked {
		if err := u.parse(query, "&", queryAttributes); err != nil {
			return nil, fmt.Errorf("parsing PKCS#11 URI: %w", err)
		}
	}
	return u, nil
}

func (u *URI) parse(part, separator string, known []attribute) error {
	if part == "" {
		return nil
	}
	seen := make(map[string]bool)
	for item := range strings.SplitSeq(part, separator) {
		name, value, ok := strings.Cut(item, "=")
		if !ok {
			return fmt.Errorf("%q has no value", item)
		}
		// RFC 7512, Section 2.3: an attribute stands at most once.
		if seen[name] {
			return fmt.Errorf("the attribute %s stands twice", name)
		}
		seen[name] = true
		raw, err := unescape(value)
		if err != nil {
			return fmt.Errorf("the attribute %s: %w", name, err)
		}
		if err := u.set(name, raw, separator, known); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) set(name string, raw []byte, separator string, known []attribute) error {
	switch {
	case name == "pin-value":
		return fmt.Errorf("the attribute pin-value is refused: a PIN does not belong in a URI; name a PIN file, descriptor or credential")
	case name == "id" && separator == ";":
		if len(raw) > 0 {
			u.ID = raw
		}
		return nil
	}
	if !utf8.Valid(raw) {
		return fmt.Errorf("the attribute %s is not UTF-8", name)
	}
	for _, a := range known {
		if a.name == name {
			*a.field(u) = string(raw)
			return nil
		}
	}
	return fmt.Errorf("the attribute %q is not known", name)
}

// String writes the URI in the order of RFC 7512, Section 2.3, id as
// percent-encoded octets throughout.
func (u *URI) String() string {
	var path, query []string
	for _, a := range pathAttributes {
		if v := *a.field(u); v != "" {
			path = append(path, a.name+"="+escape(v, false))
		}
		if a.name == "object" && len(u.ID) > 0 {
			path = append(path, "id="+escape(string(u.ID), true))
		}
	}
	for _, a := range queryAttributes {
		if v := *a.field(u); v != "" {
			query = append(query, a.name+"="+escape(v, false))
		}
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// plain are the characters that both a path and a query may hold as they are,
// beside letters and digits: unreserved and pk11-res-avail of RFC 7512, Section 2.3.
const plain = "-._~:[]@!$'()*+,="

func escape(s string, all bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !all && (letter || strings.IndexByte(plain, c) >= 0) {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

func unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return nil, fmt.Errorf("a percent sign without two hexadecimal digits")
		}
		high, low := nibble(s[i+1]), nibble(s[i+2])
		if high > 15 || low > 15 {
			return nil, fmt.Errorf("%q is not a percent-encoded octet", s[i:i+3])
		}
		out = append(out, high<<4|low)
		i += 2
	}
	return out, nil
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// describes reports whether a token is one that the URI means.
func (u *URI) describes(label, serial, model, manufacturer string) bool {
	return (u.Token == "" || u.Token == label) && (u.Serial == "" || u.Serial == serial) &&
		(u.Model == "" || u.Model == model) && (u.Manufacturer == "" || u.Manufacturer == manufacturer)
}
