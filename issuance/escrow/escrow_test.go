package escrow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/cms"
	"hufu/internal/testpki"
	"hufu/issuance/escrow"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

// TestLife takes one reader's key all the way, with a look at everything after each step.
func TestLife(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	stop := w.run()
	w.full()
	w.check()
	if c := w.counts(); c != (escrow.Counts{Spare: 20, Wanted: 20}) {
		t.Errorf("counts are %+v", c)
	}

	head := w.head()
	spki := testpki.Must(w.Claim(ctx, "1001", city))
	if again := testpki.Must(w.Claim(ctx, "1001", city)); !bytes.Equal(again, spki) {
		t.Error("the same reader got another key")
	}
	if other := testpki.Must(w.Claim(ctx, "1002", city)); bytes.Equal(other, spki) {
		t.Error("two readers got one key")
	}
	if kinds := w.since(head); !slices.Equal(kinds, []string{escrow.KindClaimed, escrow.KindClaimed}) {
		t.Errorf("the journal says %v", kinds)
	}
	w.full()
	w.check()

	head = w.head()
	r := w.initialise("1001")
	if !bytes.Equal(r.spki, spki) {
		t.Error("the reader's certificate is over another key than it claimed")
	}
	if kinds := w.since(head); !slices.Equal(kinds, []string{escrow.KindInUse, escrow.KindDelivered}) {
		t.Errorf("the journal says %v", kinds)
	}
	w.check()

	// A lost delivery is made again, to another one-time key.
	r.transport = newKey(t)
	r.open(w, testpki.Must(w.Deliver(ctx, r.spki, spkiOf(t, r.transport.Public()))))

	// A renewal claims a new key; the old one is in use until its certificate ends.
	renewed := w.initialise("1001")
	if bytes.Equal(renewed.spki, r.spki) {
		t.Error("a renewal got the old key")
	}
	w.check()

	w.revoke(r.certs[1])
	w.until("the key to be history", func() bool { return w.counts().History == 1 })
	w.check()
	if _, err := w.Deliver(ctx, r.spki, spkiOf(t, r.transport.Public())); !isState(err) {
		t.Errorf("a key of history is delivered: %v", err)
	}
	w.ahead.Store(int64(6 * 365 * 24 * time.Hour))
	w.revoke(w.initialise("1003").certs[0]) // any event, so that Run looks at the time
	w.until("the expired key to be history", func() bool { return w.counts().History >= 2 })
	w.check()
	w.update(func(tx *store.Tx) error { return w.Release(tx, "1002", "tester", "it broke") })
	w.check()
	stop()
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	if w.log.b.Len() > 0 {
		t.Errorf("the log: %s", w.log.b.String())
	}
}

