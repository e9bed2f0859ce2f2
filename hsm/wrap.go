package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// mechanismWrap is CKM_AES_KEY_WRAP_PAD, AES key wrap with padding (RFC 5649). What it
// makes of a private key is the wrapped PKCS #8.
var mechanismWrap = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}

// SecretKey is an AES-256 key in a token that wraps and unwraps other keys and does
// nothing else: one that could also decrypt would open what it wrapped.
type SecretKey struct {
	object
	t     *Token
	label string
}

// Label returns the label of the wrapping key.
func (s *SecretKey) Label() string { return s.label }

func (t *Token) wrappingKey(label string) *SecretKey {
	s := &SecretKey{t: t, label: label}
	s.find = func(x call) (pkcs11.ObjectHandle, error) {
		h, err := x.labelled(pkcs11.CKO_SECRET_KEY, label)
		if err != nil {
			return 0, err
		}
		return h, x.wrapsOnly(h)
	}
	return s
}

// wrapsOnly refuses a wrapping key that could be used to get at what it wraps.
func (x call) wrapsOnly(h pkcs11.ObjectHandle) error {
	for _, f := range []struct {
		kind uint
		want bool
		what string
	}{
		{pkcs11.CKA_WRAP, true, "may wrap"}, {pkcs11.CKA_UNWRAP, true, "may unwrap"},
		{pkcs11.CKA_ENCRYPT, false, "may encrypt"}, {pkcs11.CKA_DECRYPT, false, "may decrypt"},
		{pkcs11.CKA_SENSITIVE, true, "is sensitive"}, {pkcs11.CKA_EXTRACTABLE, false, "is extractable"},
	} {
		got, err := x.flag(h, f.kind)
		if err != nil {
			return err
		}
		if got != f.want {
			return fmt.Errorf("the wrapping key is not fit: that it %s is %v", f.what, got)
		}
	}
	return nil
}

