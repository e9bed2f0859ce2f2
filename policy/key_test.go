package policy_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
)

func spkiOf(key crypto.PublicKey) []byte { return testpki.Must(x509.MarshalPKIXPublicKey(key)) }

// rsaSPKI encodes any modulus and exponent, sound or not.
func rsaSPKI(n, e *big.Int) []byte {
	key := testpki.Must(asn1.Marshal(struct{ N, E *big.Int }{n, e}))
	return marshalSPKI(oid.KeyRSA, asn1.NullRawValue, key)
}

func ecSPKI(curve asn1.ObjectIdentifier, point []byte) []byte {
	return marshalSPKI(oid.KeyEC, asn1.RawValue{FullBytes: testpki.Must(asn1.Marshal(curve))}, point)
}

func marshalSPKI(algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, key []byte) []byte {
	type id struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue
	}
	return testpki.Must(asn1.Marshal(struct {
		Algorithm id
		Key       asn1.BitString
	}{id{algorithm, parameters}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}}))
}

// prime returns the first prime of the form start + 2k.
func prime(start *big.Int) *big.Int {
	p := new(big.Int).Set(start)
	for p.SetBit(p, 0, 1); !p.ProbablyPrime(16); p.Add(p, big.NewInt(2)) {
	}
	return p
}

// random1024 is a number of 1,024 bits whose two highest are set, so that the
// product of two of them has 2,048.
func random1024() *big.Int {
	b := make([]byte, 128)
	testpki.Must(rand.Read(b))
	b[0] |= 0xc0
	return new(big.Int).SetBytes(b)
}

var goodRSA = sync.OnceValue(func() *rsa.PrivateKey { return testpki.Must(rsa.GenerateKey(rand.Reader, 2048)) })

// rocaModulus makes a modulus as the broken generator did: both primes are
// k·M + (65537^a mod M), M the product of the first 126 primes.
var rocaModulus = sync.OnceValue(func() *big.Int {
	m, found := big.NewInt(1), 0
	for n := int64(2); found < 126; n++ {
		if p := big.NewInt(n); p.ProbablyPrime(0) {
			m.Mul(m, p)
			found++
		}
	}
	make1 := func() *big.Int {
		high := new(big.Int).Lsh(big.NewInt(3), 1022) // keeps the two highest bits
		for {
			a := testpki.Must(rand.Int(rand.Reader, m))
			k := testpki.Must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 40)))
			k.Add(k, new(big.Int).Div(high, m))
			p := new(big.Int).Exp(big.NewInt(65537), a, m)
			if p.Add(p, k.Mul(k, m)).ProbablyPrime(1) && p.BitLen() == 1024 {
				return p
			}
		}
	}
	return new(big.Int).Mul(make1(), make1())
})

var fermatModulus = sync.OnceValue(func() *big.Int {
	p := prime(random1024())
	return new(big.Int).Mul(p, prime(new(big.Int).Add(p, big.NewInt(2))))
})

// TestBadKeys is the table of keys that are refused, and by which name.
func TestBadKeys(t *testing.T) {
	e := big.NewInt(65537)
	good := goodRSA().N
	p256 := testpki.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	point := testpki.Must(p256.PublicKey.ECDH()).Bytes()
	off := bytes.Clone(point)
	off[64] ^= 1
	compressed := elliptic.MarshalCompressed(elliptic.P256(), p256.X, p256.Y)
	p := prime(random1024())
	for name, c := range map[string]struct {
		rule string
		spki []byte
	}{
		"nothing":                     {"key-form", nil},
		"rubbish":                     {"key-form", []byte("rubbish")},
		"something behind":            {"key-form", append(spkiOf(p256.Public()), 0)},
		"Ed25519":                     {"key-form", spkiOf(testpki.Must(ed25519Key()))},
		"P-224":                       {"key-curve", spkiOf(testpki.Must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public())},
		"P-521":                       {"key-curve", spkiOf(testpki.Must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)).Public())},
		"secp256k1":                   {"key-curve", ecSPKI(oid.CurveK256, point)},
		"SM2":                         {"key-curve", ecSPKI(oid.CurveSM2, point)},
		"no curve":                    {"key-curve", marshalSPKI(oid.KeyEC, asn1.NullRawValue, point)},
		"P-256 point as P-384":        {"key-point", ecSPKI(oid.CurveP384, point)},
		"not on the curve":            {"key-point", ecSPKI(oid.CurveP256, off)},
		"zero point":                  {"key-point", ecSPKI(oid.CurveP256, append([]byte{4}, make([]byte, 64)...))},
		"infinity":                    {"key-point", ecSPKI(oid.CurveP256, []byte{0})},
		"compressed":                  {"key-point", ecSPKI(oid.CurveP256, compressed)},
		"RSA-1024":                    {"key-size", rsaSPKI(new(big.Int).Rsh(good, 1024), e)},
		"RSA-2047":                    {"key-size", rsaSPKI(new(big.Int).Rsh(good, 1), e)},
		"RSA-8192":                    {"key-size", rsaSPKI(new(big.Int).Lsh(good, 6144), e)},
		"RSA of a megabit":            {"key-size", rsaSPKI(new(big.Int).Lsh(good, 1<<20), e)},
		"e of a megabit":              {"key-size", rsaSPKI(good, new(big.Int).Lsh(e, 1<<20))},
		"e = 3":                       {"key-exponent", rsaSPKI(good, big.NewInt(3))},
		"e = 1":                       {"key-exponent", rsaSPKI(good, big.NewInt(1))},
		"e = 0":                       {"key-exponent", rsaSPKI(good, big.NewInt(0))},
		"e even":                      {"key-exponent", rsaSPKI(good, big.NewInt(65538))},
		"e large":                     {"key-exponent", rsaSPKI(good, new(big.Int).Lsh(e, 300))},
		"e negative":                  {"key-form", rsaSPKI(good, big.NewInt(-65537))},
		"modulus negative":            {"key-form", rsaSPKI(new(big.Int).Neg(good), e)},
		"modulus even":                {"key-even", rsaSPKI(new(big.Int).Sub(good, big.NewInt(1)), e)},
		"modulus with factor 751":     {"key-factor", rsaSPKI(withFactor(good, 751), e)},
		"ROCA":                        {"key-roca", rsaSPKI(rocaModulus(), e)},
		"Fermat, neighbouring primes": {"key-fermat", rsaSPKI(fermatModulus(), e)},
		"Fermat, a square":            {"key-fermat", rsaSPKI(new(big.Int).Mul(p, p), e)},
		"RSA without NULL":            {"key-form", marshalSPKI(oid.KeyRSA, asn1.RawValue{}, testpki.Must(asn1.Marshal(struct{ N, E *big.Int }{good, e})))},
	} {
		begin := time.Now()
		err := policy.CheckKey(c.spki, nil)
		var v *policy.Violation
		if !errors.As(err, &v) || v.Rule != c.rule || v.Citation == "" || v.Detail == "" {
			t.Errorf("%s: %v, want rule %s", name, err, c.rule)
		}
		if took := time.Since(begin); c.rule == "key-size" && took > time.Second {
			t.Errorf("%s: refused by size only after %s", name, took)
		}
	}
}

