// Package device is a card reader as its host meets it: the device side of
// readers/apdu, from the maker's line to the receipt of its pair of certificates.
//
// A reader trusts nobody but the root that it was given with its device
// certificate. It takes no certificate that does not chain to that root, name this
// reader and the city that it enrolled in, and hold a key of its own; no sealed key
// but one for its one-time transport key, of the session under way, that is the key
// of the encryption certificate. It asks nobody for the status of a certificate: it
// has no line but its host.
//
// Its power may go at any moment. What it says is in its flash before it is said,
// so the same command again finishes what was begun.
package device

import (
	"errors"
	"fmt"
	"io/fs"

	"hufu/hsm"
	"hufu/readers/apdu"
)

// ErrCut says that the reader's power went: it has to be opened anew.
var ErrCut = errors.New("the reader's power went")

// Reader is a reader that is powered. It is used by one goroutine at a time.
type Reader struct {
	rack  *Rack
	flash *image // as it lies on disk; a command changes a copy

	// What the reader forgets without power.
	token  *hsm.Token
	reason string
	point  Point // at which this command's power goes
	dead   bool
}

// refusal is an answer other than yes.
type refusal struct {
	status uint16
	reason string
}

func (e *refusal) Error() string { return e.reason }

func refuse(status uint16, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// maxReason bounds the words of a refusal.
const maxReason = 1000

// Answer runs one command. The only error is that the power went.
func (r *Reader) Answer(command []byte) ([]byte, error) {
	if r.dead {
		return nil, ErrCut
	}
	a, err := r.answer(command)
	if err != nil || r.point != 0 {
		r.Close()
		return nil, ErrCut
	}
	return a.Encode(), nil
}

func (r *Reader) answer(command []byte) (*apdu.Answer, error) {
	class, c, err := apdu.ParseCommand(command)
	switch {
	case err != nil:
		return r.no(refuse(apdu.WrongLength, "%v", err)), nil
	case class != apdu.Class:
		return r.no(refuse(apdu.UnknownClass, "the class is %02X, not %02X", class, apdu.Class)), nil
	}
	r.point = r.rack.Cuts.next(r.flash.Number, c.INS)
	data, err := r.run(c)
	if errors.Is(err, ErrCut) {
		return nil, err
	}
	if err != nil {
		return r.no(err), nil
	}
	if len(data) > apdu.MaxData {
		return r.no(refuse(apdu.WrongLength, "the answer has %d octets, and at most %d fit", len(data), apdu.MaxData)), nil
	}
	if c.INS != apdu.GetReason {
		r.reason = ""
	}
	return &apdu.Answer{Data: data, Status: apdu.OK}, nil
}

// no turns an error into a status word, and keeps the words for who asks for them.
// What is not a refusal is the reader's own trouble.
func (r *Reader) no(err error) *apdu.Answer {
	why := &refusal{status: apdu.MemoryFailure, reason: err.Error()}
	errors.As(err, &why)
	r.reason = why.reason[:min(len(why.reason), maxReason)]
	return &apdu.Answer{Status: why.status}
}

func (r *Reader) run(c *apdu.Command) ([]byte, error) {
	if c.P2 != 0 || c.P1 != 0 && c.INS != apdu.GetCertificate {
		return nil, refuse(apdu.WrongData, "P1 and P2 are %02X and %02X, which this command has no use for", c.P1, c.P2)
	}
	e, err := apdu.ParseElements(c.Data)
	if err != nil {
		return nil, refuse(apdu.WrongData, "%v", err)
	}
	switch c.INS {
	case apdu.Identify:
		return r.identify(e)
	case apdu.GetCertificate:
		return r.certificate(c.P1, e)
	case apdu.MakeDevice:
		return r.makeDevice(e)
	case apdu.PutDevice:
		return nil, r.putDevice(e)
	case apdu.Enrol:
		return r.enrol(e)
	case apdu.Install:
		return r.install(e)
	case apdu.GetReceipt:
		return r.receipt(e)
	case apdu.Finish:
		return nil, r.finish(e)
	case apdu.GetReason:
		if r.reason == "" {
			return nil, refuse(apdu.NotFound, "")
		}
		return []byte(r.reason), nil
	}
	return nil, refuse(apdu.UnknownINS, "there is no command %02X", c.INS)
}

// Close takes the power away and gives the reader back to its rack. It may be
// called twice.
func (r *Reader) Close() {
	if r == nil || r.dead {
		return
	}
	r.dead = true
	if r.token != nil {
		r.token.Close()
	}
	r.rack.release(r.flash.Number)
}

// Facts is what a reader tells of itself.
type Facts struct {
	Number, Model, Firmware, Approval string
	State                             byte
	City                              string
	Token                             bool // its keys lie in a token of its own
}

var stateNames = [...]string{"blank", "keyed", "prepared", "enrolled", "installed", "finished"}

// StateName is a state in one word.
func StateName(state byte) string {
	if int(state) < len(stateNames) {
		return stateNames[state]
	}
	return fmt.Sprintf("state %02X", state)
}

// Facts tells what there is to see.
func (r *Reader) Facts() Facts { return r.flash.facts() }

func (m *image) facts() Facts {
	return Facts{Number: m.Number, Model: m.Model, Firmware: m.Firmware, Approval: m.Approval, State: m.state(), City: m.city(), Token: m.PIN != nil}
}

// Forget throws the pair away, and all that was begun of one, as a repair shop does.
// The device key stays.
func (r *Reader) Forget() error {
	next := *r.flash
	next.Pair, next.Next = nil, nil
	return r.save(&next)
}

// take takes the named elements out of e, which has no others.
func take(e apdu.Elements, needed []element, more ...byte) error {
	known := map[byte]bool{}
	for _, n := range needed {
		v, ok := e[n.tag]
		if !ok {
			return refuse(apdu.WrongData, "the %s is missing", n.name)
		}
		if n.size != 0 && len(v) != n.size || len(v) == 0 {
			return refuse(apdu.WrongData, "the %s has %d octets", n.name, len(v))
		}
		known[n.tag] = true
	}
	for _, tag := range more {
		known[tag] = true
	}
	for tag := range e {
		if !known[tag] {
			return refuse(apdu.WrongData, "this command has no use for element %02X", tag)
		}
	}
	return nil
}

// element is one that a command must bring.
type element struct {
	tag  byte
	name string
	size int // 0: any but none
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
