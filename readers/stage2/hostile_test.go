package stage2_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/readers"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/verify"
)

// TestHostileEnrolments: each of them is refused by name, leaves the reader where it
// was, and does not use the challenge up.
func TestHostileEnrolments(t *testing.T) {
	p := newCentre(t)
	all := p.prepared("1001", "1002")
	p.ticket(city, 2, "1001", "1002")
	r, other := all["1001"], all["1002"]
	r.makeKeys()
	other.makeKeys()
	elsewhere := p.open(other)
	stale := p.open(r)
	replayed := r.enrolment(stale)
	s := p.open(r) // ends the stale one
	if _, err := p.Enrol(t.Context(), operator, stale.ID, replayed); !errors.As(err, new(*stage2.SessionError)) {
		t.Errorf("a session that a newer one ended: %v", err)
	}
	thief := &reader{t: t, number: "1001", device: other.device, certificate: other.certificate, issuer: other.issuer}
	forger := testpki.Must(p.pki.Device("1001")) // a second device certificate of the same name
	for what, message := range map[string][]byte{
		"rubbish":                         []byte("rubbish"),
		"an enrolment of another session": replayed,
		"another reader's device key":     thief.enrolment(s),
		"another device certificate": say(oid.ContentEnrolment, &verify.Enrolment{Session: s.ID, Challenge: s.Challenge, Number: "1001", City: city, Firmware: "1", CSR: r.csr(s)},
			forger.Certificate, forger.Chain[:1], forger.Key),
		"a signature of another key":          spoilt(r.enrolment(s)),
		"another challenge":                   r.enrolment(s, func(e *verify.Enrolment) { e.Challenge = elsewhere.Challenge }),
		"another session's ID":                r.enrolment(s, func(e *verify.Enrolment) { e.Session = elsewhere.ID }),
		"another reader's number":             r.enrolment(s, func(e *verify.Enrolment) { e.Number = "1002" }),
		"another city":                        r.enrolment(s, func(e *verify.Enrolment) { e.City = "330200" }),
		"a request that its key did not sign": r.enrolment(s, func(e *verify.Enrolment) { e.CSR = spoilt(e.CSR) }),
		"a request without a second key":      r.enrolment(s, func(e *verify.Enrolment) { e.CSR = testpki.Must(testpki.CSR(r.sign)) }),
		"a transport key where none is wanted": r.enrolment(s, func(e *verify.Enrolment) {
			e.CSR = testpki.Must(testpki.TransportCSR(r.sign, r.encrypt.Public()))
		}),
		"the device key to sign with": r.enrolment(s, func(e *verify.Enrolment) {
			e.CSR = testpki.Must(testpki.PairCSR(r.device, r.encrypt.Public()))
		}),
		"one key for both": r.enrolment(s, func(e *verify.Enrolment) {
			e.CSR = testpki.Must(testpki.PairCSR(r.sign, r.sign.Public()))
		}),
	} {
		_, err := p.Enrol(t.Context(), operator, s.ID, message)
		p.refused(what, err, stage2.ProofFailed)
		if rd := p.reader("1001"); rd.State != readers.Allotted {
			t.Fatalf("%s: the reader became %s", what, rd.State)
		}
	}
	if _, err := p.Enrol(t.Context(), another, s.ID, r.enrolment(s)); !errors.As(err, new(*stage2.SessionError)) {
		t.Errorf("somebody else's session: %v", err)
	}
	good := r.enrolment(s)
	g, err := p.Enrol(t.Context(), operator, s.ID, good)
	p.must(err)
	// The challenge was answered: other keys need another session.
	r.makeKeys()
	_, err = p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
	p.refused("a second answer to one challenge", err, stage2.ProofFailed)
	p.both(g, store.Held)
	p.wait(time.Hour)
	if _, err := p.Enrol(t.Context(), operator, s.ID, good); !errors.As(err, new(*stage2.SessionError)) {
		t.Errorf("a session that ended: %v", err)
	}
}

