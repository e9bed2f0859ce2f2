package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hufu/api/client"
	"hufu/store"
	"hufu/store/bolt"
)

// superseded is a reason code (RFC 5280, Section 5.3.1).
const superseded = 4

// revoking measures revoke.single.
func (b *bench) revoking(ctx context.Context) ([]figure, error) {
	n, err := b.startNode(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := b.newStatusLimit(ctx)
	if err != nil {
		return nil, fmt.Errorf("making the limit: %w", err)
	}
	rates, err := b.race(ctx, 5, 500, 2*time.Second, n.revokeSide(), limit.side())
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("revoke.single", rates[0], rates[1], "the store's bare group commit: read a status, write it with one event, 64 writers", 0.4, "revocations/s")}, nil
}

// revokeSide is Hufu: certificates revoked one by one over the API.
func (n *node) revokeSide() side {
	var serials []string
	return side{name: "hufu", pid: n.pid,
		prepare: func(count int) (err error) {
			serials, err = n.issue(context.Background(), count)
			return err
		},
		work: func(ctx context.Context, count int) error {
			return together(ctx, clients, count, func(ctx context.Context, _, i int) error {
				is, err := n.Operator.Revoke(ctx, serials[i], client.Revocation{Reason: superseded})
				if err == nil && is.Status.State != store.Revoked.String() {
					err = fmt.Errorf("the node answers that %s is %s", serials[i], is.Status.State)
				}
				return err
			})
		}}
}

// issue has the node make certificates and returns their serial numbers.
func (n *node) issue(ctx context.Context, count int) ([]string, error) {
	orders, err := newOrders(count, nil)
	if err != nil {
		return nil, err
	}
	serials := make([]string, count)
	return serials, together(ctx, clients, count, func(ctx context.Context, _, i int) error {
		cert, err := n.Operator.Issue(ctx, client.IssueRequest{CA: "services", Profile: "server", CSR: orders[i].csr, Name: client.Name{DNS: []string{orders[i].name}}})
		if err == nil {
			serials[i] = cert.Serial
		}
		return err
	})
}

// statusLimit is a book and nothing around it.
type statusLimit struct {
	book    *store.Book
	serials []store.Serial
}

func (b *bench) newStatusLimit(ctx context.Context) (*statusLimit, error) {
	engine, err := bolt.Open(filepath.Join(b.dir, "status.db"), bolt.Options{})
	if err != nil {
		return nil, err
	}
	b.atEnd(engine.Close)
	book, err := store.Create(ctx, store.Config{Engine: engine})
	return &statusLimit{book: book}, err
}

func (l *statusLimit) side() side {
	return side{name: "store", pid: os.Getpid(), prepare: l.prepare,
		work: func(ctx context.Context, count int) error {
			return together(ctx, clients, count, func(ctx context.Context, _, i int) error {
				return l.book.Update(ctx, func(tx *store.Tx) error {
					s, err := store.Statuses.Get(tx, store.SerialKey("services", l.serials[i]))
					if err != nil {
						return err
					}
					s.State, s.Reason, s.Time = store.Revoked, superseded, tx.Now()
					s.Seq = tx.Append(store.Event{Kind: store.KindRevoked, CA: s.CA, Serial: s.Serial, Actor: "bench", Detail: `{"reason":4}`})
					return store.Statuses.Put(tx, s)
				})
			})
		}}
}

// prepare records good statuses, with the events that a book wants to see before
// their revocation.
func (l *statusLimit) prepare(count int) error {
	l.serials = make([]store.Serial, count)
	for part := range slices.Chunk(l.serials, 500) {
		err := l.book.Update(context.Background(), func(tx *store.Tx) error {
			var all error
			for i := range part {
				rand.Read(part[i][1:])
				part[i][0] = 1
				tx.Append(store.Event{Kind: store.KindIntent, CA: "services", Serial: part[i]})
				s := store.Status{CA: "services", Serial: part[i], State: store.Good, Time: tx.Now(), NotAfter: tx.Now().Add(24 * time.Hour)}
				s.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: s.CA, Serial: s.Serial, Actor: "bench"})
				all = errors.Join(all, store.Statuses.Insert(tx, &s))
			}
			return all
		})
		if err != nil {
			return err
		}
	}
	return nil
}
