package ca_test

import (
	"errors"
	"testing"
	"time"

	"hufu/ca"
	"hufu/store"
)

// TestStatusMachine walks every change from every state.
func TestStatusMachine(t *testing.T) {
	w := newWorld(t)
	suspend := func(tx *store.Tx, r ca.Ref) error { return w.Suspend(tx, r, "tester") }
	resume := func(tx *store.Tx, r ca.Ref) error { return w.Resume(tx, r, "tester") }
	revoke := func(tx *store.Tx, r ca.Ref) error { return w.Revoke(tx, r, 4, time.Time{}, "tester") }
	changes := map[string]func(*store.Tx, ca.Ref) error{"suspend": suspend, "resume": resume, "revoke": revoke}
	ways := map[store.State][]string{store.Good: nil, store.Held: {"suspend"}, store.Revoked: {"revoke"}}
	allowed := map[store.State]map[string]store.State{
		store.Good:    {"suspend": store.Held, "revoke": store.Revoked},
		store.Held:    {"resume": store.Good, "revoke": store.Revoked},
		store.Revoked: {},
	}
	for from, way := range ways {
		for name, change := range changes {
			r := ref(w.issue(order(server("a.example")))[0])
			for _, step := range way {
				w.update(func(tx *store.Tx) error { return changes[step](tx, r) })
			}
			before := w.status(r)
			err := w.book.Update(t.Context(), func(tx *store.Tx) error { return change(tx, r) })
			after := w.status(r)
			if to, ok := allowed[from][name]; ok {
				if err != nil || after.State != to || after.Seq <= before.Seq {
					t.Errorf("%s of a certificate that is %s: %v, it is %s", name, from, err, after.State)
				}
				continue
			}
			var state *ca.StateError
			if !errors.As(err, &state) || state.State != from || state.Want != name || *after != *before {
				t.Errorf("%s of a certificate that is %s: %v, it is %s", name, from, err, after.State)
			}
		}
	}
}

func TestRevocationReasons(t *testing.T) {
	w := newWorld(t)
	good := map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true, 9: true, 10: true}
	for reason := -1; reason <= 12; reason++ {
		r := ref(w.issue(order(server("a.example")))[0])
		err := w.book.Update(t.Context(), func(tx *store.Tx) error { return w.Revoke(tx, r, reason, time.Time{}, "tester") })
		s := w.status(r)
		switch {
		case good[reason] && (err != nil || s.State != store.Revoked || s.Reason != reason):
			t.Errorf("reason %d: %v, %+v", reason, err, s)
		case !good[reason] && (!errors.As(err, new(*ca.ReasonError)) || s.State != store.Good):
			t.Errorf("reason %d was taken: %v, %+v", reason, err, s)
		}
	}
	r := ref(w.issue(order(server("a.example")))[0])
	lost := w.clock.now().Add(-time.Hour)
	if err := w.book.Update(t.Context(), func(tx *store.Tx) error { return w.Revoke(tx, r, 1, lost.Add(2*time.Hour), "tester") }); problem(err) != "request-time" {
		t.Errorf("a key was lost in the future: %v", err)
	}
	for _, ago := range []time.Time{time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 14*3600)), time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		if err := w.book.Update(t.Context(), func(tx *store.Tx) error { return w.Revoke(tx, r, 1, ago, "tester") }); problem(err) != "request-time" {
			t.Errorf("a key was lost in %v: %v", ago, err)
		}
	}
	w.update(func(tx *store.Tx) error { return w.Revoke(tx, r, 1, lost, "tester") })
	if s := w.status(r); !s.InvalidityDate.Equal(lost.UTC().Truncate(time.Second)) {
		t.Errorf("the invalidity date is %v", s.InvalidityDate)
	}
	unknown := ca.Ref{CA: "services", Serial: store.Serial{1, 2, 3}}
	for _, err := range []error{
		w.book.Update(t.Context(), func(tx *store.Tx) error { return w.Suspend(tx, unknown, "tester") }),
		w.book.Update(t.Context(), func(tx *store.Tx) error { return w.Revoke(tx, unknown, 0, time.Time{}, "tester") }),
	} {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a certificate that does not exist: %v", err)
		}
	}
}
