package topup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/store"
	"hufu/topup"
	"hufu/verify"
)

func TestLoad(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	req := w.request(r, "9901000000012345", 7)
	request := w.signed(r, req)

	v, err := w.service.Verify(t.Context(), w.city, request)
	if err != nil || v.Load.Transaction != req.Transaction || v.Agreement != nil {
		t.Fatalf("verified %+v, %v", v, err)
	}
	permission, ev, err := w.service.Authorise(t.Context(), w.city, topup.Authorisation{Request: request, CommandScript: []byte("credit"), DataScript: canary, MAC1Accepted: true})
	if err != nil {
		t.Fatal(err)
	}
	if ev.Source != verify.SourceBook || ev.Epoch != w.book.Epoch() || ev.Seq == 0 || ev.State != verify.Good {
		t.Errorf("evidence %+v", ev)
	}
	script := w.execute(t, r, permission, request)
	if !bytes.Equal(script.DataScript, canary) || string(script.CommandScript) != "credit" {
		t.Errorf("the reader opened %q and %q", script.CommandScript, script.DataScript)
	}

	tr, err := w.service.Transaction(t.Context(), w.city, req.Transaction)
	if err != nil {
		t.Fatal(err)
	}
	if tr.State != topup.Authorised || tr.PermissionHash != store.Sum(permission) || tr.RequestHash != store.Sum(request) ||
		tr.CommandHash != store.Sum([]byte("credit")) || tr.Caller != w.city.Name || tr.Evidence.Seq == 0 {
		t.Errorf("ledger %+v", tr)
	}
	res := result(req, permission, verify.Credited)
	for range 2 { // and once more, as after a lost answer
		if tr, err = w.confirm(r, res, true); err != nil {
			t.Fatal(err)
		}
	}
	if tr.State != topup.Credited || tr.NewBalance != 15000 || !bytes.Equal(tr.TAC, res.TAC) || tr.Closed.IsZero() {
		t.Errorf("confirmed %+v", tr)
	}
	if a, c := w.events(t, store.KindTopUpAuthorised), w.events(t, store.KindTopUpConfirmed); len(a) != 1 || len(c) != 1 ||
		a[0]["id"] != req.Transaction || c[0]["state"] != "credited" || a[0]["evidence"] == nil || a[0]["card"] != nil {
		t.Errorf("journal: %v, %v", a, c)
	}
	if got, err := w.authorise(request, true); err != nil || !bytes.Equal(got, permission) {
		t.Errorf("the same request after the end: %v", err)
	}
}

// A reader whose encryption key is RSA.
func TestLoadRSA(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	key, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	r.Encrypt = testpki.Must(w.CA(home).Certify(key, requestFor("reader-encrypt", "1001")))
	w.record(t, home, r.Encrypt)
	request := w.signed(r, w.request(r, "9901000000012345", 7))
	permission, err := w.authorise(request, true)
	if err != nil {
		t.Fatal(err)
	}
	p := testpki.Must(verify.ParseLoadPermission(testpki.Must(cms.Parse(permission, 0)).Content))
	plain, err := (&cms.Opener{Certificate: r.Encrypt.Certificate, RSA: key}).Open(p.Sealed)
	if err != nil || !bytes.Contains(plain, canary) {
		t.Errorf("the reader cannot open it: %v", err)
	}
}

// A thousand identical requests at once are one authorisation with one answer.
func TestOnceOnly(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	request := w.signed(r, w.request(r, "9901000000012345", 7))
	const n = 1000
	answers, errs := make([][]byte, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { answers[i], errs[i] = w.authorise(request, true) })
	}
	wg.Wait()
	for i := range n {
		if errs[i] != nil || !bytes.Equal(answers[i], answers[0]) {
			t.Fatalf("answer %d: %v, equal %v", i, errs[i], bytes.Equal(answers[i], answers[0]))
		}
	}
	if got := len(w.events(t, store.KindTopUpAuthorised)); got != 1 {
		t.Errorf("%d authorisations", got)
	}
	if got := w.token.Count(); got != 1 {
		t.Errorf("%d signatures", got)
	}
}

