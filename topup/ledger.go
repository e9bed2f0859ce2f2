package topup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// State is where a transaction stands.
type State string

// The states. The first three are open.
const (
	Authorised State = "authorised" // a permission was given; nothing came back yet
	Torn       State = "torn"       // the reader could not tell whether the card was credited
	Disputed   State = "disputed"   // the reader says credited, and TAC or balance do not say so
	Credited   State = "credited"
	Failed     State = "failed"     // the card was not credited; the counter is free again
	Superseded State = "superseded" // a later request proved that this one never credited

	// Overdue is only to ask List for: open, and past its expiry.
	Overdue State = "overdue"
)

func (s State) open() bool { return s == Authorised || s == Torn || s == Disputed }

// Transaction is one load in the ledger.
type Transaction struct {
	ID             string          `json:"id"`
	City           string          `json:"city"` // the card's
	ReaderCity     string          `json:"readerCity"`
	Reader         string          `json:"reader"` // DNS name
	Card           string          `json:"card"`
	Counter        uint32          `json:"counter"`
	Random         []byte          `json:"random"`
	Amount         uint64          `json:"amount"`  // fen
	Balance        uint64          `json:"balance"` // fen, before
	State          State           `json:"state"`
	Expiry         time.Time       `json:"expiry"`
	Authorised     time.Time       `json:"authorised"`
	Closed         time.Time       `json:"closed,omitzero"`
	RequestHash    store.Hash      `json:"requestHash"`
	PermissionHash store.Hash      `json:"permissionHash"` // zero until a permission is kept
	ResultHash     store.Hash      `json:"resultHash"`     // of the last result that was accepted
	CommandHash    store.Hash      `json:"commandHash"`    // of the command script that was sealed
	TAC            []byte          `json:"tac,omitempty"`
	NewBalance     uint64          `json:"newBalance,omitempty"` // fen, after
	SupersededBy   string          `json:"supersededBy,omitempty"`
	Note           string          `json:"note,omitempty"`
	Caller         string          `json:"caller"` // who authorised it
	Evidence       verify.Evidence `json:"evidence"`
	First          uint64          `json:"first"` // the event that authorised it
	Seq            uint64          `json:"seq"`   // the event that last changed it
}

// message is one signed message of a transaction, kept as it came or went.
type message struct {
	ID   string
	Hash store.Hash
	DER  []byte
}

// transactions has the primary key Key(ID). Those of all cities are also found
// under the city "".
var transactions = store.Table[Transaction]{
	Name: "topup.transaction", Codec: store.JSON[Transaction](),
	Key: func(t *Transaction) []byte { return store.Key(t.ID) },
	Indexes: []store.Index[Transaction]{
		{Name: "city", Keys: func(t *Transaction) [][]byte {
			return [][]byte{store.Key(t.City, t.First), store.Key("", t.First)}
		}},
		{Name: "state", Keys: func(t *Transaction) [][]byte {
			return [][]byte{store.Key(t.City, string(t.State), t.First), store.Key("", string(t.State), t.First)}
		}},
		{Name: "open", Keys: func(t *Transaction) [][]byte {
			if !t.State.open() {
				return nil
			}
			return [][]byte{store.Key(t.City, t.Expiry, t.First), store.Key("", t.Expiry, t.First)}
		}},
		{Name: "slot", Keys: func(t *Transaction) [][]byte {
			return [][]byte{store.Key(t.City, t.Card, t.Counter, t.First)}
		}},
	},
}

// messages has the primary key Key(ID, Hash).
var messages = store.Table[message]{
	Name: "topup.message", Codec: store.JSON[message](),
	Key: func(m *message) []byte { return store.Key(m.ID, m.Hash) },
}

// Tables are the tables that this package owns.
var Tables = []store.Checked{&transactions, &messages, &agreements}

// KindResolved is the event of a transaction that a person closed.
const KindResolved = "topup.resolved"

