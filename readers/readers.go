// Package readers keeps the register of card readers: one object, one state,
// that drives both certificates of a reader as a pair.
//
// A reader is entered from its maker's manifest, prepared with a device
// certificate, allotted to a city by a ticket, initialised with a pair on hold,
// and active once its receipt is there; a city may also take a reader in at
// once. The table of steps (Steps) is the whole of what can happen to it; each
// step is a method that takes the caller's transaction, keeps the reader's
// history and writes the journal.
//
// Both certificates of a pair have one state, always that of the reader's. The
// declared exceptions are these, and Check knows no others:
//
//   - While a pair is being renewed a reader has two: the present one in the
//     reader's state, the next one on hold, both its halves, until the receipt is
//     there. Nothing but the receipt lifts that hold.
//   - A reader whose pair is in the book of the city that issued it (Elsewhere)
//     has no certificates here; its state here is what the receipt told.
//   - Manufactured, prepared and allotted readers have no pair, and one that ends
//     before it got one never has.
//   - The device certificate is not of the pair: a hold does not touch it. It is
//     revoked when the reader's life ends, where this book holds it.
//
// The package refuses a reader whose number is taken, a signing request that
// carries no encryption key, a pair whose two keys are one, a step that the
// table does not know, and a mass change that selects everything.
package readers

import (
	"log/slog"

	"hufu/ca"
	"hufu/store"
)

// Config is what a Register stands on.
type Config struct {
	Book      *store.Book
	Authority *ca.Authority
	Domain    string
	Log       *slog.Logger // nil means no log
}

// Register is the register of readers.
type Register struct {
	Config
}

// New returns a Register over a book.
func New(cfg Config) *Register {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Register{cfg}
}
