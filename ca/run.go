package ca

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"hufu/store"
)

// gather is how long revocations may wait for each other before a CRL is signed.
const gather = time.Second

// retry is how long a CRL that could not be signed waits.
const retry = 5 * time.Second

// Run recovers, then renews the node's lease, closes what dead nodes leave, and
// publishes CRLs, at once after a revocation (gathered for at most a second)
// and on schedule, until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	if err := a.recoverNow(ctx); err != nil {
		return err
	}
	// Read before the first lists are signed: a change that comes between is
	// seen by one of the two.
	var after uint64
	if err := a.Book.View(ctx, func(tx *store.Tx) error { after = tx.Head(); return nil }); err != nil {
		return fmt.Errorf("reading the head of the journal: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	changed := make(chan string)
	g.Go(func() error { return a.keepLease(ctx) })
	g.Go(func() error { return a.watch(ctx, after, changed) })
	g.Go(func() error { return a.keepLists(ctx, changed) })
	return g.Wait()
}

func (a *Authority) recoverNow(ctx context.Context) error {
	n, err := a.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recovering: %w", err)
	}
	if n > 0 {
		a.Log.Info("closed intents of a node that is gone", "count", n)
	}
	return nil
}

// keepLease renews the lease three times in its length, and recovers as often.
func (a *Authority) keepLease(ctx context.Context) error {
	tick := time.NewTicker(a.Lease / 3)
	defer tick.Stop()
	for {
		if err := a.stay(ctx); err != nil {
			return fmt.Errorf("renewing the lease of node %q: %w", a.Node, err)
		}
		if err := a.recoverNow(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// watch sends the ID of a CA whenever something changes, after an event, that
// its CRL shows.
func (a *Authority) watch(ctx context.Context, after uint64, changed chan<- string) error {
	for {
		events, err := a.Book.Follow(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("following the journal: %w", err)
		}
		for i := range events {
			after = events[i].Seq
			switch events[i].Kind {
			case store.KindHeld, store.KindResumed, store.KindRevoked, store.KindIntentClosed:
			default:
				continue
			}
			if a.issuers[events[i].CA] == nil {
				continue
			}
			select {
			case changed <- events[i].CA:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// keepLists publishes. Every list is due at the start, since the book may have
// changed while no node ran; then on schedule; and after a change at once, but
// not within a second of the list before.
func (a *Authority) keepLists(ctx context.Context, changed <-chan string) error {
	due := map[string]time.Time{}
	last := map[string]time.Time{}
	for id := range a.issuers {
		due[id] = time.Now()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case id := <-changed:
			if soon := last[id].Add(gather); soon.Before(due[id]) {
				due[id] = soon
			}
		case <-timer.C:
			for id, at := range due {
				if at.After(time.Now()) {
					continue
				}
				if _, err := a.PublishCRL(ctx, id); err != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					a.Log.Error("publishing a CRL failed", "ca", id, "err", err)
					due[id] = time.Now().Add(retry)
					continue
				}
				last[id] = time.Now()
				due[id] = last[id].Add(a.CRLEvery)
			}
		}
		next := time.Now().Add(a.CRLEvery)
		for _, at := range due {
			if at.Before(next) {
				next = at
			}
		}
		timer.Reset(time.Until(next))
	}
}