// Every event of a load has a detail of this form. The card's number stays in the
// transaction: the journal is for ever.
type detail struct {
	ID       string           `json:"id"`
	City     string           `json:"city"`
	Reader   string           `json:"reader"`
	Amount   uint64           `json:"amount"`
	State    State            `json:"state"`
	Message  store.Hash       `json:"message,omitzero"` // of the request or the result
	By       string           `json:"by,omitempty"`     // the transaction that superseded this one
	Evidence *verify.Evidence `json:"evidence,omitempty"`
}

func (t *Transaction) record(tx *store.Tx, kind, actor string, d detail) error {
	d.ID, d.City, d.Reader, d.Amount, d.State = t.ID, t.City, t.Reader, t.Amount, t.State
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("writing the event of transaction %s: %w", t.ID, err)
	}
	t.Seq = tx.Append(store.Event{Kind: kind, Actor: actor, Detail: string(text)})
	if t.First == 0 {
		t.First = t.Seq
	}
	return transactions.Put(tx, t)
}

// reserve writes the authorisation, or finds that this very request has one.
func (s *Service) reserve(tx *store.Tx, c policy.Caller, load *verify.Load, a Authorisation, ev verify.Evidence) error {
	switch t, err := transactions.Get(tx, store.Key(load.Transaction)); {
	case err == nil && t.RequestHash != load.Message.Hash:
		return &ReplayError{ID: load.Transaction, What: "the transaction number is that of another request"}
	case err == nil && t.State == Superseded:
		return &SupersededError{ID: t.ID, By: t.SupersededBy}
	case err == nil:
		return nil
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	t := &Transaction{
		ID: load.Transaction, City: load.CardCity, ReaderCity: load.ReaderCity, Reader: load.Reader, Card: load.Card,
		Counter: load.Counter, Random: load.Random, Amount: load.Amount, Balance: load.Balance, State: Authorised, Expiry: load.Expiry,
		Authorised: tx.Now(), RequestHash: load.Message.Hash, Caller: c.Name, Evidence: ev,
	}
	if err := t.claim(tx, c.Name, a.MAC1Accepted); err != nil {
		return err
	}
	if err := messages.Put(tx, &message{t.ID, t.RequestHash, a.Request}); err != nil {
		return err
	}
	return t.record(tx, store.KindTopUpAuthorised, c.Name, detail{Message: t.RequestHash, Evidence: &ev})
}

// claim takes the card's counter for t.
func (t *Transaction) claim(tx *store.Tx, actor string, mac1Accepted bool) error {
	if err := t.notOvertaken(tx); err != nil {
		return err
	}
	var earlier []*Transaction
	for e, err := range transactions.Scan(tx, "slot", store.Key(t.City, t.Card, t.Counter)) {
		if err != nil {
			return err
		}
		earlier = append(earlier, e)
	}
	for _, e := range earlier {
		switch {
		case e.State == Credited:
			return &SpentError{ID: t.ID, Counter: t.Counter, By: e.ID}
		case bytes.Equal(e.Random, t.Random):
			return &ReplayError{ID: t.ID, What: "the card's random was used before, in transaction " + e.ID}
		case e.State.open() && !mac1Accepted:
			return &TakenError{ID: t.ID, Counter: t.Counter, By: e.ID, State: e.State}
		}
	}
	for _, e := range earlier {
		if !e.State.open() {
			continue
		}
		e.State, e.SupersededBy, e.Closed = Superseded, t.ID, tx.Now()
		if err := e.record(tx, store.KindTopUpSuperseded, actor, detail{By: t.ID}); err != nil {
			return err
		}
	}
	return nil
}

// notOvertaken looks for a credit at a higher counter: a card counts upwards, so
// after it this one is history. What lies between may have failed or be open.
func (t *Transaction) notOvertaken(tx *store.Tx) error {
	q := store.Query{Index: "slot", Prefix: store.Key(t.City, t.Card), Reverse: true, Limit: 16}
	for {
		rows, next, err := transactions.Page(tx, q)
		if err != nil {
			return err
		}
		for _, e := range rows {
			if e.Counter <= t.Counter {
				return nil
			}
			if e.State == Credited {
				return &SpentError{ID: t.ID, Counter: t.Counter, By: e.ID}
			}
		}
		if next == nil {
			return nil
		}
		q.After = next
	}
}

// kept returns the permission of a transaction, nil where none is kept.
func (s *Service) kept(ctx context.Context, id string) (der []byte, err error) {
	err = s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		t, err := transactions.Get(tx, store.Key(id))
		if err != nil {
			return err
		}
		der, err = permissionOf(tx, t)
		return err
	})
	return der, err
}

