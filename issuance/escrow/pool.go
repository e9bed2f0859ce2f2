package escrow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"hufu/store"
)

// pause is how long Run waits after a failure, and how often it looks at certificates
// that have ended by themselves.
const (
	pause  = 2 * time.Second
	sweeps = time.Minute
)

// Run keeps the pool full and takes keys to history when their certificates end, until
// ctx does. It reads the journal, so it sees what other nodes of the book do. The work is
// bounded: no more keys than are wanted, no more sessions than it may use, one commit for
// a chunk.
func (e *Escrow) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.repeat(ctx, "filling the pool of spare keys", e.keepFull) })
	group.Go(func() error { return e.repeat(ctx, "following the ends of certificates", e.follow) })
	return group.Wait()
}

// repeat runs f, which returns on failure or when ctx ends, again and again: a token that
// is away comes back.
func (e *Escrow) repeat(ctx context.Context, what string, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if ctx.Err() != nil {
			return nil
		}
		e.cfg.Log.Error(what+" failed", "err", err)
		if errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrClosed) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// keepFull fills the pool whenever a key was taken.
func (e *Escrow) keepFull(ctx context.Context) error {
	if err := e.settle(ctx); err != nil {
		return err
	}
	for {
		if err := e.Fill(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		}
	}
}

// taken tells Run that the pool has a key less.
func (e *Escrow) taken() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Fill makes keys until as many are spare as are wanted. While one chunk is on its way to
// the disk, the token makes the next.
func (e *Escrow) Fill(ctx context.Context) error {
	for {
		c, err := e.Status(ctx)
		if err != nil {
			return err
		}
		if c.Spare >= c.Wanted {
			return nil
		}
		made := make(chan []*Key)
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			defer close(made)
			for n := int(c.Wanted - c.Spare); n > 0; n -= chunk {
				keys, err := e.make(ctx, min(n, chunk))
				if err != nil {
					return err
				}
				select {
				case made <- keys:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		group.Go(func() error {
			for keys := range made {
				if err := e.record(ctx, keys, c.Wanted); err != nil {
					return fmt.Errorf("recording %d spare keys: %w", len(keys), err)
				}
			}
			return nil
		})
		if err := group.Wait(); err != nil {
			return err
		}
	}
}

// record brings new keys into the pool, as far as they are wanted still: another node may
// have filled it meanwhile. A crash before it leaves nothing: the keys were objects of a
// session.
func (e *Escrow) record(ctx context.Context, keys []*Key, wanted uint64) error {
	return e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		p, err := poolOf(tx)
		if err != nil || p.N[Spare] >= wanted {
			return err
		}
		return insert(tx, keys[:min(uint64(len(keys)), wanted-p.N[Spare])])
	})
}

