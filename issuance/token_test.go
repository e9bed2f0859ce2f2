package issuance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

func prepare(t testing.TB, w *testpki.World, ca string) *issuance.Token {
	t.Helper()
	r := readerRequest()
	r.Serial = testpki.Must(issuance.NewSerial(rand.Reader))
	token, err := w.CA(ca).Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestTokenSignsOnce asks for one token's signature from many sides at once.
func TestTokenSignsOnce(t *testing.T) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	ca := w.CA("330100")
	token := prepare(t, w, "330100")
	before := ca.Signer.Count()
	var made, spent atomic.Int64
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			switch _, err := ca.Issue(context.Background(), token); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, issuance.ErrSpent):
				spent.Add(1)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 || spent.Load() != 31 || ca.Signer.Count() != before+1 {
		t.Errorf("made %d, spent %d, key used %d times", made.Load(), spent.Load(), ca.Signer.Count()-before)
	}
}

// TestIssuedIsWhatWasPrepared compares the certificate with the token.
func TestIssuedIsWhatWasPrepared(t *testing.T) {
	w := world()
	token := prepare(t, w, "330100")
	der := testpki.Must(w.CA("330100").Issue(context.Background(), token))
	certificate := testpki.Must(x509.ParseCertificate(der))
	record := token.Record()
	if store.Sum(certificate.RawTBSCertificate) != token.TBSHash() {
		t.Error("the signed bytes are not the ones that were judged")
	}
	if record.Serial != token.Serial() || certificate.SerialNumber.Cmp(record.Serial.BigInt()) != 0 {
		t.Error("serial numbers differ")
	}
	if record.SPKI != store.Sum(certificate.RawSubjectPublicKeyInfo) || record.Subject != certificate.Subject.String() ||
		!record.NotBefore.Equal(certificate.NotBefore) || !record.NotAfter.Equal(certificate.NotAfter) {
		t.Errorf("the record %+v is not the certificate's", record)
	}
	want := "SERIALNUMBER=33010000001,CN=r33010000001.330100.readers.card.example,OU=330100,O=Hufu,C=CN"
	if record.Subject != want || record.Reader != "33010000001" || record.City != "330100" || record.CA != "330100" || record.Profile != "reader-sign" {
		t.Errorf("record %+v", record)
	}
	if err := certificate.CheckSignatureFrom(testpki.Must(x509.ParseCertificate(w.CA("330100").Certificate()))); err != nil {
		t.Error(err)
	}
}

// TestPairHasOneName holds what a reader's pair has in common, and what not.
func TestPairHasOneName(t *testing.T) {
	pair := testpki.Must(world().Reader("330200", "9a"))
	sign, encrypt := pair.Sign.X509(), pair.Encrypt.X509()
	if !bytes.Equal(sign.RawSubject, encrypt.RawSubject) || sign.DNSNames[0] != encrypt.DNSNames[0] {
		t.Error("the names of the pair differ")
	}
	if sign.SerialNumber.Cmp(encrypt.SerialNumber) == 0 || bytes.Equal(sign.RawSubjectPublicKeyInfo, encrypt.RawSubjectPublicKeyInfo) {
		t.Error("the pair shares a serial number or a key")
	}
	if sign.KeyUsage != x509.KeyUsageDigitalSignature || encrypt.KeyUsage != x509.KeyUsageKeyAgreement {
		t.Errorf("key usages %b and %b", sign.KeyUsage, encrypt.KeyUsage)
	}
}

func TestWrongIssuer(t *testing.T) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	token := prepare(t, w, "330100")
	if _, err := w.CA("330200").Issue(context.Background(), token); !errors.Is(err, issuance.ErrWrongIssuer) {
		t.Errorf("another city: %v", err)
	}
	if _, err := issuance.SelfSign(context.Background(), token); !errors.Is(err, issuance.ErrWrongIssuer) {
		t.Errorf("self-signed: %v", err)
	}
	if _, err := w.CA("330100").Issue(context.Background(), token); err != nil {
		t.Errorf("the right one afterwards: %v", err)
	}
}

// TestSignerFails lets the key fail before and after it signed. Either way the
// token is spent, since nobody can tell from outside.
func TestSignerFails(t *testing.T) {
	broken := errors.New("the token was pulled out")
	fail := func(int64) error { return broken }
	for name, set := range map[string]func(*testpki.Signer){
		"before": func(s *testpki.Signer) { s.Before = fail },
		"after":  func(s *testpki.Signer) { s.After = fail },
	} {
		w := testpki.Must(testpki.New(testpki.Config{}))
		ca := w.CA("330100")
		token := prepare(t, w, "330100")
		set(ca.Signer)
		if _, err := ca.Issue(context.Background(), token); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		ca.Signer.Before, ca.Signer.After = nil, nil
		if _, err := ca.Issue(context.Background(), token); !errors.Is(err, issuance.ErrSpent) {
			t.Errorf("%s: second use: %v", name, err)
		}
	}
}

