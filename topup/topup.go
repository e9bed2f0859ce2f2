// Package topup keeps the ledger of card loads: what a reader asked for, what a
// city allowed, and how it ended.
//
// A load is verified, authorised and confirmed. Authorise writes the authorisation
// into the book before anything is sealed or signed; then it seals the scripts to
// the reader's encryption certificate, signs the permission with the city's key,
// and keeps these bytes; only kept bytes are ever answered. So a byte-identical
// request gets the same bytes however often it comes and wherever a crash fell: an
// authorisation without a kept answer has been shown to nobody, and the next try
// finishes it.
//
// For one card and one value of its counter there is at most one authorisation that
// is open or credited. A new request for the same counter, with a random that the
// card has not shown before and a MAC1 that the city accepted, proves that the
// earlier one never credited: the earlier one becomes superseded in the same
// transaction.
//
// The plaintext of a data script is in no record, log or error of this package, nor
// is a hash of it: what a script holds can be short enough to be guessed.
//
// The package refuses: requests that package verify refuses, callers whose role and
// city do not allow it, requests that live too long, a transaction number or a
// random used twice, a counter that is taken or spent, a card of another city
// without an agreement of both cities, and results that do not fit what was
// permitted. Every refusal is a verify.Misfit or a *policy.Denied and is journalled,
// a flood of them in part.
package topup

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// Lifetime is how far ahead a request may expire where Config names nothing else.
const Lifetime = 10 * time.Minute

// MaxScripts is how long both scripts of a load may be together, so that a reader
// can read the permission.
const MaxScripts = cms.MaxMessage / 2

// Config is what a Service stands on. Book, Verifier and Signer are needed.
type Config struct {
	Book     *store.Book
	Verifier *verify.Verifier
	// Signer returns what a city signs with at present; it is asked for
	// every permission, so a renewed certificate is taken up at once.
	Signer   func(ctx context.Context, city string) (Signer, error)
	Lifetime time.Duration // how far ahead a request may expire; 0: 10 minutes
	OAEP     crypto.Hash   // for readers with RSA keys; 0: SHA-256
	Now      func() time.Time
	Log      *slog.Logger
}

// Signer is what a city signs permissions with.
type Signer struct {
	Certificate []byte   // profile city-sign, DER
	Chain       [][]byte // travels with the permission
	Key         crypto.Signer
}

// Service verifies, authorises and confirms loads. Any number of goroutines, and
// of services on one book, may use it at once.
type Service struct {
	cfg   Config
	locks [64]chan struct{} // one of them is held while an answer is made
	flood flood
}

// New returns a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Book == nil || cfg.Verifier == nil || cfg.Signer == nil {
		return nil, errors.New("top-up needs a book, a verifier and the cities' signers")
	}
	if cfg.Lifetime <= 0 {
		cfg.Lifetime = Lifetime
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	for i := range s.locks {
		s.locks[i] = make(chan struct{}, 1)
	}
	return s, nil
}

// Verified is a load request that fits.
type Verified struct {
	Load      *verify.Load
	Agreement *Agreement // for a card of another city than the reader's; else nil
}

// Verify judges a load request and changes nothing, but that a refusal is
// journalled.
func (s *Service) Verify(ctx context.Context, c policy.Caller, request []byte) (*Verified, error) {
	v, err := s.judge(ctx, c, policy.OpTopUpVerify, request)
	if err == nil {
		err = s.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
			v.Agreement, err = agreed(tx, v.Load, s.cfg.Now())
			return err
		})
	}
	if err != nil {
		return nil, s.refuse(ctx, c, policy.OpTopUpVerify, request, err)
	}
	return v, nil
}

// judge is what Verify and Authorise do first.
func (s *Service) judge(ctx context.Context, c policy.Caller, op policy.Operation, request []byte) (*Verified, error) {
	// A caller without the role learns nothing of the message.
	if err := policy.Allowed(c, op, c.City); err != nil {
		return nil, err
	}
	load, err := s.cfg.Verifier.LoadRequest(ctx, request)
	if err != nil {
		return nil, err
	}
	if err := policy.Allowed(c, op, load.CardCity); err != nil {
		return nil, err
	}
	if latest := s.cfg.Now().Add(s.cfg.Lifetime); load.Expiry.After(latest) {
		return nil, &LifetimeError{ID: load.Transaction, Expiry: load.Expiry, Latest: latest}
	}
	return &Verified{Load: load}, nil
}

// Authorisation is a city's decision to load a card.
type Authorisation struct {
	Request       []byte // the reader's signed message
	CommandScript []byte
	DataScript    []byte // sealed to the reader; stored, logged and named nowhere
	MAC1Accepted  bool   // the city's card keys have accepted the request's MAC1
}

// Authorise returns the city's signed permission, and the evidence of the reader's
// status that it relied on.
func (s *Service) Authorise(ctx context.Context, c policy.Caller, a Authorisation) (permission []byte, ev verify.Evidence, err error) {
	permission, ev, err = s.authorise(ctx, c, a)
	if err != nil {
		return nil, ev, s.refuse(ctx, c, policy.OpTopUpAuthorise, a.Request, err)
	}
	return permission, ev, nil
}

