package readers_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/jobs"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
	"hufu/store/bolt"
)

// world is a register over a real book.
type world struct {
	*readers.Register
	t    testing.TB
	pki  *testpki.World
	book *store.Book
}

var tables = slices.Concat(ca.Tables, readers.Tables, jobs.Tables)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, pki: testpki.Must(testpki.New(testpki.Config{}))}
	w.book = createBook(t, t.TempDir(), w.pki)
	authority := testpki.Must(ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: "node-1"}))
	w.Register = readers.New(readers.Config{Book: w.book, Authority: authority, Domain: testpki.Domain})
	t.Cleanup(func() {
		w.check()
		w.book.Close()
	})
	return w
}

func createBook(t testing.TB, dir string, pki *testpki.World) *store.Book {
	t.Helper()
	engine := testpki.Must(bolt.Open(filepath.Join(dir, "book"), bolt.Options{}))
	book := testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Tables: tables}))
	err := book.Update(t.Context(), func(tx *store.Tx) error {
		for _, c := range pki.CAs() {
			rec := c.Record
			rec.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: rec.ID})
			if err := store.CAs.Put(tx, &rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// check holds the book and every pair in it against each other.
func (w *world) check() {
	w.t.Helper()
	if err := errors.Join(w.book.Check(context.Background(), nil), w.Check(context.Background())); err != nil {
		w.t.Error(err)
	}
}

func (w *world) try(f func(*store.Tx) error) error { return w.book.Update(w.t.Context(), f) }

func (w *world) issue(p readers.Pair) *readers.Reader {
	w.t.Helper()
	rd, certs, err := w.IssuePair(w.t.Context(), p, "tester", "")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(certs) != 2 || certs[0].Serial != rd.Sign || certs[1].Serial != rd.Encrypt {
		w.t.Fatalf("the pair of %+v is %v", rd, certs)
	}
	return rd
}

// states returns the statuses of a reader's certificates.
func (w *world) states(rd *readers.Reader) (sign, encrypt store.State) {
	w.t.Helper()
	err := w.book.View(w.t.Context(), func(tx *store.Tx) error {
		for to, serial := range map[*store.State]store.Serial{&sign: rd.Sign, &encrypt: rd.Encrypt} {
			s, err := store.Statuses.Get(tx, store.SerialKey(rd.CA, serial))
			if err != nil {
				return err
			}
			*to = s.State
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return sign, encrypt
}

func pair(number, city string) readers.Pair {
	sign, encrypt := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	return readers.Pair{Number: number, City: city, Model: "M1", CSR: testpki.Must(testpki.PairCSR(sign, encrypt.Public()))}
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	rd := w.issue(pair("42", "330100"))
	if rd.State != readers.Active || rd.City != "330100" || rd.Model != "M1" || rd.CA != "330100" {
		t.Errorf("the reader is %+v", rd)
	}
	step := func(f func(*store.Tx) (*readers.Reader, error)) error {
		return w.try(func(tx *store.Tx) error { _, err := f(tx); return err })
	}
	suspend := func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, "42", "counter", "lost") }
	resume := func(tx *store.Tx) (*readers.Reader, error) { return w.Resume(tx, "42", "counter", "found") }
	revoke := func(tx *store.Tx) (*readers.Reader, error) {
		return w.Revoke(tx, "42", 4, time.Time{}, "counter", "broken")
	}
	for i, s := range []struct {
		do    func(*store.Tx) (*readers.Reader, error)
		state readers.State
		certs store.State
		ok    bool
	}{
		{resume, readers.Active, store.Good, false},
		{suspend, readers.Suspended, store.Held, true},
		{suspend, readers.Suspended, store.Held, false},
		{resume, readers.Active, store.Good, true},
		{suspend, readers.Suspended, store.Held, true},
		{revoke, readers.Revoked, store.Revoked, true},
		{resume, readers.Revoked, store.Revoked, false},
		{suspend, readers.Revoked, store.Revoked, false},
		{revoke, readers.Revoked, store.Revoked, false},
	} {
		err := step(s.do)
		if s.ok && err != nil || !s.ok && !errors.As(err, new(*readers.StateError)) {
			t.Errorf("step %d: %v", i, err)
		}
		rd = testpki.Must(w.Reader(t.Context(), "42"))
		if sign, encrypt := w.states(rd); rd.State != s.state || sign != s.certs || encrypt != s.certs {
			t.Errorf("after step %d it is %s, with %s and %s", i, rd.State, sign, encrypt)
		}
		w.check()
	}
	var told []string
	for _, c := range rd.History {
		told = append(told, fmt.Sprintf("%s→%s %s %q", c.From, c.To, c.Actor, c.Note))
	}
	want := `→active tester ""; active→suspended counter "lost"; suspended→active counter "found"; active→suspended counter "lost"; suspended→revoked counter "broken"`
	if got := strings.Join(told, "; "); got != want {
		t.Errorf("its history is %s", got)
	}
	if err := step(func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, "43", "counter", "") }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a reader that does not exist: %v", err)
	}
	// Certificates and reader change together or not at all.
	w.issue(pair("44", "330100"))
	err := step(func(tx *store.Tx) (*readers.Reader, error) { return w.Revoke(tx, "44", 6, time.Time{}, "counter", "") })
	if rd := testpki.Must(w.Reader(t.Context(), "44")); !errors.As(err, new(*ca.ReasonError)) || rd.State != readers.Active {
		t.Errorf("revoked for a hold: %v, it is %s", err, rd.State)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.issue(pair("42", "330100"))
	with := func(change func(*readers.Pair)) readers.Pair {
		p := pair("43", "330100")
		change(&p)
		return p
	}
	key := testpki.Must(testpki.Key())
	for name, c := range map[string]struct {
		pair readers.Pair
		want any
	}{
		"a taken number":           {pair("42", "330100"), new(*readers.TakenError)},
		"a number taken elsewhere": {pair("42", "330200"), new(*readers.TakenError)},
		"no number":                {pair("", "330100"), new(*readers.PairError)},
		"a number with a dot":      {pair("4.3", "330100"), new(*readers.PairError)},
		"a number in capitals":     {pair("4A", "330100"), new(*readers.PairError)},
		"no city":                  {pair("43", ""), new(*readers.PairError)},
		"a city without a CA":      {pair("43", "330300"), new(*ca.CAError)},
		"rubbish":                  {with(func(p *readers.Pair) { p.CSR = []byte("rubbish") }), new(*policy.Violation)},
		"no encryption key":        {with(func(p *readers.Pair) { p.CSR = testpki.Must(testpki.CSR(key)) }), new(*readers.PairError)},
		"one key for both":         {with(func(p *readers.Pair) { p.CSR = testpki.Must(testpki.PairCSR(key, key.Public())) }), new(*ca.KeyTakenError)},
		"an end after the CA's":    {with(func(p *readers.Pair) { p.NotAfter = time.Now().AddDate(50, 0, 0) }), new(*policy.Violation)},
	} {
		rd, _, err := w.IssuePair(t.Context(), c.pair, "tester", "")
		if err == nil || !errors.As(err, c.want) {
			t.Errorf("%s: %+v, %v", name, rd, err)
		}
	}
	list, _, err := w.List(t.Context(), readers.Query{})
	if err != nil || len(list) != 1 {
		t.Errorf("the register has %d readers, %v", len(list), err)
	}
}

// TestOneNumberAtOnce: of many orders for one number, one is granted.
func TestOneNumberAtOnce(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for range 8 {
		p := pair("42", "330100")
		wg.Go(func() {
			_, _, err := w.IssuePair(t.Context(), p, "tester", "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				granted++
			} else if !errors.As(err, new(*readers.TakenError)) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if granted != 1 {
		t.Errorf("%d pairs were granted for one number", granted)
	}
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t)
	p := pair("42", "330100")
	first, _, err := w.IssuePair(t.Context(), p, "tester", "k")
	if err != nil {
		t.Fatal(err)
	}
	again, certs, err := w.IssuePair(t.Context(), p, "tester", "k")
	if err != nil || again.Sign != first.Sign || certs[1].Serial != first.Encrypt {
		t.Errorf("the same order again: %+v, %v", again, err)
	}
}

func TestPairBelongsTogether(t *testing.T) {
	w := newWorld(t)
	p := pair("42", "330100")
	p.NotAfter = time.Now().Add(1000 * time.Hour)
	_, certs, err := w.IssuePair(t.Context(), p, "tester", "")
	if err != nil {
		t.Fatal(err)
	}
	var parsed [2]*x509.Certificate
	for i := range certs {
		parsed[i] = testpki.Must(x509.ParseCertificate(certs[i].DER))
		if len(parsed[i].DNSNames) != 1 || parsed[i].DNSNames[0] != "r42.330100.readers.card.example" {
			t.Errorf("its names are %v", parsed[i].DNSNames)
		}
	}
	if parsed[0].Subject.String() != parsed[1].Subject.String() || !parsed[0].NotAfter.Equal(parsed[1].NotAfter) || !parsed[0].NotBefore.Equal(parsed[1].NotBefore) {
		t.Error("the pair differs in more than its keys")
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.issue(pair(fmt.Sprintf("h%d", i), "330100"))
		w.issue(pair(fmt.Sprintf("n%d", i), "330200"))
	}
	for _, n := range []string{"h1", "h3", "n2"} {
		if err := w.try(func(tx *store.Tx) error { _, err := w.Suspend(tx, n, "tester", ""); return err }); err != nil {
			t.Fatal(err)
		}
	}
	for want, q := range map[string]readers.Query{
		"h0 h1 h2 h3 h4 n0 n1 n2 n3 n4": {},
		"h0 h2 h4 h1 h3":                {City: "330100"},
		"h1 h3 n2":                      {State: readers.Suspended},
		"n2":                            {City: "330200", State: readers.Suspended},
		"":                              {City: "330300"},
	} {
		var got []string
		for q.Limit = 2; ; {
			list, next, err := w.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, rd := range list {
				got = append(got, rd.Number)
			}
			if q.After = next; next == nil {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v found %v, not %s", q, got, want)
		}
	}
}

// TestCheck: the pair's invariant is found broken when somebody goes around the
// register.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	rd := w.issue(pair("42", "330100"))
	ref := ca.Ref{CA: rd.CA, Serial: rd.Encrypt}
	if err := w.try(func(tx *store.Tx) error { return w.Authority.Suspend(tx, ref, "somebody") }); err != nil {
		t.Fatal(err)
	}
	if err := w.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "on-hold") {
		t.Errorf("a torn pair: %v", err)
	}
	if err := w.try(func(tx *store.Tx) error { return w.Authority.Resume(tx, ref, "somebody") }); err != nil {
		t.Fatal(err)
	}
}
