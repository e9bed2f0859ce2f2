package stage2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/verify"
)

// TestFirstPair: the exchange as it should be, and every message twice.
func TestFirstPair(t *testing.T) {
	p := newCentre(t)
	r := p.one("1001")
	s := p.open(r)
	if len(s.ID) != 32 || len(s.Challenge) != 32 || s.Ticket != r.ticket || s.Encryption != stage2.ByReader || s.Renew {
		t.Errorf("the session is %+v", s)
	}
	message := r.enrolment(s)
	g, err := p.Enrol(t.Context(), operator, s.ID, message)
	p.must(err)
	r.install(g)
	p.both(g, store.Held)
	if rd := p.reader("1001"); rd.State != readers.Initialised || rd.Escrowed {
		t.Errorf("with its pair on hold it is %+v", rd)
	}
	again, err := p.Enrol(t.Context(), operator, s.ID, message)
	if err != nil || !bytes.Equal(again.Sign, g.Sign) || !bytes.Equal(again.Encrypt, g.Encrypt) {
		t.Errorf("the same enrolment again: %v", err)
	}
	receipt := r.receipt(s)
	for range 2 {
		rd, err := p.Receipt(t.Context(), operator, s.ID, receipt)
		if err != nil || rd.State != readers.Active || rd.Receipt != store.Sum(receipt) {
			t.Fatalf("the receipt: %+v, %v", rd, err)
		}
		p.both(g, store.Good)
	}
	if ticket := testpki.Must(p.stage.Ticket(t.Context(), r.ticket)); ticket.Used != 1 {
		t.Errorf("the ticket counts %d", ticket.Used)
	}
	lines, _, err := p.Receipts(t.Context(), city, r.ticket, nil, 10)
	if err != nil || len(lines) != 1 || !bytes.Equal(lines[0].Receipt, receipt) || !bytes.Equal(lines[0].Device, r.certificate) {
		t.Fatalf("the receipts are %+v, %v", lines, err)
	}
	if _, err := p.Verifier.ReceiptLine(lines[0]); err != nil {
		t.Error(err)
	}
}

// TestKeptKey: the key management centre makes the encryption key, and a reader that
// lost the delivery gets the same one again.
func TestKeptKey(t *testing.T) {
	p := newCentre(t)
	centre := p.keep()
	r := p.one("1001")
	_, g := p.enrol(r)
	if g.SealedKey == nil || !p.reader("1001").Escrowed {
		t.Fatalf("no key was delivered")
	}
	r.encrypt = nil // lost with the power
	p.restart()
	s, second := p.enrol(r)
	if !second.Again || !bytes.Equal(second.Encrypt, g.Encrypt) || bytes.Equal(second.SealedKey, g.SealedKey) {
		t.Error("the same keys did not get the same pair, sealed anew")
	}
	_, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
	p.must(err)
	r.finish()
	if n := testpki.Must(centre.Status(t.Context())); n.InUse != 1 || n.Claimed != 0 {
		t.Errorf("the centre counts %+v", n)
	}
	// A renewal takes another kept key.
	p.initialise(r)
	if n := testpki.Must(centre.Status(t.Context())); n.InUse != 2 || !p.reader("1001").Escrowed {
		t.Errorf("after the renewal the centre counts %+v", n)
	}
	// A transport key that the request does not cover.
	q := p.one("1002")
	q.makeKeys()
	s = p.open(q)
	for what, csr := range map[string][]byte{
		"no transport key":  testpki.Must(testpki.CSR(q.sign)),
		"an encryption key": testpki.Must(testpki.PairCSR(q.sign, q.encrypt.Public())),
	} {
		_, err := p.Enrol(t.Context(), operator, s.ID, q.enrolment(s, func(e *verify.Enrolment) { e.CSR = csr }))
		p.refused(what, err, stage2.ProofFailed)
	}
}

