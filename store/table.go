package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
)

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

// pageSize is how many rows a page has when nobody says.
const pageSize = 100

// RowError says which row of which table an operation failed for. It wraps ErrNotFound, ErrExists, ErrCorrupt or ErrReadOnly.
type RowError struct {
	Table string
	Key   []byte
	Err   error
}

func (e *RowError) Error() string { return fmt.Sprintf("%s %s: %v", e.Table, readable(e.Key), e.Err) }

// Unwrap returns the reason.
func (e *RowError) Unwrap() error { return e.Err }

// Get returns the row with that primary key, or ErrNotFound.
func (t *Table[T]) Get(tx *Tx, key []byte) (*T, error) {
	raw, err := tx.get(t.row(tx, key))
	if err != nil {
		return nil, &RowError{t.Name, key, err}
	}
	if raw == nil {
		return nil, &RowError{t.Name, key, ErrNotFound}
	}
	return t.decode(key, raw)
}

// Insert adds a row; ErrExists if its primary key is taken.
func (t *Table[T]) Insert(tx *Tx, v *T) error {
	key := t.Key(v)
	raw, err := tx.get(t.row(tx, key))
	if err == nil && raw != nil {
		err = ErrExists
	}
	if err != nil {
		return &RowError{t.Name, key, err}
	}
	return t.write(tx, key, nil, v)
}

// Put adds or replaces a row.
func (t *Table[T]) Put(tx *Tx, v *T) error {
	key := t.Key(v)
	raw, err := tx.get(t.row(tx, key))
	if err != nil {
		return &RowError{t.Name, key, err}
	}
	if raw == nil {
		return t.write(tx, key, nil, v)
	}
	old, err := t.decode(key, raw)
	if err != nil {
		return err
	}
	return t.write(tx, key, old, v)
}

// Delete removes the row with that primary key, or returns ErrNotFound.
func (t *Table[T]) Delete(tx *Tx, key []byte) error {
	old, err := t.Get(tx, key)
	if err != nil {
		return err
	}
	return t.write(tx, key, old, nil)
}

// Page returns up to q.Limit rows in key order, and where the next page begins: nil when there is none.
func (t *Table[T]) Page(tx *Tx, q Query) (rows []*T, next []byte, err error) {
	if q.Limit <= 0 {
		q.Limit = pageSize
	}
	for at, row := range t.walk(tx, q, &err) {
		if len(rows) == q.Limit {
			return rows, slices.Clone(next), nil
		}
		rows, next = append(rows, row), at
	}
	if err != nil {
		return nil, nil, err
	}
	return rows, nil, nil
}

