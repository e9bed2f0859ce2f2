package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"hufu/hsm"
)

const nil256 = crypto.SHA256

// checkSigns has k sign something and verifies it.
func checkSigns(t testing.TB, k *hsm.Key) {
	t.Helper()
	if err := signs(k); err != nil {
		t.Fatal(err)
	}
}

func signs(k *hsm.Key) error {
	digest := make([]byte, 32)
	rand.Read(digest)
	sig, err := k.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return err
	}
	return verify(k.Public(), digest, sig)
}

func verify(pub crypto.PublicKey, digest, sig []byte) error {
	if p, ok := pub.(*ecdsa.PublicKey); ok {
		if !ecdsa.VerifyASN1(p, digest, sig) {
			return errBadSignature
		}
		return nil
	}
	return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, digest, sig)
}

func TestGenerateAndSign(t *testing.T) {
	token := openNew(t)
	ctx := context.Background()
	for _, kind := range []hsm.KeyKind{hsm.P256, hsm.P384, hsm.RSA2048, hsm.RSA3072} {
		t.Run(kind.String(), func(t *testing.T) {
			k := generate(t, token, hsm.KeySpec{Label: kind.String(), Kind: kind, Use: hsm.Sign})
			want := hsm.Attributes{Sensitive: true, AlwaysSensitive: true, NeverExtractable: true, Local: true, Sign: true, Token: true}
			if k.Attributes() != want {
				t.Errorf("attributes are %+v", k.Attributes())
			}
			checkSigns(t, k)

			// The same key is found by its public key and by its label.
			for name, find := range map[string]func() (*hsm.Key, error){
				"public key": func() (*hsm.Key, error) { return token.Key(ctx, k.Public()) },
				"label":      func() (*hsm.Key, error) { return token.KeyByLabel(ctx, kind.String()) },
			} {
				again, err := find()
				if err != nil {
					t.Fatalf("by %s: %v", name, err)
				}
				if again.SPKI() != k.SPKI() || again.Label() != k.Label() || again.Kind() != kind {
					t.Fatalf("by %s: another key", name)
				}
				checkSigns(t, again)
			}
			der, err := x509.MarshalPKIXPublicKey(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(der) != k.SPKI() {
				t.Error("SPKI is not the hash of the public key")
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
			if _, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k); err != nil {
				t.Errorf("crypto/x509 cannot sign with it: %v", err)
			}
		})
	}
	keys, err := token.Keys(ctx)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
}

func TestDigests(t *testing.T) {
	token := openNew(t)
	ec := generate(t, token, hsm.KeySpec{Label: "ec", Kind: hsm.P256, Use: hsm.Sign})
	digest := sha512.Sum512([]byte("longer than the order"))
	sig, err := ec.Sign(nil, digest[:], crypto.SHA512)
	if err != nil || !ecdsa.VerifyASN1(ec.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("SHA-512 with P-256: %v", err)
	}
	_, err = ec.Sign(nil, digest[:10], crypto.SHA256)
	wantError(t, err, nil, "32")

	r := generate(t, token, hsm.KeySpec{Label: "rsa", Kind: hsm.RSA2048, Use: hsm.Sign})
	pub := r.Public().(*rsa.PublicKey)
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		h := hash.New()
		h.Write([]byte("x"))
		digest := h.Sum(nil)
		sig, err := r.Sign(nil, digest, hash)
		if err != nil || rsa.VerifyPKCS1v15(pub, hash, digest, sig) != nil {
			t.Errorf("PKCS #1 v1.5 with %v: %v", hash, err)
		}
		for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto, 20} {
			sig, err := r.Sign(nil, digest, &rsa.PSSOptions{SaltLength: salt, Hash: hash})
			if err != nil || rsa.VerifyPSS(pub, hash, digest, sig, &rsa.PSSOptions{SaltLength: salt}) != nil {
				t.Errorf("PSS with %v and salt %d: %v", hash, salt, err)
			}
		}
	}
	weak := sha1.Sum([]byte("x"))
	_, err = r.Sign(nil, weak[:], crypto.SHA1)
	wantError(t, err, nil, "SHA-256")
}