// TestRefusals: what is not to be is refused, and leaves no trace.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r := w.initialise("1001") // from an empty pool
	spare := testpki.Must(w.Claim(ctx, "1002", city))
	transport := spkiOf(t, newKey(t).Public())
	head := w.head()
	for what, err := range map[string]error{
		"no reader":                   first(w.Claim(ctx, "", city)),
		"no city":                     first(w.Claim(ctx, "1003", "")),
		"delivery of a key unknown":   first(w.Deliver(ctx, transport, transport)),
		"delivery to no key":          first(w.Deliver(ctx, r.spki, nil)),
		"delivery to rubbish":         first(w.Deliver(ctx, r.spki, []byte("rubbish"))),
		"delivery before its time":    first(w.Deliver(ctx, spare, transport)),
		"a signing certificate":       first(w.spine.Issue(ctx, w.signing(r))),
		"another's claim":             w.book.Update(ctx, func(tx *store.Tx) error { return w.Claimed(tx, spare, "1001") }),
		"a claim on a stranger's key": w.book.Update(ctx, func(tx *store.Tx) error { return w.Claimed(tx, transport, "1001") }),
		"a second certificate":        w.book.Update(ctx, func(tx *store.Tx) error { return w.InUse(tx, r.spki, r.certs[1]) }),
		"the signing certificate":     w.book.Update(ctx, func(tx *store.Tx) error { return w.InUse(tx, spare, r.certs[0]) }),
		"an order for a stranger's key": first(w.spine.Issue(ctx, func() ca.Order {
			return w.order(&reader{number: "1009", spki: spkiOf(t, newKey(t).Public())})
		}())),
		"an order for another's key": first(w.spine.Issue(ctx, w.order(&reader{number: "1009", spki: spare}))),
	} {
		if err == nil {
			t.Errorf("%s was granted", what)
		}
	}
	if w.head() != head {
		t.Error("a refusal left something in the book")
	}
	w.update(func(tx *store.Tx) error {
		// Certificates whose keys are not kept are nothing to the centre.
		return errors.Join(w.Retire(tx, city, r.certs[0].Serial), w.Retire(tx, "no such", store.Serial{}), w.Release(tx, "nobody", "x", "y"))
	})
	if c := w.counts(); c.History != 0 {
		t.Errorf("counts are %+v", c)
	}
	// A key whose order failed is the reader's still.
	failing := w.order(&reader{number: "1002", spki: spare})
	failing.Commit = func(*store.Tx, []*store.Certificate) error { return errors.New("no") }
	if _, err := w.spine.Issue(ctx, failing); err == nil {
		t.Fatal("it was issued")
	}
	w.check()
	if again := w.initialise("1002"); !bytes.Equal(again.spki, spare) {
		t.Error("the reader got another key")
	}
	// One that went to another city leaves its key behind.
	moved := testpki.Must(w.Claim(ctx, "1010", city))
	elsewhere := testpki.Must(w.Claim(ctx, "1010", "330200"))
	if bytes.Equal(moved, elsewhere) || w.counts().History != 1 {
		t.Errorf("a reader of two cities: %+v", w.counts())
	}
}

func first[T any](_ T, err error) error { return err }

// TestManyAtOnce: many readers claim at once from a pool that is too small; nobody gets
// another's key, and the pool is full again afterwards and not fuller.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.full()
	const n = 60
	got := make([][]byte, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			for range 2 {
				spki, err := w.Claim(context.Background(), fmt.Sprint(2000+i), city)
				if err != nil || got[i] != nil && !bytes.Equal(got[i], spki) {
					t.Errorf("reader %d: %v", i, err)
				}
				got[i] = spki
			}
		})
	}
	group.Wait()
	seen := map[string]bool{}
	for _, spki := range got {
		if seen[string(spki)] {
			t.Error("one key for two readers")
		}
		seen[string(spki)] = true
	}
	w.full()
	w.check()
	if c := w.counts(); c.Claimed != n || c.Spare != 20 {
		t.Errorf("counts are %+v", c)
	}
}