// Scan goes through all rows whose key in that index ("" = primary key) begins with prefix, in key order.
// The rows may be changed while it runs; whether a row that is added meanwhile is seen is not said.
func (t *Table[T]) Scan(tx *Tx, index string, prefix []byte) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		var err error
		for _, row := range t.walk(tx, Query{Index: index, Prefix: prefix}, &err) {
			if !yield(row, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// Last returns the row with the highest key in that index ("" = primary key) that begins with prefix, or ErrNotFound.
func (t *Table[T]) Last(tx *Tx, index string, prefix []byte) (*T, error) {
	rows, _, err := t.Page(tx, Query{Index: index, Prefix: prefix, Limit: 1, Reverse: true})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, &RowError{t.Name, prefix, ErrNotFound}
	}
	return rows[0], nil
}

// walk goes through the rows that q asks for, each with its place, the After of what follows. Limit is not looked at.
func (t *Table[T]) walk(tx *Tx, q Query, failed *error) iter.Seq2[[]byte, *T] {
	return func(yield func([]byte, *T) bool) {
		base := t.base(nil)
		if q.Index != "" {
			if !slices.ContainsFunc(t.Indexes, func(x Index[T]) bool { return x.Name == q.Index }) {
				*failed = fmt.Errorf("table %s has no index %q", t.Name, q.Index)
				return
			}
			base = t.indexBase(nil, q.Index)
		}
		from, to, err := q.bounds(base)
		if err != nil {
			*failed = fmt.Errorf("table %s: %w", t.Name, err)
			return
		}
		n := 0
		for pair, err := range tx.scan(from, to, q.Reverse) {
			if n++; err == nil && n%256 == 0 {
				err = tx.ctx.Err()
			}
			var row *T
			place := pair.Key
			if err == nil {
				place = pair.Key[len(base):]
				row, err = t.at(tx, q.Index, place, pair.Value)
			}
			if err != nil {
				*failed = fmt.Errorf("reading table %s: %w", t.Name, err)
				return
			}
			if !yield(place, row) {
				return
			}
		}
	}
}

// bounds returns the keys between which the rows of q lie, in the part of the key space that begins with base.
func (q *Query) bounds(base []byte) (from, to []byte, err error) {
	prefix := slices.Concat(base, q.Prefix)
	from, to = prefix, successor(prefix)
	if q.After == nil {
		return from, to, nil
	}
	after := slices.Concat(base, q.After)
	if !bytes.HasPrefix(after, prefix) {
		return nil, nil, fmt.Errorf("the place to go on from does not belong to this query: %w", ErrConflict)
	}
	if q.Reverse {
		return from, after, nil
	}
	return append(after, 0), to, nil // the very next key
}

// at returns the row that a key found by walk stands for.
func (t *Table[T]) at(tx *Tx, index string, place, value []byte) (*T, error) {
	if index == "" {
		return t.decode(place, value)
	}
	_, key, ok := splitEntry(place)
	if !ok {
		return nil, fmt.Errorf("%w: entry %s of index %s is malformed", ErrCorrupt, readable(place), index)
	}
	raw, err := tx.get(t.row(tx, key))
	if err == nil && raw == nil {
		err = fmt.Errorf("%w: index %s names the row %s, which is not there", ErrCorrupt, index, readable(key))
	}
	if err != nil {
		return nil, err
	}
	return t.decode(key, raw)
}

// write replaces old by v, either of which may be nil, in the table and in its indexes.
func (t *Table[T]) write(tx *Tx, key []byte, old, v *T) error {
	if len(key) == 0 {
		return &RowError{t.Name, key, fmt.Errorf("the primary key is empty")}
	}
	var value []byte
	if v != nil {
		tx.value = t.Codec.Append(tx.value[:0], v)
		value = binary.BigEndian.AppendUint32(append(make([]byte, 0, len(tx.value)+4), tx.value...), checksum(key, tx.value))
	}
	if err := tx.set(t.row(tx, key), value); err != nil {
		return &RowError{t.Name, key, err}
	}
	switch {
	case old == nil:
		tx.rows++
	case v == nil:
		tx.rows--
	}
	for i := range t.Indexes {
		if err := t.reindex(tx, &t.Indexes[i], key, old, v); err != nil {
			return &RowError{t.Name, key, err}
		}
	}
	return nil
}

// reindex takes the entries of old out of an index and puts those of v in.
func (t *Table[T]) reindex(tx *Tx, x *Index[T], key []byte, old, v *T) error {
	var before, after [][]byte
	if old != nil {
		before = x.Keys(old)
	}
	if v != nil {
		after = x.Keys(v)
	}
	for _, k := range before {
		if contains(after, k) {
			continue
		}
		if err := tx.set(t.entry(tx, x.Name, k, key), nil); err != nil {
			return err
		}
	}
	for _, k := range after {
		if contains(before, k) {
			continue
		}
		if err := tx.set(t.entry(tx, x.Name, k, key), []byte{}); err != nil {
			return err
		}
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(other []byte) bool { return bytes.Equal(key, other) })
}

// castagnoli is the polynomial that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum stands behind every row, so that octets that the disk changed are not taken for a record. It is no protection against people.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func (t *Table[T]) decode(key, raw []byte) (*T, error) {
	n := len(raw) - 4
	if n < 0 || binary.BigEndian.Uint32(raw[n:]) != checksum(key, raw[:n]) {
		return nil, &RowError{t.Name, key, fmt.Errorf("%w: the checksum of the row does not fit", ErrCorrupt)}
	}
	v := new(T)
	if err := t.Codec.Decode(raw[:n], v); err != nil {
		return nil, &RowError{t.Name, key, fmt.Errorf("%w: %w", ErrCorrupt, err)}
	}
	return v, nil
}

// The key space. A row lies at 't' table 00 key, with its checksum behind it; an entry of an index lies at 'i' table 00 index 00 indexkey key
// length, where length is that of the row's primary key in two octets, so that the entry can be taken apart; events lie at 'e', nodes of the
// tree at 'n', octets of CRLs at 'c', and what the book knows of itself at 'b'.
const (
	spaceBook   = 'b'
	spaceChunks = 'c'
	spaceEvents = 'e'
	spaceIndex  = 'i'
	spaceNodes  = 'n'
	spaceRows   = 't'
)

func (t *Table[T]) base(dst []byte) []byte {
	return append(append(append(dst, spaceRows), t.Name...), 0)
}

func (t *Table[T]) indexBase(dst []byte, index string) []byte {
	dst = append(append(append(dst, spaceIndex), t.Name...), 0)
	return append(append(dst, index...), 0)
}

// row returns where a row lies, in the scratch of the transaction.
func (t *Table[T]) row(tx *Tx, key []byte) []byte {
	tx.key = append(t.base(tx.key[:0]), key...)
	return tx.key
}

// entry returns where an entry of an index lies, in the scratch of the transaction.
func (t *Table[T]) entry(tx *Tx, index string, indexKey, key []byte) []byte {
	tx.key = append(append(t.indexBase(tx.key[:0], index), indexKey...), key...)
	tx.key = binary.BigEndian.AppendUint16(tx.key, uint16(len(key)))
	return tx.key
}

// splitEntry takes an entry apart, without what stands before the index key.
func splitEntry(entry []byte) (indexKey, key []byte, ok bool) {
	if len(entry) < 2 {
		return nil, nil, false
	}
	entry, n := entry[:len(entry)-2], int(binary.BigEndian.Uint16(entry[len(entry)-2:]))
	if n == 0 || n > len(entry) {
		return nil, nil, false
	}
	return entry[:len(entry)-n], entry[len(entry)-n:], true
}