// TestRevokedDevice: the proof of a device whose certificate was revoked is none.
func TestRevokedDevice(t *testing.T) {
	p := newCentre(t)
	r := p.one("1001")
	s := p.open(r)
	rd := p.reader("1001")
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		return p.Authority.Revoke(tx, device(rd), 1, time.Time{}, "centre")
	}))
	_, err := p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
	p.refused("a revoked device", err, stage2.ProofFailed)
}

// TestHostileReceipts: nothing but the receipt of the pair on hold makes it good.
func TestHostileReceipts(t *testing.T) {
	p := newCentre(t)
	all := p.prepared("1001", "1002")
	ticket := p.ticket(city, 2, "1001", "1002")
	r, other := all["1001"], all["1002"]
	r.ticket, other.ticket = ticket, ticket
	so, _ := p.enrol(other)
	first, before := p.enrol(r)
	early := r.receipt(first)
	r.sign = nil
	s, g := p.enrol(r) // with new keys: the pair of before is revoked
	swapped := *r
	swapped.pair = other.pair
	swapped.sign = other.sign
	for what, message := range map[string][]byte{
		"rubbish":                        []byte("rubbish"),
		"a receipt of another session":   early,
		"the pair of before":             resigned(r, s, before),
		"another session's ID":           r.receipt(s, func(v *verify.Receipt) { v.Session = so.ID }),
		"another reader's receipt":       other.receipt(so),
		"another reader's pair":          swapped.receipt(s),
		"another encryption certificate": r.receipt(s, func(v *verify.Receipt) { v.Encrypt = sha256.Sum256(other.pair.Encrypt) }),
		"another device":                 r.receipt(s, func(v *verify.Receipt) { v.Device = sha256.Sum256(other.certificate) }),
		"another ticket":                 r.receipt(s, func(v *verify.Receipt) { v.Ticket = "00112233445566778899aabbccddeeff" }),
		"another city":                   r.receipt(s, func(v *verify.Receipt) { v.City = "330200" }),
	} {
		_, err := p.Receipt(t.Context(), operator, s.ID, message)
		p.refused(what, err, stage2.ProofFailed)
		p.both(g, store.Held)
	}
	_, err := p.Receipt(t.Context(), operator, first.ID, early)
	if !errors.Is(err, stage2.ProofFailed) && !errors.As(err, new(verify.Misfit)) {
		t.Errorf("the receipt of a pair that was revoked: %v", err)
	}
	p.both(g, store.Held)
	_, err = p.Receipt(t.Context(), operator, s.ID, r.receipt(s))
	p.must(err)
	r.finish()
	// A renewal: the old key signs the enrolment, and never the receipt.
	s = p.open(r)
	unfinished := &reader{t: t, number: "1001", device: r.device, certificate: r.certificate, issuer: r.issuer}
	byDevice := *s
	byDevice.Renew = false
	_, err = p.Enrol(t.Context(), operator, s.ID, unfinished.enrolment(&byDevice))
	p.refused("a renewal by the device key", err, stage2.ProofFailed)
	next, err := p.Enrol(t.Context(), operator, s.ID, r.enrolment(s))
	p.must(err)
	r.install(next)
	for what, message := range map[string][]byte{
		"a receipt by the old key": say(oid.ContentReceipt, &verify.Receipt{Session: s.ID, Number: "1001", City: city, Ticket: ticket, Firmware: "1", Time: time.Now().UTC().Truncate(time.Second),
			Sign: sha256.Sum256(next.Sign), Encrypt: sha256.Sum256(next.Encrypt), Device: sha256.Sum256(r.certificate)}, r.was.Sign, r.was.Chain, r.present),
		"the new certificate over another signature": spoilt(r.receipt(s)),
	} {
		_, err := p.Receipt(t.Context(), operator, s.ID, message)
		p.refused(what, err, stage2.ProofFailed)
		p.both(next, store.Held)
		p.both(r.was, store.Good)
	}
}

// resigned is a receipt of another pair, said to be of this session.
func resigned(r *reader, s *stage2.Session, pair *stage2.Grant) []byte {
	copied := *r
	copied.pair = &stage2.Grant{Number: pair.Number, Sign: bytes.Clone(r.pair.Sign), Encrypt: pair.Encrypt, Chain: pair.Chain}
	return copied.receipt(s)
}
