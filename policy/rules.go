package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// Rules is the policy. It reads from top to bottom: the bytes, the fields in
// their order, the extensions in theirs. Rules whose citation is "Hufu profiles"
// are this house's own; package profile values are their text.
var Rules = []Rule{
	{"der", "X.690, Section 10 and Section 11", nil, checkDER},
	{"version", "RFC 5280, Section 4.1.2.1", nil, checkVersion},
	{"serial", "RFC 5280, Section 4.1.2.2", nil, checkSerial},
	{"signature-algorithm", "RFC 5280, Section 4.1.1.2", nil, checkAlgorithm},
	{"issuer-name", "RFC 5280, Section 4.1.2.4", nil, checkIssuerName},
	{"issuer-kind", "Hufu profiles", nil, checkIssuerKind},
	{"validity-form", "RFC 5280, Section 4.1.2.5", nil, checkValidityForm},
	{"validity-span", "Hufu profiles", nil, checkValiditySpan},
	{"validity-in-issuer", "RFC 5280, Section 6.1.3", isIssued, checkValidityInIssuer},
	{"subject-form", "RFC 5280, Section 4.1.2.6", nil, checkSubjectForm},
	{"subject-names", "Hufu profiles", nil, checkSubjectNames},
	{"key", "RFC 5280, Section 4.1.2.7", nil, checkSubjectKey},
	{"unique-id", "RFC 5280, Section 4.1.2.8", nil, checkUniqueID},
	{"extension-unique", "RFC 5280, Section 4.2", nil, checkExtensionUnique},
	{"extension-known", "RFC 5280, Section 4.2", nil, checkExtensionKnown},
	{"extension-order", "Hufu profiles", nil, checkExtensionOrder},
	{"extension-critical", "RFC 5280, Section 4.2", nil, checkExtensionCritical},
	{"authority-key-id", "RFC 5280, Section 4.2.1.1", isIssued, checkAuthorityKeyID},
	{"subject-key-id", "RFC 5280, Section 4.2.1.2", nil, checkSubjectKeyID},
	{"key-usage", "RFC 5280, Section 4.2.1.3", nil, checkKeyUsage},
	{"key-usage-ec", "RFC 8813, Section 3", isEC, checkKeyUsageEC},
	{"policies", "RFC 5280, Section 4.2.1.4", isIssued, checkPolicies},
	{"subject-alt-name", "RFC 5280, Section 4.2.1.6", nil, checkAltName},
	{"reserved-name", "Hufu profiles", isParty, checkReservedName},
	{"ca-profile", "RFC 5280, Section 4.2.1.9", nil, checkCAProfile},
	{"path-length", "RFC 5280, Section 4.2.1.9", nil, checkPathLength},
	{"name-constraints", "RFC 5280, Section 4.2.1.10", nil, checkNameConstraints},
	{"city-name", "RFC 5280, Section 4.2.1.10", isCitySigned, checkCityName},
	{"extended-key-usage", "RFC 5280, Section 4.2.1.12", nil, checkEKU},
	{"ca-extended-key-usage", "RFC 6960, Section 4.2.2.2", isWorkingCA, checkCAEKU},
	{"crl-address", "RFC 5280, Section 4.2.1.13", isIssued, checkCRLAddress},
	{"access-address", "RFC 5280, Section 4.2.2.1", isIssued, checkAccessAddress},
	{"no-check", "RFC 6960, Section 4.2.2.2.1", nil, checkNoCheck},
}

// Who a rule is for.

func isRoot(s *Subject) bool       { return s.Profile.Form == FormRoot }
func isIssued(s *Subject) bool     { return !isRoot(s) }
func isWorkingCA(s *Subject) bool  { return s.Profile.Form == FormCA }
func isEC(s *Subject) bool         { return s.Key != "" && !s.Key.RSA() }
func isCitySigned(s *Subject) bool { return s.Issuer.Kind == KindCity }
func isParty(s *Subject) bool {
	return s.Profile.Form == FormServer || s.Profile.Form == FormClient
}

func checkVersion(s *Subject) string {
	if s.Version != 2 {
		return fmt.Sprintf("the version is v%d, extensions need v3", s.Version+1)
	}
	return ""
}

// serialLen is octet 01 and 16 random octets: positive whatever is drawn, always
// as long, and with 128 bits of chance left after the encoding.
const serialLen = 17