// Many readers want the same card at the same counter: one gets it.
func TestOneSlot(t *testing.T) {
	w := newWorld(t)
	const n = 20
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		r := w.reader(t, home, fmt.Sprint(1000+i))
		request := w.signed(r, w.request(r, "9901000000012345", 7))
		wg.Go(func() { _, errs[i] = w.authorise(request, false) })
	}
	wg.Wait()
	given := 0
	for _, err := range errs {
		if err == nil {
			given++
		} else if _, ok := errors.AsType[*topup.TakenError](err); !ok {
			t.Error(err)
		}
	}
	if given != 1 {
		t.Errorf("%d got the card", given)
	}
}

func TestSupersede(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	const card = "9901000000012345"
	first, second := w.request(r, card, 7), w.request(r, card, 7)
	one, two := w.signed(r, first), w.signed(r, second)
	permission, err := w.authorise(one, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.authorise(two, false)
	refused[*topup.TakenError](t, w, "without a MAC1", err)
	replay := w.request(r, card, 7)
	replay.Random = first.Random
	_, err = w.authorise(w.signed(r, replay), true)
	refused[*topup.ReplayError](t, w, "with the random of the first", err)

	if _, err := w.authorise(two, true); err != nil {
		t.Fatalf("with a fresh random and MAC1: %v", err)
	}
	if w.state(t, first.Transaction) != topup.Superseded || w.state(t, second.Transaction) != topup.Authorised {
		t.Errorf("states %s, %s", w.state(t, first.Transaction), w.state(t, second.Transaction))
	}
	if e := w.events(t, store.KindTopUpSuperseded); len(e) != 1 || e[0]["id"] != first.Transaction || e[0]["by"] != second.Transaction {
		t.Errorf("journal: %v", e)
	}
	_, err = w.authorise(one, true)
	refused[*topup.SupersededError](t, w, "the first again", err)
	_, err = w.confirm(r, result(first, permission, verify.Credited), true)
	refused[*topup.SupersededError](t, w, "the first's result", err)
	replay = w.request(r, card, 7)
	replay.Random = first.Random
	_, err = w.authorise(w.signed(r, replay), true)
	refused[*topup.ReplayError](t, w, "the first's random, later", err)
}

func TestCounters(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	const card = "9901000000012345"
	load := func(counter uint32, outcome verify.Outcome) (*verify.LoadRequest, error) {
		req := w.request(r, card, counter)
		permission, err := w.authorise(w.signed(r, req), true)
		if err == nil {
			_, err = w.confirm(r, result(req, permission, outcome), true)
		}
		return req, err
	}
	if _, err := load(7, verify.NotCredited); err != nil {
		t.Fatal(err)
	}
	if _, err := load(7, verify.Credited); err != nil {
		t.Fatalf("after a failed one: %v", err)
	}
	_, err := load(7, verify.Credited)
	refused[*topup.SpentError](t, w, "the same counter", err)
	_, err = load(6, verify.Credited)
	refused[*topup.SpentError](t, w, "a lower counter", err)
	if _, err := load(8, verify.Credited); err != nil {
		t.Errorf("the next counter: %v", err)
	}
	if _, err := w.authorise(w.signed(r, w.request(r, "9901000000099999", 7)), true); err != nil {
		t.Errorf("another card: %v", err)
	}
	// A failed one above hides no credit below it.
	if _, err := load(9, verify.NotCredited); err != nil {
		t.Errorf("the next counter: %v", err)
	}
	_, err = load(5, verify.Credited)
	refused[*topup.SpentError](t, w, "a counter below a failed one", err)
}

// TestFlood: a caller that is refused without end does not fill the book, and the
// journal tells how many refusals it does not hold.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	rubbish := func(n int) {
		for range n {
			if _, err := w.service.Verify(t.Context(), w.city, []byte("rubbish")); err == nil {
				t.Fatal("rubbish was verified")
			}
		}
	}
	rubbish(1000)
	all := w.events(t, store.KindRefused)
	if len(all) < 100 || len(all) > 500 {
		t.Errorf("of 1000 refusals in a minute %d are journalled", len(all))
	}
	w.wait(time.Minute)
	rubbish(1)
	all = w.events(t, store.KindRefused)
	if n, _ := all[len(all)-1]["unwritten"].(float64); int(n) != 1001-len(all) {
		t.Errorf("the next refusal says that %v were not written, of 1001 %d were", n, len(all))
	}
}

