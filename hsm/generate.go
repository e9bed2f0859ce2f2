package hsm

import (
	"context"
	"crypto/rand"
	"encoding/asn1"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Use is the one thing that a key may do.
type Use int

const (
	Sign Use = 1 + iota
	Derive
	Decrypt
)

// KeySpec describes a key to be made.
type KeySpec struct {
	Label       string
	Kind        KeyKind
	Use         Use  // an EC key signs or derives, an RSA key signs or decrypts
	Session     bool // lives as long as the connection to the token; for pools of keys made ahead
	Extractable bool // may leave the token wrapped; never for a key of a CA
}

func (s KeySpec) check() error {
	elliptic := s.Kind == P256 || s.Kind == P384
	switch {
	case s.Label == "":
		return fmt.Errorf("a key needs a label")
	case kindNames[s.Kind] == "":
		return fmt.Errorf("a key needs a kind: P-256, P-384 or RSA with 2048, 3072 or 4096 bits")
	case s.Use == Derive && !elliptic, s.Use == Decrypt && elliptic, s.Use < Sign, s.Use > Decrypt:
		return fmt.Errorf("a %v key is made to sign, an elliptic one also to derive, an RSA one also to decrypt", s.Kind)
	}
	return nil
}

// wanted is how the attributes of a key made by this specification must read.
func (s KeySpec) wanted(local bool) Attributes {
	return Attributes{
		Sensitive: true, AlwaysSensitive: local, Extractable: s.Extractable, NeverExtractable: local && !s.Extractable, Local: local,
		Sign: s.Use == Sign, Decrypt: s.Use == Decrypt, Derive: s.Use == Derive, Token: !s.Session,
	}
}

// private is the template of the private key but for what the mechanism adds.
func (s KeySpec) private(id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		class(pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, !s.Session),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, s.Extractable),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, s.Use == Sign),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN_RECOVER, false),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, s.Use == Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, s.Use == Derive),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, s.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
}

func (s KeySpec) public(id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		class(pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, !s.Session),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, s.Use == Sign),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, s.Use == Decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, s.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
}

// Generate makes a key pair inside the token: sensitive, with one use, and not
// extractable unless the specification says otherwise. The attributes are read back and
// must say so. The label of a token key must be new. An error after the call began can
// leave a key behind; then the label is taken, and a second try says so.
func (t *Token) Generate(ctx context.Context, spec KeySpec) (*Key, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	kind := writing
	if spec.Session {
		kind = resident
	}
	k, err := careful(ctx, t, nil, kind, func(x call) (*Key, error) { return t.generate(x, spec) })
	if err != nil {
		return nil, fmt.Errorf("making the key %q: %w", spec.Label, err)
	}
	return k, nil
}

func (t *Token) generate(x call, spec KeySpec) (*Key, error) {
	if !spec.Session {
		if err := x.unused(spec.Label, 0); err != nil {
			return nil, err
		}
	}
	id := make([]byte, 16)
	rand.Read(id)
	public, mechanism := spec.public(id), uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	if bits := spec.Kind.rsaBits(); bits != 0 {
		mechanism = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	} else {
		params, err := spec.Kind.curve()
		if err != nil {
			return nil, err
		}
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params))
	}
	pub, private, err := x.GenerateKeyPair(x.session,
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, spec.private(id))
	if err != nil {
		return nil, failed("C_GenerateKeyPair", err)
	}
	k, err := t.admit(x, pub, private, spec, true)
	if err != nil {
		return nil, x.undo(err, private, pub)
	}
	return k, nil
}

// admit reads back what was made and holds it against what was asked.
func (t *Token) admit(x call, pub, private pkcs11.ObjectHandle, spec KeySpec, local bool) (*Key, error) {
	value, err := x.public(pub)
	if err != nil {
		return nil, err
	}
	k, err := t.newKey(x, private, value)
	if err != nil {
		return nil, err
	}
	if want := spec.wanted(local); k.attrs != want {
		return nil, fmt.Errorf("the token made a key with other attributes than asked for: %+v, not %+v", k.attrs, want)
	}
	if k.kind != spec.Kind {
		return nil, fmt.Errorf("the token made a %v key, not %v", k.kind, spec.Kind)
	}
	if !spec.Session {
		// Another program may have used the label in the same moment.
		return k, x.unused(spec.Label, 1)
	}
	return k, nil
}

// unused refuses a label that more than own private keys bear.
func (x call) unused(label string, own int) error {
	found, err := x.search(class(pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	if err != nil {
		return err
	}
	if len(found) > own {
		return fmt.Errorf("%w: %q; choose another, or destroy that key first", ErrKeyExists, label)
	}
	return nil
}

// curve returns the DER of the curve's name.
func (k KeyKind) curve() ([]byte, error) {
	if k == P384 {
		return asn1.Marshal(oidP384)
	}
	return asn1.Marshal(oidP256)
}
