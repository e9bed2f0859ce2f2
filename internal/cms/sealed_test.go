package cms_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"

	"hufu/internal/cms"
)

var script = []byte("load key 00112233445566778899AABBCCDDEEFF\x00\r\n")

func recipients(t testing.TB) map[string]identity {
	return map[string]identity{
		"P-256":    issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageKeyAgreement),
		"P-384":    issue(t, ecKey(t, elliptic.P384()), x509.KeyUsageKeyAgreement),
		"RSA-2048": issue(t, rsaKey(), x509.KeyUsageKeyEncipherment),
	}
}

func seal(t testing.TB, s *cms.Sealer, plain []byte) []byte {
	t.Helper()
	der, err := s.Seal(plain)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSealRoundTrip(t *testing.T) {
	for name, id := range recipients(t) {
		for _, hash := range []crypto.Hash{0, crypto.SHA1, crypto.SHA256} {
			for _, plain := range [][]byte{nil, script, bytes.Repeat(script, 1000)} {
				der := seal(t, &cms.Sealer{Recipient: id.cert, OAEP: hash}, plain)
				got, err := opener(id).Open(der)
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s, %v: opened %d octets of %d: %v", name, hash, len(got), len(plain), err)
				}
				if len(plain) > 0 && bytes.Contains(der, plain) {
					t.Errorf("%s: the plaintext is in the envelope", name)
				}
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	signing := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
	if _, err := cms.Seal(script, signing.cert, nil); err == nil {
		t.Error("sealed to a signing certificate")
	}
	rsa := issue(t, rsaKey(), x509.KeyUsageKeyEncipherment)
	if _, err := (&cms.Sealer{Recipient: rsa.cert, OAEP: crypto.SHA512}).Seal(script); err == nil {
		t.Error("sealed with a hash that readers do not know")
	}
	if _, err := cms.Seal(script, rsa.cert[:100], nil); err == nil {
		t.Error("sealed to half a certificate")
	}
}

// An envelope opens only for the certificate it names, with that certificate's key.
func TestOpenForOther(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	id, renewed := issue(t, key, x509.KeyUsageKeyAgreement), issue(t, key, x509.KeyUsageKeyAgreement)
	other := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageKeyAgreement)
	der := seal(t, &cms.Sealer{Recipient: id.cert}, script)
	if _, err := opener(renewed).Open(der); !errors.Is(err, cms.ErrRecipient) {
		t.Errorf("with another certificate for the same key: %v", err)
	}
	stranger := opener(other)
	stranger.Certificate = id.cert
	if _, err := stranger.Open(der); !errors.Is(err, cms.ErrOpen) {
		t.Errorf("with another key: %v", err)
	}
	if _, err := (&cms.Opener{Certificate: id.cert}).Open(der); !errors.Is(err, cms.ErrOpen) {
		t.Errorf("without a key: %v", err)
	}
}

func TestSealedMalleability(t *testing.T) {
	for name, id := range recipients(t) {
		der := seal(t, &cms.Sealer{Recipient: id.cert}, script)
		masks := []byte{0x01}
		if soak() {
			masks = []byte{0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}
		}
		o := opener(id)
		for i := range der {
			for _, m := range masks {
				bad := bytes.Clone(der)
				bad[i] ^= m
				if _, err := o.Open(bad); err == nil {
					t.Errorf("%s: octet %d of %d changed by %02x is accepted", name, i, len(der), m)
				}
			}
		}
		for i := range der {
			if _, err := o.Open(der[:i]); err == nil {
				t.Errorf("%s: cut after %d octets is accepted", name, i)
			}
		}
		if _, err := o.Open(append(bytes.Clone(der), 0)); err == nil {
			t.Errorf("%s: a trailing octet is accepted", name)
		}
	}
}

func TestOpenSSLOpensOurs(t *testing.T) {
	for name, id := range recipients(t) {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA1} {
			dir := t.TempDir()
			id.write(t, dir)
			der := seal(t, &cms.Sealer{Recipient: id.cert, OAEP: hash}, script)
			decrypt := []string{"cms", "-decrypt", "-binary", "-inform", "DER", "-recip", "cert.pem", "-inkey", "key.pem", "-out", "out", "-in"}
			writeFile(t, filepath.Join(dir, "msg"), der)
			if !openssl(t, dir, append(decrypt, "msg")...) || !bytes.Equal(readFile(t, filepath.Join(dir, "out")), script) {
				t.Errorf("%s, %v: openssl does not open it", name, hash)
			}
			// On a bad tag openssl has written the plaintext before it
			// notices: only the exit code counts.
			der[len(der)-1] ^= 1
			writeFile(t, filepath.Join(dir, "bad"), der)
			if openssl(t, dir, append(decrypt, "bad")...) {
				t.Errorf("%s, %v: openssl accepts a wrong tag", name, hash)
			}
		}
	}
}

func TestWeOpenOpenSSL(t *testing.T) {
	for name, id := range recipients(t) {
		dir := t.TempDir()
		id.write(t, dir)
		writeFile(t, filepath.Join(dir, "in"), script)
		encrypt := func(cipher string, more ...string) []byte {
			args := append([]string{"cms", "-encrypt", "-binary", cipher, "-in", "in", "-outform", "DER", "-out", "msg", "-recip", "cert.pem"}, more...)
			if !openssl(t, dir, args...) {
				t.Fatalf("%s: openssl does not encrypt", name)
			}
			return readFile(t, filepath.Join(dir, "msg"))
		}
		good := [][]string{{"-keyopt", "ecdh_kdf_md:sha256"}}
		bad := [][]string{{}, {"-keyopt", "ecdh_kdf_md:sha1"}}
		if name == "RSA-2048" {
			good = [][]string{
				{"-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"},
				{"-keyopt", "rsa_padding_mode:oaep"},
			}
			bad = [][]string{{}, {"-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha1"}}
		}
		for _, opts := range good {
			plain, err := opener(id).Open(encrypt("-aes-256-gcm", opts...))
			if err != nil || !bytes.Equal(plain, script) {
				t.Errorf("%s %v: opened %q: %v", name, opts, plain, err)
			}
			for _, cipher := range []string{"-aes-128-gcm", "-aes-256-cbc"} {
				if _, err := opener(id).Open(encrypt(cipher, opts...)); err == nil {
					t.Errorf("%s %v: %s is accepted", name, opts, cipher)
				}
			}
		}
		for _, opts := range bad {
			if _, err := opener(id).Open(encrypt("-aes-256-gcm", opts...)); err == nil {
				t.Errorf("%s %v: accepted", name, opts)
			}
		}
	}
}

// RFC 3394, Section 4.1 and Section 4.6.
func TestKeyWrapVectors(t *testing.T) {
	for _, v := range [][3]string{
		{"000102030405060708090A0B0C0D0E0F", "00112233445566778899AABBCCDDEEFF", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		kek, _ := hex.DecodeString(v[0])
		key, _ := hex.DecodeString(v[1])
		want, _ := hex.DecodeString(v[2])
		if got, err := cms.WrapKey(kek, key); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrapped %X, %v", got, err)
		}
	}
	for _, n := range []int{0, 8, 15, 17} {
		if _, err := cms.WrapKey(make([]byte, 32), make([]byte, n)); err == nil {
			t.Errorf("wrapped a key of %d octets", n)
		}
		if _, ok := cms.UnwrapKey(make([]byte, 32), make([]byte, n)); ok {
			t.Errorf("unwrapped %d octets", n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	id := issue(f, ecKey(f, elliptic.P256()), x509.KeyUsageKeyAgreement)
	o := opener(id)
	der := seal(f, &cms.Sealer{Recipient: id.cert}, script)
	f.Add(der)
	f.Add(der[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := o.Open(b); err == nil && !bytes.Equal(b, der) {
			t.Fatalf("opened %q", plain)
		}
	})
}
