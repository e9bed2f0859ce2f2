package policy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
)

// model is a certificate taken apart so far that any part can be spoilt.
type model struct {
	version   int64
	serial    []byte
	inner     []byte
	issuer    []byte
	times     [2][]byte // elements
	subject   []byte
	spki      []byte
	unique    []byte // what stands between key and extensions
	ext       []modelExtension
	outer     []byte
	signature []byte
}

type modelExtension struct {
	id       asn1.ObjectIdentifier
	critical []byte // the element as it stands there
	value    []byte
}

var (
	isTrue  = []byte{1, 1, 0xff}
	isFalse = []byte{1, 1, 0}
)

// takeApart makes a model of a certificate.
func takeApart(der []byte) *model {
	s := testpki.Must(policy.Parse(der, nil, nil))
	m := &model{version: s.Version, serial: s.Serial, inner: s.InnerAlgorithm, issuer: s.RawIssuer, subject: s.RawSubject, spki: s.SPKI, outer: s.OuterAlgorithm,
		signature: []byte{0x30, 6, 2, 1, 1, 2, 1, 1}}
	for i, t := range []policy.Time{s.NotBefore, s.NotAfter} {
		m.times[i] = element(t.Tag, t.Text)
	}
	for _, e := range s.Extensions {
		x := modelExtension{id: e.ID, value: e.Value}
		if e.Critical {
			x.critical = isTrue
		}
		m.ext = append(m.ext, x)
	}
	return m
}

func element(tag cbasn1.Tag, value []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
	return b.BytesOrPanic()
}

func sequence(parts ...[]byte) []byte { return element(cbasn1.SEQUENCE, bytes.Join(parts, nil)) }

func objectID(id asn1.ObjectIdentifier) []byte { return testpki.Must(asn1.Marshal(id)) }

func (m *model) der() []byte {
	var list [][]byte
	for _, e := range m.ext {
		list = append(list, sequence(objectID(e.id), e.critical, element(cbasn1.OCTET_STRING, e.value)))
	}
	tbs := sequence(
		element(cbasn1.Tag(0).Constructed().ContextSpecific(), testpki.Must(asn1.Marshal(m.version))),
		element(cbasn1.INTEGER, m.serial), m.inner, m.issuer, sequence(m.times[0], m.times[1]), m.subject, m.spki, m.unique,
		element(cbasn1.Tag(3).Constructed().ContextSpecific(), sequence(list...)),
	)
	return sequence(tbs, m.outer, element(cbasn1.BIT_STRING, append([]byte{0}, m.signature...)))
}

func (m *model) at(id asn1.ObjectIdentifier) *modelExtension {
	for i := range m.ext {
		if m.ext[i].id.Equal(id) {
			return &m.ext[i]
		}
	}
	panic("the specimen has no extension " + id.String())
}

func (m *model) set(id asn1.ObjectIdentifier, value []byte) { m.at(id).value = value }

func (m *model) drop(id asn1.ObjectIdentifier) {
	for i := range m.ext {
		if m.ext[i].id.Equal(id) {
			m.ext = append(m.ext[:i], m.ext[i+1:]...)
			return
		}
	}
}

func replace(b []byte, old, new string) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }

func dnsName(s string) []byte { return element(cbasn1.Tag(2).ContextSpecific(), []byte(s)) }

func uri(s string) []byte { return element(cbasn1.Tag(6).ContextSpecific(), []byte(s)) }

func context0(b []byte) []byte { return element(cbasn1.Tag(0).Constructed().ContextSpecific(), b) }

