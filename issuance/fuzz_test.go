package issuance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// FuzzParseCSR holds one property: no bytes make ParseCSR panic, and what it
// accepts is signed by the key that it returns.
func FuzzParseCSR(f *testing.F) {
	key := testpki.Must(testpki.Key())
	f.Add(testpki.Must(testpki.CSR(key)))
	f.Add(testpki.Must(testpki.PairCSR(key, key.Public())))
	f.Add(testpki.Must(testpki.CSR(rsaKey())))
	f.Add(world().Root.Certificate())
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := issuance.ParseCSR(der)
		if err != nil {
			return
		}
		again, err := x509.ParseCertificateRequest(der)
		if err != nil || again.CheckSignature() != nil || !bytes.Equal(again.RawSubjectPublicKeyInfo, csr.SPKI) {
			t.Fatalf("accepted a request that crypto/x509 does not: %v", err)
		}
	})
}

// FuzzPrepare holds one property: whatever is asked for, what Prepare lets pass is
// a certificate that others read, whose signed bytes are the judged ones and
// whose names are the record's.
func FuzzPrepare(f *testing.F) {
	spki := readerRequest().SPKI
	w := world()
	profiles := policy.Profiles
	f.Add(uint8(3), "33010000001", "", "330100", "", "", "", int64(0), int64(0), uint16(0))
	f.Add(uint8(6), "", "pki.card.example", "", "", "", "Bank", int64(0), int64(3600), uint16(9))
	f.Add(uint8(7), "", "a.example", "330100", "", "Back end", "", int64(-3600), int64(0), uint16(0))
	f.Add(uint8(8), "", "", "", "王芳", "", "市民卡", int64(0), int64(0), uint16(65535))
	f.Add(uint8(2), "z", "", "", "", "", "", int64(0), int64(1<<40), uint16(0))
	f.Add(uint8(9), "", "", "", "", "", "", int64(0), int64(0), uint16(0))
	f.Fuzz(func(t *testing.T, profile uint8, reader, dns, city, person, common, organisation string, from, to int64, shard uint16) {
		p := profiles[int(profile)%len(profiles)]
		name := policy.Name{Reader: reader, City: city, Person: person, CommonName: common, Organisation: organisation}
		if dns != "" {
			name.DNS = []string{dns}
		}
		for _, ca := range w.CAs() {
			r := issuance.Request{Profile: p.Name, SPKI: spki, Name: name, Shard: shard, Serial: testpki.Must(issuance.NewSerial(rand.Reader))}
			if from != 0 {
				r.NotBefore = time.Now().Add(time.Duration(from) * time.Second)
			}
			if to != 0 {
				r.NotAfter = time.Now().Add(time.Duration(to) * time.Second)
			}
			token, err := ca.Prepare(r)
			if err != nil {
				continue
			}
			checkIssued(t, ca, token)
		}
	})
}

func checkIssued(t *testing.T, ca *testpki.CA, token *issuance.Token) {
	t.Helper()
	der, err := ca.Issue(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	record := token.Record()
	if store.Sum(certificate.RawTBSCertificate) != token.TBSHash() || certificate.Subject.String() != record.Subject ||
		len(certificate.DNSNames) != len(record.Names) || certificate.IsCA {
		t.Fatalf("the certificate is not the record's: %s, %+v", certificate.Subject, record)
	}
	if err := certificate.CheckSignatureFrom(testpki.Must(x509.ParseCertificate(ca.Certificate()))); err != nil {
		t.Fatal(err)
	}
}
