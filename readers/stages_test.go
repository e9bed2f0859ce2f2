package readers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
)

// device certifies a reader's device key and prepares the reader.
func (w *world) device(number string) error {
	csr := testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))
	_, err := w.Authority.Issue(w.t.Context(), ca.Order{Requester: "centre",
		Requests: []ca.Request{{CA: "device", Profile: "device", CSR: csr, Name: policy.Name{Reader: number}}},
		Commit: func(tx *store.Tx, certs []*store.Certificate) error {
			_, err := w.Prepare(tx, number, certs[0], "centre")
			return err
		}})
	return err
}

// held orders a pair on hold and gives it to f.
func (w *world) held(number, city string, f func(tx *store.Tx, certs []*store.Certificate) error) error {
	sign, encrypt := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	csr := testpki.Must(testpki.PairCSR(sign, encrypt.Public()))
	name := policy.Name{Reader: number, City: city}
	_, err := w.Authority.Issue(w.t.Context(), ca.Order{Requester: "city", Hold: true, Commit: f, Requests: []ca.Request{
		{CA: city, Profile: "reader-sign", CSR: csr, Name: name},
		{CA: city, Profile: "reader-encrypt", SPKI: testpki.Must(ca.EncryptionKeyOf(csr)), Name: name},
	}})
	return err
}

func (w *world) initialise(number, city string) error {
	return w.held(number, city, func(tx *store.Tx, certs []*store.Certificate) error {
		_, err := w.Initialised(tx, number, certs, true, "city")
		return err
	})
}

func (w *world) renewing(number, city string) error {
	return w.held(number, city, func(tx *store.Tx, certs []*store.Certificate) error {
		_, err := w.Renewing(tx, number, certs, false, "city")
		return err
	})
}

// enter registers a reader from a manifest.
func (w *world) enter(number string) error {
	return w.try(func(tx *store.Tx) error {
		_, err := w.Enter(tx, readers.Reader{Number: number, Model: "M1", Firmware: "2.0", Approval: "A-1", Batch: "b1"}, "centre")
		return err
	})
}

// start takes a reader through both stages.
func (w *world) start(number, city string) {
	w.t.Helper()
	for i, f := range []func() error{
		func() error { return w.enter(number) },
		func() error { return w.device(number) },
		func() error {
			return w.try(func(tx *store.Tx) error { _, err := w.Allot(tx, number, city, "t1", "centre"); return err })
		},
		func() error { return w.initialise(number, city) },
		func() error {
			return w.try(func(tx *store.Tx) error {
				_, err := w.Activate(tx, number, store.Sum([]byte(number)), "city")
				return err
			})
		},
	} {
		if err := f(); err != nil {
			w.t.Fatalf("step %d of reader %s: %v", i, number, err)
		}
	}
}

func (w *world) get(number string) *readers.Reader {
	w.t.Helper()
	return testpki.Must(w.Reader(w.t.Context(), number))
}

