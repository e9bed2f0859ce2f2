package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// object is something on the token and the way to find it again.
type object struct {
	find  func(call) (pkcs11.ObjectHandle, error)
	bound atomic.Pointer[binding]
}

// binding is a handle and the connection that it belongs to.
type binding struct {
	conn   *connection
	handle pkcs11.ObjectHandle
}

// handle returns the object's handle on x's connection.
func (o *object) handle(x call) (pkcs11.ObjectHandle, error) {
	if b := o.bound.Load(); b != nil && b.conn == x.conn {
		return b.handle, nil
	}
	h, err := o.find(x)
	if errors.Is(err, ErrKeyNotFound) {
		// A token that is logged out or away shows nothing and reports no error. It may
		// be logged in again by now, but then this connection was given up.
		if sick := x.conn.well(x.session); sick != nil {
			err = sick
		} else if x.conn.dead.Load() {
			err = errDead
		}
	}
	if err != nil {
		return 0, err
	}
	o.bind(x, h)
	return h, nil
}

func (o *object) bind(x call, h pkcs11.ObjectHandle) { o.bound.Store(&binding{x.conn, h}) }

// search returns all objects that fit the template.
func (x call) search(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := x.FindObjectsInit(x.session, template); err != nil {
		return nil, failed("C_FindObjectsInit", err)
	}
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := x.FindObjects(x.session, 256)
		if err != nil {
			_ = x.FindObjectsFinal(x.session) // the first error tells more
			return nil, failed("C_FindObjects", err)
		}
		if len(some) == 0 {
			return all, failed("C_FindObjectsFinal", x.FindObjectsFinal(x.session))
		}
		all = append(all, some...)
	}
}

// undo destroys what was made in vain. err stays the first of the errors, by which the
// connection is judged.
func (x call) undo(err error, made ...pkcs11.ObjectHandle) error {
	for _, h := range made {
		err = errors.Join(err, failed("C_DestroyObject", x.DestroyObject(x.session, h)))
	}
	return err
}

// value reads one attribute; one that the object has not is nil.
func (x call) value(h pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	got, err := x.GetAttributeValue(x.session, h, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	switch {
	case is(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID), is(err, pkcs11.CKR_ATTRIBUTE_SENSITIVE):
		return nil, nil
	case err != nil:
		return nil, failed("C_GetAttributeValue", err)
	}
	return got[0].Value, nil
}

func (x call) flag(h pkcs11.ObjectHandle, kind uint) (bool, error) {
	v, err := x.value(h, kind)
	return len(v) == 1 && v[0] != 0, err
}

func (x call) number(h pkcs11.ObjectHandle, kind uint) (uint, error) {
	v, err := x.value(h, kind)
	if err != nil || len(v) == 0 {
		return 0, err
	}
	if len(v) == 8 { // a CK_ULONG, as this machine writes it
		return uint(binary.NativeEndian.Uint64(v)), nil
	}
	if len(v) == 4 {
		return uint(binary.NativeEndian.Uint32(v)), nil
	}
	return 0, fmt.Errorf("the token gave a number of %d bytes", len(v))
}

// attributes reads what the token says of a private key.
func (x call) attributes(h pkcs11.ObjectHandle) (Attributes, error) {
	var a Attributes
	for _, f := range []struct {
		kind  uint
		field *bool
	}{
		{pkcs11.CKA_SENSITIVE, &a.Sensitive}, {pkcs11.CKA_ALWAYS_SENSITIVE, &a.AlwaysSensitive},
		{pkcs11.CKA_EXTRACTABLE, &a.Extractable}, {pkcs11.CKA_NEVER_EXTRACTABLE, &a.NeverExtractable},
		{pkcs11.CKA_LOCAL, &a.Local}, {pkcs11.CKA_TOKEN, &a.Token},
		{pkcs11.CKA_SIGN, &a.Sign}, {pkcs11.CKA_DECRYPT, &a.Decrypt}, {pkcs11.CKA_DERIVE, &a.Derive},
		{pkcs11.CKA_WRAP, &a.Wrap}, {pkcs11.CKA_UNWRAP, &a.Unwrap},
	} {
		var err error
		if *f.field, err = x.flag(h, f.kind); err != nil {
			return a, err
		}
	}
	return a, nil
}

var (
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

// public reads the public key of an object, public or private.
func (x call) public(h pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	kind, err := x.number(h, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return nil, err
	}
	switch kind {
	case pkcs11.CKK_RSA:
		modulus, err := x.value(h, pkcs11.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		exponent, err := x.value(h, pkcs11.CKA_PUBLIC_EXPONENT)
		if err != nil {
			return nil, err
		}
		if len(modulus) == 0 || len(exponent) == 0 || len(exponent) > 4 {
			return nil, errors.New("the RSA key has no modulus, or no exponent of at most 32 bits")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(new(big.Int).SetBytes(exponent).Int64())}, nil
	case pkcs11.CKK_EC:
		params, err := x.value(h, pkcs11.CKA_EC_PARAMS)
		if err != nil {
			return nil, err
		}
		point, err := x.value(h, pkcs11.CKA_EC_POINT)
		if err != nil {
			return nil, err
		}
		return parsePoint(params, point)
	}
	return nil, fmt.Errorf("keys of PKCS#11 type 0x%x are not supported", kind)
}

// parsePoint accepts CKA_EC_POINT as the DER OCTET STRING that the standard wants and
// as the bare point that some tokens give.
func parsePoint(params, point []byte) (*ecdsa.PublicKey, error) {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil, errors.New("the curve is not given by name")
	}
	var curve elliptic.Curve
	switch {
	case oid.Equal(oidP256):
		curve = elliptic.P256()
	case oid.Equal(oidP384):
		curve = elliptic.P384()
	default:
		return nil, fmt.Errorf("the curve %v is not supported", oid)
	}
	size := 1 + 2*((curve.Params().BitSize+7)/8)
	if len(point) != size {
		var inner []byte
		if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) > 0 {
			return nil, errors.New("the public point is malformed")
		}
		point = inner
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// values are the attributes by which a public key can be searched, in the forms that
// tokens know.
func values(pub crypto.PublicKey) ([][]*pkcs11.Attribute, error) {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		return [][]*pkcs11.Attribute{{
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA), pkcs11.NewAttribute(pkcs11.CKA_MODULUS, p.N.Bytes()),
		}}, nil
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			return nil, err
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			return nil, err
		}
		kind := pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC)
		return [][]*pkcs11.Attribute{
			{kind, pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, wrapped)}, {kind, pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, point)},
		}, nil
	}
	return nil, fmt.Errorf("keys of type %T are not supported", pub)
}