// spoilt says, for every rule, which specimen is good and how it goes bad.
var spoilt = []struct {
	rule  string
	from  string // a good specimen, see goodSpecimens
	note  string
	spoil func(*model, *specimen)
}{
	{"der", "reader-sign", "critical FALSE is written out", func(m *model, _ *specimen) { m.at(oid.ExtSubjectKeyID).critical = isFalse }},
	{"version", "reader-sign", "version 2", func(m *model, _ *specimen) { m.version = 1 }},
	{"serial", "reader-sign", "sixteen random octets alone", func(m *model, _ *specimen) { m.serial = append([]byte{0x7f}, m.serial[2:]...) }},
	{"signature-algorithm", "reader-sign", "SHA-384 outside, SHA-256 inside", func(m *model, _ *specimen) { m.outer = sequence(objectID(oid.SignatureECDSASHA384)) }},
	{"issuer-name", "reader-sign", "the issuer's organisation as PrintableString", func(m *model, _ *specimen) { m.issuer = replace(m.issuer, "\x0c\x04Hufu", "\x13\x04Hufu") }},
	{"issuer-kind", "server", "a server certified by the device CA", func(_ *model, s *specimen) { s.issuer = "device" }},
	{"validity-form", "reader-sign", "GeneralizedTime before 2050", func(m *model, _ *specimen) {
		m.times[1] = element(cbasn1.GeneralizedTime, append([]byte("20"), m.times[1][2:]...))
	}},
	{"validity-span", "reader-sign", "nine years", func(m *model, _ *specimen) { m.times[1] = replace(m.times[1], "\x0d30", "\x0d34") }},
	{"validity-in-issuer", "reader-sign", "begins before its issuer", func(m *model, _ *specimen) { m.times[0] = element(cbasn1.UTCTime, []byte("251231000000Z")) }},
	{"subject-form", "reader-sign", "a person's number in the subject", func(m *model, _ *specimen) {
		number := element(cbasn1.PrintableString, []byte("110101199003070000"))
		m.subject = sequence(m.subject[2:], element(cbasn1.SET, sequence(objectID(asn1.ObjectIdentifier{1, 2, 156, 10260, 4, 1, 1}), number)))
	}},
	{"subject-names", "reader-sign", "OU of another city", func(m *model, _ *specimen) { m.subject = replace(m.subject, "\x0c\x06330100", "\x0c\x06330200") }},
	{"key", "reader-sign", "a P-521 key", func(m *model, _ *specimen) {
		m.spki = spkiOf(testpki.Must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)).Public())
	}},
	{"unique-id", "reader-sign", "issuerUniqueID", func(m *model, _ *specimen) { m.unique = element(cbasn1.Tag(1).ContextSpecific(), []byte{0, 1}) }},
	{"extension-unique", "reader-sign", "subjectKeyIdentifier twice", func(m *model, _ *specimen) { m.ext = append(m.ext, *m.at(oid.ExtSubjectKeyID)) }},
	{"extension-known", "reader-sign", "an extension of a private arc", func(m *model, _ *specimen) {
		m.ext = append(m.ext, modelExtension{id: oid.Hufu, value: []byte{5, 0}})
	}},
	{"extension-order", "reader-sign", "subjectKeyIdentifier before authorityKeyIdentifier", func(m *model, _ *specimen) { m.ext[0], m.ext[1] = m.ext[1], m.ext[0] }},
	{"extension-critical", "reader-sign", "keyUsage is not critical", func(m *model, _ *specimen) { m.at(oid.ExtKeyUsage).critical = nil }},
	{"authority-key-id", "reader-sign", "of another CA", func(m *model, _ *specimen) { m.at(oid.ExtAuthorityKeyID).value[9] ^= 1 }},
	{"subject-key-id", "reader-sign", "of another key", func(m *model, _ *specimen) { m.at(oid.ExtSubjectKeyID).value[9] ^= 1 }},
	{"key-usage", "reader-sign", "contentCommitment beside digitalSignature", func(m *model, _ *specimen) { m.set(oid.ExtKeyUsage, []byte{3, 2, 6, 0xc0}) }},
	{"key-usage-ec", "reader-encrypt", "keyEncipherment with an EC key", func(m *model, _ *specimen) { m.set(oid.ExtKeyUsage, []byte{3, 2, 5, 0x20}) }},
	{"policies", "reader-sign", "the policy of staff", func(m *model, _ *specimen) {
		m.set(oid.ExtCertificatePolicies, sequence(sequence(objectID(oid.PolicyStaff))))
	}},
	{"subject-alt-name", "server", "a mail address beside the dNSName", func(m *model, _ *specimen) {
		m.set(oid.ExtSubjectAltName, sequence(dnsName("pki.card.example"), element(cbasn1.Tag(1).ContextSpecific(), []byte("pki@card.example"))))
	}},
	{"reserved-name", "server", "a reader's name", func(m *model, _ *specimen) {
		m.set(oid.ExtSubjectAltName, sequence(dnsName("pki.card.example"), dnsName("r1.330100.readers.card.example")))
	}},
	{"ca-profile", "reader-sign", "cA TRUE", func(m *model, _ *specimen) { m.set(oid.ExtBasicConstraints, sequence(isTrue)) }},
	{"path-length", "city CA", "no pathLenConstraint", func(m *model, _ *specimen) { m.set(oid.ExtBasicConstraints, sequence(isTrue)) }},
	{"name-constraints", "city CA", "addresses are not excluded", func(m *model, _ *specimen) {
		m.set(oid.ExtNameConstraints, sequence(context0(sequence(dnsName("330100.readers.card.example")))))
	}},
	{"city-name", "reader-sign", "two dNSNames", func(m *model, _ *specimen) {
		m.set(oid.ExtSubjectAltName, sequence(dnsName("r1.330100.readers.card.example"), dnsName("r2.330100.readers.card.example")))
	}},
	{"extended-key-usage", "reader-sign", "serverAuth too", func(m *model, _ *specimen) {
		m.set(oid.ExtExtendedKeyUsage, sequence(objectID(oid.EKUClientAuth), objectID(oid.EKUTransactionSigning), objectID(oid.EKUServerAuth)))
	}},
	{"ca-extended-key-usage", "city CA", "OCSPSigning", func(m *model, _ *specimen) {
		m.set(oid.ExtExtendedKeyUsage, sequence(objectID(oid.EKUClientAuth), objectID(oid.EKUOCSPSigning)))
	}},
	{"crl-address", "reader-sign", "https", func(m *model, _ *specimen) {
		m.set(oid.ExtCRLDistributionPoints, sequence(sequence(context0(context0(uri("https://pki.card.example/crl/330100.crl"))))))
	}},
	{"access-address", "reader-sign", "OCSP over https", func(m *model, _ *specimen) {
		m.set(oid.ExtAuthorityInfoAccess, sequence(
			sequence(objectID(oid.AccessOCSP), uri("https://pki.card.example/ocsp/330100")),
			sequence(objectID(oid.AccessCAIssuers), uri("http://pki.card.example/issuer/330100.cer"))))
	}},
	{"no-check", "responder", "id-pkix-ocsp-nocheck is missing", func(m *model, _ *specimen) { m.drop(oid.OCSPNoCheck) }},
}

