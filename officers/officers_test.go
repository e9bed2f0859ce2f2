package officers_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

// world is an office over a real book in which certificates are issued by the
// spine.
type world struct {
	*officers.Office
	t     testing.TB
	book  *store.Book
	ca    *ca.Authority
	ahead atomic.Int64
}

// holder is a person, or a machine, with certificate and key.
type holder struct {
	officers.Person
	*testpki.Leaf
	record *store.Certificate
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	pki := testpki.Must(testpki.New(testpki.Config{Now: now}))
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	w.book = testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Now: now, Tables: slices.Concat(ca.Tables, officers.Tables)}))
	w.update(func(tx *store.Tx) error {
		for _, c := range pki.CAs() {
			rec := c.Record
			rec.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: rec.ID})
			if err := store.CAs.Put(tx, &rec); err != nil {
				return err
			}
		}
		return nil
	})
	w.ca = testpki.Must(ca.New(ca.Config{Book: w.book, Issuers: pki.Issuers(), Node: "node-1", Now: now}))
	w.Office = officers.New(officers.Config{Book: w.book, Now: now})
	t.Cleanup(func() {
		if err := w.book.Check(context.Background(), nil); err != nil {
			t.Error(err)
		}
		w.book.Close()
	})
	return w
}

func (w *world) update(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.book.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) try(f func(*store.Tx) error) error { return w.book.Update(w.t.Context(), f) }

// holder issues a certificate of a profile to a new person; line renews one.
func (w *world) holder(profile, name, city, line string, roles ...policy.Role) *holder {
	w.t.Helper()
	key := testpki.Must(testpki.Key())
	r := ca.Request{CA: "staff", Profile: profile, CSR: testpki.Must(testpki.CSR(key)), Name: policy.Name{Person: name, City: city}, Line: line}
	if profile == "client" {
		r.CA, r.Name = "services", policy.Name{CommonName: name, City: city}
	}
	certs, err := w.ca.Issue(w.t.Context(), ca.Order{Requests: []ca.Request{r}, Requester: "tester"})
	if err != nil {
		w.t.Fatal(err)
	}
	return &holder{
		Person: officers.Person{Name: name, Roles: roles, City: city, Certificate: certs[0].DER},
		Leaf:   &testpki.Leaf{Certificate: certs[0].DER, Key: key},
		record: certs[0],
	}
}

// admins bootstraps the book.
func (w *world) admins() (a, b *holder) {
	w.t.Helper()
	a, b = w.holder("operator", "Li", "", ""), w.holder("operator", "Wang", "", "")
	w.update(func(tx *store.Tx) error { return w.Bootstrap(tx, [2]officers.Person{a.Person, b.Person}) })
	return a, b
}

func (w *world) caller(h *holder) policy.Caller {
	w.t.Helper()
	c, err := w.Caller(w.t.Context(), h.Certificate())
	if err != nil {
		w.t.Fatalf("%s is not known: %v", h.Name, err)
	}
	return c
}

func (h *holder) Certificate() []byte { return h.Person.Certificate }

// approved has one person ask for an operation and another approve it.
func (w *world) approved(asks, approves *holder, op policy.Operation, canonical []byte) string {
	w.t.Helper()
	var a *officers.Approval
	w.update(func(tx *store.Tx) (err error) {
		a, err = w.Request(tx, w.caller(asks), op, "", canonical, 1)
		return err
	})
	w.update(func(tx *store.Tx) error {
		_, err := w.Approve(tx, w.caller(approves), a.ID, approves.sign(w, a.Canonical))
		return err
	})
	return a.ID
}

func (h *holder) sign(w *world, content []byte) []byte {
	w.t.Helper()
	return testpki.Must(cms.Sign(oid.ContentApproval, content, h.Certificate(), nil, h.Key, time.Now()))
}

// add records a person with an approval.
func (w *world) add(asks, approves, h *holder) error {
	w.t.Helper()
	id := w.approved(asks, approves, policy.OpOfficerAdd, h.Canonical(policy.OpOfficerAdd))
	return w.try(func(tx *store.Tx) error {
		_, err := w.Add(tx, w.caller(asks), h.Person, id)
		return err
	})
}

func (w *world) remove(asks, approves *holder, fingerprint store.Hash) error {
	w.t.Helper()
	p := testpki.Must(w.Person(w.t.Context(), fingerprint))
	id := w.approved(asks, approves, policy.OpOfficerRemove, p.Canonical(policy.OpOfficerRemove))
	return w.try(func(tx *store.Tx) error { return w.Remove(tx, w.caller(asks), fingerprint, id) })
}

