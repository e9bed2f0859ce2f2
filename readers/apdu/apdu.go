// Package apdu is what a host and a card reader say to each other while the reader is initialised: commands and answers of ISO/IEC 7816-4,
// carried over a PC/SC slot or over a connection to a bench that holds many readers (bench.go).
//
// A host asks, a reader answers; nothing that passes here is secret, since every private key that a reader is given comes sealed to a key
// that it made itself. A command is idempotent: a reader that was cut off from power answers a repeated one as if nothing had happened.
//
// The package refuses what is longer than a frame, has trailing octets, or holds an element twice. It knows no certificate: what the
// elements hold is judged by the two ends.
package apdu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The commands' class and instructions. Elements that a command or an answer holds are named beside it.
const (
	Class = 0x80 // proprietary, no secure messaging (ISO/IEC 7816-4, Section 5.4.1)

	Identify       = 0x10 // answers Number, Model, Firmware, State and, where it has one, City
	GetCertificate = 0x12 // P1 says which; answers the DER
	MakeDevice     = 0x14 // stage 1: makes the device key; answers its PKCS#10 request
	PutDevice      = 0x16 // stage 1: Certificate is the device certificate, Issuer the CA that signed it (it travels with every enrolment), Root the root to trust
	Enrol          = 0x18 // stage 2: Session, Challenge, City, Encryption; answers the enrolment, signed with the device key, or, once a pair was finished, with that pair's signing key
	Install        = 0x1A // stage 2: Certificate (signing), Certificate2 (encryption), Issuer, SealedKey where one was made, Session, Ticket; answers the signed receipt
	GetReceipt     = 0x1C // answers the receipt of the last Install
	Finish         = 0x1E // stage 2: the receipt was taken
	GetReason      = 0x20 // answers in words why the last command was refused
)

// What GetCertificate asks for in P1.
const (
	DeviceCertificate     = 0x01
	SigningCertificate    = 0x02
	EncryptionCertificate = 0x03
)

// Tags of elements (private class, ISO/IEC 7816-4, Section 5.2.2).
const (
	Number       = 0xC1 // text
	Model        = 0xC2 // text
	Firmware     = 0xC3 // text
	State        = 0xC4 // one octet, see below
	City         = 0xC5 // six digits
	Session      = 0xC6 // 16 octets
	Challenge    = 0xC7 // 32 octets
	Encryption   = 0xC8 // one octet: ByCentre or ByReader
	Certificate  = 0xC9 // DER
	Certificate2 = 0xCA // DER
	Issuer       = 0xCB // DER
	Root         = 0xCC // DER
	SealedKey    = 0xCD // CMS
	Ticket       = 0xCE // 16 octets
)

// How far a reader is, as it sees itself.
const (
	Blank     = 0x00 // no device key
	Keyed     = 0x01 // a device key, no certificate
	Prepared  = 0x02 // a device certificate: stage 1 is done
	Enrolled  = 0x03 // has made the keys of its pair
	Installed = 0x04 // has its pair and has signed a receipt
	Finished  = 0x05 // the receipt was taken
)

// Who makes the encryption key.
const (
	ByCentre = 0x00
	ByReader = 0x01
)

// Status words (ISO/IEC 7816-4, Section 5.6).
const (
	OK             = 0x9000
	MemoryFailure  = 0x6581
	WrongLength    = 0x6700
	SecurityStatus = 0x6982 // a signature, a chain or a key did not fit
	Conditions     = 0x6985 // not in this state
	WrongData      = 0x6A80
	NotFound       = 0x6A88
	UnknownINS     = 0x6D00
	UnknownClass   = 0x6E00
)

// MaxData is the most that one command or answer carries: extended length (ISO/IEC 7816-4, Section 5.1).
const MaxData = 65535

// Command is a command APDU.
type Command struct {
	INS, P1, P2 byte
	Data        []byte
}

// Encode writes the command in the extended form, with the longest answer allowed.
func (c *Command) Encode() ([]byte, error) {
	if len(c.Data) > MaxData {
		return nil, fmt.Errorf("command %02X carries %d octets, at most %d fit", c.INS, len(c.Data), MaxData)
	}
	b := []byte{Class, c.INS, c.P1, c.P2, 0}
	if len(c.Data) > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.Data)))
		b = append(b, c.Data...)
	}
	return append(b, 0, 0), nil
}

// ErrMalformed is a command, an answer or an element that cannot be read.
var ErrMalformed = errors.New("malformed")