// TestTwoNodes: two nodes of one book fill its pool together, no fuller than is wanted.
func TestTwoNodes(t *testing.T) {
	w := newWorld(t)
	w.conf.Spare = 300
	w.Escrow = testpki.Must(escrow.New(t.Context(), w.conf))
	w.run()
	second := testpki.Must(escrow.New(t.Context(), w.conf))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- second.Run(ctx) }()
	w.full()
	w.check()
	// A key that is taken at one is made up for at the other too.
	testpki.Must(second.Claim(t.Context(), "1", city))
	w.until("the pool to be full again", func() bool { c := w.counts(); return c.Claimed == 1 && c.Spare == 300 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c := w.counts(); c.Spare != 300 {
		t.Errorf("counts are %+v", c)
	}
}

// TestTokenAway: the pool waits for a token that went away, claims from what is spare go
// on, deliveries say what is wrong, and all goes on when the token is back.
func TestTokenAway(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.full()
	before := w.initialise("1000")
	elsewhere := filepath.Join(t.TempDir(), "tokens")
	if err := os.Rename(w.home.Tokens(), elsewhere); err != nil {
		t.Fatal(err)
	}
	testpki.Must(w.Claim(t.Context(), "1001", city))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := w.Deliver(ctx, before.spki, spkiOf(t, newKey(t).Public())); err == nil {
		t.Error("delivered without a token")
	}
	w.check()
	if err := os.Rename(elsewhere, w.home.Tokens()); err != nil {
		t.Fatal(err)
	}
	w.full()
	w.initialise("1001")
	w.check()
}

// TestOtherToken: a book that keeps keys is not taken up with another token, or with one
// whose key of that label is another.
func TestOtherToken(t *testing.T) {
	w := newWorld(t)
	w.initialise("1001")
	if _, err := w.home.Init("other", []byte("12345678"), []byte("1234")); err != nil {
		t.Fatal(err)
	}
	other := testpki.Must(openOther(t, w))
	conf := w.conf
	conf.Token = other
	if _, err := escrow.New(t.Context(), conf); err == nil {
		t.Error("taken up with a token that has no such wrapping key")
	}
	if _, err := other.GenerateWrappingKey(t.Context(), label); err != nil {
		t.Fatal(err)
	}
	if _, err := escrow.New(t.Context(), conf); err == nil {
		t.Error("taken up with another wrapping key of the same label")
	}
	// A new label is a new wrapping key; what lies under the old one still opens.
	conf.Token, conf.Wrapping = w.token, "kmc-2"
	w.Escrow = testpki.Must(escrow.New(t.Context(), conf))
	r := w.initialise("1002")
	old := w.all()
	if len(old) != 2 || old[0].Wrapping == old[1].Wrapping {
		t.Errorf("%d keys under one wrapping key", len(old))
	}
	w.revoke(r.certs[1])
	for _, k := range old {
		if _, err := w.Deliver(t.Context(), k.SPKI, spkiOf(t, newKey(t).Public())); err != nil {
			t.Errorf("a key under %s: %v", k.Wrapping, err)
		}
	}
	conf.Wrapping = ""
	if _, err := escrow.New(t.Context(), conf); err == nil {
		t.Error("taken up without a wrapping key")
	}
}

// TestRestore: after a restore no key of the time before is given out; what the backup
// calls spare may be in a reader's hands by now.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.full()
	before := w.initialise("1001")
	claimed := testpki.Must(w.Claim(t.Context(), "1002", city))
	w.full()
	stop()
	var backup bytes.Buffer
	if err := w.book.Backup(t.Context(), &backup, nil); err != nil {
		t.Fatal(err)
	}
	after := w.initialise("1003") // nobody will know
	w.check()
	if err := w.book.Close(); err != nil {
		t.Fatal(err)
	}
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	w.book = testpki.Must(store.Restore(t.Context(), store.Config{Engine: engine, Now: w.now, Tables: tables}, &backup, "tester"))
	w.made = map[string]bool{}
	w.up()
	w.check()
	// Before Run has settled anything, nothing old is given out either.
	if spki := testpki.Must(w.Claim(t.Context(), "1002", city)); bytes.Equal(spki, claimed) {
		t.Error("a key claimed before the restore is given out again")
	}
	if spki := testpki.Must(w.Claim(t.Context(), "1004", city)); bytes.Equal(spki, after.spki) {
		t.Error("a key of a reader that nobody knows of is given to another")
	}
	w.run()
	w.until("the old ones to be history", func() bool { return w.counts().History == 21 })
	w.full()
	w.check()
	if c := w.counts(); c != (escrow.Counts{Spare: 20, Claimed: 2, InUse: 1, History: 21, Wanted: 20}) {
		t.Errorf("counts are %+v", c)
	}
	// The reader that nobody knows of has the key, and cannot have it certified.
	if _, err := w.spine.Issue(t.Context(), w.signing(after)); !isState(err) {
		t.Errorf("a kept key is certified for signing: %v", err)
	}
	before.transport = newKey(t)
	before.open(w, testpki.Must(w.Deliver(t.Context(), before.spki, spkiOf(t, before.transport.Public()))))
}

