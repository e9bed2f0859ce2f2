package policy

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// maxSPKI is above the size of a SubjectPublicKeyInfo with an RSA-4096 key
// (550 octets) and below the next usual one.
const maxSPKI = 640

// CheckKey judges a SubjectPublicKeyInfo: size, form, curve or exponent, known
// weaknesses, the lists given, and, unless p is nil, that the profile takes a
// key of this kind. Nothing is computed with a key whose size was not found
// good. An EC key costs about as much as reading it.
func CheckKey(spki []byte, p *Profile, lists ...*KeyList) error {
	k, err := parseKey(spki)
	if err != nil {
		return err
	}
	if p != nil && !slices.Contains(p.Keys, k.kind) {
		return keyViolation("key-kind", "Hufu profiles", "a certificate of profile %s takes no %s key: use one of %v", p.Name, k.kind, p.Keys)
	}
	for _, l := range lists {
		if reason := l.blocks(spki, k); reason != "" {
			return keyViolation("key-blocked", "NIST SP 800-57 Part 1, Section 8.3.2", "the key stands on the list of known keys (%s): make a new one", reason)
		}
	}
	if k.kind.RSA() {
		return checkModulus(k.modulus)
	}
	return checkPoint(k)
}

// KeyOf judges size, form, curve and exponent alone, before anything is computed
// with the key, and returns its kind and the octets of subjectPublicKey.
func KeyOf(spki []byte) (kind KeyKind, subjectPublicKey []byte, err error) {
	k, err := parseKey(spki)
	if err != nil {
		return "", nil, err
	}
	return k.kind, k.bits, nil
}

// publicKey is a SubjectPublicKeyInfo taken apart.
type publicKey struct {
	kind    KeyKind
	point   []byte // EC: uncompressed
	modulus []byte // RSA: big-endian, no leading zero
	bits    []byte // the subjectPublicKey's octets
}

func parseKey(spki []byte) (*publicKey, error) {
	if len(spki) > maxSPKI {
		return nil, keyViolation("key-size", "RFC 8017, Section 3.1", "the public key has %d octets, %d is the limit: use P-256, P-384 or RSA of 2048, 3072 or 4096 bits", len(spki), maxSPKI)
	}
	var seq, algorithm, parameters cryptobyte.String
	var id asn1.ObjectIdentifier
	var bits []byte
	in := cryptobyte.String(spki)
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&id) || !seq.ReadASN1BitStringAsBytes(&bits) || !seq.Empty() {
		return nil, keyViolation("key-form", "RFC 5280, Section 4.1.2.7", "the bytes are not a SubjectPublicKeyInfo in DER")
	}
	parameters = algorithm
	switch {
	case id.Equal(oid.KeyEC):
		return parseEC(parameters, bits)
	case id.Equal(oid.KeyRSA):
		return parseRSA(parameters, bits)
	}
	return nil, keyViolation("key-form", "RFC 5480, Section 2.1", "keys of algorithm %s are not certified: use P-256, P-384 or RSA of 2048, 3072 or 4096 bits", id)
}

var curves = []struct {
	id   asn1.ObjectIdentifier
	kind KeyKind
	size int
	name string
}{
	{oid.CurveP256, P256, 32, "P-256"},
	{oid.CurveP384, P384, 48, "P-384"},
	{oid.CurveP224, "", 0, "P-224"},
	{oid.CurveP521, "", 0, "P-521"},
	{oid.CurveK256, "", 0, "secp256k1"},
	{oid.CurveSM2, "", 0, "SM2"},
}

func parseEC(parameters cryptobyte.String, bits []byte) (*publicKey, error) {
	var curve asn1.ObjectIdentifier
	if !parameters.ReadASN1ObjectIdentifier(&curve) || !parameters.Empty() {
		return nil, keyViolation("key-curve", "RFC 5480, Section 2.1.1", "the curve is not given by its name")
	}
	for i := range curves {
		c := &curves[i]
		if !c.id.Equal(curve) {
			continue
		}
		if c.kind == "" {
			return nil, keyViolation("key-curve", "RFC 5480, Section 2.1.1.1", "the curve is %s: use P-256 or P-384", c.name)
		}
		if len(bits) != 1+2*c.size || bits[0] != 4 {
			return nil, keyViolation("key-point", "RFC 5480, Section 2.2", "the point is not an uncompressed one of %s", c.name)
		}
		return &publicKey{kind: c.kind, point: bits, bits: bits}, nil
	}
	return nil, keyViolation("key-curve", "RFC 5480, Section 2.1.1.1", "the curve is %s: use P-256 or P-384", curve)
}

// checkPoint refuses what is no point of the curve; crypto/ecdh decides it.
func checkPoint(k *publicKey) error {
	curve := ecdh.P256()
	if k.kind == P384 {
		curve = ecdh.P384()
	}
	if _, err := curve.NewPublicKey(k.point); err != nil {
		return keyViolation("key-point", "NIST SP 800-186, Appendix D.1", "the point does not lie on %s", k.kind)
	}
	return nil
}

var derNull = []byte{5, 0}

func parseRSA(parameters cryptobyte.String, bits []byte) (*publicKey, error) {
	if !bytes.Equal(parameters, derNull) {
		return nil, keyViolation("key-form", "RFC 3279, Section 2.3.1", "the parameters of an RSA key are not NULL")
	}
	var seq cryptobyte.String
	var modulus, exponent []byte
	in := cryptobyte.String(bits)
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1Integer(&modulus) || !seq.ReadASN1Integer(&exponent) || !seq.Empty() {
		return nil, keyViolation("key-form", "RFC 8017, Appendix A.1.1", "the bytes are not an RSAPublicKey with positive numbers in DER")
	}
	kind, ok := map[int]KeyKind{2048: RSA2048, 3072: RSA3072, 4096: RSA4096}[bitLen(modulus)]
	if !ok {
		return nil, keyViolation("key-size", "NIST SP 800-131A, Section 3", "the RSA modulus has %d bits: use 2048, 3072 or 4096", bitLen(modulus))
	}
	if !bytes.Equal(exponent, []byte{1, 0, 1}) {
		return nil, exponentViolation(exponent)
	}
	return &publicKey{kind: kind, modulus: modulus, bits: bits}, nil
}

func exponentViolation(exponent []byte) error {
	name := fmt.Sprintf("a number of %d bits", bitLen(exponent))
	if len(exponent) <= 8 {
		var e uint64
		for _, b := range exponent {
			e = e<<8 | uint64(b)
		}
		name = fmt.Sprint(e)
	}
	switch {
	case len(exponent) == 1 && exponent[0] == 1:
		name += ", with which a message is its own signature"
	case len(exponent) == 0 || exponent[len(exponent)-1]&1 == 0:
		name += ", which is even, so that no private exponent exists"
	}
	return keyViolation("key-exponent", "NIST SP 800-56B, Section 6.2", "the RSA exponent is %s: use 65537", name)
}

// KeyID is the subjectKeyIdentifier of a key: the leftmost 160 bits of the SHA-256
// of the subjectPublicKey's octets (RFC 7093, Section 2, method 1).
func KeyID(subjectPublicKey []byte) (id [20]byte) {
	sum := sha256.Sum256(subjectPublicKey)
	copy(id[:], sum[:])
	return id
}

func bitLen(b []byte) int {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	n := len(b) * 8
	for mask := byte(0x80); len(b) > 0 && b[0]&mask == 0; mask >>= 1 {
		n--
	}
	return n
}

func keyViolation(rule, citation, format string, args ...any) error {
	return &Violation{Rule: rule, Citation: citation, Detail: fmt.Sprintf(format, args...)}
}
