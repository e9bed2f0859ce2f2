package policy

import (
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"hufu/internal/oid"
)

// A NameForm says what the subject and the alternative names of a certificate
// look like. Every subject begins with the country and the organisation of its
// issuer, so that one hierarchy has one stem.
type NameForm string

// The name forms, with what follows the stem.
const (
	FormRoot      NameForm = "root"      // CN
	FormCA        NameForm = "ca"        // OU=city for a city CA, CN
	FormDevice    NameForm = "device"    // CN and one dNSName r<number>.devices.<domain>, serialNumber
	FormCentre    NameForm = "centre"    // CN and one dNSName centre.<domain>
	FormReader    NameForm = "reader"    // OU=city, CN and one dNSName r<number>.<city>.readers.<domain>, serialNumber
	FormCity      NameForm = "city"      // OU=city, CN and one dNSName sign.<city>.readers.<domain>
	FormServer    NameForm = "server"    // CN = the first dNSName; one or more dNSNames
	FormClient    NameForm = "client"    // OU=city where it belongs to one, CN; dNSNames where asked for
	FormPerson    NameForm = "person"    // OU=city where the person works for one, CN
	FormResponder NameForm = "responder" // below a city CA OU=city, CN and dNSName ocsp.<city>.readers.<domain>; else CN
)

// Bounds of names (RFC 5280, Appendix A.1: ub-common-name and its neighbours).
const (
	maxAttribute = 64
	maxDNS       = 253
	maxDNSNames  = 16
	maxReader    = 20
)

// A Name is what a request may say about names. The form of the profile decides
// what is used; what it does not use must be empty.
type Name struct {
	Reader       string   // device, reader: 1 to 20 lower-case letters and digits
	City         string   // six digits; "" = the issuing CA's own
	Domain       string   // "" = the issuing CA's own; another one is refused
	DNS          []string // server, client
	Person       string   // person
	Organisation string   // server, client, person: instead of the issuer's; root
	Country      string   // root only
	CommonName   string   // root, ca, client
}

// An Attribute is one part of a distinguished name.
type Attribute struct {
	Type  asn1.ObjectIdentifier
	Value string
}

// Context is what a CA adds to the names that it certifies.
type Context struct {
	ID     string // of the CA
	Kind   string
	City   string
	Domain string
}

// ReaderName is the DNS name of a reader.
func ReaderName(number, city, domain string) string {
	return "r" + number + "." + CityDomain(city, domain)
}

// CitySignerName is the DNS name of a city's signer.
func CitySignerName(city, domain string) string { return "sign." + CityDomain(city, domain) }

// CentreSignerName is the DNS name of the centre's signer.
func CentreSignerName(domain string) string { return "centre." + domain }

// CityDomain is the DNS name that a city CA is fenced to.
func CityDomain(city, domain string) string { return city + ".readers." + domain }

// DeviceName is the DNS name of a reader before it has a city.
func DeviceName(number, domain string) string { return "r" + number + ".devices." + domain }

// ParseReaderName takes a reader's DNS name apart.
func ParseReaderName(dns, domain string) (number, city string, err error) {
	label, rest, _ := strings.Cut(dns, ".")
	city, suffix, _ := strings.Cut(rest, ".")
	number, ok := strings.CutPrefix(label, "r")
	if !ok || suffix != "readers."+domain || !validReader(number) || !validCity(city) {
		return "", "", fmt.Errorf("%q is not a reader's name: it has the form r<number>.<city>.readers.%s", dns, domain)
	}
	return number, city, nil
}

// Names turns what was asked for into the attributes after the issuer's stem
// and the dNSNames. An attribute organizationName, when there is one, comes
// first and takes the place of the stem's.
func (f NameForm) Names(n Name, c Context) (attributes []Attribute, dns []string, err error) {
	if n.Domain != "" && n.Domain != c.Domain {
		return nil, nil, nameViolation("domain %q is not %q, the one that CA %s serves", n.Domain, c.Domain, c.ID)
	}
	if err := f.onlyUses(n); err != nil {
		return nil, nil, err
	}
	switch f {
	case FormRoot, FormCA:
		return f.caNames(n)
	case FormDevice:
		return deviceNames(n, c)
	case FormCentre:
		name := CentreSignerName(c.Domain)
		return []Attribute{{oid.AttributeCommonName, name}}, []string{name}, nil
	case FormReader, FormCity:
		return f.cityNames(n, c)
	case FormServer, FormClient, FormPerson:
		return f.partyNames(n, c)
	case FormResponder:
		return responderNames(n, c)
	}
	return nil, nil, nameViolation("there is no name form %q", string(f))
}