// TestCheckFinds: each fault that Check is for is found, by its words.
func TestCheckFinds(t *testing.T) {
	w := newWorld(t)
	r := w.initialise("1001")
	testpki.Must(w.Claim(t.Context(), "1002", city))
	w.check()
	of := func(s escrow.State) *escrow.Key {
		for _, k := range w.all() {
			if k.State == s {
				return k
			}
		}
		panic("none")
	}
	spoil := func(s escrow.State, change func(*escrow.Key)) func(*store.Tx) error {
		k := of(s)
		change(k)
		return func(tx *store.Tx) error { return escrow.Spoil(tx, k) }
	}
	for what, c := range map[string]struct {
		do   func(*store.Tx) error
		says string
	}{
		"a lost key":       {func(tx *store.Tx) error { return escrow.Lose(tx, of(escrow.InUse)) }, "history was lost"},
		"another key":      {spoil(escrow.Claimed, func(k *escrow.Key) { k.SPKI = r.spki }), "another public half"},
		"no blob":          {spoil(escrow.InUse, func(k *escrow.Key) { k.Blob = nil }), "no wrapped private half"},
		"nobody's claim":   {spoil(escrow.Claimed, func(k *escrow.Key) { k.Reader = "" }), "belongs to reader"},
		"another state":    {spoil(escrow.Claimed, func(k *escrow.Key) { k.State = escrow.History }), "are counted"},
		"another reader":   {spoil(escrow.InUse, func(k *escrow.Key) { k.Reader = "77" }), "is of reader 77"},
		"no certificate":   {spoil(escrow.InUse, func(k *escrow.Key) { k.CA = "" }), "with a certificate of CA"},
		"a stranger's one": {spoil(escrow.InUse, func(k *escrow.Key) { k.Serial[5] ^= 1 }), "not in the book with this key"},
		"a later epoch":    {spoil(escrow.Claimed, func(k *escrow.Key) { k.Epoch = 9 }), "is of epoch 9"},
		"a signing key": {spoil(escrow.Claimed, func(k *escrow.Key) {
			k.SPKI = spkiOf(t, testpki.Must(parse(r.certs[0].DER)).PublicKey)
			k.Hash = store.Sum(k.SPKI)
		}), "whose key may sign"},
		"a CA's key": {spoil(escrow.Claimed, func(k *escrow.Key) {
			k.SPKI = spkiOf(t, w.pki.CA(city).Signer.Public())
			k.Hash = store.Sum(k.SPKI)
		}), "is the key of CA " + city},
	} {
		t.Run(what, func(t *testing.T) {
			// Check looks at what is committed, so the fault is made in a copy.
			copied := w.copy(t)
			defer copied.Close()
			if err := copied.Update(t.Context(), c.do); err != nil {
				t.Fatal(err)
			}
			err := escrow.Check(t.Context(), copied)
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.says)) {
				t.Errorf("it is not found: %v", err)
			}
		})
	}
	w.check()
}

// copy returns the book once more, in a file of its own.
func (w *world) copy(t *testing.T) *store.Book {
	t.Helper()
	path := filepath.Join(t.TempDir(), "book")
	if err := os.WriteFile(path, testpki.Must(os.ReadFile(w.path)), 0o600); err != nil {
		t.Fatal(err)
	}
	engine := testpki.Must(bolt.Open(path, bolt.Options{}))
	return testpki.Must(store.Open(t.Context(), store.Config{Engine: engine, Now: w.now, Tables: tables}))
}

