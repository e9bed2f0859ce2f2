package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/miekg/pkcs11"

	"hufu/issuance/escrow"
	"hufu/store"
	"hufu/store/bolt"
)

// keepingLabel is the wrapping key of escrow.pool.
const keepingLabel = "kmc"

// keeping measures escrow.pool.
func (b *bench) keeping(ctx context.Context) ([]figure, error) {
	engine, err := bolt.Open(filepath.Join(b.dir, "kept"), bolt.Options{})
	if err != nil {
		return nil, err
	}
	book, err := store.Create(ctx, store.Config{Engine: engine, Tables: escrow.Tables})
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	defer book.Close()
	conf := escrow.Config{Book: book, Token: b.token.pool, Wrapping: keepingLabel, Parallel: sessions}
	if _, err := escrow.New(ctx, conf); err != nil { // makes the wrapping key
		return nil, err
	}
	made := 0
	bare := b.token.bare
	under, err := bare.wrapping()
	if err != nil {
		return nil, err
	}
	rates, err := b.race(ctx, 21, 200, 500*time.Millisecond,
		side{name: "pool", work: func(ctx context.Context, n int) error {
			made += n
			more := conf
			more.Spare = made
			centre, err := escrow.New(ctx, more)
			if err != nil {
				return err
			}
			return centre.Fill(ctx)
		}},
		side{name: "C_WrapKey", work: func(ctx context.Context, n int) error {
			return spread(sessions, n, func(w int) error { return bare.makeWrapped(bare.all[w], under) })
		}})
	if err != nil {
		return nil, err
	}
	if err := escrow.Check(ctx, book); err != nil {
		return nil, err
	}
	return []figure{newFigure("escrow.pool", rates[0], rates[1], fmt.Sprintf("bare calls that make, wrap and destroy, %d sessions", sessions), 0.8, "P-256 keys/s made, wrapped and recorded")}, nil
}

// wrapping finds the wrapping key.
func (k *bareKey) wrapping() (pkcs11.ObjectHandle, error) {
	s := k.all[0]
	if err := k.ctx.FindObjectsInit(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, keepingLabel),
	}); err != nil {
		return 0, err
	}
	defer k.ctx.FindObjectsFinal(s)
	found, _, err := k.ctx.FindObjects(s, 2)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d wrapping keys in the token", len(found))
	}
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

var (
	pairMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
	wrapMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}
	p256          = []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
)

// makeWrapped is the least that makes a key to be kept: a pair of session objects with the
// attributes that such a key must have, its public point, its wrapped private half, and
// the end of both.
func (k *bareKey) makeWrapped(s pkcs11.SessionHandle, under pkcs11.ObjectHandle) error {
	flag := pkcs11.NewAttribute
	public, private, err := k.ctx.GenerateKeyPair(s, pairMechanism,
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_VERIFY, false), flag(pkcs11.CKA_EC_PARAMS, p256)},
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, true), flag(pkcs11.CKA_EXTRACTABLE, true),
			flag(pkcs11.CKA_SIGN, false), flag(pkcs11.CKA_SIGN_RECOVER, false), flag(pkcs11.CKA_DECRYPT, false), flag(pkcs11.CKA_DERIVE, true), flag(pkcs11.CKA_UNWRAP, false)})
	if err != nil {
		return err
	}
	if _, err = k.ctx.GetAttributeValue(s, public, []*pkcs11.Attribute{flag(pkcs11.CKA_EC_POINT, nil)}); err == nil {
		_, err = k.ctx.WrapKey(s, wrapMechanism, under, private)
	}
	return errors.Join(err, k.ctx.DestroyObject(s, private), k.ctx.DestroyObject(s, public))
}