// formUses lists the fields of a Name that each form has a place for.
var formUses = map[NameForm][]string{
	FormRoot:      {"organisation", "country", "commonName"},
	FormCA:        {"city", "commonName"},
	FormDevice:    {"reader"},
	FormCentre:    {},
	FormReader:    {"reader", "city"},
	FormCity:      {"city"},
	FormServer:    {"dns", "organisation"},
	FormClient:    {"city", "dns", "organisation", "commonName"},
	FormPerson:    {"city", "person", "organisation"},
	FormResponder: {"city"},
}

// onlyUses refuses a name that says something its form has no place for.
func (f NameForm) onlyUses(n Name) error {
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"reader", n.Reader != ""}, {"city", n.City != ""}, {"dns", len(n.DNS) > 0}, {"person", n.Person != ""},
		{"organisation", n.Organisation != ""}, {"country", n.Country != ""}, {"commonName", n.CommonName != ""},
	} {
		if field.set && !slices.Contains(formUses[f], field.name) {
			return nameViolation("a name of form %s has no %s: leave it out", f, field.name)
		}
	}
	return nil
}

func (f NameForm) caNames(n Name) ([]Attribute, []string, error) {
	var a []Attribute
	if f == FormRoot {
		if len(n.Country) != 2 || strings.ToUpper(n.Country) != n.Country || !isPrintable(n.Country) {
			return nil, nil, nameViolation("country %q is not two capital letters", n.Country)
		}
		if err := validText("organisation", n.Organisation); err != nil {
			return nil, nil, err
		}
		a = append(a, Attribute{oid.AttributeCountry, n.Country}, Attribute{oid.AttributeOrganization, n.Organisation})
	}
	if n.City != "" {
		if !validCity(n.City) {
			return nil, nil, badCity(n.City)
		}
		a = append(a, Attribute{oid.AttributeOrganizationalUnit, n.City})
	}
	if err := validText("common name", n.CommonName); err != nil {
		return nil, nil, err
	}
	return append(a, Attribute{oid.AttributeCommonName, n.CommonName}), nil, nil
}

func deviceNames(n Name, c Context) ([]Attribute, []string, error) {
	if !validReader(n.Reader) {
		return nil, nil, badReader(n.Reader)
	}
	name := DeviceName(n.Reader, c.Domain)
	if len(name) > maxAttribute {
		return nil, nil, nameViolation("the name %s has more than %d characters: the domain is too long", name, maxAttribute)
	}
	return []Attribute{{oid.AttributeCommonName, name}, {oid.AttributeSerialNumber, n.Reader}}, []string{name}, nil
}

// cityNames makes the names of everything that belongs to one city. Both
// certificates of a reader's pair get the same ones.
func (f NameForm) cityNames(n Name, c Context) ([]Attribute, []string, error) {
	city, err := cityOf(n, c)
	if err != nil {
		return nil, nil, err
	}
	a := make([]Attribute, 0, 3)
	a = append(a, Attribute{oid.AttributeOrganizationalUnit, city})
	name := CitySignerName(city, c.Domain)
	if f == FormReader {
		if !validReader(n.Reader) {
			return nil, nil, badReader(n.Reader)
		}
		name = ReaderName(n.Reader, city, c.Domain)
	}
	if len(name) > maxAttribute {
		return nil, nil, nameViolation("the name %s has more than %d characters: the domain is too long", name, maxAttribute)
	}
	a = append(a, Attribute{oid.AttributeCommonName, name})
	if f == FormReader {
		a = append(a, Attribute{oid.AttributeSerialNumber, n.Reader})
	}
	return a, []string{name}, nil
}

// partyNames makes the names of servers, clients and persons.
func (f NameForm) partyNames(n Name, c Context) ([]Attribute, []string, error) {
	var a []Attribute
	if n.Organisation != "" {
		if err := validText("organisation", n.Organisation); err != nil {
			return nil, nil, err
		}
		a = append(a, Attribute{oid.AttributeOrganization, n.Organisation})
	}
	if n.City != "" {
		if !validCity(n.City) {
			return nil, nil, badCity(n.City)
		}
		a = append(a, Attribute{oid.AttributeOrganizationalUnit, n.City})
	}
	if err := validDNSNames(n.DNS, c.Domain, f == FormServer); err != nil {
		return nil, nil, err
	}
	common := n.CommonName
	switch f {
	case FormPerson:
		common = n.Person
	case FormServer:
		if common = n.DNS[0]; len(common) > maxAttribute {
			return a, n.DNS, nil // the alternative name alone carries it
		}
	}
	if err := validText("common name", common); err != nil {
		return nil, nil, err
	}
	return append(a, Attribute{oid.AttributeCommonName, common}), n.DNS, nil
}

