package stage1

import (
	"errors"
	"fmt"
	"time"

	"hufu/readers"
	"hufu/store"
)

// The outcomes of asking whether a reader may be initialised.
const (
	NotOnTicket        = "not-on-ticket"
	WrongCity          = "wrong-city"
	AlreadyInitialised = "already-initialised"
	QuotaSpent         = "quota-spent"
	TicketExpired      = "ticket-expired"
	TicketIsRevoked    = "ticket-revoked"
	TicketNotReady     = "ticket-not-ready"
)

// Admit tells whether a reader may be initialised in a city, by the ticket that
// names it; ticket "" takes whichever does. A reader that is initialised, and has
// not brought its receipt, may be so again: it lost what it was given. A refusal is
// a *Refusal whose Problem is one of the outcomes.
func (s *Stage) Admit(tx *store.Tx, number, city, ticket string) (*Ticket, *readers.Reader, error) {
	rd, err := s.Register.Find(tx, number)
	if isNotFound(err) {
		return nil, nil, &Refusal{NotOnTicket, fmt.Sprintf("reader %q is not registered here, so it is on no ticket", number), "send it back to the centre, or import the ticket that names it"}
	}
	if err != nil {
		return nil, nil, err
	}
	switch {
	case rd.City != "" && rd.City != city:
		return nil, nil, &Refusal{WrongCity, fmt.Sprintf("reader %s belongs to city %s, not to %s", number, rd.City, city), "send it to its city, or back to the centre"}
	case rd.State != readers.Manufactured && rd.State != readers.Prepared && rd.State != readers.Allotted && rd.State != readers.Initialised:
		return nil, nil, &Refusal{AlreadyInitialised, fmt.Sprintf("reader %s was initialised before, and is %s", number, rd.State), "renew its pair, or replace the reader"}
	case rd.Ticket == "" || ticket != "" && rd.Ticket != ticket:
		return nil, nil, &Refusal{NotOnTicket, fmt.Sprintf("reader %s is not on the ticket", number), "send it back to the centre, or have it put on a ticket of this city"}
	}
	t, err := FindTicket(tx, rd.Ticket)
	if err != nil {
		return nil, nil, fmt.Errorf("reader %s: %v", number, err) // never "not found"
	}
	return t, rd, t.admits(tx.Now(), rd)
}

// admits judges the ticket for one of its readers.
func (t *Ticket) admits(now time.Time, rd *readers.Reader) error {
	switch {
	case t.City != rd.City:
		return &Refusal{WrongCity, fmt.Sprintf("ticket %s is for city %s, not for %s", t.ID, t.City, rd.City), "ask the centre for another ticket"}
	case t.State == TicketRevoked:
		return &Refusal{TicketIsRevoked, fmt.Sprintf("ticket %s was revoked on %s", t.ID, day(t.Revoked)), "ask the centre for another ticket"}
	case t.State != TicketOpen:
		return &Refusal{TicketNotReady, fmt.Sprintf("ticket %s is %s", t.ID, t.State), "wait for its job: hufu job watch " + t.Job}
	case now.After(t.Expires):
		return &Refusal{TicketExpired, fmt.Sprintf("ticket %s expired on %s", t.ID, t.Expires.Format(time.RFC3339)), "ask the centre for another ticket"}
	case rd.State == readers.Allotted && t.Used >= t.Quota:
		return &Refusal{QuotaSpent, fmt.Sprintf("all %d readers that ticket %s allows are initialised", t.Quota, t.ID), "ask the centre for another ticket"}
	}
	return nil
}

// Spend counts a reader of a ticket that becomes initialised. It is called in the
// transaction that does so, before the reader's state changes: one that is
// initialised again was counted.
func (s *Stage) Spend(tx *store.Tx, rd *readers.Reader) error {
	if rd.Ticket == "" {
		return nil
	}
	t, err := FindTicket(tx, rd.Ticket)
	if err != nil {
		return err
	}
	if err := t.admits(tx.Now(), rd); err != nil {
		return err
	}
	if rd.State != readers.Allotted {
		return nil
	}
	t.Used++
	return tickets.Put(tx, t)
}

// IsRefusal tells whether err is a refusal of that problem.
func IsRefusal(err error, problem string) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Problem == problem
}
