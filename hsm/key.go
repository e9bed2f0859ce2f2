package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
)

// KeyKind is an algorithm with its size.
type KeyKind int

const (
	P256 KeyKind = 1 + iota
	P384
	RSA2048
	RSA3072
	RSA4096
)

var kindNames = map[KeyKind]string{P256: "p256", P384: "p384", RSA2048: "rsa2048", RSA3072: "rsa3072", RSA4096: "rsa4096"}

func (k KeyKind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return "unsupported"
}

// ParseKeyKind reads what KeyKind.String writes.
func ParseKeyKind(s string) (KeyKind, error) {
	for kind, name := range kindNames {
		if name == s {
			return kind, nil
		}
	}
	return 0, fmt.Errorf("%q is no kind of key; use p256, p384, rsa2048, rsa3072 or rsa4096", s)
}

func (k KeyKind) rsaBits() int {
	return map[KeyKind]int{RSA2048: 2048, RSA3072: 3072, RSA4096: 4096}[k]
}

func kindOf(pub crypto.PublicKey) (KeyKind, error) {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return P256, nil
		case elliptic.P384():
			return P384, nil
		}
		return 0, fmt.Errorf("the curve %s is not supported", p.Curve.Params().Name)
	case *rsa.PublicKey:
		for _, kind := range []KeyKind{RSA2048, RSA3072, RSA4096} {
			if p.N.BitLen() == kind.rsaBits() {
				return kind, nil
			}
		}
		return 0, fmt.Errorf("RSA with %d bits is not supported", p.N.BitLen())
	}
	return 0, fmt.Errorf("keys of type %T are not supported", pub)
}

// Attributes is what the token says of a private key. One that it does not tell is false.
type Attributes struct {
	Sensitive, AlwaysSensitive, Extractable, NeverExtractable, Local bool
	Sign, Decrypt, Derive, Wrap, Unwrap, Token                       bool
}

// Key is a private key in a token. It is a crypto.Signer and a crypto.Decrypter; what it
// does of these depends on what it was made for. It stays good while the token comes and
// goes.
type Key struct {
	object
	t     *Token
	ctx   context.Context // bounds the interface methods, which have none of their own
	label string
	id    []byte
	pub   crypto.PublicKey
	kind  KeyKind
	spki  [32]byte
	attrs Attributes
}

var (
	_ crypto.Signer    = (*Key)(nil)
	_ crypto.Decrypter = (*Key)(nil)
)

func (k *Key) Label() string { return k.label }

// SPKI returns the SHA-256 of the public key's SubjectPublicKeyInfo, which is how a
// key is known.
func (k *Key) SPKI() [32]byte { return k.spki }

// Kind returns the key's algorithm and size.
func (k *Key) Kind() KeyKind { return k.kind }

// Attributes returns what the token said when the key was found or made.
func (k *Key) Attributes() Attributes { return k.attrs }

func (k *Key) Public() crypto.PublicKey { return k.pub }

// URI returns the key's address: token, serial, object and id.
func (k *Key) URI() *URI {
	u := k.t.URI()
	u.Object, u.ID, u.Type = k.label, k.id, "private"
	return u
}

// Within returns the same key with every operation bounded by ctx. Without it, Sign
// and its kin wait for sessions and for a token that went away no longer than the
// token's patience, but a call that hangs inside the library is waited for.
func (k *Key) Within(ctx context.Context) *Key {
	bound := &Key{t: k.t, ctx: ctx, label: k.label, id: k.id, pub: k.pub, kind: k.kind, spki: k.spki, attrs: k.attrs}
	bound.find = k.find
	bound.bound.Store(k.bound.Load())
	return bound
}

func (k *Key) may(allowed bool, verb string) error {
	if !allowed {
		return fmt.Errorf("the key %q was not made to %s", k.label, verb)
	}
	return nil
}

// newKey makes the Key for the private key object h.
func (t *Token) newKey(x call, h pkcs11.ObjectHandle, pub crypto.PublicKey) (*Key, error) {
	label, err := x.value(h, pkcs11.CKA_LABEL)
	if err != nil {
		return nil, err
	}
	id, err := x.value(h, pkcs11.CKA_ID)
	if err != nil {
		return nil, err
	}
	if pub == nil {
		if pub, err = x.publicOf(h, id); err != nil {
			return nil, fmt.Errorf("reading the public key of %q: %w", label, err)
		}
	}
	k := &Key{t: t, ctx: context.Background(), label: string(label), id: id}
	if k.pub, k.spki, err = normal(pub); err != nil {
		return nil, err
	}
	if k.kind, err = kindOf(k.pub); err != nil {
		return nil, err
	}
	if k.attrs, err = x.attributes(h); err != nil {
		return nil, err
	}
	each, err := x.flag(h, pkcs11.CKA_ALWAYS_AUTHENTICATE)
	if err != nil {
		return nil, err
	}
	if each {
		return nil, remedied("make the key without CKA_ALWAYS_AUTHENTICATE", "the key %q wants the PIN for each use, which a program cannot give", label)
	}
	k.find = func(x call) (pkcs11.ObjectHandle, error) {
		h, err := x.locate(k.pub)
		if err != nil {
			return 0, fmt.Errorf("finding the key %q (SPKI %x): %w", k.label, k.spki[:8], err)
		}
		return h, nil
	}
	k.bind(x, h)
	return k, nil
}

