// Package readers keeps the register of card readers: one object, one state,
// that drives both certificates of a reader as a pair.
//
// A pair is issued in one order and stands or falls as one; Suspend, Resume and
// Revoke change both certificates in one transaction with the reader's history.
// The state names and their table are those of a reader's whole life, from the
// maker to the end; of its two stages, the one here issues the pair and makes
// the reader active.
//
// The package refuses a reader whose number is taken, a signing request that
// carries no encryption key, a pair whose two keys are one, and a step that the
// table of states does not know.
package readers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hufu/ca"
	"hufu/policy"
	"hufu/store"
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

var register = store.Table[Reader]{
	Name:  "reader",
	Key:   func(r *Reader) []byte { return store.Key(r.Number) },
	Codec: store.JSON[Reader](),
	Indexes: []store.Index[Reader]{
		{Name: "city", Keys: func(r *Reader) [][]byte { return [][]byte{store.Key(r.City, string(r.State), r.Number)} }},
		{Name: "state", Keys: func(r *Reader) [][]byte { return [][]byte{store.Key(string(r.State), r.Number)} }},
	},
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&register}

// TakenError says that a reader's number is taken.
type TakenError struct {
	Number string
	City   string
	State  State
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("reader %s of city %s is registered already and %s: give another number, or replace the reader", e.Number, e.City, e.State)
}

// PairError says why a pair cannot be ordered.
type PairError struct {
	Number string
	Detail string
	Remedy string
}

func (e *PairError) Error() string {
	return fmt.Sprintf("reader %q: %s: %s", e.Number, e.Detail, e.Remedy)
}

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
	o, err := r.order(p, actor, idempotencyKey)
	if err != nil {
		return nil, nil, err
	}
	certs, err := r.Authority.Issue(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing the pair of reader %s: %w", p.Number, err)
	}
	rd, err := r.Reader(ctx, p.Number)
	return rd, certs, err
}

// order makes the order for a pair: both certificates in one, with the same
// names, beginning and end.
func (r *Register) order(p Pair, actor, idempotencyKey string) (ca.Order, error) {
	// A number with a space or a dot would be refused by policy too; here it is
	// refused before it becomes a key of the register.
	if n := policy.ReaderName(p.Number, p.City, r.Domain); p.Number == "" {
		return ca.Order{}, &PairError{p.Number, "the number is missing", "give 1 to 20 digits and lower-case letters"}
	} else if _, _, err := policy.ParseReaderName(n, r.Domain); err != nil {
		return ca.Order{}, &PairError{p.Number, err.Error(), "give a number of 1 to 20 digits and lower-case letters and a city of six digits"}
	}
	encryption, err := ca.EncryptionKeyOf(p.CSR)
	if err != nil {
		return ca.Order{}, err
	}
	if encryption == nil {
		return ca.Order{}, &PairError{p.Number, "the signing request carries no encryption key", "put the SubjectPublicKeyInfo of the encryption key into the request as the extension that `hufu reader csr --help` names"}
	}
	name := policy.Name{Reader: p.Number, City: p.City}
	return ca.Order{
		Requests: []ca.Request{
			{CA: p.City, Profile: "reader-sign", CSR: p.CSR, Name: name, NotAfter: p.NotAfter},
			{CA: p.City, Profile: "reader-encrypt", SPKI: encryption, Name: name, NotAfter: p.NotAfter},
		},
		Requester:      actor,
		IdempotencyKey: idempotencyKey,
		// The register is looked at before anything is signed, and written
		// with the pair. Of two orders for one number that pass the look
		// together, the second to commit fails, and its serials are revoked.
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error { return numberFree(tx, p.Number) },
		Commit:  func(tx *store.Tx, certs []*store.Certificate) error { return enrol(tx, p, certs, actor) },
	}, nil
}