func class(c uint) *pkcs11.Attribute { return pkcs11.NewAttribute(pkcs11.CKA_CLASS, c) }

// locate finds the one private key that belongs to pub: by the public key object and
// its CKA_ID or, where the token keeps none, by the private key's own public value.
func (x call) locate(pub crypto.PublicKey) (pkcs11.ObjectHandle, error) {
	forms, err := values(pub)
	if err != nil {
		return 0, err
	}
	found := make(map[pkcs11.ObjectHandle]bool)
	for _, form := range forms {
		own, err := x.search(append(form[:len(form):len(form)], class(pkcs11.CKO_PRIVATE_KEY))...)
		if err != nil {
			return 0, err
		}
		for _, h := range own {
			found[h] = true
		}
		publics, err := x.search(append(form[:len(form):len(form)], class(pkcs11.CKO_PUBLIC_KEY))...)
		if err != nil {
			return 0, err
		}
		for _, h := range publics {
			if err := x.partners(h, pub, found); err != nil {
				return 0, err
			}
		}
	}
	switch len(found) {
	case 0:
		return 0, ErrKeyNotFound
	case 1:
		for h := range found {
			return h, nil
		}
	}
	return 0, fmt.Errorf("%d private keys on the token claim one public key; destroy or rename those that do not belong", len(found))
}

// partners adds the private keys that share their CKA_ID with the public key object h.
func (x call) partners(h pkcs11.ObjectHandle, pub crypto.PublicKey, found map[pkcs11.ObjectHandle]bool) error {
	same, err := x.public(h)
	if err != nil || !equal(same, pub) {
		return err
	}
	id, err := x.value(h, pkcs11.CKA_ID)
	if err != nil {
		return err
	}
	if len(id) == 0 {
		return errors.New("the token's public key object has no CKA_ID that would lead to its private key")
	}
	privates, err := x.search(class(pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	if err != nil {
		return err
	}
	for _, p := range privates {
		// Where the private key shows a public value, that value decides.
		if own, err := x.public(p); err == nil && !equal(own, pub) {
			continue
		}
		found[p] = true
	}
	return nil
}

// publicOf returns the public key of a private key object.
func (x call) publicOf(private pkcs11.ObjectHandle, id []byte) (crypto.PublicKey, error) {
	if own, err := x.public(private); err == nil {
		return own, nil
	}
	if len(id) == 0 {
		return nil, errors.New("the private key shows no public value and has no CKA_ID")
	}
	publics, err := x.search(class(pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	if err != nil {
		return nil, err
	}
	if len(publics) != 1 {
		return nil, fmt.Errorf("the private key has %d public key objects with its CKA_ID, not one", len(publics))
	}
	return x.public(publics[0])
}

func equal(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// normal returns pub as the standard library parses it, and the hash that names it.
func normal(pub crypto.PublicKey) (crypto.PublicKey, [32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, [32]byte{}, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	return parsed, sha256.Sum256(der), err
}
