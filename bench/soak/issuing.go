package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"hufu/api/client"
	"hufu/store"
)

// order is one certificate that a client asks for, as often as it likes, with
// one idempotency key.
type order struct {
	key, name string
	csr, spki []byte
	answer    *client.Certificate // nil while there is none
}

func newOrder() (*order, error) {
	o := &order{key: client.NewKey()}
	o.name = fmt.Sprintf("h%x.soak.card.example", sha256.Sum256([]byte(o.key)))[:40] + ".card.example"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if o.spki, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, err
	}
	o.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return o, err
}

func (l *lane) ask(ctx context.Context, o *order) (*client.Certificate, error) {
	return l.world.Operator.Keyed(o.key).Issue(ctx, client.IssueRequest{CA: "services", Profile: "server", CSR: o.csr, Name: client.Name{DNS: []string{o.name}}})
}

// issuing is one trial: the node lives on the book of its last life, answers its
// questions again, issues, is killed, and its book is looked at.
func (l *lane) issuing(ctx context.Context) (t tally, err error) {
	t.trials = 1
	if err := l.start(ctx); err != nil {
		return t, err
	}
	last := l.orders
	if err := l.askAgain(ctx, &t); err != nil {
		return t, fmt.Errorf("asking again: %w", err)
	}
	l.orders = nil
	var mu sync.Mutex
	err = l.killAt(ctx, 120, func(ctx context.Context, _ int, answered func()) error {
		for {
			o, err := newOrder()
			if err != nil {
				return err
			}
			mu.Lock()
			l.orders = append(l.orders, o)
			mu.Unlock()
			if o.answer, err = l.ask(ctx, o); err != nil {
				return err
			}
			answered()
		}
	})
	if err != nil {
		return t, err
	}
	for _, o := range l.orders {
		if o.answer != nil {
			t.acknowledged++
		}
	}
	if err := l.cutStart(); err != nil {
		return t, err
	}
	return t, l.look(ctx, &t, false, func(tx *store.Tx) error {
		for _, o := range append(last, l.orders...) {
			if err := o.judge(tx, &t); err != nil {
				return err
			}
		}
		return nil
	})
}

// askAgain asks for every order of the last life once more: what was answered
// must be answered alike, and what was cut short must be granted.
func (l *lane) askAgain(ctx context.Context, t *tally) error {
	for _, o := range l.orders {
		again, err := l.ask(ctx, o)
		if err != nil {
			return err
		}
		if o.answer == nil {
			o.answer = again
			t.acknowledged++
		} else if again.Serial != o.answer.Serial || string(again.DER) != string(o.answer.DER) {
			t.double++
		}
	}
	return nil
}

// judge looks for an order in the book.
func (o *order) judge(tx *store.Tx, t *tally) error {
	held := 0
	for _, err := range store.Certificates.Scan(tx, "spki", store.Key(store.Sum(o.spki))) {
		if err != nil {
			return err
		}
		held++
	}
	if held > 1 {
		t.double++ // one key, one order, one certificate
	}
	if o.answer == nil {
		return nil
	}
	serial, err := store.ParseSerial(o.answer.Serial)
	if err != nil {
		return err
	}
	key := store.SerialKey(o.answer.CA, serial)
	cert, err := store.FindCertificate(tx, o.answer.CA, serial)
	if err == nil {
		var s *store.Status
		if s, err = store.Statuses.Get(tx, key); err == nil && (s.State != store.Good || string(cert.DER) != string(o.answer.DER)) {
			t.lost++
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		t.lost++
		return nil
	}
	return err
}
