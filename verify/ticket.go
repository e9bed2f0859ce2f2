package verify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
)

// Bounds of a ticket.
const (
	MaxTicketReaders = 100_000
	MaxTicket        = 24 << 20 // octets of the whole message
)

// Ticket is what the centre signs so that a city may initialise readers.
type Ticket struct {
	ID      string // 32 hexadecimal digits, chosen by the centre at random
	City    string
	Issued  time.Time
	Expires time.Time // no reader is initialised after it
	Quota   uint32    // how many of the readers may be initialised
	Readers []TicketReader
}

// TicketReader is one reader on a ticket. A ticket lists them by number, upwards.
type TicketReader struct {
	Number string
	Device [32]byte // SHA-256 of the device certificate
	Model  string
}

func (t *Ticket) fields(c *coder) {
	c.id("ticket", &t.ID, 16)
	c.city("city", &t.City)
	c.time("time of issue", &t.Issued)
	c.time("expiry", &t.Expires)
	c.demand(t.Issued.Before(t.Expires), "expiry: it is not after the time of issue")
	number(c, "quota", &t.Quota, 1)
	last := ""
	sequenceOf(c, "list of readers", &t.Readers, 1, MaxTicketReaders, func(c *coder, r *TicketReader) {
		c.readerNumber(&r.Number)
		c.hash("hash of the device certificate", &r.Device)
		c.words("model", &r.Model, 1, 64)
		c.demand(last < r.Number, "list of readers: it is not sorted by number, each of them once")
		last = r.Number
	})
	c.demand(uint64(t.Quota) <= uint64(len(t.Readers)), "quota: it is larger than the list")
}

// Marshal encodes the ticket as DER.
func (t *Ticket) Marshal() ([]byte, error) { return encode("the ticket", t) }

// ParseTicket reads what Marshal wrote, and nothing else.
func ParseTicket(der []byte) (*Ticket, error) { return parse[Ticket]("the ticket", der) }

// Find returns the reader of that number, nil where it is not on the ticket.
func (t *Ticket) Find(number string) *TicketReader {
	i, ok := slices.BinarySearchFunc(t.Readers, number, func(r TicketReader, n string) int { return strings.Compare(r.Number, n) })
	if !ok {
		return nil
	}
	return &t.Readers[i]
}

// Ticket verifies a ticket of the centre: all that TicketFile does, and the status
// of its signer.
func (v *Verifier) Ticket(ctx context.Context, der []byte) (*Ticket, *Message, error) {
	t, m, err := v.TicketFile(der)
	if err != nil {
		return nil, nil, err
	}
	if m.Evidence, err = v.CheckStatus(ctx, m.Signer); err != nil {
		return nil, nil, err
	}
	return t, m, nil
}

// TicketFile verifies a ticket from the anchors alone, for a city without a line
// to the centre: form, chain, names, purpose, signature and expiry. It asks for no
// status, so the Evidence of the message is empty: whoever can ask calls Ticket.
func (v *Verifier) TicketFile(der []byte) (*Ticket, *Message, error) {
	m, err := v.signed(der, MaxTicket, nil, oid.ContentTicket, CentreSigning)
	if err != nil {
		return nil, nil, err
	}
	t, err := ParseTicket(m.Content)
	if err != nil {
		return nil, nil, err
	}
	if now := v.now(); now.After(t.Expires) {
		return nil, nil, &ExpiredError{What: "the ticket", Expiry: t.Expires, Now: now}
	}
	return t, m, nil
}

// ReadTicket reads a ticket for people to look at. It judges nothing: no signature,
// no chain and no expiry.
func ReadTicket(der []byte) (*Ticket, error) {
	s, err := cms.Parse(der, MaxTicket)
	switch {
	case err != nil:
		return nil, &FormError{What: "the ticket", Err: err}
	case !s.ContentType.Equal(oid.ContentTicket):
		return nil, &FormError{What: "the ticket", Err: errors.New("it is a message of another sort")}
	}
	return ParseTicket(s.Content)
}