func TestOneUse(t *testing.T) {
	token := openNew(t)
	ctx := context.Background()
	derive := generate(t, token, hsm.KeySpec{Label: "derive", Kind: hsm.P256, Use: hsm.Derive})
	sign := generate(t, token, hsm.KeySpec{Label: "sign", Kind: hsm.P256, Use: hsm.Sign})
	_, err := derive.Sign(nil, make([]byte, 32), crypto.SHA256)
	wantError(t, err, nil, "derive", "sign")
	_, err = sign.ECDHKey()
	wantError(t, err, nil, "derive")
	_, err = sign.Decrypt(nil, nil, &rsa.OAEPOptions{})
	wantError(t, err, nil, "decrypt")
	for _, spec := range []hsm.KeySpec{
		{}, {Label: "x"}, {Label: "x", Kind: hsm.P256}, {Label: "x", Kind: hsm.P256, Use: hsm.Decrypt},
		{Label: "x", Kind: hsm.RSA2048, Use: hsm.Derive}, {Label: "x", Kind: 99, Use: hsm.Sign},
	} {
		if _, err := token.Generate(ctx, spec); err == nil {
			t.Errorf("%+v was made", spec)
		}
	}
	_, err = token.Generate(ctx, hsm.KeySpec{Label: "sign", Kind: hsm.P384, Use: hsm.Sign})
	wantError(t, err, hsm.ErrKeyExists, "sign")
}

func TestKeyIsOneOrNone(t *testing.T) {
	token := openNew(t)
	ctx := context.Background()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.Key(ctx, stranger.Public())
	wantError(t, err, hsm.ErrKeyNotFound, "SPKI")
	_, err = token.KeyByLabel(ctx, "nobody")
	wantError(t, err, hsm.ErrKeyNotFound, "nobody")

	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	if err := token.DestroyKey(ctx, k); err != nil {
		t.Fatal(err)
	}
	_, err = token.Key(ctx, k.Public())
	wantError(t, err, hsm.ErrKeyNotFound)
	_, err = k.Sign(nil, make([]byte, 32), crypto.SHA256)
	wantError(t, err, hsm.ErrKeyNotFound, `"k"`)
}

// Object handles are used over and over; a key that another program destroyed must not
// be answered for by the key that took its handle.
func TestKeyDestroyedBehindTheBack(t *testing.T) {
	h := newHome(t)
	cfg := newToken(t, h, "hufu")
	token, other := open(t, cfg), open(t, cfg)
	ctx := context.Background()
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	keep := generate(t, token, hsm.KeySpec{Label: "keep", Kind: hsm.P256, Use: hsm.Sign})
	checkSigns(t, k)
	same, err := other.Key(ctx, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.DestroyKey(ctx, same); err != nil {
		t.Fatal(err)
	}
	_, err = k.Sign(nil, make([]byte, 32), crypto.SHA256)
	wantError(t, err, hsm.ErrKeyNotFound)
	checkSigns(t, keep)
}

func TestSessionKey(t *testing.T) {
	token := openNew(t)
	ctx := context.Background()
	var keys []*hsm.Key
	for range 8 {
		k := generate(t, token, hsm.KeySpec{Label: "pool", Kind: hsm.P256, Use: hsm.Sign, Session: true})
		if k.Attributes().Token {
			t.Fatal("it is a token key")
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		checkSigns(t, k)
		if err := token.DestroyKey(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	k := generate(t, token, hsm.KeySpec{Label: "pool", Kind: hsm.P256, Use: hsm.Sign, Session: true})
	if err := token.CloseAllSessions(); err != nil {
		t.Fatal(err)
	}
	_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
	wantError(t, err, hsm.ErrKeyNotFound)
}

func TestECDH(t *testing.T) {
	token := openNew(t)
	for _, kind := range []hsm.KeyKind{hsm.P256, hsm.P384} {
		k := generate(t, token, hsm.KeySpec{Label: kind.String(), Kind: kind, Use: hsm.Derive})
		inside, err := k.ECDHKey()
		if err != nil {
			t.Fatal(err)
		}
		outside, err := inside.Curve().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := inside.ECDH(outside.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		want, err := outside.ECDH(inside.PublicKey())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v: the secrets differ: %v", kind, err)
		}
		stranger, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, err = inside.ECDH(stranger.PublicKey())
		wantError(t, err, nil, "curve")
	}
}

func TestOAEP(t *testing.T) {
	token := openNew(t)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.RSA2048, Use: hsm.Decrypt})
	hash, err := k.OAEPHash(context.Background())
	if err != nil || hash != crypto.SHA1 {
		t.Fatalf("OAEP hash is %v, %v; SoftHSM 2.6 can SHA-1", hash, err)
	}
	pub := k.Public().(*rsa.PublicKey)
	sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, pub, []byte("script"), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: hash})
	if err != nil || string(plain) != "script" {
		t.Fatalf("opened %q, %v", plain, err)
	}
	_, err = k.Decrypt(nil, sealed, &rsa.PKCS1v15DecryptOptions{})
	wantError(t, err, nil, "OAEP")
	sealed[9] ^= 1
	if _, err = k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: hash}); err == nil {
		t.Fatal("a changed ciphertext opened")
	}
}

