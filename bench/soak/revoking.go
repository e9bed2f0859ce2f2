package main

import (
	"context"
	"fmt"
	"sync"

	"hufu/api/client"
	"hufu/store"
)

// step is one change of a certificate's status, with its idempotency key.
type step struct {
	key, serial string
	to          store.State
	kind        string // of its event
	answered    bool
}

// ladder is what happens to every certificate, in this order.
var ladder = []step{{to: store.Held, kind: store.KindHeld}, {to: store.Good, kind: store.KindResumed}, {to: store.Revoked, kind: store.KindRevoked}}

// supply is how many certificates stand ready in every life.
const supply = 4 * workers

// keyCompromise is a reason code (RFC 5280, Section 5.3.1).
const keyCompromise = 1

func (l *lane) take(ctx context.Context, s *step) (err error) {
	c := l.world.Operator.Keyed(s.key)
	var is *client.Certificate
	switch s.to {
	case store.Held:
		is, err = c.Suspend(ctx, s.serial)
	case store.Good:
		is, err = c.Resume(ctx, s.serial)
	default:
		is, err = c.Revoke(ctx, s.serial, client.Revocation{Reason: keyCompromise})
	}
	if err == nil && is.Status.State != s.to.String() {
		err = fmt.Errorf("the node answers that %s is %s, and was asked for %s", s.serial, is.Status.State, s.to)
	}
	return err
}

// revoking is one trial: certificates are put on hold, released and revoked when
// the node is killed.
func (l *lane) revoking(ctx context.Context) (t tally, err error) {
	t.trials = 1
	if err := l.start(ctx); err != nil {
		return t, err
	}
	// What was cut short is asked for again with its key, and is done once.
	for _, s := range l.steps {
		if s.answered {
			continue
		}
		if err := l.take(ctx, s); err != nil {
			return t, fmt.Errorf("asking again: %w", err)
		}
		s.answered = true
		t.acknowledged++
	}
	last := l.steps
	l.steps = nil
	if err := l.provide(ctx); err != nil {
		return t, fmt.Errorf("issuing what is to be revoked: %w", err)
	}
	var mu sync.Mutex
	err = l.killAt(ctx, 150, func(ctx context.Context, _ int, answered func()) error {
		for {
			mu.Lock()
			if len(l.good) == 0 {
				mu.Unlock()
				return nil
			}
			serial := l.good[0]
			l.good = l.good[1:]
			mu.Unlock()
			for _, s := range ladder {
				s.key, s.serial = client.NewKey(), serial
				mu.Lock()
				l.steps = append(l.steps, &s)
				mu.Unlock()
				if err := l.take(ctx, &s); err != nil {
					return err
				}
				s.answered = true
				answered()
			}
		}
	})
	if err != nil {
		return t, err
	}
	for _, s := range l.steps {
		if s.answered {
			t.acknowledged++
		}
	}
	if err := l.cutStart(); err != nil {
		return t, err
	}
	return t, l.look(ctx, &t, true, func(tx *store.Tx) error { return l.judgeSteps(tx, append(last, l.steps...), &t) })
}

// provide issues until the supply stands ready.
func (l *lane) provide(ctx context.Context) error {
	missing := make(chan struct{}, supply)
	for range supply - len(l.good) {
		missing <- struct{}{}
	}
	close(missing)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for range workers {
		wg.Go(func() {
			for range missing {
				o, err := newOrder()
				if err == nil {
					o.answer, err = l.ask(ctx, o)
				}
				mu.Lock()
				if err == nil {
					l.good = append(l.good, o.answer.Serial)
				} else {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// judgeSteps compares the steps with statuses and events. steps are in the order
// in which they were begun.
func (l *lane) judgeSteps(tx *store.Tx, steps []*step, t *tally) error {
	reached, begun := make(map[string]store.State), make(map[string]*step)
	for _, s := range steps {
		if reached[s.serial] == 0 {
			reached[s.serial] = store.Good
		}
		if s.answered {
			reached[s.serial] = s.to
		}
		begun[s.serial] = s
	}
	for hex, s := range begun {
		serial, err := store.ParseSerial(hex)
		if err != nil {
			return err
		}
		is, err := store.Statuses.Get(tx, store.SerialKey("services", serial))
		if err != nil {
			return err
		}
		// What was only begun has happened or has not.
		if is.State != reached[hex] && is.State != s.to {
			t.lost++
		}
		for _, step := range ladder {
			n := l.changes[step.kind+" "+hex]
			if n > 1 {
				t.double++
			}
			if n == 0 && is.State == step.to && step.to != store.Good {
				t.unrecorded++
			}
		}
	}
	return nil
}
