package crlcheck

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Status is what a book says of one serial number.
type Status struct {
	Serial   Serial
	Listed   bool // held or revoked; else it was held and is good again
	Reason   int
	Time     time.Time // since when
	NotAfter time.Time // until when the certificate is valid
	Seq      uint64    // the book's event that made it so
}

// Check is what a list is held against. What is zero is not looked at.
type Check struct {
	Issuer *x509.Certificate
	Now    time.Time
	Least  *big.Int // the lowest number that the list may have

	// Book is what the book says of everything that the list is to speak of: all
	// that is held or revoked, and all that was held and is good again.
	Book iter.Seq2[Status, error]

	// AsOf is the last event of the book that the list takes into account. Where
	// it is 0, what changed later than shortly before thisUpdate is left open.
	AsOf uint64
}

// inFlight is how long a change may take from its time to the book.
const inFlight = 10 * time.Second

// Report is what was found.
type Report struct {
	Number  string    `json:"number"`
	Base    string    `json:"base,omitempty"` // of a delta
	Made    time.Time `json:"thisUpdate"`
	Next    time.Time `json:"nextUpdate"`
	Entries int       `json:"entries"`
	Book    int       `json:"book"`    // held or revoked in the book; -1 = the book was not asked
	Pending int       `json:"pending"` // changed since the list was made, so that it need not show it
	Ended   int       `json:"ended"`   // not on the list, since the certificate has ended
	Faults  []Fault   `json:"faults"`
}

// OK says whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Faults) == 0 }

