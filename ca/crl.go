package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"hufu/internal/crl"
	"hufu/store"
)

// PublishCRL signs and records the full CRL of one CA, as the book stands now.
func (a *Authority) PublishCRL(ctx context.Context, caID string) (*store.CRL, error) {
	issuer := a.issuers[caID]
	if issuer == nil {
		return nil, &CAError{CA: caID, Detail: "this node holds no key of it", Remedy: "ask the node that does"}
	}
	// One at a time here; the check against the last number below keeps an older
	// view of the book from going over a newer one's list when another node
	// publishes too.
	a.lists[caID].Lock()
	defer a.lists[caID].Unlock()
	for {
		c, err := a.publish(ctx, caID)
		if !errors.Is(err, store.ErrConflict) {
			return c, err
		}
	}
}

func (a *Authority) publish(ctx context.Context, caID string) (*store.CRL, error) {
	var c *store.CRL
	var der bytes.Buffer
	var before uint64
	err := a.Book.View(ctx, func(tx *store.Tx) error {
		last, err := lastCRL(tx, caID)
		if err != nil {
			return err
		}
		before = last.Number
		now := a.Now()
		c = &store.CRL{
			CA:         caID,
			Number:     max(before+1, uint64(now.UnixMilli())),
			ThisUpdate: wholeSeconds(now),
			NextUpdate: wholeSeconds(now.Add(a.CRLValidity)),
		}
		// RFC 5280, Section 3.3: an entry leaves only after it stood on a
		// scheduled list past the certificate's end. The last list is one if it
		// came more than a schedule's step after that end.
		keep := last.ThisUpdate.Add(-a.CRLEvery)
		t := crl.Template{Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate}
		return a.issuers[caID].SignCRL(ctx, t, entries(tx, caID, keep, &c.Entries), &der)
	})
	if err != nil {
		return nil, fmt.Errorf("signing the CRL of CA %s: %w", caID, err)
	}
	c.Size, c.Sum = int64(der.Len()), store.Sum(der.Bytes())
	// A crash here loses a list that nobody has seen; its number was given to
	// nobody either.
	err = a.Book.Update(ctx, func(tx *store.Tx) error {
		last, err := lastCRL(tx, caID)
		if err != nil {
			return err
		}
		if last.Number != before {
			return store.ErrConflict
		}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: caID, Actor: "node " + a.Node,
			Detail: fmt.Sprintf(`{"number":%d,"entries":%d,"sha256":"%s"}`, c.Number, c.Entries, c.Sum)})
		return store.PutCRL(tx, c, bytes.NewReader(der.Bytes()))
	})
	if err != nil {
		return nil, fmt.Errorf("recording the CRL of CA %s: %w", caID, err)
	}
	return c, nil
}

// lastCRL returns the newest full CRL of a CA, and a zero one if there is none.
func lastCRL(tx *store.Tx, caID string) (*store.CRL, error) {
	last, err := store.CRLs.Last(tx, "", store.Key(caID, false))
	if errors.Is(err, store.ErrNotFound) {
		return &store.CRL{}, nil
	}
	return last, err
}

// entries streams what is held or revoked and has not ended before keep.
func entries(tx *store.Tx, caID string, keep time.Time, n *int) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		*n = 0
		for s, err := range store.Statuses.Scan(tx, "crl", store.Key(caID)) {
			if err != nil {
				yield(crl.Entry{}, err)
				return
			}
			if s.NotAfter.Before(keep) {
				continue
			}
			*n++
			if !yield(crl.Entry{Serial: s.Serial[:], RevokedAt: s.Time, Reason: s.Reason, InvalidityDate: s.InvalidityDate}, nil) {
				return
			}
		}
	}
}