// What may not be authorised, each with its name.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	r, other := w.reader(t, home, "1001"), w.reader(t, home, "1002")
	const card = "9901000000012345"
	ask := func(change func(*verify.LoadRequest)) error {
		req := w.request(r, card, 7)
		change(req)
		_, err := w.authorise(w.signed(r, req), true)
		return err
	}
	refused[*verify.ExpiredError](t, w, "expired", ask(func(q *verify.LoadRequest) { q.Expiry = w.now().Add(-time.Minute) }))
	refused[*topup.LifetimeError](t, w, "for a day", ask(func(q *verify.LoadRequest) { q.Expiry = w.now().Add(24 * time.Hour) }))
	refused[*policy.Denied](t, w, "another city's card", ask(func(q *verify.LoadRequest) { q.CardCity = away }))
	refused[*verify.PairError](t, w, "swapped certificate", ask(func(q *verify.LoadRequest) { q.EncryptionHash = sha256.Sum256(other.Encrypt.Certificate) }))
	refused[*verify.MismatchError](t, w, "another's name", ask(func(q *verify.LoadRequest) { q.Reader = other.Sign.X509().DNSNames[0] }))

	used := w.request(r, card, 7)
	if _, err := w.authorise(w.signed(r, used), true); err != nil {
		t.Fatal(err)
	}
	refused[*topup.ReplayError](t, w, "its transaction number again", ask(func(q *verify.LoadRequest) { q.Transaction = used.Transaction }))

	held, revoked, sealed := w.reader(t, home, "2"), w.reader(t, home, "3"), w.reader(t, home, "4")
	asks := func(r *testpki.Reader) error {
		_, err := w.authorise(w.signed(r, w.request(r, "9901000000000002", 1)), true)
		return err
	}
	w.mark(t, home, held.Sign, store.Held)
	w.mark(t, home, revoked.Sign, store.Revoked)
	w.mark(t, home, sealed.Encrypt, store.Held)
	refused[*verify.HeldError](t, w, "held", asks(held))
	refused[*verify.RevokedError](t, w, "revoked", asks(revoked))
	refused[*verify.HeldError](t, w, "encryption certificate held", asks(sealed))
	w.mark(t, home, held.Sign, store.Good)
	if err := asks(held); err != nil {
		t.Errorf("resumed: %v", err)
	}
	unrecorded := testpki.Must(w.Reader(home, "5"))
	refused[*verify.UnknownError](t, w, "not in the book", asks(unrecorded))
	twin := newWorld(t).reader(t, home, "1001")
	refused[*verify.ChainError](t, w, "twin of another root", asks(twin))

	request := w.signed(r, w.request(r, card, 9))
	for what, c := range map[string]policy.Caller{
		"another city's back end": {Name: "b", Roles: []policy.Role{policy.TopUp}, City: away},
		"a counter":               {Name: "c", Roles: []policy.Role{policy.Counter}, City: home},
		"nobody":                  {},
	} {
		_, _, err := w.service.Authorise(t.Context(), c, topup.Authorisation{Request: request})
		refused[*policy.Denied](t, w, what, err)
		_, err = w.service.Verify(t.Context(), c, request)
		refused[*policy.Denied](t, w, what, err)
	}
	_, _, err := w.service.Authorise(t.Context(), w.city, topup.Authorisation{Request: request, DataScript: bytes.Repeat(canary, 2000)})
	refused[*verify.SizeError](t, w, "a very long script", err)
	_, err = w.authorise([]byte("rubbish"), true)
	refused[*verify.FormError](t, w, "rubbish", err)
	bad := bytes.Clone(request)
	bad[len(bad)-3] ^= 1
	_, err = w.authorise(bad, true)
	refused[*verify.SignatureError](t, w, "another signature", err)
	if n := len(w.events(t, store.KindTopUpAuthorised)); n != 2 {
		t.Errorf("%d authorisations, want 2", n)
	}
}

