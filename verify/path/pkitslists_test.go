package path_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // what NIST signed with
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/verify/path"
)

// pkitsListsRefused names what is valid by RFC 5280 and refused here, each with why.
var pkitsListsRefused = map[string]string{
	"4.14.30 ": "an issuer of lists that vouches for itself",
}

// TestPKITSLists judges the sections of PKITS that rest on revocation lists. NIST's
// lists are signed by RSA keys of 1024 bits with SHA-1, which would hide every other
// fault, so each key is replaced by another one and what it signed is signed again;
// all else stays as NIST wrote it.
func TestPKITSLists(t *testing.T) {
	var tests []pkits
	if err := json.Unmarshal(readZip(t, "testdata/pkits.zip")["vectors.json"], &tests); err != nil {
		t.Fatal(err)
	}
	files := rekey(t, readZip(t, "testdata/pkits-lists.zip"))
	judged := 0
	for _, tc := range tests {
		section, _, _ := strings.Cut(tc.Name[2:], ".")
		if !strings.Contains(" 4 5 7 14 15 ", " "+section+" ") {
			continue
		}
		t.Run(tc.Name, func(t *testing.T) {
			r := path.Request{Time: time.Date(2008, 5, 20, 0, 0, 0, 0, time.UTC)}
			for i, name := range tc.CertPath {
				der := files["certs/"+name]
				switch {
				case der == nil:
					t.Fatalf("%s is not there", name)
				case i == 0:
					r.Anchors = [][]byte{der}
				case i == len(tc.CertPath)-1:
					r.Certificate = der
				default:
					r.Intermediates = append(r.Intermediates, der)
				}
			}
			for _, name := range tc.CRLPath {
				der := files["crls/"+name]
				if der == nil {
					t.Fatalf("%s is not there", name)
				}
				r.CRLs = append(r.CRLs, bytes.NewReader(der))
			}
			a := path.Validate(t.Context(), &r)
			t.Logf("%v", a.Reason)
			judged++
			for prefix, why := range pkitsListsRefused {
				if strings.HasPrefix(tc.Name, prefix) {
					if a.Valid {
						t.Errorf("valid, although refused for %s", why)
					}
					return
				}
			}
			if a.Valid != tc.ShouldValidate {
				t.Errorf("valid is %v, want %v: %v", a.Valid, tc.ShouldValidate, a.Reason)
			}
			if !tc.ShouldValidate {
				return
			}
			// A verdict that holds without lists as well would show nothing.
			r.CRLs = nil
			if a := path.Validate(t.Context(), &r); a.Valid {
				t.Error("valid without its lists")
			}
		})
	}
	if judged != 79 {
		t.Errorf("%d tests were judged", judged)
	}
}

// rekey gives every certificate another key and signs everything again: with the
// new key of whoever had signed it, or a stranger's where the signature was bad.
func rekey(t *testing.T, files map[string][]byte) map[string][]byte {
	t.Helper()
	type pair struct {
		old *rsa.PublicKey
		new *ecdsa.PrivateKey
	}
	keys := map[string]pair{} // by the old key
	for name, der := range files {
		if strings.HasPrefix(name, "certs/") {
			spki := elements(t, signedPart(t, der))[6]
			if _, there := keys[string(spki)]; there {
				continue
			}
			old, err := x509.ParsePKIXPublicKey(spki)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			keys[string(spki)] = pair{old.(*rsa.PublicKey), newKey(t)}
		}
	}
	stranger := newKey(t)
	algorithm := []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")
	again := map[string][]byte{}
	for name, der := range files {
		isCert := strings.HasPrefix(name, "certs/")
		if !isCert && !strings.HasPrefix(name, "crls/") {
			continue
		}
		var outer, bits cryptobyte.String
		input := cryptobyte.String(der)
		var signature []byte
		if !input.ReadASN1(&outer, asn1.SEQUENCE) || !outer.SkipASN1(asn1.SEQUENCE) || !outer.SkipASN1(asn1.SEQUENCE) || !outer.ReadASN1(&bits, asn1.BIT_STRING) {
			t.Fatalf("%s is neither a certificate nor a list", name)
		}
		signature = bits[1:]
		digest := sha1.Sum(signedPart(t, der))
		signer := stranger
		for _, k := range keys {
			if rsa.VerifyPKCS1v15(k.old, crypto.SHA1, digest[:], signature) == nil {
				signer = k.new
			}
		}
		parts := elements(t, signedPart(t, der))
		if isCert {
			spki, err := x509.MarshalPKIXPublicKey(keys[string(parts[6])].new.Public())
			if err != nil {
				t.Fatal(err)
			}
			parts[2], parts[6] = algorithm, spki
		} else {
			parts[1] = algorithm
		}
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
		tbs := b.BytesOrPanic()
		sum := sha256.Sum256(tbs)
		renewed, err := ecdsa.SignASN1(rand.Reader, signer, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		again[name] = wrap(tbs, algorithm, renewed)
	}
	return again
}

// signedPart is the element that is signed.
func signedPart(t *testing.T, der []byte) []byte { return elements(t, der)[0] }

// elements cuts the contents of a SEQUENCE into its elements.
func elements(t *testing.T, der []byte) [][]byte {
	t.Helper()
	input := cryptobyte.String(der)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) {
		t.Fatal("not a SEQUENCE")
	}
	var all [][]byte
	for !list.Empty() {
		var one cryptobyte.String
		var tag asn1.Tag
		if !list.ReadAnyASN1Element(&one, &tag) {
			t.Fatal("not a list of elements")
		}
		all = append(all, one)
	}
	return all
}
