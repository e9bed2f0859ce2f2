// Package crlcheck judges revocation lists from outside: whether the CA signed
// them, whether they hold now, whether they say of every certificate what the
// book says, and what changed from one to the next (RFC 5280, Section 3.3 and
// Section 5).
//
// It shares no code with what makes the lists: it imports nothing of this
// project, lists are read by crypto/x509, and the few extensions that crypto/x509
// leaves alone are read here.
//
// It refuses nothing but what is no list at all: all else that is wrong is
// reported as a Fault, so that one look finds everything.
package crlcheck

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Entry is one certificate on a list.
type Entry struct {
	RevokedAt time.Time
	Reason    int // RFC 5280, Section 5.3.1; 0 where the list says none
}

// List is a list as it was read.
type List struct {
	*x509.RevocationList
	Base    *big.Int // the list that a delta goes out from; nil for a full list
	Scope   []byte   // DER of the issuingDistributionPoint; nil = the whole CA
	Entries map[Serial]Entry

	full   *List   // below a delta, in what Apply made
	faults []Fault // found while reading
}

// Serial is a serial number: the content octets of the INTEGER, as a string, so
// that it can be a key.
type Serial string

// SerialOf returns the serial number with these content octets.
func SerialOf(octets []byte) Serial { return Serial(new(big.Int).SetBytes(octets).Bytes()) }

func (s Serial) String() string { return fmt.Sprintf("%x", string(s)) }

// Kind says what is wrong, in a word that does not change.
type Kind string

// The kinds of faults.
const (
	KindForm      Kind = "form"      // the list breaks a rule of RFC 5280, Section 5
	KindSignature Kind = "signature" // another key signed it
	KindFresh     Kind = "freshness" // it holds not yet, or no more
	KindNumber    Kind = "number"    // its number does not go on
	KindMissing   Kind = "missing"   // held or revoked in the book, and not on the list
	KindStranger  Kind = "stranger"  // on the list, and neither held nor revoked in the book
	KindOtherwise Kind = "otherwise" // the list gives another reason or time than the book
	KindEarly     Kind = "early"     // left the list before the certificate's end was on one
)

// Fault is one thing that is wrong.
type Fault struct {
	Kind   Kind   `json:"kind"`
	Serial string `json:"serial,omitempty"` // hexadecimal
	Text   string `json:"text"`
}

func (f Fault) String() string {
	if f.Serial == "" {
		return string(f.Kind) + ": " + f.Text
	}
	return string(f.Kind) + ": " + f.Serial + ": " + f.Text
}

// Extensions of a list that crypto/x509 leaves alone (RFC 5280, Section 5.2).
var (
	oidKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidNumber   = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDelta    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidScope    = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidFreshest = asn1.ObjectIdentifier{2, 5, 29, 46}
)

const (
	removeFromCRL = 8
	maxSerial     = 20 // octets: RFC 5280, Section 4.1.2.2
)

// Parse reads a list in DER. It returns an error where there is none.
func Parse(der []byte) (*List, error) {
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("reading a CRL: %w", err)
	}
	l := &List{RevocationList: parsed, Entries: make(map[Serial]Entry, len(parsed.RevokedCertificateEntries))}
	if !bytes.Equal(parsed.Raw, der) {
		return nil, errors.New("reading a CRL: something stands behind it")
	}
	for i := range parsed.RevokedCertificateEntries {
		l.addEntry(&parsed.RevokedCertificateEntries[i])
	}
	parsed.RevokedCertificateEntries = nil // a long list need not be there twice
	l.readExtensions()
	switch {
	case parsed.Number == nil:
		l.fault("", "it has no number (RFC 5280, Section 5.2.3)")
	case len(parsed.AuthorityKeyId) == 0:
		l.fault("", "it does not name the key that signed it (RFC 5280, Section 5.2.1)")
	case l.Base != nil && l.Base.Cmp(parsed.Number) >= 0:
		l.fault("", fmt.Sprintf("delta %d is not newer than its base %d", parsed.Number, l.Base))
	}
	if parsed.NextUpdate.IsZero() {
		l.fault("", "it does not say when the next comes (RFC 5280, Section 5.1.2.5)")
	}
	for serial, e := range l.Entries {
		if e.Reason == removeFromCRL && l.Base == nil {
			l.fault(serial, "removeFromCRL on a full list (RFC 5280, Section 5.3.1)")
		}
	}
	return l, nil
}

