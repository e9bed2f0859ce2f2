package cms_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"hufu/internal/cms"
	"hufu/internal/oid"
)

// bySSL lets openssl do the key wrap with padding, as a token would.
func bySSL(t testing.TB, pkcs8 []byte) func([]byte) ([]byte, error) {
	return func(content []byte) ([]byte, error) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "in"), pkcs8)
		return run(t, dir, "enc", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(content), "-iv", "A65959A6", "-in", "in"), nil
	}
}

// run returns what openssl writes.
func run(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v", args, err)
	}
	return out
}

// kept is a private key to be sealed, with its public half.
func kept(t testing.TB) (pkcs8, spki []byte) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pkcs8, publicOf(t, key)
}

func publicOf(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// keyRecipients are those that a private key is sealed for, each with its opener.
func keyRecipients(t testing.TB) map[string]struct {
	to cms.KeyRecipient
	id identity
	o  *cms.Opener
} {
	all := map[string]struct {
		to cms.KeyRecipient
		id identity
		o  *cms.Opener
	}{}
	for name, id := range recipients(t) {
		all[name] = struct {
			to cms.KeyRecipient
			id identity
			o  *cms.Opener
		}{cms.KeyRecipient{Certificate: id.cert}, id, opener(id)}
	}
	bare := identity{key: ecKey(t, elliptic.P256())}
	o := opener(bare)
	o.Certificate = nil
	all["bare"] = struct {
		to cms.KeyRecipient
		id identity
		o  *cms.Opener
	}{cms.KeyRecipient{SPKI: publicOf(t, bare.key)}, bare, o}
	return all
}

func sealKey(t testing.TB, to cms.KeyRecipient, pkcs8 []byte) []byte {
	t.Helper()
	der, err := cms.SealKey(to, bySSL(t, pkcs8))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSealKeyRoundTrip(t *testing.T) {
	pkcs8, spki := kept(t)
	long, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range keyRecipients(t) {
		for _, k := range []struct{ pkcs8, spki []byte }{{pkcs8, spki}, {long, publicOf(t, rsaKey())}} {
			der := sealKey(t, r.to, k.pkcs8)
			if got, err := r.o.OpenKey(der, k.spki); err != nil || !bytes.Equal(got, k.pkcs8) {
				t.Errorf("%s: opened %d octets: %v", name, len(got), err)
			}
			_, other := kept(t)
			if got, err := r.o.OpenKey(der, other); !errors.Is(err, cms.ErrOtherKey) || got != nil {
				t.Errorf("%s: opened for another public key: %v", name, err)
			}
			if _, err := r.o.Open(der); err == nil {
				t.Errorf("%s: taken for a sealed script", name)
			}
		}
	}
}

// Some tokens fill the key up with zeros before they wrap it; anything else behind it is
// not taken.
func TestOpenKeyFilledUp(t *testing.T) {
	pkcs8, spki := kept(t)
	bare := ecKey(t, elliptic.P256())
	o := opener(identity{key: bare})
	for behind, good := range map[string]bool{"\x00": true, "\x00\x00\x00\x00\x00\x00\x00": true, "\x00\x00\x00\x00\x00\x00\x00\x00": false, "\x01": false, "\x00\x01": false} {
		der := sealKey(t, cms.KeyRecipient{SPKI: publicOf(t, bare)}, append(bytes.Clone(pkcs8), behind...))
		if got, err := o.OpenKey(der, spki); good != (err == nil) || good && !bytes.Equal(got, pkcs8) {
			t.Errorf("%q behind the key: %d octets, %v", behind, len(got), err)
		}
	}
}

func TestSealKeyRefuses(t *testing.T) {
	pkcs8, spki := kept(t)
	wrap := bySSL(t, pkcs8)
	signing := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageDigitalSignature)
	for name, to := range map[string]cms.KeyRecipient{
		"a signing certificate": {Certificate: signing.cert}, "half a certificate": {Certificate: signing.cert[:60]}, "nobody": {}, "rubbish": {SPKI: []byte("rubbish")},
		"a bare P-384 key": {SPKI: publicOf(t, ecKey(t, elliptic.P384()))}, "a bare RSA key": {SPKI: publicOf(t, rsaKey())}, "a huge key": {SPKI: make([]byte, 1<<20)},
	} {
		if _, err := cms.SealKey(to, wrap); err == nil {
			t.Errorf("sealed to %s", name)
		}
	}
	broken := errors.New("the token is gone")
	bare := ecKey(t, elliptic.P256())
	if _, err := cms.SealKey(cms.KeyRecipient{SPKI: publicOf(t, bare)}, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("a token that fails: %v", err)
	}
	der := sealKey(t, cms.KeyRecipient{SPKI: publicOf(t, bare)}, pkcs8)
	other := opener(identity{key: ecKey(t, elliptic.P256())})
	if _, err := other.OpenKey(der, spki); !errors.Is(err, cms.ErrRecipient) {
		t.Errorf("with another bare key: %v", err)
	}
	if _, err := opener(issue(t, bare, x509.KeyUsageKeyAgreement)).OpenKey(der, spki); !errors.Is(err, cms.ErrRecipient) {
		t.Errorf("with a certificate for the bare key: %v", err)
	}
	if _, err := (&cms.Opener{}).OpenKey(der, spki); err == nil {
		t.Error("opened with no key")
	}
	certified := issue(t, ecKey(t, elliptic.P256()), x509.KeyUsageKeyAgreement)
	stranger := opener(identity{key: ecKey(t, elliptic.P256()), cert: certified.cert})
	if _, err := stranger.OpenKey(sealKey(t, cms.KeyRecipient{Certificate: certified.cert}, pkcs8), spki); !errors.Is(err, cms.ErrOpen) {
		t.Errorf("with a stranger's key for the certificate: %v", err)
	}
	// What is inside must be a private key, and an error never shows it.
	secret := []byte("secret octets that are no private key")
	o := opener(identity{key: bare})
	if _, err := o.OpenKey(sealKey(t, cms.KeyRecipient{SPKI: publicOf(t, bare)}, secret), spki); err == nil || bytes.Contains([]byte(err.Error()), secret[:6]) {
		t.Errorf("rubbish inside: %v", err)
	}
}

// Nothing in such an envelope can be changed without notice.
func TestSealKeyMalleability(t *testing.T) {
	pkcs8, spki := kept(t)
	for name, r := range keyRecipients(t) {
		der := sealKey(t, r.to, pkcs8)
		masks := []byte{0x01}
		if soak() {
			masks = []byte{0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}
		}
		for i := range der {
			for _, m := range masks {
				bad := bytes.Clone(der)
				bad[i] ^= m
				if _, err := r.o.OpenKey(bad, spki); err == nil {
					t.Errorf("%s: octet %d of %d changed by %02x is accepted", name, i, len(der), m)
				}
			}
			if _, err := r.o.OpenKey(der[:i], spki); err == nil {
				t.Errorf("%s: cut after %d octets is accepted", name, i)
			}
		}
		if _, err := r.o.OpenKey(append(bytes.Clone(der), 0), spki); err == nil {
			t.Errorf("%s: a trailing octet is accepted", name)
		}
	}
}

// The same structure as RFC 5652 writes it down, for the standard library's parser,
// which shares nothing with the reader of this package.
type (
	envelopedInfo struct {
		Type    asn1.ObjectIdentifier
		Content envelopedData `asn1:"explicit,tag:0"`
	}
	envelopedData struct {
		Version    int
		Recipients []asn1.RawValue `asn1:"set"`
		Content    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Encrypted []byte `asn1:"tag:0"`
		}
	}
	agreeInfo struct {
		Version    int
		Originator asn1.RawValue // [0] EXPLICIT
		Algorithm  struct {
			ID   asn1.ObjectIdentifier
			Wrap pkix.AlgorithmIdentifier
		}
		Keys []struct {
			Recipient asn1.RawValue
			Encrypted []byte
		}
	}
	originatorKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Point     asn1.BitString
	}
	keyIDInfo struct{ ID []byte }
	shared    struct {
		Wrap pkix.AlgorithmIdentifier
		Size []byte `asn1:"explicit,tag:2"`
	}
)

