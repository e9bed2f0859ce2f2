// Package ca is the spine: the one way by which a certificate comes into the
// world, and the state machine of what becomes of it.
//
// Issue tells the making of a certificate in one function: parse and judge the
// request, prepare, reserve, sign, commit, answer. The reserve transaction is
// on disk before a key in the token is touched, so that no signature exists
// without its intent; Recover closes what a dead node left open, through the
// code that closes a failed signature every day. Suspend, Resume and Revoke run
// in the caller's transaction. PublishCRL and Run keep the lists.
//
// The package refuses: a request without proof of possession; a request that
// asks to be a CA; a key that another certificate line holds; extensions copied
// from a request (nothing of a request but its key is used); a second answer
// to one idempotency key; a change of status that RFC 5280, Section 5.3.1 does
// not know; a certificate from a CA that is not active. It reaches neither a
// directory nor a responder: these follow the journal.
//
// RFC 2986 (requests), RFC 5280 (certificates, reasons, CRLs).
package ca

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

var errNotBuilt = errors.New("not built yet")

// Config is what an Authority stands on.
type Config struct {
	Book *store.Book

	// Issuers are the working CAs whose keys this node holds.
	Issuers []*issuance.Issuer

	// Node names this node in its intents. Two running nodes never share a
	// name; a restarted node takes its old name again.
	Node string

	// Lease is how long the node's intents are its own without a sign of
	// life. Zero means 30 s.
	Lease time.Duration

	// Sessions is how many signatures a batch makes at once. Zero means 8.
	Sessions int

	// CRLEvery and CRLValidity are the schedule of full CRLs: how often they
	// are signed and how long they hold. Zero means 10 minutes and 24 hours.
	CRLEvery, CRLValidity time.Duration

	Now func() time.Time
	Log *slog.Logger
}

// Authority issues for the working CAs of one book.
type Authority struct {
	cfg Config
}

// New checks that each issuer stands in the book and returns an Authority that
// has started nothing. It takes a new incarnation of the node's name at the
// first write.
func New(cfg Config) (*Authority, error) { return nil, errNotBuilt }

// Request asks for one certificate.
type Request struct {
	// CA is a line ("330100"), whose active generation is used, or the ID of
	// one generation.
	CA      string
	Profile string

	// CSR is a PKCS#10 request in DER: it proves possession of the key.
	CSR []byte

	// SPKI is the key where it cannot sign, vouched for by the signing CSR of
	// the same order: the order must hold a CSR that carries exactly these
	// bytes (see EncryptionKeyOf).
	SPKI []byte

	Name policy.Name

	// Line names the certificate line that this one renews; "" begins a new
	// line, named by its first certificate's serial.
	Line string

	// NotAfter ends the certificate earlier than its profile would. Zero: by
	// profile.
	NotAfter time.Time
}

// Order is a list of requests that are granted all or not at all.
type Order struct {
	Requests  []Request
	Requester string

	// IdempotencyKey, if set, makes a repeated order answer with the
	// certificates of the first. Keys of different requesters are different.
	IdempotencyKey string

	// Hold puts the certificates on hold in the transaction that records them.
	Hold bool

	// Reserve and Commit, if set, run inside the reserve and the commit
	// transaction. They may run more than once. In Reserve the certificates
	// have no DER and no Seq yet.
	Reserve, Commit func(tx *store.Tx, certs []*store.Certificate) error
}

// Ref names a certificate.
type Ref struct {
	CA     string // ID, not line
	Serial store.Serial
}

// Issue grants an order: all its certificates, in the order of its requests,
// or none.
func (a *Authority) Issue(ctx context.Context, o Order) ([]*store.Certificate, error) {
	return nil, errNotBuilt
}

// IssueBatch grants orders in chunks: one reserve and one commit for a chunk,
// signatures spread over the token's sessions. each is called once for each
// order, in order, after its chunk is committed; an error from it ends the
// batch. An order that is refused does not take the others of its chunk down.
func (a *Authority) IssueBatch(ctx context.Context, orders []Order, each func(i int, certs []*store.Certificate, err error) error) error {
	return errNotBuilt
}

// Suspend puts a good certificate on hold.
func (a *Authority) Suspend(tx *store.Tx, r Ref, actor string) error { return errNotBuilt }

// Resume lifts a hold. Only a hold can be lifted (RFC 5280, Section 5.3.1).
func (a *Authority) Resume(tx *store.Tx, r Ref, actor string) error { return errNotBuilt }

// Revoke ends a good or held certificate for ever. invalidity, if not zero, is
// when the key is known to have been lost (RFC 5280, Section 5.3.2).
func (a *Authority) Revoke(tx *store.Tx, r Ref, reason int, invalidity time.Time, actor string) error {
	return errNotBuilt
}

// PublishCRL signs and records the full CRL of one CA.
func (a *Authority) PublishCRL(ctx context.Context, caID string) (*store.CRL, error) {
	return nil, errNotBuilt
}

// Recover closes the intents that were left open by nodes whose lease has
// ended: their serials are revoked, their keys are free again.
func (a *Authority) Recover(ctx context.Context) (closed int, err error) { return 0, errNotBuilt }

// Run recovers, then renews the node's lease and publishes CRLs, at once after
// a revocation (gathered for at most a second) and on schedule, until ctx ends.
func (a *Authority) Run(ctx context.Context) error { return errNotBuilt }

// EncryptionKeyOf returns the encryption key that a signing CSR carries for
// the pair, or nil where it carries none. The CSR's signature covers it.
func EncryptionKeyOf(csr []byte) (spki []byte, err error) { return nil, errNotBuilt }
