package issuance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
)

func TestParseCSR(t *testing.T) {
	sign, encrypt := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	csr, err := issuance.ParseCSR(testpki.Must(testpki.PairCSR(sign, encrypt.Public())))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(csr.SPKI, testpki.Must(x509.MarshalPKIXPublicKey(sign.Public()))) {
		t.Error("another key was read")
	}
	if len(csr.Extensions) != 1 || !csr.Extensions[0].Id.Equal(oid.EncryptionKey) || !bytes.Equal(csr.Extensions[0].Value, testpki.Must(x509.MarshalPKIXPublicKey(encrypt.Public()))) {
		t.Errorf("extensions %v", csr.Extensions)
	}
}

func basicConstraints(value ...byte) pkix.Extension {
	return pkix.Extension{Id: oid.ExtBasicConstraints, Critical: true, Value: value}
}

func TestParseCSRRefuses(t *testing.T) {
	key := testpki.Must(testpki.Key())
	good := testpki.Must(testpki.CSR(key))
	garbled := bytes.Clone(good)
	garbled[len(garbled)-1] ^= 1
	stranger := bytes.Replace(good, publicPoint(key), publicPoint(testpki.Must(testpki.Key())), 1)
	for name, c := range map[string]struct {
		rule string
		der  []byte
	}{
		"empty":             {"csr-form", nil},
		"rubbish":           {"csr-form", []byte("-----BEGIN CERTIFICATE REQUEST-----")},
		"a certificate":     {"csr-form", world().Root.Certificate()},
		"cut":               {"csr-form", good[:len(good)-1]},
		"something behind":  {"csr-form", append(bytes.Clone(good), 0)},
		"oversized":         {"csr-size", make([]byte, issuance.MaxCSR+1)},
		"garbled":           {"csr-signature", garbled},
		"another's key":     {"csr-signature", stranger},
		"wrong curve":       {"key-curve", testpki.Must(testpki.CSR(testpki.Must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))))},
		"a CA":              {"csr-ca", testpki.Must(testpki.CSR(key, basicConstraints(0x30, 3, 1, 1, 0xff)))},
		"a CA, path length": {"csr-ca", testpki.Must(testpki.CSR(key, basicConstraints(0x30, 6, 1, 1, 0xff, 2, 1, 0)))},
		"garbled wish":      {"csr-ca", testpki.Must(testpki.CSR(key, basicConstraints(0x30)))},
	} {
		_, err := issuance.ParseCSR(c.der)
		var v *policy.Violation
		if !errors.As(err, &v) || v.Rule != c.rule {
			t.Errorf("%s: %v, want rule %s", name, err, c.rule)
		}
	}
	if _, err := issuance.ParseCSR(testpki.Must(testpki.CSR(key, basicConstraints(0x30, 0)))); err != nil {
		t.Errorf("a request that asks for no CA: %v", err)
	}
}

func publicPoint(key crypto.Signer) []byte {
	return testpki.Must(key.Public().(*ecdsa.PublicKey).ECDH()).Bytes()
}

// TestExtensionsAreNotCopied asks for everything and looks for nothing of it.
func TestExtensionsAreNotCopied(t *testing.T) {
	key := testpki.Must(testpki.Key())
	der := testpki.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "bank.example"}, DNSNames: []string{"bank.example"},
		ExtraExtensions: []pkix.Extension{{Id: oid.OCSPNoCheck, Value: []byte{5, 0}}, {Id: oid.Hufu, Critical: true, Value: []byte{5, 0}}},
	}, key))
	csr := testpki.Must(issuance.ParseCSR(der))
	leaf := testpki.Must(world().CA("330100").Certify(key, issuance.Request{Profile: "reader-sign", SPKI: csr.SPKI, Name: policy.Name{Reader: "1"}})).X509()
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "r1.330100.readers.card.example" || leaf.Subject.CommonName != leaf.DNSNames[0] {
		t.Errorf("names %v, %s", leaf.DNSNames, leaf.Subject)
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oid.OCSPNoCheck) || e.Id.Equal(oid.Hufu) {
			t.Errorf("extension %s was copied", e.Id)
		}
	}
}

func TestPrepareCARefuses(t *testing.T) {
	w := world()
	key := testpki.Must(testpki.Key())
	csr := testpki.Must(testpki.CSR(key, basicConstraints(0x30, 3, 1, 1, 0xff))) // a CA may ask to be one
	serial := testpki.Must(issuance.NewSerial(rand.Reader))
	good := issuance.CARequest{ID: "330100.2", Kind: policy.KindCity, City: "330100", CSR: csr, Serial: serial}
	if _, err := w.Root.PrepareCA(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*issuance.CARequest){
		"kind":        func(r *issuance.CARequest) { r.Kind = "bank" },
		"root kind":   func(r *issuance.CARequest) { r.Kind = policy.KindRoot },
		"no city":     func(r *issuance.CARequest) { r.City = "" },
		"wrong city":  func(r *issuance.CARequest) { r.City = "33010" },
		"id":          func(r *issuance.CARequest) { r.ID = "a/b" },
		"csr":         func(r *issuance.CARequest) { r.CSR = r.CSR[1:] },
		"common name": func(r *issuance.CARequest) { r.CommonName = " x" },
		"serial":      func(r *issuance.CARequest) { r.Serial[0] = 0 },
		"long": func(r *issuance.CARequest) {
			r.NotAfter = testpki.Must(x509.ParseCertificate(w.Root.Certificate())).NotAfter
		},
	} {
		r := good
		change(&r)
		if _, err := w.Root.PrepareCA(r); err == nil {
			t.Errorf("%s: prepared", name)
		}
	}
	// A working CA is no root.
	var v *policy.Violation
	if _, err := w.CA("330100").PrepareCA(good); !errors.As(err, &v) || v.Rule != "issuer-kind" {
		t.Errorf("a city CA certifies a CA: %v", err)
	}
	token := testpki.Must(w.Root.PrepareCA(good))
	if err := token.Lint(); err != nil {
		t.Error(err)
	}
	if err := issuance.Lint(testpki.Must(w.Root.Issue(context.Background(), token))); err != nil {
		t.Error(err)
	}
}

func TestLintFinds(t *testing.T) {
	key := testpki.Must(testpki.Key())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	if err := issuance.Lint(testpki.Must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))); err == nil {
		t.Error("zlint finds nothing in a poor certificate")
	}
	if err := issuance.Lint([]byte("rubbish")); err == nil {
		t.Error("zlint finds nothing in rubbish")
	}
}