// ParseCommand reads a command in either form. Data is a part of b.
func ParseCommand(b []byte) (class byte, c *Command, err error) {
	if len(b) < 4 || len(b) > 4+3+MaxData+2 {
		return 0, nil, fmt.Errorf("a command of %d octets: %w", len(b), ErrMalformed)
	}
	class, c = b[0], &Command{INS: b[1], P1: b[2], P2: b[3]}
	body := b[4:]
	switch {
	case len(body) <= 1: // no data
	case body[0] == 0 && len(body) == 3: // extended, no data
	case body[0] == 0 && len(body) > 3:
		n := int(binary.BigEndian.Uint16(body[1:]))
		if rest := len(body) - 3 - n; n == 0 || rest != 0 && rest != 2 {
			return 0, nil, fmt.Errorf("a command whose length says %d of %d octets: %w", n, len(body)-3, ErrMalformed)
		}
		c.Data = body[3 : 3+n]
	default: // short
		n := int(body[0])
		if rest := len(body) - 1 - n; n == 0 || rest != 0 && rest != 1 {
			return 0, nil, fmt.Errorf("a command whose length says %d of %d octets: %w", n, len(body)-1, ErrMalformed)
		}
		c.Data = body[1 : 1+n]
	}
	return class, c, nil
}

// Answer is a response APDU.
type Answer struct {
	Data   []byte
	Status uint16
}

// Encode writes the answer.
func (a *Answer) Encode() []byte {
	return binary.BigEndian.AppendUint16(a.Data[:len(a.Data):len(a.Data)], a.Status)
}

// ParseAnswer reads an answer. Data is a part of b.
func ParseAnswer(b []byte) (*Answer, error) {
	if len(b) < 2 || len(b) > MaxData+2 {
		return nil, fmt.Errorf("an answer of %d octets: %w", len(b), ErrMalformed)
	}
	return &Answer{Data: b[:len(b)-2], Status: binary.BigEndian.Uint16(b[len(b)-2:])}, nil
}

// StatusError is a command that a reader refused.
type StatusError struct {
	INS    byte
	Status uint16
	Reason string // the reader's own words; may be empty
}

func (e *StatusError) Error() string {
	what := map[uint16]string{
		MemoryFailure: "its memory fails", WrongLength: "wrong length", SecurityStatus: "a signature, a chain or a key does not fit",
		Conditions: "it is not in the state for that", WrongData: "the data is wrong", NotFound: "there is none", UnknownINS: "it does not know the command",
		UnknownClass: "it does not know the class of the command",
	}[e.Status]
	s := fmt.Sprintf("the reader refuses command %02X with %04X", e.INS, e.Status)
	if what != "" {
		s += ": " + what
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// Elements are the data of a command or an answer, by tag. Each may stand once.
type Elements map[byte][]byte

// Encode writes the elements in the order of their tags, each with a length in BER (ISO/IEC 8825-1, Section 8.1.3).
func (e Elements) Encode() []byte {
	var b []byte
	for tag := 0; tag < 256; tag++ {
		v, ok := e[byte(tag)]
		if !ok {
			continue
		}
		b = append(b, byte(tag))
		switch {
		case len(v) < 0x80:
			b = append(b, byte(len(v)))
		case len(v) < 0x100:
			b = append(b, 0x81, byte(len(v)))
		default:
			b = binary.BigEndian.AppendUint16(append(b, 0x82), uint16(len(v)))
		}
		b = append(b, v...)
	}
	return b
}

// ParseElements reads what Encode writes, and nothing else. The values are parts of b.
func ParseElements(b []byte) (Elements, error) {
	e := Elements{}
	for last := -1; len(b) > 0; {
		if len(b) < 2 || int(b[0]) <= last {
			return nil, fmt.Errorf("an element without a length, or out of order: %w", ErrMalformed)
		}
		tag, n, head := b[0], int(b[1]), 2
		switch {
		case n == 0x81 && len(b) > 2 && b[2] >= 0x80:
			n, head = int(b[2]), 3
		case n == 0x82 && len(b) > 3 && b[2] > 0:
			n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case n >= 0x80:
			return nil, fmt.Errorf("the length of element %02X: %w", tag, ErrMalformed)
		}
		if len(b) < head+n {
			return nil, fmt.Errorf("element %02X says %d octets, %d are there: %w", tag, n, len(b)-head, ErrMalformed)
		}
		e[tag], b, last = b[head:head+n], b[head+n:], int(tag)
	}
	return e, nil
}