func numberFree(tx *store.Tx, number string) error {
	rd, err := register.Get(tx, store.Key(number))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("looking up reader %s: %w", number, err)
	}
	return &TakenError{Number: number, City: rd.City, State: rd.State}
}

// enrol writes a new reader with its pair into the register.
func enrol(tx *store.Tx, p Pair, certs []*store.Certificate, actor string) error {
	if err := numberFree(tx, p.Number); err != nil {
		return err
	}
	sign, encrypt := certs[0], certs[1]
	rd := &Reader{Number: p.Number, City: p.City, Model: p.Model, CA: sign.CA, Sign: sign.Serial, Encrypt: encrypt.Serial}
	if err := pairFits(sign, encrypt); err != nil {
		return err
	}
	return rd.step(tx, issue, actor, "")
}

// pairFits holds what makes two certificates a pair.
func pairFits(sign, encrypt *store.Certificate) error {
	var what string
	switch {
	case sign.CA != encrypt.CA:
		what = "issuers"
	case sign.Subject != encrypt.Subject:
		what = "subjects"
	case !sign.NotAfter.Equal(encrypt.NotAfter):
		what = "ends"
	case sign.SPKI == encrypt.SPKI:
		return &PairError{sign.Reader, "its two certificates hold one key", "make two key pairs"}
	default:
		return nil
	}
	return &PairError{sign.Reader, "its two certificates have different " + what, "issue them in one order"}
}

// Reader returns one reader.
func (r *Register) Reader(ctx context.Context, number string) (*Reader, error) {
	var rd *Reader
	err := r.Book.View(ctx, func(tx *store.Tx) (err error) {
		rd, err = register.Get(tx, store.Key(number))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking up reader %q: %w", number, err)
	}
	return rd, nil
}

// Query selects readers: by city, by state, or both; both empty selects all.
type Query struct {
	City  string
	State State
	After []byte
	Limit int
}

// List returns readers page by page.
func (r *Register) List(ctx context.Context, q Query) (list []*Reader, next []byte, err error) {
	page := store.Query{After: q.After, Limit: q.Limit}
	switch {
	case q.City != "" && q.State != "":
		page.Index, page.Prefix = "city", store.Key(q.City, string(q.State))
	case q.City != "":
		page.Index, page.Prefix = "city", store.Key(q.City)
	case q.State != "":
		page.Index, page.Prefix = "state", store.Key(string(q.State))
	}
	err = r.Book.View(ctx, func(tx *store.Tx) (err error) {
		list, next, err = register.Page(tx, page)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing readers: %w", err)
	}
	return list, next, nil
}

// Check holds every reader against its pair: same issuer, subject and end, two
// keys, and statuses that are those of the reader's state.
func (r *Register) Check(ctx context.Context) error {
	return r.Book.View(ctx, func(tx *store.Tx) error {
		for rd, err := range register.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if err := rd.check(tx); err != nil {
				return fmt.Errorf("checking reader %s: %w", rd.Number, err)
			}
		}
		return nil
	})
}

func (rd *Reader) check(tx *store.Tx) error {
	want, paired := certificateState[rd.State]
	if !paired {
		return nil
	}
	var pair [2]*store.Certificate
	for i, serial := range []store.Serial{rd.Sign, rd.Encrypt} {
		var err error
		if pair[i], err = store.FindCertificate(tx, rd.CA, serial); err != nil {
			return fmt.Errorf("certificate %s: %w", serial, err)
		}
		s, err := store.Statuses.Get(tx, store.SerialKey(rd.CA, serial))
		if err != nil {
			return fmt.Errorf("status of %s: %w", serial, err)
		}
		if s.State != want {
			return fmt.Errorf("the reader is %s and certificate %s is %s", rd.State, serial, s.State)
		}
		if pair[i].Reader != rd.Number || pair[i].City != rd.City {
			return fmt.Errorf("certificate %s is of reader %s in city %s", serial, pair[i].Reader, pair[i].City)
		}
	}
	return pairFits(pair[0], pair[1])
}
