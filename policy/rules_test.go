package policy_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hufu/internal/testpki"
	"hufu/policy"
)

// A specimen is a file in testdata: a certificate, and before it, as text, what
// it is judged by.
type specimen struct {
	note    string // what is wrong with it, or nothing
	profile string
	issuer  string // its certificate is issuers/<issuer>.pem
	kind    string // of the CA that is certified
	city    string // of the city CA that is certified
	der     []byte
}

func (s *specimen) text() []byte {
	var b bytes.Buffer
	for _, field := range [][2]string{{"note", s.note}, {"profile", s.profile}, {"issuer", s.issuer}, {"kind", s.kind}, {"city", s.city}} {
		if field[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", field[0], field[1])
		}
	}
	return append(b.Bytes(), testpki.PEM("CERTIFICATE", s.der)...)
}

func readSpecimen(t *testing.T, file string) *specimen {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := bytes.Cut(b, []byte("-----BEGIN"))
	fields := map[string]string{}
	for line := range strings.Lines(string(head)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	block, _ := pem.Decode(b)
	return &specimen{fields["note"], fields["profile"], fields["issuer"], fields["kind"], fields["city"], block.Bytes}
}

// subject parses a specimen together with what it is judged by.
func (s *specimen) subject(t *testing.T) *policy.Subject {
	t.Helper()
	ca := readSpecimen(t, filepath.Join("testdata", "issuers", s.issuer+".pem"))
	parsed, err := policy.Parse(ca.der, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &policy.Issuer{
		Context: policy.Context{ID: s.issuer, Kind: ca.kind, City: ca.city, Domain: testpki.Domain},
		Name:    parsed.RawSubject, KeyID: parsed.SubjectKeyID, NotBefore: parsed.NotBefore.Time, NotAfter: parsed.NotAfter.Time,
		Algorithm: parsed.OuterAlgorithm, // every key of the specimens is P-256
	}
	if len(parsed.PermittedDNS) == 1 {
		issuer.PermittedDNS = parsed.PermittedDNS[0]
	}
	subject, err := policy.Parse(s.der, testpki.Must(policy.Find(s.profile)), issuer)
	if err != nil {
		t.Fatal(err)
	}
	if s.profile == "working-ca" {
		subject.Kind, subject.City = testpki.Must(policy.FindKind(s.kind)), s.city
	}
	return subject
}

var citation = regexp.MustCompile(`^(RFC \d+, Section [\dA-Z.]+|X\.690, Section 10 and Section 11|Hufu profiles)$`)

// TestRules judges a good and a bad specimen for every rule. The good one meets
// the whole policy; the bad one fails its rule.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, rule := range policy.Rules {
		if !citation.MatchString(rule.Citation) {
			t.Errorf("rule %s: citation %q", rule.ID, rule.Citation)
		}
		if seen[rule.ID] {
			t.Errorf("rule %s stands there twice", rule.ID)
		}
		seen[rule.ID] = true
		good := readSpecimen(t, filepath.Join("testdata", rule.ID+".good.pem"))
		if err := policy.Judge(policy.Rules, good.subject(t)); err != nil {
			t.Errorf("rule %s, good specimen: %v", rule.ID, err)
		}
		bad := readSpecimen(t, filepath.Join("testdata", rule.ID+".bad.pem"))
		subject := bad.subject(t)
		var v *policy.Violation
		if err := policy.Judge([]policy.Rule{rule}, subject); !errors.As(err, &v) || v.Rule != rule.ID || v.Citation != rule.Citation {
			t.Errorf("rule %s, bad specimen (%s): %v", rule.ID, bad.note, err)
		}
		if policy.Judge(policy.Rules, subject) == nil {
			t.Errorf("rule %s, bad specimen (%s) passes the policy", rule.ID, bad.note)
		}
	}
	for _, file := range testpki.Must(filepath.Glob("testdata/*.pem")) {
		if id, _, _ := strings.Cut(filepath.Base(file), "."); !seen[id] {
			t.Errorf("%s belongs to no rule", file)
		}
	}
}

// TestIssuers judges the CAs of the specimens themselves.
func TestIssuers(t *testing.T) {
	for _, file := range testpki.Must(filepath.Glob("testdata/issuers/*.pem")) {
		if err := policy.Judge(policy.Rules, readSpecimen(t, file).subject(t)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// FuzzParse holds one property: no bytes make Parse or a rule panic.
func FuzzParse(f *testing.F) {
	for _, file := range testpki.Must(filepath.Glob("testdata/*.pem")) {
		block, _ := pem.Decode(testpki.Must(os.ReadFile(file)))
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, rule := range []string{"serial", "issuer-kind", "path-length", "no-check"} {
			s := readSpecimen(t, filepath.Join("testdata", rule+".good.pem"))
			s.der = der
			if _, err := policy.Parse(der, nil, nil); err != nil {
				return
			}
			subject := s.subject(t)
			for _, r := range policy.Rules {
				_ = policy.Judge([]policy.Rule{r}, subject)
			}
		}
	})
}
