// Package officers knows the people and machines that may ask something of
// Hufu, holds the one gate that every door passes, and keeps approvals.
//
// A caller is the certificate it proved in TLS: its fingerprint finds the
// person, its status is looked up in the book at every call. An approval is
// CMS SignedData over the canonical bytes of a request, by a person other than
// the requester; it is bound by hash, expires, and is consumed in the
// transaction that uses it.
//
// The package refuses: a caller whose certificate is held, revoked or expired;
// anything that the rights table does not allow; a second Bootstrap; an
// approval by its own requester, of other bytes, or twice by one person; the
// removal of the last CA admin.
package officers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hufu/policy"
	"hufu/store"
)

var errNotBuilt = errors.New("not built yet")

// Person is a person, or a machine, that may act.
type Person struct {
	Fingerprint store.Hash // SHA-256 of Certificate
	Name        string
	Roles       []policy.Role
	City        string // "" = the centre, all cities
	Certificate []byte // DER
	State       string // Active or Removed
	Seq         uint64
}

// States of a Person.
const (
	Active  = "active"
	Removed = "removed"
)

// Config is what an Office stands on.
type Config struct {
	Book *store.Book
	Now  func() time.Time
	Log  *slog.Logger
}

// Office is the register of people and their gate.
type Office struct {
	cfg Config
}

// New returns an Office over a book.
func New(cfg Config) *Office { return &Office{cfg: cfg} }

// Bootstrap records the first two CA admins, once in the life of a book.
func (o *Office) Bootstrap(tx *store.Tx, persons [2]Person) error { return errNotBuilt }

// Caller finds who presented a certificate. The certificate's status is looked
// up in the book at every call.
func (o *Office) Caller(ctx context.Context, certDER []byte) (policy.Caller, error) {
	return policy.Caller{}, errNotBuilt
}

// Gate lets an operation pass or returns *policy.Denied. A refusal of a known
// caller is journalled; a flood of them is counted and summed up.
func (o *Office) Gate(ctx context.Context, c policy.Caller, op policy.Operation, city string) error {
	return errNotBuilt
}

// Person returns one person by the fingerprint of the certificate.
func (o *Office) Person(ctx context.Context, fingerprint store.Hash) (*Person, error) {
	return nil, errNotBuilt
}

// People lists people page by page, ordered by fingerprint.
func (o *Office) People(ctx context.Context, after []byte, limit int) (people []*Person, next []byte, err error) {
	return nil, nil, errNotBuilt
}

// Add records a person. The approval named must be granted for
// p.Canonical(policy.OpOfficerAdd); it is consumed in the same transaction.
func (o *Office) Add(tx *store.Tx, c policy.Caller, p Person, approval string) (*Person, error) {
	return nil, errNotBuilt
}

// Remove takes a person's rights away. The approval named must be granted for
// p.Canonical(policy.OpOfficerRemove). The last CA admin stays.
func (o *Office) Remove(tx *store.Tx, c policy.Caller, fingerprint store.Hash, approval string) error {
	return errNotBuilt
}

// Canonical returns the request bytes that name p as the one to be added
// (policy.OpOfficerAdd) or removed (policy.OpOfficerRemove).
func (p *Person) Canonical(op policy.Operation) []byte { return nil }

// ParsePerson reads what Canonical wrote.
func ParsePerson(canonical []byte) (*Person, policy.Operation, error) { return nil, "", errNotBuilt }