// wrongSigner shows one public key and signs with another, as a handle that
// points to the wrong object does.
type wrongSigner struct {
	crypto.Signer
	public crypto.PublicKey
}

func (s wrongSigner) Public() crypto.PublicKey { return s.public }

// garbledSigner loses a bit on the way.
type garbledSigner struct{ crypto.Signer }

func (s garbledSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(r, digest, opts)
	if err == nil {
		signature[len(signature)-1] ^= 1
	}
	return signature, err
}

func TestSignatureIsChecked(t *testing.T) {
	right, wrong := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	for name, key := range map[string]crypto.Signer{
		"wrong key": wrongSigner{wrong, right.Public()}, "garbled": garbledSigner{right}, "garbled RSA": garbledSigner{rsa3072()},
	} {
		token := testpki.Must(issuance.PrepareRoot(key, rootRequest()))
		if der, err := issuance.SelfSign(context.Background(), token); err == nil || der != nil {
			t.Errorf("%s: a certificate was handed out: %v", name, err)
		}
	}
}

var rsa3072 = sync.OnceValue(func() *rsa.PrivateKey { return testpki.Must(rsa.GenerateKey(rand.Reader, 3072)) })

func rootRequest() issuance.RootRequest {
	return issuance.RootRequest{
		Country: "CN", Organisation: "Hufu", CommonName: "Hufu Root", Domain: testpki.Domain,
		Serial: testpki.Must(issuance.NewSerial(rand.Reader)), NotBefore: time.Now(),
	}
}

func TestIssueStopsWithItsContext(t *testing.T) {
	w := world()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.CA("330100").Issue(ctx, prepare(t, w, "330100")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSuites makes a hierarchy with each kind of CA key and has it verified.
func TestSuites(t *testing.T) {
	for name, key := range map[string]func() (crypto.Signer, error){
		"P-384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"RSA":   func() (crypto.Signer, error) { return rsa3072(), nil },
	} {
		w, err := testpki.New(testpki.Config{Key: key, Cities: []string{"330100"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := t.TempDir()
		root := write(t, dir, "root.pem", testpki.PEM("CERTIFICATE", w.Root.Record.Certificate))
		leaf := testpki.Must(w.Reader("330100", "1")).Sign
		ca := write(t, dir, "ca.pem", testpki.PEM("CERTIFICATE", leaf.Chain[0]))
		run(t, "openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", ca, write(t, dir, "leaf.pem", testpki.PEM("CERTIFICATE", leaf.Certificate)))
		if err := w.CA("330100").LintSamples(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	w := world()
	city := w.CA("330100")
	good := issuance.Config{CA: city.Record, Key: city.Signer, Domain: testpki.Domain, BaseURL: "http://pki.card.example"}
	for want, change := range map[string]func(*issuance.Config){
		"not the one of the certificate": func(c *issuance.Config) { c.Key = w.CA("330200").Signer },
		"there is no private key":        func(c *issuance.Config) { c.Key = nil },
		"plain http":                     func(c *issuance.Config) { c.BaseURL = "https://pki.card.example" },
		"is the domain right":            func(c *issuance.Config) { c.Domain = "other.example" },
		"too long":                       func(c *issuance.Config) { c.Domain = "a.domain.of.more.than.thirty.characters.example" },
		"another key":                    func(c *issuance.Config) { c.CA.SPKI[0] ^= 1 },
		"an ID has":                      func(c *issuance.Config) { c.CA.ID = "../330100" },
		"not a CA's": func(c *issuance.Config) {
			leaf := testpki.Must(w.Reader("330100", "1")).Sign
			c.CA.Certificate, c.CA.SPKI, c.Key = leaf.Certificate, leaf.Record.SPKI, leaf.Key
		},
	} {
		cfg := good
		change(&cfg)
		if _, err := issuance.NewIssuer(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := issuance.NewIssuer(good); err != nil {
		t.Error(err)
	}
}

// TestPrepareRefuses asks for what no certificate may say.
func TestPrepareRefuses(t *testing.T) {
	w := world()
	spki := readerRequest().SPKI
	year := 365 * 24 * time.Hour
	for _, c := range []struct {
		ca, rule string
		r        issuance.Request
	}{
		{"330100", "name", issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "1", City: "330200"}}},
		{"330100", "name", issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "1.330200.readers.card.example"}}},
		{"330100", "name", issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "1", DNS: []string{"bank.example"}}}},
		{"330100", "name", issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "1", Domain: "bank.example"}}},
		{"330100", "issuer-kind", issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"bank.example"}}}},
		{"services", "name", issuance.Request{Profile: "reader-sign", Name: policy.Name{Reader: "1"}}},
		{"services", "name", issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"r1.330100.readers.card.example"}}}},
		{"services", "name", issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"*.card.example"}}}},
		{"services", "name", issuance.Request{Profile: "server", Name: policy.Name{DNS: []string{"127.0.0.1"}}}},
		{"services", "name", issuance.Request{Profile: "server"}},
		{"330100", "name", issuance.Request{Profile: "ocsp", Name: policy.Name{City: "330200"}}},
		{"services", "ca-profile", issuance.Request{Profile: "working-ca", Name: policy.Name{CommonName: "x"}}},
		{"root", "issuer-kind", issuance.Request{Profile: "ocsp"}},
		{"staff", "validity-span", issuance.Request{Profile: "operator", Name: policy.Name{Person: "x"}, NotAfter: time.Now().Add(2 * year)}},
		{"staff", "validity-in-issuer", issuance.Request{Profile: "operator", Name: policy.Name{Person: "x"}, NotBefore: time.Now().Add(-2 * time.Hour)}},
		{"staff", "validity-in-issuer", issuance.Request{Profile: "operator", Name: policy.Name{Person: "x"}, NotBefore: time.Now().Add(10*year - 24*time.Hour), NotAfter: time.Now().Add(10*year + time.Hour)}},
		{"staff", "validity-span", issuance.Request{Profile: "operator", Name: policy.Name{Person: "x"}, NotAfter: time.Now().Add(-time.Hour)}},
		{"staff", "name", issuance.Request{Profile: "operator", Name: policy.Name{Person: "x\x00y"}}},
	} {
		c.r.SPKI, c.r.Serial = spki, testpki.Must(issuance.NewSerial(rand.Reader))
		_, err := w.CA(c.ca).Prepare(c.r)
		var v *policy.Violation
		if !errors.As(err, &v) || v.Rule != c.rule {
			t.Errorf("%s %s %+v: %v, want rule %s", c.ca, c.r.Profile, c.r.Name, err, c.rule)
		}
	}
	if _, err := w.CA("staff").Prepare(issuance.Request{Profile: "nobody"}); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("unknown profile: %v", err)
	}
	for name, serial := range map[string]store.Serial{"negative": {0x80}, "small": {0, 0, 1}, "not ours": {2}, "none": {}} {
		r := readerRequest()
		r.Serial = serial
		var v *policy.Violation
		if _, err := w.CA("330100").Prepare(r); !errors.As(err, &v) || v.Rule != "serial" && v.Rule != "der" {
			t.Errorf("serial number that is %s: %v", name, err)
		}
	}
}

