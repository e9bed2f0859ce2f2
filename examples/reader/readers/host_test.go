package main_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/readers/apdu"
	"hufu/verify"
)

const city = "330100"

// persist runs a command until the reader answers. A refusal is the end.
func persist(t testing.TB, at func() string, slot string, ins, p1 byte, e apdu.Elements) []byte {
	t.Helper()
	var last error
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); {
		r, err := apdu.Open(t.Context(), at(), slot)
		if last = err; err != nil {
			continue
		}
		b, err := r.Do(ins, p1, e)
		r.Close()
		var refused *apdu.StatusError
		if errors.As(err, &refused) {
			t.Fatalf("slot %s: %v", slot, err)
		}
		if last = err; err == nil {
			return b
		}
	}
	t.Fatalf("slot %s: the power does not hold: %v", slot, last)
	return nil
}

// life brings a prepared reader through stage 2, as a city does: the reader makes its
// encryption key.
func life(t testing.TB, pki *testpki.World, at func() string, slot string) {
	t.Helper()
	e := testpki.Must(apdu.ParseElements(persist(t, at, slot, apdu.Identify, 0, nil)))
	number := string(e[apdu.Number])
	asked := apdu.Elements{apdu.Session: make([]byte, 16), apdu.Challenge: make([]byte, 32), apdu.City: []byte(city), apdu.Encryption: {apdu.ByReader}}
	rand.Read(asked[apdu.Session])
	rand.Read(asked[apdu.Challenge])
	v := &verify.Verifier{Anchors: pki.Anchors(), Domain: testpki.Domain}
	w, _, err := v.EnrolmentFile(persist(t, at, slot, apdu.Enrol, 0, asked))
	if err != nil {
		t.Error(err)
		return
	}
	request := testpki.Must(x509.ParseCertificateRequest(w.CSR))
	pair := apdu.Elements{apdu.Session: asked[apdu.Session], apdu.Issuer: pki.CA(city).Record.Certificate,
		apdu.Certificate: certify(t, pki, city, "reader-sign", policy.Name{Reader: number, City: city}, request.RawSubjectPublicKeyInfo)}
	for _, x := range request.Extensions {
		if x.Id.Equal(oid.EncryptionKey) {
			pair[apdu.Certificate2] = certify(t, pki, city, "reader-encrypt", policy.Name{Reader: number, City: city}, x.Value)
		}
	}
	receipt := persist(t, at, slot, apdu.Install, 0, pair)
	line := &verify.ReceiptLine{Number: number, Receipt: receipt, Sign: pair[apdu.Certificate], Encrypt: pair[apdu.Certificate2],
		Device: persist(t, at, slot, apdu.GetCertificate, apdu.DeviceCertificate, nil), Chain: [][]byte{pki.CA("device").Record.Certificate}}
	r, err := v.ReceiptLine(line)
	if err != nil || r.Session != hex.EncodeToString(asked[apdu.Session]) {
		t.Errorf("the receipt of reader %s: %+v, %v", number, r, err)
		return
	}
	persist(t, at, slot, apdu.Finish, 0, nil)
}
