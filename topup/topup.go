// Package topup keeps the ledger of card loads.
package topup

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

var errNotBuilt = errors.New("topup: not built")

// Signer is what a city signs permissions with.
type Signer struct {
	Certificate []byte
	Chain       [][]byte
	Key         crypto.Signer
}

// Config is what a Service stands on.
type Config struct {
	Book     *store.Book
	Verifier *verify.Verifier
	Signer   func(ctx context.Context, city string) (Signer, error)
	Lifetime time.Duration // how far ahead a request may expire; 0: 10 minutes
	OAEP     crypto.Hash   // for RSA readers; 0: SHA-256
	Now      func() time.Time
	Log      *slog.Logger
}

// Service verifies, authorises and confirms loads.
type Service struct{ cfg Config }

// New returns a Service.
func New(cfg Config) (*Service, error) { return &Service{cfg: cfg}, nil }

// Verified is a load request that fits.
type Verified struct {
	Load      *verify.Load
	Agreement *Agreement // for a card of another city than the reader's
}

// Verify judges a load request and changes nothing but the journal of refusals.
func (s *Service) Verify(ctx context.Context, c policy.Caller, request []byte) (*Verified, error) {
	return nil, errNotBuilt
}

// Authorisation is a city's decision to load a card.
type Authorisation struct {
	Request       []byte // the reader's signed message
	CommandScript []byte
	DataScript    []byte // sealed to the reader; stored, logged and named nowhere
	MAC1Accepted  bool   // the city's card keys have accepted the request's MAC1
}

// Authorise returns the city's signed permission.
func (s *Service) Authorise(ctx context.Context, c policy.Caller, a Authorisation) (permission []byte, ev verify.Evidence, err error) {
	return nil, verify.Evidence{}, errNotBuilt
}

// Confirmation is a reader's result and the city's judgement of its TAC.
type Confirmation struct {
	Result      []byte // the reader's signed message
	TACAccepted bool   // the city's card keys have accepted the TAC
}

// Confirm closes a transaction.
func (s *Service) Confirm(ctx context.Context, c policy.Caller, r Confirmation) (*Transaction, error) {
	return nil, errNotBuilt
}

// Resolution is what a card showed when it was read again.
type Resolution struct {
	ID      string
	Counter uint32 // the card's online counter now
	Balance uint64
	TAC     []byte // from GET TRANSACTION PROVE, when there is one
	Note    string // why and by whom it was looked at
}

// Resolve closes a transaction whose result never came.
func (s *Service) Resolve(ctx context.Context, c policy.Caller, r Resolution) (*Transaction, error) {
	return nil, errNotBuilt
}

// State is where a transaction stands.
type State string

// States.
const (
	Authorised State = "authorised" // a permission went out; nothing came back yet
	Torn       State = "torn"       // the reader could not tell whether the card was credited
	Disputed   State = "disputed"   // the reader says credited, but the TAC was not accepted
	Credited   State = "credited"
	Failed     State = "failed"     // the card was not credited; the counter is free again
	Superseded State = "superseded" // a later request proved that this one never credited
	Overdue    State = "overdue"    // only to ask for: authorised, torn or disputed past the expiry
)

// Transaction is one load in the ledger.
type Transaction struct {
	ID           string          `json:"id"`
	City         string          `json:"city"` // the card's
	ReaderCity   string          `json:"readerCity"`
	Reader       string          `json:"reader"`
	Card         string          `json:"card"`
	Counter      uint32          `json:"counter"`
	Random       []byte          `json:"random"`
	Amount       uint64          `json:"amount"`
	Balance      uint64          `json:"balance"` // before
	State        State           `json:"state"`
	Expiry       time.Time       `json:"expiry"`
	Authorised   time.Time       `json:"authorised"`
	Closed       time.Time       `json:"closed,omitzero"`
	RequestHash  store.Hash      `json:"requestHash"`
	Command      store.Hash      `json:"commandHash"` // of the command script
	Answered     bool            `json:"answered"`    // a permission was signed and is kept
	TAC          []byte          `json:"tac,omitempty"`
	NewBalance   uint64          `json:"newBalance,omitempty"`
	SupersededBy string          `json:"supersededBy,omitempty"`
	Note         string          `json:"note,omitempty"`
	Caller       string          `json:"caller"`
	Evidence     verify.Evidence `json:"evidence"`
	Seq          uint64          `json:"seq"` // the event that last changed it
}

// Transaction returns one transaction of a city that the caller may read.
func (s *Service) Transaction(ctx context.Context, c policy.Caller, id string) (*Transaction, error) {
	return nil, errNotBuilt
}

// Query asks for transactions of one city.
type Query struct {
	City  string
	State State  // "" = all
	After []byte // opaque, of the page before
	Limit int
}

// List returns a page of transactions, newest last.
func (s *Service) List(ctx context.Context, c policy.Caller, q Query) (list []*Transaction, next []byte, err error) {
	return nil, nil, errNotBuilt
}
