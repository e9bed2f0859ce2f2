package readers

import (
	"errors"
	"time"

	"hufu/ca"
	"hufu/store"
)

// Suspend puts an active reader, and both its certificates, on hold.
func (r *Register) Suspend(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return r.change(tx, number, suspend, actor, note, r.Authority.Suspend)
}

// Resume lifts a reader's hold. A second pair, of a renewal under way, stays on
// hold.
func (r *Register) Resume(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return r.change(tx, number, resume, actor, note, r.Authority.Resume)
}

// change takes a reader and both its certificates one step on, in the caller's
// transaction.
func (r *Register) change(tx *store.Tx, number string, s Step, actor, note string, each func(*store.Tx, ca.Ref, string) error) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	if err := rd.step(tx, s, actor, note); err != nil {
		return nil, err
	}
	return rd, rd.each(rd.pair(), func(ref ca.Ref) error { return each(tx, ref, actor) })
}

// Revoke ends a reader: all its certificates are revoked with the reason given
// (RFC 5280, Section 5.3.1). Its customer stays bound to it, so that another
// reader can replace it.
func (r *Register) Revoke(tx *store.Tx, number string, reason int, invalidity time.Time, actor, note string) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	return rd, r.end(tx, rd, revoke, reason, invalidity, actor, note)
}

// Retire ends a reader that nobody needs any more and that nothing replaces. Its
// customer is released.
func (r *Register) Retire(tx *store.Tx, number, actor, note string) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	rd.Customer = ""
	return rd, r.end(tx, rd, retire, cessationOfOperation, time.Time{}, actor, note)
}

// Replace ends a reader and gives its customer to another one, which is active
// and of the same city. A reason of 0 stands for superseded. A reader that was
// revoked already keeps the reason of that.
func (r *Register) Replace(tx *store.Tx, number, by string, reason int, actor, note string) (*Reader, error) {
	rd, err := r.here(tx, number)
	if err != nil {
		return nil, err
	}
	other, err := r.Find(tx, by)
	if err != nil {
		return nil, err
	}
	if reason == 0 {
		reason = superseded
	}
	switch {
	case number == by:
		return nil, &PairError{number, "it cannot replace itself", "name the reader that takes its place"}
	case other.City != rd.City:
		return nil, &PairError{by, "it is of city " + other.City + ", and reader " + number + " of city " + rd.City, "take a reader of the same city"}
	case other.Predecessor != "":
		return nil, &PairError{by, "it replaced reader " + other.Predecessor + " already", "take another reader"}
	case other.Customer != "" && other.Customer != rd.Customer:
		return nil, &PairError{by, "it is bound to another customer", "take a reader that is bound to nobody"}
	}
	customer := rd.Customer
	rd.Successor, rd.Customer = by, ""
	if err := r.end(tx, rd, replace, reason, time.Time{}, actor, note); err != nil {
		return nil, err
	}
	other.Predecessor = number
	if customer != "" {
		other.Customer = customer
	}
	return rd, other.step(tx, succeed, actor, "in the place of "+number)
}

// Bind binds a reader to a customer, or to nobody where customer is empty. The
// customer is an opaque word: no personal data.
func (r *Register) Bind(tx *store.Tx, number, customer, actor string) (*Reader, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return nil, err
	}
	note := "bound"
	switch {
	case customer == "":
		note = "released"
	case rd.Customer != "" && rd.Customer != customer:
		return nil, &PairError{number, "it is bound to another customer", "release it first"}
	}
	rd.Customer = customer
	if err := rd.checkWords(); err != nil {
		return nil, err
	}
	return rd, rd.step(tx, bind, actor, note)
}

// end takes a reader to the end of its life: the present pair, one of a renewal
// under way and the device certificate are revoked, as far as they are not and as
// far as this book holds them.
func (r *Register) end(tx *store.Tx, rd *Reader, s Step, reason int, invalidity time.Time, actor, note string) error {
	refs := append(rd.pair(), rd.next()...)
	if rd.DeviceCA != "" {
		refs = append(refs, ca.Ref{CA: rd.DeviceCA, Serial: rd.DeviceSerial})
	}
	if err := rd.step(tx, s, actor, note); err != nil {
		return err
	}
	return rd.each(refs, func(ref ca.Ref) error { return r.revokeIfNot(tx, ref, reason, invalidity, actor) })
}

// revokeIfNot revokes a certificate that is not revoked yet.
func (r *Register) revokeIfNot(tx *store.Tx, ref ca.Ref, reason int, invalidity time.Time, actor string) error {
	state := new(ca.StateError)
	err := r.Authority.Revoke(tx, ref, reason, invalidity, actor)
	if errors.As(err, &state) && state.State == store.Revoked {
		return nil
	}
	return err
}
