package policy_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
)

// TestMoreWaysToFail spoils good specimens in other ways than the files show,
// and expects the rule named to see it.
func TestMoreWaysToFail(t *testing.T) {
	readerRule, serverRule, caRule, responderRule := "serial", "issuer-kind", "path-length", "no-check" // whose good specimens are of these profiles
	critical := func(id []int, on []byte) func(*model) { return func(m *model) { m.at(id).critical = on } }
	value := func(id []int, v []byte) func(*model) { return func(m *model) { m.set(id, v) } }
	drop := func(id []int) func(*model) { return func(m *model) { m.drop(id) } }
	names := func(n ...[]byte) func(*model) { return value(oid.ExtSubjectAltName, sequence(n...)) }
	freshest := func(points ...[]byte) func(*model) {
		return func(m *model) {
			i := slices.IndexFunc(m.ext, func(e modelExtension) bool { return slices.Equal(e.id, oid.ExtCRLDistributionPoints) })
			m.ext = slices.Insert(m.ext, i+1, modelExtension{id: oid.ExtFreshestCRL, value: sequence(points...)})
		}
	}
	for _, c := range []struct {
		rule, from, what string
		spoil            func(*model)
	}{
		{"der", readerRule, "cA FALSE is written out", value(oid.ExtBasicConstraints, sequence(isFalse))},
		{"der", readerRule, "key usage with trailing zeros", value(oid.ExtKeyUsage, []byte{3, 2, 0, 0x80})},
		{"der", responderRule, "TRUE is 01", value(oid.OCSPNoCheck, []byte{1, 1, 1})},
		{"der", responderRule, "a SET that is not sorted", value(oid.OCSPNoCheck, element(cbasn1.SET, []byte{2, 1, 2, 2, 1, 1}))},
		{"der", responderRule, "a NULL that is not empty", value(oid.OCSPNoCheck, []byte{5, 1, 0})},
		{"der", responderRule, "unused bits that are set", value(oid.OCSPNoCheck, []byte{3, 2, 1, 1})},
		{"der", responderRule, "nested without end", value(oid.OCSPNoCheck, nested(40))},
		{"der", readerRule, "serial number with a zero too many", func(m *model) { m.serial = append([]byte{0}, m.serial...) }},
		{"serial", readerRule, "negative", func(m *model) { m.serial[0] = 0x81 }},
		{"serial", readerRule, "one octet", func(m *model) { m.serial = []byte{1} }},
		{"signature-algorithm", readerRule, "SHA-384 on both sides", func(m *model) {
			m.outer = sequence(objectID(oid.SignatureECDSASHA384))
			m.inner = m.outer
		}},
		{"signature-algorithm", readerRule, "parameters", func(m *model) {
			m.outer = sequence(objectID(oid.SignatureECDSASHA256), []byte{5, 0})
			m.inner = m.outer
		}},
		{"issuer-name", readerRule, "empty", func(m *model) { m.issuer = sequence() }},
		{"validity-form", readerRule, "no end", func(m *model) { m.times[1] = element(cbasn1.GeneralizedTime, []byte("99991231235959Z")) }},
		{"validity-span", readerRule, "ends before it begins", func(m *model) { m.times[0], m.times[1] = m.times[1], m.times[0] }},
		{"validity-in-issuer", readerRule, "ends after its issuer", func(m *model) { m.times[1] = element(cbasn1.UTCTime, []byte("491231000000Z")) }},
		{"subject-form", readerRule, "no country", func(m *model) { m.subject = sequence(m.subject[2+13:]) }},
		{"subject-form", readerRule, "empty", func(m *model) { m.subject = sequence() }},
		{"subject-form", readerRule, "organisation as PrintableString", func(m *model) { m.subject = replace(m.subject, "\x0c\x04Hufu", "\x13\x04Hufu") }},
		{"subject-form", readerRule, "a control character", func(m *model) { m.subject = replace(m.subject, "\x0c\x04Hufu", "\x0c\x04Hu\x00u") }},
		{"subject-form", readerRule, "country of three letters", func(m *model) { m.subject = replace(m.subject, "\x13\x02CN", "\x13\x02\x00N") }},
		{"subject-names", readerRule, "another reader's number", func(m *model) { m.subject = replace(m.subject, "\x13\x011", "\x13\x012") }},
		{"subject-names", readerRule, "a number that is none", func(m *model) { m.subject = replace(m.subject, "\x13\x011", "\x13\x01-") }},
		{"subject-names", readerRule, "another reader's name", func(m *model) { m.subject = replace(m.subject, "r1.3", "r2.3") }},
		{"subject-names", readerRule, "another reader's dNSName", names(dnsName("r2.330100.readers.card.example"))},
		{"subject-names", serverRule, "CN is not the first dNSName", names(dnsName("www.card.example"))},
		{"subject-names", caRule, "OU of another city", func(m *model) { m.subject = replace(m.subject, "\x0c\x06330100", "\x0c\x06330200") }},
		{"subject-names", responderRule, "another city's", names(dnsName("ocsp.330200.readers.card.example"))},
		{"extension-known", readerRule, "no authorityKeyIdentifier", drop(oid.ExtAuthorityKeyID)},
		{"extension-known", readerRule, "no addresses", drop(oid.ExtAuthorityInfoAccess)},
		{"extension-known", readerRule, "nocheck", func(m *model) { m.ext = append(m.ext, modelExtension{id: oid.OCSPNoCheck, value: []byte{5, 0}}) }},
		{"extension-known", readerRule, "no extensions", func(m *model) { m.ext = nil }},
		{"extension-known", caRule, "no nameConstraints", drop(oid.ExtNameConstraints)},
		{"extension-critical", readerRule, "critical policies", critical(oid.ExtCertificatePolicies, isTrue)},
		{"extension-critical", caRule, "nameConstraints not critical", critical(oid.ExtNameConstraints, nil)},
		{"extension-critical", caRule, "basicConstraints not critical", critical(oid.ExtBasicConstraints, nil)},
		{"authority-key-id", readerRule, "empty", value(oid.ExtAuthorityKeyID, sequence(element(cbasn1.Tag(0).ContextSpecific(), nil)))},
		{"key-usage", caRule, "no cRLSign", value(oid.ExtKeyUsage, []byte{3, 2, 2, 4})},
		{"policies", readerRule, "any policy", value(oid.ExtCertificatePolicies, sequence(sequence(objectID([]int{2, 5, 29, 32, 0}))))},
		{"policies", readerRule, "a qualifier", value(oid.ExtCertificatePolicies, sequence(sequence(objectID(oid.PolicyReader), sequence(sequence(objectID(oid.Hufu), []byte{5, 0})))))},
		{"policies", caRule, "the policy of services too", value(oid.ExtCertificatePolicies, sequence(sequence(objectID(oid.PolicyReader)), sequence(objectID(oid.PolicyService))))},
		{"subject-alt-name", serverRule, "capital letters", names(dnsName("PKI.card.example"))},
		{"subject-alt-name", serverRule, "wildcard", names(dnsName("*.card.example"))},
		{"subject-alt-name", serverRule, "zero octet", names(dnsName("pki.card.example\x00.bank.example"))},
		{"subject-alt-name", serverRule, "address as a name", names(dnsName("10.0.0.1"))},
		{"reserved-name", serverRule, "a device's name", names(dnsName("pki.card.example"), dnsName("r1.devices.card.example"))},
		{"reserved-name", serverRule, "the readers' domain itself", names(dnsName("pki.card.example"), dnsName("readers.card.example"))},
		{"ca-profile", readerRule, "keyCertSign", value(oid.ExtKeyUsage, []byte{3, 2, 2, 0x84})},
		{"ca-profile", caRule, "cA FALSE", value(oid.ExtBasicConstraints, sequence())},
		{"path-length", readerRule, "in no CA", value(oid.ExtBasicConstraints, sequence([]byte{2, 1, 0}))},
		{"path-length", caRule, "one", value(oid.ExtBasicConstraints, sequence(isTrue, []byte{2, 1, 1}))},
		{"name-constraints", caRule, "another city", func(m *model) {
			m.set(oid.ExtNameConstraints, replace(m.at(oid.ExtNameConstraints).value, "330100", "330200"))
		}},
		{"name-constraints", caRule, "a minimum", func(m *model) {
			m.set(oid.ExtNameConstraints, sequence(context0(sequence(dnsName("330100.readers.card.example"), element(cbasn1.Tag(0).ContextSpecific(), []byte{1})))))
		}},
		{"name-constraints", caRule, "a directoryName", func(m *model) {
			m.set(oid.ExtNameConstraints, sequence(context0(sequence(element(cbasn1.Tag(4).Constructed().ContextSpecific(), sequence())))))
		}},
		{"city-name", readerRule, "another city's", names(dnsName("r1.330200.readers.card.example"))},
		{"city-name", readerRule, "the city itself", names(dnsName("330100.readers.card.example"))},
		{"city-name", readerRule, "a name that ends alike", names(dnsName("r1.x330100.readers.card.example"))},
		{"city-name", readerRule, "an address beside it", names(dnsName("r1.330100.readers.card.example"), element(cbasn1.Tag(7).ContextSpecific(), make([]byte, 4)))},
		{"city-name", readerRule, "none", drop(oid.ExtSubjectAltName)},
		{"extended-key-usage", readerRule, "one is missing", value(oid.ExtExtendedKeyUsage, sequence(objectID(oid.EKUClientAuth)))},
		{"extended-key-usage", readerRule, "none", drop(oid.ExtExtendedKeyUsage)},
		{"ca-extended-key-usage", caRule, "any", value(oid.ExtExtendedKeyUsage, sequence(objectID(oid.EKUAny)))},
		{"ca-extended-key-usage", caRule, "serverAuth below a city", value(oid.ExtExtendedKeyUsage, sequence(objectID(oid.EKUServerAuth)))},
		{"crl-address", readerRule, "two", value(oid.ExtCRLDistributionPoints, sequence(sequence(context0(context0(slices.Concat(uri("http://a.example/"), uri("http://b.example/")))))))},
		{"crl-address", readerRule, "ldap", value(oid.ExtCRLDistributionPoints, sequence(sequence(context0(context0(uri("ldap://a.example/cn=x"))))))},
		{"crl-address", readerRule, "delta over ldap", freshest(sequence(context0(context0(uri("ldap://a.example/cn=x")))))},
		{"crl-address", readerRule, "two deltas", freshest(sequence(context0(context0(slices.Concat(uri("http://a.example/"), uri("http://b.example/"))))))},
		{"extension-known", caRule, "a delta of the root", freshest(sequence(context0(context0(uri("http://a.example/")))))},
		{"access-address", readerRule, "no OCSP", value(oid.ExtAuthorityInfoAccess, sequence(sequence(objectID(oid.AccessCAIssuers), uri("http://a.example/"))))},
		{"access-address", readerRule, "a user in the address", value(oid.ExtAuthorityInfoAccess, sequence(
			sequence(objectID(oid.AccessOCSP), uri("http://u:p@a.example/")), sequence(objectID(oid.AccessCAIssuers), uri("http://a.example/"))))},
		{"access-address", caRule, "OCSP of the root", value(oid.ExtAuthorityInfoAccess, sequence(
			sequence(objectID(oid.AccessOCSP), uri("http://a.example/")), sequence(objectID(oid.AccessCAIssuers), uri("http://a.example/"))))},
		{"no-check", responderRule, "something in it", value(oid.OCSPNoCheck, sequence([]byte{5, 0}))},
	} {
		s := readSpecimen(t, filepath.Join("testdata", c.from+".good.pem"))
		m := takeApart(bytes.Clone(s.der))
		c.spoil(m)
		s.der = m.der()
		subject := s.subject(t)
		i := slices.IndexFunc(policy.Rules, func(r policy.Rule) bool { return r.ID == c.rule })
		var v *policy.Violation
		if err := policy.Judge(policy.Rules[i:i+1], subject); !errors.As(err, &v) || strings.TrimSpace(v.Detail) == "" {
			t.Errorf("%s, %s: %v", c.rule, c.what, err)
		}
		if policy.Judge(policy.Rules, subject) == nil {
			t.Errorf("%s, %s: passes the policy", c.rule, c.what)
		}
	}
}

