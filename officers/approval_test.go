package officers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
)

func TestApproval(t *testing.T) {
	w := newWorld(t)
	li, wang := w.admins()
	chen, sun := w.holder("operator", "Chen", "", "", policy.KeyOfficer), w.holder("operator", "Sun", "", "", policy.Auditor)
	for _, h := range []*holder{chen, sun} {
		if err := w.add(li, wang, h); err != nil {
			t.Fatal(err)
		}
	}
	request := []byte(`{"what":"city <330100> & more"}`)
	var a *officers.Approval
	w.update(func(tx *store.Tx) (err error) {
		a, err = w.Request(tx, w.caller(li), policy.OpCertificateIssue, "", request, 2)
		return err
	})
	var s officers.Statement
	if err := json.Unmarshal(a.Canonical, &s); err != nil || s.ID != a.ID || s.Book != w.book.ID() || s.Requester != "Li" || s.SHA256 != store.Sum(request) {
		t.Errorf("the statement is %s, %v", a.Canonical, err)
	}
	approve := func(h *holder, der []byte) error {
		return w.try(func(tx *store.Tx) (err error) {
			a, err = w.Approve(tx, w.caller(h), a.ID, der)
			return err
		})
	}
	id := a.ID
	consume := func(hash store.Hash) error {
		return w.try(func(tx *store.Tx) error { return w.Consume(tx, id, hash) })
	}
	refused := func(what, want string, err error) {
		t.Helper()
		if problem(err) != want {
			t.Errorf("%s: %v", what, err)
		}
		a = testpki.Must(w.Approval(t.Context(), id))
	}
	good := a.Canonical
	refused("its own requester", "own-request", approve(li, li.sign(w, good)))
	refused("other bytes", "signature", approve(wang, wang.sign(w, append(bytes.Clone(good), ' '))))
	refused("another signer", "signature", approve(wang, chen.sign(w, good)))
	refused("rubbish", "signature", approve(wang, []byte("rubbish")))
	refused("another content type", "signature", approve(wang, testpki.Must(cms.Sign(oid.ContentTicket, good, wang.Certificate(), nil, wang.Key, time.Now()))))
	if err := approve(sun, sun.sign(w, good)); !errors.As(err, new(*policy.Denied)) {
		t.Errorf("an auditor approved: %v", err)
	}
	a = testpki.Must(w.Approval(t.Context(), id))
	refused("used before it was given", "not-granted", consume(store.Sum(request)))

	if err := approve(wang, wang.sign(w, good)); err != nil || a.State != officers.Open {
		t.Fatalf("the first of two signatures: %v", err)
	}
	refused("the same person twice", "given-before", approve(wang, wang.sign(w, good)))
	refused("used with one of two", "not-granted", consume(store.Sum(request)))
	if err := approve(chen, chen.sign(w, good)); err != nil || a.State != officers.Granted || len(a.Given) != 2 {
		t.Fatalf("the second of two signatures: %v, %+v", err, a)
	}
	refused("a third", "not-open", approve(chen, chen.sign(w, good)))
	refused("used for another request", "other-bytes", consume(store.Sum([]byte(`{}`))))

	// A transaction that fails does not use it up.
	stop := errors.New("stop")
	err := w.try(func(tx *store.Tx) error {
		if err := w.Consume(tx, id, store.Sum(request)); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := consume(store.Sum(request)); err != nil {
		t.Fatal(err)
	}
	refused("used twice", "not-granted", consume(store.Sum(request)))
	if a.State != officers.Used {
		t.Errorf("it is %s", a.State)
	}
}

func TestApprovalExpires(t *testing.T) {
	w := newWorld(t)
	li, wang := w.admins()
	request := []byte(`{}`)
	granted := w.approved(li, wang, policy.OpCertificateIssue, request)
	var open *officers.Approval
	w.update(func(tx *store.Tx) (err error) {
		open, err = w.Request(tx, w.caller(li), policy.OpCertificateIssue, "330100", request, 1)
		return err
	})
	w.ahead.Add(int64(73 * time.Hour))
	if err := w.try(func(tx *store.Tx) error { return w.Consume(tx, granted, store.Sum(request)) }); problem(err) != "expired" {
		t.Errorf("an old approval was used: %v", err)
	}
	err := w.try(func(tx *store.Tx) error {
		_, err := w.Approve(tx, w.caller(wang), open.ID, wang.sign(w, open.Canonical))
		return err
	})
	if problem(err) != "expired" {
		t.Errorf("an old request was approved: %v", err)
	}
	for _, q := range []struct {
		city, state string
		want        int
	}{{"", "", 2}, {"", officers.Open, 0}, {"", officers.Expired, 2}, {"330100", "", 1}, {"330200", "", 0}} {
		list, _, err := w.Approvals(t.Context(), q.city, q.state, nil, 10)
		if err != nil || len(list) != q.want {
			t.Errorf("approvals of %+v: %d, %v", q, len(list), err)
		}
	}
	for _, bad := range []string{"", "{", "not JSON"} {
		err := w.try(func(tx *store.Tx) error {
			_, err := w.Request(tx, w.caller(li), policy.OpCertificateIssue, "", []byte(bad), 1)
			return err
		})
		if err == nil {
			t.Errorf("an approval of %q was opened", bad)
		}
	}
}

// TestApprovalOfTheGone: what somebody asked for or signed comes to nothing when
// that person's certificate is held or revoked, or the rights are taken away; a
// renewed certificate stands for the one before.
func TestApprovalOfTheGone(t *testing.T) {
	request := []byte(`{}`)
	for what, change := range map[string]func(w *world, wang, who *holder) bool{
		"held": func(w *world, _, who *holder) bool {
			w.update(func(tx *store.Tx) error {
				return w.ca.Suspend(tx, ca.Ref{CA: who.record.CA, Serial: who.record.Serial}, "tester")
			})
			return false
		},
		"removed": func(w *world, wang, who *holder) bool {
			third := w.holder("operator", "Zhao", "", "", policy.CAAdmin)
			if err := errors.Join(w.add(who, wang, third), w.remove(wang, third, store.Sum(who.Certificate()))); err != nil {
				t.Fatal(err)
			}
			return false
		},
		"renewed": func(w *world, wang, who *holder) bool {
			if err := w.add(who, wang, w.holder("operator", who.Name, "", who.record.Line, policy.CAAdmin)); err != nil {
				t.Fatal(err)
			}
			return true
		},
	} {
		for _, part := range []string{"asked", "signed"} {
			w := newWorld(t)
			li, wang := w.admins()
			asks, signs, stays := li, wang, wang
			if part == "signed" {
				asks, signs, stays = wang, li, wang
			}
			granted := w.approved(asks, signs, policy.OpCertificateIssue, request)
			var open *officers.Approval
			w.update(func(tx *store.Tx) (err error) {
				open, err = w.Request(tx, w.caller(asks), policy.OpCertificateIssue, "", request, 1)
				return err
			})
			stands := change(w, stays, li)
			err := w.try(func(tx *store.Tx) error { return w.Consume(tx, granted, store.Sum(request)) })
			if stands != (err == nil) || !stands && problem(err) != "withdrawn" {
				t.Errorf("%s by one who was %s: used: %v", part, what, err)
			}
			if part == "signed" {
				continue
			}
			err = w.try(func(tx *store.Tx) error {
				_, err := w.Approve(tx, w.caller(wang), open.ID, wang.sign(w, open.Canonical))
				return err
			})
			if stands != (err == nil) || !stands && problem(err) != "withdrawn" {
				t.Errorf("asked by one who was %s: signed: %v", what, err)
			}
		}
	}
}

// TestCanonical: what an approver signs names the person, and reads back.
func TestCanonical(t *testing.T) {
	p := officers.Person{Name: "王 <x>", Roles: []policy.Role{policy.Counter}, City: "330100", Certificate: []byte{1, 2}}
	for _, op := range []policy.Operation{policy.OpOfficerAdd, policy.OpOfficerRemove} {
		p.Fingerprint = store.Sum(p.Certificate)
		back, got, err := officers.ParsePerson(p.Canonical(op))
		if err != nil || got != op || back.Name != p.Name || back.City != p.City || back.Fingerprint != p.Fingerprint {
			t.Errorf("%s: %+v, %v", op, back, err)
		}
		if op == policy.OpOfficerAdd && !bytes.Equal(back.Certificate, p.Certificate) {
			t.Error("the certificate got lost")
		}
	}
}
