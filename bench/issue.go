package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"hufu/api/client"
)

// clients ask for certificates at once.
const clients = 64

// order is one request for a certificate.
type order struct {
	name  string
	csr   []byte
	token string // of step-ca
}

var orderNumber atomic.Int64

// newOrders makes requests with fresh keys and names; finish, if any, adds what
// one side needs besides.
func newOrders(n int, finish func(*order) error) ([]order, error) {
	orders := make([]order, n)
	return orders, together(context.Background(), runtime.NumCPU(), n, func(_ context.Context, _, i int) error {
		o := &orders[i]
		o.name = fmt.Sprintf("h%d.bench.card.example", orderNumber.Add(1))
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if o.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: o.name}, DNSNames: []string{o.name}}, key); err != nil {
			return err
		}
		if finish != nil {
			return finish(o)
		}
		return nil
	})
}

// issuing measures issue.single and issue.single.vs-stepca.
func (b *bench) issuing(ctx context.Context) ([]figure, error) {
	n, err := b.startNode(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := b.newLimit("limit.db")
	if err != nil {
		return nil, fmt.Errorf("making the limit: %w", err)
	}
	peer, err := b.startStepCA(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting step-ca: %w", err)
	}
	rates, err := b.race(ctx, 5, 500, 4*time.Second, n.side(), limit.side(), peer.side())
	if err != nil {
		return nil, err
	}
	b.peer = rates[2]
	return []figure{
		newFigure("issue.single", rates[0], rates[1], "bare loop: parse the CSR and check it, encode, sign in SoftHSM, check, commit in groups", 0.4, "certificates/s"),
		newFigure("issue.single.vs-stepca", rates[0], rates[2], "step-ca v0.30.2, key in SoftHSM, bbolt, JWK one-time tokens", 4, "certificates/s"),
	}, nil
}

// side is Hufu: the node's API, asked as an operator.
func (n *node) side() side {
	var orders []order
	return side{name: "hufu", pid: n.pid,
		prepare: func(count int) (err error) {
			orders, err = newOrders(count, nil)
			return err
		},
		work: func(ctx context.Context, count int) error {
			return together(ctx, clients, count, func(ctx context.Context, _, i int) error {
				o := &orders[i]
				cert, err := n.Operator.Issue(ctx, client.IssueRequest{CA: "services", Profile: "server", CSR: o.csr, Name: client.Name{DNS: []string{o.name}}})
				if err != nil {
					return err
				}
				if len(cert.DER) == 0 || len(cert.Names) != 1 || cert.Names[0] != o.name {
					return fmt.Errorf("the node's answer for %s is for %v", o.name, cert.Names)
				}
				if i < statusSample {
					n.keep(cert.Serial)
				}
				return nil
			})
		}}
}