func (w *world) statusOf(caID string, serial store.Serial) *store.Status {
	w.t.Helper()
	var s *store.Status
	err := w.book.View(w.t.Context(), func(tx *store.Tx) (err error) {
		s, err = store.Statuses.Get(tx, store.SerialKey(caID, serial))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestTwoStages: a reader's whole life, with the steps that are told.
func TestTwoStages(t *testing.T) {
	w := newWorld(t)
	w.start("42", "330100")
	rd := w.get("42")
	if rd.State != readers.Active || rd.City != "330100" || rd.Ticket != "t1" || !rd.Escrowed || rd.Receipt != store.Sum([]byte("42")) || rd.DeviceCA != "device" || rd.NotAfter.IsZero() {
		t.Errorf("the reader is %+v", rd)
	}
	old := *rd
	if err := w.renewing("42", "330100"); err != nil {
		t.Fatal(err)
	}
	rd = w.get("42")
	if rd.Sign != old.Sign || rd.NextSign.IsZero() || w.statusOf(rd.NextCA, rd.NextSign).State != store.Held || w.statusOf(rd.CA, rd.Sign).State != store.Good {
		t.Errorf("while it is renewed it is %+v", rd)
	}
	w.check()
	lost := rd.NextSign
	// It loses the new keys, and then is held for a while.
	if err := w.renewing("42", "330100"); err != nil {
		t.Fatal(err)
	}
	if s := w.statusOf("330100", lost); s.State != store.Revoked || s.Reason != 4 {
		t.Errorf("the pair that it lost is %+v", s)
	}
	do := func(f func(tx *store.Tx) (*readers.Reader, error)) error {
		t.Helper()
		return w.try(func(tx *store.Tx) error { _, err := f(tx); return err })
	}
	must := func(f func(tx *store.Tx) (*readers.Reader, error)) {
		t.Helper()
		if err := do(f); err != nil {
			t.Fatal(err)
		}
		w.check()
	}
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Suspend(tx, "42", "counter", "") })
	if err := do(func(tx *store.Tx) (*readers.Reader, error) { return w.Renewed(tx, "42", store.Hash{1}, "city") }); !errors.As(err, new(*readers.StateError)) {
		t.Errorf("a suspended reader was renewed: %v", err)
	}
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Resume(tx, "42", "counter", "") })
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Renewed(tx, "42", store.Hash{1}, "city") })
	rd = w.get("42")
	if rd.Sign == old.Sign || !rd.NextSign.IsZero() || rd.Escrowed || w.statusOf(rd.CA, rd.Sign).State != store.Good || w.statusOf(old.CA, old.Encrypt).Reason != 4 {
		t.Errorf("renewed it is %+v", rd)
	}
	if err := do(func(tx *store.Tx) (*readers.Reader, error) { return w.Renewed(tx, "42", store.Hash{1}, "city") }); !errors.As(err, new(*readers.PairError)) {
		t.Errorf("renewed twice: %v", err)
	}
	// Another reader takes its place and its customer.
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Bind(tx, "42", "c-7", "counter") })
	w.start("43", "330100")
	if err := w.renewing("42", "330100"); err != nil {
		t.Fatal(err)
	}
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Replace(tx, "42", "43", 0, "counter", "broken") })
	rd, other := w.get("42"), w.get("43")
	if rd.State != readers.Replaced || rd.Successor != "43" || rd.Customer != "" || other.Customer != "c-7" || other.Predecessor != "42" {
		t.Errorf("replaced it is %+v, by %+v", rd, other)
	}
	for _, ref := range []ca.Ref{{CA: rd.CA, Serial: rd.Sign}, {CA: rd.CA, Serial: rd.Encrypt}, {CA: rd.NextCA, Serial: rd.NextSign}, {CA: rd.NextCA, Serial: rd.NextEncrypt}, {CA: rd.DeviceCA, Serial: rd.DeviceSerial}} {
		if s := w.statusOf(ref.CA, ref.Serial); s.State != store.Revoked || s.Reason != 4 {
			t.Errorf("of the replaced reader, %s is %s, reason %d", ref.Serial, s.State, s.Reason)
		}
	}
	must(func(tx *store.Tx) (*readers.Reader, error) { return w.Retire(tx, "43", "counter", "moved abroad") })
	if rd := w.get("43"); rd.State != readers.Retired || rd.Customer != "" || w.statusOf(rd.CA, rd.Sign).Reason != 5 {
		t.Errorf("retired it is %+v", rd)
	}
	var told []string
	for _, h := range rd.History {
		told = append(told, h.Step)
	}
	want := "enter prepare allot initialise activate begin to renew begin to renew suspend resume renew bind begin to renew replace"
	if got := strings.Join(told, " "); got != want {
		t.Errorf("its history is %s", got)
	}
}

// TestLostKeys: a reader that lost its keys before its receipt gets another pair,
// and the one before is revoked.
func TestLostKeys(t *testing.T) {
	w := newWorld(t)
	if err := errors.Join(w.enter("1"), w.device("1")); err != nil {
		t.Fatal(err)
	}
	err := w.try(func(tx *store.Tx) error { _, err := w.Allot(tx, "1", "330100", "t", "centre"); return err })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		before := w.get("1")
		if err := w.initialise("1", "330100"); err != nil {
			t.Fatal(err)
		}
		w.check()
		if !before.Sign.IsZero() && (w.statusOf(before.CA, before.Sign).State != store.Revoked || w.statusOf(before.CA, before.Encrypt).State != store.Revoked) {
			t.Error("the pair before is not revoked")
		}
	}
	err = w.try(func(tx *store.Tx) error { _, err := w.Withdraw(tx, "1", "centre", ""); return err })
	if !errors.As(err, new(*readers.StateError)) {
		t.Errorf("an initialised reader was taken off its ticket: %v", err)
	}
}