func checkSerial(s *Subject) string {
	if len(s.Serial) != serialLen || s.Serial[0] != 1 {
		return fmt.Sprintf("the serial number %x is not octet 01 followed by 16 octets", s.Serial)
	}
	return ""
}

func checkAlgorithm(s *Subject) string {
	switch {
	case !bytes.Equal(s.InnerAlgorithm, s.OuterAlgorithm):
		return "the signature algorithms inside and outside differ"
	case !bytes.Equal(s.InnerAlgorithm, s.Issuer.Algorithm):
		return "the signature algorithm is not the issuer's"
	}
	return ""
}

func checkIssuerName(s *Subject) string {
	name := s.Issuer.Name
	if isRoot(s) {
		name = s.RawSubject
	}
	if !bytes.Equal(s.RawIssuer, name) || len(name) <= 2 {
		return "the issuer is not, byte for byte, the subject of the issuer's certificate"
	}
	return ""
}

func checkIssuerKind(s *Subject) string {
	if !slices.Contains(s.Profile.Kinds, s.Issuer.Kind) {
		return fmt.Sprintf("a CA of kind %q does not issue certificates of profile %s", s.Issuer.Kind, s.Profile.Name)
	}
	return ""
}

// noExpiry is the end of a certificate that has none (RFC 5280, Section 4.1.2.5).
const noExpiry = "99991231235959Z"

func checkValidityForm(s *Subject) string {
	for _, t := range []*Time{&s.NotBefore, &s.NotAfter} {
		want := cbasn1.UTCTime
		if t.Year() >= 2050 {
			want = cbasn1.GeneralizedTime
		}
		switch {
		case t.Tag != want:
			return fmt.Sprintf("%s is not written as RFC 5280 wants it: UTCTime to 2049, GeneralizedTime from 2050", t.Text)
		case string(t.Text) == noExpiry:
			return "the certificate has no end"
		}
	}
	return ""
}

func checkValiditySpan(s *Subject) string {
	span := s.NotAfter.Sub(s.NotBefore.Time)
	switch {
	case span <= 0:
		return "the certificate ends before it begins"
	case span > s.Profile.Validity+s.Profile.Backdate:
		return fmt.Sprintf("the certificate would be valid for %s, profile %s allows %s", span, s.Profile.Name, s.Profile.Validity)
	}
	return ""
}

func checkValidityInIssuer(s *Subject) string {
	if s.NotBefore.Before(s.Issuer.NotBefore) || s.NotAfter.After(s.Issuer.NotAfter) {
		return fmt.Sprintf("the validity is not within the issuer's, %s to %s",
			s.Issuer.NotBefore.Format(time.RFC3339), s.Issuer.NotAfter.Format(time.RFC3339))
	}
	return ""
}

// attributes is what may stand in a subject, in this order, and the string type
// that each is written in.
var attributes = []struct {
	id    asn1.ObjectIdentifier
	tag   cbasn1.Tag
	short string
}{
	{oid.AttributeCountry, cbasn1.PrintableString, "C"},
	{oid.AttributeOrganization, cbasn1.UTF8String, "O"},
	{oid.AttributeOrganizationalUnit, cbasn1.UTF8String, "OU"},
	{oid.AttributeCommonName, cbasn1.UTF8String, "CN"},
	{oid.AttributeSerialNumber, cbasn1.PrintableString, "serialNumber"},
}

// subjects lists for each form the subjects that it allows, "?" after what may
// be left out. No form has room for a person's number.
var subjects = map[NameForm]string{
	FormRoot:      "C O CN",
	FormCA:        "C O OU? CN",
	FormDevice:    "C O CN serialNumber",
	FormCentre:    "C O CN",
	FormReader:    "C O OU CN serialNumber",
	FormCity:      "C O OU CN",
	FormServer:    "C O CN?",
	FormClient:    "C O OU? CN",
	FormPerson:    "C O OU? CN",
	FormResponder: "C O OU? CN",
}

