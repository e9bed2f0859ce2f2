package stage2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"hufu/policy"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// maxReceipt is how many octets of a receipt are looked at.
const maxReceipt = 64 << 10

// row keeps what a city brings back of a reader: the receipt of its first pair, and
// the device certificate where no other table has it.
type row struct {
	Number  string
	City    string
	Ticket  string       `json:",omitempty"`
	Device  []byte       `json:",omitempty"` // DER
	Chain   []store.Hash `json:",omitempty"` // of the CAs of Device, upward
	CA      string       `json:",omitempty"`
	Sign    store.Serial `json:",omitzero"`
	Encrypt store.Serial `json:",omitzero"`
	Receipt []byte       `json:",omitempty"` // of the first pair
	Renewed []byte       `json:",omitempty"` // receipt of the present pair, where that is a later one
	Time    time.Time    `json:",omitzero"`  // when Receipt came
}

// authority is a CA of other books whose certificates travelled with a reader.
type authority struct {
	Hash store.Hash
	DER  []byte
}

var (
	rows = store.Table[row]{
		Name:  "stage2.receipt",
		Key:   func(r *row) []byte { return store.Key(r.Number) },
		Codec: store.JSON[row](),
		Indexes: []store.Index[row]{
			{Name: "city", Keys: func(r *row) [][]byte { return r.brought(store.Key(r.City, r.Number)) }},
			{Name: "ticket", Keys: func(r *row) [][]byte { return r.brought(store.Key(r.Ticket, r.Number)) }},
		},
	}
	authorities = store.Table[authority]{
		Name:  "stage2.authority",
		Key:   func(a *authority) []byte { return store.Key(a.Hash) },
		Codec: store.JSON[authority](),
	}
)

// brought is no key at all where there is no receipt yet.
func (r *row) brought(key []byte) [][]byte {
	if len(r.Receipt) == 0 {
		return nil
	}
	return [][]byte{key}
}

func rowOf(tx *store.Tx, rd *readers.Reader) (*row, error) {
	r, err := rows.Get(tx, store.Key(rd.Number))
	if isNotFound(err) {
		return &row{Number: rd.Number, City: rd.City, Ticket: rd.Ticket}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the receipt of reader %s: %w", rd.Number, err)
	}
	return r, nil
}

// noteDevice keeps the device certificate of a reader that the centre prepared in
// another book: it is half of what the centre judges a receipt by.
func (s *Service) noteDevice(tx *store.Tx, rd *readers.Reader, p *proof) error {
	if rd.DeviceCA != "" {
		return nil
	}
	r, err := rowOf(tx, rd)
	if err != nil {
		return err
	}
	r.City, r.Ticket, r.Device, r.Chain = rd.City, rd.Ticket, p.device.DER, nil
	for _, der := range p.chain {
		a := &authority{store.Sum(der), der}
		if _, err := authorities.Get(tx, authorities.Key(a)); isNotFound(err) {
			err = authorities.Put(tx, a)
			if err != nil {
				return fmt.Errorf("recording a CA of device certificates: %w", err)
			}
		} else if err != nil {
			return fmt.Errorf("looking up a CA of device certificates: %w", err)
		}
		r.Chain = append(r.Chain, a.Hash)
	}
	return rows.Put(tx, r)
}

// Receipt judges the receipt that a reader signed with its new key, and makes the
// pair that it names good. A repeat answers the same; so does another receipt of the
// same pair. A session that this node forgot is no hindrance: the receipt says all
// that is needed.
func (s *Service) Receipt(ctx context.Context, caller policy.Caller, id string, der []byte) (*readers.Reader, error) {
	r, m, err := s.Verifier.Receipt(ctx, der)
	number, city := "", ""
	if o := s.sessions.find(id, s.Now()); o != nil {
		number, city = o.Number, o.City
	}
	if err != nil && number == "" {
		return nil, err // nobody knows whose it is
	}
	if err != nil {
		return nil, s.refused(ctx, caller.Name, number, city, unproven(number, err))
	}
	fails := func(format string, args ...any) error { return unproven(r.Number, fmt.Errorf(format, args...)) }
	if r.Session != id || number != "" && (r.Number != number || r.City != city) {
		return nil, s.refused(ctx, caller.Name, r.Number, r.City, fails("the receipt is of another session"))
	}
	var rd *readers.Reader
	err = s.Book.Update(ctx, func(tx *store.Tx) (err error) {
		if rd, err = s.Register.Find(tx, r.Number); err != nil {
			return err
		}
		rd, err = s.receive(tx, rd, r, m, der, caller.Name)
		return err
	})
	if isNotFound(err) {
		err = &Refusal{NotOnTicket, r.Number, fmt.Sprintf("reader %s is not registered here", r.Number), "bring the receipt to the node that issued the pair"}
	}
	if err != nil {
		return nil, s.refused(ctx, caller.Name, r.Number, r.City, err)
	}
	s.sessions.end(id)
	return rd, nil
}