// goodSpecimens makes what the bad ones are made from.
func goodSpecimens(w *testpki.World) map[string]*specimen {
	city := w.CA("330100")
	reader := testpki.Must(w.Reader("330100", "1"))
	return map[string]*specimen{
		"reader-sign":    {profile: "reader-sign", issuer: "330100", der: reader.Sign.Certificate},
		"reader-encrypt": {profile: "reader-encrypt", issuer: "330100", der: reader.Encrypt.Certificate},
		"server":         {profile: "server", issuer: "services", der: testpki.Must(w.Server("pki.card.example")).Certificate},
		"responder":      {profile: "ocsp", issuer: "330100", der: testpki.Must(city.New("ocsp", policy.Name{})).Certificate},
		"city CA":        {profile: "working-ca", issuer: "root", kind: policy.KindCity, city: "330100", der: city.Record.Certificate},
	}
}

// TestSpecimens writes testdata anew when it is run with -update, and else holds
// that each rule has its way of going bad.
func TestSpecimens(t *testing.T) {
	for i, rule := range policy.Rules {
		if i >= len(spoilt) || spoilt[i].rule != rule.ID {
			t.Fatalf("rule %s has no specimen in its place", rule.ID)
		}
	}
	if !*update {
		return
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	w := testpki.Must(testpki.New(testpki.Config{Now: func() time.Time { return now }, Cities: []string{"330100"}}))
	for _, ca := range w.CAs() {
		s := &specimen{note: "a CA of the specimens", profile: "working-ca", issuer: "root", kind: ca.Record.Kind, city: ca.Record.City, der: ca.Record.Certificate}
		if ca == w.Root {
			s.profile = "root"
		}
		writeSpecimen(t, filepath.Join("issuers", ca.Record.ID+".pem"), s)
	}
	good := goodSpecimens(w)
	for _, c := range spoilt {
		writeSpecimen(t, c.rule+".good.pem", good[c.from])
		bad := *good[c.from]
		bad.note = c.note
		m := takeApart(bytes.Clone(bad.der))
		c.spoil(m, &bad)
		bad.der = m.der()
		writeSpecimen(t, c.rule+".bad.pem", &bad)
	}
}

func writeSpecimen(t *testing.T, name string, s *specimen) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, s.text(), 0o644); err != nil {
		t.Fatal(err)
	}
}