func checkSubjectForm(s *Subject) string {
	rest := s.Attributes
	for want := range strings.SplitSeq(subjects[s.Profile.Form], " ") {
		short, optional := strings.CutSuffix(want, "?")
		i := attributeIndex(short)
		if len(rest) == 0 || !rest[0].Type.Equal(attributes[i].id) {
			if optional {
				continue
			}
			return fmt.Sprintf("the subject has no %s where form %s has it", short, s.Profile.Form)
		}
		if detail := attributeFault(&rest[0], short, attributes[i].tag); detail != "" {
			return detail
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return fmt.Sprintf("the subject has an attribute %s that form %s has no place for", rest[0].Type, s.Profile.Form)
	}
	return ""
}

func attributeIndex(short string) int {
	for i := range attributes {
		if attributes[i].short == short {
			return i
		}
	}
	return -1
}

func attributeFault(a *TypedAttribute, short string, tag cbasn1.Tag) string {
	if a.Tag != tag {
		return fmt.Sprintf("%s is not written in the string type for it", short)
	}
	if tag == cbasn1.PrintableString && !isPrintable(a.Value) {
		return fmt.Sprintf("%s holds a character that PrintableString has not", short)
	}
	if fault := textFault(short, a.Value); fault != "" {
		return fault
	}
	if short == "C" && len(a.Value) != 2 {
		return "C is not two letters"
	}
	return ""
}

// attribute is the value of the one attribute of that type, "" when absent.
func (s *Subject) attribute(id asn1.ObjectIdentifier) string {
	for i := range s.Attributes {
		if s.Attributes[i].Type.Equal(id) {
			return s.Attributes[i].Value
		}
	}
	return ""
}

// checkSubjectNames holds the subject and the alternative names together, and
// both with the CA's city and domain.
func checkSubjectNames(s *Subject) string {
	issuer := &s.Issuer.Context
	unit, common, number := s.attribute(oid.AttributeOrganizationalUnit), s.attribute(oid.AttributeCommonName), s.attribute(oid.AttributeSerialNumber)
	var want string
	switch s.Profile.Form {
	case FormDevice:
		want = DeviceName(number, issuer.Domain)
	case FormCentre:
		want = CentreSignerName(issuer.Domain)
	case FormReader:
		want = ReaderName(number, issuer.City, issuer.Domain)
	case FormCity:
		want = CitySignerName(issuer.City, issuer.Domain)
	case FormResponder:
		if issuer.Kind != KindCity {
			return ""
		}
		want = "ocsp." + CityDomain(issuer.City, issuer.Domain)
	case FormServer:
		if len(s.DNS) == 0 || common != "" && common != s.DNS[0] {
			return "CN is not the first dNSName"
		}
		return ""
	case FormCA:
		if unit != s.City {
			return fmt.Sprintf("OU %q is not the city %q of the CA", unit, s.City)
		}
		return ""
	default:
		return ""
	}
	switch {
	case number != "" && !validReader(number):
		return fmt.Sprintf("serialNumber %q is not a reader's number", number)
	case unit != issuer.City:
		return fmt.Sprintf("OU %q is not the issuer's city %q", unit, issuer.City)
	case common != want:
		return fmt.Sprintf("CN %q is not %q", common, want)
	case len(s.DNS) != 1 || s.DNS[0] != want:
		return fmt.Sprintf("the dNSNames %q are not %q alone", s.DNS, want)
	}
	return ""
}

func checkSubjectKey(s *Subject) string {
	if s.Key == "" {
		return "the subject's key is none that is certified"
	}
	if !slices.Contains(s.Profile.Keys, s.Key) {
		return fmt.Sprintf("profile %s takes no %s key", s.Profile.Name, s.Key)
	}
	return ""
}

func checkUniqueID(s *Subject) string {
	if s.UniqueIDs {
		return "unique identifiers are present"
	}
	return ""
}

func checkKeyUsage(s *Subject) string {
	if want := s.Profile.Usage(s.Key); s.KeyUsage != want {
		return fmt.Sprintf("the key usage is %09b, profile %s has %09b (lowest bit: digitalSignature)", s.KeyUsage, s.Profile.Name, want)
	}
	return ""
}

func checkKeyUsageEC(s *Subject) string {
	if s.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) != 0 {
		return "an elliptic curve key enciphers neither keys nor data: keyAgreement is what it does"
	}
	return ""
}

func checkCAProfile(s *Subject) string {
	if s.CA != s.Profile.CA {
		return fmt.Sprintf("cA is %t, profile %s has %t", s.CA, s.Profile.Name, s.Profile.CA)
	}
	if !s.CA && s.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "the key usage lets a key sign certificates or CRLs that belongs to no CA"
	}
	return ""
}

func checkPathLength(s *Subject) string {
	want := int64(-1)
	if s.Profile.CA {
		want = int64(s.Profile.PathLen)
	}
	if s.PathLen != want {
		return fmt.Sprintf("pathLenConstraint is %d, profile %s has %d (-1: none)", s.PathLen, s.Profile.Name, want)
	}
	return ""
}