// TestCutToIssuer lets a CA issue shortly before its own end.
func TestCutToIssuer(t *testing.T) {
	now := time.Now()
	w := testpki.Must(testpki.New(testpki.Config{Now: func() time.Time { return now }}))
	end := testpki.Must(x509.ParseCertificate(w.CA("330100").Certificate())).NotAfter
	now = end.Add(-30 * 24 * time.Hour)
	leaf := testpki.Must(w.Reader("330100", "1")).Sign
	if !leaf.X509().NotAfter.Equal(end) {
		t.Errorf("ends %s, the issuer %s", leaf.X509().NotAfter, end)
	}
	if year := end.Year(); year > 2049 {
		t.Fatal("the test does not cover UTCTime")
	}
	now = now.AddDate(30, 0, 0)
	token, err := issuance.PrepareRoot(testpki.Must(testpki.Key()), issuance.RootRequest{Country: "CN", Organisation: "Hufu", CommonName: "Later",
		Domain: testpki.Domain, Serial: testpki.Must(issuance.NewSerial(rand.Reader)), NotBefore: now})
	if err != nil {
		t.Fatal(err)
	}
	if token.Record().NotAfter.Year() < 2050 {
		t.Error("the test does not cover GeneralizedTime")
	}
	if _, err := issuance.SelfSign(context.Background(), token); err != nil {
		t.Error(err)
	}
}

func TestSerial(t *testing.T) {
	seen := map[store.Serial]bool{}
	for range 1000 {
		s := testpki.Must(issuance.NewSerial(rand.Reader))
		if s[0] != 1 || seen[s] {
			t.Fatalf("serial %s", s)
		}
		seen[s] = true
	}
	if _, err := issuance.NewSerial(strings.NewReader("short")); err == nil {
		t.Error("a short source gives a serial number")
	}
	if _, err := issuance.NewSerial(bytes.NewReader(make([]byte, 16))); err == nil {
		t.Error("a source of zeros gives a serial number")
	}
}