// A reader that is revoked after its request was authorised gets nothing more.
func TestRevokedBetween(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	req := w.request(r, "9901000000012345", 7)
	request := w.signed(r, req)
	permission, err := w.authorise(request, true)
	if err != nil {
		t.Fatal(err)
	}
	w.mark(t, home, r.Sign, store.Revoked)
	_, err = w.authorise(request, true)
	refused[*verify.RevokedError](t, w, "the kept answer", err)
	_, err = w.confirm(r, result(req, permission, verify.Credited), true)
	refused[*verify.RevokedError](t, w, "its result", err)
	if w.state(t, req.Transaction) != topup.Authorised {
		t.Error("the transaction does not stay open")
	}
}

func TestAgreements(t *testing.T) {
	w := newWorld(t)
	visitor := w.reader(t, away, "1001")
	request := w.signed(visitor, w.request(visitor, "9901000000012345", 7))
	_, err := w.service.Verify(t.Context(), w.city, request)
	refused[*topup.AgreementError](t, w, "no agreement", err)
	_, err = w.authorise(request, true)
	refused[*topup.AgreementError](t, w, "no agreement", err)

	until := time.Now().Add(24 * time.Hour)
	approve := func(city, other string, until time.Time) (a *topup.Agreement, err error) {
		err = w.book.Update(t.Context(), func(tx *store.Tx) error {
			a, err = topup.ApproveAgreement(tx, city, other, until, "operator of "+city)
			return err
		})
		return a, err
	}
	if a, err := approve(home, away, until); err != nil || a.Stands(w.now()) {
		t.Fatalf("approved by one: %+v, %v", a, err)
	}
	_, err = w.authorise(request, true)
	refused[*topup.AgreementError](t, w, "approved by one", err)
	if a, err := approve(away, home, until.Add(time.Hour)); err != nil || a.Stands(w.now()) {
		t.Fatalf("approved with another end: %+v, %v", a, err)
	}
	if a, err := approve(home, away, until.Add(time.Hour)); err != nil || !a.Stands(w.now()) {
		t.Fatalf("approved by both: %+v, %v", a, err)
	}
	v, err := w.service.Verify(t.Context(), w.city, request)
	if err != nil || v.Agreement == nil {
		t.Errorf("verified %+v, %v", v, err)
	}
	permission, err := w.authorise(request, true)
	if err != nil {
		t.Fatal(err)
	}
	w.execute(t, visitor, permission, request)

	list, next, err := w.service.Agreements(t.Context(), away, nil, 10)
	if err != nil || len(list) != 1 || next != nil || list[0].A != home || len(list[0].Approved) != 2 {
		t.Errorf("listed %+v, %v", list, err)
	}
	w.update(t, func(tx *store.Tx) error {
		_, err := topup.EndAgreement(tx, away, home, "operator of "+away)
		return err
	})
	again := w.signed(visitor, w.request(visitor, "9901000000012345", 8))
	_, err = w.authorise(again, true)
	refused[*topup.AgreementError](t, w, "ended", err)
	if a, err := approve(home, away, until.Add(time.Hour)); err != nil || a.Stands(w.now()) {
		t.Errorf("approved by one after its end: %+v, %v", a, err)
	}
	for what, bad := range map[string]func() error{
		"with itself": func() error { _, err := approve(home, home, until); return err },
		"no city":     func() error { _, err := approve("33010", home, until); return err },
		"in the past": func() error { _, err := approve(home, away, time.Now().Add(-time.Hour)); return err },
	} {
		if _, ok := errors.AsType[*topup.TermsError](bad()); !ok {
			t.Errorf("%s: agreed", what)
		}
	}
	if e := w.events(t, store.KindAgreement); len(e) != 5 {
		t.Errorf("%d events", len(e))
	}
}

