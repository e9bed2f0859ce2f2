package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// ContentKeySize is the size of the keys that Rewrap wraps under: AES-256.
const ContentKeySize = 32

// keptUse is what a key that is kept outside the token may do while it is inside: what
// opens messages, never a signature.
func keptUse(kind KeyKind) Use {
	if kind.rsaBits() != 0 {
		return Decrypt
	}
	return Derive
}

// keptPrivate is the template of such a key: an object of one session, which goes with
// the visit. It leaves the token wrapped and in no other way.
func keptPrivate(kind KeyKind) []*pkcs11.Attribute {
	use := keptUse(kind)
	return []*pkcs11.Attribute{
		class(pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN_RECOVER, false),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, use == Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, use == Derive),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
	}
}

// MakeWrapped makes a key pair inside the token and brings out the SubjectPublicKeyInfo
// and the private key's PKCS #8, wrapped by s (RFC 5649). In the token nothing is left of
// it: both halves are objects of one session and are destroyed in the same visit. The key
// cannot sign. Many of these run side by side, each in a session of its own.
func (s *SecretKey) MakeWrapped(ctx context.Context, kind KeyKind) (spki, blob []byte, err error) {
	public, mechanism, err := keptPublic(kind)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key to be kept: %w", err)
	}
	type pair struct{ spki, blob []byte }
	// It may be done twice: what the first try made goes with its session.
	p, err := do(ctx, s.t, &s.object, pooled, func(x call) (p pair, err error) {
		pub, private, err := x.GenerateKeyPair(x.session, mechanism, public, keptPrivate(kind))
		if err != nil {
			return p, failed("C_GenerateKeyPair", err)
		}
		if p.spki, p.blob, err = x.keep(kind, pub, private); err != nil {
			return p, x.undo(err, private, pub)
		}
		return p, x.undo(nil, private, pub)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("making a key to be kept under %q: %w", s.label, err)
	}
	return p.spki, p.blob, nil
}

func keptPublic(kind KeyKind) ([]*pkcs11.Attribute, []*pkcs11.Mechanism, error) {
	public := []*pkcs11.Attribute{class(pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false)}
	switch {
	case kindNames[kind] == "":
		return nil, nil, errors.New("a key needs a kind: P-256, P-384 or RSA with 2048, 3072 or 4096 bits")
	case kind.rsaBits() != 0:
		return append(public, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, kind.rsaBits()), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})),
			[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}, nil
	}
	params, err := kind.curve()
	return append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params)),
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}, err
}

// keep reads the public half and wraps the private one under x.object.
func (x call) keep(kind KeyKind, pub, private pkcs11.ObjectHandle) (spki, blob []byte, err error) {
	value, err := x.publicAs(kind, pub)
	if err != nil {
		return nil, nil, err
	}
	if have, err := kindOf(value); err != nil || have != kind {
		return nil, nil, errors.Join(err, fmt.Errorf("the token made a %v key, not %v", have, kind))
	}
	if err := x.keptOnly(private); err != nil {
		return nil, nil, err
	}
	if spki, err = x509.MarshalPKIXPublicKey(value); err != nil {
		return nil, nil, err
	}
	blob, err = x.WrapKey(x.session, mechanismWrap, x.object, private)
	return spki, blob, failed("C_WrapKey", err)
}

// publicAs reads the public key of an object that was just made as this kind: of an
// elliptic one the point alone, which keeps two calls out of a loop that is measured.
func (x call) publicAs(kind KeyKind, pub pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	if kind.rsaBits() != 0 {
		return x.public(pub)
	}
	params, err := kind.curve()
	if err != nil {
		return nil, err
	}
	point, err := x.value(pub, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	return parsePoint(params, point)
}

// keptOnly reads back that a key which is to leave the token is in the token as asked.
func (x call) keptOnly(private pkcs11.ObjectHandle) error {
	got, err := x.GetAttributeValue(x.session, private, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, nil), pkcs11.NewAttribute(pkcs11.CKA_SIGN, nil),
	})
	if err != nil {
		return failed("C_GetAttributeValue", err)
	}
	for i, want := range []byte{1, 0, 0} {
		if v := got[i].Value; len(v) != 1 || v[0] != want {
			return errors.New("the token made the key with other attributes than asked for: it must be sensitive, of a session, and must not sign")
		}
	}
	return nil
}

