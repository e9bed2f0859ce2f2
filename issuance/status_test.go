package issuance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"iter"
	"math/big"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
)

func revoked(serials ...[]byte) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for _, s := range serials {
			if !yield(crl.Entry{Serial: s, RevokedAt: time.Now(), Reason: 1}, nil) {
				return
			}
		}
	}
}

func TestSignCRL(t *testing.T) {
	leaf := testpki.Must(world().Reader("330100", "1")).Sign
	for _, ca := range world().CAs() {
		var b bytes.Buffer
		now := time.Now()
		err := ca.SignCRL(context.Background(), crl.Template{ThisUpdate: now, NextUpdate: now.Add(time.Hour), Number: 42}, revoked(leaf.Serial[:]), &b)
		if err != nil {
			t.Fatal(err)
		}
		list := testpki.Must(x509.ParseRevocationList(b.Bytes()))
		if err := list.CheckSignatureFrom(testpki.Must(x509.ParseCertificate(ca.Certificate()))); err != nil {
			t.Errorf("CA %s: %v", ca.Record.ID, err)
		}
		if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(leaf.Serial.BigInt()) != 0 || list.Number.Cmp(big.NewInt(42)) != 0 {
			t.Errorf("CA %s: list %+v", ca.Record.ID, list)
		}
	}
}

// TestSignCRLFails holds that nothing is written where nothing was signed.
func TestSignCRLFails(t *testing.T) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	broken := errors.New("the token was pulled out")
	w.CA("330100").Signer.Before = func(int64) error { return broken }
	var b bytes.Buffer
	now := time.Now()
	err := w.CA("330100").SignCRL(context.Background(), crl.Template{ThisUpdate: now, NextUpdate: now.Add(time.Hour), Number: 1}, revoked(), &b)
	if !errors.Is(err, broken) || b.Len() > 0 {
		t.Errorf("%v, %d octets written", err, b.Len())
	}
}

func TestSignOCSP(t *testing.T) {
	ca := world().CA("330100")
	issuer := testpki.Must(x509.ParseCertificate(ca.Certificate()))
	leaf := testpki.Must(world().Reader("330100", "1")).Sign
	id := testpki.Must(ocsp.NewIssuer(ca.Certificate())).CertID(crypto.SHA1, leaf.Serial[:])
	now := time.Now().Truncate(time.Second)
	data := ocsp.ResponseData{ProducedAt: now, Responses: []ocsp.SingleResponse{{
		ID: id, Status: ocsp.Revoked, RevokedAt: now, Reason: 1, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}}}
	responder := testpki.Must(ca.Responder())
	for name, der := range map[string][]byte{
		"delegated": testpki.Must(responder.SignOCSP(context.Background(), data)),
		"the CA":    testpki.Must(ca.SignOCSP(context.Background(), data)),
	} {
		response, err := xocsp.ParseResponseForCert(der, leaf.X509(), issuer)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if response.Status != xocsp.Revoked || response.RevocationReason != 1 {
			t.Errorf("%s: %+v", name, response)
		}
	}
	data.ProducedAt = responder.NotAfter().Add(time.Second)
	if _, err := responder.SignOCSP(context.Background(), data); err == nil {
		t.Error("a responder signs after its certificate's end")
	}
}

func TestNewResponderRefuses(t *testing.T) {
	w := world()
	ca := w.CA("330100")
	leaf := testpki.Must(ca.New("ocsp", policy.Name{}))
	good := issuance.ResponderConfig{Issuer: ca.Certificate(), Certificate: leaf.Certificate, Key: leaf.Key}
	if _, err := issuance.NewResponder(good); err != nil {
		t.Fatal(err)
	}
	reader := testpki.Must(w.Reader("330100", "1")).Sign
	for name, change := range map[string]func(*issuance.ResponderConfig){
		"another CA's":   func(c *issuance.ResponderConfig) { c.Issuer = w.CA("330200").Certificate() },
		"the root's":     func(c *issuance.ResponderConfig) { c.Issuer = w.Root.Certificate() },
		"another key":    func(c *issuance.ResponderConfig) { c.Key = reader.Key },
		"no key":         func(c *issuance.ResponderConfig) { c.Key = nil },
		"a reader's":     func(c *issuance.ResponderConfig) { c.Certificate, c.Key = reader.Certificate, reader.Key },
		"no certificate": func(c *issuance.ResponderConfig) { c.Certificate = nil },
	} {
		cfg := good
		change(&cfg)
		if _, err := issuance.NewResponder(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