func responderNames(n Name, c Context) ([]Attribute, []string, error) {
	if n.City != "" && n.City != c.City {
		return nil, nil, nameViolation("city %q is not %q, the one of CA %s", n.City, c.City, c.ID)
	}
	if c.Kind != KindCity {
		return []Attribute{{oid.AttributeCommonName, "OCSP " + c.ID}}, nil, nil
	}
	// Whatever a city CA signs has one dNSName below its city, or it would
	// escape the CA's constraints (RFC 5280, Section 4.2.1.10).
	name := "ocsp." + CityDomain(c.City, c.Domain)
	return []Attribute{{oid.AttributeOrganizationalUnit, c.City}, {oid.AttributeCommonName, name}}, []string{name}, nil
}

func cityOf(n Name, c Context) (string, error) {
	switch {
	case c.City == "":
		return "", nameViolation("CA %s has no city, so it cannot name a reader or a city's signer", c.ID)
	case n.City != "" && n.City != c.City:
		return "", nameViolation("city %q is not %q, the one of CA %s: ask the city's own CA", n.City, c.City, c.ID)
	}
	return c.City, nil
}

func validDNSNames(names []string, domain string, needed bool) error {
	if needed && len(names) == 0 {
		return nameViolation("a server needs at least one DNS name")
	}
	if len(names) > maxDNSNames {
		return nameViolation("%d DNS names are more than %d", len(names), maxDNSNames)
	}
	for i, name := range names {
		if detail := dnsFault(name); detail != "" {
			return nameViolation("DNS name %q %s", name, detail)
		}
		if below(name, "readers."+domain) || below(name, "devices."+domain) {
			return nameViolation("DNS name %q lies where only readers have names: choose one outside readers.%s and devices.%s", name, domain, domain)
		}
		for _, other := range names[:i] {
			if other == name {
				return nameViolation("DNS name %q stands there twice", name)
			}
		}
	}
	return nil
}

// ValidDomain reports whether a hierarchy can have its names below domain.
func ValidDomain(domain string) error {
	if detail := dnsFault(domain); detail != "" {
		return fmt.Errorf("domain %q %s", domain, detail)
	}
	longest := ReaderName(strings.Repeat("0", maxReader), "000000", domain)
	if len(longest) > maxAttribute {
		return fmt.Errorf("domain %q is too long: a reader's name below it would have %d characters, %d is the limit", domain, len(longest), maxAttribute)
	}
	return nil
}

// dnsFault says what is wrong with a DNS name, "" when nothing is
// (RFC 5280, Section 4.2.1.6: the preferred name syntax of RFC 1034, Section 3.5).
func dnsFault(name string) string {
	if name == "" || len(name) > maxDNS {
		return fmt.Sprintf("has %d characters: 1 to %d are allowed", len(name), maxDNS)
	}
	numeric := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "has an empty label or one of more than 63 characters"
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "has a label that begins or ends with a hyphen"
		}
		numeric = true
		for i := range len(label) {
			switch c := label[i]; {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-':
				numeric = false
			default:
				return "has something else than lower-case letters, digits and hyphens (no wildcards)"
			}
		}
	}
	if numeric {
		return "is an address or ends like one: names only"
	}
	return ""
}

// below reports whether name is domain itself or lies below it.
func below(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, domain) && name[len(name)-len(domain)-1] == '.'
}

func validReader(number string) bool {
	if number == "" || len(number) > maxReader {
		return false
	}
	for i := range len(number) {
		if c := number[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func validCity(city string) bool {
	if len(city) != 6 {
		return false
	}
	for i := range len(city) {
		if city[i] < '0' || city[i] > '9' {
			return false
		}
	}
	return true
}

func validText(what, s string) error {
	if fault := textFault(what, s); fault != "" {
		return nameViolation("%s", fault)
	}
	return nil
}

// textFault tells what is wrong with the text of an attribute, "" if nothing.
func textFault(what, s string) string {
	switch {
	case s == "":
		return fmt.Sprintf("the %s is missing", what)
	case !utf8.ValidString(s):
		return fmt.Sprintf("the %s is not UTF-8", what)
	case utf8.RuneCountInString(s) > maxAttribute:
		return fmt.Sprintf("the %s has more than %d characters", what, maxAttribute)
	case strings.TrimSpace(s) != s:
		return fmt.Sprintf("the %s begins or ends with a blank", what)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Sprintf("the %s has a character that cannot be printed", what)
	}
	return ""
}

// isPrintable reports whether s fits PrintableString (X.680, Section 41.4).
func isPrintable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune(" '()+,-./:=?", rune(c)) {
			return false
		}
	}
	return true
}

func nameViolation(format string, args ...any) error {
	return &Violation{Rule: "name", Citation: "RFC 5280, Section 4.1.2.6", Detail: fmt.Sprintf(format, args...)}
}

func badReader(number string) error {
	return nameViolation("reader number %q is not 1 to %d lower-case letters and digits", number, maxReader)
}

func badCity(city string) error { return nameViolation("city %q is not six digits", city) }