func TestWrap(t *testing.T) {
	h := newHome(t)
	token := open(t, newToken(t, h, "hufu"))
	ctx := context.Background()
	if _, err := token.GenerateWrappingKey(ctx, "kek"); err != nil {
		t.Fatal(err)
	}
	_, err := token.GenerateWrappingKey(ctx, "kek")
	wantError(t, err, hsm.ErrKeyExists, "kek")
	kek, err := token.WrappingKey(ctx, "kek")
	if err != nil {
		t.Fatal(err)
	}
	fixed := generate(t, token, hsm.KeySpec{Label: "fixed", Kind: hsm.P256, Use: hsm.Sign})
	_, err = kek.Wrap(ctx, fixed)
	wantError(t, err, nil, "fixed", "CKR_KEY_UNEXTRACTABLE")

	for _, spec := range []hsm.KeySpec{
		{Kind: hsm.P256, Use: hsm.Sign}, {Kind: hsm.P384, Use: hsm.Derive}, {Kind: hsm.P256, Use: hsm.Derive, Session: true},
		{Kind: hsm.RSA2048, Use: hsm.Decrypt}, {Kind: hsm.RSA2048, Use: hsm.Sign},
	} {
		spec.Label, spec.Extractable = "k", true
		k := generate(t, token, spec)
		blob, err := kek.Wrap(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		_, err = kek.Unwrap(ctx, blob, spec, k.Public())
		wantError(t, err, hsm.ErrKeyExists)
		if err := token.DestroyKey(ctx, k); err != nil {
			t.Fatal(err)
		}
		back, err := kek.Unwrap(ctx, blob, spec, k.Public())
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		if a := back.Attributes(); back.SPKI() != k.SPKI() || a.Local || a.NeverExtractable || !a.Sensitive {
			t.Fatalf("%+v: came back with %+v", spec, a)
		}
		if spec.Use == hsm.Sign {
			checkSigns(t, back)
		}
		if err := token.DestroyKey(ctx, back); err != nil {
			t.Fatal(err)
		}

		stranger := generate(t, token, hsm.KeySpec{Label: "stranger", Kind: spec.Kind, Use: spec.Use, Session: true})
		if err := token.DestroyKey(ctx, stranger); err != nil {
			t.Fatal(err)
		}
		_, err = kek.Unwrap(ctx, blob, spec, stranger.Public())
		wantError(t, err, nil, "does not belong")
		blob[len(blob)-1] ^= 1
		if _, err := kek.Unwrap(ctx, blob, spec, k.Public()); err == nil {
			t.Fatal("a changed blob was unwrapped")
		}
		keys, err := token.Keys(ctx)
		if err != nil || len(keys) != 1 {
			t.Fatalf("%+v left something behind: %v, %v", spec, keys, err)
		}
	}
}

func TestRandom(t *testing.T) {
	token := openNew(t)
	a, err := token.Random(context.Background(), 32)
	if err != nil || len(a) != 32 || bytes.Equal(a, make([]byte, 32)) {
		t.Fatalf("%x, %v", a, err)
	}
}
