package readers

import (
	"fmt"
	"time"

	"hufu/ca"
	"hufu/store"
)

// State of a reader's life.
type State string

// manufactured → prepared → allotted → initialised → active ⇄ suspended →
// replaced | revoked | retired.
const (
	Manufactured State = "manufactured" // on the maker's manifest
	Prepared     State = "prepared"     // its device key is certified
	Allotted     State = "allotted"     // on a city's ticket
	Initialised  State = "initialised"  // has its pair, on hold
	Active       State = "active"
	Suspended    State = "suspended"
	Replaced     State = "replaced"
	Revoked      State = "revoked"
	Retired      State = "retired"
)

// certificateState is the status of both certificates of a reader in a state;
// a state that is not here has no pair.
var certificateState = map[State]store.State{
	Initialised: store.Held,
	Active:      store.Good,
	Suspended:   store.Held,
	Replaced:    store.Revoked,
	Revoked:     store.Revoked,
	Retired:     store.Revoked,
}

// step is one way from a state to another, and the event that tells of it. A
// step that is not in the table is refused.
type step struct {
	name string
	kind string
	from []State // "" is a reader that is not registered
	to   State
}

var (
	issue   = step{"issue", store.KindReaderIssued, []State{""}, Active}
	suspend = step{"suspend", store.KindReaderSuspended, []State{Active}, Suspended}
	resume  = step{"resume", store.KindReaderResumed, []State{Suspended}, Active}
	revoke  = step{"revoke", store.KindReaderRevoked, []State{Initialised, Active, Suspended}, Revoked}
)

// StateError says that a reader's present state does not allow a step.
type StateError struct {
	Number string
	State  State // the present one
	Want   string
}

func (e *StateError) Error() string {
	remedy := "its life is over: register another reader"
	switch e.State {
	case Active:
		remedy = "only a suspended reader can be resumed"
	case Suspended:
		remedy = "resume or revoke it"
	case Manufactured, Prepared, Allotted, Initialised:
		remedy = "finish its initialisation first"
	}
	return fmt.Sprintf("cannot %s reader %s, it is %s: %s", e.Want, e.Number, e.State, remedy)
}

// Suspend puts an active reader, and both its certificates, on hold.
func (r *Register) Suspend(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return r.change(tx, number, suspend, actor, note, r.Authority.Suspend)
}

// Resume lifts a reader's hold.
func (r *Register) Resume(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return r.change(tx, number, resume, actor, note, r.Authority.Resume)
}

// Revoke ends a reader: both certificates are revoked with the reason given
// (RFC 5280, Section 5.3.1).
func (r *Register) Revoke(tx *store.Tx, number string, reason int, invalidity time.Time, actor, note string) (*Reader, error) {
	return r.change(tx, number, revoke, actor, note, func(tx *store.Tx, ref ca.Ref, actor string) error {
		return r.Authority.Revoke(tx, ref, reason, invalidity, actor)
	})
}

// change takes a reader and both its certificates one step on, in the caller's
// transaction.
func (r *Register) change(tx *store.Tx, number string, s step, actor, note string, each func(*store.Tx, ca.Ref, string) error) (*Reader, error) {
	rd, err := register.Get(tx, store.Key(number))
	if err != nil {
		return nil, fmt.Errorf("looking up reader %q: %w", number, err)
	}
	if err := rd.step(tx, s, actor, note); err != nil {
		return nil, err
	}
	for _, serial := range []store.Serial{rd.Sign, rd.Encrypt} {
		if err := each(tx, ca.Ref{CA: rd.CA, Serial: serial}, actor); err != nil {
			return nil, fmt.Errorf("reader %s: %w", number, err)
		}
	}
	return rd, nil
}

// step moves the reader on, writes its history and the journal, and records it.
func (rd *Reader) step(tx *store.Tx, s step, actor, note string) error {
	allowed := false
	for _, from := range s.from {
		allowed = allowed || from == rd.State
	}
	if !allowed {
		return &StateError{Number: rd.Number, State: rd.State, Want: s.name}
	}
	if len(note) > 512 {
		return &PairError{rd.Number, fmt.Sprintf("the note has %d octets", len(note)), "say it in 512"}
	}
	rd.History = append(rd.History, Change{Time: tx.Now().UTC().Truncate(time.Second), From: rd.State, To: s.to, Actor: actor, Note: note})
	rd.State = s.to
	rd.Seq = tx.Append(store.Event{Kind: s.kind, CA: rd.CA, Serial: rd.Sign, Actor: actor,
		Detail: fmt.Sprintf(`{"reader":%q,"city":%q,"encrypt":%q}`, rd.Number, rd.City, rd.Encrypt)})
	return register.Put(tx, rd)
}