// TestSteps: every step from every state does what the table says, and what the
// table does not know is refused with a remedy and changes nothing.
func TestSteps(t *testing.T) {
	w := newWorld(t)
	n := 0
	w.start("spare", "330100")
	// reach makes a new reader in a state.
	reach := func(s readers.State) string {
		n++
		number := fmt.Sprint("s", n)
		steps := []func() error{
			func() error { return w.enter(number) }, func() error { return w.device(number) },
			func() error {
				return w.try(func(tx *store.Tx) error { _, err := w.Allot(tx, number, "330100", "t", "x"); return err })
			},
			func() error { return w.initialise(number, "330100") },
			func() error {
				return w.try(func(tx *store.Tx) error { _, err := w.Activate(tx, number, store.Hash{1}, "x"); return err })
			},
			func() error {
				return w.try(func(tx *store.Tx) (err error) {
					switch s {
					case readers.Suspended:
						_, err = w.Suspend(tx, number, "x", "")
					case readers.Revoked:
						_, err = w.Revoke(tx, number, 1, time.Time{}, "x", "")
					case readers.Retired:
						_, err = w.Retire(tx, number, "x", "")
					}
					return err
				})
			},
		}
		for i, f := range steps {
			if i < len(readers.States) && i > 0 && readers.States[i-1] == s {
				break
			}
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
		if s == readers.Replaced {
			n++
			by := fmt.Sprint("s", n)
			w.start(by, "330100")
			if err := w.try(func(tx *store.Tx) error { _, err := w.Replace(tx, number, by, 0, "x", ""); return err }); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.get(number).State; got != s {
			t.Fatalf("the reader is %s, not %s", got, s)
		}
		return number
	}
	plain := func(f func(tx *store.Tx, number string) (*readers.Reader, error)) func(string) error {
		return func(number string) error {
			return w.try(func(tx *store.Tx) error { _, err := f(tx, number); return err })
		}
	}
	do := map[string]func(number string) error{
		"prepare":        w.device,
		"allot":          plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Allot(tx, n, "330100", "t2", "x") }),
		"withdraw":       plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Withdraw(tx, n, "x", "") }),
		"initialise":     func(n string) error { return w.initialise(n, "330100") },
		"activate":       plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Activate(tx, n, store.Hash{2}, "x") }),
		"begin to renew": func(n string) error { return w.renewing(n, "330100") },
		"suspend":        plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Suspend(tx, n, "x", "") }),
		"resume":         plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Resume(tx, n, "x", "") }),
		"bind":           plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Bind(tx, n, "c", "x") }),
		"revoke":         plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Revoke(tx, n, 1, time.Time{}, "x", "") }),
		"retire":         plain(func(tx *store.Tx, n string) (*readers.Reader, error) { return w.Retire(tx, n, "x", "") }),
		"report": plain(func(tx *store.Tx, n string) (*readers.Reader, error) {
			return w.Reported(tx, n, readers.Report{CA: "330100", Sign: store.Serial{1, 1}, Encrypt: store.Serial{1, 2}}, "x")
		}),
	}
	// These two are tried elsewhere: they need more than one reader or step.
	apart := map[string]bool{"replace": true, "succeed": true, "renew": true, "adopt": true, "enter": true, "accept": true, "issue": true}
	for _, s := range readers.Steps {
		f := do[s.Name]
		if f == nil {
			if !apart[s.Name] {
				t.Errorf("no test takes step %q", s.Name)
			}
			continue
		}
		for _, from := range readers.States {
			number := reach(from)
			before := w.get(number)
			err := f(number)
			after := w.get(number)
			allowed := false
			for _, a := range s.From {
				allowed = allowed || a == from
			}
			state := new(readers.StateError)
			switch {
			case allowed && err != nil:
				t.Errorf("%s of a reader that is %s: %v", s.Name, from, err)
			case allowed && after.State != s.To && !(s.To == "" && after.State == from):
				t.Errorf("%s took a reader from %s to %s", s.Name, from, after.State)
			case allowed && after.History[len(after.History)-1].Step != s.Name:
				t.Errorf("the history says %+v of %s", after.History[len(after.History)-1], s.Name)
			case !allowed && err == nil:
				t.Errorf("%s of a reader that is %s was allowed", s.Name, from)
			case !allowed && after.Seq != before.Seq:
				t.Errorf("%s was refused and changed the reader", s.Name)
			case !allowed && errors.As(err, &state) && (state.State != from || state.Want != s.Name || len(state.Remedy()) < 10):
				t.Errorf("%s of a reader that is %s is refused as %v", s.Name, from, err)
			case !allowed && !errors.As(err, &state) && !errors.As(err, new(*readers.PairError)):
				t.Errorf("%s of a reader that is %s is refused as %v", s.Name, from, err)
			}
		}
	}
}