// make has the token make n keys, side by side.
func (e *Escrow) make(ctx context.Context, n int) ([]*Key, error) {
	w, err := e.wrapping(ctx, e.cfg.Wrapping)
	if err != nil {
		return nil, err
	}
	keys := make([]*Key, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(e.cfg.Parallel)
	for i := range keys {
		group.Go(func() error {
			spki, blob, err := w.MakeWrapped(ctx, e.cfg.Kind)
			keys[i] = &Key{Hash: store.Sum(spki), State: Spare, Epoch: e.cfg.Book.Epoch(), Kind: e.cfg.Kind.String(), SPKI: spki, Blob: blob, Wrapping: e.cfg.Wrapping}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return keys, nil
}

// insert brings new keys into the pool.
func insert(tx *store.Tx, keys []*Key) error {
	p, err := poolOf(tx)
	if err != nil {
		return err
	}
	var hashes []byte
	for _, k := range keys {
		hashes = append(hashes, k.Hash[:]...)
	}
	seq := tx.Append(store.Event{Kind: KindMade, Actor: "escrow", Detail: detail{Keys: len(keys), Kind: keys[0].Kind, SHA256: store.Sum(hashes)}.String()})
	for _, k := range keys {
		k.Made, k.Changed, k.Seq = tx.Now().UTC(), tx.Now().UTC(), seq
		if err := kept.Insert(tx, k); err != nil {
			return fmt.Errorf("recording the kept key %s: %w", k.Hash, err)
		}
		p.N[k.State]++
		p.Made++
	}
	if p.Under == nil {
		p.Under = map[string]store.Hash{}
	}
	if _, used := p.Under[keys[0].Wrapping]; !used {
		p.Under[keys[0].Wrapping] = keys[0].Hash
	}
	return pools.Put(tx, p)
}

// settle takes what an earlier epoch left spare or claimed to where it belongs: the book
// was restored, and since the backup such a key may have gone to a reader.
func (e *Escrow) settle(ctx context.Context) error {
	for _, s := range []State{Spare, Claimed} {
		for more := true; more; {
			err := e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
				rows, _, err := kept.Page(tx, store.Query{Index: "state", Prefix: store.Key(uint8(s)), Limit: chunk})
				if err != nil {
					return err
				}
				more = false
				for _, k := range rows {
					if k.Epoch == e.cfg.Book.Epoch() {
						return nil // the index goes by epoch
					}
					if err := e.adopt(tx, k); err != nil {
						return err
					}
					more = true
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("settling the kept keys of the time before the restore: %w", err)
			}
		}
	}
	return nil
}

// adopt takes a key that must not be given out to where it belongs: to the certificate
// that the book has for it, or to history.
func (e *Escrow) adopt(tx *store.Tx, k *Key) error {
	cert, status, err := certificateOf(tx, k)
	if err != nil {
		return err
	}
	if cert == nil {
		return move(tx, k, History, "escrow", "made before the book was restored")
	}
	k.Reader, k.City, k.CA, k.Serial, k.NotAfter = cert.Reader, cert.City, cert.CA, cert.Serial, cert.NotAfter
	if status.State == store.Revoked {
		return move(tx, k, History, "escrow", "its certificate was brought back and is revoked")
	}
	return move(tx, k, InUse, "escrow", "its certificate was brought back")
}

// certificateOf finds the newest certificate over a kept key, nil where there is none.
func certificateOf(tx *store.Tx, k *Key) (cert *store.Certificate, status *store.Status, err error) {
	for c, err := range store.Certificates.Scan(tx, "spki", store.Key(k.Hash)) {
		if err != nil {
			return nil, nil, err
		}
		if cert == nil || c.Seq > cert.Seq {
			cert = c
		}
	}
	if cert == nil {
		return nil, nil, nil
	}
	if status, err = store.Statuses.Get(tx, store.SerialKey(cert.CA, cert.Serial)); err != nil {
		return nil, nil, fmt.Errorf("reading the status of certificate %s: %v", cert.Serial, err) // never "not found"
	}
	return cert, status, nil
}

// follow takes keys to history behind the journal: a certificate that was revoked, and
// one whose time is over.
func (e *Escrow) follow(ctx context.Context) error {
	var cursor uint64
	err := e.cfg.Book.View(ctx, func(tx *store.Tx) error {
		p, err := poolOf(tx)
		if err == nil {
			cursor = p.Cursor
		}
		return err
	})
	saved := cursor
	for err == nil {
		if err = e.sweep(ctx); err != nil {
			break
		}
		cursor, saved, err = e.followOnce(ctx, cursor, saved)
	}
	return err
}

// saveEvery is after how many events without a change the place in the journal is saved.
const saveEvery = 20000

func (e *Escrow) followOnce(ctx context.Context, cursor, saved uint64) (uint64, uint64, error) {
	waiting, cancel := context.WithTimeout(ctx, sweeps)
	defer cancel()
	events, err := e.cfg.Book.Follow(waiting, cursor, 1000)
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return cursor, saved, nil
		}
		return cursor, saved, err
	}
	var ended []store.Event
	for _, ev := range events {
		switch ev.Kind {
		case store.KindRevoked:
			ended = append(ended, ev)
		case KindClaimed:
			e.taken() // perhaps by another node
		}
	}
	if len(events) > 0 {
		cursor = events[len(events)-1].Seq
	}
	if len(ended) == 0 && cursor-saved < saveEvery {
		return cursor, saved, nil
	}
	err = e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		for _, ev := range ended {
			if err := e.Retire(tx, ev.CA, ev.Serial); err != nil {
				return err
			}
		}
		p, err := poolOf(tx)
		if err != nil {
			return err
		}
		p.Cursor = cursor
		return pools.Put(tx, p)
	})
	return cursor, cursor, err
}

// sweep takes keys to history whose certificates have ended by themselves.
func (e *Escrow) sweep(ctx context.Context) error {
	for {
		var due []*Key
		find := func(tx *store.Tx) error {
			due = nil
			rows, _, err := kept.Page(tx, store.Query{Index: "expiry", Limit: chunk})
			for _, k := range rows {
				if k.NotAfter.Before(e.cfg.Now()) {
					due = append(due, k)
				}
			}
			return err
		}
		// It is looked first, and written only where there is something to write.
		if err := e.cfg.Book.View(ctx, find); err != nil || len(due) == 0 {
			return err
		}
		err := e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
			if err := find(tx); err != nil {
				return err
			}
			for _, k := range due {
				if err := move(tx, k, History, "escrow", "its certificate has expired"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
