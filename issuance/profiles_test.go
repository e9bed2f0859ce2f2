package issuance_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return testpki.Must(rsa.GenerateKey(rand.Reader, 2048)) })

// world is one hierarchy for the tests that change nothing in it.
var world = sync.OnceValue(func() *testpki.World { return testpki.Must(testpki.New(testpki.Config{})) })

type sample struct {
	name    string // profile, and what is special
	leaf    *testpki.Leaf
	purpose string // of openssl verify, "" = any
}

// samples has at least one certificate of each profile that is not a CA's.
func samples(t testing.TB) []sample {
	t.Helper()
	w := world()
	p384 := testpki.Must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	reader := policy.Name{Reader: "33010000001"}
	certify := func(ca, profile string, name policy.Name, key crypto.Signer) *testpki.Leaf {
		return testpki.Must(w.CA(ca).Certify(key, issuance.Request{Profile: profile, Name: name, Shard: 3}))
	}
	pair := testpki.Must(w.Reader("330100", "33010000001"))
	list := []sample{
		{"device", testpki.Must(w.Device("33010000001")), "sslclient"},
		{"centre-sign", testpki.Must(w.CentreSigner()), ""},
		{"reader-sign", pair.Sign, "sslclient"},
		{"reader-sign P-384", certify("330100", "reader-sign", reader, p384), "sslclient"},
		{"reader-sign RSA", certify("330100", "reader-sign", reader, rsaKey()), "sslclient"},
		{"reader-encrypt", pair.Encrypt, ""},
		{"reader-encrypt RSA", certify("330100", "reader-encrypt", reader, rsaKey()), ""},
		{"city-sign", testpki.Must(w.CitySigner("330200")), ""},
		{"server", testpki.Must(w.Server("pki.card.example", "localhost")), "sslserver"},
		{"server with a long name", testpki.Must(w.Server(strings.Repeat("a-long-label.", 6) + "card.example")), "sslserver"},
		{"client", testpki.Must(w.Client("Top-up server 1", "")), "sslclient"},
		{"client of a city", testpki.Must(w.Client("Back end", "330100")), "sslclient"},
		{"client with a name", certify("services", "client", policy.Name{CommonName: "node", DNS: []string{"node.card.example"}, Organisation: "杭州市民卡"}, p384), "sslclient"},
		{"operator", testpki.Must(w.Operator("王芳", "330100")), "smimesign"},
		{"recipient", testpki.Must(w.CA("staff").New("recipient", policy.Name{Person: "王芳"})), ""},
		{"recipient with RSA", certify("staff", "recipient", policy.Name{Person: "王芳"}, rsaKey()), "smimeencrypt"},
	}
	for _, ca := range w.CAs()[1:] {
		list = append(list, sample{"ocsp of " + ca.Record.ID, testpki.Must(ca.New("ocsp", policy.Name{})), "ocsphelper"})
	}
	return list
}

// TestEveryProfileHasASample keeps the lists above and policy together.
func TestEveryProfileHasASample(t *testing.T) {
	all := samples(t)
	for _, p := range policy.Profiles {
		found := p.CA // the hierarchy itself
		for _, s := range all {
			found = found || s.leaf.Record.Profile == p.Name
		}
		if !found {
			t.Errorf("profile %s has no sample", p.Name)
		}
	}
}

// TestGo lets crypto/x509 verify everything. It does not insist on policies;
// TestOpenSSL does.
func TestGo(t *testing.T) {
	for _, s := range samples(t) {
		certificate := s.leaf.X509()
		pool := x509.NewCertPool()
		pool.AddCert(testpki.Must(x509.ParseCertificate(s.leaf.Chain[0])))
		options := x509.VerifyOptions{Roots: world().Pool(), Intermediates: pool, KeyUsages: certificate.ExtKeyUsage}
		if len(options.KeyUsages) == 0 || strings.HasPrefix(s.name, "ocsp") {
			// No working CA may lend out OCSPSigning, so RFC 6960's own rule stands
			// for the nesting of usages: the CA itself signed the responder.
			options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}
		if _, err := certificate.Verify(options); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// TestOpenSSL lets openssl verify everything as strictly as it can.
func TestOpenSSL(t *testing.T) {
	dir := t.TempDir()
	root := write(t, dir, "root.pem", testpki.PEM("CERTIFICATE", world().Root.Record.Certificate))
	for _, ca := range world().CAs() {
		file := write(t, dir, ca.Record.ID+".pem", testpki.PEM("CERTIFICATE", ca.Record.Certificate))
		run(t, "openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", root, file)
	}
	for _, s := range samples(t) {
		file := write(t, dir, "leaf.pem", testpki.PEM("CERTIFICATE", s.leaf.Certificate))
		p := testpki.Must(policy.Find(s.leaf.Record.Profile))
		args := []string{"verify", "-x509_strict", "-policy_check", "-explicit_policy", "-policy", p.Policy.String(),
			"-CAfile", root, "-untrusted", filepath.Join(dir, s.leaf.Record.CA+".pem")}
		if s.purpose != "" {
			args = append(args, "-purpose", s.purpose)
		}
		run(t, "openssl", append(args, file)...)
		wrong := slices.Replace(slices.Clone(args), 5, 6, oid.Hufu.String()+".1.99")
		if out, err := exec.Command("openssl", append(wrong, file)...).CombinedOutput(); err == nil {
			t.Errorf("%s passes with a policy that it does not have: %s", s.name, out)
		}
	}
}

// TestGnuTLS lets certtool verify everything.
func TestGnuTLS(t *testing.T) {
	dir := t.TempDir()
	root := write(t, dir, "root.pem", testpki.PEM("CERTIFICATE", world().Root.Record.Certificate))
	for _, s := range samples(t) {
		file := write(t, dir, "chain.pem", testpki.PEM("CERTIFICATE", append([][]byte{s.leaf.Certificate}, s.leaf.Chain...)...))
		run(t, "certtool", "--verify", "--load-ca-certificate", root, "--infile", file)
		out := run(t, "certtool", "--verify-chain", "--infile", file)
		if !strings.Contains(out, "Verified") {
			t.Errorf("%s: %s", s.name, out)
		}
	}
}

// TestLint lets zlint judge everything, and every waiver show that it is needed.
func TestLint(t *testing.T) {
	for _, ca := range world().CAs() {
		if err := issuance.Lint(ca.Record.Certificate); err != nil {
			t.Errorf("CA %s: %v", ca.Record.ID, err)
		}
		if err := ca.LintSamples(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range samples(t) {
		if err := issuance.Lint(s.leaf.Certificate); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func write(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run runs a program that nobody here wrote.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out)
}