// Check holds a full list, or one made by Apply, against c. The error is one of
// reading the book.
func (l *List) Check(c Check) (*Report, error) {
	r := &Report{Number: text(l.Number), Base: text(l.Base), Made: l.ThisUpdate, Next: l.NextUpdate, Entries: len(l.Entries), Book: -1, Faults: append([]Fault{}, l.faults...)}
	add := func(kind Kind, text string) { r.Faults = append(r.Faults, Fault{Kind: kind, Text: text}) }
	for of := l; of != nil && c.Issuer != nil; of = of.full {
		switch err := of.CheckSignatureFrom(c.Issuer); {
		case !bytes.Equal(of.RawIssuer, c.Issuer.RawSubject):
			add(KindSignature, "it is the list of another issuer")
		case err != nil:
			add(KindSignature, err.Error())
		case of.SignatureAlgorithm == x509.SHA1WithRSA || of.SignatureAlgorithm == x509.ECDSAWithSHA1: // crypto/x509 takes these for lists
			add(KindSignature, "it was signed with SHA-1")
		}
	}
	if !c.Now.IsZero() {
		switch {
		case l.ThisUpdate.After(c.Now):
			add(KindFresh, "it begins "+l.ThisUpdate.Format(time.RFC3339)+", in the future")
		case !l.NextUpdate.After(c.Now):
			add(KindFresh, "it ended "+l.NextUpdate.Format(time.RFC3339))
		}
	}
	if c.Least != nil && (l.Number == nil || l.Number.Cmp(c.Least) < 0) {
		add(KindNumber, fmt.Sprintf("its number is %s, and %d was published before", text(l.Number), c.Least))
	}
	if c.Book != nil {
		if err := l.compare(c, r); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(r.Faults, func(a, b Fault) int { return strings.Compare(a.Serial, b.Serial) })
	return r, nil
}

// compare holds every entry against the book, and every status against the list.
func (l *List) compare(c Check, r *Report) error {
	r.Book = 0
	if l.Base != nil {
		r.Faults = append(r.Faults, Fault{Kind: KindForm, Text: "a delta is held against the book together with its full list"})
		return nil
	}
	known := make(map[Serial]bool, len(l.Entries))
	for s, err := range c.Book {
		if err != nil {
			return fmt.Errorf("reading the book: %w", err)
		}
		if s.Listed {
			r.Book++
		}
		e, on := l.Entries[s.Serial]
		known[s.Serial] = on
		later := s.Seq > c.AsOf
		if c.AsOf == 0 {
			later = s.Time.After(l.ThisUpdate.Add(-inFlight))
		}
		fault := func(kind Kind, text string) {
			r.Faults = append(r.Faults, Fault{Kind: kind, Serial: s.Serial.String(), Text: text})
		}
		switch {
		case later && (on != s.Listed || on && e.Reason != s.Reason):
			r.Pending++
		case s.Listed && !on && s.NotAfter.Before(l.ThisUpdate):
			r.Ended++ // whether it left too early, only two lists can tell
		case s.Listed && !on:
			fault(KindMissing, fmt.Sprintf("in the book for reason %d since %s", s.Reason, s.Time.UTC().Format(time.RFC3339)))
		case !s.Listed && on:
			fault(KindStranger, "good again in the book since "+s.Time.UTC().Format(time.RFC3339))
		case on && e.Reason != s.Reason && !later:
			fault(KindOtherwise, fmt.Sprintf("reason %d on the list, %d in the book", e.Reason, s.Reason))
		case on && !later && !e.RevokedAt.Equal(s.Time.Truncate(time.Second)):
			fault(KindOtherwise, fmt.Sprintf("since %s on the list, %s in the book", e.RevokedAt.Format(time.RFC3339), s.Time.UTC().Format(time.RFC3339)))
		}
	}
	for serial := range l.Entries {
		if !known[serial] {
			r.Faults = append(r.Faults, Fault{Kind: KindStranger, Serial: serial.String(), Text: "the book does not have it held or revoked"})
		}
	}
	return nil
}

// Change is what became of one serial number from one list to the next.
type Change struct {
	Serial string `json:"serial"`
	What   string `json:"what"` // "added", "removed" or "changed"
	From   int    `json:"from"` // reason on the older list; -1 = was not on it
	To     int    `json:"to"`   // reason on the newer list; -1 = is not on it
}

// Compare returns what changed from l to a newer full list of the same scope, by
// serial number, and what is wrong with the step. notAfter, which may be nil, tells
// when a certificate ends: an entry may leave only after it stood on a list made
// past that end, unless it was a hold (RFC 5280, Section 3.3). A list that is
// compared with itself has no changes and no faults.
func (l *List) Compare(newer *List, notAfter func(Serial) (time.Time, bool)) ([]Change, []Fault) {
	if l.Same(newer) {
		return nil, nil
	}
	var changes []Change
	var faults []Fault
	switch {
	case !bytes.Equal(l.RawIssuer, newer.RawIssuer):
		faults = append(faults, Fault{Kind: KindForm, Text: "the lists are of two CAs"})
	case !bytes.Equal(l.Scope, newer.Scope):
		faults = append(faults, Fault{Kind: KindForm, Text: "the lists are of different certificates of the CA"})
	}
	if l.Number != nil && newer.Number != nil && newer.Number.Cmp(l.Number) <= 0 {
		faults = append(faults, Fault{Kind: KindNumber, Text: fmt.Sprintf("number %d follows %d", newer.Number, l.Number)})
	}
	if newer.ThisUpdate.Before(l.ThisUpdate) {
		faults = append(faults, Fault{Kind: KindFresh, Text: "the newer list was made before the older one"})
	}
	for serial, e := range l.Entries {
		now, on := newer.Entries[serial]
		switch {
		case !on:
			changes = append(changes, Change{serial.String(), "removed", e.Reason, -1})
			if end, ok := endOf(notAfter, serial); ok && e.Reason != hold && end.After(l.ThisUpdate) {
				faults = append(faults, Fault{Kind: KindEarly, Serial: serial.String(), Text: "the certificate is valid until " + end.UTC().Format(time.RFC3339) + ", no list made later has it"})
			}
		case now.Reason != e.Reason:
			changes = append(changes, Change{serial.String(), "changed", e.Reason, now.Reason})
		}
	}
	for serial, e := range newer.Entries {
		if _, on := l.Entries[serial]; !on {
			changes = append(changes, Change{serial.String(), "added", -1, e.Reason})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Serial, b.Serial) })
	slices.SortStableFunc(faults, func(a, b Fault) int { return strings.Compare(a.Serial, b.Serial) })
	return changes, faults
}

// Same says whether another list is this one, octet by octet.
func (l *List) Same(other *List) bool { return bytes.Equal(l.Raw, other.Raw) }

// hold is the reason that can be lifted (RFC 5280, Section 5.3.1).
const hold = 6

func endOf(notAfter func(Serial) (time.Time, bool), serial Serial) (time.Time, bool) {
	if notAfter == nil {
		return time.Time{}, false
	}
	return notAfter(serial)
}

func text(n *big.Int) string {
	if n == nil {
		return ""
	}
	return n.String()
}
