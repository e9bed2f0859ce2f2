package store

import (
	"encoding/json"
	"iter"
)

// Codec turns a record into bytes and back. Append never fails: a record is always encodable.
type Codec[T any] struct {
	Append func(dst []byte, v *T) []byte
	Decode func(src []byte, v *T) error
}

// JSON is the codec for records that are not written often.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Append: func(dst []byte, v *T) []byte {
			b, err := json.Marshal(v)
			if err != nil {
				panic("store: a record cannot be written as JSON: " + err.Error())
			}
			return append(dst, b...)
		},
		Decode: func(src []byte, v *T) error { return json.Unmarshal(src, v) },
	}
}

// Index is a second way to find the rows of a table. Keys returns the keys of a row, none if it is not to be found this way.
type Index[T any] struct {
	Name string
	Keys func(v *T) [][]byte
}

// Table describes the rows of one kind. It is a plain value: declare it once, in the package that owns the rows.
// The primary key is unique; an index key may belong to many rows. Keys are made with Key.
type Table[T any] struct {
	Name    string
	Key     func(v *T) []byte
	Codec   Codec[T]
	Indexes []Index[T]
}

// Query asks for one page of a table.
type Query struct {
	Index   string // "" = primary key
	Prefix  []byte // only rows whose key begins so
	After   []byte // next of the page before; nil for the first page
	Limit   int    // rows in a page; 0 = 100
	Reverse bool   // from the last to the first
}

// Get returns the row with that primary key, or ErrNotFound.
func (t *Table[T]) Get(tx *Tx, key []byte) (*T, error) { return nil, errNotBuilt }

// Insert adds a row; ErrExists if its primary key is taken.
func (t *Table[T]) Insert(tx *Tx, v *T) error { return errNotBuilt }

// Put adds or replaces a row.
func (t *Table[T]) Put(tx *Tx, v *T) error { return errNotBuilt }

// Delete removes the row with that primary key, or returns ErrNotFound.
func (t *Table[T]) Delete(tx *Tx, key []byte) error { return errNotBuilt }

// Page returns up to q.Limit rows in key order, and where the next page begins: nil when there is none.
func (t *Table[T]) Page(tx *Tx, q Query) (rows []*T, next []byte, err error) {
	return nil, nil, errNotBuilt
}

// Scan goes through all rows whose key in that index ("" = primary key) begins with prefix, in key order.
// The rows may be changed while it runs; whether a row that is added meanwhile is seen is not said.
func (t *Table[T]) Scan(tx *Tx, index string, prefix []byte) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) { yield(nil, errNotBuilt) }
}

// Last returns the row with the highest key in that index ("" = primary key) that begins with prefix, or ErrNotFound.
func (t *Table[T]) Last(tx *Tx, index string, prefix []byte) (*T, error) { return nil, errNotBuilt }

// Key makes an ordered composite key of string, bool, uint8, uint16, uint32, uint64, int, int64, Serial, Hash, time.Time and []byte
// parts: keys compare as their parts do. A string part ends with 00, so the Key of the leading parts is a prefix of the whole; []byte
// is taken as it is and so belongs at the end. A part of another type is a mistake in the program and panics.
func Key(parts ...any) []byte { return nil }
