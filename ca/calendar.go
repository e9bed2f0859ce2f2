package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hufu/store"
)

// A list is ending when less than this is left of its life: a quarter, or a month
// where that is less. A list of a working CA is renewed long before; the root's
// takes people.
const (
	endingPart = 4
	endingMost = 30 * 24 * time.Hour
)

// Ending says whether a list is about to run out, or has.
func Ending(c *store.CRL, now time.Time) bool {
	return c.NextUpdate.Sub(now) < min(c.NextUpdate.Sub(c.ThisUpdate)/endingPart, endingMost)
}

// Lists returns the newest list of each kind of every CA that is not retired: of
// the whole CA, of each shard, and the deltas that are newer than their full list.
func Lists(tx *store.Tx) ([]*store.CRL, error) {
	var all []*store.CRL
	for authority, err := range store.CAs.Scan(tx, "", nil) {
		if err != nil {
			return nil, err
		}
		if authority.State == "retired" {
			continue
		}
		last, err := store.CRLs.Last(tx, "", store.Key(authority.ID))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for shard := range int(last.Shard) + 1 {
			if all, err = appendLists(tx, all, authority.ID, uint16(shard)); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func appendLists(tx *store.Tx, all []*store.CRL, caID string, shard uint16) ([]*store.CRL, error) {
	var full uint64
	for _, delta := range []bool{false, true} {
		c, err := store.LastCRL(tx, caID, shard, delta)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !delta {
			full = c.Number
		}
		if c.Number >= full {
			all = append(all, c)
		}
	}
	return all, nil
}

// lookEvery is how often the lists' ends are looked at.
const lookEvery = time.Hour

// watchEnds warns of lists that are about to run out.
func (a *Authority) watchEnds(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := a.WarnOfEnds(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// WarnOfEnds logs a warning for each list that is about to run out, or has.
func (a *Authority) WarnOfEnds(ctx context.Context) error {
	var all []*store.CRL
	err := a.Book.View(ctx, func(tx *store.Tx) (err error) {
		all, err = Lists(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("looking at the ends of CRLs: %w", err)
	}
	for _, c := range all {
		if !Ending(c, a.Now()) {
			continue
		}
		remedy := "look in this log why it is not renewed"
		if a.issuers[c.CA] == nil {
			remedy = "have the CA sign a new list and import it: hufu crl import"
		}
		a.Log.Warn("a CRL is about to run out", "ca", c.CA, "shard", c.Shard, "delta", c.Delta, "number", c.Number, "next_update", c.NextUpdate, "remedy", remedy)
	}
	return nil
}

// CRLAddress is where a list is served, "" where this node has no CA that says
// where it publishes.
func (a *Authority) CRLAddress(c *store.CRL) string {
	for _, i := range a.issuers {
		return i.ListAddress(c.CA, c.Shard, c.Delta)
	}
	return ""
}