func TestBootstrap(t *testing.T) {
	w := newWorld(t)
	li := w.holder("operator", "Li", "", "")
	again := w.holder("operator", "Li", "", li.record.Line)
	machine := w.holder("client", "machine", "", "")
	stranger := testpki.Must(testpki.Must(testpki.New(testpki.Config{})).Operator("Zhao", ""))
	for name, persons := range map[string][2]officers.Person{
		"one person twice":        {li.Person, li.Person},
		"one person, two times":   {li.Person, again.Person},
		"a machine":               {li.Person, machine.Person},
		"a stranger":              {li.Person, {Name: "Zhao", Certificate: stranger.Certificate}},
		"rubbish":                 {li.Person, {Name: "Zhao", Certificate: []byte("rubbish")}},
		"somebody without a name": {li.Person, {Certificate: machine.Certificate()}},
	} {
		if err := w.try(func(tx *store.Tx) error { return w.Bootstrap(tx, persons) }); !errors.As(err, new(*officers.PersonError)) {
			t.Errorf("%s became first admins: %v", name, err)
		}
	}
	a, b := w.holder("operator", "Wang", "", ""), li
	w.update(func(tx *store.Tx) error { return w.Bootstrap(tx, [2]officers.Person{a.Person, b.Person}) })
	c := w.caller(a)
	if c.Name != "Wang" || !slices.Equal(c.Roles, []policy.Role{policy.CAAdmin}) || c.City != "" || store.Serial(c.Serial) != a.record.Serial {
		t.Errorf("the first admin is %+v", c)
	}
	err := w.try(func(tx *store.Tx) error { return w.Bootstrap(tx, [2]officers.Person{a.Person, b.Person}) })
	if !errors.Is(err, officers.ErrBootstrapped) {
		t.Errorf("a second Bootstrap: %v", err)
	}
}

func TestPeople(t *testing.T) {
	w := newWorld(t)
	li, wang := w.admins()
	clerk := w.holder("operator", "Chen", "330100", "", policy.Counter, policy.CityOperator)
	if err := w.add(li, wang, clerk); err != nil {
		t.Fatal(err)
	}
	machine := w.holder("client", "loads", "330100", "", policy.TopUp)
	if err := w.add(wang, li, machine); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*holder)) *holder {
		h := w.holder("operator", "Zhou", "", "", policy.Auditor)
		change(h)
		return h
	}
	for name, h := range map[string]*holder{
		"name":     with(func(h *holder) { h.Name = "Chen" }),
		"role":     with(func(h *holder) { h.Roles = nil }),
		"role ":    with(func(h *holder) { h.Roles = []policy.Role{"emperor"} }),
		"role  ":   with(func(h *holder) { h.Roles = []policy.Role{policy.TopUp} }),
		"role   ":  with(func(h *holder) { h.Roles = []policy.Role{policy.Auditor, policy.Auditor} }),
		"role    ": w.holder("client", "robot", "", "", policy.CAAdmin),
		"city":     with(func(h *holder) { h.City = "33" }),
		"city ": func() *holder {
			h := w.holder("operator", "Zhou", "330200", "", policy.Counter)
			h.City = "330100"
			return h
		}(),
		"certificate": with(func(h *holder) { h.Person.Certificate = []byte("rubbish") }),
	} {
		var e *officers.PersonError
		if err := w.add(li, wang, h); !errors.As(err, &e) || e.Problem != strings.TrimSpace(name) {
			t.Errorf("a person with a bad %s: %v", name, err)
		}
	}

	// A renewed certificate takes the place of the one before.
	renewed := w.holder("operator", "Chen", "330100", clerk.record.Line, policy.Counter)
	if err := w.add(li, wang, renewed); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Caller(t.Context(), clerk.Certificate()); problem(err) != "removed" {
		t.Errorf("the certificate before: %v", err)
	}
	if c := w.caller(renewed); c.Name != "Chen" || c.City != "330100" || len(c.Roles) != 1 {
		t.Errorf("the renewed person is %+v", c)
	}

	list, next, err := w.People(t.Context(), nil, 3)
	if err != nil || len(list) != 3 || next == nil {
		t.Fatalf("the first page: %d people, %v", len(list), err)
	}
	rest, next, err := w.People(t.Context(), next, 3)
	if err != nil || len(rest) != 2 || next != nil {
		t.Fatalf("the last page: %d people, %v", len(rest), err)
	}
	for _, p := range append(list, rest...) {
		if store.Sum(p.Certificate) != p.Fingerprint {
			t.Errorf("%s comes without the certificate", p.Name)
		}
	}

	// The last admin stays.
	operator := w.holder("operator", "Sun", "", "", policy.CAOperator)
	if err := w.add(li, wang, operator); err != nil {
		t.Fatal(err)
	}
	if err := w.remove(li, operator, store.Sum(wang.Certificate())); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Caller(t.Context(), wang.Certificate()); problem(err) != "removed" {
		t.Errorf("an admin who was removed: %v", err)
	}
	var last *officers.PersonError
	if err := w.remove(li, operator, store.Sum(li.Certificate())); !errors.As(err, &last) || last.Problem != "last-admin" {
		t.Errorf("the last admin was removed: %v", err)
	}
}

