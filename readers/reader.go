package readers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hufu/store"
)

// Reader is one card reader.
type Reader struct {
	Number   string // 1 to 20 digits and lower-case letters; unique in the book
	City     string `json:",omitempty"` // from the ticket on
	State    State
	Model    string `json:",omitempty"`
	Firmware string `json:",omitempty"`
	Approval string `json:",omitempty"` // the model's, when the reader was made
	Batch    string `json:",omitempty"` // the maker's manifest
	Customer string `json:",omitempty"` // an opaque word; no personal data
	Ticket   string `json:",omitempty"`

	// The reader's first identity. An offline city knows no more of it than the
	// hash that its ticket gives: then DeviceCA is empty.
	DeviceCA     string       `json:",omitempty"`
	DeviceSerial store.Serial `json:",omitzero"`
	Device       store.Hash   `json:",omitzero"` // of the device certificate's DER
	DeviceKey    store.Hash   `json:",omitzero"` // of the device key's SubjectPublicKeyInfo

	// The present pair.
	CA        string       `json:",omitempty"` // ID of the city CA that issued it
	Sign      store.Serial `json:",omitzero"`
	Encrypt   store.Serial `json:",omitzero"`
	NotAfter  time.Time    `json:",omitzero"`
	Escrowed  bool         `json:",omitempty"` // the key management centre keeps its encryption key
	Elsewhere bool         `json:",omitempty"` // another book holds it: that of the city

	// The pair of a renewal, on hold until its receipt is there.
	NextCA       string       `json:",omitempty"`
	NextSign     store.Serial `json:",omitzero"`
	NextEncrypt  store.Serial `json:",omitzero"`
	NextEscrowed bool         `json:",omitempty"`

	Successor   string     `json:",omitempty"` // the reader that replaced it
	Predecessor string     `json:",omitempty"` // the reader that it replaced
	Receipt     store.Hash `json:",omitzero"`  // of the last receipt's DER
	History     []Change
	Seq         uint64 // the event of the last change
}

// Paired tells whether this book holds a pair of the reader's.
func (rd *Reader) Paired() bool { return !rd.Sign.IsZero() && !rd.Elsewhere }

// Change is one step of a reader's life.
type Change struct {
	Time  time.Time
	Step  string `json:",omitempty"`
	From  State
	To    State
	Actor string
	Note  string
	Seq   uint64 `json:",omitempty"` // its event
}

var register = store.Table[Reader]{
	Name:  "reader",
	Key:   func(r *Reader) []byte { return store.Key(r.Number) },
	Codec: codec,
	Indexes: []store.Index[Reader]{
		{Name: "city", Keys: func(r *Reader) [][]byte { return keyOf(r.City, r.City, string(r.State), r.Number) }},
		{Name: "state", Keys: func(r *Reader) [][]byte { return keyOf(string(r.State), string(r.State), r.Number) }},
		{Name: "model", Keys: func(r *Reader) [][]byte { return keyOf(r.Model, r.Model, r.Firmware, r.Number) }},
		{Name: "batch", Keys: func(r *Reader) [][]byte { return keyOf(r.Batch, r.Batch, r.Number) }},
		{Name: "customer", Keys: func(r *Reader) [][]byte { return keyOf(r.Customer, r.Customer, r.Number) }},
		{Name: "ticket", Keys: func(r *Reader) [][]byte { return keyOf(r.Ticket, r.Ticket, r.Number) }},
		// Only pairs that live end some day: the calendar holds no others.
		{Name: "expiry", Keys: func(r *Reader) [][]byte {
			if r.NotAfter.IsZero() || r.State.Ended() {
				return nil
			}
			return [][]byte{store.Key(r.NotAfter, r.Number)}
		}},
	},
}

// keyOf is no key at all where field is empty.
func keyOf(field string, parts ...any) [][]byte {
	if field == "" {
		return nil
	}
	return [][]byte{store.Key(parts...)}
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
	where := ""
	if e.City != "" {
		where = " of city " + e.City
	}
	return fmt.Sprintf("reader %s%s is registered already and %s: give another number, or replace the reader", e.Number, where, e.State)
}

// PairError says what is wrong with a reader or its pair.
type PairError struct {
	Number string
	Detail string
	Remedy string
}

func (e *PairError) Error() string {
	return fmt.Sprintf("reader %q: %s: %s", e.Number, e.Detail, e.Remedy)
}

// Reader returns one reader.
func (r *Register) Reader(ctx context.Context, number string) (*Reader, error) {
	var rd *Reader
	err := r.Book.View(ctx, func(tx *store.Tx) (err error) {
		rd, err = r.Find(tx, number)
		return err
	})
	return rd, err
}

// Find returns one reader as the transaction sees it. The error wraps
// store.ErrNotFound where there is none.
func (r *Register) Find(tx *store.Tx, number string) (*Reader, error) {
	rd, err := register.Get(tx, store.Key(number))
	if err != nil {
		return nil, fmt.Errorf("looking up reader %q: %w", number, err)
	}
	return rd, nil
}

// numberFree refuses a number that is registered.
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