// TestOfflineCity: a city's book learns of a reader from a ticket; the centre's
// learns of its pair from the receipt, and leaves it to the city.
func TestOfflineCity(t *testing.T) {
	city, centre := newWorld(t), newWorld(t)
	device := store.Sum([]byte("its device certificate"))
	err := city.try(func(tx *store.Tx) error {
		_, err := city.Accept(tx, readers.Reader{Number: "7", City: "330100", Ticket: "t", Device: device, Model: "M1"}, "city")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := city.initialise("7", "330100"); err != nil {
		t.Fatal(err)
	}
	err = city.try(func(tx *store.Tx) error { _, err := city.Activate(tx, "7", store.Hash{7}, "city"); return err })
	if err != nil {
		t.Fatal(err)
	}
	there := city.get("7")

	if err := errors.Join(centre.enter("7"), centre.device("7")); err != nil {
		t.Fatal(err)
	}
	report := readers.Report{CA: there.CA, Sign: there.Sign, Encrypt: there.Encrypt, NotAfter: there.NotAfter, Receipt: there.Receipt}
	err = centre.try(func(tx *store.Tx) error {
		if _, err := centre.Allot(tx, "7", "330100", "t", "centre"); err != nil {
			return err
		}
		_, err := centre.Reported(tx, "7", report, "centre")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rd := centre.get("7")
	if rd.State != readers.Active || !rd.Elsewhere || rd.Paired() || rd.Sign != there.Sign {
		t.Errorf("the centre knows it as %+v", rd)
	}
	for name, f := range map[string]func(tx *store.Tx) (*readers.Reader, error){
		"suspend": func(tx *store.Tx) (*readers.Reader, error) { return centre.Suspend(tx, "7", "x", "") },
		"revoke":  func(tx *store.Tx) (*readers.Reader, error) { return centre.Revoke(tx, "7", 1, time.Time{}, "x", "") },
		"retire":  func(tx *store.Tx) (*readers.Reader, error) { return centre.Retire(tx, "7", "x", "") },
		"replace": func(tx *store.Tx) (*readers.Reader, error) { return centre.Replace(tx, "7", "7", 0, "x", "") },
	} {
		pair := new(readers.PairError)
		err := centre.try(func(tx *store.Tx) error { _, err := f(tx); return err })
		if !errors.As(err, &pair) || !strings.Contains(pair.Remedy, "node") {
			t.Errorf("the centre could %s a reader of another book: %v", name, err)
		}
	}
}

func TestReplaceRefuses(t *testing.T) {
	w := newWorld(t)
	w.issue(pair("1", "330100"))
	w.issue(pair("2", "330100"))
	w.issue(pair("3", "330200"))
	w.issue(pair("4", "330100"))
	w.issue(pair("5", "330100"))
	bind := func(number, customer string) error {
		return w.try(func(tx *store.Tx) error { _, err := w.Bind(tx, number, customer, "x"); return err })
	}
	if err := errors.Join(bind("1", "c1"), bind("2", "c2")); err != nil {
		t.Fatal(err)
	}
	if err := bind("1", "c9"); !errors.As(err, new(*readers.PairError)) {
		t.Errorf("bound to two customers: %v", err)
	}
	err := w.try(func(tx *store.Tx) error { _, err := w.Suspend(tx, "4", "x", ""); return err })
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, by string) error {
		return w.try(func(tx *store.Tx) error { _, err := w.Replace(tx, old, by, 1, "x", ""); return err })
	}
	for by, want := range map[string]any{"1": new(*readers.PairError), "2": new(*readers.PairError), "3": new(*readers.PairError), "4": new(*readers.StateError)} {
		if err := replace("1", by); err == nil || !errors.As(err, want) {
			t.Errorf("1 was replaced by %s: %v", by, err)
		}
	}
	if err := replace("1", "9"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("replaced by nobody: %v", err)
	}
	if rd := w.get("1"); rd.State != readers.Active || rd.Customer != "c1" {
		t.Errorf("after refusals it is %+v", rd)
	}
	// A stolen reader is revoked at once, and replaced when its customer comes.
	err = w.try(func(tx *store.Tx) error { _, err := w.Revoke(tx, "1", 1, time.Time{}, "x", "stolen"); return err })
	if err := errors.Join(err, replace("1", "5")); err != nil {
		t.Fatal(err)
	}
	old, by := w.get("1"), w.get("5")
	if old.State != readers.Replaced || by.Customer != "c1" || w.statusOf(old.CA, old.Sign).Reason != 1 {
		t.Errorf("replaced: %+v by %+v", old, by)
	}
	if err := replace("2", "5"); !errors.As(err, new(*readers.PairError)) {
		t.Errorf("one reader replaced two: %v", err)
	}
}
