package topup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

const (
	timeFormat     = time.RFC3339
	journalTimeout = 10 * time.Second
)

// LifetimeError says that a request would live too long.
type LifetimeError struct {
	ID             string
	Expiry, Latest time.Time
}

func (e *LifetimeError) Error() string {
	return fmt.Sprintf("transaction %s would not expire before %s, at most %s is taken: sign a request that ends sooner",
		e.ID, e.Expiry.UTC().Format(timeFormat), e.Latest.UTC().Format(timeFormat))
}

// Half returns verify.Presented.
func (e *LifetimeError) Half() verify.Half { return verify.Presented }

// ReplayError says that something that may be used once was used before.
type ReplayError struct{ ID, What string }

func (e *ReplayError) Error() string {
	return fmt.Sprintf("transaction %s repeats an earlier one: %s. Begin anew at the card", e.ID, e.What)
}

// Half returns verify.Kept.
func (e *ReplayError) Half() verify.Half { return verify.Kept }

// TakenError says that the card's counter has an open authorisation.
type TakenError struct {
	ID      string
	Counter uint32
	By      string
	State   State
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("transaction %s: counter %d of the card belongs to transaction %s, which is %s: confirm or resolve that one, or prove by a fresh MAC1 that it did not credit",
		e.ID, e.Counter, e.By, e.State)
}

// Half returns verify.Kept.
func (e *TakenError) Half() verify.Half { return verify.Kept }

// SpentError says that the card has been credited at this counter or a later one.
type SpentError struct {
	ID      string
	Counter uint32
	By      string
}

func (e *SpentError) Error() string {
	return fmt.Sprintf("transaction %s: counter %d of the card is spent, transaction %s credited it: read the card again", e.ID, e.Counter, e.By)
}

// Half returns verify.Kept.
func (e *SpentError) Half() verify.Half { return verify.Kept }

// SupersededError says that a later request has taken the place of this one.
type SupersededError struct{ ID, By string }

func (e *SupersededError) Error() string {
	return fmt.Sprintf("transaction %s was superseded by %s, which the card began later: go on with that one", e.ID, e.By)
}

// Half returns verify.Kept.
func (e *SupersededError) Half() verify.Half { return verify.Kept }

// ClosedError says that a transaction has ended in another way.
type ClosedError struct {
	ID    string
	State State
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("transaction %s has ended: it is %s, and stays so", e.ID, e.State)
}

// Half returns verify.Kept.
func (e *ClosedError) Half() verify.Half { return verify.Kept }

// UnprovenError says that an open transaction cannot be closed by what was shown.
type UnprovenError struct {
	ID    string
	State State
	Why   string
}

func (e *UnprovenError) Error() string {
	return fmt.Sprintf("transaction %s stays %s: %s", e.ID, e.State, e.Why)
}

// Half returns verify.Kept.
func (e *UnprovenError) Half() verify.Half { return verify.Kept }

// AgreementError says that two cities do not load each other's cards.
type AgreementError struct{ CardCity, ReaderCity string }

func (e *AgreementError) Error() string {
	return fmt.Sprintf("a card of city %s is not loaded by a reader of city %s: no agreement that both have approved stands", e.CardCity, e.ReaderCity)
}

// Half returns verify.Kept.
func (e *AgreementError) Half() verify.Half { return verify.Kept }

// SignerError says that a city cannot sign permissions. It is no refusal of the
// request: nothing was written, and it may come again.
type SignerError struct {
	City string
	Err  error
}

func (e *SignerError) Error() string {
	return fmt.Sprintf("city %s cannot sign: %v. Issue it a city-sign certificate", e.City, e.Err)
}

// refuse journals a refusal and returns it; of a flood, the next one that is written
// says how many were not. What is not a refusal passes: a failing book or token is
// for the log of whoever asked.
func (s *Service) refuse(ctx context.Context, c policy.Caller, op policy.Operation, m []byte, err error) error {
	var denied *policy.Denied
	var misfit verify.Misfit
	d := struct {
		Op      policy.Operation `json:"op"`
		Reason  string           `json:"reason"`
		Half    verify.Half      `json:"half,omitempty"`
		Detail  string           `json:"detail"`
		Message store.Hash       `json:"message,omitzero"`

		Unwritten uint64 `json:"unwritten,omitempty"` // of the same caller, since the last that was written
	}{Op: op, Detail: err.Error()}
	switch {
	case errors.As(err, &misfit):
		d.Reason, d.Half = fmt.Sprintf("%T", misfit)[1:], misfit.Half()
	case errors.As(err, &denied):
		d.Reason = fmt.Sprintf("%T", denied)[1:]
	default:
		return err
	}
	if m != nil {
		d.Message = store.Sum(m)
	}
	write, unwritten := s.flood.admit(c.Fingerprint, s.cfg.Now())
	if !write {
		return err
	}
	d.Unwritten = unwritten
	// What a stranger put into a name is not worth a page of the journal.
	if len(d.Detail) > 500 {
		d.Detail = d.Detail[:500]
	}
	text, jsonErr := json.Marshal(d)
	if jsonErr != nil {
		return errors.Join(err, jsonErr)
	}
	// Hanging up does not keep a refusal out of the journal.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTimeout)
	defer cancel()
	bookErr := s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindRefused, CA: c.CA, Serial: c.Serial, Actor: c.Name, Detail: string(text)})
		return nil
	})
	if bookErr != nil {
		s.cfg.Log.Error("journalling a refusal", "op", op, "reason", d.Reason, "error", bookErr)
	}
	return err
}

// refusalsOfOne is how many refusals of one caller are journalled in a minute.
const refusalsOfOne = 240

// flood keeps a caller that is broken, or worse, from filling the book. Callers are
// people and machines that the book knows, so there are not many.
type flood struct {
	mu sync.Mutex
	of map[store.Hash]*refusals // guarded by mu; by the caller's fingerprint
}

// refusals are those of one caller.
type refusals struct {
	minute    int64 // the present one
	written   int   // in it
	unwritten uint64
}

// admit tells whether a refusal is to be journalled, and how many of this caller
// were not since the last that was.
func (f *flood) admit(caller store.Hash, now time.Time) (write bool, unwritten uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of[caller]
	if r == nil {
		if f.of == nil {
			f.of = make(map[store.Hash]*refusals)
		}
		r = &refusals{}
		f.of[caller] = r
	}
	if m := now.Unix() / 60; m != r.minute {
		r.minute, r.written = m, 0
	}
	if r.written >= refusalsOfOne {
		r.unwritten++
		return false, 0
	}
	r.written++
	unwritten, r.unwritten = r.unwritten, 0
	return true, unwritten
}
