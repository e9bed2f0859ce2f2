package officers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"hufu/policy"
	"hufu/store"
)

// CallerError says why a certificate gives nobody the right to ask.
type CallerError struct {
	Fingerprint store.Hash
	Name        string // "" where nobody has the certificate
	Problem     string // stable: "unknown", "removed", "expired", "not-in-book", "on-hold", "revoked"
}

var callerHelp = map[string]string{
	"unknown":     "nobody is recorded with this certificate: ask a CA admin to add you",
	"removed":     "this person's rights were taken away: ask a CA admin",
	"expired":     "the certificate has ended: ask for a new one",
	"not-in-book": "the certificate is not of this book: use one that this centre issued",
	"on-hold":     "the certificate is on hold: ask a CA admin why",
	"revoked":     "the certificate was revoked: ask for a new one",
}

func (e *CallerError) Error() string {
	return fmt.Sprintf("caller %s (certificate %s) is refused: %s", strconv.Quote(e.Name), e.Fingerprint, callerHelp[e.Problem])
}

// Caller finds who presented a certificate. The certificate's status is looked
// up in the book at every call. A *CallerError is counted, not journalled: what
// a stranger does must not fill the book.
func (o *Office) Caller(ctx context.Context, certDER []byte) (policy.Caller, error) {
	fingerprint := store.Sum(certDER)
	refused := &CallerError{Fingerprint: fingerprint}
	var p *Person
	err := o.Book.View(ctx, func(tx *store.Tx) (err error) {
		p, err = people.Get(tx, store.Key(fingerprint))
		switch {
		case errors.Is(err, store.ErrNotFound):
			refused.Problem = "unknown"
			return nil
		case err != nil:
			return err
		case p.State != Active:
			refused.Problem = "removed"
			return nil
		}
		refused.Problem, err = standing(tx, p.ca, p.serial, p.notAfter, o.Now())
		return err
	})
	if err != nil {
		return policy.Caller{}, fmt.Errorf("looking up the caller: %w", err)
	}
	if refused.Problem != "" {
		if p != nil {
			refused.Name = p.Name
		}
		o.refusals.count()
		return policy.Caller{}, refused
	}
	return policy.Caller{Fingerprint: fingerprint, Name: p.Name, Roles: p.Roles, City: p.City, Serial: p.serial, CA: p.ca}, nil
}

// standing tells what is wrong with a certificate now: "" for nothing.
func standing(tx *store.Tx, ca string, serial store.Serial, notAfter, now time.Time) (problem string, err error) {
	if now.After(notAfter) {
		return "expired", nil
	}
	s, err := store.Statuses.Get(tx, store.SerialKey(ca, serial))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "not-in-book", nil
	case err != nil:
		return "", fmt.Errorf("reading the status of %s: %w", serial, err)
	case s.State != store.Good:
		return s.State.String(), nil
	}
	return "", nil
}

// Gate lets an operation in a city pass or returns *policy.Denied. A refusal of
// a known caller is journalled, a flood of them in part: the next one that is
// written says how many were not.
func (o *Office) Gate(ctx context.Context, c policy.Caller, op policy.Operation, city string) error {
	denied := policy.Allowed(c, op, city)
	if denied == nil {
		return nil
	}
	o.journal(ctx, c, op, city, "right")
	return denied
}

// Refuse journals, as Gate does, a refusal that another floor found in a rule of
// its own, says why in a word or two, and returns it as *policy.Denied.
func (o *Office) Refuse(ctx context.Context, c policy.Caller, op policy.Operation, city, why string) error {
	o.journal(ctx, c, op, city, why)
	return &policy.Denied{Caller: c.Name, Roles: c.Roles, Home: c.City, Operation: op, City: city}
}

func (o *Office) journal(ctx context.Context, c policy.Caller, op policy.Operation, city, why string) {
	write, unwritten := o.refusals.admit(c.Fingerprint, o.Now())
	if !write {
		return
	}
	// The caller hangs up when it pleases; the refusal is written all the same.
	err := o.Book.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindRefused, CA: c.CA, Serial: c.Serial, Actor: c.Name,
			Detail: refusal{op, cityOnly(city), why, unwritten}.detail()})
		return nil
	})
	if err != nil {
		o.Log.Error("journalling a refusal failed", "caller", c.Name, "operation", string(op), "err", err)
	}
}

// refusal is what the journal says of one.
type refusal struct {
	Operation policy.Operation `json:"operation"`
	City      string           `json:"city,omitempty"`
	Why       string           `json:"why"`
	Unwritten uint64           `json:"unwritten,omitempty"` // of the same caller, since the last that was written
}

func (r refusal) detail() string {
	b, _ := json.Marshal(r) // strings and a number: it cannot fail
	return string(b)
}

// cityOnly keeps what a caller may have made up out of the journal.
func cityOnly(city string) string {
	if isCity(city) {
		return city
	}
	return ""
}

// Refusals returns how many callers and operations were refused since the start,
// and how many of these stand in the journal.
func (o *Office) Refusals() (all, journalled uint64) {
	o.refusals.Lock()
	defer o.refusals.Unlock()
	return o.refusals.all, o.refusals.written
}

// How many refusals are journalled in a minute.
const (
	refusalsOfOne = 10
	refusalsOfAll = 100
)

// refusals keeps refused callers from filling the book.
type refusals struct {
	sync.Mutex   // guards everything here
	all, written uint64
	minute       int64                 // the present one
	inMinute     int                   // written in it
	of           map[store.Hash]int    // written in it, by caller
	unwritten    map[store.Hash]uint64 // since the caller's last written one
}

func (r *refusals) count() {
	r.Lock()
	defer r.Unlock()
	r.all++
}

// admit counts a refusal and tells whether it is to be journalled, and how many
// of this caller were not since the last that was.
func (r *refusals) admit(caller store.Hash, now time.Time) (write bool, unwritten uint64) {
	r.Lock()
	defer r.Unlock()
	r.all++
	if m := now.Unix() / 60; m != r.minute || r.of == nil {
		r.minute, r.inMinute, r.of = m, 0, map[store.Hash]int{}
	}
	if r.unwritten == nil {
		r.unwritten = map[store.Hash]uint64{}
	}
	if r.inMinute >= refusalsOfAll || r.of[caller] >= refusalsOfOne {
		r.unwritten[caller]++
		return false, 0
	}
	r.inMinute++
	r.of[caller]++
	r.written++
	unwritten = r.unwritten[caller]
	delete(r.unwritten, caller)
	return true, unwritten
}
