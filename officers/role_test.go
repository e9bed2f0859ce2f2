package officers_test

import (
	"testing"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
)

// TestApproversRole: where an operation names the role of its approvers, nobody else
// counts: not an admin, not the requester who has the role, and not one who had it.
func TestApproversRole(t *testing.T) {
	w := newWorld(t)
	li, wang := w.admins()
	hire := func(name, city, line string, roles ...policy.Role) *holder {
		h := w.holder("operator", name, city, line, roles...)
		if err := w.add(li, wang, h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	asks := hire("Zhao", "", "", policy.CAOperator, policy.KeyOfficer)
	chen, sun, qian := hire("Chen", "", "", policy.KeyOfficer), hire("Sun", "", "", policy.KeyOfficer), hire("Qian", "", "", policy.KeyOfficer)
	operator := hire("Zhou", "", "", policy.CAOperator)
	elsewhere := hire("Wu", "330100", "", policy.KeyOfficer)

	request := []byte(`{"reason":"order of a court"}`)
	var a *officers.Approval
	w.update(func(tx *store.Tx) (err error) {
		a, err = w.Request(tx, w.caller(asks), policy.OpEscrowRecover, "", request, 2)
		return err
	})
	approve := func(h *holder) error {
		return w.try(func(tx *store.Tx) error {
			_, err := w.Approve(tx, w.caller(h), a.ID, h.sign(w, a.Canonical))
			return err
		})
	}
	consume := func() error {
		return w.try(func(tx *store.Tx) error { return w.Consume(tx, a.ID, store.Sum(request)) })
	}
	for _, h := range []*holder{li, wang, operator} {
		if err := approve(h); problem(err) != "role" {
			t.Errorf("%s, who is no key officer, counts: %v", h.Name, err)
		}
	}
	if err := approve(asks); problem(err) != "own-request" {
		t.Errorf("the requester counts: %v", err)
	}
	if err := approve(elsewhere); err == nil {
		t.Error("a key officer of a city counts for the centre")
	}
	if err := approve(chen); err != nil {
		t.Fatal(err)
	}
	if err := consume(); problem(err) != "not-granted" {
		t.Errorf("one of two is enough: %v", err)
	}
	if err := approve(chen); problem(err) != "given-before" {
		t.Errorf("one person counts twice: %v", err)
	}
	if err := approve(sun); err != nil {
		t.Fatal(err)
	}
	// One of the two loses the role: a renewed certificate with another one.
	was := sun.record.Line
	sun = hire("Sun", "", was, policy.CAOperator)
	if err := consume(); problem(err) != "withdrawn" {
		t.Errorf("a signature of one who is no key officer any more counts: %v", err)
	}
	sun = hire("Sun", "", was, policy.KeyOfficer)
	w.update(func(tx *store.Tx) error {
		return w.ca.Suspend(tx, ca.Ref{CA: chen.record.CA, Serial: chen.record.Serial}, "tester")
	})
	if err := consume(); problem(err) != "withdrawn" {
		t.Errorf("a signature of one whose certificate is held counts: %v", err)
	}
	w.update(func(tx *store.Tx) error {
		return w.ca.Resume(tx, ca.Ref{CA: chen.record.CA, Serial: chen.record.Serial}, "tester")
	})
	if err := approve(qian); problem(err) != "not-open" {
		t.Errorf("a third: %v", err)
	}
	if err := consume(); err != nil {
		t.Fatal(err)
	}
	if again := testpki.Must(w.Approval(t.Context(), a.ID)); again.State != officers.Used {
		t.Errorf("it is %s", again.State)
	}
}