// TestRecover: an approved recovery is sealed to the recipient alone; what is refused is
// in the journal and gives nothing out.
func TestRecover(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r := w.initialise("1001")
	cert, key := w.recipient("Judge Bao")
	signing := r.certs[0]
	held, _ := w.recipient("Held")
	w.update(func(tx *store.Tx) error {
		return w.spine.Suspend(tx, ca.Ref{CA: held.CA, Serial: held.Serial}, "tester")
	})
	foreign := testpki.Must(testpki.New(testpki.Config{}))
	stranger := testpki.Must(foreign.CA("staff").New("recipient", policy.Name{Person: "Judge Bao"}))
	unknown := testpki.Must(w.pki.CA("staff").New("recipient", policy.Name{Person: "Not in the book"}))
	operator := testpki.Must(w.pki.Operator("Li", ""))
	for what, c := range map[string]struct {
		serial    store.Serial
		recipient []byte
		reason    string
		want      string
	}{
		"a signing key":               {signing.Serial, cert.DER, "x", "not-kept"},
		"no such certificate":         {store.Serial{1, 2}, cert.DER, "x", "not-kept"},
		"no reason":                   {r.certs[1].Serial, cert.DER, "", "reason"},
		"a long reason":               {r.certs[1].Serial, cert.DER, string(make([]byte, 501)), "reason"},
		"a reason of no characters":   {r.certs[1].Serial, cert.DER, "\xff", "reason"},
		"no recipient":                {r.certs[1].Serial, nil, "x", "recipient"},
		"a recipient on hold":         {r.certs[1].Serial, held.DER, "x", "recipient"},
		"a recipient of another root": {r.certs[1].Serial, stranger.Certificate, "x", "recipient"},
		"a recipient nobody knows":    {r.certs[1].Serial, unknown.Certificate, "x", "recipient"},
		"an operator's certificate":   {r.certs[1].Serial, operator.Certificate, "x", "recipient"},
		"the reader's certificate":    {r.certs[1].Serial, r.certs[1].DER, "x", "recipient"},
	} {
		_, err := w.Prepare(ctx, c.serial, c.recipient, c.reason)
		var refused *escrow.RecoveryError
		if !errors.As(err, &refused) || refused.Problem != c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
	request := testpki.Must(w.Prepare(ctx, r.certs[1].Serial, cert.DER, "order of a court"))
	if back, err := escrow.ParseRecovery(request.Canonical()); err != nil || back.Serial != request.Serial || !bytes.Equal(back.Recipient, cert.DER) {
		t.Errorf("what officers sign reads back as %+v, %v", back, err)
	}
	for _, bad := range []string{"", "{}", "[]", string(request.Canonical()) + " ", `{"x":1}`} {
		if _, err := escrow.ParseRecovery([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a recovery", bad)
		}
	}

	head := w.head()
	no := errors.New("with 1 of 2 signatures")
	envelope, err := w.Recover(ctx, request, "Zhao", "a1", func(*store.Tx, []byte) error { return no })
	if !errors.Is(err, no) || envelope != nil {
		t.Errorf("without an approval: %d octets, %v", len(envelope), err)
	}
	forged := *request
	forged.Certificate[0] ^= 1
	if _, err := w.Recover(ctx, &forged, "Zhao", "a2", func(*store.Tx, []byte) error { return nil }); err == nil {
		t.Error("recovered for another certificate than was approved")
	}
	forged = *request
	forged.Recipient = stranger.Certificate
	if _, err := w.Recover(ctx, &forged, "Zhao", "a3", func(*store.Tx, []byte) error { return nil }); err == nil {
		t.Error("recovered for another recipient than was approved")
	}
	if kinds := w.since(head); !slices.Equal(kinds, []string{escrow.KindRefused, escrow.KindRefused, escrow.KindRefused}) {
		t.Errorf("the journal says %v", kinds)
	}
	w.check()

	recover := func() {
		t.Helper()
		head := w.head()
		var kept []byte
		envelope, err := w.Recover(ctx, request, "Zhao", "a4", func(_ *store.Tx, e []byte) error { kept = e; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(kept, envelope) {
			t.Error("what is kept is not what is given out")
		}
		if kinds := w.since(head); !slices.Equal(kinds, []string{escrow.KindRecovered}) {
			t.Errorf("the journal says %v", kinds)
		}
		o := &cms.Opener{Certificate: cert.DER, ECDH: testpki.Must(key.ECDH())}
		got, err := o.OpenKey(envelope, r.spki)
		if err != nil || !bytes.Equal(got, r.key) {
			t.Errorf("the recipient opens %d octets: %v", len(got), err)
		}
		other := &cms.Opener{Certificate: cert.DER, ECDH: testpki.Must(newKey(t).ECDH())}
		if _, err := other.OpenKey(envelope, r.spki); !errors.Is(err, cms.ErrOpen) {
			t.Errorf("another opens it: %v", err)
		}
		w.check()
	}
	recover()
	// A key of history is recovered too: that is what it is kept for.
	w.revoke(r.certs[1])
	w.update(func(tx *store.Tx) error { return w.Retire(tx, city, r.certs[1].Serial) })
	recover()
	// A recipient that was good when officers signed and is not now gets nothing.
	w.update(func(tx *store.Tx) error {
		return w.spine.Suspend(tx, ca.Ref{CA: cert.CA, Serial: cert.Serial}, "tester")
	})
	if _, err := w.Recover(ctx, request, "Zhao", "a5", func(*store.Tx, []byte) error { return nil }); err == nil {
		t.Error("recovered for a recipient on hold")
	}
}

// TestRestoreBringsBack: certificates that a restore brings back from directories find
// their keys again, good ones in use and revoked ones in history, and both are recovered.
func TestRestoreBringsBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	cert, key := w.recipient("Judge Bao")
	stop := w.run()
	w.full()
	stop() // so that the keys below are those of the backup
	var backup bytes.Buffer
	if err := w.book.Backup(ctx, &backup, nil); err != nil {
		t.Fatal(err)
	}
	good, revoked := w.initialise("1003"), w.initialise("1004")
	w.check()
	if err := w.book.Close(); err != nil {
		t.Fatal(err)
	}
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	w.book = testpki.Must(store.Restore(ctx, store.Config{Engine: engine, Now: w.now, Tables: tables}, &backup, "tester"))
	w.made = map[string]bool{}
	w.up()
	w.update(func(tx *store.Tx) error {
		for _, r := range []*reader{good, revoked} {
			for _, c := range r.certs {
				back := *c
				tx.Append(store.Event{Kind: store.KindIntent, CA: c.CA, Serial: c.Serial, Actor: "restore"})
				back.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial, Actor: "restore",
					Detail: `{"sha256":"` + store.Sum(c.DER).String() + `"}`})
				s := store.Status{CA: c.CA, Serial: c.Serial, State: store.Good, Time: tx.Now().UTC(), NotAfter: c.NotAfter, Shard: c.Shard, Seq: back.Seq}
				if r == revoked {
					s.State, s.Seq = store.Revoked, tx.Append(store.Event{Kind: store.KindRevoked, CA: c.CA, Serial: c.Serial, Actor: "restore"})
				}
				if err := errors.Join(store.Certificates.Insert(tx, &back), store.Statuses.Insert(tx, &s)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	w.check()
	w.run()
	w.until("the keys to find their certificates", func() bool { c := w.counts(); return c.InUse == 1 && c.History == 19 })
	w.full()
	w.check()
	for _, r := range []*reader{good, revoked} {
		request := testpki.Must(w.Prepare(ctx, r.certs[1].Serial, cert.DER, "after a restore"))
		envelope := testpki.Must(w.Recover(ctx, request, "Zhao", "a", func(*store.Tx, []byte) error { return nil }))
		o := &cms.Opener{Certificate: cert.DER, ECDH: testpki.Must(key.ECDH())}
		if got := testpki.Must(o.OpenKey(envelope, r.spki)); !bytes.Equal(got, r.key) {
			t.Errorf("reader %s: another key was recovered", r.number)
		}
	}
}
