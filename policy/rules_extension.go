package policy

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"net/url"
	"slices"

	"hufu/internal/oid"
)

// extensions is what may stand in a certificate, in this order, whether it is
// critical, and which certificates have it.
var extensions = []struct {
	id       asn1.ObjectIdentifier
	name     string
	critical bool
	needed   func(*Subject) bool
}{
	{oid.ExtAuthorityKeyID, "authorityKeyIdentifier", false, isIssued},
	{oid.ExtSubjectKeyID, "subjectKeyIdentifier", false, always},
	{oid.ExtKeyUsage, "keyUsage", true, always},
	{oid.ExtExtendedKeyUsage, "extKeyUsage", false, isIssued},
	{oid.ExtBasicConstraints, "basicConstraints", true, always},
	{oid.ExtNameConstraints, "nameConstraints", true, isFenced},
	{oid.ExtCertificatePolicies, "certificatePolicies", false, isIssued},
	{oid.ExtSubjectAltName, "subjectAltName", false, hasNames},
	{oid.ExtCRLDistributionPoints, "cRLDistributionPoints", false, isIssued},
	{oid.ExtFreshestCRL, "freshestCRL", false, hasDeltas},
	{oid.ExtAuthorityInfoAccess, "authorityInfoAccess", false, isIssued},
	{oid.OCSPNoCheck, "id-pkix-ocsp-nocheck", false, func(s *Subject) bool { return s.Profile.NoCheck }},
}

func always(*Subject) bool     { return true }
func isFenced(s *Subject) bool { return s.Kind != nil && s.Kind.Fenced }
func hasNames(s *Subject) bool { return len(s.DNS) > 0 || needsNames(s) }

// hasDeltas: a working CA may publish delta CRLs, and then says where. The root is offline and has none.
func hasDeltas(s *Subject) bool { return len(s.Deltas) > 0 && !s.CA }

func needsNames(s *Subject) bool {
	return isCitySigned(s) || slices.Contains(namedForms, s.Profile.Form)
}

// namedForms are the forms with at least one dNSName. A client may have some.
var namedForms = []NameForm{FormDevice, FormCentre, FormReader, FormCity, FormServer}

func extensionIndex(id asn1.ObjectIdentifier) int {
	for i := range extensions {
		if extensions[i].id.Equal(id) {
			return i
		}
	}
	return -1
}

func checkExtensionUnique(s *Subject) string {
	for i := range s.Extensions {
		for j := range i {
			if s.Extensions[j].ID.Equal(s.Extensions[i].ID) {
				return fmt.Sprintf("extension %s is there twice", s.Extensions[i].ID)
			}
		}
	}
	return ""
}

// checkExtensionKnown compares what is there with what the profile lists, both
// ways.
func checkExtensionKnown(s *Subject) string {
	for i := range s.Extensions {
		known := extensionIndex(s.Extensions[i].ID)
		if known < 0 || !extensions[known].needed(s) {
			return fmt.Sprintf("extension %s has no place in profile %s", s.Extensions[i].ID, s.Profile.Name)
		}
	}
	for i := range extensions {
		if extensions[i].needed(s) && s.extension(extensions[i].id) == nil {
			return fmt.Sprintf("extension %s is missing, profile %s has it", extensions[i].name, s.Profile.Name)
		}
	}
	return ""
}

func (s *Subject) extension(id asn1.ObjectIdentifier) *Extension {
	for i := range s.Extensions {
		if s.Extensions[i].ID.Equal(id) {
			return &s.Extensions[i]
		}
	}
	return nil
}

// checkExtensionOrder keeps one order, so that two certificates of one profile
// differ only where they say different things.
func checkExtensionOrder(s *Subject) string {
	last := -1
	for i := range s.Extensions {
		known := extensionIndex(s.Extensions[i].ID)
		if known < last {
			return fmt.Sprintf("extension %s stands too late", s.Extensions[i].ID)
		}
		last = known
	}
	return ""
}

func checkExtensionCritical(s *Subject) string {
	for i := range s.Extensions {
		e := &s.Extensions[i]
		known := extensionIndex(e.ID)
		if known >= 0 && e.Critical != extensions[known].critical {
			return fmt.Sprintf("extension %s has critical %t, it is %t", extensions[known].name, e.Critical, extensions[known].critical)
		}
	}
	return ""
}

func checkAuthorityKeyID(s *Subject) string {
	if len(s.AuthorityKeyID) == 0 || !bytes.Equal(s.AuthorityKeyID, s.Issuer.KeyID) {
		return fmt.Sprintf("authorityKeyIdentifier %x is not the issuer's subjectKeyIdentifier %x", s.AuthorityKeyID, s.Issuer.KeyID)
	}
	return ""
}

func checkSubjectKeyID(s *Subject) string {
	if id := KeyID(s.KeyBits); !bytes.Equal(s.SubjectKeyID, id[:]) {
		return fmt.Sprintf("subjectKeyIdentifier %x is not the one of the key, %x", s.SubjectKeyID, id)
	}
	return ""
}

func checkPolicies(s *Subject) string {
	want := []asn1.ObjectIdentifier{s.Profile.Policy}
	if s.Kind != nil {
		want = s.Kind.Policies
	}
	if !equalOIDs(s.Policies, want) || s.Qualifiers {
		return fmt.Sprintf("the policies %v are not %v without qualifiers", s.Policies, want)
	}
	return ""
}

