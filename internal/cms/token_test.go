package cms_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/softhsm"
)

// A reader's keys live in a token, which may know OAEP with SHA-1 only.
func TestKeysInToken(t *testing.T) {
	home, err := softhsm.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Activate(); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Init("reader", []byte("12345678"), []byte("1234")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	token, err := hsm.Open(ctx, hsm.Config{
		Module: home.Module(), URI: "pkcs11:token=reader", Patience: time.Second, PIN: func() ([]byte, error) { return []byte("1234"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	generate := func(label string, kind hsm.KeyKind, use hsm.Use) *hsm.Key {
		t.Helper()
		key, err := token.Generate(ctx, hsm.KeySpec{Label: label, Kind: kind, Use: use})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}

	sign := generate("sign", hsm.P256, hsm.Sign)
	signer := certify(t, sign.Public(), x509.KeyUsageDigitalSignature)
	der, err := cms.Sign([]int{1, 2, 3}, content, signer.cert, nil, sign, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cms.Parse(der, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSignature(signer.cert); err != nil {
		t.Error(err)
	}

	rsa := generate("decrypt", hsm.RSA2048, hsm.Decrypt)
	transport := certify(t, rsa.Public(), x509.KeyUsageKeyEncipherment)
	hash, err := rsa.OAEPHash(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal(t, &cms.Sealer{Recipient: transport.cert, OAEP: hash}, script)
	plain, err := (&cms.Opener{Certificate: transport.cert, RSA: rsa}).Open(sealed)
	if err != nil || !bytes.Equal(plain, script) {
		t.Errorf("RSA, %v: opened %q, %v", hash, plain, err)
	}

	derive := generate("derive", hsm.P256, hsm.Derive)
	exchanger, err := derive.ECDHKey()
	if err != nil {
		t.Fatal(err)
	}
	agreement := certify(t, derive.Public(), x509.KeyUsageKeyAgreement)
	sealed = seal(t, &cms.Sealer{Recipient: agreement.cert}, script)
	opener := &cms.Opener{Certificate: agreement.cert, ECDH: exchanger}
	if plain, err = opener.Open(sealed); err != nil || !bytes.Equal(plain, script) {
		t.Errorf("EC: opened %q, %v", plain, err)
	}

	// A token that is gone is not a wrong envelope.
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = opener.Open(sealed); err == nil || errors.Is(err, cms.ErrOpen) {
		t.Errorf("with the token gone: %v", err)
	}
}
