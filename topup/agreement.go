package topup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hufu/store"
	"hufu/verify"
)

// Agreement lets the readers of either city load cards of the other. It stands
// where both have approved the same end, until then.
type Agreement struct {
	A        string            `json:"a"` // A < B
	B        string            `json:"b"`
	Until    time.Time         `json:"until"`
	Approved map[string]string `json:"approved"` // city → who approved for it
	Ended    bool              `json:"ended,omitempty"`
	Seq      uint64            `json:"seq"` // the event that last changed it
}

// Stands reports whether it holds at a time.
func (a *Agreement) Stands(now time.Time) bool {
	return !a.Ended && a.Approved[a.A] != "" && a.Approved[a.B] != "" && now.Before(a.Until)
}

// agreements has the primary key Key(A, B) and the index "city" Key(city).
var agreements = store.Table[Agreement]{
	Name: "topup.agreement", Codec: store.JSON[Agreement](),
	Key: func(a *Agreement) []byte { return store.Key(a.A, a.B) },
	Indexes: []store.Index[Agreement]{
		{Name: "city", Keys: func(a *Agreement) [][]byte { return [][]byte{store.Key(a.A), store.Key(a.B)} }},
	},
}

func find(tx *store.Tx, city, other string) (*Agreement, error) {
	a := &Agreement{A: min(city, other), B: max(city, other)}
	found, err := agreements.Get(tx, agreements.Key(a))
	if errors.Is(err, store.ErrNotFound) {
		return a, nil
	}
	return found, err
}

// ApproveAgreement records that city approves an agreement with other until an end.
// Where the other city has approved another end, or the agreement had ended, this
// is a new proposal, for the other to approve. The caller has passed the gate for
// city.
func ApproveAgreement(tx *store.Tx, city, other string, until time.Time, actor string) (*Agreement, error) {
	until = until.UTC().Truncate(time.Second)
	switch {
	case city == other || !isCity(city) || !isCity(other):
		return nil, &TermsError{fmt.Sprintf("%q and %q are not two cities of six digits", city, other)}
	case !until.After(tx.Now()):
		return nil, &TermsError{"its end, " + until.Format(timeFormat) + ", is past"}
	case actor == "":
		return nil, &TermsError{"nobody approves it"}
	}
	a, err := find(tx, city, other)
	if err != nil {
		return nil, err
	}
	if a.Ended || !a.Until.Equal(until) {
		a.Until, a.Ended, a.Approved = until, false, nil
	}
	if a.Approved == nil {
		a.Approved = make(map[string]string)
	}
	if a.Approved[city] == actor {
		return a, nil
	}
	a.Approved[city] = actor
	return a, a.record(tx, city, "approved", actor)
}

// EndAgreement ends an agreement at once; either city may, alone. The caller has
// passed the gate for city.
func EndAgreement(tx *store.Tx, city, other string, actor string) (*Agreement, error) {
	a, err := find(tx, city, other)
	if err != nil {
		return nil, err
	}
	if a.Seq == 0 {
		return nil, fmt.Errorf("the agreement of %s and %s: %w", city, other, store.ErrNotFound)
	}
	if a.Ended {
		return a, nil
	}
	a.Ended = true
	return a, a.record(tx, city, "ended", actor)
}

func (a *Agreement) record(tx *store.Tx, city, what, actor string) error {
	text, err := json.Marshal(map[string]any{"a": a.A, "b": a.B, "city": city, "what": what, "until": a.Until, "stands": a.Stands(tx.Now())})
	if err != nil {
		return fmt.Errorf("writing the event of an agreement: %w", err)
	}
	a.Seq = tx.Append(store.Event{Kind: store.KindAgreement, Actor: actor, Detail: string(text)})
	return agreements.Put(tx, a)
}

// agreed returns the agreement that lets this reader load this card, nil where both
// are of one city and need none.
func agreed(tx *store.Tx, load *verify.Load, now time.Time) (*Agreement, error) {
	if load.CardCity == load.ReaderCity {
		return nil, nil
	}
	a, err := find(tx, load.CardCity, load.ReaderCity)
	if err != nil {
		return nil, err
	}
	if !a.Stands(now) {
		return nil, &AgreementError{CardCity: load.CardCity, ReaderCity: load.ReaderCity}
	}
	return a, nil
}

// Agreements lists agreements page by page, those of one city or ("") all. The
// caller has passed the gate.
func (s *Service) Agreements(ctx context.Context, city string, after []byte, limit int) (list []*Agreement, next []byte, err error) {
	q := store.Query{After: after, Limit: limit}
	if city != "" {
		q.Index, q.Prefix = "city", store.Key(city)
	}
	err = s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		list, next, err = agreements.Page(tx, q)
		return err
	})
	return list, next, err
}

// TermsError says what is wrong with an agreement that was put forward.
type TermsError struct{ Detail string }

func (e *TermsError) Error() string { return "the agreement cannot be: " + e.Detail }

// Half returns verify.Presented.
func (e *TermsError) Half() verify.Half { return verify.Presented }

func isCity(s string) bool {
	n := 0
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
		n++
	}
	return n == 6
}
