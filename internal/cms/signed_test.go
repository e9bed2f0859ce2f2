package cms_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
)

var content = []byte("fifty yuan, to card 9901000000012345\r\n\x00\xff")

func signers(t testing.TB) map[string]identity {
	return map[string]identity{
		"P-256":    issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature),
		"P-384":    issue(t, ecKey(t, elliptic.P384()), x509.KeyUsageDigitalSignature),
		"P-521":    issue(t, ecKey(t, elliptic.P521()), x509.KeyUsageDigitalSignature),
		"RSA-2048": issue(t, rsaKey(), x509.KeyUsageDigitalSignature),
	}
}

func TestSignRoundTrip(t *testing.T) {
	for name, id := range signers(t) {
		der, err := cms.Sign(oid.ContentLoadRequest, content, id.cert, [][]byte{id.root, id.cert}, id.key, now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := cms.Parse(der, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !s.ContentType.Equal(oid.ContentLoadRequest) || !bytes.Equal(s.Content, content) || !s.SigningTime().Equal(now) {
			t.Errorf("%s: read back %v %q %v", name, s.ContentType, s.Content, s.SigningTime())
		}
		if len(s.Certificates) != 2 || !bytes.Equal(s.Signer(), id.cert) {
			t.Errorf("%s: %d certificates, signer's %d octets", name, len(s.Certificates), len(s.Signer()))
		}
		if err := s.CheckSignature(id.cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.CheckSignature(id.root); err == nil {
			t.Errorf("%s: the root passes for the signer", name)
		}
	}
}

func TestSignYears(t *testing.T) {
	id := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
	for _, year := range []int{1951, 2049, 2050, 2099} {
		at := time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC)
		der, err := cms.Sign(oid.CMSData, content, id.cert, nil, id.key, at)
		if err != nil {
			t.Fatal(err)
		}
		s, err := cms.Parse(der, 0)
		if err != nil || !s.SigningTime().Equal(at) {
			t.Errorf("%v: read %v, %v", at, s.SigningTime(), err)
		}
	}
}

func TestSignWithForeignKey(t *testing.T) {
	id := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
	if _, err := cms.Sign(oid.CMSData, content, id.cert, nil, ecKey(t, elliptic.P256()), now); err == nil {
		t.Error("signed with a key that is not the certificate's")
	}
	if _, err := cms.Sign([]int{7}, content, id.cert, nil, id.key, now); err == nil {
		t.Error("signed a content type that cannot be")
	}
	if _, err := cms.Sign(oid.CMSData, content, id.cert[:50], nil, id.key, now); err == nil {
		t.Error("signed for half a certificate")
	}
}

// A second certificate for the same key, issuer name and serial number is not the
// certificate that the signer meant.
func TestSignerCertificateIsBound(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	id, twin := issue(t, key, x509.KeyUsageDigitalSignature), issue(t, key, x509.KeyUsageDigitalSignature)
	der, err := cms.Sign(oid.CMSData, content, id.cert, nil, key, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cms.Parse(der, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSignatureBy(twin.cert, key.Public()); err == nil {
		t.Error("another certificate with the same key passes")
	}
}

func TestParseSize(t *testing.T) {
	id := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
	der, err := cms.Sign(oid.CMSData, bytes.Repeat([]byte("x"), cms.MaxMessage), id.cert, nil, id.key, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cms.Parse(der, 0); err == nil || !strings.Contains(err.Error(), "more than 65536") {
		t.Errorf("parsed %d octets: %v", len(der), err)
	}
	if _, err := cms.Parse(der, len(der)); err != nil {
		t.Errorf("with room for it: %v", err)
	}
}

// No octet of a message can be changed: whatever still parses has another signer
// or another signature.
func TestSignedMalleability(t *testing.T) {
	for name, id := range signers(t) {
		der, err := cms.Sign(oid.ContentLoadRequest, content, id.cert, nil, id.key, now)
		if err != nil {
			t.Fatal(err)
		}
		masks := []byte{0x01, 0x0a}
		if soak() {
			masks = []byte{0x01, 0x02, 0x04, 0x08, 0x0a, 0x10, 0x20, 0x40, 0x80, 0xff}
		}
		for i := range der {
			for _, m := range masks {
				bad := bytes.Clone(der)
				bad[i] ^= m
				s, err := cms.Parse(bad, 0)
				if err != nil || !bytes.Equal(s.Signer(), id.cert) {
					continue
				}
				if err := s.CheckSignature(id.cert); err == nil {
					t.Errorf("%s: octet %d of %d changed by %02x is accepted", name, i, len(der), m)
				}
			}
		}
		for i := range der {
			if _, err := cms.Parse(der[:i], 0); err == nil {
				t.Errorf("%s: cut after %d octets is accepted", name, i)
			}
		}
		if _, err := cms.Parse(append(bytes.Clone(der), 0), 0); err == nil {
			t.Errorf("%s: a trailing octet is accepted", name)
		}
	}
}

func TestOpenSSLVerifiesOurs(t *testing.T) {
	for name, id := range signers(t) {
		dir := t.TempDir()
		id.write(t, dir)
		der, err := cms.Sign(oid.ContentLoadRequest, content, id.cert, [][]byte{id.root}, id.key, now)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "msg.der"), der)
		verify := []string{"cms", "-verify", "-cades", "-binary", "-inform", "DER", "-CAfile", "root.pem", "-purpose", "any", "-out", "out", "-in"}
		if !openssl(t, dir, append(verify, "msg.der")...) {
			t.Errorf("%s: openssl refuses it", name)
			continue
		}
		if !bytes.Equal(readFile(t, filepath.Join(dir, "out")), content) {
			t.Errorf("%s: openssl reads other content", name)
		}
		der[len(der)-1] ^= 1
		writeFile(t, filepath.Join(dir, "bad.der"), der)
		if openssl(t, dir, append(verify, "bad.der")...) {
			t.Errorf("%s: openssl accepts a changed signature", name)
		}
	}
}

func TestWeVerifyOpenSSL(t *testing.T) {
	for name, id := range signers(t) {
		dir := t.TempDir()
		id.write(t, dir)
		writeFile(t, filepath.Join(dir, "in"), content)
		sign := func(out string, more ...string) []byte {
			args := append([]string{"cms", "-sign", "-binary", "-nodetach", "-in", "in", "-signer", "cert.pem", "-inkey", "key.pem",
				"-certfile", "root.pem", "-outform", "DER", "-out", out}, more...)
			if !openssl(t, dir, args...) {
				t.Fatalf("%s: openssl does not sign", name)
			}
			return readFile(t, filepath.Join(dir, out))
		}
		for _, md := range []string{"sha256", "sha384", "sha512"} {
			der := sign("msg", "-cades", "-md", md, "-econtent_type", oid.ContentApproval.String())
			s, err := cms.Parse(der, 0)
			if err != nil {
				t.Errorf("%s %s: %v", name, md, err)
				continue
			}
			if err := s.CheckSignature(id.cert); err != nil {
				t.Errorf("%s %s: %v", name, md, err)
			}
			if !bytes.Equal(s.Content, content) || !s.ContentType.Equal(oid.ContentApproval) {
				t.Errorf("%s %s: read %v %q", name, md, s.ContentType, s.Content)
			}
		}
		other := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
		other.write(t, filepath.Join(dir, "other"))
		for what, flags := range map[string][]string{
			"no signingCertificateV2":        nil,
			"no attributes":                  {"-noattr"},
			"indefinite lengths":             {"-cades", "-stream"},
			"signer named by key identifier": {"-cades", "-keyid"},
			"SHA-1":                          {"-cades", "-md", "sha1"},
			"two signers":                    {"-cades", "-signer", "other/cert.pem", "-inkey", "other/key.pem"},
		} {
			if _, err := cms.Parse(sign("refused", flags...), 0); err == nil {
				t.Errorf("%s: %s is accepted", name, what)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	id := issue(f, ecKey(f, elliptic.P256()), x509.KeyUsageDigitalSignature)
	der, err := cms.Sign(oid.ContentLoadRequest, content, id.cert, [][]byte{id.root}, id.key, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(der[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := cms.Parse(b, 0)
		if err != nil {
			return
		}
		if s.CheckSignature(id.cert) == nil && !bytes.Equal(s.Content, content) {
			t.Fatalf("forged content %q", s.Content)
		}
		s.Signer()
	})
}

func BenchmarkCheckSignature(b *testing.B) {
	id := issue(b, ecKey(b, elliptic.P256()), x509.KeyUsageDigitalSignature)
	der, err := cms.Sign(oid.ContentLoadRequest, content, id.cert, [][]byte{id.root}, id.key, now)
	if err != nil {
		b.Fatal(err)
	}
	public := id.key.Public()
	for b.Loop() {
		s, err := cms.Parse(der, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.CheckSignatureBy(id.cert, public); err != nil {
			b.Fatal(err)
		}
	}
}
