package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"path/filepath"
	"time"

	"github.com/miekg/pkcs11"

	"hufu/hsm"
	"hufu/internal/softhsm"
)

// sessions is how many sessions sign at once.
const sessions = 4

// token is the bench's own token in SoftHSM, with the one key that Hufu's pool
// and the bare loops sign with. In the same home lies the peer's token.
type token struct {
	home *softhsm.Home
	pool *hsm.Token
	key  *hsm.Key // through Hufu's pool
	bare *bareKey // through sessions of its own
	peer struct {
		pin    string
		public crypto.PublicKey
	}
}

// openToken makes the tokens and their keys, and opens the bare sessions beside
// the pool, whose login they share. The peer's comes first: to see a token that
// another process made, the library has to be initialised anew, and that ends
// every session.
func (b *bench) openToken(ctx context.Context) error {
	home, err := softhsm.New(filepath.Join(b.dir, "hsm"))
	if err != nil {
		return err
	}
	if err := home.Activate(); err != nil {
		return err
	}
	t := &token{home: home}
	t.peer.pin = rand.Text()
	pool, key, err := t.open(ctx, "stepca", t.peer.pin)
	if err != nil {
		return err
	}
	t.peer.public = key.Public()
	if err := pool.Close(); err != nil {
		return err
	}
	if pool, t.key, err = t.open(ctx, "limit", rand.Text()); err != nil {
		return err
	}
	b.atEnd(pool.Close)
	t.pool = pool
	if t.bare, err = openBare(home.Module(), "limit", t.key.Public()); err != nil {
		return err
	}
	b.atEnd(t.bare.close)
	b.token = t
	return nil
}

// open makes a token with one key of the same label and opens it with Hufu's
// pool.
func (t *token) open(ctx context.Context, label, pin string) (*hsm.Token, *hsm.Key, error) {
	if _, err := t.home.Init(label, []byte(rand.Text()), []byte(pin)); err != nil {
		return nil, nil, err
	}
	pool, err := hsm.Open(ctx, hsm.Config{Module: t.home.Module(), URI: "pkcs11:token=" + label, MaxSessions: sessions,
		PIN: func() ([]byte, error) { return []byte(pin), nil }})
	if err != nil {
		return nil, nil, err
	}
	key, err := pool.Generate(ctx, hsm.KeySpec{Label: label, Kind: hsm.P256, Use: hsm.Sign})
	if err != nil {
		pool.Close()
	}
	return pool, key, err
}

// bareKey signs with the PKCS#11 calls that a signature takes, and nothing else.
type bareKey struct {
	ctx    *pkcs11.Ctx
	all    []pkcs11.SessionHandle
	idle   chan pkcs11.SessionHandle
	object pkcs11.ObjectHandle
	public crypto.PublicKey
}

var ecdsaMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}

func openBare(module, label string, public crypto.PublicKey) (*bareKey, error) {
	k := &bareKey{ctx: pkcs11.New(module), idle: make(chan pkcs11.SessionHandle, sessions), public: public}
	if k.ctx == nil {
		return nil, fmt.Errorf("loading %s", module)
	}
	slots, err := k.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		info, err := k.ctx.GetTokenInfo(slot)
		if err != nil || info.Label != label {
			continue
		}
		for range sessions {
			s, err := k.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
			if err != nil {
				return nil, err
			}
			k.all = append(k.all, s)
			k.idle <- s
		}
		return k, k.find()
	}
	return nil, fmt.Errorf("no token %q", label)
}

// find finds the token's one private key.
func (k *bareKey) find() error {
	s := k.all[0]
	if err := k.ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
		return err
	}
	defer k.ctx.FindObjectsFinal(s)
	found, _, err := k.ctx.FindObjects(s, 2)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d private keys in the token", len(found))
	}
	k.object = found[0]
	return nil
}

func (k *bareKey) close() (err error) {
	for _, s := range k.all {
		err = errors.Join(err, k.ctx.CloseSession(s))
	}
	return err
}

func (k *bareKey) sign(s pkcs11.SessionHandle, digest []byte) ([]byte, error) {
	if err := k.ctx.SignInit(s, ecdsaMechanism, k.object); err != nil {
		return nil, err
	}
	return k.ctx.Sign(s, digest)
}

func (k *bareKey) Public() crypto.PublicKey { return k.public }

// Sign makes bareKey a crypto.Signer, for the loop that issues.
func (k *bareKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	s := <-k.idle
	raw, err := k.sign(s, digest)
	k.idle <- s
	if err != nil {
		return nil, err
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// signing measures hsm.sign.
func (b *bench) signing(ctx context.Context) ([]figure, error) {
	digest := make([]byte, 32)
	rand.Read(digest)
	signature, err := b.token.bare.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(b.token.key.Public().(*ecdsa.PublicKey), digest, signature) {
		return nil, errors.New("the bare loop's signature is not one of the pool's key")
	}
	bare := b.token.bare
	rates, err := b.race(ctx, 75, 200, 150*time.Millisecond,
		side{name: "pool", work: func(ctx context.Context, n int) error {
			return spread(sessions, n, func(int) error {
				_, err := b.token.key.Sign(nil, digest, crypto.SHA256)
				return err
			})
		}},
		side{name: "C_Sign", work: func(ctx context.Context, n int) error {
			return spread(sessions, n, func(w int) error {
				_, err := bare.sign(bare.all[w], digest)
				return err
			})
		}})
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("hsm.sign", rates[0], rates[1], fmt.Sprintf("bare C_SignInit and C_Sign in a loop, %d sessions", sessions), 0.95, "P-256 signatures/s")}, nil
}

// spread shares n calls of f out to the workers beforehand.
func spread(workers, n int, f func(worker int) error) error {
	done := make(chan error, workers)
	for w := range workers {
		go func() {
			for range n / workers {
				if err := f(w); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	var all error
	for range workers {
		all = errors.Join(all, <-done)
	}
	return all
}
