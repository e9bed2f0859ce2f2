package ca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"hufu/internal/crl"
	"hufu/issuance"
	"hufu/store"
)

// maker is how a refused publication names what it needs.
func (a *Authority) maker(caID string) (*issuance.Issuer, error) {
	if i := a.issuers[caID]; i != nil {
		return i, nil
	}
	return nil, &CAError{CA: caID, Detail: "this node holds no key of it", Remedy: "ask the node that does, or import the list that its key signed with `hufu crl import`"}
}

// PublishLists signs and records every list of one CA as the book stands now: the
// full one of the whole CA, those of its shards, and the deltas to them where the
// CA publishes deltas. It returns the first.
func (a *Authority) PublishLists(ctx context.Context, caID string) (*store.CRL, error) {
	i, err := a.maker(caID)
	if err != nil {
		return nil, err
	}
	shards, err := a.shards(ctx, i)
	if err != nil {
		return nil, err
	}
	var whole *store.CRL
	for shard := range shards + 1 {
		c, err := a.PublishShard(ctx, caID, uint16(shard))
		if err == nil && i.Deltas() {
			_, err = a.PublishDelta(ctx, caID, uint16(shard))
		}
		if err != nil {
			return nil, err
		}
		if shard == 0 {
			whole = c
		}
	}
	return whole, nil
}

// PublishCRL signs and records the full CRL of one CA, as the book stands now.
func (a *Authority) PublishCRL(ctx context.Context, caID string) (*store.CRL, error) {
	return a.publish(ctx, &store.CRL{CA: caID})
}

// PublishShard does the same for one shard of the CA; shard 0 is the whole of it.
func (a *Authority) PublishShard(ctx context.Context, caID string, shard uint16) (*store.CRL, error) {
	return a.publish(ctx, &store.CRL{CA: caID, Shard: shard})
}

// PublishDelta signs and records what changed since a full CRL that is older than
// an hour, so that holders of that one and of every later one go on with it.
// Without a full CRL there is no delta: store.ErrNotFound.
func (a *Authority) PublishDelta(ctx context.Context, caID string, shard uint16) (*store.CRL, error) {
	return a.publish(ctx, &store.CRL{CA: caID, Shard: shard, Delta: true})
}

// publish makes the list that c names, and fills c in.
func (a *Authority) publish(ctx context.Context, c *store.CRL) (*store.CRL, error) {
	if _, err := a.maker(c.CA); err != nil {
		return nil, err
	}
	// One at a time here; the check against the last number below keeps an older
	// view of the book from going over a newer one's list when another node
	// publishes too.
	a.lists[c.CA].Lock()
	defer a.lists[c.CA].Unlock()
	for {
		made, err := a.tryPublish(ctx, *c)
		if !errors.Is(err, store.ErrConflict) {
			return made, err
		}
	}
}

func (a *Authority) tryPublish(ctx context.Context, draft store.CRL) (*store.CRL, error) {
	c := &draft
	var last, base *store.CRL
	err := a.Book.View(ctx, func(tx *store.Tx) (err error) {
		if last, err = newest(tx, c); err == nil && c.Delta {
			base, err = a.baseOf(tx, c)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the last CRL of CA %s: %w", c.CA, err)
	}
	now := a.Now()
	// Full lists and deltas share their numbers (RFC 5280, Section 5.2.3). A book
	// that was restored has lost some; the clock goes past them.
	c.Number = max(last.Number+1, uint64(now.UnixMilli()))
	c.ThisUpdate, c.NextUpdate = wholeSeconds(now), wholeSeconds(now.Add(a.CRLValidity))
	if c.Delta {
		c.Base = base.Number
	}
	if err = a.stage(ctx, c, base); err != nil {
		return nil, fmt.Errorf("signing the CRL of CA %s: %w", c.CA, err)
	}
	// A crash here loses a list that nobody has seen; its octets are dropped by
	// the next one.
	err = a.Book.Update(ctx, func(tx *store.Tx) error {
		now, err := newest(tx, c)
		if err != nil {
			return err
		}
		if now.Number != last.Number {
			return store.ErrConflict
		}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: c.CA, Actor: "node " + a.Node, Detail: detail(c)})
		if err := store.PutCRL(tx, c, nil); err != nil {
			return err
		}
		return a.dropOld(tx, c)
	})
	if err != nil {
		return nil, fmt.Errorf("recording the CRL of CA %s: %w", c.CA, err)
	}
	return c, nil
}