func permissionOf(tx *store.Tx, t *Transaction) ([]byte, error) {
	if t.PermissionHash.IsZero() {
		return nil, nil
	}
	m, err := messages.Get(tx, store.Key(t.ID, t.PermissionHash))
	if err != nil {
		return nil, err
	}
	return m.DER, nil
}

// keep stores a permission unless one is kept, and returns the one that counts. A
// permission that was overtaken while it was made is never shown to anybody.
func keep(tx *store.Tx, id string, permission []byte, command store.Hash) ([]byte, error) {
	t, err := transactions.Get(tx, store.Key(id))
	if err != nil {
		return nil, err
	}
	if t.State == Superseded {
		return nil, &SupersededError{ID: t.ID, By: t.SupersededBy}
	}
	if kept, err := permissionOf(tx, t); err != nil || kept != nil {
		return kept, err
	}
	if !t.State.open() {
		return nil, &ClosedError{ID: t.ID, State: t.State}
	}
	t.PermissionHash, t.CommandHash = store.Sum(permission), command
	if err := messages.Put(tx, &message{id, t.PermissionHash, permission}); err != nil {
		return nil, err
	}
	return permission, transactions.Put(tx, t)
}

// Transaction returns one transaction that the caller may read.
func (s *Service) Transaction(ctx context.Context, c policy.Caller, id string) (*Transaction, error) {
	t, err := s.transaction(ctx, c, id)
	if err != nil {
		return nil, s.refuse(ctx, c, policy.OpTopUpRead, nil, err)
	}
	return t, nil
}

func (s *Service) transaction(ctx context.Context, c policy.Caller, id string) (t *Transaction, err error) {
	if err := policy.Allowed(c, policy.OpTopUpRead, c.City); err != nil {
		return nil, err
	}
	err = s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		t, err = transactions.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, policy.Allowed(c, policy.OpTopUpRead, t.City)
}

// Query asks for transactions.
type Query struct {
	City  string // "" = of all cities
	State State  // "" = all, Overdue = open and past the expiry
	After []byte // opaque, of the page before
	Limit int    // 0: 100
}

// List returns a page of transactions, oldest first, and where the next page
// begins: nil when there is none.
func (s *Service) List(ctx context.Context, c policy.Caller, q Query) (list []*Transaction, next []byte, err error) {
	if err := policy.Allowed(c, policy.OpTopUpRead, q.City); err != nil {
		return nil, nil, s.refuse(ctx, c, policy.OpTopUpRead, nil, err)
	}
	page := store.Query{Index: "city", Prefix: store.Key(q.City), After: q.After, Limit: q.Limit}
	switch q.State {
	case "":
	case Overdue:
		page.Index = "open"
	default:
		page.Index, page.Prefix = "state", store.Key(q.City, string(q.State))
	}
	now := s.cfg.Now()
	err = s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		list, next, err = transactions.Page(tx, page)
		return err
	})
	if err != nil || q.State != Overdue {
		return list, next, err
	}
	// The index is ordered by expiry.
	for i, t := range list {
		if !now.After(t.Expiry) {
			return list[:i], nil, nil
		}
	}
	return list, next, nil
}
