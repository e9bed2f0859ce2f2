package issuance_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/policy"
)

// stolen makes a certificate as whoever stole a city CA's key would: without
// this house's rules.
func stolen(t *testing.T, ca *testpki.CA, change func(*x509.Certificate)) []byte {
	t.Helper()
	key := testpki.Must(testpki.Key())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		DNSNames: []string{"r1.330100.readers.card.example"},
	}
	change(template)
	parent := testpki.Must(x509.ParseCertificate(ca.Certificate()))
	return testpki.Must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.Signer))
}

// TestCityCannotEscape tries the ways out of a city CA's fence. Verifiers that
// know nothing of Hufu stop all but one of them; the last, a certificate without
// a dNSName, is why the policy and the relying parties want exactly one.
func TestCityCannotEscape(t *testing.T) {
	city := world().CA("330100")
	dir := t.TempDir()
	write(t, dir, "root.pem", testpki.PEM("CERTIFICATE", world().Root.Certificate()))
	write(t, dir, "ca.pem", testpki.PEM("CERTIFICATE", city.Certificate()))
	issuer := &policy.Issuer{Context: policy.Context{ID: "330100", Kind: policy.KindCity, City: "330100", Domain: testpki.Domain},
		PermittedDNS: "330100.readers.card.example"}
	for _, c := range []struct {
		name    string
		usage   x509.ExtKeyUsage
		purpose string
		change  func(*x509.Certificate)
		stopped bool // by verifiers that know nothing of Hufu
	}{
		{"inside", x509.ExtKeyUsageClientAuth, "sslclient", func(*x509.Certificate) {}, false},
		{"another city", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.DNSNames = []string{"r1.330200.readers.card.example"} }, true},
		{"one name inside, one outside", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "bank.example") }, true},
		{"wildcard above", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.DNSNames = []string{"*.readers.card.example"} }, true},
		{"address", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }, true},
		{"address of IPv6", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv6loopback} }, true},
		{"server", x509.ExtKeyUsageServerAuth, "sslserver", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, true},
		{"no dNSName", x509.ExtKeyUsageClientAuth, "sslclient", func(c *x509.Certificate) { c.DNSNames = nil }, false},
	} {
		der := stolen(t, city, c.change)
		pool := x509.NewCertPool()
		pool.AddCert(testpki.Must(x509.ParseCertificate(city.Certificate())))
		_, err := testpki.Must(x509.ParseCertificate(der)).Verify(x509.VerifyOptions{Roots: world().Pool(), Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if c.stopped != (err != nil) {
			t.Errorf("%s: crypto/x509 says %v", c.name, err)
		}
		file := write(t, dir, "leaf.pem", testpki.PEM("CERTIFICATE", der))
		out, err := exec.Command("openssl", "verify", "-purpose", c.purpose, "-CAfile", filepath.Join(dir, "root.pem"), "-untrusted", filepath.Join(dir, "ca.pem"), file).CombinedOutput()
		if c.stopped != (err != nil) {
			t.Errorf("%s: openssl says %s", c.name, out)
		}
		if got, want := cityName(t, der, issuer), c.name == "inside" || c.name == "server"; got != want {
			t.Errorf("%s: the rule city-name says %t", c.name, got)
		}
	}
}

// cityName judges a certificate by the rule of that name alone.
func cityName(t *testing.T, der []byte, issuer *policy.Issuer) bool {
	t.Helper()
	s, err := policy.Parse(der, testpki.Must(policy.Find("reader-sign")), issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range policy.Rules {
		if r.ID == "city-name" {
			var v *policy.Violation
			return !errors.As(policy.Judge([]policy.Rule{r}, s), &v)
		}
	}
	t.Fatal("there is no rule city-name")
	return false
}

// TestCityCannotMakeCAs has the stolen key make a CA, and that CA a reader.
func TestCityCannotMakeCAs(t *testing.T) {
	city := world().CA("330100")
	key := testpki.Must(testpki.Key())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: "sub"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, DNSNames: []string{"sub.330100.readers.card.example"},
	}
	sub := testpki.Must(x509.CreateCertificate(rand.Reader, template, testpki.Must(x509.ParseCertificate(city.Certificate())), key.Public(), city.Signer))
	template.IsCA, template.KeyUsage, template.DNSNames = false, x509.KeyUsageDigitalSignature, []string{"r1.330100.readers.card.example"}
	parent := testpki.Must(x509.ParseCertificate(sub))
	leaf := testpki.Must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key))

	pool := x509.NewCertPool()
	pool.AddCert(testpki.Must(x509.ParseCertificate(city.Certificate())))
	pool.AddCert(parent)
	if _, err := testpki.Must(x509.ParseCertificate(leaf)).Verify(x509.VerifyOptions{Roots: world().Pool(), Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("crypto/x509 lets a city CA make a CA")
	}
	dir := t.TempDir()
	root := write(t, dir, "root.pem", testpki.PEM("CERTIFICATE", world().Root.Certificate()))
	between := write(t, dir, "ca.pem", testpki.PEM("CERTIFICATE", city.Certificate(), sub))
	file := write(t, dir, "leaf.pem", testpki.PEM("CERTIFICATE", leaf))
	if out, err := exec.Command("openssl", "verify", "-CAfile", root, "-untrusted", between, file).CombinedOutput(); err == nil {
		t.Errorf("openssl lets a city CA make a CA: %s", out)
	}
}
