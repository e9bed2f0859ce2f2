// Package stage1 is the centre's half of a reader's first days: models, makers'
// manifests, device certificates in bulk, tickets for the cities, and the receipts
// that come back.
//
// A model stands in a list with its approval and its end; a manifest (CSV) brings
// readers of known models, and is taken as a whole or not at all, with every fault
// of every row told at once; a job certifies the device keys. A ticket is a list of
// prepared readers that the centre signs for one city (verify.Ticket). A city with
// a book of its own imports the file; a city of the same book just uses it. The
// receipts of an offline city are held against the ticket and the register, and
// bring the centre's state of the readers up.
//
// All long work is a job, goes on after a kill, and does nothing twice: a reader of
// a manifest by its row, which goes in the transaction that prepares the reader;
// one of a ticket by its state.
//
// The package refuses: a reader of a model that is unknown, withdrawn or past its
// approval; a firmware that was not tested; a key that policy does not take, or that
// stands anywhere already; a ticket for readers that are not prepared; a ticket of
// another centre or for another city; a receipt that anything is wrong with.
package stage1

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"hufu/ca"
	"hufu/jobs"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// Kinds of event that this package appends.
const (
	KindModelAdded     = "model.added"
	KindModelWithdrawn = "model.withdrawn"
	KindManifest       = "manifest.accepted"
	KindTicketBegun    = "ticket.begun"
	KindTicketSigned   = "ticket.signed"
	KindTicketImported = "ticket.imported"
	KindTicketRevoked  = "ticket.revoked"
)

// Kinds of jobs.
const (
	JobManifest     = "manifest"
	JobTicket       = "ticket"
	JobTicketImport = "ticket.import"
	JobTicketRevoke = "ticket.revoke"
)

// Signer is what the centre signs tickets with.
type Signer struct {
	Certificate []byte   // of profile centre-sign
	Chain       [][]byte // issuers upward, without the root
	Key         crypto.Signer
}

// Config is what a Stage stands on.
type Config struct {
	Book      *store.Book
	Authority *ca.Authority
	Register  *readers.Register
	Verifier  *verify.Verifier
	DeviceCA  string                                 // the line that certifies devices; "" = this node is no centre
	Signer    func(context.Context) (*Signer, error) // nil: this node signs no tickets
	Domain    string
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: no log
}

// Stage is the first stage of a node.
type Stage struct {
	Config
}

// New returns a Stage that has started nothing.
func New(cfg Config) *Stage {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Stage{cfg}
}

// Work is the functions of the package's jobs, for jobs.Config.
func (s *Stage) Work() map[string]jobs.Func {
	return map[string]jobs.Func{JobManifest: s.certify, JobTicket: s.makeTicket, JobTicketImport: s.acceptTicket, JobTicketRevoke: s.withdrawTicket}
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&models, &manifests, &rows, &tickets, &parts}

// Refusal says why something of the first stage is not done.
type Refusal struct {
	Problem string // a stable word
	Detail  string
	Remedy  string
}

func (e *Refusal) Error() string { return e.Detail + ": " + e.Remedy }

// chunk is how many readers share one transaction.
const chunk = 256

// ordinary tells whether an error is about one reader and no fault of the book, so
// that a job writes it down and goes on.
func ordinary(err error) bool {
	var state *readers.StateError
	var pair *readers.PairError
	var taken *readers.TakenError
	var refusal *Refusal
	return errors.As(err, &state) || errors.As(err, &pair) || errors.As(err, &taken) || errors.As(err, &refusal) || errors.Is(err, store.ErrNotFound)
}