// Key returns the private key of pub. There must be exactly one.
func (t *Token) Key(ctx context.Context, pub crypto.PublicKey) (*Key, error) {
	pub, spki, err := normal(pub)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	if _, err := kindOf(pub); err != nil {
		return nil, err
	}
	o := &object{find: func(x call) (pkcs11.ObjectHandle, error) {
		h, err := x.locate(pub)
		if err != nil {
			return 0, fmt.Errorf("finding the key with SPKI %x: %w", spki[:8], err)
		}
		return h, nil
	}}
	return do(ctx, t, o, pooled, func(x call) (*Key, error) { return t.newKey(x, x.object, pub) })
}

// KeyByLabel returns the private key with this label. There must be exactly one.
func (t *Token) KeyByLabel(ctx context.Context, label string) (*Key, error) {
	o := &object{find: func(x call) (pkcs11.ObjectHandle, error) { return x.labelled(pkcs11.CKO_PRIVATE_KEY, label) }}
	return do(ctx, t, o, pooled, func(x call) (*Key, error) { return t.newKey(x, x.object, nil) })
}

// labelled returns the one object of a class with a label.
func (x call) labelled(kind uint, label string) (pkcs11.ObjectHandle, error) {
	found, err := x.search(class(kind), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("finding the key %q: %w", label, ErrKeyNotFound)
	case len(found) > 1:
		return 0, fmt.Errorf("finding the key %q: %d keys have that label; name the public key instead", label, len(found))
	}
	return found[0], nil
}

// KeyInfo is one private key on the token.
type KeyInfo struct {
	Label      string
	ID         []byte
	Kind       KeyKind          // 0 when not supported
	Public     crypto.PublicKey // nil when the token does not show it
	SPKI       [32]byte
	Attributes Attributes
}

// Keys lists the private keys that the login sees.
func (t *Token) Keys(ctx context.Context) ([]KeyInfo, error) {
	return do(ctx, t, nil, pooled, func(x call) ([]KeyInfo, error) {
		handles, err := x.search(class(pkcs11.CKO_PRIVATE_KEY))
		if err != nil {
			return nil, err
		}
		if len(handles) == 0 {
			return nil, x.conn.well(x.session)
		}
		var infos []KeyInfo
		for _, h := range handles {
			info, err := x.keyInfo(h)
			if err != nil {
				return nil, err
			}
			infos = append(infos, info)
		}
		return infos, nil
	})
}

func (x call) keyInfo(h pkcs11.ObjectHandle) (info KeyInfo, err error) {
	label, err := x.value(h, pkcs11.CKA_LABEL)
	if err != nil {
		return info, err
	}
	info.Label = string(label)
	if info.ID, err = x.value(h, pkcs11.CKA_ID); err != nil {
		return info, err
	}
	if info.Attributes, err = x.attributes(h); err != nil {
		return info, err
	}
	// A key of a foreign kind is listed, not an error.
	if pub, err := x.publicOf(h, info.ID); err == nil {
		if info.Public, info.SPKI, err = normal(pub); err == nil {
			info.Kind, _ = kindOf(info.Public)
		}
	}
	return info, nil
}

// DestroyKey removes a key pair from the token for good.
func (t *Token) DestroyKey(ctx context.Context, k *Key) error {
	kind := writing
	if !k.attrs.Token {
		kind = resident
	}
	_, err := careful(ctx, t, &k.object, kind, func(x call) (struct{}, error) {
		publics, err := x.search(class(pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, k.id))
		if err != nil {
			return struct{}{}, err
		}
		if err := x.DestroyObject(x.session, x.object); err != nil {
			return struct{}{}, failed("C_DestroyObject", err)
		}
		for _, h := range publics {
			if pub, err := x.public(h); err == nil && equal(pub, k.pub) {
				_ = x.DestroyObject(x.session, h) // opens nothing where it stays
			}
		}
		return struct{}{}, nil
	})
	k.bound.Store(nil)
	if err != nil {
		return fmt.Errorf("destroying the key %q: %w", k.label, err)
	}
	return nil
}

// Random returns n random bytes from the token.
func (t *Token) Random(ctx context.Context, n int) ([]byte, error) {
	return do(ctx, t, nil, pooled, func(x call) ([]byte, error) {
		b, err := x.GenerateRandom(x.session, n)
		if err == nil && len(b) != n {
			err = errors.New("the token gave too few bytes")
		}
		return b, failed("C_GenerateRandom", err)
	})
}

// Sign signs a digest. ECDSA gives a DER signature; RSA gives PKCS #1 v1.5, or PSS where
// opts is *rsa.PSSOptions. The token draws its own random numbers: rand is not used.
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.may(k.attrs.Sign, "sign"); err != nil {
		return nil, err
	}
	var hash crypto.Hash
	if opts != nil {
		hash = opts.HashFunc()
	}
	if hash != 0 && len(digest) != hash.Size() {
		return nil, fmt.Errorf("signing with the key %q: a %v digest has %d bytes, not %d", k.label, hash, hash.Size(), len(digest))
	}
	if len(digest) == 0 {
		return nil, fmt.Errorf("signing with the key %q: there is no digest", k.label)
	}
	var sig []byte
	var err error
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		sig, err = k.signECDSA(pub, digest)
	case *rsa.PublicKey:
		sig, err = k.signRSA(pub, digest, hash, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("signing with the key %q: %w", k.label, err)
	}
	return sig, nil
}

// sign is the whole of a signature in the token.
func (k *Key) sign(mechanism []*pkcs11.Mechanism, input []byte) ([]byte, error) {
	return do(k.ctx, k.t, &k.object, pooled, func(x call) ([]byte, error) {
		if err := x.SignInit(x.session, mechanism, x.object); err != nil {
			return nil, failed("C_SignInit", err)
		}
		sig, err := x.Ctx.Sign(x.session, input)
		return sig, failed("C_Sign", err)
	})
}
