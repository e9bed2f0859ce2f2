package ca_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/store"
)

var errToken = errors.New("the token is gone")

// TestSignerFails: a signature that fails, before it is made or after, closes
// the order's intents at once: the serials are revoked, the keys are free, and
// the idempotency key begins anew.
func TestSignerFails(t *testing.T) {
	for _, kind := range []string{"before", "after"} {
		for at := range int64(2) {
			t.Run(fmt.Sprintf("%s, certificate %d", kind, at), func(t *testing.T) {
				w := newWorld(t)
				w.issue(pair("1"))
				signer := w.pki.CA("330100").Signer
				bad := signer.Count() + 1 + at
				fault := func(n int64) error {
					if n == bad {
						return errToken
					}
					return nil
				}
				if kind == "before" {
					signer.Before = fault
				} else {
					signer.After = fault
				}
				o := pair("2")
				o.IdempotencyKey = "k"
				certs, err := w.Issue(t.Context(), o)
				if !errors.Is(err, errToken) || !errors.As(err, new(*ca.SigningError)) || certs != nil {
					t.Fatalf("the order ended with %v, %v", certs, err)
				}
				if len(w.intents()) > 0 {
					t.Error("intents are open")
				}
				unissued := 0
				w.view(func(tx *store.Tx) error {
					for s, err := range store.Statuses.Scan(tx, "crl", store.Key("330100")) {
						if err != nil {
							return err
						}
						if s.State != store.Revoked || !s.Unissued || s.NotAfter.Before(w.clock.now()) {
							t.Errorf("a closed intent has the status %+v", s)
						}
						unissued++
					}
					return nil
				})
				if unissued != 2 {
					t.Errorf("%d serials are given up", unissued)
				}
				w.check()
				signer.Before, signer.After = nil, nil
				w.issue(o)
			})
		}
	}
}

// TestCallerHangsUp: a caller that goes away between the reserve and the commit
// leaves no open intent.
func TestCallerHangsUp(t *testing.T) {
	w := newWorld(t)
	signer := w.pki.CA("services").Signer
	for _, kind := range []string{"before", "after"} {
		ctx, cancel := context.WithCancel(t.Context())
		hangUp := func(int64) error { cancel(); return nil }
		signer.Before, signer.After = nil, nil
		if kind == "before" {
			signer.Before = hangUp
		} else {
			signer.After = hangUp
		}
		if _, err := w.Issue(ctx, order(server("a.example"))); err != nil {
			t.Errorf("what was signed was not recorded: %v", err)
		}
		cancel()
		if len(w.intents()) > 0 {
			t.Error("intents are open")
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	head := w.head()
	if _, err := w.Issue(done, order(server("a.example"))); !errors.Is(err, context.Canceled) || w.head() != head {
		t.Errorf("an order of a caller who is gone: %v", err)
	}
}

// atToken runs an order until its key is about to sign, and returns a function
// that lets it go on and gives back what it ended with.
func atToken(t *testing.T, w *world, a *ca.Authority, o ca.Order) (goOn func() error) {
	reached, release, end := make(chan struct{}), make(chan struct{}), make(chan error)
	w.pki.CA("services").Signer.Before = func(int64) error {
		close(reached)
		<-release
		return nil
	}
	go func() {
		_, err := a.Issue(context.WithoutCancel(t.Context()), o)
		end <- err
	}()
	<-reached
	w.pki.CA("services").Signer.Before = nil
	return func() error { close(release); return <-end }
}

// TestRecoverTakesTheDead: only intents of nodes whose lease has ended are
// closed, and a node that slept through its lease cannot commit.
func TestRecoverTakesTheDead(t *testing.T) {
	w := newWorld(t)
	other := w.node("node-2")
	key := ecKey(t)
	goOn := atToken(t, w, w.Authority, order(serverFor(key, "a.example")))
	if n := testpki.Must(w.Recover(t.Context())); n != 0 {
		t.Errorf("a node closed %d intents of its own", n)
	}
	if n := testpki.Must(other.Recover(t.Context())); n != 0 {
		t.Errorf("%d intents of a living node were closed", n)
	}
	w.clock.advance(31 * time.Second)
	if n := testpki.Must(w.Recover(t.Context())); n != 0 {
		t.Errorf("a node without a lease closed %d intents of its own", n)
	}
	if n := testpki.Must(other.Recover(t.Context())); n != 1 {
		t.Errorf("%d intents were closed", n)
	}
	if n := testpki.Must(other.Recover(t.Context())); n != 0 {
		t.Errorf("%d intents were closed twice", n)
	}
	if _, err := other.Issue(t.Context(), order(serverFor(key, "a.example"))); err != nil {
		t.Errorf("the key is not free again: %v", err)
	}
	if err := goOn(); err == nil || !strings.Contains(err.Error(), "closed by another node") {
		t.Errorf("the sleeper's order ended with %v", err)
	}
	w.check()
}

// TestRecoverAtStart: the next incarnation of a node does not wait for its own
// earlier lease.
func TestRecoverAtStart(t *testing.T) {
	w := newWorld(t)
	o := order(server("a.example"))
	o.IdempotencyKey = "k"
	goOn := atToken(t, w, w.Authority, o)
	again := w.node("node-1")
	waiting := make(chan error)
	go func() {
		_, err := again.Issue(t.Context(), o)
		waiting <- err
	}()
	if n := testpki.Must(again.Recover(t.Context())); n != 1 {
		t.Errorf("%d intents were closed", n)
	}
	if err := <-waiting; err != nil {
		t.Errorf("the same order, which waited, ended with %v", err)
	}
	if err := goOn(); err == nil {
		t.Error("the order of an earlier incarnation was committed")
	}
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "a name of its own") {
		t.Errorf("two processes run under one name: %v", err)
	}
}

// TestRandomLife does random things for a while and looks at the whole world
// again and again.
func TestRandomLife(t *testing.T) {
	w := newWorld(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	cities := w.pki.CA("330100").Signer
	for step := range 150 * soak() {
		var change func(*store.Tx, ca.Ref) error
		switch r.IntN(8) {
		case 0, 1:
			w.issue(pair(fmt.Sprint(step)))
		case 2:
			o := order(server(fmt.Sprintf("h%d.example", step)))
			o.Hold = r.IntN(2) == 0
			w.issue(o)
		case 3:
			fail := func(int64) error { return errToken }
			if r.IntN(2) == 0 {
				cities.Before = fail
			} else {
				cities.After = fail
			}
			if _, err := w.Issue(t.Context(), pair(fmt.Sprint(step))); !errors.Is(err, errToken) {
				t.Fatalf("step %d: %v", step, err)
			}
			cities.Before, cities.After = nil, nil
		case 4:
			change = func(tx *store.Tx, ref ca.Ref) error { return w.Suspend(tx, ref, "tester") }
		case 5:
			change = func(tx *store.Tx, ref ca.Ref) error { return w.Resume(tx, ref, "tester") }
		case 6:
			change = func(tx *store.Tx, ref ca.Ref) error { return w.Revoke(tx, ref, 1, time.Time{}, "tester") }
		case 7:
			w.clock.advance(time.Duration(r.IntN(100)) * time.Hour)
		}
		if change != nil && len(w.issued) > 0 {
			ref := w.issued[r.IntN(len(w.issued))]
			err := w.book.Update(t.Context(), func(tx *store.Tx) error { return change(tx, ref) })
			if err != nil && !errors.As(err, new(*ca.StateError)) {
				t.Fatalf("step %d: %v", step, err)
			}
		}
		if step%10 == 0 {
			w.check()
		}
	}
}
