package verify

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"

	"hufu/internal/oid"
	"hufu/policy"
)

// Purpose says what a certificate is to be used for.
type Purpose uint8

// The purposes.
const (
	ReaderSigning    Purpose = iota + 1 // a reader signs load requests and results
	ReaderEncryption                    // scripts are sealed to a reader
	ReaderClient                        // a reader as TLS client
	CitySigning                         // a city signs load permissions
	Device                              // a reader's first-stage identity
	Staff                               // a person signs approvals, or is a TLS client
	Server                              // a TLS server
	Client                              // a machine as TLS client
	Recipient                           // recovered keys are sealed to a person
	CentreSigning                       // the centre signs tickets
)

// purposes says what each purpose demands of the certificate.
var purposes = map[Purpose]struct {
	name   string
	policy asn1.ObjectIdentifier
	eku    asn1.ObjectIdentifier
	seals  bool // keyAgreement or keyEncipherment, and no signatures; else digitalSignature
}{
	ReaderSigning:    {"sign for a reader", oid.PolicyReader, oid.EKUTransactionSigning, false},
	ReaderEncryption: {"have scripts sealed to a reader", oid.PolicyReader, oid.EKUScriptEncryption, true},
	ReaderClient:     {"be a reader's TLS client", oid.PolicyReader, oid.EKUClientAuth, false},
	CitySigning:      {"sign for a city", oid.PolicyCity, oid.EKUCitySigning, false},
	Device:           {"prove a device", oid.PolicyDevice, oid.EKUClientAuth, false},
	Staff:            {"act for a person", oid.PolicyStaff, oid.EKUClientAuth, false},
	Server:           {"be a TLS server", oid.PolicyService, oid.EKUServerAuth, false},
	Client:           {"be a machine's TLS client", oid.PolicyService, oid.EKUClientAuth, false},
	Recipient:        {"have recovered keys sealed to a person", oid.PolicyStaff, oid.EKUEmailProtection, true},
	CentreSigning:    {"sign for the centre", oid.PolicyCentre, oid.EKUCentreSigning, false},
}

// String says what the certificate should do: "sign for a reader".
func (p Purpose) String() string {
	if u, ok := purposes[p]; ok {
		return u.name
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// inCity reports whether only a city CA may certify the purpose.
func (p Purpose) inCity() bool {
	return p == ReaderSigning || p == ReaderEncryption || p == ReaderClient || p == CitySigning
}

// fits holds a built chain, the leaf first and the anchor last, against a purpose
// and fills in the names of c.
func (p Purpose) fits(c *Cert, chain []*x509.Certificate, domain string) error {
	if _, ok := purposes[p]; !ok {
		return &PurposeError{Subject: c.Subject, Detail: fmt.Sprintf("%v is not one that is known", p)}
	}
	if len(chain) < 2 {
		return &ChainError{Subject: c.Subject, Err: errSelfSigned}
	}
	if err := p.fitsNames(c, chain[1], domain); err != nil {
		return err
	}
	if err := p.fitsPolicy(c, chain); err != nil {
		return err
	}
	return p.fitsUsage(c, chain)
}

// fitsNames: what a city CA signed has exactly one dNSName, below that city, and
// no other form of name.
func (p Purpose) fitsNames(c *Cert, issuer *x509.Certificate, domain string) error {
	wrong := func(format string, args ...any) error {
		return &NameError{Subject: c.Subject, Detail: fmt.Sprintf(format, args...)}
	}
	city, fenced := cityOf(issuer, domain)
	if !fenced && p.inCity() {
		return wrong("its issuer %s is not a city CA: no critical name constraint keeps it below one city of readers.%s", issuer.Subject, domain)
	}
	if len(c.X509.DNSNames) > 0 {
		c.Name = c.X509.DNSNames[0]
	}
	if fenced {
		forms, err := altNames(c.X509)
		if err != nil || len(forms) != 1 || forms[0] != tagDNS {
			return wrong("a city CA signed it, so it has exactly one dNSName and no other alternative name")
		}
		for _, part := range c.X509.Subject.Names {
			if part.Type.Equal(oid.AttributeCommonName) && part.Value != c.Name {
				return wrong("its common name %v is not its dNSName %s", part.Value, c.Name)
			}
		}
		c.City = city
	}
	switch p {
	case ReaderSigning, ReaderEncryption, ReaderClient:
		number, named, err := policy.ParseReaderName(c.Name, domain)
		if err != nil || named != city {
			return wrong("%s is not the name of a reader of city %s below %s", c.Name, city, domain)
		}
		c.Reader = number
	case CitySigning:
		if c.Name != policy.CitySignerName(city, domain) {
			return wrong("%s is not the name of the signer of city %s", c.Name, city)
		}
	case CentreSigning:
		if c.Name != policy.CentreSignerName(domain) {
			return wrong("%s is not the name of the centre's signer below %s", c.Name, domain)
		}
	case Device:
		number, ok := strings.CutSuffix(c.Name, ".devices."+domain)
		number, named := strings.CutPrefix(number, "r")
		if !ok || !named || number == "" || strings.Contains(number, ".") {
			return wrong("%s is not the name of a device below %s", c.Name, domain)
		}
		c.Reader = number
	}
	return nil
}

// cityOf returns the city that a CA is fenced to by its name constraints.
func cityOf(ca *x509.Certificate, domain string) (city string, fenced bool) {
	if !ca.PermittedDNSDomainsCritical || len(ca.PermittedDNSDomains) != 1 {
		return "", false
	}
	city, ok := strings.CutSuffix(ca.PermittedDNSDomains[0], ".readers."+domain)
	return city, ok && domain != "" && isCity(city)
}

func isCity(s string) bool {
	return len(s) == 6 && strings.Trim(s, "0123456789") == ""
}

// tagDNS is the tag of a dNSName among GeneralNames (RFC 5280, Section 4.2.1.6).
const tagDNS = 2

// altNames lists the tags of all alternative names. crypto/x509 passes over the
// forms that it does not know, so it is asked of the bytes.
func altNames(c *x509.Certificate) (tags []int, err error) {
	value := extension(c, oid.ExtSubjectAltName)
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("reading the alternative names: %w", err)
	}
	for _, n := range names {
		tags = append(tags, n.Tag)
	}
	return tags, nil
}

func extension(c *x509.Certificate, id asn1.ObjectIdentifier) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value
		}
	}
	return nil
}