// detail is what the journal keeps of a list.
func detail(c *store.CRL) string {
	scope := ""
	if c.Shard > 0 {
		scope = fmt.Sprintf(`"shard":%d,`, c.Shard)
	}
	if c.Delta {
		scope += fmt.Sprintf(`"base":%d,`, c.Base)
	}
	return fmt.Sprintf(`{%s"number":%d,"entries":%d,"sha256":"%s"}`, scope, c.Number, c.Entries, c.Sum)
}

// stage signs a list and brings its octets into the book, neither of them in one
// piece, and says in c how many entries it has and up to which event it goes.
func (a *Authority) stage(ctx context.Context, c, base *store.CRL) error {
	issuer := a.issuers[c.CA]
	t := crl.Template{Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, Delta: c.Delta, Base: c.Base}
	if c.Shard > 0 {
		// RFC 5280, Section 5.2.5: a list of some certificates says which, by the
		// address that these name, and a delta says the same as its base. A working
		// CA certifies no CAs.
		t.Point = &crl.Point{URIs: []string{issuer.CRLAddress(c.Shard)}, OnlyUsers: true}
	}
	if issuer.Deltas() && !c.Delta {
		t.Freshest = []string{issuer.DeltaAddress(c.Shard)} // RFC 5280, Section 5.2.6
	}
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		err := a.Book.View(ctx, func(tx *store.Tx) error {
			c.AsOf, c.Entries = tx.Head(), 0
			list, err := a.entries(tx, c, base)
			if err != nil {
				return err
			}
			return issuer.SignCRL(ctx, t, counted(list, &c.Entries), w)
		})
		w.CloseWithError(err)
		return err
	})
	err := a.Book.StageCRL(ctx, c, r)
	r.CloseWithError(err)
	if failed := g.Wait(); err == nil {
		err = failed
	}
	return err
}

// keptCRLs is how many lists of one kind stay in the book.
const keptCRLs = 8

// dropOld drops the lists of the kind of c but the newest, and but the full ones
// that deltas go out from, now or later.
func (a *Authority) dropOld(tx *store.Tx, c *store.CRL) error {
	old, _, err := store.CRLs.Page(tx, store.Query{Prefix: store.CRLKey(c.CA, c.Shard, c.Delta), Reverse: true, Limit: 4 * keptCRLs})
	if err != nil {
		return fmt.Errorf("looking for old CRLs: %w", err)
	}
	var bases []*store.CRL
	if i := a.issuers[c.CA]; !c.Delta && i != nil && i.Deltas() {
		bases = a.bases(old)
	}
	for _, c := range old[min(len(old), keptCRLs):] {
		if slices.Contains(bases, c) {
			continue
		}
		if err := store.DeleteCRL(tx, c); err != nil {
			return fmt.Errorf("dropping CRL %d: %w", c.Number, err)
		}
	}
	return nil
}

// newest returns the list with the highest number among those that share numbers
// with c, full and delta, and a zero one if there is none.
func newest(tx *store.Tx, c *store.CRL) (*store.CRL, error) {
	last := &store.CRL{}
	for _, delta := range []bool{false, true} {
		switch l, err := store.LastCRL(tx, c.CA, c.Shard, delta); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		case l.Number > last.Number:
			last = l
		}
	}
	return last, nil
}

// deltaEvents is how many events of the journal a delta goes back over, unless there
// were more since the full list before the newest: it is made every second, and so
// it has some hundred thousand octets and not many millions.
const deltaEvents = 10_000

// baseOf returns the full list that a delta goes out from: one older than an hour
// (see baseAge), however many have followed changes since, so that whoever has
// fetched a full list within that hour goes on with the delta. Where that would be
// a long way back it is a younger one, at the youngest the one before the newest,
// for those who have not fetched the newest yet.
func (a *Authority) baseOf(tx *store.Tx, c *store.CRL) (*store.CRL, error) {
	full, _, err := store.CRLs.Page(tx, store.Query{Prefix: store.CRLKey(c.CA, c.Shard, false), Reverse: true, Limit: 4 * keptCRLs})
	if err != nil {
		return nil, err
	}
	bases := a.bases(full)
	if len(bases) == 0 {
		return nil, fmt.Errorf("a full CRL for a delta to go out from: %w", store.ErrNotFound)
	}
	var near []*store.CRL // from the first base on, the oldest first
	for _, f := range slices.Backward(full) {
		if f.AsOf > 0 && f.Number >= bases[0].Number {
			near = append(near, f)
		}
	}
	for len(near) > 2 && tx.Head()-near[0].AsOf > deltaEvents {
		near = near[1:]
	}
	return near[0], nil
}

