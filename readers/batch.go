package readers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hufu/ca"
	"hufu/store"
)

// Result is what came of one pair of a batch.
type Result struct {
	Number  string
	Sign    store.Serial
	Encrypt store.Serial
	Err     error
}

// saveEvery is how many results one save takes: one chunk of ca.IssueBatch, so that
// a chunk costs three syncs of the disk, and no more.
const saveEvery = 256

// Batch issues pairs[from:]. save is called with the next results, in order, and
// with the index to go on from after a kill. What came after the last save comes
// again with the same outcome and no second pair, since each pair's idempotency
// key is made of id and its index; a pair that is refused does not end the batch.
func (r *Register) Batch(ctx context.Context, id string, pairs []Pair, from int, actor string, save func(next int, results []Result) error) error {
	if from < 0 || from > len(pairs) {
		return fmt.Errorf("batch %s goes on from pair %d of %d", id, from, len(pairs))
	}
	tries := 0
	for from < len(pairs) {
		n := min(saveEvery, len(pairs)-from)
		if tries > 0 {
			n = 1 // each try costs the serial numbers of what is tried
		}
		results, err := r.issueSome(ctx, id, pairs[from:from+n], from, actor)
		if err != nil {
			return err
		}
		if err := tokenTrouble(results); err != nil {
			if tries++; tries == maxTries {
				return fmt.Errorf("giving the batch up at pair %d, the token does not sign: %w", from, err)
			}
			r.Log.Warn("a batch of readers waits for the token", "job", id, "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(retryAfter):
			}
			continue // the pairs that were issued are answered again
		}
		tries = 0
		// A kill here loses no pair: the next run asks for the same ones with
		// the same keys and is given the same certificates.
		from += n
		if err := save(from, results); err != nil {
			return err
		}
	}
	return nil
}

// A token that does not sign is asked again, since it may only be restarting.
const (
	retryAfter = time.Second
	maxTries   = 60
)

// tokenTrouble returns the error of a pair that was refused by the token alone.
func tokenTrouble(results []Result) error {
	for i := range results {
		if signing := new(ca.SigningError); errors.As(results[i].Err, &signing) {
			return signing
		}
	}
	return nil
}

// issueSome issues a few pairs. An error is one of the book or the end of ctx.
func (r *Register) issueSome(ctx context.Context, id string, pairs []Pair, first int, actor string) ([]Result, error) {
	results := make([]Result, len(pairs))
	var orders []ca.Order
	var of []int
	for i, p := range pairs {
		results[i].Number = p.Number
		o, err := r.order(p, actor, fmt.Sprintf("job %s pair %d", id, first+i))
		if err != nil {
			results[i].Err = err
			continue
		}
		orders, of = append(orders, o), append(of, i)
	}
	err := r.Authority.IssueBatch(ctx, orders, func(i int, certs []*store.Certificate, err error) error {
		res := &results[of[i]]
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return err // not the pair's fault: it is tried again
			}
			res.Err = err
			return nil
		}
		res.Sign, res.Encrypt = certs[0].Serial, certs[1].Serial
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("issuing a batch of readers: %w", err)
	}
	return results, nil
}
