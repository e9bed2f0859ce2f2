package readers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/jobs"
	"hufu/readers"
	"hufu/store"
)

// inMemory is a commit of Mass that remembers nothing.
func (w *world) inMemory(all *[]readers.MassResult) func(int, func(*store.Tx) ([]readers.MassResult, error)) error {
	return func(_ int, work func(*store.Tx) ([]readers.MassResult, error)) error {
		var results []readers.MassResult
		err := w.try(func(tx *store.Tx) (err error) { results, err = work(tx); return err })
		if err == nil {
			*all = append(*all, results...)
		}
		return err
	}
}

// many issues the pairs of n readers of a city, of two models in turn.
func (w *world) many(n int, city string) {
	w.t.Helper()
	pairs := make([]readers.Pair, n)
	for i := range pairs {
		pairs[i] = pair(fmt.Sprintf("%s%03d", city, i), city)
		pairs[i].Model = []string{"M1", "M2"}[i%2]
	}
	err := w.Batch(w.t.Context(), city, pairs, 0, "tester", func(_ int, results []readers.Result) error {
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestMass(t *testing.T) {
	w := newWorld(t)
	w.many(130, "330100")
	w.many(20, "330200")
	do := func(f func(tx *store.Tx) (*readers.Reader, error)) {
		t.Helper()
		if err := w.try(func(tx *store.Tx) error { _, err := f(tx); return err }); err != nil {
			t.Fatal(err)
		}
	}
	do(func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, "330100004", "counter", "") })
	p, err := w.Plan(t.Context(), readers.MassSuspend, readers.Selection{City: "330100", Model: "M1"}, 0, "a fault in M1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Count != 64 || p.States[readers.Active] != 64 || p.States[readers.Suspended] != 1 || len(p.Sample) != 10 || p.Sample[0] != "330100000" {
		t.Errorf("the plan is %+v", p)
	}
	// What changes after the plan was made is left alone and named, also where
	// it came back to the state that it had; a binding is no such change.
	do(func(tx *store.Tx) (*readers.Reader, error) {
		return w.Revoke(tx, "330100000", 1, time.Time{}, "counter", "")
	})
	do(func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, "330100002", "counter", "") })
	do(func(tx *store.Tx) (*readers.Reader, error) { return w.Resume(tx, "330100002", "counter", "") })
	do(func(tx *store.Tx) (*readers.Reader, error) { return w.Bind(tx, "330100006", "c1", "counter") })
	do(func(tx *store.Tx) (*readers.Reader, error) { return w.Resume(tx, "330100004", "counter", "") }) // was not in the plan
	w.issue(func() readers.Pair { p := pair("330100999", "330100"); p.Model = "M1"; return p }())       // nor was this

	// The plan goes through a file.
	var filed readers.Plan
	if err := json.Unmarshal(p.Canonical(), &filed); err != nil {
		t.Fatal(err)
	}
	numbers, err := w.Planned(t.Context(), &filed)
	if err != nil || len(numbers) != 64 || slices.Contains(numbers, "330100004") {
		t.Fatalf("%d readers are planned, %v", len(numbers), err)
	}
	var results []readers.MassResult
	if err := w.Mass(t.Context(), &filed, numbers, 0, "operator", w.inMemory(&results)); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for i, r := range results {
		if r.Number != numbers[i] {
			t.Errorf("result %d is of %s", i, r.Number)
		}
		changed := new(readers.ChangedError)
		if r.Err != nil && !errors.As(r.Err, &changed) {
			t.Error(r.Err)
		}
		left[r.Number] = r.Err != nil
		if state := w.get(r.Number).State; r.Err == nil && state != readers.Suspended || r.State != state {
			t.Errorf("reader %s is %s, and the result says %s", r.Number, state, r.State)
		}
	}
	if len(results) != 64 || !left["330100000"] || !left["330100002"] || left["330100006"] {
		t.Errorf("%d results; left alone: %v", len(results), left)
	}
	w.check()
	// Done twice, it changes nobody.
	var again []readers.MassResult
	if err := w.Mass(t.Context(), &filed, numbers, 0, "operator", w.inMemory(&again)); err != nil {
		t.Fatal(err)
	}
	for _, r := range again {
		if r.Err == nil {
			t.Errorf("reader %s was changed twice", r.Number)
		}
	}
	for _, number := range []string{"330100004", "330100999", "330100001", "330200000"} {
		if s := w.get(number).State; s != readers.Active {
			t.Errorf("reader %s, which was in no plan, is %s", number, s)
		}
	}
	// And back, and for ever.
	for _, action := range []string{readers.MassResume, readers.MassRevoke} {
		p, err := w.Plan(t.Context(), action, readers.Selection{City: "330100"}, map[string]int{readers.MassRevoke: 4}[action], "")
		if err != nil {
			t.Fatal(err)
		}
		numbers, err := w.Planned(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		results = nil
		if err := w.Mass(t.Context(), p, numbers, 0, "operator", w.inMemory(&results)); err != nil || len(results) != p.Count {
			t.Fatalf("%s: %d results, %v", action, len(results), err)
		}
		if want := map[string]int{readers.MassResume: 62, readers.MassRevoke: 130}[action]; p.Count != want {
			t.Errorf("%s is of %d readers, not %d", action, p.Count, want)
		}
		w.check()
	}
}

