package ca_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/store"
)

// TestCRL: numbers rise, what is held or revoked is listed, and what has ended
// leaves after a scheduled list has shown it once more.
func TestCRL(t *testing.T) {
	w := newWorld(t)
	short := server("short.example")
	short.NotAfter = w.clock.now().Add(time.Hour)
	r := ref(w.issue(order(short))[0])
	w.issue(order(server("good.example")))
	publish := func() *store.CRL {
		t.Helper()
		return testpki.Must(w.PublishCRL(t.Context(), "services"))
	}
	first := publish()
	if first.Entries != 0 || first.NextUpdate.Sub(first.ThisUpdate) != 24*time.Hour {
		t.Errorf("the first list is %+v", first)
	}
	w.update(func(tx *store.Tx) error { return w.Suspend(tx, r, "tester") })
	if c := publish(); c.Entries != 1 || c.Number <= first.Number {
		t.Errorf("the list after a suspension is %+v", c)
	}
	w.update(func(tx *store.Tx) error { return w.Resume(tx, r, "tester") })
	if c := publish(); c.Entries != 0 {
		t.Errorf("the list after the hold was lifted is %+v", c)
	}
	w.update(func(tx *store.Tx) error { return w.Revoke(tx, r, 4, time.Time{}, "tester") })
	publish()
	w.clock.advance(61 * time.Minute)
	for i := range 2 {
		if c := publish(); c.Entries != 1 {
			t.Errorf("list %d past the certificate's end has %d entries", i, c.Entries)
		}
	}
	w.clock.advance(11 * time.Minute)
	if c := publish(); c.Entries != 1 {
		t.Error("an entry left before a scheduled list had shown it past the end")
	}
	if c := publish(); c.Entries != 0 {
		t.Error("an entry of a certificate that ended long ago is still listed")
	}

	// Another node's list may be in between; a clock that went back does not
	// turn the numbers back.
	w.clock.advance(-10 * time.Hour)
	last := publish()
	if c := testpki.Must(w.node("node-2").PublishCRL(t.Context(), "services")); c.Number != last.Number+1 {
		t.Errorf("after list %d came %d", last.Number, c.Number)
	}
	var kept []*store.CRL
	w.view(func(tx *store.Tx) (err error) {
		kept, _, err = store.CRLs.Page(tx, store.Query{Prefix: store.CRLKey("services", 0, false)})
		return err
	})
	if len(kept) > 8 {
		t.Errorf("%d old lists are kept", len(kept))
	}
	if _, err := w.PublishCRL(t.Context(), "root"); !errors.As(err, new(*ca.CAError)) {
		t.Errorf("the list of a CA whose key is elsewhere: %v", err)
	}
}

// TestRun: Run recovers at the start, signs every list, and a new one soon after
// each change.
func TestRun(t *testing.T) {
	w := newWorld(t)
	r := ref(w.issue(order(server("a.example")))[0])
	goOn := atToken(t, w, w.Authority, order(server("b.example")))
	w.Authority = w.node("node-1")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	end := make(chan error)
	go func() { end <- w.Run(ctx) }()

	// until follows the journal until a list of the CA has that many entries.
	after := uint64(0)
	until := func(entries int) {
		t.Helper()
		for {
			events, err := w.book.Follow(ctx, after, 1)
			if err != nil {
				t.Fatalf("waiting for a list with %d entries: %v", entries, err)
			}
			after = events[0].Seq
			if events[0].Kind != store.KindCRL || events[0].CA != "services" {
				continue
			}
			var c *store.CRL
			w.view(func(tx *store.Tx) (err error) {
				c, err = store.LastCRL(tx, "services", 0, false)
				return err
			})
			if c.Entries == entries {
				return
			}
		}
	}
	until(1) // the intent that was left open
	began := time.Now()
	w.update(func(tx *store.Tx) error { return w.Revoke(tx, r, 0, time.Time{}, "tester") })
	until(2)
	t.Logf("revocation to CRL: %v", time.Since(began).Round(time.Millisecond))
	if err := goOn(); err == nil {
		t.Error("an order that recovery closed was committed")
	}
	w.check()
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
}
