package readers

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// States lists the states in the order of a life.
var States = []State{Manufactured, Prepared, Allotted, Initialised, Active, Suspended, Replaced, Revoked, Retired}

// Ended tells whether a reader's life is over in this state.
func (s State) Ended() bool { return s == Replaced || s == Revoked || s == Retired }

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

// Step is one thing that can happen to a reader: from a state to another.
type Step struct {
	Name string
	Kind string  // of the event that tells of it
	From []State // "" is a reader that is not registered
	To   State   // "" leaves the state as it is
	Pair string  // what becomes of its certificates, for people
}

// The steps. Steps lists them.
var (
	enter      = Step{"enter", store.KindReaderEntered, []State{""}, Manufactured, "no pair yet"}
	prepare    = Step{"prepare", store.KindReaderPrepared, []State{Manufactured}, Prepared, "the device certificate is issued"}
	allot      = Step{"allot", store.KindReaderAllotted, []State{Prepared}, Allotted, "no pair yet"}
	withdraw   = Step{"withdraw", store.KindReaderWithdrawn, []State{Allotted}, Prepared, "no pair yet"}
	accept     = Step{"accept", store.KindReaderAccepted, []State{""}, Allotted, "no pair yet: an offline city's book learns of the reader from a ticket"}
	initialise = Step{"initialise", store.KindReaderInitialised, []State{Allotted, Initialised}, Initialised, "issued, on hold; a held pair of before is revoked"}
	activate   = Step{"activate", store.KindReaderActivated, []State{Initialised}, Active, "good"}
	report     = Step{"report", store.KindReaderReported, []State{Allotted}, Active, "in the city's book: the centre learns of them from the receipt"}
	issue      = Step{"issue", store.KindReaderIssued, []State{""}, Active, "issued, good: a city takes the reader in at once"}
	renewing   = Step{"begin to renew", store.KindReaderRenewing, []State{Active}, "", "a second pair is issued, on hold; a held one of before is revoked"}
	renewed    = Step{"renew", store.KindReaderRenewed, []State{Active}, "", "the second pair is good and takes the place of the first, which is revoked (superseded)"}
	suspend    = Step{"suspend", store.KindReaderSuspended, []State{Active}, Suspended, "on hold"}
	resume     = Step{"resume", store.KindReaderResumed, []State{Suspended}, Active, "good; a second pair stays on hold"}
	bind       = Step{"bind", store.KindReaderBound, []State{Allotted, Initialised, Active, Suspended}, "", "as they are"}
	succeed    = Step{"succeed", store.KindReaderSucceeded, []State{Active}, "", "as they are: the reader takes another's place and its customer"}
	replace    = Step{"replace", store.KindReaderReplaced, []State{Initialised, Active, Suspended, Revoked}, Replaced, "revoked, all that the reader has"}
	revoke     = Step{"revoke", store.KindReaderRevoked, []State{Prepared, Allotted, Initialised, Active, Suspended}, Revoked, "revoked, all that the reader has"}
	retire     = Step{"retire", store.KindReaderRetired, []State{Manufactured, Prepared, Initialised, Active, Suspended}, Retired, "revoked, all that the reader has"}
	adopt      = Step{"adopt", store.KindReaderAdopted, append([]State{""}, States...), "", "the register follows what came back after a restore"}

	// Steps is the table of all steps; what is not in it is refused.
	Steps = []Step{enter, prepare, allot, withdraw, accept, initialise, activate, report, issue, renewing, renewed, suspend, resume, bind, succeed, replace, revoke, retire, adopt}
)

// StateError says that a reader's present state does not allow a step.
type StateError struct {
	Number string
	State  State // the present one
	Want   string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("cannot %s reader %s, it is %s: %s", e.Want, e.Number, e.State, e.Remedy())
}

// Remedy tells what to do instead.
func (e *StateError) Remedy() string {
	switch e.State {
	case Manufactured:
		return "it has no device certificate yet: import its manifest again, which certifies what is missing"
	case Prepared:
		return "it is on no city's ticket: put it on one"
	case Allotted:
		if e.Want == retire.Name {
			return "it is on a ticket: revoke the ticket first, or revoke the reader"
		}
		return "it has no pair yet: finish its initialisation first"
	case Initialised:
		return "its pair waits on hold for the reader's receipt: finish its initialisation first"
	case Active:
		switch e.Want {
		case resume.Name:
			return "only a suspended reader can be resumed"
		case withdraw.Name:
			return "it is in use: revoke, replace or retire it"
		}
		return "it is initialised already: renew its pair, or replace the reader"
	case Suspended:
		return "resume or revoke it"
	case Revoked:
		return "its life is over: register another reader, and let that one replace it"
	}
	return "its life is over: register another reader"
}

// maxNote is how many octets a note has at most; a row is no place for letters.
const maxNote = 512

// maxHistory is how many steps a reader's history has: a row has a bound, and
// somebody who holds and lifts without an end must not reach it. The journal has
// them all.
const maxHistory = 500

// step moves the reader on, writes its history and the journal, and records it.
func (rd *Reader) step(tx *store.Tx, s Step, actor, note string) error {
	if !slices.Contains(s.From, rd.State) {
		return &StateError{Number: rd.Number, State: rd.State, Want: s.Name}
	}
	if len(note) > maxNote {
		return &PairError{rd.Number, fmt.Sprintf("the note has %d octets", len(note)), fmt.Sprintf("say it in %d", maxNote)}
	}
	to := s.To
	if to == "" {
		to = rd.State
	}
	return rd.move(tx, s, to, actor, note)
}

// move is step without its rules.
func (rd *Reader) move(tx *store.Tx, s Step, to State, actor, note string) error {
	if over := len(rd.History) + 1 - maxHistory; over > 0 {
		rd.History = slices.Delete(rd.History, 1, 1+over) // where it came from stays
	}
	rd.Seq = tx.Append(store.Event{Kind: s.Kind, CA: rd.CA, Serial: rd.Sign, Actor: actor, Detail: rd.detail()})
	rd.History = append(rd.History, Change{Time: tx.Now().UTC().Truncate(time.Second), Step: s.Name, From: rd.State, To: to, Actor: actor, Note: note, Seq: rd.Seq})
	rd.State = to
	return register.Put(tx, rd)
}

// detail is what the journal says of a step. The customer's word is not in it: a
// journal forgets nothing, and a binding must be forgettable.
func (rd *Reader) detail() string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"reader":%q`, rd.Number)
	for _, f := range []struct{ name, value string }{
		{"city", rd.City}, {"encrypt", serialOrNone(rd.Encrypt)}, {"ticket", rd.Ticket},
		{"next", serialOrNone(rd.NextSign)}, {"successor", rd.Successor}, {"predecessor", rd.Predecessor},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, `,%q:%q`, f.name, f.value)
		}
	}
	b.WriteByte('}')
	return b.String()
}

func serialOrNone(s store.Serial) string {
	if s.IsZero() {
		return ""
	}
	return s.String()
}
