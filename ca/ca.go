// Package ca is the spine: the one way by which a certificate comes into the
// world, and the state machine of what becomes of it.
//
// Issue tells the making of a certificate in one function: parse and judge the
// request, prepare, reserve, sign, commit, answer. The reserve transaction is
// on disk before a key in the token is touched, so that no signature exists
// without its intent; Recover closes what a dead node left open, through the
// code that closes a failed signature every day. Suspend, Resume and Revoke run
// in the caller's transaction. PublishLists and Run keep the
// lists; ImportCRL takes up what was signed elsewhere.
//
// The package refuses: a request without proof of possession; a request that
// asks to be a CA; a key that another certificate line holds, or that was
// revoked as compromised; anything of a request but its key; a second answer to
// one idempotency key; a change of status that RFC 5280, Section 5.3.1 does not
// know; a certificate from a CA that is not active. It reaches neither a
// directory nor a responder: these follow the journal.
//
// RFC 2986 (requests), RFC 5280 (certificates, reasons, CRLs).
package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// Config is what an Authority stands on.
type Config struct {
	Book *store.Book

	// Issuers are the working CAs whose keys this node holds, retired
	// generations too: their lists are signed until their last certificate
	// ends.
	Issuers []*issuance.Issuer

	// Node names this node in its intents. Two running nodes never share a
	// name: the one that enters later ends the other's lease. A restarted node
	// takes its old name again.
	Node string

	// Lease is how long the node's intents are its own without a sign of
	// life. Zero means 30 s.
	Lease time.Duration

	// Sessions is how many signatures are made at once for one order or one
	// chunk of a batch. Zero means 8.
	Sessions int

	// CRLEvery and CRLValidity are the schedule of CRLs: how often they are
	// signed and how long they hold. Zero means 10 minutes and 24 hours.
	CRLEvery, CRLValidity time.Duration

	// CRLFullEvery is how often the full CRLs of a CA with deltas are signed when
	// nothing changes; its deltas are signed every CRLEvery and on every
	// revocation, and full CRLs on a revocation too, but so that they take no
	// more than a tenth of the time. Zero means CRLEvery.
	CRLFullEvery time.Duration

	// MayHold is asked, in the transaction that reserves a certificate, whether
	// its key may have it, beside what the spine knows itself. Nil means yes.
	MayHold func(tx *store.Tx, c *store.Certificate) error

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means no log
}

// Authority issues for the working CAs of one book.
type Authority struct {
	Config
	issuers map[string]*issuance.Issuer // by CA ID
	begun   map[string]time.Time        // by CA ID: notBefore of the CA's certificate
	newest  map[string]*issuance.Issuer // by CA line: the highest generation
	lists   map[string]*sync.Mutex      // by CA ID: one CRL at a time
	keys    map[store.Hash]string       // CA ID by the key's SPKI

	entry       sync.Mutex // held while the node enters the book
	incarnation uint64     // guarded by entry; 0 until the node has entered
}

