package stage2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

// Outcome is one way in which a reader is refused. It is an error, so that
// errors.Is tells one from the other.
type Outcome string

// The outcomes. Their words are stable: they stand in problems, results and the
// journal.
const (
	NotOnTicket        Outcome = stage1.NotOnTicket
	WrongCity          Outcome = stage1.WrongCity
	AlreadyInitialised Outcome = stage1.AlreadyInitialised
	QuotaSpent         Outcome = stage1.QuotaSpent
	TicketExpired      Outcome = stage1.TicketExpired
	TicketRevoked      Outcome = stage1.TicketIsRevoked
	TicketNotReady     Outcome = stage1.TicketNotReady
	ProofFailed        Outcome = "proof-failed"
)

// Outcomes lists them.
var Outcomes = []Outcome{NotOnTicket, WrongCity, AlreadyInitialised, QuotaSpent, TicketExpired, TicketRevoked, TicketNotReady, ProofFailed}

func (o Outcome) Error() string { return string(o) }

// Refusal is a reader that is refused, with the reason and what to do.
type Refusal struct {
	Outcome Outcome
	Number  string
	Detail  string
	Remedy  string
}

func (e *Refusal) Error() string { return e.Detail + ": " + e.Remedy }

// Unwrap returns the Outcome.
func (e *Refusal) Unwrap() error { return e.Outcome }

// SessionError says that a session is not known here, or is somebody else's.
type SessionError struct {
	ID     string
	Detail string
}

func (e *SessionError) Error() string {
	return fmt.Sprintf("session %q %s: %s", e.ID, e.Detail, e.Remedy())
}

// Remedy tells what to do.
func (e *SessionError) Remedy() string {
	return "open another session for the reader; nothing that it was given is lost"
}

// BusyError says that the node holds as many sessions as it may.
type BusyError struct{ Sessions int }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%d sessions are open: finish some of them, or wait until they end", e.Sessions)
}

// outcome makes a Refusal of what stage1 says of a reader.
func outcome(number string, err error) error {
	var r *stage1.Refusal
	if !errors.As(err, &r) {
		return err
	}
	return &Refusal{Outcome(r.Problem), number, r.Detail, r.Remedy}
}

// unproven refuses a reader's proof. What a source of status could not tell is no
// fault of the reader's, and stays what it is.
func unproven(number string, err error) error {
	if errors.As(err, new(*verify.StaleError)) {
		return err
	}
	return &Refusal{ProofFailed, number, fmt.Sprintf("the proof of reader %s fails: %v", number, err),
		"open another session and let the reader answer it; a reader that fails again goes back to the centre"}
}

// refused writes a refusal into the journal. Another error passes.
func (s *Service) refused(ctx context.Context, actor, number, city string, err error) error {
	err = outcome(number, err)
	var r *Refusal
	if !errors.As(err, &r) {
		return err
	}
	detail, e := json.Marshal(map[string]string{"reader": number, "city": city, "outcome": string(r.Outcome)})
	if e == nil {
		e = s.Book.Update(ctx, func(tx *store.Tx) error {
			tx.Append(store.Event{Kind: KindRefused, Actor: actor, Detail: string(detail)})
			return nil
		})
	}
	if e != nil {
		return fmt.Errorf("journalling that reader %s was refused (%s): %w", number, r.Outcome, e)
	}
	return r
}