// receive takes a reader on by a good receipt.
func (s *Service) receive(tx *store.Tx, rd *readers.Reader, r *verify.Receipt, m *verify.Message, der []byte, actor string) (*readers.Reader, error) {
	switch {
	case r.City != rd.City:
		return nil, &Refusal{WrongCity, r.Number, fmt.Sprintf("the receipt is of city %s, and reader %s belongs to %s", r.City, r.Number, rd.City), "initialise the reader anew in its city"}
	case store.Hash(r.Device) != rd.Device || r.Ticket != rd.Ticket:
		return nil, unproven(r.Number, errors.New("the receipt names another device certificate or another ticket"))
	}
	present, err := names(tx, r, rd.CA, rd.Sign, rd.Encrypt)
	if err != nil {
		return nil, err
	}
	next, err := names(tx, r, rd.NextCA, rd.NextSign, rd.NextEncrypt)
	if err != nil {
		return nil, err
	}
	sum := store.Hash(m.Hash)
	first := rd.State == readers.Initialised && present
	switch {
	case first:
		rd, err = s.Register.Activate(tx, r.Number, sum, actor)
	case next:
		rd, err = s.Register.Renewed(tx, r.Number, sum, actor)
	case present && !rd.State.Ended():
		return rd, nil // the receipt of before, or another one of the same pair
	default:
		return nil, unproven(r.Number, errors.New("the receipt is not for the pair that the reader was given last"))
	}
	if err != nil {
		return nil, err
	}
	row, err := rowOf(tx, rd)
	if err != nil {
		return nil, err
	}
	if first {
		row.City, row.Ticket, row.CA, row.Sign, row.Encrypt, row.Receipt, row.Time = rd.City, rd.Ticket, rd.CA, rd.Sign, rd.Encrypt, bytes.Clone(der), tx.Now().UTC()
	} else {
		row.Renewed = bytes.Clone(der)
	}
	tx.Append(store.Event{Kind: KindReceipt, CA: rd.CA, Serial: rd.Sign, Actor: actor, Detail: `{"reader":"` + rd.Number + `","sha256":"` + sum.String() + `"}`})
	return rd, rows.Put(tx, row)
}

// names tells whether a receipt names that pair.
func names(tx *store.Tx, r *verify.Receipt, id string, serials ...store.Serial) (bool, error) {
	want := []store.Hash{r.Sign, r.Encrypt}
	for i, serial := range serials {
		if serial.IsZero() {
			return false, nil
		}
		c, err := store.FindCertificate(tx, id, serial)
		if isNotFound(err) {
			return false, nil // another book's
		}
		if err != nil {
			return false, fmt.Errorf("reading the pair of reader %s: %w", r.Number, err)
		}
		if store.Sum(c.DER) != want[i] {
			return false, nil
		}
	}
	return true, nil
}

// Receipts returns, page by page, what the centre needs to know of the readers that
// were initialised: of a ticket, or else of a city.
func (s *Service) Receipts(ctx context.Context, city, ticket string, after []byte, limit int) (list []*verify.ReceiptLine, next []byte, err error) {
	q := store.Query{Index: "city", Prefix: store.Key(city), After: after, Limit: limit}
	if ticket != "" {
		q.Index, q.Prefix = "ticket", store.Key(ticket)
	}
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		list = nil
		page, at, err := rows.Page(tx, q)
		if err != nil {
			return err
		}
		next = at
		for _, r := range page {
			if r.City != city {
				continue
			}
			l, err := s.line(tx, r)
			if err != nil {
				return fmt.Errorf("reader %s: %w", r.Number, err)
			}
			list = append(list, l)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading receipts: %w", err)
	}
	return list, next, nil
}

// line joins a receipt with its certificates.
func (s *Service) line(tx *store.Tx, r *row) (*verify.ReceiptLine, error) {
	l := &verify.ReceiptLine{Number: r.Number, Receipt: r.Receipt, Device: r.Device}
	for serial, to := range map[store.Serial]*[]byte{r.Sign: &l.Sign, r.Encrypt: &l.Encrypt} {
		c, err := store.FindCertificate(tx, r.CA, serial)
		if err != nil {
			return nil, fmt.Errorf("its pair: %v", err)
		}
		*to = c.DER
	}
	for _, h := range r.Chain {
		a, err := authorities.Get(tx, store.Key(h))
		if err != nil {
			return nil, fmt.Errorf("the CA of its device certificate: %v", err)
		}
		l.Chain = append(l.Chain, a.DER)
	}
	if l.Device != nil {
		return l, nil
	}
	rd, err := s.Register.Find(tx, r.Number)
	if err != nil || rd.DeviceCA == "" {
		return l, err
	}
	c, err := store.FindCertificate(tx, rd.DeviceCA, rd.DeviceSerial)
	if err != nil {
		return nil, fmt.Errorf("its device certificate: %v", err)
	}
	l.Device = c.DER
	l.Chain, err = chainOf(tx, rd.DeviceCA)
	return l, err
}