func problem(err error) string {
	var c *officers.CallerError
	var a *officers.ApprovalError
	switch {
	case errors.As(err, &c):
		return c.Problem
	case errors.As(err, &a):
		return a.Problem
	}
	return fmt.Sprint(err)
}

// TestCaller: the status of a caller's certificate is what it is now.
func TestCaller(t *testing.T) {
	w := newWorld(t)
	li, wang := w.admins()
	unknown := w.holder("operator", "Chen", "", "")
	if _, err := w.Caller(t.Context(), unknown.Certificate()); problem(err) != "unknown" {
		t.Errorf("somebody unknown: %v", err)
	}
	r := ca.Ref{CA: li.record.CA, Serial: li.record.Serial}
	for _, step := range []struct {
		change func(*store.Tx) error
		want   string
	}{
		{func(tx *store.Tx) error { return w.ca.Suspend(tx, r, "tester") }, "on-hold"},
		{func(tx *store.Tx) error { return w.ca.Resume(tx, r, "tester") }, ""},
		{func(tx *store.Tx) error { return w.ca.Revoke(tx, r, 0, time.Time{}, "tester") }, "revoked"},
	} {
		w.update(step.change)
		_, err := w.Caller(t.Context(), li.Certificate())
		if step.want == "" && err != nil || step.want != "" && problem(err) != step.want {
			t.Errorf("a caller who should be %q: %v", step.want, err)
		}
	}
	w.ahead.Add(int64(400 * 24 * time.Hour))
	if _, err := w.Caller(t.Context(), wang.Certificate()); problem(err) != "expired" {
		t.Errorf("a caller of yesteryear: %v", err)
	}
	if all, journalled := w.Refusals(); all != 4 || journalled != 0 {
		t.Errorf("%d callers were refused, %d of them journalled", all, journalled)
	}
}

// TestGate: a refusal is journalled, a flood of them does not fill the book.
func TestGate(t *testing.T) {
	w := newWorld(t)
	li, _ := w.admins()
	c := w.caller(li)
	if err := w.Gate(t.Context(), c, policy.OpOfficerAdd, ""); err != nil {
		t.Errorf("an admin may not appoint: %v", err)
	}
	refused := func() (list []store.Event) {
		for _, e := range testpki.Must(w.book.Events(t.Context(), 0, 10000)) {
			if e.Kind == store.KindRefused {
				list = append(list, e)
			}
		}
		return list
	}
	for range 500 {
		if err := w.Gate(t.Context(), c, policy.OpTopUpAuthorise, "330100"); !errors.As(err, new(*policy.Denied)) {
			t.Fatalf("an admin may authorise loads: %v", err)
		}
	}
	if n := len(refused()); n != 10 {
		t.Errorf("500 refusals of one caller made %d events", n)
	}
	w.ahead.Add(int64(time.Minute))
	if err := w.Refuse(t.Context(), c, policy.OpCertificateIssue, "a city\x00that is none", "profile"); !errors.As(err, new(*policy.Denied)) {
		t.Errorf("Refuse returned %v", err)
	}
	list := refused()
	last := list[len(list)-1]
	if len(list) != 11 || last.Actor != "Li" || last.Detail != `{"operation":"certificate.issue","why":"profile","unwritten":490}` {
		t.Errorf("the next minute's refusal is %+v", last)
	}
	for i := range 500 {
		c.Fingerprint[0], c.Fingerprint[1] = byte(i), byte(i>>8)
		w.Gate(t.Context(), c, policy.OpTopUpAuthorise, "330100")
	}
	if n := len(refused()); n > 11+100 {
		t.Errorf("500 callers made %d events in a minute", n-11)
	}
}

// BenchmarkCaller is what every request pays.
func BenchmarkCaller(b *testing.B) {
	w := newWorld(b)
	li, _ := w.admins()
	b.ReportAllocs()
	for b.Loop() {
		c, err := w.Caller(b.Context(), li.Certificate())
		if err == nil {
			err = w.Gate(b.Context(), c, policy.OpOfficerAdd, "")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
