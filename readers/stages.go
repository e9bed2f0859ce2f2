package readers

import (
	"fmt"
	"time"

	"hufu/ca"
	"hufu/policy"
	"hufu/store"
)

// CRLReasons of what the register itself revokes (RFC 5280, Section 5.3.1).
const (
	superseded           = 4
	cessationOfOperation = 5
)

// Enter registers a reader from its maker's manifest: of rd its Number, Model,
// Firmware, Approval, Batch and DeviceKey count. A number that is registered is a
// *TakenError.
func (r *Register) Enter(tx *store.Tx, rd Reader, actor string) (*Reader, error) {
	return r.begin(tx, enter, &Reader{Number: rd.Number, Model: rd.Model, Firmware: rd.Firmware, Approval: rd.Approval, Batch: rd.Batch, DeviceKey: rd.DeviceKey}, actor)
}

// Accept registers, in an offline city's book, a reader that a ticket names: of rd
// its Number, City, Ticket, Device, Model, Firmware, Approval and Batch count. A
// number that is registered is a *TakenError.
func (r *Register) Accept(tx *store.Tx, rd Reader, actor string) (*Reader, error) {
	if err := r.checkNumber(rd.Number, rd.City); err != nil {
		return nil, err
	}
	if rd.Ticket == "" || rd.Device.IsZero() {
		return nil, &PairError{rd.Number, "it has no ticket, or the ticket has no hash of its device certificate", "take the reader from a ticket of the centre"}
	}
	return r.begin(tx, accept, &Reader{Number: rd.Number, City: rd.City, Ticket: rd.Ticket, Device: rd.Device,
		Model: rd.Model, Firmware: rd.Firmware, Approval: rd.Approval, Batch: rd.Batch}, actor)
}

// anyCity stands for the city that a reader does not have yet, to judge its
// number alone.
const anyCity = "000000"

func (r *Register) begin(tx *store.Tx, s Step, rd *Reader, actor string) (*Reader, error) {
	if err := r.checkNumber(rd.Number, anyCity); err != nil {
		return nil, err
	}
	if err := rd.checkWords(); err != nil {
		return nil, err
	}
	if err := numberFree(tx, rd.Number); err != nil {
		return nil, err
	}
	return rd, rd.step(tx, s, actor, "")
}

// maxWord is how many octets a model, a customer and their like have at most:
// they are keys of the register.
const maxWord = 128

func (rd *Reader) checkWords() error {
	for _, w := range []struct{ what, word string }{
		{"model", rd.Model}, {"firmware", rd.Firmware}, {"approval", rd.Approval}, {"batch", rd.Batch}, {"customer", rd.Customer}, {"ticket", rd.Ticket},
	} {
		if len(w.word) > maxWord {
			return &PairError{rd.Number, fmt.Sprintf("its %s has %d octets", w.what, len(w.word)), fmt.Sprintf("give one of at most %d", maxWord)}
		}
	}
	return nil
}

// Prepare gives a manufactured reader its device certificate, which certifies the
// key that the manifest gave.
func (r *Register) Prepare(tx *store.Tx, number string, cert *store.Certificate, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	if cert.Profile != "device" || cert.Reader != number {
		return nil, &PairError{number, fmt.Sprintf("certificate %s is of profile %s for reader %q", cert.Serial, cert.Profile, cert.Reader), "issue a device certificate for this reader"}
	}
	if !rd.DeviceKey.IsZero() && rd.DeviceKey != cert.SPKI {
		return nil, &PairError{number, "the device certificate is of another key than the manifest gave", "certify the key of the manifest"}
	}
	rd.DeviceCA, rd.DeviceSerial, rd.Device, rd.DeviceKey = cert.CA, cert.Serial, store.Sum(cert.DER), cert.SPKI
	return rd, rd.step(tx, prepare, actor, "")
}

// Allot puts a prepared reader on a city's ticket.
func (r *Register) Allot(tx *store.Tx, number, city, ticket, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	if err := r.checkNumber(number, city); err != nil {
		return nil, err
	}
	if ticket == "" {
		return nil, &PairError{number, "it is allotted by no ticket", "name the ticket"}
	}
	rd.City, rd.Ticket = city, ticket
	if err := rd.checkWords(); err != nil {
		return nil, err
	}
	return rd, rd.step(tx, allot, actor, "")
}

// Withdraw takes a reader that is not initialised off its ticket again.
func (r *Register) Withdraw(tx *store.Tx, number, actor, note string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	if rd.State == Allotted {
		rd.City, rd.Ticket, rd.Customer = "", "", ""
	}
	return rd, rd.step(tx, withdraw, actor, note)
}

// Initialised gives a reader its first pair, which is on hold: signing,
// encryption. A held pair that the reader had before, and whose keys it lost, is
// revoked with it. It is made for ca.Order.Commit.
func (r *Register) Initialised(tx *store.Tx, number string, certs []*store.Certificate, escrowed bool, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	before := *rd
	if err := rd.mayHave(tx, certs, store.Held); err != nil {
		return nil, err
	}
	rd.take(certs)
	rd.Escrowed = escrowed
	if err := rd.step(tx, initialise, actor, ""); err != nil {
		return nil, err
	}
	return rd, before.each(before.pair(), func(ref ca.Ref) error {
		return r.Authority.Revoke(tx, ref, superseded, time.Time{}, actor)
	})
}

