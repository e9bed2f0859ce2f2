package cms_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/cms"
	"hufu/internal/oid"
)

type vectors map[string]any

func readVectors(t *testing.T) vectors {
	t.Helper()
	var file struct {
		V vectors `json:"cms_ecdh_p256"`
	}
	if err := json.Unmarshal(readFile(t, "testdata/vectors.json"), &file); err != nil {
		t.Fatal(err)
	}
	return file.V
}

func (v vectors) octets(t *testing.T, key string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[key].(string))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyAgreementVectors(t *testing.T) {
	v := readVectors(t)
	equal := func(what string, have, want []byte) {
		t.Helper()
		if !bytes.Equal(have, want) {
			t.Errorf("%s: %X, want %X", what, have, want)
		}
	}
	ephemeral, err := ecdh.P256().NewPrivateKey(v.octets(t, "ephemeral_private"))
	if err != nil {
		t.Fatal(err)
	}
	equal("ephemeral public key", ephemeral.PublicKey().Bytes(), v.octets(t, "ephemeral_public"))
	recipient, err := ecdh.P256().NewPublicKey(v.octets(t, "recipient_public"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := ephemeral.ECDH(recipient)
	if err != nil {
		t.Fatal(err)
	}
	equal("shared secret", z, v.octets(t, "shared_secret_z"))
	equal("shared info, AES-128", cms.SharedInfo(oid.AES128Wrap, 16, nil), v.octets(t, "ecc_cms_sharedinfo_aes128"))
	withUKM := vectors(v["with_ukm"].(map[string]any))
	for _, c := range []struct {
		name   string
		values vectors
		ukm    []byte
	}{{"without ukm", v, nil}, {"with ukm", withUKM, withUKM.octets(t, "ukm")}} {
		equal(c.name+": shared info", cms.SharedInfo(oid.AES256Wrap, 32, c.ukm), c.values.octets(t, "ecc_cms_sharedinfo"))
		kek := cms.DeriveKey(z, oid.AES256Wrap, 32, c.ukm)
		equal(c.name+": kek", kek, c.values.octets(t, "kek"))
		wrapped, err := cms.WrapKey(kek, v.octets(t, "cek"))
		if err != nil {
			t.Fatal(err)
		}
		equal(c.name+": encrypted key", wrapped, c.values.octets(t, "encrypted_key"))
		cek, ok := cms.UnwrapKey(kek, wrapped)
		if !ok {
			t.Errorf("%s: the key does not unwrap", c.name)
		}
		equal(c.name+": unwrapped key", cek, v.octets(t, "cek"))
		for i := range wrapped {
			bad := bytes.Clone(wrapped)
			bad[i] ^= 1
			if _, ok := cms.UnwrapKey(kek, bad); ok {
				t.Errorf("%s: octet %d changed unwraps", c.name, i)
			}
		}
	}
}

// An envelope put together from the vectors alone opens.
func TestOpenVectors(t *testing.T) {
	v := readVectors(t)
	private, err := ecdh.P256().NewPrivateKey(v.octets(t, "recipient_private"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), private.PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	id := certify(t, public, x509.KeyUsageKeyAgreement)
	o := &cms.Opener{Certificate: id.cert, ECDH: private}
	withUKM := vectors(v["with_ukm"].(map[string]any))
	for name, der := range map[string][]byte{
		"without ukm": v.envelope(t, id.cert, nil, v.octets(t, "encrypted_key")),
		"with ukm":    v.envelope(t, id.cert, withUKM.octets(t, "ukm"), withUKM.octets(t, "encrypted_key")),
	} {
		plain, err := o.Open(der)
		if err != nil || !bytes.Equal(plain, script) {
			t.Errorf("%s: opened %q, %v", name, plain, err)
		}
	}
	if _, err := o.Open(v.envelope(t, id.cert, []byte("other"), withUKM.octets(t, "encrypted_key"))); err == nil {
		t.Error("opened with another ukm")
	}
}

// envelope encodes AuthEnvelopedData by hand, from RFC 5083 and RFC 5753.
func (v vectors) envelope(t *testing.T, cert, ukm, encryptedKey []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(v.octets(t, "cek"))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, 12)
	sealed := gcm.Seal(nil, nonce, script, nil)
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	type builder = cryptobyte.Builder
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	sequence := func(b *builder, f func(*builder)) { b.AddASN1(cbasn1.SEQUENCE, f) }

	var b builder
	sequence(&b, func(b *builder) {
		b.AddASN1ObjectIdentifier(oid.CMSAuthEnvelopedData)
		b.AddASN1(context(0), func(b *builder) {
			sequence(b, func(b *builder) {
				b.AddASN1Int64(0)
				b.AddASN1(cbasn1.SET, func(b *builder) {
					b.AddASN1(context(1), func(b *builder) {
						b.AddASN1Int64(3)
						b.AddASN1(context(0), func(b *builder) {
							b.AddASN1(context(1), func(b *builder) {
								sequence(b, func(b *builder) { b.AddASN1ObjectIdentifier(oid.KeyEC) })
								b.AddASN1BitString(v.octets(t, "ephemeral_public"))
							})
						})
						if ukm != nil {
							b.AddASN1(context(1), func(b *builder) { b.AddASN1OctetString(ukm) })
						}
						sequence(b, func(b *builder) {
							b.AddASN1ObjectIdentifier(oid.ECDHStandardSHA256)
							sequence(b, func(b *builder) { b.AddASN1ObjectIdentifier(oid.AES256Wrap) })
						})
						sequence(b, func(b *builder) {
							sequence(b, func(b *builder) {
								sequence(b, func(b *builder) {
									b.AddBytes(parsed.RawIssuer)
									b.AddASN1BigInt(parsed.SerialNumber)
								})
								b.AddASN1OctetString(encryptedKey)
							})
						})
					})
				})
				sequence(b, func(b *builder) {
					b.AddASN1ObjectIdentifier(oid.CMSData)
					sequence(b, func(b *builder) {
						b.AddASN1ObjectIdentifier(oid.AES256GCM)
						sequence(b, func(b *builder) {
							b.AddASN1OctetString(nonce)
							b.AddASN1Int64(16)
						})
					})
					b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *builder) { b.AddBytes(sealed[:len(sealed)-16]) })
				})
				b.AddASN1OctetString(sealed[len(sealed)-16:])
			})
		})
	})
	return b.BytesOrPanic()
}