func (s *Service) authorise(ctx context.Context, c policy.Caller, a Authorisation) ([]byte, verify.Evidence, error) {
	if n := len(a.CommandScript) + len(a.DataScript); n > MaxScripts {
		return nil, verify.Evidence{}, &verify.SizeError{What: "the scripts", Size: n, Max: MaxScripts}
	}

	// 1. The reader's half: everything that can be judged without the ledger.
	v, err := s.judge(ctx, c, policy.OpTopUpAuthorise, a.Request)
	if err != nil {
		return nil, verify.Evidence{}, err
	}
	load, ev := v.Load, v.Load.Evidence

	// 2. Whether the city can sign at all, before anything is written.
	signer, err := s.signer(ctx, load.CardCity)
	if err != nil {
		return nil, ev, err
	}

	// 3. Our half, and the authorisation, in one transaction. The status is
	// looked up in it once more: a reader that is revoked in the book before
	// this commit gets no permission.
	err = s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		if ev, err = s.status(tx, load); err != nil {
			return err
		}
		if _, err := agreed(tx, load, s.cfg.Now()); err != nil {
			return err
		}
		return s.reserve(tx, c, load, a, ev)
	})
	if err != nil {
		return nil, ev, err
	}

	// 4. Seal, sign, keep, answer. A crash before the bytes are kept leaves an
	// authorisation that nobody has seen; the same request comes here again.
	permission, err := s.answer(ctx, load, a, signer)
	return permission, ev, err
}

// status looks up both certificates where the book keeps them; where another
// source told their status, that stands.
func (s *Service) status(tx *store.Tx, load *verify.Load) (verify.Evidence, error) {
	ev := load.Evidence
	for _, c := range []*verify.Cert{load.Message.Signer, load.Encryption} {
		e, err := verify.BookStatus(tx, c)
		if err != nil {
			return ev, err
		}
		if e.State == verify.Unknown {
			continue // not the book's: the Verifier has judged it
		}
		if err := e.Misfit(c.Subject); err != nil {
			return ev, err
		}
		e.Epoch = s.cfg.Book.Epoch()
		ev = e
	}
	return ev, nil
}

// signer returns what a city signs with, once it was judged as readers will judge it.
func (s *Service) signer(ctx context.Context, city string) (Signer, error) {
	signer, err := s.cfg.Signer(ctx, city)
	if err != nil {
		return Signer{}, fmt.Errorf("finding the signing key of city %s: %w", city, err)
	}
	cert, err := s.cfg.Verifier.Chain(signer.Certificate, signer.Chain, verify.CitySigning)
	if err != nil {
		return Signer{}, &SignerError{City: city, Err: err}
	}
	if cert.City != city {
		return Signer{}, &SignerError{City: city, Err: fmt.Errorf("its certificate is that of city %s", cert.City)}
	}
	if _, err := s.cfg.Verifier.CheckStatus(ctx, cert); err != nil {
		return Signer{}, &SignerError{City: city, Err: err}
	}
	return signer, nil
}

// answer returns the kept permission, or makes and keeps it.
func (s *Service) answer(ctx context.Context, load *verify.Load, a Authorisation, signer Signer) ([]byte, error) {
	// Of many identical requests at once, one makes the answer.
	lock := s.locks[load.Message.Hash[0]%byte(len(s.locks))]
	select {
	case lock <- struct{}{}:
		defer func() { <-lock }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the answer of transaction %s: %w", load.Transaction, ctx.Err())
	}
	kept, err := s.kept(ctx, load.Transaction)
	if err != nil || kept != nil {
		return kept, err
	}
	permission, err := s.permit(load, a, signer)
	if err != nil {
		return nil, err
	}
	// Another node may have been quicker: then its bytes are the answer.
	err = s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		kept, err = keep(tx, load.Transaction, permission, store.Sum(a.CommandScript))
		return err
	})
	if err != nil {
		return nil, err
	}
	return kept, nil
}

// permit seals the scripts and signs the permission.
func (s *Service) permit(load *verify.Load, a Authorisation, signer Signer) ([]byte, error) {
	script := &verify.SealedScript{
		Transaction: load.Transaction, City: load.CardCity, Reader: load.Reader, Expiry: load.Expiry,
		RequestHash: load.Message.Hash, CommandScript: a.CommandScript, DataScript: a.DataScript,
	}
	plain, err := script.Marshal()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	sealed, err := (&cms.Sealer{Recipient: load.Encryption.DER, OAEP: s.cfg.OAEP}).Seal(plain)
	if err != nil {
		return nil, fmt.Errorf("sealing to the reader %s: %w", load.Reader, err)
	}
	content, err := (&verify.LoadPermission{
		Transaction: load.Transaction, City: load.CardCity, Reader: load.Reader, Expiry: load.Expiry,
		RequestHash: load.Message.Hash, CommandHash: store.Sum(a.CommandScript), Sealed: sealed,
	}).Marshal()
	if err != nil {
		return nil, err
	}
	permission, err := cms.Sign(oid.ContentLoadPermission, content, signer.Certificate, signer.Chain, signer.Key, s.cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("signing for city %s: %w", load.CardCity, err)
	}
	return permission, nil
}