// TestPowerCuts stops the exchange after each step, on either side, and goes on as
// the same command does.
func TestPowerCuts(t *testing.T) {
	p := newCentre(t)
	for i, cut := range []struct {
		what string
		do   func(r *reader)
	}{
		{"the node after the challenge", func(r *reader) {
			s := p.open(r)
			message := r.enrolment(s)
			p.restart()
			if _, err := p.Enrol(t.Context(), operator, s.ID, message); !errors.As(err, new(*stage2.SessionError)) {
				t.Errorf("a session that the node forgot: %v", err)
			}
		}},
		{"the reader after it made its keys", func(r *reader) { r.enrolment(p.open(r)) }},
		{"the reader before it kept its keys", func(r *reader) {
			s := p.open(r)
			_, err := p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
			p.must(err)
			r.sign, r.encrypt = nil, nil
		}},
		{"the line before the pair came", func(r *reader) {
			s := p.open(r)
			_, err := p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
			p.must(err)
		}},
		{"the token while it signs", func(r *reader) {
			signer := p.pki.CA(city).Signer
			signer.Before = func(int64) error { return errors.New("unplugged") }
			s := p.open(r)
			message := r.enrolment(s)
			if _, err := p.Enrol(t.Context(), operator, s.ID, message); err == nil || errors.Is(err, stage2.ProofFailed) {
				t.Errorf("without a token: %v", err)
			}
			if rd := p.reader(r.number); rd.State != readers.Allotted {
				t.Errorf("without a token the reader became %s", rd.State)
			}
			signer.Before = nil
			if _, err := p.Enrol(t.Context(), operator, s.ID, message); err != nil {
				t.Errorf("the same enrolment, when the token is back: %v", err)
			}
		}},
		{"the reader before it installed the pair", func(r *reader) { p.enrol(r); r.pair = nil }},
		{"the node before the receipt came", func(r *reader) {
			s, _ := p.enrol(r)
			p.restart()
			// The receipt says all that is needed.
			rd, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
			if err != nil || rd.State != readers.Active {
				t.Errorf("a receipt to a node that was started again: %v", err)
			}
		}},
		{"the line before the receipt's answer came", func(r *reader) {
			s, _ := p.enrol(r)
			_, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
			p.must(err)
			p.restart()
			// It signs another one, if it had not kept the first.
			rd, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
			if err != nil || rd.State != readers.Active {
				t.Errorf("another receipt of the same pair: %v", err)
			}
		}},
	} {
		number := fmt.Sprintf("%04d", i)
		r := p.one(number)
		cut.do(r)
		if p.reader(number).State != readers.Active {
			p.initialise(r)
		}
		rd := p.reader(number)
		if rd.State != readers.Active {
			t.Errorf("%s: the reader is %s", cut.what, rd.State)
		}
		if ticket := testpki.Must(p.stage.Ticket(t.Context(), r.ticket)); ticket.Used != 1 {
			t.Errorf("%s: the ticket counts %d", cut.what, ticket.Used)
		}
		good := 0
		p.must(p.book.View(t.Context(), func(tx *store.Tx) error {
			for c, err := range store.Certificates.Scan(tx, "reader", store.Key(number)) {
				if err != nil {
					return err
				}
				s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
				if err != nil {
					return err
				}
				if c.CA == city && s.State != store.Revoked {
					good++
				}
			}
			return nil
		}))
		if good != 2 {
			t.Errorf("%s: %d certificates of the city live", cut.what, good)
		}
	}
}

// TestOutcomes: each refusal by its name.
func TestOutcomes(t *testing.T) {
	p := newCentre(t)
	all := p.prepared("1001", "1002", "1003", "1004", "1005", "2001", "3001", "3002")
	tickets := map[string]string{
		"1001": p.ticket(city, 1, "1001", "1002"), "2001": p.ticket("330200", 1, "2001"),
		"1003": p.ticket(city, 1, "1003"), "1004": p.ticket(city, 1, "1004"),
	}
	p.initialise(all["1001"])
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.stage.Revoke(tx, tickets["1003"], "centre", "stolen")
		return err
	}))
	ask := func(number, of, ticket string) error {
		_, err := p.Open(t.Context(), operator, stage2.Request{Number: number, City: of, Ticket: ticket})
		return err
	}
	p.refused("a number that nobody knows", ask("9999", city, ""), stage2.NotOnTicket)
	p.refused("one on no ticket", ask("3001", city, ""), stage2.NotOnTicket)
	p.refused("one on another ticket", ask("1004", city, tickets["1001"]), stage2.NotOnTicket)
	p.refused("one of another city", ask("2001", city, ""), stage2.WrongCity)
	p.refused("one that is active", ask("1001", city, ""), stage2.AlreadyInitialised)
	p.refused("one above the quota", ask("1002", city, ""), stage2.QuotaSpent)
	p.refused("one on a revoked ticket", ask("1003", city, ""), stage2.TicketRevoked)
	// What is found at the challenge is found again at the pair.
	s, err := p.Open(t.Context(), operator, stage2.Request{Number: "1004", City: city})
	p.must(err)
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.stage.Revoke(tx, tickets["1004"], "centre", "stolen")
		return err
	}))
	_, err = p.Enrol(t.Context(), operator, s.ID, all["1004"].enrolment(s))
	p.refused("a ticket revoked in between", err, stage2.TicketRevoked)
	late := p.ticket(city, 1, "1005")
	p.wait(25 * time.Hour)
	p.refused("one on an expired ticket", ask("1005", city, late), stage2.TicketExpired)
	if rd := p.reader("1004"); rd.State != readers.Allotted {
		t.Errorf("a reader that was refused is %s", rd.State)
	}
}