func checkAltName(s *Subject) string {
	if s.OtherNames {
		return "subjectAltName holds something else than dNSNames"
	}
	for _, name := range s.DNS {
		if detail := dnsFault(name); detail != "" {
			return fmt.Sprintf("dNSName %q %s", name, detail)
		}
	}
	return ""
}

// checkReservedName keeps servers and clients out of the readers' names, since
// a name is what a city's CA is fenced by.
func checkReservedName(s *Subject) string {
	for _, name := range s.DNS {
		if below(name, "readers."+s.Issuer.Domain) || below(name, "devices."+s.Issuer.Domain) {
			return fmt.Sprintf("dNSName %q lies where only readers have names", name)
		}
	}
	return ""
}

// everyIP is 0.0.0.0/0 and ::/0, address and mask.
var everyIP = [][]byte{make([]byte, 8), make([]byte, 32)}

// checkNameConstraints wants the fence around a city CA, and none elsewhere: a
// critical constraint that a verifier does not know closes the way.
func checkNameConstraints(s *Subject) string {
	var permitted []string
	var excluded [][]byte
	if isFenced(s) {
		permitted, excluded = []string{CityDomain(s.City, s.Issuer.Domain)}, everyIP
	}
	switch {
	case s.OtherSubtrees:
		return "nameConstraints hold something else than permitted dNSNames and excluded iPAddresses"
	case !slices.Equal(s.PermittedDNS, permitted):
		return fmt.Sprintf("the permitted dNSNames are %q, not %q", s.PermittedDNS, permitted)
	case !slices.EqualFunc(s.ExcludedIP, excluded, bytes.Equal):
		return "the excluded iPAddresses are not all of IPv4 and IPv6"
	}
	return ""
}

// checkCityName closes the way out of the fence: constraints bind only names
// of their form, so that a certificate without a dNSName would escape.
func checkCityName(s *Subject) string {
	domain := CityDomain(s.Issuer.City, s.Issuer.Domain)
	switch {
	case len(s.DNS) != 1 || s.OtherNames:
		return "a city CA certifies exactly one dNSName and no other form"
	case !below(s.DNS[0], domain) || s.DNS[0] == domain:
		return fmt.Sprintf("dNSName %q does not lie below %s", s.DNS[0], domain)
	case s.Issuer.PermittedDNS != domain:
		return fmt.Sprintf("the CA's own certificate permits %q, not %q", s.Issuer.PermittedDNS, domain)
	}
	return ""
}

func checkEKU(s *Subject) string {
	want := s.Profile.EKU
	if s.Kind != nil {
		want = s.Kind.EKU
	}
	if !equalOIDs(s.EKU, want) {
		return fmt.Sprintf("the extended key usages %v are not %v", s.EKU, want)
	}
	return ""
}

// checkCAEKU stands beside checkEKU so that a slip in Kinds is found as well.
func checkCAEKU(s *Subject) string {
	forbidden := []asn1.ObjectIdentifier{oid.EKUAny, oid.EKUOCSPSigning}
	if isFenced(s) {
		forbidden = append(forbidden, oid.EKUServerAuth)
	}
	for _, id := range forbidden {
		if slices.ContainsFunc(s.EKU, id.Equal) {
			return fmt.Sprintf("a working CA of this kind must not have the extended key usage %s", id)
		}
	}
	return ""
}

func checkCRLAddress(s *Subject) string {
	if len(s.CRLs) != 1 {
		return fmt.Sprintf("there are %d addresses of CRLs, one is wanted", len(s.CRLs))
	}
	for _, uri := range append(s.CRLs, s.Deltas...) {
		if detail := addressFault(uri); detail != "" {
			return detail
		}
	}
	if len(s.Deltas) > 1 {
		return fmt.Sprintf("there are %d addresses of delta CRLs, one at most is wanted", len(s.Deltas))
	}
	return ""
}

// checkAccessAddress wants the issuer's address everywhere, and the one of OCSP
// but below the root, which is offline and answers by its CRL.
func checkAccessAddress(s *Subject) string {
	ocsp := 1
	if isWorkingCA(s) {
		ocsp = 0
	}
	if len(s.OCSP) != ocsp || len(s.Issuers) != 1 {
		return fmt.Sprintf("there are %d addresses of OCSP and %d of the issuer, %d and 1 are wanted", len(s.OCSP), len(s.Issuers), ocsp)
	}
	for _, uri := range append(s.OCSP, s.Issuers...) {
		if detail := addressFault(uri); detail != "" {
			return detail
		}
	}
	return ""
}

// addressFault refuses all but plain http: a download over https would need the
// very status that it fetches (RFC 5280, Section 8).
func addressFault(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Sprintf("address %q is not a plain http URL", uri)
	}
	return ""
}

func checkNoCheck(s *Subject) string {
	e := s.extension(oid.OCSPNoCheck)
	if e == nil {
		if s.Profile.NoCheck {
			return "id-pkix-ocsp-nocheck is missing"
		}
		return ""
	}
	if !s.Profile.NoCheck || !bytes.Equal(e.Value, derNull) {
		return "id-pkix-ocsp-nocheck belongs, with the value NULL, to responders alone"
	}
	return ""
}

func equalOIDs(x, y []asn1.ObjectIdentifier) bool {
	return slices.EqualFunc(x, y, func(a, b asn1.ObjectIdentifier) bool { return a.Equal(b) })
}
