package responder

import (
	"context"
	"slices"
	"time"

	"hufu/internal/ocsp"
)

// renew looks after answers and responder certificates until ctx ends. All that it
// has signed, it has signed one after the other and at a bounded rate: the token has
// other work.
func (r *Responder) renew(ctx context.Context) error {
	// Often enough that an answer due at half of its life is there before three
	// quarters of it, when requests would have to wait for a new one.
	tick := time.NewTicker(min(max(r.cfg.Validity/32, 100*time.Millisecond), time.Minute))
	defer tick.Stop()
	pace := time.NewTicker(r.pace())
	defer pace.Stop()
	var changed *key // goes before what is only getting old
	var due []key
	for {
		// Without work there is no turn, and one change at a time is taken.
		var turn <-chan time.Time
		replaced := r.replaced
		if changed != nil || len(due) > 0 {
			turn = pace.C
		}
		if changed != nil {
			replaced = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.renewSigners(ctx)
			if len(due) == 0 {
				due = r.due()
			}
		case k := <-replaced:
			changed = &k
		case <-turn:
			k := changed
			if changed = nil; k == nil {
				k, due = &due[0], due[1:]
			}
			if err := r.renewAnswer(ctx, k); err != nil {
				// The token is away, or the book: requests will say so one by
				// one, and the next round comes. Other CAs may have other tokens.
				r.cfg.Log.Warn("OCSP answers are not renewed", "ca", k.ca, "error", err)
				ca := k.ca
				due = slices.DeleteFunc(due, func(k key) bool { return k.ca == ca })
			}
		}
	}
}

// pace is the time between two signatures in the background. At twice of it, all the
// answers that may be kept are renewed between half and three quarters of their lives.
func (r *Responder) pace() time.Duration {
	const quickest, slowest = time.Millisecond, 50 * time.Millisecond
	return min(max(r.cfg.Validity/4/time.Duration(2*r.cfg.Answers), quickest), slowest)
}

func (r *Responder) due() []key {
	var due []key
	for i := range r.answers.shards {
		due = append(due, r.answers.shards[i].due(r.cfg.Now())...)
	}
	return due
}

// replace has answers that were dropped signed anew, with what is true now, before
// the next question. Where more change at once than wait here, the next question does.
func (r *Responder) replace(dropped []key) {
	for _, k := range dropped {
		select {
		case r.replaced <- k:
		default:
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
	_, err = r.keep(ctx, a, &ids[0], k, statuses[0], asOf)
	return err
}
