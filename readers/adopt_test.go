package readers_test

import (
	"errors"
	"testing"
	"time"

	"hufu/ca"
	"hufu/readers"
	"hufu/store"
)

// TestAdopt: a register that lost a reader, or missed what became of its
// certificates, follows the certificates.
func TestAdopt(t *testing.T) {
	sign := func(rd *readers.Reader) ca.Ref { return ca.Ref{CA: rd.CA, Serial: rd.Sign} }
	encrypt := func(rd *readers.Reader) ca.Ref { return ca.Ref{CA: rd.CA, Serial: rd.Encrypt} }
	for name, c := range map[string]struct {
		change    func(w *world, tx *store.Tx, rd *readers.Reader) error
		want      readers.State
		cert      store.State
		forgotten bool
	}{
		"forgotten": {nil, readers.Active, store.Good, true},
		"forgotten and held": {func(w *world, tx *store.Tx, rd *readers.Reader) error {
			return w.Authority.Suspend(tx, encrypt(rd), "x")
		}, readers.Suspended, store.Held, true},
		"as it was": {nil, readers.Active, store.Good, false},
		"one is revoked": {func(w *world, tx *store.Tx, rd *readers.Reader) error {
			return w.Authority.Revoke(tx, sign(rd), 4, time.Time{}, "x")
		}, readers.Revoked, store.Revoked, false},
		"one held, one ended": {func(w *world, tx *store.Tx, rd *readers.Reader) error {
			return errors.Join(w.Authority.Suspend(tx, sign(rd), "x"), w.Authority.Revoke(tx, encrypt(rd), 1, time.Time{}, "x"))
		}, readers.Revoked, store.Revoked, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			rd := w.issue(pair("42", "330100"))
			for range 2 { // the second time there is nothing left to do
				err := w.try(func(tx *store.Tx) error {
					if c.change != nil {
						if err := c.change(w, tx, rd); err != nil {
							return err
						}
						c.change = nil
					}
					if c.forgotten {
						c.forgotten = false
						if err := readers.Tables[0].(*store.Table[readers.Reader]).Delete(tx, store.Key("42")); err != nil {
							return err
						}
					}
					return w.Adopt(tx, "42", "tester")
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			got, err := w.Reader(t.Context(), "42")
			if err != nil {
				t.Fatal(err)
			}
			if s, e := w.states(got); got.State != c.want || s != c.cert || e != c.cert {
				t.Errorf("the reader is %s with certificates that are %s and %s, want %s and %s", got.State, s, e, c.want, c.cert)
			}
			if got.City != "330100" || got.CA != "330100" || got.Sign != rd.Sign || got.Encrypt != rd.Encrypt || len(got.History) > 2 {
				t.Errorf("the reader is %+v", got)
			}
		})
	}

	w := newWorld(t)
	pairless := new(readers.PairError)
	if err := w.try(func(tx *store.Tx) error { return w.Adopt(tx, "43", "tester") }); !errors.As(err, &pairless) {
		t.Errorf("a reader without certificates: %v", err)
	}
}