// TestOpenSSLOpensOurKeys: `openssl cms -decrypt` opens what is sealed to a certificate.
// It has no way to name a bare key, so openssl does that step by step, and the others
// too: it reads the structure, agrees on the secret, derives the key, unwraps the content
// key, unwraps the private key.
func TestOpenSSLOpensOurKeys(t *testing.T) {
	pkcs8, spki := kept(t)
	for name, r := range keyRecipients(t) {
		dir := t.TempDir()
		der := sealKey(t, r.to, pkcs8)
		writeFile(t, filepath.Join(dir, "msg"), der)
		if printed := run(t, dir, "cms", "-cmsout", "-print", "-inform", "DER", "-in", "msg"); !bytes.Contains(printed, []byte("id-aes256-wrap-pad")) {
			t.Errorf("%s: openssl reads another structure:\n%s", name, printed)
		}
		var m envelopedInfo
		if rest, err := asn1.Unmarshal(der, &m); err != nil || len(rest) != 0 || !m.Type.Equal(oid.CMSEnvelopedData) || len(m.Content.Recipients) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		if len(m.Content.Content.Algorithm.Parameters.FullBytes) != 0 {
			t.Errorf("%s: RFC 5649 leaves the parameters out", name)
		}
		if r.to.Certificate != nil {
			r.id.write(t, dir)
			decrypt := []string{"cms", "-decrypt", "-binary", "-inform", "DER", "-recip", "cert.pem", "-inkey", "key.pem", "-out", "opened", "-in"}
			if !openssl(t, dir, append(decrypt, "msg")...) || !bytes.Equal(readFile(t, filepath.Join(dir, "opened")), pkcs8) {
				t.Errorf("%s: openssl cms does not open it", name)
			}
			bad := bytes.Clone(der)
			bad[len(bad)-1] ^= 1
			writeFile(t, filepath.Join(dir, "bad"), bad)
			if openssl(t, dir, append(decrypt, "bad")...) && bytes.Equal(readFile(t, filepath.Join(dir, "opened")), pkcs8) {
				t.Errorf("%s: openssl cms opens a damaged one", name)
			}
		}
		var content []byte
		key, err := x509.MarshalPKCS8PrivateKey(r.id.key)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key)
		if _, isRSA := r.id.key.(*rsa.PrivateKey); isRSA {
			content = opensslTransport(t, dir, &m)
		} else {
			content = opensslAgrees(t, dir, r.id.key.(*ecdsa.PrivateKey), r.to, &m)
		}
		writeFile(t, filepath.Join(dir, "wrapped"), m.Content.Content.Encrypted)
		writeFile(t, filepath.Join(dir, "out"), run(t, dir, "enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(content), "-iv", "A65959A6", "-in", "wrapped"))
		if !bytes.Equal(readFile(t, filepath.Join(dir, "out")), pkcs8) {
			t.Errorf("%s: openssl gets another private key", name)
		}
		if public := run(t, dir, "pkey", "-inform", "DER", "-in", "out", "-pubout", "-outform", "DER"); !bytes.Equal(public, spki) {
			t.Errorf("%s: its public half is another", name)
		}
	}
}

func opensslTransport(t *testing.T, dir string, m *envelopedInfo) []byte {
	t.Helper()
	var info struct {
		Version   int
		ID        asn1.RawValue
		Algorithm asn1.RawValue
		Encrypted []byte
	}
	if _, err := asn1.Unmarshal(m.Content.Recipients[0].FullBytes, &info); err != nil || m.Content.Version != 0 || info.Version != 0 {
		t.Fatalf("versions %d and %d: %v", m.Content.Version, info.Version, err)
	}
	writeFile(t, filepath.Join(dir, "ek"), info.Encrypted)
	return run(t, dir, "pkeyutl", "-decrypt", "-inkey", "key.pem", "-in", "ek", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
}

func opensslAgrees(t *testing.T, dir string, key *ecdsa.PrivateKey, to cms.KeyRecipient, m *envelopedInfo) []byte {
	t.Helper()
	var info agreeInfo
	if _, err := asn1.UnmarshalWithParams(m.Content.Recipients[0].FullBytes, &info, "tag:1"); err != nil || m.Content.Version != 2 || info.Version != 3 || len(info.Keys) != 1 {
		t.Fatalf("versions %d and %d: %v", m.Content.Version, info.Version, err)
	}
	if to.Certificate == nil {
		var id keyIDInfo
		if _, err := asn1.UnmarshalWithParams(info.Keys[0].Recipient.FullBytes, &id, "tag:0"); err != nil || len(id.ID) != 20 {
			t.Fatalf("rKeyId: %v", err)
		}
		if want, err := cms.KeyID(&key.PublicKey); err != nil || !bytes.Equal(want, id.ID) {
			t.Errorf("rKeyId is %x, not %x", id.ID, want)
		}
	}
	var originator originatorKey
	if _, err := asn1.UnmarshalWithParams(info.Originator.Bytes, &originator, "tag:1"); err != nil || info.Originator.Tag != 0 {
		t.Fatalf("originator: %v", err)
	}
	ephemeral, err := ecdsa.ParseUncompressedPublicKey(key.Curve, originator.Point.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := x509.MarshalPKIXPublicKey(ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "peer.pem"), "PUBLIC KEY", peer)
	z := run(t, dir, "pkeyutl", "-derive", "-inkey", "key.pem", "-peerkey", "peer.pem")
	with, err := asn1.Marshal(shared{info.Algorithm.Wrap, binary.BigEndian.AppendUint32(nil, 256)})
	if err != nil {
		t.Fatal(err)
	}
	kek := run(t, dir, "kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "hexsecret:"+hex.EncodeToString(z), "-kdfopt", "hexinfo:"+hex.EncodeToString(with), "-binary", "X963KDF")
	writeFile(t, filepath.Join(dir, "ek"), info.Keys[0].Encrypted)
	return run(t, dir, "enc", "-d", "-id-aes256-wrap", "-K", hex.EncodeToString(kek), "-iv", "A6A6A6A6A6A6A6A6", "-in", "ek")
}

// RFC 5649, Section 6, both examples; the second is of one block, which Hufu has no use
// for and refuses. The rest are made to be wrong in one place each.
func TestUnwrapPadded(t *testing.T) {
	kek, _ := hex.DecodeString("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	long, _ := hex.DecodeString("138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a")
	want, _ := hex.DecodeString("c37b7e6492584340bed12207808941155068f738")
	if got, ok := cms.UnwrapPadded(kek, long); !ok || !bytes.Equal(got, want) {
		t.Errorf("unwrapped %x, %v", got, ok)
	}
	short, _ := hex.DecodeString("afbeb0f07dfbf5419200f2ccb50bb24f")
	if _, ok := cms.UnwrapPadded(kek, short); ok {
		t.Error("one block was unwrapped")
	}
	k := make([]byte, 32)
	for name, padded := range map[string]struct {
		head string
		rest []byte
		good bool
	}{
		"whole":            {"a65959a600000010", make([]byte, 16), true},
		"seven of padding": {"a65959a600000009", make([]byte, 16), true},
		"eight of padding": {"a65959a600000008", make([]byte, 16), false},
		"longer":           {"a65959a600000011", make([]byte, 16), false},
		"huge":             {"a65959a6ffffffff", make([]byte, 16), false},
		"none":             {"a65959a600000000", make([]byte, 16), false},
		"other head":       {"a65959a700000010", make([]byte, 16), false},
		"RFC 3394":         {"a6a6a6a6a6a6a6a6", make([]byte, 16), false},
		"padding not zero": {"a65959a60000000f", bytes.Repeat([]byte{1}, 16), false},
	} {
		head, _ := hex.DecodeString(padded.head)
		if _, ok := cms.UnwrapPadded(k, cms.WrapWith(k, head, padded.rest)); ok != padded.good {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

func FuzzOpenKey(f *testing.F) {
	pkcs8, spki := kept(f)
	for name, r := range keyRecipients(f) {
		if name == "bare" {
			der := sealKey(f, r.to, pkcs8)
			f.Add(der)
			f.Add(der[:80])
			f.Fuzz(func(t *testing.T, b []byte) {
				if _, err := r.o.OpenKey(b, spki); err == nil && !bytes.Equal(b, der) {
					t.Fatal("another envelope opens to the same key")
				}
			})
		}
	}
}
