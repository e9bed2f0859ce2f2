package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

var (
	mechanismECDSA = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	mechanismRSA   = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}
)

// signECDSA gives the token the leftmost bits of the digest (FIPS 186-5, Section 6.4.1),
// since tokens differ in what they do with a digest longer than the order.
func (k *Key) signECDSA(pub *ecdsa.PublicKey, digest []byte) ([]byte, error) {
	size := (pub.Curve.Params().BitSize + 7) / 8
	raw, err := k.sign(mechanismECDSA, bytes.Clone(digest[:min(len(digest), size)]))
	if err != nil {
		return nil, err
	}
	if len(raw) != 2*size {
		return nil, fmt.Errorf("the token returned a signature of %d bytes, not %d", len(raw), 2*size)
	}
	return derSignature(raw[:size], raw[size:]), nil
}

// derSignature writes Ecdsa-Sig-Value with minimal INTEGERs (RFC 3279, Section 2.2.3).
// cryptobyte would do, at the price of a fiftieth of the whole signature.
func derSignature(r, s []byte) []byte {
	r, s = bytes.TrimLeft(r, "\x00"), bytes.TrimLeft(s, "\x00")
	out := make([]byte, 2, 2+3+len(r)+3+len(s))
	for _, n := range [][]byte{r, s} {
		length := len(n)
		if length == 0 || n[0] >= 0x80 {
			length++
		}
		out = append(out, 0x02, byte(length))
		if length > len(n) {
			out = append(out, 0)
		}
		out = append(out, n...)
	}
	// At most 2*(3+48) octets follow, so the short form of the length always fits.
	out[0], out[1] = 0x30, byte(len(out)-2)
	return out
}

// hashInfo is what a hash is called in DigestInfo (RFC 8017, Section 9.2) and PKCS#11.
type hashInfo struct {
	prefix         []byte
	mechanism, mgf uint
}

var hashes = map[crypto.Hash]hashInfo{
	crypto.SHA1: {
		[]byte{0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14},
		pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	crypto.SHA256: {
		[]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
		pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {
		[]byte{0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
		pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {
		[]byte{0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
		pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

func (k *Key) signRSA(pub *rsa.PublicKey, digest []byte, hash crypto.Hash, opts crypto.SignerOpts) ([]byte, error) {
	info, known := hashes[hash]
	if !known || hash == crypto.SHA1 {
		return nil, errors.New("RSA signatures are made over SHA-256, SHA-384 or SHA-512 only")
	}
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return k.sign(mechanismRSA, append(bytes.Clone(info.prefix), digest...))
	}
	salt := pss.SaltLength
	switch salt {
	case rsa.PSSSaltLengthEqualsHash:
		salt = len(digest)
	case rsa.PSSSaltLengthAuto: // as crypto/rsa: as long as fits
		salt = (pub.N.BitLen()-1+7)/8 - 2 - len(digest)
	}
	if salt < 0 {
		return nil, fmt.Errorf("a PSS salt of %d bytes is impossible", salt)
	}
	params := pkcs11.NewPSSParams(info.mechanism, info.mgf, uint(salt))
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, params)}
	return k.sign(mechanism, bytes.Clone(digest))
}