// What is signed but not kept was shown to nobody; the same request finishes it.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	req := w.request(r, "9901000000012345", 7)
	request := w.signed(r, req)
	gone := errors.New("the token is gone")
	for _, fail := range []func(func(int64) error){
		func(f func(int64) error) { w.token.Before = f },
		func(f func(int64) error) { w.token.After = f },
	} {
		fail(func(int64) error { return gone })
		if _, err := w.authorise(request, true); !errors.Is(err, gone) {
			t.Fatalf("with a broken token: %v", err)
		}
		fail(nil)
		w.reopen(t)
	}
	// Nobody else gets the counter meanwhile.
	other := w.reader(t, home, "1002")
	_, err := w.authorise(w.signed(other, w.request(other, req.Card, 7)), false)
	refused[*topup.TakenError](t, w, "while it is unfinished", err)

	permission, err := w.authorise(request, true)
	if err != nil {
		t.Fatal(err)
	}
	w.execute(t, r, permission, request)
	w.reopen(t)
	if again, err := w.authorise(request, true); err != nil || !bytes.Equal(again, permission) {
		t.Errorf("after a restart: %v", err)
	}
	if n := len(w.events(t, store.KindTopUpAuthorised)); n != 1 {
		t.Errorf("%d authorisations", n)
	}
}