// GenerateWrappingKey makes an AES-256 wrapping key that stays in the token.
func (t *Token) GenerateWrappingKey(ctx context.Context, label string) (*SecretKey, error) {
	if label == "" {
		return nil, errors.New("a wrapping key needs a label")
	}
	s := t.wrappingKey(label)
	_, err := careful(ctx, t, nil, writing, func(x call) (struct{}, error) {
		taken, err := x.search(class(pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
		if err == nil && len(taken) > 0 {
			err = ErrKeyExists
		}
		if err != nil {
			return struct{}{}, err
		}
		id := make([]byte, 16)
		rand.Read(id)
		h, err := x.GenerateKey(x.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			class(pkcs11.CKO_SECRET_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
			pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
			pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		})
		if err != nil {
			return struct{}{}, failed("C_GenerateKey", err)
		}
		if err := x.wrapsOnly(h); err != nil {
			return struct{}{}, x.undo(err, h)
		}
		s.bind(x, h)
		return struct{}{}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("making the wrapping key %q: %w", label, err)
	}
	return s, nil
}

// WrappingKey returns the wrapping key with this label. There must be exactly one.
func (t *Token) WrappingKey(ctx context.Context, label string) (*SecretKey, error) {
	s := t.wrappingKey(label)
	_, err := do(ctx, t, &s.object, pooled, func(call) (struct{}, error) { return struct{}{}, nil })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Wrap returns k's PKCS #8 wrapped by RFC 5649. A key that was not made extractable is
// refused by the token.
func (s *SecretKey) Wrap(ctx context.Context, k *Key) ([]byte, error) {
	if k.t != s.t {
		return nil, fmt.Errorf("wrapping the key %q: it is on another token than the wrapping key %q", k.label, s.label)
	}
	blob, err := do(ctx, s.t, &s.object, pooled, func(x call) ([]byte, error) {
		key, err := k.handle(x)
		if err != nil {
			return nil, err
		}
		blob, err := x.WrapKey(x.session, mechanismWrap, x.object, key)
		if stale(err) {
			k.bound.Store(nil)
		}
		return blob, failed("C_WrapKey", err)
	})
	if err != nil {
		return nil, fmt.Errorf("wrapping the key %q: %w", k.label, err)
	}
	return blob, nil
}

// Unwrap brings a wrapped key into the token. The blob says nothing of its public key, so
// the key must prove that it is pub's before it is accepted.
func (s *SecretKey) Unwrap(ctx context.Context, blob []byte, spec KeySpec, pub crypto.PublicKey) (*Key, error) {
	k, err := s.unwrap(ctx, blob, spec, pub)
	if err != nil {
		return nil, fmt.Errorf("unwrapping the key %q: %w", spec.Label, err)
	}
	if err := k.prove(ctx); err != nil {
		return nil, fmt.Errorf("unwrapping the key %q: %w", spec.Label, errors.Join(err, s.t.DestroyKey(ctx, k)))
	}
	return k, nil
}

func (s *SecretKey) unwrap(ctx context.Context, blob []byte, spec KeySpec, pub crypto.PublicKey) (*Key, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	if !wrappedForm(blob) {
		return nil, fmt.Errorf("%w: %d octets are no wrapped private key", ErrBlob, len(blob))
	}
	pub, spki, err := normal(pub)
	if err != nil {
		return nil, err
	}
	if kind, err := kindOf(pub); err != nil || kind != spec.Kind {
		return nil, errors.Join(err, fmt.Errorf("the public key is not %v", spec.Kind))
	}
	kind := writing
	if spec.Session {
		kind = resident
	}
	return careful(ctx, s.t, &s.object, kind, func(x call) (*Key, error) {
		if !spec.Session {
			if err := x.unused(spec.Label, 0); err != nil {
				return nil, err
			}
		}
		if _, err := x.locate(pub); !errors.Is(err, ErrKeyNotFound) {
			return nil, errors.Join(err, fmt.Errorf("%w, or this very key", ErrKeyExists))
		}
		id := spki[:20]
		extra, err := spec.values(pub)
		if err != nil {
			return nil, err
		}
		private, err := x.UnwrapKey(x.session, mechanismWrap, x.object, blob, append(spec.private(id), extra[0]))
		if err != nil {
			return nil, failed("C_UnwrapKey", err)
		}
		public, err := x.CreateObject(x.session, append(spec.public(id), extra...))
		if err != nil {
			return nil, x.undo(failed("C_CreateObject", err), private)
		}
		k, err := s.t.admit(x, public, private, spec, false)
		if err != nil {
			return nil, x.undo(err, private, public)
		}
		return k, nil
	})
}

// values are the attributes that make a public key object of pub; the first is the type.
func (s KeySpec) values(pub crypto.PublicKey) ([]*pkcs11.Attribute, error) {
	forms, err := values(pub)
	if err != nil {
		return nil, err
	}
	if p, ok := pub.(*rsa.PublicKey); ok {
		e := []byte{byte(p.E >> 24), byte(p.E >> 16), byte(p.E >> 8), byte(p.E)}
		for e[0] == 0 {
			e = e[1:]
		}
		return append(forms[0], pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, e)), nil
	}
	params, err := s.Kind.curve()
	return append(forms[0], pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params)), err
}

// prove shows that the private key in the token belongs to the public key that it goes
// by, by using it once.
func (k *Key) prove(ctx context.Context) error {
	var fits bool
	var err error
	k = k.Within(ctx)
	switch {
	case k.attrs.Sign:
		fits, err = k.provesSigning()
	case k.attrs.Derive:
		fits, err = k.provesAgreement()
	default:
		fits, err = k.provesDecryption()
	}
	if err != nil {
		return fmt.Errorf("trying whether the private key fits its public key: %w", err)
	}
	if !fits {
		return fmt.Errorf("the private key in the token does not belong to the public key with SPKI %x", k.spki[:8])
	}
	return nil
}

func (k *Key) provesSigning() (bool, error) {
	digest := make([]byte, sha256.Size) // of nothing that anybody knows
	rand.Read(digest)
	sig, err := k.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return false, err
	}
	if pub, ok := k.pub.(*ecdsa.PublicKey); ok {
		return ecdsa.VerifyASN1(pub, digest, sig), nil
	}
	return rsa.VerifyPKCS1v15(k.pub.(*rsa.PublicKey), crypto.SHA256, digest, sig) == nil, nil
}

func (k *Key) provesAgreement() (bool, error) {
	inside, err := k.ECDHKey()
	if err != nil {
		return false, err
	}
	outside, err := inside.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return false, err
	}
	theirs, err := inside.ECDH(outside.PublicKey())
	if err != nil {
		return false, err
	}
	ours, err := outside.ECDH(inside.PublicKey())
	return bytes.Equal(ours, theirs), err
}

// provesDecryption uses SHA-1, which every token with OAEP can.
func (k *Key) provesDecryption() (bool, error) {
	challenge := make([]byte, 32)
	rand.Read(challenge)
	sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, k.pub.(*rsa.PublicKey), challenge, nil)
	if err != nil {
		return false, err
	}
	opened, err := k.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: crypto.SHA1})
	var code pkcs11.Error
	if errors.As(err, &code) && !lost(err) {
		return false, nil // another key's ciphertext does not open
	}
	return bytes.Equal(opened, challenge), err
}
