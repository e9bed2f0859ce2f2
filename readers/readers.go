// Package readers keeps the register of card readers: one object, one state,
// that drives both certificates of a reader as a pair.
//
// A pair is issued in one order and stands or falls as one; Suspend, Resume and
// Revoke change both certificates in one transaction with the reader's history.
//
// The package refuses a reader whose number is already active, a pair whose
// two keys are one, and a change that its table of states does not know.
package readers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hufu/ca"
	"hufu/store"
)

var errNotBuilt = errors.New("not built yet")

// State of a reader's life.
type State string

// manufactured → prepared → allotted → initialised → active ⇄ suspended →
// replaced | revoked | retired.
const (
	Manufactured State = "manufactured"
	Prepared     State = "prepared"
	Allotted     State = "allotted"
	Initialised  State = "initialised"
	Active       State = "active"
	Suspended    State = "suspended"
	Replaced     State = "replaced"
	Revoked      State = "revoked"
	Retired      State = "retired"
)

// Reader is one card reader.
type Reader struct {
	Number  string // 1 to 20 digits and lower-case letters; unique in the book
	City    string
	State   State
	Model   string
	CA      string // ID of the city CA that issued the pair
	Sign    store.Serial
	Encrypt store.Serial
	History []Change
	Seq     uint64 // the event of the last change
}

// Change is one step of a reader's life.
type Change struct {
	Time  time.Time
	From  State
	To    State
	Actor string
	Note  string
}

// Config is what a Register stands on.
type Config struct {
	Book      *store.Book
	Authority *ca.Authority
	Domain    string
	Now       func() time.Time
	Log       *slog.Logger
}

// Register is the register of readers.
type Register struct {
	cfg Config
}

// New returns a Register over a book.
func New(cfg Config) *Register { return &Register{cfg: cfg} }

// Pair asks for a reader's two certificates.
type Pair struct {
	Number   string    `json:"number"`
	City     string    `json:"city"`
	Model    string    `json:"model,omitempty"`
	CSR      []byte    `json:"csr"` // of the signing key; carries the encryption key (ca.EncryptionKeyOf)
	NotAfter time.Time `json:"notAfter,omitzero"`
}

// IssuePair issues both certificates of a reader and makes it active, all in
// one order. The certificates come back as signing, encryption.
func (r *Register) IssuePair(ctx context.Context, p Pair, actor, idempotencyKey string) (*Reader, []*store.Certificate, error) {
	return nil, nil, errNotBuilt
}

// Suspend puts an active reader, and both its certificates, on hold.
func (r *Register) Suspend(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return nil, errNotBuilt
}

// Resume lifts a reader's hold.
func (r *Register) Resume(tx *store.Tx, number, actor, note string) (*Reader, error) {
	return nil, errNotBuilt
}

// Revoke ends a reader: both certificates are revoked with the reason given
// (RFC 5280, Section 5.3.1).
func (r *Register) Revoke(tx *store.Tx, number string, reason int, invalidity time.Time, actor, note string) (*Reader, error) {
	return nil, errNotBuilt
}

// Reader returns one reader.
func (r *Register) Reader(ctx context.Context, number string) (*Reader, error) {
	return nil, errNotBuilt
}

// Query selects readers: by city, by state, or both; both empty selects all.
type Query struct {
	City  string
	State State
	After []byte
	Limit int
}

// List returns readers page by page, ordered by number within the selection.
func (r *Register) List(ctx context.Context, q Query) (list []*Reader, next []byte, err error) {
	return nil, nil, errNotBuilt
}

// Check verifies the pair invariant of every reader: same issuer, subject and
// end of both certificates, and states that agree with the reader's.
func (r *Register) Check(ctx context.Context) error { return errNotBuilt }

// Result is what came of one pair of a batch.
type Result struct {
	Number  string
	Sign    store.Serial
	Encrypt store.Serial
	Err     error
}

// Batch issues pairs[from:], a chunk at a time. save is called after each chunk
// with its results, in order, and with the index to go on from; what happened
// after the last save happens again, with the same outcome: id makes each
// pair's idempotency key.
func (r *Register) Batch(ctx context.Context, id string, pairs []Pair, from int, actor string, save func(next int, results []Result) error) error {
	return errNotBuilt
}