// Activate makes a reader active whose receipt is there: both certificates are
// good from now on.
func (r *Register) Activate(tx *store.Tx, number string, receipt store.Hash, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	rd.Receipt = receipt
	if err := rd.step(tx, activate, actor, ""); err != nil {
		return nil, err
	}
	return rd, rd.each(rd.pair(), func(ref ca.Ref) error { return r.Authority.Resume(tx, ref, actor) })
}

// Report is what a city's receipt tells the centre, whose book does not hold the
// pair.
type Report struct {
	CA            string
	Sign, Encrypt store.Serial
	NotAfter      time.Time
	Receipt       store.Hash
}

// Reported makes an allotted reader active in the centre's book, by the receipt
// that an offline city brought back. Its pair stays in the city's book.
func (r *Register) Reported(tx *store.Tx, number string, p Report, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	if p.Sign.IsZero() || p.Encrypt.IsZero() || p.Sign == p.Encrypt {
		return nil, &PairError{number, "the receipt names no two certificates", "bring the receipt that the reader signed"}
	}
	rd.CA, rd.Sign, rd.Encrypt, rd.NotAfter, rd.Receipt, rd.Elsewhere = p.CA, p.Sign, p.Encrypt, p.NotAfter, p.Receipt, true
	return rd, rd.step(tx, report, actor, "")
}

// Renewing gives an active reader its second pair, on hold. One that it had
// before, and whose keys it lost, is revoked with it. It is made for
// ca.Order.Commit.
func (r *Register) Renewing(tx *store.Tx, number string, certs []*store.Certificate, escrowed bool, actor string) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	before := *rd
	if err := rd.mayHave(tx, certs, store.Held); err != nil {
		return nil, err
	}
	rd.NextCA, rd.NextSign, rd.NextEncrypt, rd.NextEscrowed = certs[0].CA, certs[0].Serial, certs[1].Serial, escrowed
	if err := rd.step(tx, renewing, actor, ""); err != nil {
		return nil, err
	}
	return rd, before.each(before.next(), func(ref ca.Ref) error {
		return r.Authority.Revoke(tx, ref, superseded, time.Time{}, actor)
	})
}

// Renewed puts a reader's second pair, whose receipt is there, in the place of the
// first, which is revoked.
func (r *Register) Renewed(tx *store.Tx, number string, receipt store.Hash, actor string) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	before := *rd
	if rd.State == Active && rd.NextSign.IsZero() {
		return nil, &PairError{number, "no renewal of its pair is under way", "begin one"}
	}
	if rd.State == Active {
		c, err := store.FindCertificate(tx, rd.NextCA, rd.NextSign)
		if err != nil {
			return nil, fmt.Errorf("the second pair of reader %s: %v", number, err)
		}
		rd.NotAfter = c.NotAfter
	}
	rd.CA, rd.Sign, rd.Encrypt, rd.Escrowed = rd.NextCA, rd.NextSign, rd.NextEncrypt, rd.NextEscrowed
	rd.NextCA, rd.NextSign, rd.NextEncrypt, rd.NextEscrowed = "", store.Serial{}, store.Serial{}, false
	rd.Receipt = receipt
	if err := rd.step(tx, renewed, actor, ""); err != nil {
		return nil, err
	}
	if err := rd.each(rd.pair(), func(ref ca.Ref) error { return r.Authority.Resume(tx, ref, actor) }); err != nil {
		return nil, err
	}
	return rd, before.each(before.pair(), func(ref ca.Ref) error {
		return r.Authority.Revoke(tx, ref, superseded, time.Time{}, actor)
	})
}

// here returns a reader whose pair this book holds, or may come to hold.
func (r *Register) here(tx *store.Tx, number string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err == nil && rd.Elsewhere {
		err = &PairError{number, "its pair is in the book of city " + rd.City, "do it at that city's node"}
	}
	return rd, err
}

// pair is the reader's present pair, as far as this book holds one.
func (rd *Reader) pair() []ca.Ref {
	if !rd.Paired() {
		return nil
	}
	return []ca.Ref{{CA: rd.CA, Serial: rd.Sign}, {CA: rd.CA, Serial: rd.Encrypt}}
}

// next is the pair of the renewal under way.
func (rd *Reader) next() []ca.Ref {
	if rd.NextSign.IsZero() {
		return nil
	}
	return []ca.Ref{{CA: rd.NextCA, Serial: rd.NextSign}, {CA: rd.NextCA, Serial: rd.NextEncrypt}}
}

// Certificates names the certificates of the reader's pairs that this book holds:
// the present one, signing first, then that of a renewal under way.
func (rd *Reader) Certificates() []ca.Ref { return append(rd.pair(), rd.next()...) }

// each does something to certificates of the reader's.
func (rd *Reader) each(refs []ca.Ref, f func(ca.Ref) error) error {
	for _, ref := range refs {
		if err := f(ref); err != nil {
			return fmt.Errorf("reader %s: %w", rd.Number, err)
		}
	}
	return nil
}

// Name is the reader's name for its pair's certificates.
func (rd *Reader) Name() policy.Name { return policy.Name{Reader: rd.Number, City: rd.City} }