func nested(depth int) []byte {
	b := []byte{5, 0}
	for range depth {
		b = sequence(b)
	}
	return b
}

// TestParseRefuses has what is not even a certificate.
func TestParseRefuses(t *testing.T) {
	good := readSpecimen(t, "testdata/serial.good.pem").der
	spoil := func(f func(*model)) []byte {
		m := takeApart(bytes.Clone(good))
		f(m)
		return m.der()
	}
	for name, der := range map[string][]byte{
		"nothing":           nil,
		"rubbish":           []byte("rubbish"),
		"oversized":         make([]byte, policy.MaxCertificate+1),
		"cut":               good[:len(good)-1],
		"something behind":  append(bytes.Clone(good), 0),
		"indefinite length": append([]byte{0x30, 0x80}, good[4:]...),
		"time without Z":    spoil(func(m *model) { m.times[0] = element(cbasn1.UTCTime, []byte("260101000000")) }),
		"time with a zone":  spoil(func(m *model) { m.times[0] = element(cbasn1.UTCTime, []byte("260101000000+0800")) }),
		"fraction":          spoil(func(m *model) { m.times[1] = element(cbasn1.GeneralizedTime, []byte("20300101000000.5Z")) }),
		"time as text":      spoil(func(m *model) { m.times[1] = element(cbasn1.UTF8String, []byte("20300101000000Z")) }),
		"two in one RDN": spoil(func(m *model) {
			a := sequence(objectID(oid.AttributeCommonName), element(cbasn1.UTF8String, []byte("x")))
			m.subject = sequence(element(cbasn1.SET, append(bytes.Clone(a), a...)))
		}),
		"empty policies":   spoil(func(m *model) { m.set(oid.ExtCertificatePolicies, sequence()) }),
		"long key usage":   spoil(func(m *model) { m.set(oid.ExtKeyUsage, []byte{3, 3, 0, 0x80, 0x80}) }),
		"garbled critical": spoil(func(m *model) { m.at(oid.ExtKeyUsage).critical = []byte{1, 1, 1} }),
		"negative pathLen": spoil(func(m *model) { m.set(oid.ExtBasicConstraints, sequence(isTrue, []byte{2, 1, 0xff})) }),
	} {
		if _, err := policy.Parse(der, nil, nil); err == nil {
			t.Errorf("%s: read as a certificate", name)
		}
	}
}

func TestReaderName(t *testing.T) {
	for name, ok := range map[string]bool{
		"r33010000001.330100.readers.card.example":           true,
		"r1.330100.readers.card.example":                     true,
		"r.330100.readers.card.example":                      false,
		"1.330100.readers.card.example":                      false,
		"r1.33010.readers.card.example":                      false,
		"r1.x.330100.readers.card.example":                   false,
		"r1.330100.readers.card.example.":                    false,
		"r1.330100.readers.bank.example":                     false,
		"sign.330100.readers.card.example":                   false,
		"rA.330100.readers.card.example":                     false,
		"r123456789012345678901.330100.readers.card.example": false,
	} {
		number, city, err := policy.ParseReaderName(name, testpki.Domain)
		if ok != (err == nil) || ok && policy.ReaderName(number, city, testpki.Domain) != name {
			t.Errorf("%s: %q %q %v", name, number, city, err)
		}
	}
}