func (l *List) fault(serial Serial, text string) {
	f := Fault{Kind: KindForm, Text: text}
	if serial != "" {
		f.Serial = serial.String()
	}
	l.faults = append(l.faults, f)
}

func (l *List) addEntry(e *x509.RevocationListEntry) {
	serial := Serial(e.SerialNumber.Bytes())
	switch {
	case e.SerialNumber.Sign() <= 0 || e.SerialNumber.BitLen() > maxSerial*8-1:
		l.fault(serial, "not a serial number of RFC 5280, Section 4.1.2.2")
	case e.ReasonCode < 0 || e.ReasonCode == 7 || e.ReasonCode > 10:
		l.fault(serial, fmt.Sprintf("there is no reason %d", e.ReasonCode))
	}
	for i := range e.Extensions {
		if e.Extensions[i].Critical {
			l.fault(serial, fmt.Sprintf("critical extension %v of an entry is not known here", e.Extensions[i].Id))
		}
	}
	if _, twice := l.Entries[serial]; twice {
		l.fault(serial, "stands there twice")
	}
	l.Entries[serial] = Entry{RevokedAt: e.RevocationTime, Reason: e.ReasonCode}
}

// readExtensions reads what says whether the list is full and of what.
func (l *List) readExtensions() {
	for i := range l.Extensions {
		e := &l.Extensions[i]
		switch {
		case e.Id.Equal(oidDelta):
			l.Base = new(big.Int)
			if rest, err := asn1.Unmarshal(e.Value, &l.Base); err != nil || len(rest) > 0 {
				l.fault("", "the delta CRL indicator is no number")
			}
			if !e.Critical {
				l.fault("", "the delta CRL indicator is not critical (RFC 5280, Section 5.2.4)")
			}
		case e.Id.Equal(oidScope):
			l.Scope = e.Value
			if !e.Critical {
				l.fault("", "the issuingDistributionPoint is not critical (RFC 5280, Section 5.2.5)")
			}
		case e.Id.Equal(oidKeyID), e.Id.Equal(oidNumber), e.Id.Equal(oidFreshest):
			if e.Critical {
				l.fault("", fmt.Sprintf("extension %v is critical", e.Id))
			}
		case e.Critical:
			l.fault("", fmt.Sprintf("critical extension %v is not known here", e.Id))
		}
	}
	if l.Base != nil {
		for i := range l.Extensions {
			if l.Extensions[i].Id.Equal(oidFreshest) {
				l.fault("", "a delta points to a fresher list (RFC 5280, Section 5.2.6)")
			}
		}
	}
}

// Apply makes, of a full list and a delta to it, the list as it is now. RFC 5280,
// Section 5.2.4: of one CA and scope, the full list no older than the delta's base
// and older than the delta.
func (l *List) Apply(delta *List) (*List, error) {
	switch {
	case l.Base != nil || delta.Base == nil:
		return nil, errors.New("a delta goes with a full list")
	case l.Number == nil || delta.Number == nil:
		return nil, errors.New("a list without a number goes with none")
	case !bytes.Equal(l.RawIssuer, delta.RawIssuer) || !bytes.Equal(l.AuthorityKeyId, delta.AuthorityKeyId):
		return nil, errors.New("the lists are of two CAs")
	case !bytes.Equal(l.Scope, delta.Scope):
		return nil, errors.New("the lists are of different certificates of the CA")
	case l.Number.Cmp(delta.Base) < 0:
		return nil, fmt.Errorf("the delta goes out from list %d, the full list is the older %d", delta.Base, l.Number)
	case l.Number.Cmp(delta.Number) >= 0:
		return nil, fmt.Errorf("the delta %d is no newer than the full list %d", delta.Number, l.Number)
	}
	sum := &List{RevocationList: delta.RevocationList, Scope: l.Scope, Entries: make(map[Serial]Entry, len(l.Entries)), full: l, faults: slices.Concat(l.faults, delta.faults)}
	for serial, e := range l.Entries {
		sum.Entries[serial] = e
	}
	for serial, e := range delta.Entries {
		if e.Reason == removeFromCRL {
			delete(sum.Entries, serial)
		} else {
			sum.Entries[serial] = e
		}
	}
	return sum, nil
}
