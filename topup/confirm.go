package topup

import (
	"context"
	"fmt"

	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// Confirmation is a reader's result and the city's judgement of its TAC.
type Confirmation struct {
	Result      []byte // the reader's signed message
	TACAccepted bool   // the city's card keys have accepted the TAC
}

// Confirm takes a reader's result into the ledger. The same result again changes
// nothing and returns the transaction. A result may come late: what was credited
// was credited.
func (s *Service) Confirm(ctx context.Context, c policy.Caller, r Confirmation) (*Transaction, error) {
	t, err := s.confirm(ctx, c, r)
	if err != nil {
		return nil, s.refuse(ctx, c, policy.OpTopUpConfirm, r.Result, err)
	}
	return t, nil
}

func (s *Service) confirm(ctx context.Context, c policy.Caller, r Confirmation) (t *Transaction, err error) {
	if err := policy.Allowed(c, policy.OpTopUpConfirm, c.City); err != nil {
		return nil, err
	}
	result, m, err := s.cfg.Verifier.LoadResult(ctx, r.Result)
	if err != nil {
		return nil, err
	}
	if err := policy.Allowed(c, policy.OpTopUpConfirm, result.City); err != nil {
		return nil, err
	}
	err = s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		t, err = transactions.Get(tx, store.Key(result.Transaction))
		if err != nil {
			return err
		}
		if err := t.answers(result); err != nil {
			return err
		}
		state := t.outcome(result, r.TACAccepted)
		same, closed := t.ResultHash == m.Hash, !t.State.open()
		if same && t.State == state || closed && (same || t.State == state) {
			return nil
		}
		if t.State == Superseded {
			return &SupersededError{ID: t.ID, By: t.SupersededBy}
		}
		if closed {
			return &ClosedError{ID: t.ID, State: t.State}
		}
		t.State, t.ResultHash = state, m.Hash
		t.TAC, t.NewBalance = result.TAC, result.Balance
		if !t.State.open() {
			t.Closed = tx.Now()
		}
		if err := messages.Put(tx, &message{t.ID, t.ResultHash, r.Result}); err != nil {
			return err
		}
		return t.record(tx, store.KindTopUpConfirmed, c.Name, detail{Message: t.ResultHash, Evidence: &m.Evidence})
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// answers holds a result against what was permitted.
func (t *Transaction) answers(r *verify.LoadResult) error {
	permission := store.Hash(r.PermissionHash)
	for _, c := range []struct{ field, want, have string }{
		{"city of the result", t.City, r.City},
		{"reader of the result", t.Reader, r.Reader},
		{"counter of the result", fmt.Sprint(t.Counter), fmt.Sprint(r.Counter)},
		{"permission that the result answers", t.PermissionHash.String(), permission.String()},
	} {
		if c.want != c.have {
			return &verify.MismatchError{Field: c.field, Want: c.want, Have: c.have}
		}
	}
	if r.Card != t.Card { // without the numbers: a refusal is journalled
		return &verify.MismatchError{Field: "card of the result", Want: "the card of the request", Have: "another one"}
	}
	return nil
}

// outcome is the state that a result leads to.
func (t *Transaction) outcome(r *verify.LoadResult, tacAccepted bool) State {
	switch {
	case r.Outcome == verify.NotCredited:
		return Failed
	case r.Outcome == verify.Uncertain:
		return Torn
	case !tacAccepted, r.Balance != t.Balance+t.Amount:
		return Disputed
	}
	return Credited
}

// Resolution is what a card showed when it was read again after its result had not
// come, or had left a doubt.
type Resolution struct {
	ID      string
	Counter uint32 // the card's online counter now
	Balance uint64 // fen, now
	TAC     []byte // the load's, by GET TRANSACTION PROVE, accepted by the city's card keys
	Note    string // who looked, when and why
}

// Resolve closes an open transaction by what the card shows. A counter that has not
// moved means that the card was not credited; that may be said only after the
// expiry, when no reader takes the permission any more. A counter that has moved on
// and a TAC mean that it was. Anything else stays open.
func (s *Service) Resolve(ctx context.Context, c policy.Caller, r Resolution) (*Transaction, error) {
	t, err := s.resolve(ctx, c, r)
	if err != nil {
		return nil, s.refuse(ctx, c, policy.OpTopUpConfirm, nil, err)
	}
	return t, nil
}

func (s *Service) resolve(ctx context.Context, c policy.Caller, r Resolution) (t *Transaction, err error) {
	err = s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		t, err = transactions.Get(tx, store.Key(r.ID))
		if err != nil {
			return err
		}
		if err := policy.Allowed(c, policy.OpTopUpConfirm, t.City); err != nil {
			return err
		}
		if !t.State.open() {
			return &ClosedError{ID: t.ID, State: t.State}
		}
		unproven := func(why string) error { return &UnprovenError{ID: t.ID, State: t.State, Why: why} }
		switch {
		case r.Note == "":
			return unproven("say in a note who looked at the card, and when")
		case r.Counter < t.Counter:
			return unproven(fmt.Sprintf("its counter is %d, below the %d of the load: read the card again", r.Counter, t.Counter))
		case r.Counter == t.Counter && !s.cfg.Now().After(t.Expiry):
			return unproven("the permission still holds until " + t.Expiry.UTC().Format(timeFormat) + ": wait until then")
		case r.Counter == t.Counter:
			t.State = Failed
		case len(r.TAC) == 0:
			return unproven("its counter has moved on: fetch the TAC of the load by GET TRANSACTION PROVE and have it checked")
		default:
			t.State, t.TAC = Credited, r.TAC
		}
		t.Closed, t.NewBalance, t.Note = tx.Now(), r.Balance, r.Note
		return t.record(tx, KindResolved, c.Name, detail{})
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}