// TestQuota: of many readers at once, as many get a pair as the ticket allows.
func TestQuota(t *testing.T) {
	p := newCentre(t)
	var numbers []string
	for i := range 64 {
		numbers = append(numbers, fmt.Sprintf("%04d", i))
	}
	all := p.prepared(numbers...)
	ticket := p.ticket(city, 10, numbers...)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, spent := 0, 0
	for _, n := range numbers {
		s := p.open(all[n]) // all of them before the first is done
		wg.Go(func() {
			g, err := p.Enrol(t.Context(), operator, s.ID, all[n].enrolment(s))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
				all[n].install(g)
			case errors.Is(err, stage2.QuotaSpent):
				spent++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if k := testpki.Must(p.stage.Ticket(t.Context(), ticket)); done != 10 || spent != 54 || k.Used != 10 {
		t.Errorf("%d readers got a pair, %d did not, and the ticket counts %d of 10", done, spent, k.Used)
	}
	list, _, err := p.register.List(t.Context(), readers.Query{City: city, State: readers.Initialised, Limit: 100})
	if err != nil || len(list) != 10 {
		t.Errorf("%d readers are initialised, %v", len(list), err)
	}
}

// TestNoReaderTwice: of many sessions with one reader, one pair lives at the end.
func TestNoReaderTwice(t *testing.T) {
	p := newCentre(t)
	first := p.one("1001")
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for range 16 {
		r := *first // a reader that was copied, or a host that is confused
		r.sign = nil
		wg.Go(func() {
			s, err := p.Open(t.Context(), operator, stage2.Request{Number: "1001", City: city})
			if errors.Is(err, stage2.AlreadyInitialised) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			g, err := p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
			if err != nil {
				return // a newer session ended this one, or another was first
			}
			r.install(g)
			if _, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s)); err == nil {
				mu.Lock()
				defer mu.Unlock()
				got++
			}
		})
	}
	wg.Wait()
	rd := p.reader("1001")
	if ticket := testpki.Must(p.stage.Ticket(t.Context(), first.ticket)); got > 1 || ticket.Used != 1 || rd.State != readers.Active && rd.State != readers.Initialised {
		t.Errorf("%d receipts were taken, the ticket counts %d, the reader is %s", got, ticket.Used, rd.State)
	}
}

// TestRenew: an active reader gets a new pair, by its present signing key.
func TestRenew(t *testing.T) {
	p := newCentre(t)
	r := p.one("1001")
	p.initialise(r)
	old := r.was
	s, lost := p.enrol(r)
	p.both(old, store.Good)
	p.both(lost, store.Held)
	r.sign, r.encrypt = nil, nil // lost
	p.restart()
	s, g := p.enrol(r)
	p.both(lost, store.Revoked)
	for range 2 {
		rd, err := p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
		if err != nil || rd.State != readers.Active || !rd.NextSign.IsZero() {
			t.Fatalf("the receipt of the renewal: %+v, %v", rd, err)
		}
	}
	p.both(old, store.Revoked)
	p.both(g, store.Good)
	r.finish()
	// The centre learns of the first pair.
	lines, _, err := p.Receipts(t.Context(), city, "", nil, 10)
	if err != nil || len(lines) != 1 || !bytes.Equal(lines[0].Sign, old.Sign) {
		t.Errorf("the receipts are %d, %v", len(lines), err)
	}
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.register.Suspend(tx, "1001", "counter", "")
		return err
	}))
	if _, err := p.Open(t.Context(), operator, stage2.Request{Number: "1001", City: city, Renew: true}); !errors.As(err, new(*readers.StateError)) {
		t.Errorf("a suspended reader is renewed: %v", err)
	}
}

// TestOfflineCity: a ticket goes to a city with a book of its own and nothing but its
// own CA, and the receipts come back.
func TestOfflineCity(t *testing.T) {
	p := newPlace(t, testpki.Must(testpki.New(testpki.Config{})), "device", "330200")
	all := p.prepared("1001", "1002", "1003")
	ticket := p.ticket(city, 2, "1001", "1002", "1003")
	var file bytes.Buffer
	p.must(p.stage.WriteTicket(t.Context(), ticket, &file))
	c := newPlace(t, p.pki, city)
	v, err := c.stage.Judge(t.Context(), file.Bytes(), true)
	p.must(err)
	c.run(stage1.JobTicketImport, func(tx *store.Tx) (any, error) {
		_, err := c.stage.TakeIn(tx, v, file.Bytes(), true, "city")
		return stage1.TicketArgs{Ticket: v.ID}, err
	})
	for _, n := range []string{"1001", "1002"} {
		c.initialise(all[n])
	}
	_, err = c.Open(t.Context(), operator, stage2.Request{Number: "1003", City: city})
	c.refused("one above the quota", err, stage2.QuotaSpent)
	c.initialise(all["1001"]) // renewed before the receipts go back
	list, _, err := c.Receipts(t.Context(), city, ticket, nil, 10)
	p.must(err)
	var lines [][]byte
	for _, l := range list {
		lines = append(lines, testpki.Must(json.Marshal(l)))
	}
	matches, err := p.stage.Reconcile(t.Context(), ticket, lines, "centre")
	p.must(err)
	if len(matches) != 2 {
		t.Fatalf("%d receipts came back", len(matches))
	}
	for _, m := range matches {
		if m.Outcome != stage1.Matched || p.reader(m.Number).State != readers.Active || !p.reader(m.Number).Elsewhere {
			t.Errorf("reconciled: %+v", m)
		}
	}
	// What is in the city's book is not the centre's to renew.
	if _, err := p.Open(t.Context(), operator, stage2.Request{Number: "1001", City: city, Renew: true}); !errors.As(err, new(*readers.PairError)) {
		t.Errorf("the centre renews a city's reader: %v", err)
	}
}
