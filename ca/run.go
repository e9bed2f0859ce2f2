package ca

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hufu/issuance"
	"hufu/store"
)

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
	changed := map[string]*news{}
	for id := range a.issuers {
		changed[id] = &news{shards: map[uint16]bool{}, wake: make(chan struct{}, 1)}
	}
	g.Go(func() error { return a.keepLease(ctx) })
	g.Go(func() error { return a.watchEnds(ctx) })
	g.Go(func() error { return a.watch(ctx, after, changed) })
	for id, i := range a.issuers {
		g.Go(func() error { return a.keepLists(ctx, i, changed[id]) })
	}
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

// watch tells of every shard in which something changed, after an event, that its
// CRL shows. The whole CA is shard 0 and changes with every shard.
func (a *Authority) watch(ctx context.Context, after uint64, changed map[string]*news) error {
	for {
		events, err := a.Book.Follow(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("following the journal: %w", err)
		}
		after = events[len(events)-1].Seq
		touched, err := a.touched(ctx, events)
		if err != nil {
			return err
		}
		for l := range touched {
			changed[l.ca].add(l.shard)
		}
	}
}

// news is which shards of a CA changed since its lists were last looked after. It
// waits for nobody: a long list of one CA does not delay those of the others.
type news struct {
	mu     sync.Mutex
	shards map[uint16]bool // guarded by mu
	wake   chan struct{}   // of one place
}

func (n *news) add(shard uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shards[shard] = true
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take returns the shards and forgets them.
func (n *news) take() map[uint16]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := n.shards
	n.shards = map[uint16]bool{}
	return taken
}

// touched returns the full lists that the events change.
func (a *Authority) touched(ctx context.Context, events []store.Event) (map[list]bool, error) {
	all := map[list]bool{}
	err := a.Book.View(ctx, func(tx *store.Tx) error {
		for i := range events {
			e := &events[i]
			switch e.Kind {
			case store.KindHeld, store.KindResumed, store.KindRevoked, store.KindIntentClosed:
			default:
				continue
			}
			if a.issuers[e.CA] == nil {
				continue
			}
			all[list{ca: e.CA}] = true
			s, err := store.Statuses.Get(tx, store.SerialKey(e.CA, e.Serial))
			if err != nil {
				return fmt.Errorf("looking for the shard of certificate %s: %w", e.Serial, err)
			}
			all[list{ca: e.CA, shard: s.Shard}] = true
		}
		return nil
	})
	return all, err
}

// keepLists publishes for one CA, as its schedule says.
func (a *Authority) keepLists(ctx context.Context, i *issuance.Issuer, changed *news) error {
	shards, err := a.shards(ctx, i)
	if err != nil {
		return err
	}
	s := newSchedule(i.CA().ID, shards, i.Deltas(), a.CRLEvery, a.fullEvery(i.CA().ID))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed.wake:
			for shard := range changed.take() {
				s.changed(shard)
			}
		case <-timer.C:
			if err := a.publishDue(ctx, s); err != nil {
				return err
			}
		}
		timer.Reset(time.Until(s.next()))
	}
}

// publishDue makes every list whose time has come.
func (a *Authority) publishDue(ctx context.Context, s *schedule) error {
	for _, l := range s.dueAt(time.Now()) {
		began := time.Now()
		if _, err := a.publish(ctx, &store.CRL{CA: l.ca, Shard: l.shard, Delta: l.delta}); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.Log.Error("publishing a CRL failed", "ca", l.ca, "shard", l.shard, "delta", l.delta, "err", err)
			s.failed(l, time.Now())
			continue
		}
		s.made(l, began, time.Now())
	}
	return nil
}

// fullEvery is how often the full lists of a CA are made when nothing changes.
func (a *Authority) fullEvery(caID string) time.Duration {
	if a.issuers[caID].Deltas() {
		return a.CRLFullEvery
	}
	return a.CRLEvery
}
