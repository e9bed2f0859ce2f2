package readers_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"hufu/ca"
	"hufu/readers"
	"hufu/store"
)

// TestRandomLives: whoever does what to which reader, in whatever order, every
// pair in the book is whole after every step, and so is what Adopt makes of it.
func TestRandomLives(t *testing.T) {
	steps := 400
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		steps *= n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	cities, actors := []string{"330100", "330200"}, []string{"centre", "city", "counter", "a customer's call"}
	done, refused := map[string]int{}, 0
	for i := range steps {
		// New readers come up as old ones end.
		number, by := fmt.Sprint("r", i/60*5+chance.IntN(10)), fmt.Sprint("r", i/60*5+chance.IntN(10))
		city, actor, reason := cities[chance.IntN(2)], actors[chance.IntN(len(actors))], []int{0, 1, 4, 5, 6}[chance.IntN(5)]
		name := w.anyStep(chance, number)
		inTx := func(f func(tx *store.Tx) (*readers.Reader, error)) error {
			return w.try(func(tx *store.Tx) error { _, err := f(tx); return err })
		}
		cityOf := func() string { // of the reader, or by mistake another
			if rd, err := w.Reader(t.Context(), number); err == nil && rd.City != "" && chance.IntN(10) > 0 {
				return rd.City
			}
			return city
		}
		var err error
		switch name {
		case "enter":
			err = w.enter(number)
		case "prepare":
			err = w.device(number)
		case "allot":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Allot(tx, number, city, "t", actor) })
		case "withdraw":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Withdraw(tx, number, actor, "") })
		case "accept":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) {
				return w.Accept(tx, readers.Reader{Number: number, City: city, Ticket: "t", Device: store.Hash{1}}, actor)
			})
		case "initialise":
			err = w.initialise(number, cityOf())
		case "activate":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Activate(tx, number, store.Hash{1}, actor) })
		case "issue":
			_, _, err = w.IssuePair(t.Context(), pair(number, city), actor, "")
		case "begin to renew":
			err = w.renewing(number, cityOf())
		case "renew":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Renewed(tx, number, store.Hash{2}, actor) })
		case "suspend":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, number, actor, "") })
		case "resume":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Resume(tx, number, actor, "") })
		case "bind":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) {
				return w.Bind(tx, number, []string{"", "c"}[chance.IntN(2)], actor)
			})
		case "replace", "succeed":
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Replace(tx, number, by, reason, actor, "") })
		case "revoke", "retire":
			// Ends are rare, or nothing is left to live.
			if chance.IntN(4) > 0 {
				continue
			}
			if name == "retire" {
				err = inTx(func(tx *store.Tx) (*readers.Reader, error) { return w.Retire(tx, number, actor, "") })
				break
			}
			err = inTx(func(tx *store.Tx) (*readers.Reader, error) {
				return w.Revoke(tx, number, reason, time.Time{}, actor, "")
			})
		case "adopt":
			err = w.behind(chance, number, actor)
		case "report":
			continue // its pair is in no book of this test
		}
		if err != nil {
			refused++
		} else {
			done[name]++
		}
		if w.check(); t.Failed() {
			t.Fatalf("after step %d, %s of %s: %v", i, name, number, err)
		}
	}
	t.Logf("%d steps were refused, done were %v", refused, done)
	for _, name := range []string{"enter", "prepare", "issue", "adopt", "bind"} {
		if done[name] == 0 {
			t.Errorf("in %d steps there was no %s", steps, name)
		}
	}
}

// anyStep names a step that the reader's state allows, or by mistake any.
func (w *world) anyStep(chance *rand.Rand, number string) string {
	var state readers.State
	if rd, err := w.Reader(w.t.Context(), number); err == nil {
		state = rd.State
	}
	var names []string
	for _, s := range readers.Steps {
		if slices.Contains(s.From, state) || chance.IntN(12) == 0 {
			names = append(names, s.Name)
		}
	}
	return names[chance.IntN(len(names))]
}

// behind changes a certificate of the reader's behind the register's back, as one
// that came back from a directory is, and has the reader adopted.
func (w *world) behind(chance *rand.Rand, number, actor string) error {
	return w.try(func(tx *store.Tx) error {
		rd, err := w.Find(tx, number)
		if err != nil {
			return err
		}
		if rd.Paired() && !rd.State.Ended() {
			ref := ca.Ref{CA: rd.CA, Serial: []store.Serial{rd.Sign, rd.Encrypt}[chance.IntN(2)]}
			switch chance.IntN(4) {
			case 0:
				err = w.Authority.Suspend(tx, ref, "a directory")
			case 1:
				err = w.Authority.Resume(tx, ref, "a directory")
			case 2:
				if chance.IntN(4) == 0 {
					err = w.Authority.Revoke(tx, ref, 1, time.Time{}, "a directory")
				}
			}
			if err != nil {
				return err
			}
		}
		return w.Adopt(tx, number, actor)
	})
}
