package hsm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
)

var _ ecdh.KeyExchanger = (*exchanger)(nil)

// exchanger shows a Key as the standard library's ECDH key.
type exchanger struct {
	k   *Key
	pub *ecdh.PublicKey
}

// ECDHKey returns the key for key agreement. The shared secret is the bare x coordinate
// (CKM_ECDH1_DERIVE with CKD_NULL); the key derivation is the caller's.
func (k *Key) ECDHKey() (ecdh.KeyExchanger, error) {
	if err := k.may(k.attrs.Derive, "derive"); err != nil {
		return nil, err
	}
	pub, ok := k.pub.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key %q is not on an elliptic curve", k.label)
	}
	own, err := pub.ECDH()
	if err != nil {
		return nil, err
	}
	return &exchanger{k: k, pub: own}, nil
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.pub }
func (e *exchanger) Curve() ecdh.Curve          { return e.pub.Curve() }

// ECDH derives the secret. The token gives it as a session object of its own that is
// read and destroyed at once.
func (e *exchanger) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	if remote == nil || remote.Curve() != e.pub.Curve() {
		return nil, fmt.Errorf("agreeing a secret with the key %q: the other key is on another curve", e.k.label)
	}
	point := remote.Bytes()
	size := (len(point) - 1) / 2
	secret, err := do(e.k.ctx, e.k.t, &e.k.object, pooled, func(x call) ([]byte, error) { return x.derive(point, size) })
	if err != nil {
		return nil, fmt.Errorf("agreeing a secret with the key %q: %w", e.k.label, err)
	}
	return secret, nil
}

func (x call) derive(point []byte, size int) ([]byte, error) {
	params := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)
	h, err := x.DeriveKey(x.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, params)}, x.object,
		[]*pkcs11.Attribute{
			class(pkcs11.CKO_SECRET_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
		})
	if err != nil {
		return nil, failed("C_DeriveKey", err)
	}
	secret, err := x.value(h, pkcs11.CKA_VALUE)
	if gone := x.DestroyObject(x.session, h); err == nil {
		err = failed("C_DestroyObject", gone)
	}
	if err == nil && len(secret) != size {
		err = fmt.Errorf("the token gave a secret of %d bytes, not %d", len(secret), size)
	}
	return secret, err
}

// Decrypt opens RSA-OAEP (RFC 8017, Section 7.1); opts is *rsa.OAEPOptions. The hash must
// be one that the token can use, see OAEPHash. PKCS #1 v1.5 is refused.
func (k *Key) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if err := k.may(k.attrs.Decrypt, "decrypt"); err != nil {
		return nil, err
	}
	oaep, ok := opts.(*rsa.OAEPOptions)
	if !ok {
		return nil, fmt.Errorf("decrypting with the key %q: only RSA-OAEP is done (*rsa.OAEPOptions)", k.label)
	}
	mgf := oaep.MGFHash
	if mgf == 0 {
		mgf = oaep.Hash
	}
	plain, err := k.decryptOAEP(k.ctx, msg, oaep.Hash, mgf, oaep.Label)
	if err != nil {
		return nil, fmt.Errorf("decrypting with the key %q: %w", k.label, err)
	}
	return plain, nil
}

func (k *Key) decryptOAEP(ctx context.Context, msg []byte, hash, mgf crypto.Hash, label []byte) ([]byte, error) {
	h, known := hashes[hash]
	g, also := hashes[mgf]
	if !known || !also {
		return nil, fmt.Errorf("OAEP with %v and MGF1 with %v is not supported", hash, mgf)
	}
	params := pkcs11.NewOAEPParams(h.mechanism, g.mgf, pkcs11.CKZ_DATA_SPECIFIED, label)
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}
	return do(ctx, k.t, &k.object, pooled, func(x call) ([]byte, error) {
		if err := x.DecryptInit(x.session, mechanism, x.object); err != nil {
			return nil, failed("C_DecryptInit", err)
		}
		plain, err := x.Ctx.Decrypt(x.session, msg)
		return plain, failed("C_Decrypt", err)
	})
}

// OAEPHash returns the hash to seal to this key with: SHA-256 where its token can open
// that, else SHA-1, which some tokens are limited to. An envelope names it. The token is
// asked once, by opening something sealed here.
func (k *Key) OAEPHash(ctx context.Context) (crypto.Hash, error) {
	pub, ok := k.pub.(*rsa.PublicKey)
	if !ok {
		return 0, fmt.Errorf("the key %q is not an RSA key", k.label)
	}
	if err := k.may(k.attrs.Decrypt, "decrypt"); err != nil {
		return 0, err
	}
	k.t.mu.Lock()
	hash := k.t.oaep
	k.t.mu.Unlock()
	if hash != 0 {
		return hash, nil
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, []byte("probe"), nil)
	if err != nil {
		return 0, err
	}
	_, err = k.decryptOAEP(ctx, sealed, crypto.SHA256, crypto.SHA256, nil)
	switch {
	case err == nil:
		hash = crypto.SHA256
	case is(err, pkcs11.CKR_ARGUMENTS_BAD), is(err, pkcs11.CKR_MECHANISM_PARAM_INVALID), is(err, pkcs11.CKR_MECHANISM_INVALID):
		hash = crypto.SHA1
	default:
		return 0, fmt.Errorf("asking the token for its OAEP hashes: %w", err)
	}
	k.t.mu.Lock()
	k.t.oaep = hash
	k.t.mu.Unlock()
	return hash, nil
}
