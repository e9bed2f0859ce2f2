package officers

import (
	"context"
	"time"

	"hufu/policy"
	"hufu/store"
)

// Approval is a request that needs other people's signatures.
type Approval struct {
	ID        string
	Op        policy.Operation
	City      string
	Request   []byte     // what is asked for, as compact JSON
	Canonical []byte     // what is signed: names the book, this approval, the requester, the end, and Request
	Hash      store.Hash // of Canonical
	Requester store.Hash // fingerprint
	Name      string     // of the requester
	Needed    int
	Given     []Consent
	State     string // Open, Granted, Used; an open or granted one past Expires is Expired
	Created   time.Time
	Expires   time.Time
	Seq       uint64
}

// Consent is one person's signature under an approval.
type Consent struct {
	Fingerprint store.Hash
	Name        string
	Time        time.Time
	CMS         []byte
}

// States of an Approval.
const (
	Open    = "open"
	Granted = "granted"
	Used    = "used"
	Expired = "expired"
)

// Request opens an approval for an operation in a city ("" = none or all),
// described by canonical bytes (compact JSON), that needs the signatures of
// `needed` people other than the caller.
func (o *Office) Request(tx *store.Tx, c policy.Caller, op policy.Operation, city string, canonical []byte, needed int) (*Approval, error) {
	return nil, errNotBuilt
}

// Approve adds the caller's signature: CMS SignedData of content type
// oid.ContentApproval over Approval.Canonical. With the last signature needed
// the approval is Granted.
func (o *Office) Approve(tx *store.Tx, c policy.Caller, id string, cms []byte) (*Approval, error) {
	return nil, errNotBuilt
}

// Consume uses a granted approval up, in the transaction that does what was
// approved: request is the hash of the bytes given to Request.
func (o *Office) Consume(tx *store.Tx, id string, request store.Hash) error { return errNotBuilt }

// Approval returns one approval.
func (o *Office) Approval(ctx context.Context, id string) (*Approval, error) {
	return nil, errNotBuilt
}

// Approvals lists approvals in one state ("" = all), page by page.
func (o *Office) Approvals(ctx context.Context, state string, after []byte, limit int) (list []*Approval, next []byte, err error) {
	return nil, nil, errNotBuilt
}
