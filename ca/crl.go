package ca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"golang.org/x/sync/errgroup"

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
	var last *store.CRL
	err := a.Book.View(ctx, func(tx *store.Tx) (err error) {
		last, err = lastCRL(tx, caID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the last CRL of CA %s: %w", caID, err)
	}
	now := a.Now()
	c := &store.CRL{
		CA:         caID,
		Number:     max(last.Number+1, uint64(now.UnixMilli())),
		ThisUpdate: wholeSeconds(now),
		NextUpdate: wholeSeconds(now.Add(a.CRLValidity)),
	}
	if c.Entries, err = a.stage(ctx, c, last); err != nil {
		return nil, fmt.Errorf("signing the CRL of CA %s: %w", caID, err)
	}
	// A crash here loses a list that nobody has seen; its octets are dropped by
	// the next one.
	err = a.Book.Update(ctx, func(tx *store.Tx) error {
		newest, err := lastCRL(tx, caID)
		if err != nil {
			return err
		}
		if newest.Number != last.Number {
			return store.ErrConflict
		}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: caID, Actor: "node " + a.Node,
			Detail: fmt.Sprintf(`{"number":%d,"entries":%d,"sha256":"%s"}`, c.Number, c.Entries, c.Sum)})
		if err := store.PutCRL(tx, c, nil); err != nil {
			return err
		}
		return dropOld(tx, caID)
	})
	if err != nil {
		return nil, fmt.Errorf("recording the CRL of CA %s: %w", caID, err)
	}
	return c, nil
}

// stage signs a list and brings its octets into the book, neither of them in one
// piece, and returns the number of its entries.
func (a *Authority) stage(ctx context.Context, c, last *store.CRL) (n int, err error) {
	t := crl.Template{Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate}
	// RFC 5280, Section 3.3: an entry leaves only after it stood on a scheduled
	// list past the certificate's end. The last list is one if it came more than
	// a schedule's step after that end.
	keep := last.ThisUpdate.Add(-a.CRLEvery)
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		err := a.Book.View(ctx, func(tx *store.Tx) error {
			return a.issuers[c.CA].SignCRL(ctx, t, entries(tx, c.CA, keep, &n), w)
		})
		w.CloseWithError(err)
		return err
	})
	err = a.Book.StageCRL(ctx, c, r)
	r.CloseWithError(err)
	if failed := g.Wait(); err == nil {
		err = failed
	}
	return n, err
}

// keptCRLs is how many lists of a CA stay in the book.
const keptCRLs = 8

// dropOld drops the lists of a CA but the newest.
func dropOld(tx *store.Tx, caID string) error {
	old, _, err := store.CRLs.Page(tx, store.Query{Prefix: store.CRLKey(caID, 0, false), Reverse: true, Limit: 2 * keptCRLs})
	if err != nil {
		return fmt.Errorf("looking for old CRLs: %w", err)
	}
	for _, c := range old[min(len(old), keptCRLs):] {
		if err := store.DeleteCRL(tx, c); err != nil {
			return fmt.Errorf("dropping CRL %d: %w", c.Number, err)
		}
	}
	return nil
}

// lastCRL returns the newest full CRL of a CA, and a zero one if there is none.
func lastCRL(tx *store.Tx, caID string) (*store.CRL, error) {
	last, err := store.LastCRL(tx, caID, 0, false)
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