// Rewrap takes a key that MakeWrapped gave from under s to under a content key of
// ContentKeySize octets: the token unwraps the blob as an object of one session, lets it
// prove that it belongs to the public key, wraps it (RFC 5649), and destroys it, in one
// visit. So the private key is in nobody's memory but the token's. A blob that s did not
// wrap, or that holds another key, is ErrBlob.
func (s *SecretKey) Rewrap(ctx context.Context, blob, spki, content []byte) ([]byte, error) {
	if len(content) != ContentKeySize {
		return nil, fmt.Errorf("wrapping a kept key anew: the content key has %d octets, not %d", len(content), ContentKeySize)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("wrapping a kept key anew: reading its public key: %w", err)
	}
	kind, err := kindOf(pub)
	if err != nil {
		return nil, fmt.Errorf("wrapping a kept key anew: %w", err)
	}
	out, err := do(ctx, s.t, &s.object, pooled, func(x call) (out []byte, err error) {
		private, err := x.takeIn(blob, kind)
		if err != nil {
			return nil, err
		}
		made := []pkcs11.ObjectHandle{private}
		defer func() { err = x.undo(err, made...) }()
		under := x
		under.object = private
		if err := under.belongs(pub); err != nil {
			return nil, err
		}
		if under.object, err = x.contentKey(content); err != nil {
			return nil, err
		}
		made = append(made, under.object)
		out, err = x.WrapKey(x.session, mechanismWrap, under.object, private)
		return out, failed("C_WrapKey", err)
	})
	if err != nil {
		return nil, fmt.Errorf("wrapping a kept key anew: %w", err)
	}
	return out, nil
}

// wrappedForm tells whether these octets could be a wrapped private key: RFC 5649 makes
// whole blocks of eight. The library under C_UnwrapKey is not asked about anything else.
func wrappedForm(blob []byte) bool { return len(blob) >= 32 && len(blob)%8 == 0 }

// takeIn unwraps a blob for the length of a visit.
func (x call) takeIn(blob []byte, kind KeyKind) (pkcs11.ObjectHandle, error) {
	keyType := uint(pkcs11.CKK_EC)
	if kind.rsaBits() != 0 {
		keyType = pkcs11.CKK_RSA
	}
	if !wrappedForm(blob) {
		return 0, remedied("bring a backup of the book", "%w: %d octets are no wrapped private key", ErrBlob, len(blob))
	}
	h, err := x.UnwrapKey(x.session, mechanismWrap, x.object, blob, append(keptPrivate(kind), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType)))
	if err == nil || lost(err) || stale(err) {
		return h, failed("C_UnwrapKey", err)
	}
	return 0, remedied("is it of another wrapping key, or damaged? Bring the right token or a backup of the book",
		"%w: %w", ErrBlob, failed("C_UnwrapKey", err))
}

// belongs lets the private key x.object show that it is pub's, by using it once.
func (x call) belongs(pub crypto.PublicKey) error {
	fits := false
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		inside, err := p.ECDH()
		if err != nil {
			return err
		}
		outside, err := inside.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		ours, err := outside.ECDH(inside)
		if err != nil {
			return err
		}
		theirs, err := x.derive(outside.PublicKey().Bytes(), len(ours))
		if err != nil {
			return err
		}
		fits = bytes.Equal(ours, theirs)
	case *rsa.PublicKey:
		challenge := make([]byte, 32)
		rand.Read(challenge)
		sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, p, challenge, nil)
		if err != nil {
			return err
		}
		params := pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)
		if err := x.DecryptInit(x.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}, x.object); err != nil {
			return failed("C_DecryptInit", err)
		}
		opened, err := x.Ctx.Decrypt(x.session, sealed)
		if lost(err) {
			return failed("C_Decrypt", err)
		}
		fits = err == nil && bytes.Equal(opened, challenge) // another key's ciphertext does not open
	}
	if !fits {
		return remedied("the record is damaged, or two were mixed up: bring a backup of the book", "%w: it holds the private key of another public key", ErrBlob)
	}
	return nil
}

// contentKey brings a content key in for the length of a visit; it wraps and does
// nothing else.
func (x call) contentKey(content []byte) (pkcs11.ObjectHandle, error) {
	h, err := x.CreateObject(x.session, []*pkcs11.Attribute{
		class(pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, content),
	})
	return h, failed("C_CreateObject", err)
}