// TestMassGoesOn: a reader that cannot be changed is named, and the others of its
// chunk are changed.
func TestMassGoesOn(t *testing.T) {
	w := newWorld(t)
	w.many(5, "330100")
	p := testpki.Must(w.Plan(t.Context(), readers.MassSuspend, readers.Selection{City: "330100"}, 0, ""))
	// Somebody goes around the register.
	bad := w.get("330100002")
	ref := ca.Ref{CA: bad.CA, Serial: bad.Encrypt}
	if err := w.try(func(tx *store.Tx) error { return w.Authority.Suspend(tx, ref, "somebody") }); err != nil {
		t.Fatal(err)
	}
	var results []readers.MassResult
	if err := w.Mass(t.Context(), p, testpki.Must(w.Planned(t.Context(), p)), 0, "x", w.inMemory(&results)); err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if (r.Err != nil) != (r.Number == "330100002") {
			t.Errorf("reader %s: %v", r.Number, r.Err)
		}
	}
	if sign, encrypt := w.states(w.get("330100002")); sign != store.Good || encrypt != store.Held {
		t.Errorf("the reader that was refused is %s and %s", sign, encrypt)
	}
	if err := w.try(func(tx *store.Tx) error { return w.Authority.Resume(tx, ref, "somebody") }); err != nil {
		t.Fatal(err)
	}
}

func TestPlanRefused(t *testing.T) {
	w := newWorld(t)
	w.many(3, "330100")
	all := readers.Selection{City: "330100"}
	for name, c := range map[string]struct {
		action string
		s      readers.Selection
		reason int
		note   string
	}{
		"everything":               {readers.MassSuspend, readers.Selection{}, 0, ""},
		"another act":              {"retire", all, 0, ""},
		"a firmware of all models": {readers.MassSuspend, readers.Selection{Firmware: "1"}, 0, ""},
		"a reason for a hold":      {readers.MassSuspend, all, 1, ""},
		"a hold as a reason":       {readers.MassRevoke, all, 6, ""},
		"a letter":                 {readers.MassSuspend, all, 0, strings.Repeat("a", 513)},
	} {
		if p, err := w.Plan(t.Context(), c.action, c.s, c.reason, c.note); !errors.As(err, new(*readers.PlanError)) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	good := testpki.Must(w.Plan(t.Context(), readers.MassSuspend, all, 0, ""))
	for name, change := range map[string]func(*readers.Plan){
		"no plan":          func(p *readers.Plan) { p.Hufu = "approval" },
		"another book":     func(p *readers.Plan) { p.Book = "x" },
		"another epoch":    func(p *readers.Plan) { p.Epoch++ },
		"the future":       func(p *readers.Plan) { p.Seq += 1000 },
		"fewer":            func(p *readers.Plan) { p.Count-- },
		"others":           func(p *readers.Plan) { p.SHA256[0] ^= 1 },
		"nobody":           func(p *readers.Plan) { p.Count = 0 },
		"another city":     func(p *readers.Plan) { p.Selection.City = "330200" },
		"another act":      func(p *readers.Plan) { p.Action = readers.MassResume },
		"before they were": func(p *readers.Plan) { p.Seq = 5 },
	} {
		p := *good
		change(&p)
		if numbers, err := w.Planned(t.Context(), &p); !errors.As(err, new(*readers.PlanError)) {
			t.Errorf("%s: %v, %v", name, numbers, err)
		}
	}
	if _, err := w.Planned(t.Context(), good); err != nil {
		t.Error(err)
	}
}

// massFunc ties a mass change to a job, as a node does.
func massFunc(register *readers.Register) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		p := new(readers.Plan)
		from := 0
		if err := json.Unmarshal(r.Args, p); err != nil {
			return err
		}
		if len(r.Cursor) > 0 {
			if err := json.Unmarshal(r.Cursor, &from); err != nil {
				return err
			}
		}
		numbers, err := register.Planned(ctx, p)
		if err != nil {
			return err
		}
		return register.Mass(ctx, p, numbers, from, r.Actor, func(next int, work func(*store.Tx) ([]readers.MassResult, error)) error {
			return r.SaveWith(ctx, next, func(tx *store.Tx) ([]jobs.Item, error) {
				results, err := work(tx)
				items := make([]jobs.Item, len(results))
				for i, res := range results {
					items[i] = jobs.Item{Name: res.Number, OK: res.Err == nil, Error: fmt.Sprint(res.Err)}
				}
				return items, err
			})
		})
	}
}

// TestMassKilled: a mass change that is killed again and again changes every
// reader once, and no reader that it changed itself is taken for one that somebody
// else changed.
func TestMassKilled(t *testing.T) {
	const n = 700
	for range trials() {
		dir, pki := t.TempDir(), testpki.Must(testpki.New(testpki.Config{}))
		writeTask(t, dir, pki)
		w := &world{t: t, pki: pki, book: createBook(t, dir, pki)}
		authority := testpki.Must(ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: "node-1"}))
		w.Register = readers.New(readers.Config{Book: w.book, Authority: authority, Domain: testpki.Domain})
		w.many(n, "330100")
		p := testpki.Must(w.Plan(t.Context(), readers.MassSuspend, readers.Selection{City: "330100"}, 0, ""))
		var job *jobs.Job
		err := w.try(func(tx *store.Tx) (err error) {
			job, err = jobs.New(jobs.Config{Book: w.book, Node: "victim", Funcs: map[string]jobs.Func{"mass": massFunc(w.Register)}}).Start(tx, "mass", p, "tester", "330100")
			return err
		})
		if err := errors.Join(err, w.book.Close()); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			killOnce(t, dir)
		}
		w.book, w.Register = finishJob(t, dir, job.ID, n)
		list, _, err := w.List(t.Context(), readers.Query{City: "330100", State: readers.Suspended, Limit: n + 1})
		if err != nil || len(list) != n {
			t.Errorf("%d readers are suspended, %v", len(list), err)
		}
		for _, rd := range list {
			if len(rd.History) != 2 {
				t.Errorf("reader %s has the history %+v", rd.Number, rd.History)
			}
		}
		w.check()
		w.book.Close()
	}
}