// New returns an Authority that has started nothing. The node enters the book,
// with a new incarnation of its name, when it first writes.
func New(cfg Config) (*Authority, error) {
	if cfg.Book == nil || cfg.Node == "" {
		return nil, errors.New("an authority needs a book and a name for its node")
	}
	cfg.Lease = orDefault(cfg.Lease, 30*time.Second)
	cfg.CRLEvery = orDefault(cfg.CRLEvery, 10*time.Minute)
	cfg.CRLValidity = orDefault(cfg.CRLValidity, 24*time.Hour)
	cfg.CRLFullEvery = orDefault(cfg.CRLFullEvery, cfg.CRLEvery)
	if cfg.CRLValidity <= cfg.CRLEvery || cfg.CRLValidity <= cfg.CRLFullEvery {
		return nil, fmt.Errorf("CRLs that hold for %v cannot be signed every %v and %v: there would be none in between", cfg.CRLValidity, cfg.CRLEvery, cfg.CRLFullEvery)
	}
	if cfg.Sessions <= 0 {
		cfg.Sessions = 8
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authority{
		Config:  cfg,
		issuers: map[string]*issuance.Issuer{},
		begun:   map[string]time.Time{},
		newest:  map[string]*issuance.Issuer{},
		lists:   map[string]*sync.Mutex{},
		keys:    map[store.Hash]string{},
	}
	for _, i := range cfg.Issuers {
		rec := i.CA()
		if a.issuers[rec.ID] != nil {
			return nil, fmt.Errorf("two issuers for CA %q", rec.ID)
		}
		cert, err := x509.ParseCertificate(rec.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of CA %q: %w", rec.ID, err)
		}
		a.begun[rec.ID] = cert.NotBefore
		a.issuers[rec.ID] = i
		a.lists[rec.ID] = new(sync.Mutex)
		a.keys[store.Sum(cert.RawSubjectPublicKeyInfo)] = rec.ID
		if n := a.newest[rec.Line]; n == nil || n.CA().Generation < rec.Generation {
			a.newest[rec.Line] = i
		}
	}
	return a, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// issuer finds the CA that a request names: by line, which takes the newest
// generation, or by the ID of one generation.
func (a *Authority) issuer(name string) (*issuance.Issuer, error) {
	if i := a.newest[name]; i != nil {
		return i, nil
	}
	if i := a.issuers[name]; i != nil {
		return i, nil
	}
	return nil, &CAError{CA: name, Detail: "this node holds no key of it", Remedy: "name a CA that `hufu ca list` shows, or ask the node that holds its key"}
}

// begin is when a certificate begins: as early as asked for, but not before its
// CA.
func (a *Authority) begin(i *issuance.Issuer, asked time.Time) time.Time {
	if begun := a.begun[i.CA().ID]; asked.Before(begun) {
		return begun
	}
	return asked
}

// Request asks for one certificate.
type Request struct {
	// CA is a line ("330100"), whose newest generation is used, or the ID of
	// one generation.
	CA      string
	Profile string

	// CSR is a PKCS#10 request in DER: it proves possession of the key.
	CSR []byte

	// SPKI is the key where it cannot sign, vouched for by the signing CSR of
	// the same order: the order must hold a CSR that carries exactly these
	// bytes (see EncryptionKeyOf).
	SPKI []byte

	// Kept says that the key management centre made the key in SPKI and keeps
	// it, so that no CSR vouches for it. It is for reader-encrypt alone and
	// refused for every profile whose key can sign. Who orders checks in
	// Reserve that the centre has the key and keeps it for this reader.
	Kept bool `json:",omitempty"` // an order without it keeps its sum

	// Vouched says that a maker's manifest vouches for the key in SPKI. It is for
	// device alone: the reader proves that it holds the key when it enrols, and
	// until then the certificate is good for nothing else.
	Vouched bool `json:",omitempty"`

	Name policy.Name

	// Line names the certificate line that this one renews; "" begins a new
	// line, named by its first certificate's serial. A renewal has the line's
	// profile and subject, and may keep its key.
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
	// transaction. They may run more than once, and change nothing outside the
	// transaction. In Reserve the certificates have no DER and no Seq yet, and
	// what it writes stays when the order fails later. An error of either ends
	// the order.
	Reserve, Commit func(tx *store.Tx, certs []*store.Certificate) error
}

// Ref names a certificate.
type Ref struct {
	CA     string // ID, not line
	Serial store.Serial
}

func (r Ref) key() []byte { return store.SerialKey(r.CA, r.Serial) }

// Issue grants an order: all its certificates, in the order of its requests,
// or none. An order whose idempotency key is under way elsewhere is waited for.
func (a *Authority) Issue(ctx context.Context, o Order) ([]*store.Certificate, error) {
	u := &underway{Order: o}
	for {
		if err := a.issue(ctx, []*underway{u}); err != nil {
			return nil, err
		}
		if u.open == 0 {
			return u.certs, u.err
		}
		// Whoever has the order open ends it with an event: issued or
		// intent.closed.
		if _, err := a.Book.Follow(ctx, u.open, 1); err != nil {
			return nil, fmt.Errorf("waiting for order %q, which is under way: %w", o.IdempotencyKey, err)
		}
	}
}

// chunk is how many orders of a batch share one reserve and one commit.
const chunk = 256

// IssueBatch grants orders in chunks: one reserve and one commit for a chunk,
// signatures spread over the token's sessions. each is called once for each
// order, in order, after its chunk is committed; an error from it ends the
// batch. An order that is refused does not take the others of its chunk down.
func (a *Authority) IssueBatch(ctx context.Context, orders []Order, each func(i int, certs []*store.Certificate, err error) error) error {
	for first := 0; first < len(orders); first += chunk {
		us := make([]*underway, min(chunk, len(orders)-first))
		for i := range us {
			us[i] = &underway{Order: orders[first+i]}
		}
		if err := a.issue(ctx, us); err != nil {
			return err
		}
		for i, u := range us {
			if u.open != 0 {
				u.certs, u.err = a.Issue(ctx, u.Order)
			}
			if err := each(first+i, u.certs, u.err); err != nil {
				return err
			}
		}
	}
	return nil
}