// baseAge is how old the full list is that a delta goes out from.
func (a *Authority) baseAge() time.Duration {
	return max(a.CRLFullEvery, min(time.Hour, a.CRLValidity/2))
}

// bases returns, of the full lists of one scope, the newest first, the one that a
// delta goes out from now, and after it those that later ones will, each
// baseAge or more after the one before: what else there is may be dropped, and
// the next base is still there when its time comes. A list that was made elsewhere,
// of which it is not known what it took into account, is none.
func (a *Authority) bases(full []*store.CRL) (bases []*store.CRL) {
	now := a.Now()
	old := wholeSeconds(now.Add(-a.baseAge()))
	for _, c := range slices.Backward(full) {
		n := len(bases)
		switch {
		case c.AsOf == 0:
		case n == 0 || bases[n-1].ThisUpdate.After(now): // by a clock that was ahead
			bases = append(bases, c)
		case !c.ThisUpdate.Before(bases[n-1].ThisUpdate.Add(a.baseAge())) && !c.ThisUpdate.After(now):
			bases = append(bases, c)
		}
	}
	for len(bases) > 1 && !bases[1].ThisUpdate.After(old) {
		bases = bases[1:]
	}
	return bases
}

// shards is how many shards of a CA have lists. A shard that was once published
// stays, since certificates name it, whatever the configuration says now.
func (a *Authority) shards(ctx context.Context, i *issuance.Issuer) (n int, err error) {
	n = int(i.Shards())
	err = a.Book.View(ctx, func(tx *store.Tx) error {
		last, err := store.CRLs.Last(tx, "", store.Key(i.CA().ID))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil {
			n = max(n, int(last.Shard))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("looking for the shards of CA %s: %w", i.CA().ID, err)
	}
	return n, nil
}

// entries streams what stands on the list that c describes.
func (a *Authority) entries(tx *store.Tx, c, base *store.CRL) (iter.Seq2[crl.Entry, error], error) {
	if c.Delta {
		return changes(tx, c, base.AsOf), nil
	}
	last, err := store.LastCRL(tx, c.CA, c.Shard, false)
	if errors.Is(err, store.ErrNotFound) {
		last, err = &store.CRL{}, nil
	}
	if err != nil {
		return nil, err
	}
	// RFC 5280, Section 3.3: an entry leaves only after it stood on a scheduled
	// list past the certificate's end. The last list is one if it came more than
	// a schedule's step after that end.
	return revoked(tx, c, last.ThisUpdate.Add(-a.fullEvery(c.CA))), nil
}

// revoked streams what is held or revoked and has not ended before keep.
func revoked(tx *store.Tx, c *store.CRL, keep time.Time) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for s, err := range store.Listed(tx, c.CA, c.Shard) {
			if err == nil && s.NotAfter.Before(keep) {
				continue
			}
			if err != nil {
				yield(crl.Entry{}, err)
				return
			}
			if !yield(entry(s), nil) {
				return
			}
		}
	}
}

// removeFromCRL is the reason by which a delta takes an entry off the list.
const removeFromCRL = 8

// changes streams what changed after an event: what is held or revoked since, and
// what was held before it and is good again. RFC 5280, Section 5.2.4 wants the
// last whether it stood on the base or only on a list since.
func changes(tx *store.Tx, c *store.CRL, after uint64) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for _, of := range []struct {
			index  string
			prefix []byte
		}{{"state", store.Key(store.Held.String(), c.CA)}, {"state", store.Key(store.Revoked.String(), c.CA)}, {"lifted", store.Key(c.CA)}} {
			q := store.Query{Index: of.index, Prefix: of.prefix, After: store.Key(of.prefix, after+1), Limit: 1000}
			for more := true; more; more = q.After != nil {
				rows, next, err := store.Statuses.Page(tx, q)
				if err != nil {
					yield(crl.Entry{}, err)
					return
				}
				for _, s := range rows {
					if c.Shard > 0 && s.Shard != c.Shard {
						continue
					}
					if !yield(entry(s), nil) {
						return
					}
				}
				q.After = next
			}
		}
	}
}

func entry(s *store.Status) crl.Entry {
	e := crl.Entry{Serial: s.Serial[:], RevokedAt: s.Time, Reason: s.Reason, InvalidityDate: s.InvalidityDate}
	if s.State == store.Good {
		e.Reason = removeFromCRL // RFC 5280, Section 5.3.1
	}
	return e
}

// counted counts what goes through it.
func counted(entries iter.Seq2[crl.Entry, error], n *int) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for e, err := range entries {
			if err == nil {
				*n++
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