// fitsPolicy: the leaf has the one policy of the purpose, and every CA between it
// and the anchor asserts that policy. Hufu maps no policies and its CAs do not
// assert anyPolicy, so this is the whole of RFC 5280, Section 6.1.3 (d).
func (p Purpose) fitsPolicy(c *Cert, chain []*x509.Certificate) error {
	want := purposes[p].policy
	if have := chain[0].PolicyIdentifiers; len(chain[0].Policies) != 1 || len(have) != 1 || !have[0].Equal(want) {
		return &PolicyError{Subject: c.Subject, Detail: fmt.Sprintf("to %v its one policy is %v; it has %v", p, want, chain[0].Policies)}
	}
	for _, ca := range below(chain) {
		if !slices.ContainsFunc(ca.PolicyIdentifiers, want.Equal) {
			return &PolicyError{Subject: c.Subject, Detail: fmt.Sprintf("the CA %s does not assert the policy %v", ca.Subject, want)}
		}
	}
	return nil
}

// below returns the CAs whose limits count: all but the anchor, and the issuer of
// the leaf even where it is the anchor.
func below(chain []*x509.Certificate) []*x509.Certificate {
	return chain[1:max(2, len(chain)-1)]
}

// fitsUsage holds key usage and extended key usage against the purpose.
func (p Purpose) fitsUsage(c *Cert, chain []*x509.Certificate) error {
	wrong := func(format string, args ...any) error {
		return &PurposeError{Subject: c.Subject, Detail: fmt.Sprintf("it may not %v: ", p) + fmt.Sprintf(format, args...)}
	}
	leaf, use := chain[0], purposes[p]
	if leaf.IsCA {
		return wrong("it is a CA")
	}
	usage := x509.KeyUsageDigitalSignature
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if use.seals {
			usage = x509.KeyUsageKeyAgreement
		}
	case *rsa.PublicKey:
		if use.seals {
			usage = x509.KeyUsageKeyEncipherment
		}
		if n := key.N.BitLen(); n < 2048 || n > 4096 {
			return wrong("its RSA key has %d bits, not 2048 to 4096", n)
		}
	default:
		return wrong("its key is neither ECDSA nor RSA")
	}
	if leaf.KeyUsage != usage {
		return wrong("its key usage is another one")
	}
	if have, err := extendedUsages(leaf); err != nil || !slices.ContainsFunc(have, use.eku.Equal) {
		return wrong("its extended key usages do not hold %v", use.eku)
	}
	for _, ca := range below(chain) {
		have, err := extendedUsages(ca)
		if err != nil || !slices.ContainsFunc(have, use.eku.Equal) {
			return wrong("the CA %s is not for %v", ca.Subject, use.eku)
		}
	}
	return nil
}

func extendedUsages(c *x509.Certificate) (list []asn1.ObjectIdentifier, err error) {
	rest, err := asn1.Unmarshal(extension(c, oid.ExtExtendedKeyUsage), &list)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("reading the extended key usages: %w", err)
	}
	return list, nil
}