func ed25519Key() (crypto.PublicKey, error) {
	key, _, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// withFactor is the multiple of p next below n that is odd.
func withFactor(n *big.Int, p int64) *big.Int {
	q := new(big.Int).Div(n, big.NewInt(p))
	if q.Bit(0) == 0 {
		q.Sub(q, big.NewInt(1))
	}
	return q.Mul(q, big.NewInt(p))
}

func TestGoodKeys(t *testing.T) {
	for kind, key := range map[policy.KeyKind]crypto.PublicKey{
		policy.P256:    testpki.Must(testpki.Key()).Public(),
		policy.P384:    testpki.Must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).Public(),
		policy.RSA2048: goodRSA().Public(),
	} {
		if err := policy.CheckKey(spkiOf(key), nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if got, bits, err := policy.KeyOf(spkiOf(key)); err != nil || got != kind || !bytes.Contains(spkiOf(key), bits) {
			t.Errorf("%s: read as %s, %v", kind, got, err)
		}
	}
	// A CA's key has at least the strength of RSA-3072.
	var v *policy.Violation
	root := testpki.Must(policy.Find("root"))
	if err := policy.CheckKey(spkiOf(goodRSA().Public()), root); !errors.As(err, &v) || v.Rule != "key-kind" {
		t.Errorf("RSA-2048 for a root: %v", err)
	}
}

func TestKeyList(t *testing.T) {
	ec, rsaKey := spkiOf(testpki.Must(testpki.Key()).Public()), spkiOf(goodRSA().Public())
	fingerprint := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", goodRSA().N))
	list := testpki.Must(policy.ReadKeyList(strings.NewReader(fmt.Sprintf("# keys\n\nspki-sha256:%x # leaked\n%x\n", sha256.Sum256(ec), fingerprint[10:]))))
	if list.Len() != 2 {
		t.Errorf("%d keys were read", list.Len())
	}
	var v *policy.Violation
	for name, spki := range map[string][]byte{"known": ec, "Debian's": rsaKey} {
		if err := policy.CheckKey(spki, nil, list); !errors.As(err, &v) || v.Rule != "key-blocked" {
			t.Errorf("%s: %v", name, err)
		}
		if err := policy.CheckKey(spki, nil, nil); err != nil {
			t.Errorf("%s: without a list: %v", name, err)
		}
	}
	if err := policy.CheckKey(spkiOf(testpki.Must(testpki.Key()).Public()), nil, list); err != nil {
		t.Errorf("a key that is not on the list: %v", err)
	}
	for _, bad := range []string{"spki-sha256:00", "zz", strings.Repeat("0", 40), "sha256:" + strings.Repeat("0", 64)} {
		if _, err := policy.ReadKeyList(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// FuzzCheckKey holds one property: no bytes make CheckKey panic, and what it lets
// pass crypto/x509 reads as a key of the kinds that are certified.
func FuzzCheckKey(f *testing.F) {
	f.Add(spkiOf(testpki.Must(testpki.Key()).Public()))
	f.Add(spkiOf(goodRSA().Public()))
	f.Add(rsaSPKI(fermatModulus(), big.NewInt(65537)))
	f.Fuzz(func(t *testing.T, spki []byte) {
		if policy.CheckKey(spki, nil) != nil {
			return
		}
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			t.Fatalf("accepted a key that crypto/x509 does not: %v", err)
		}
		if !bytes.Equal(spkiOf(key), spki) {
			t.Fatal("accepted a key that is not in DER")
		}
	})
}

func BenchmarkCheckKey(b *testing.B) {
	for name, spki := range map[string][]byte{"P-256": spkiOf(testpki.Must(testpki.Key()).Public()), "RSA-2048": spkiOf(goodRSA().Public())} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := policy.CheckKey(spki, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
