// Package stage2 is a city's half of a reader's first days: a reader that the
// centre prepared proves who it is, gets its pair on hold, and becomes active by
// the receipt that it signs with its new key. An active reader gets a new pair in
// the same way.
//
// The exchange has three steps. Open gives a challenge; Enrol takes the reader's
// enrolment, which answers the challenge and is signed with the device key, or for
// a renewal with the present signing key, and issues the pair on hold in one order;
// Receipt makes the pair good. The encryption key is made by the key management
// centre and sealed to a one-time key that the enrolment covers, or by the reader.
//
// Sessions live in memory. What a lost session, a lost answer or a power cut on
// either side leaves is one of three states, and the same steps finish each of
// them: the reader allotted, with no trace or a revoked serial; initialised, with
// its pair on hold, which the same keys get again and new keys get replaced; active,
// of which the same receipt is told again.
//
// The package refuses, each by its own Outcome: a reader that is not on the ticket,
// of another city, or initialised already; a ticket that is spent, expired, revoked
// or not ready; a proof that does not hold: another reader's key, another session's
// challenge, a request that its key did not sign, a key that the request does not
// cover, a receipt that is not for the pair on hold. It refuses whoever did not open
// the session. Every refusal of a reader is journalled.
package stage2

import (
	"errors"
	"log/slog"
	"time"

	"hufu/ca"
	"hufu/issuance/escrow"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

// Kinds of event that this package appends.
const (
	KindRefused = "stage2.refused"
	KindReceipt = "stage2.receipt"
)

// Config is what a Service stands on. Book, Authority, Register, Stage and Verifier
// must be set.
type Config struct {
	Book      *store.Book
	Authority *ca.Authority
	Register  *readers.Register
	Stage     *stage1.Stage  // whose tickets admit readers
	Escrow    *escrow.Escrow // nil: readers make their encryption keys themselves
	Verifier  *verify.Verifier
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: no log
}

// Service is the second stage of a node.
type Service struct {
	Config
	sessions *sessions
}

// New returns a Service that holds no session.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{Config: cfg, sessions: newSessions()}
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&rows, &authorities}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
