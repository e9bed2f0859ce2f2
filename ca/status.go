package ca

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"hufu/store"
)

// CRLReasons (RFC 5280, Section 5.3.1).
const (
	keyCompromise   = 1
	certificateHold = 6
)

// revocationReasons may be given for a revocation. certificateHold(6) is a
// suspension, removeFromCRL(8) stands on delta CRLs alone, 7 is not used
// (RFC 5280, Section 5.3.1).
var revocationReasons = []int{0, 1, 2, 3, 4, 5, 9, 10}

// earliest is the earliest that a key can have been lost. A list or a directory
// could not write down a year before the first.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Suspend puts a good certificate on hold.
func (a *Authority) Suspend(tx *store.Tx, r Ref, actor string) error {
	s, err := a.status(tx, r, "suspend", store.Good)
	if err != nil {
		return err
	}
	s.State, s.Reason, s.Lifted = store.Held, certificateHold, false
	return change(tx, s, store.KindHeld, actor, "")
}

// Resume lifts a hold. Only a hold can be lifted (RFC 5280, Section 5.3.1).
func (a *Authority) Resume(tx *store.Tx, r Ref, actor string) error {
	s, err := a.status(tx, r, "resume", store.Held)
	if err != nil {
		return err
	}
	s.State, s.Reason, s.Lifted = store.Good, 0, true
	return change(tx, s, store.KindResumed, actor, "")
}

// Revoke ends a good or held certificate for ever. invalidity, if not zero, is
// when the key is known to have been lost (RFC 5280, Section 5.3.2). A key that
// was compromised is certified no more.
func (a *Authority) Revoke(tx *store.Tx, r Ref, reason int, invalidity time.Time, actor string) error {
	if !slices.Contains(revocationReasons, reason) {
		return &ReasonError{Reason: reason}
	}
	s, err := a.status(tx, r, "revoke", store.Good, store.Held)
	if err != nil {
		return err
	}
	if invalidity.After(tx.Now()) {
		return &RequestError{Problem: "request-time", Detail: "the invalidity date lies in the future", Remedy: "give the time at which the key was lost, or none"}
	}
	if !invalidity.IsZero() && invalidity.Before(earliest) {
		return &RequestError{Problem: "request-time", Detail: "the invalidity date lies before " + earliest.Format(time.DateOnly), Remedy: "give the time at which the key was lost, or none"}
	}
	s.State, s.Reason, s.InvalidityDate, s.Lifted = store.Revoked, reason, wholeSeconds(invalidity), false
	return change(tx, s, store.KindRevoked, actor, `{"reason":`+strconv.Itoa(reason)+`}`)
}

// status returns a status that is in one of the states that allow a change.
func (a *Authority) status(tx *store.Tx, r Ref, want string, from ...store.State) (*store.Status, error) {
	s, err := store.Statuses.Get(tx, r.key())
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("certificate %s of CA %s: %w", r.Serial, r.CA, err)
		}
		return nil, err
	}
	if !slices.Contains(from, s.State) {
		return nil, &StateError{Ref: r, State: s.State, Want: want}
	}
	return s, nil
}

// change records a status that was changed.
func change(tx *store.Tx, s *store.Status, kind, actor, detail string) error {
	s.Time = tx.Now().UTC()
	s.Seq = tx.Append(store.Event{Kind: kind, CA: s.CA, Serial: s.Serial, Actor: actor, Detail: detail})
	return store.Statuses.Put(tx, s)
}

// wholeSeconds is a time as certificates and CRLs can say it.
func wholeSeconds(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}
