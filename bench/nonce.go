package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"time"

	"hufu/internal/ocsp"
)

// nonces is how many different requests are asked, in turn.
const nonces = 8192

// live measures ocsp.nonce: answers that nobody can sign beforehand.
func (b *bench) live(ctx context.Context) ([]figure, error) {
	n, issuer, err := b.statusNode(ctx)
	if err != nil {
		return nil, err
	}
	pairs, err := n.askWithNonces(ctx, issuer)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(n.Publish)
	if err != nil {
		return nil, err
	}
	g, err := newGenerator(u.Host, requests(pairs))
	if err != nil {
		return nil, err
	}
	defer g.close()
	digest := make([]byte, 32)
	rand.Read(digest)
	public := b.token.key.Public().(*ecdsa.PublicKey)
	bare := side{name: "bare", pid: os.Getpid(), work: func(ctx context.Context, count int) error {
		return together(ctx, clients, count, func(context.Context, int, int) error {
			signature, err := b.token.bare.Sign(nil, digest, crypto.SHA256)
			if err == nil && !ecdsa.VerifyASN1(public, digest, signature) {
				err = errors.New("a signature does not verify")
			}
			return err
		})
	}}
	rates, err := b.race(ctx, 7, 1000, 2*time.Second, side{name: "responder", work: g.run, pid: n.pid}, bare)
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("ocsp.nonce", rates[0], rates[1], "64 goroutines that sign in SoftHSM and check", 0.7, "OCSP answers/s")}, nil
}

// askWithNonces makes requests with a nonce each (RFC 9654) and sees that the
// node puts it into the answer.
func (n *node) askWithNonces(ctx context.Context, issuer *ocsp.Issuer) ([]pair, error) {
	pairs := make([]pair, nonces)
	for i := range pairs {
		nonce := make([]byte, 32)
		rand.Read(nonce)
		q, err := n.question(issuer, i, nonce)
		if err != nil {
			return nil, err
		}
		pairs[i].Request = q.request
		if i < 3 {
			if _, err := n.good(ctx, q); err != nil {
				return nil, err
			}
		}
	}
	return pairs, nil
}