// A permission that was overtaken while it was being signed is shown to nobody.
func TestOvertaken(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	first, second := w.request(r, "9901000000012345", 7), w.request(r, "9901000000012345", 7)
	one, two := w.signed(r, first), w.signed(r, second)
	// The second is made while the first is, so they must not share a lock.
	for sha256.Sum256(one)[0]%64 == sha256.Sum256(two)[0]%64 {
		two = w.signed(r, second)
	}
	once := true
	w.token.After = func(int64) error {
		if once {
			once = false
			if _, err := w.authorise(two, true); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	_, err := w.authorise(one, true)
	refused[*topup.SupersededError](t, w, "the slower one", err)
}

// Nor is one whose transaction was given up meanwhile.
func TestGivenUp(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	req := w.request(r, "9901000000012345", 7)
	w.token.After = func(int64) error {
		w.wait(time.Hour)
		_, err := w.service.Resolve(context.Background(), w.city, topup.Resolution{ID: req.Transaction, Counter: 7, Note: "seen"})
		return err
	}
	_, err := w.authorise(w.signed(r, req), true)
	refused[*topup.ClosedError](t, w, "a permission that came too late", err)
}

// A city without a good signing certificate signs nothing and writes nothing.
func TestSigner(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	request := w.signed(r, w.request(r, "9901000000012345", 7))
	good := w.signer[home]
	fails := func(what string) {
		t.Helper()
		if _, err := w.authorise(request, true); err == nil {
			t.Errorf("%s: signed", what)
		} else if _, ok := errors.AsType[*topup.SignerError](err); !ok && what != "none" {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.signer[home] = nil
	fails("none")
	w.signer[home] = w.signer[away]
	fails("another city's")
	w.signer[home] = r.Sign
	fails("a reader's")
	w.signer[home] = good
	w.mark(t, home, good, store.Held)
	fails("one on hold")
	w.mark(t, home, good, store.Good)
	if n := len(w.events(t, store.KindTopUpAuthorised)); n != 0 {
		t.Errorf("%d authorisations", n)
	}
	if _, err := w.authorise(request, true); err != nil {
		t.Error(err)
	}
}

func TestConfirm(t *testing.T) {
	w := newWorld(t)
	r, other := w.reader(t, home, "1001"), w.reader(t, home, "1002")
	card := 0
	begin := func() (*verify.LoadRequest, []byte) {
		card++
		req := w.request(r, fmt.Sprintf("99010000%08d", card), 7)
		permission, err := w.authorise(w.signed(r, req), true)
		if err != nil {
			t.Fatal(err)
		}
		return req, permission
	}
	for _, c := range []struct {
		what    string
		outcome verify.Outcome
		tac     bool
		change  func(*verify.LoadResult)
		want    topup.State
	}{
		{"credited", verify.Credited, true, nil, topup.Credited},
		{"wrong TAC", verify.Credited, false, nil, topup.Disputed},
		{"wrong balance", verify.Credited, true, func(r *verify.LoadResult) { r.Balance++ }, topup.Disputed},
		{"not credited", verify.NotCredited, false, nil, topup.Failed},
		{"torn", verify.Uncertain, false, nil, topup.Torn},
	} {
		req, permission := begin()
		res := result(req, permission, c.outcome)
		if c.change != nil {
			c.change(res)
		}
		tr, err := w.confirm(r, res, c.tac)
		if err != nil || tr.State != c.want {
			t.Errorf("%s: %+v, %v", c.what, tr, err)
		}
	}
	for what, change := range map[string]func(*verify.LoadResult){
		"another card":       func(r *verify.LoadResult) { r.Card = "9901000099999999" },
		"another counter":    func(r *verify.LoadResult) { r.Counter++ },
		"another permission": func(r *verify.LoadResult) { r.PermissionHash[0] ^= 1 },
	} {
		req, permission := begin()
		res := result(req, permission, verify.Credited)
		change(res)
		_, err := w.confirm(r, res, true)
		refused[*verify.MismatchError](t, w, what, err)
	}
	for _, e := range w.events(t, store.KindRefused) {
		if d := fmt.Sprint(e); strings.Contains(d, "99010000") {
			t.Errorf("a card's number is in the journal for ever: %s", d)
		}
	}
	req, permission := begin()
	res := result(req, permission, verify.Credited)
	res.Reader = other.Sign.X509().DNSNames[0]
	_, err := w.confirm(other, res, true)
	refused[*verify.MismatchError](t, w, "another reader", err)
	res.Reader = req.Reader
	_, err = w.confirm(other, res, true)
	refused[*verify.MismatchError](t, w, "another reader in its name", err)
	res.City = away
	_, err = w.confirm(r, res, true)
	refused[*policy.Denied](t, w, "another city", err)
	res.City, res.Transaction = home, strings.Repeat("0", 32)
	if _, err = w.confirm(r, res, true); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such transaction: %v", err)
	}

	// From doubt to certainty, and no way back.
	res = result(req, permission, verify.Uncertain)
	if tr, err := w.confirm(r, res, false); err != nil || tr.State != topup.Torn {
		t.Fatalf("%+v, %v", tr, err)
	}
	res = result(req, permission, verify.Credited)
	if tr, err := w.confirm(r, res, false); err != nil || tr.State != topup.Disputed {
		t.Fatalf("%+v, %v", tr, err)
	}
	w.wait(time.Hour) // a result may come late
	last := w.sign(r, oid.ContentLoadResult, res)
	confirm := func(tac bool) (*topup.Transaction, error) {
		return w.service.Confirm(t.Context(), w.city, topup.Confirmation{Result: last, TACAccepted: tac})
	}
	if tr, err := confirm(true); err != nil || tr.State != topup.Credited {
		t.Fatalf("%+v, %v", tr, err)
	}
	_, err = w.confirm(r, result(req, permission, verify.NotCredited), true)
	refused[*topup.ClosedError](t, w, "afterwards not credited", err)
	if tr, err := confirm(false); err != nil || tr.State != topup.Credited {
		t.Errorf("the same result again: %+v, %v", tr, err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	begin := func(card string) *verify.LoadRequest {
		req := w.request(r, card, 7)
		if _, err := w.authorise(w.signed(r, req), true); err != nil {
			t.Fatal(err)
		}
		return req
	}
	lost, done := begin("9901000000000001"), begin("9901000000000002")
	resolve := func(res topup.Resolution) (*topup.Transaction, error) {
		return w.service.Resolve(t.Context(), w.city, res)
	}
	_, err := resolve(topup.Resolution{ID: lost.Transaction, Counter: 7, Note: "seen at the counter"})
	refused[*topup.UnprovenError](t, w, "before its end", err)

	overdue := func() int {
		t.Helper()
		list, _, err := w.service.List(t.Context(), w.city, topup.Query{City: home, State: topup.Overdue})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := overdue(); n != 0 {
		t.Errorf("%d overdue", n)
	}
	w.wait(time.Hour)
	if n := overdue(); n != 2 {
		t.Errorf("%d overdue, want 2", n)
	}
	_, err = resolve(topup.Resolution{ID: lost.Transaction, Counter: 7})
	refused[*topup.UnprovenError](t, w, "without a note", err)
	_, err = resolve(topup.Resolution{ID: lost.Transaction, Counter: 6, Note: "seen"})
	refused[*topup.UnprovenError](t, w, "a lower counter", err)
	_, err = resolve(topup.Resolution{ID: done.Transaction, Counter: 8, Note: "seen"})
	refused[*topup.UnprovenError](t, w, "moved on, without a TAC", err)
	_, err = w.service.Resolve(t.Context(), policy.Caller{Name: "b", Roles: []policy.Role{policy.TopUp}, City: away}, topup.Resolution{ID: lost.Transaction, Counter: 7, Note: "seen"})
	refused[*policy.Denied](t, w, "another city", err)

	tr, err := resolve(topup.Resolution{ID: lost.Transaction, Counter: 7, Balance: 10000, Note: "seen at the counter"})
	if err != nil || tr.State != topup.Failed || tr.Note == "" {
		t.Errorf("not moved: %+v, %v", tr, err)
	}
	tr, err = resolve(topup.Resolution{ID: done.Transaction, Counter: 8, Balance: 15000, TAC: []byte{1, 2, 3, 4}, Note: "TAC fetched"})
	if err != nil || tr.State != topup.Credited || tr.NewBalance != 15000 {
		t.Errorf("moved on: %+v, %v", tr, err)
	}
	_, err = resolve(topup.Resolution{ID: done.Transaction, Counter: 7, Note: "seen"})
	refused[*topup.ClosedError](t, w, "closed", err)
	if n := overdue(); n != 0 {
		t.Errorf("%d overdue after all", n)
	}
	if e := w.events(t, topup.KindResolved); len(e) != 2 {
		t.Errorf("journal: %v", e)
	}
	if _, err := resolve(topup.Resolution{ID: "x", Note: "seen"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such transaction: %v", err)
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, home, "1001")
	var ids []string
	for i := range 5 {
		req := w.request(r, fmt.Sprintf("99010000%08d", i), 7)
		permission, err := w.authorise(w.signed(r, req), true)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := w.confirm(r, result(req, permission, verify.Credited), true); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, req.Transaction)
	}
	centre := policy.Caller{Name: "auditor", Roles: []policy.Role{policy.Auditor}}
	for _, c := range []struct {
		caller policy.Caller
		query  topup.Query
		want   []string
	}{
		{w.city, topup.Query{City: home}, ids},
		{centre, topup.Query{}, ids},
		{centre, topup.Query{City: away}, nil},
		{w.city, topup.Query{City: home, State: topup.Credited}, []string{ids[0], ids[2], ids[4]}},
		{centre, topup.Query{State: topup.Authorised}, []string{ids[1], ids[3]}},
	} {
		c.query.Limit = 2
		var got []string
		for {
			list, next, err := w.service.List(t.Context(), c.caller, c.query)
			if err != nil {
				t.Fatal(err)
			}
			for _, tr := range list {
				got = append(got, tr.ID)
			}
			if next == nil {
				break
			}
			c.query.After = next
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%+v: %v, want %v", c.query, got, c.want)
		}
	}
	_, _, err := w.service.List(t.Context(), w.city, topup.Query{})
	refused[*policy.Denied](t, w, "all cities", err)
	stranger := policy.Caller{Name: "b", Roles: []policy.Role{policy.TopUp}, City: away}
	_, err = w.service.Transaction(t.Context(), stranger, ids[0])
	refused[*policy.Denied](t, w, "another city's", err)
	if _, err = w.service.Transaction(t.Context(), w.city, "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such transaction: %v", err)
	}
}

// The scan of the book for the canary would find it.
func TestLeaksAreFound(t *testing.T) {
	for skip := range 4 {
		b := append(bytes.Repeat([]byte("x"), skip), canary...)
		if leaks(b) == "" || leaks([]byte(base64.StdEncoding.EncodeToString(append(b, "tail"...)))) == "" {
			t.Errorf("not found at %d", skip)
		}
	}
	if leaks([]byte("nothing")) != "" {
		t.Error("found in nothing")
	}
}

func TestNew(t *testing.T) {
	if _, err := topup.New(topup.Config{}); err == nil {
		t.Error("a service on nothing")
	}
}

func BenchmarkAuthorise(b *testing.B) {
	w := newWorld(b)
	r := w.reader(b, home, "1001")
	counter := uint32(0)
	for b.Loop() {
		counter++
		request := w.signed(r, w.request(r, "9901000000012345", counter))
		if _, err := w.authorise(request, true); err != nil {
			b.Fatal(err)
		}
	}
}
