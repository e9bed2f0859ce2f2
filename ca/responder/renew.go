package responder

import (
	"context"
	"time"

	"hufu/internal/ocsp"
)

// renew looks after answers and responder certificates until ctx ends.
func (r *Responder) renew(ctx context.Context) error {
	// Often enough that an answer due at half of its life is there before three
	// quarters of it, when requests would have to wait for a new one.
	tick := time.NewTicker(min(max(r.cfg.Validity/32, 100*time.Millisecond), time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.renewSigners(ctx)
			r.renewAnswers(ctx)
		}
	}
}

// renewAnswers signs anew what is due and asked for. One after the other: the token
// has other work.
func (r *Responder) renewAnswers(ctx context.Context) {
	for i := range r.answers.shards {
		for _, k := range r.answers.shards[i].due(r.cfg.Now()) {
			if ctx.Err() != nil {
				return
			}
			if err := r.renewAnswer(ctx, &k); err != nil {
				// The token is away, or the book: requests will say so one by
				// one, and the next round comes.
				r.cfg.Log.Warn("OCSP answers are not renewed", "ca", k.ca, "error", err)
				return
			}
		}
	}
}

func (r *Responder) renewAnswer(ctx context.Context, k *key) error {
	a, err := r.authority(ctx, k.ca)
	if err != nil {
		return err
	}
	ids := []ocsp.CertID{k.certID(a.issuer)}
	asOf := r.cfg.Now()
	statuses, err := r.statuses(ctx, a, ids)
	if err != nil {
		return err
	}
	if statuses[0] == nil || !a.served {
		r.answers.drop(k.ca, k.serial)
		return nil
	}
	_, err = r.fresh(ctx, a, &ids[0], k, statuses[0], asOf)
	return err
}
