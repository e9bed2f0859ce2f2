package store_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hufu/store"
)

// TestListed: what is read from the index alone is what the rows say, by shard and
// serial number, after any changes.
func TestListed(t *testing.T) {
	b := create(t)
	cas := []string{"a", "a\x00b", "330100"}
	rapid.Check(t, func(r *rapid.T) {
		s := &store.Status{CA: rapid.SampledFrom(cas).Draw(r, "CA"), Serial: store.Serial{1, 16: rapid.Byte().Draw(r, "serial") % 16},
			State: rapid.SampledFrom([]store.State{store.Good, store.Held, store.Revoked}).Draw(r, "state"), Reason: rapid.IntRange(-1, 10).Draw(r, "reason"),
			Shard: rapid.Uint16Range(0, 3).Draw(r, "shard"), NotAfter: time.Unix(rapid.Int64Range(0, 1<<34).Draw(r, "end"), 0).UTC()}
		if rapid.Bool().Draw(r, "invalidity") {
			s.InvalidityDate = time.Unix(rapid.Int64Range(0, 1<<34).Draw(r, "from"), 0).UTC()
		}
		kind := map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}[s.State]
		update(t, b, func(tx *store.Tx) error {
			s.Time = tx.Now().UTC()
			s.Seq = tx.Append(store.Event{Kind: kind, CA: s.CA, Serial: s.Serial})
			return store.Statuses.Put(tx, s)
		})
		ca, shard := rapid.SampledFrom(cas).Draw(r, "of CA"), rapid.Uint16Range(0, 3).Draw(r, "of shard")
		view(t, b, func(tx *store.Tx) error {
			var want, got []store.Status
			for s, err := range store.Statuses.Scan(tx, "", nil) {
				if err != nil {
					return err
				}
				if s.CA == ca && (shard == 0 || s.Shard == shard) && s.State != store.Good {
					want = append(want, store.Status{CA: s.CA, Shard: s.Shard, Serial: s.Serial, Reason: s.Reason, Time: s.Time, InvalidityDate: s.InvalidityDate, NotAfter: s.NotAfter})
				}
			}
			slices.SortFunc(want, func(x, y store.Status) int {
				if x.Shard != y.Shard {
					return int(x.Shard) - int(y.Shard)
				}
				return bytes.Compare(x.Serial[:], y.Serial[:])
			})
			for s, err := range store.Listed(tx, ca, shard) {
				if err != nil {
					return err
				}
				got = append(got, *s)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("revoked of %q, shard %d: %v, want %v", ca, shard, got, want)
			}
			return nil
		})
	})
	stop := errors.New("stop")
	err := b.View(ctx, func(tx *store.Tx) error {
		for range store.Listed(tx, "a", 0) {
			return stop
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}
