package softhsm_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"testing"

	"hufu/hsm"
	"hufu/internal/softhsm"
)

func TestClone(t *testing.T) {
	h, err := softhsm.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Activate(); err != nil {
		t.Fatal(err)
	}
	pin := func() ([]byte, error) { return []byte("123456"), nil }
	serial, err := h.Init("first", []byte("87654321"), []byte("123456"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	first, err := hsm.Open(ctx, hsm.Config{Module: h.Module(), URI: "pkcs11:token=first", PIN: pin})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	k, err := first.Generate(ctx, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := h.Clone(serial, "second")
	if err != nil {
		t.Fatal(err)
	}
	second, err := hsm.Open(ctx, hsm.Config{Module: h.Module(), URI: "pkcs11:token=second;serial=" + fresh, PIN: pin})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	same, err := second.Key(ctx, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	sig, err := same.Sign(nil, digest, crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest, sig) {
		t.Fatalf("the copy does not sign for the key: %v", err)
	}
	if _, err := h.Clone("0000000000000000", "third"); err == nil {
		t.Fatal("a token that is not there was copied")
	}
}
