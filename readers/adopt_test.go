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

// TestAdoptEveryState: whatever the register knew of a reader, it goes on from
// there with what the certificates show.
func TestAdoptEveryState(t *testing.T) {
	type act func(w *world, tx *store.Tx, rd *readers.Reader) error
	both := func(f func(w *world, tx *store.Tx, ref ca.Ref) error) act {
		return func(w *world, tx *store.Tx, rd *readers.Reader) error {
			for _, ref := range rd.Certificates() {
				if err := f(w, tx, ref); err != nil {
					return err
				}
			}
			return nil
		}
	}
	good := both(func(w *world, tx *store.Tx, ref ca.Ref) error { return w.Authority.Resume(tx, ref, "x") })
	revoked := both(func(w *world, tx *store.Tx, ref ca.Ref) error {
		return w.Authority.Revoke(tx, ref, 1, time.Time{}, "x")
	})
	// as changes what the register knows, as an older backup would have it.
	as := func(state readers.State) act {
		return func(_ *world, tx *store.Tx, rd *readers.Reader) error {
			table := readers.Tables[0].(*store.Table[readers.Reader])
			old, err := table.Get(tx, store.Key(rd.Number))
			if err != nil {
				return err
			}
			old.State = state
			if state != readers.Suspended && state != readers.Initialised && !state.Ended() {
				old.CA, old.Sign, old.Encrypt, old.NotAfter = "", store.Serial{}, store.Serial{}, time.Time{}
			}
			if state == readers.Prepared || state == readers.Manufactured {
				old.City = ""
			}
			return table.Put(tx, old)
		}
	}
	then := func(acts ...act) act {
		return func(w *world, tx *store.Tx, rd *readers.Reader) error {
			for _, f := range acts {
				if err := f(w, tx, rd); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		until  string // "initialise", "activate" or "begin to renew"
		change act
		want   readers.State
		cert   store.State
		next   bool
	}{
		"the backup is from before its pair":      {"initialise", as(readers.Allotted), readers.Initialised, store.Held, false},
		"from before its ticket":                  {"initialise", as(readers.Prepared), readers.Initialised, store.Held, false},
		"from before it was prepared":             {"initialise", as(readers.Manufactured), readers.Initialised, store.Held, false},
		"from before its receipt":                 {"initialise", good, readers.Active, store.Good, false},
		"from before ticket and receipt":          {"initialise", then(good, as(readers.Prepared)), readers.Active, store.Good, false},
		"revoked before its receipt":              {"initialise", revoked, readers.Revoked, store.Revoked, false},
		"from while it was suspended":             {"activate", as(readers.Suspended), readers.Active, store.Good, false},
		"its life is over, and a directory slept": {"activate", as(readers.Revoked), readers.Revoked, store.Revoked, false},
		"replaced, and a directory slept":         {"activate", as(readers.Replaced), readers.Replaced, store.Revoked, false},
		"a renewal under way":                     {"begin to renew", nil, readers.Active, store.Good, true},
		"a renewal that the backup does not have": {"begin to renew", forgetNext, readers.Active, store.Good, true},
		"a renewal that was done":                 {"begin to renew", renewedThere, readers.Active, store.Good, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start("42", "330100")
			if c.until == "initialise" {
				if err := errors.Join(w.enter("43"), w.device("43")); err != nil {
					t.Fatal(err)
				}
				err := w.try(func(tx *store.Tx) error { _, err := w.Allot(tx, "43", "330100", "t", "x"); return err })
				if err := errors.Join(err, w.initialise("43", "330100")); err != nil {
					t.Fatal(err)
				}
			}
			number := map[bool]string{true: "43", false: "42"}[c.until == "initialise"]
			if c.until == "begin to renew" {
				if err := w.renewing("42", "330100"); err != nil {
					t.Fatal(err)
				}
			}
			rd := w.get(number)
			err := w.try(func(tx *store.Tx) error {
				if c.change != nil {
					if err := c.change(w, tx, rd); err != nil {
						return err
					}
				}
				return w.Adopt(tx, number, "restore")
			})
			if err != nil {
				t.Fatal(err)
			}
			got := w.get(number)
			if s, e := w.states(got); got.State != c.want || s != c.cert || e != c.cert || got.City != "330100" || got.NextSign.IsZero() == c.next {
				t.Errorf("the reader is %+v with certificates that are %s and %s", got, s, e)
			}
			w.check()
			if err := w.try(func(tx *store.Tx) error { return w.Adopt(tx, number, "restore") }); err != nil || w.get(number).Seq != got.Seq {
				t.Errorf("adopted again it changes, %v", err)
			}
		})
	}

	// A reader of whom the device certificate alone came back.
	w := newWorld(t)
	if err := errors.Join(w.enter("44"), w.device("44")); err != nil {
		t.Fatal(err)
	}
	table := readers.Tables[0].(*store.Table[readers.Reader])
	err := w.try(func(tx *store.Tx) error {
		if err := table.Delete(tx, store.Key("44")); err != nil {
			return err
		}
		return w.Adopt(tx, "44", "restore")
	})
	if rd := w.get("44"); err != nil || rd.State != readers.Prepared || rd.DeviceCA != "device" {
		t.Errorf("of a device certificate alone the register makes %+v, %v", rd, err)
	}
}

// forgetNext has the register not know of a renewal.
func forgetNext(_ *world, tx *store.Tx, rd *readers.Reader) error {
	old := *rd
	old.NextCA, old.NextSign, old.NextEncrypt = "", store.Serial{}, store.Serial{}
	return readers.Tables[0].(*store.Table[readers.Reader]).Put(tx, &old)
}

// renewedThere is a renewal that was done, of which one directory knows the
// beginning: the new pair is good, the old one is not revoked yet.
func renewedThere(w *world, tx *store.Tx, rd *readers.Reader) error {
	for _, serial := range []store.Serial{rd.NextSign, rd.NextEncrypt} {
		if err := w.Authority.Resume(tx, ca.Ref{CA: rd.NextCA, Serial: serial}, "x"); err != nil {
			return err
		}
	}
	return nil
}
