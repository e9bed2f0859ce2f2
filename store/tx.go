package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"time"
)

// Tx is a transaction. It is not safe for concurrent use and ends with the function that it was given to.
type Tx struct {
	ctx    context.Context
	snap   Snapshot
	now    time.Time
	group  *group   // nil in a View
	own    *overlay // what this transaction has written; nil in a View
	leaves []Hash   // leaf hashes of the events appended
	rows   int64    // rows added, less rows deleted
	note   uint64   // the checkpoint event appended, if any
	read   *head    // the head of a View, once it is asked for
	err    error    // what Append could not return
	key    []byte   // scratch
	value  []byte   // scratch
}

// Now returns the time of the transaction.
func (tx *Tx) Now() time.Time { return tx.now }

// Head returns the Seq of the newest event that the transaction sees, its own among them.
func (tx *Tx) Head() uint64 {
	h, err := tx.head()
	if err != nil {
		tx.fail(err)
		return 0
	}
	return h.seq + uint64(len(tx.leaves))
}

// head returns the head of the book without what this transaction itself has appended.
func (tx *Tx) head() (*head, error) {
	if tx.group != nil {
		return &tx.group.head, nil
	}
	if tx.read == nil {
		h, err := readHead(tx.snap)
		if err != nil {
			return nil, err
		}
		tx.read = h
	}
	return tx.read, nil
}

// Append adds an event to the journal and returns its Seq, one more than that of the event before. Time is filled in when it is zero.
// A mistake (an event without a Kind, longer than MaxEvent, or in a View) makes the transaction fail when its function returns.
func (tx *Tx) Append(e Event) uint64 {
	if tx.group == nil {
		tx.fail(fmt.Errorf("appending event %s: %w", e.Kind, ErrReadOnly))
		return 0
	}
	e.Seq = tx.Head() + 1
	if e.Time.IsZero() {
		e.Time = tx.now
	}
	data := AppendEvent(nil, &e)
	switch {
	case e.Kind == "":
		tx.fail(errors.New("appending event: it has no Kind"))
	case len(data) > MaxEvent:
		tx.fail(fmt.Errorf("appending event %s: %d octets; an event has at most %d", e.Kind, len(data), MaxEvent))
	}
	tx.own.put(eventKey(e.Seq), data)
	tx.leaves = append(tx.leaves, leafHash(data))
	return e.Seq
}

// fail makes the transaction fail when its function returns; the first reason stands.
func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// end makes every later use of the transaction an error instead of a read of memory that is no longer there.
func (tx *Tx) end() { tx.snap, tx.group = ended{}, nil }

// get returns the value that the transaction sees, or nil.
func (tx *Tx) get(key []byte) ([]byte, error) {
	if value, ok := tx.pending(key); ok {
		return value, nil
	}
	return tx.snap.Get(key)
}

// pending returns what this transaction, or an earlier one of its group, has written to the key; nil if it was deleted.
func (tx *Tx) pending(key []byte) (value []byte, ok bool) {
	if tx.group == nil {
		return nil, false
	}
	if value, ok = tx.own.values[string(key)]; !ok {
		value, ok = tx.group.writes.values[string(key)]
	}
	return value, ok
}

// set writes a value, or deletes the key when value is nil. The overlay keeps value.
func (tx *Tx) set(key, value []byte) error {
	switch {
	case tx.group == nil:
		return ErrReadOnly
	case len(key) > MaxKey:
		return fmt.Errorf("key %.40s… has %d octets; a key has at most %d", readable(key), len(key), MaxKey)
	case len(value) > MaxValue:
		return fmt.Errorf("value of %s has %d octets; a value has at most %d", readable(key), len(value), MaxValue)
	}
	tx.own.put(key, value)
	return nil
}

// scan goes through what the transaction sees of the keys from <= key < to. Keys written after it began may be missed; their values, and
// deletions, are never stale.
func (tx *Tx) scan(from, to []byte, reverse bool) iter.Seq2[Pair, error] {
	if tx.group == nil {
		return tx.snap.Scan(from, to, reverse)
	}
	return func(yield func(Pair, error) bool) {
		written := tx.written(from, to, reverse)
		emit := func(key []byte) bool {
			value, _ := tx.pending(key)
			return value == nil || yield(Pair{key, value}, nil)
		}
		for pair, err := range tx.snap.Scan(from, to, reverse) {
			if err != nil {
				yield(pair, err)
				return
			}
			for len(written) > 0 && (written[0] < string(pair.Key)) != reverse && written[0] != string(pair.Key) {
				if !emit([]byte(written[0])) {
					return
				}
				written = written[1:]
			}
			if len(written) > 0 && written[0] == string(pair.Key) {
				written = written[1:]
			}
			if _, ok := tx.pending(pair.Key); ok {
				if !emit(pair.Key) {
					return
				}
			} else if !yield(pair, nil) {
				return
			}
		}
		for _, key := range written {
			if !emit([]byte(key)) {
				return
			}
		}
	}
}

// written returns the keys in the range that the group and the transaction have written, in the order asked for.
func (tx *Tx) written(from, to []byte, reverse bool) []string {
	keys := mergeSorted(tx.group.writes.between(from, to), tx.own.between(from, to))
	if reverse {
		keys = slices.Clone(keys)
		slices.Reverse(keys)
	}
	return keys
}

// overlay is a set of writes that are not in the engine yet. A nil value deletes.
type overlay struct {
	values map[string][]byte
	sorted []string // the keys in order, but for the fresh ones; never changed in place, a scan may be reading it
	fresh  []string // keys added since sorted was made
	size   int      // octets, about
}

func (o *overlay) put(key, value []byte) {
	if old, ok := o.values[string(key)]; ok {
		o.size += len(value) - len(old)
		o.values[string(key)] = value
		return
	}
	o.add(string(key), value)
}

// add puts a key that may be new.
func (o *overlay) add(key string, value []byte) {
	if o.values == nil {
		o.values = make(map[string][]byte)
	}
	n := len(o.values)
	o.values[key] = value
	if len(o.values) > n {
		o.fresh = append(o.fresh, key)
	}
	o.size += len(key) + len(value)
}

func (o *overlay) reset() {
	clear(o.values)
	o.sorted, o.fresh, o.size = nil, o.fresh[:0], 0
}

// keys returns all keys in order.
func (o *overlay) keys() []string {
	if len(o.fresh) > 0 {
		slices.Sort(o.fresh)
		o.sorted = mergeSorted(o.sorted, o.fresh)
		o.fresh = nil
	}
	return o.sorted
}

// between returns the keys from <= key < to in order; to == nil means no end.
func (o *overlay) between(from, to []byte) []string {
	keys := o.keys()
	keys = keys[sort.SearchStrings(keys, string(from)):]
	if to != nil {
		keys = keys[:sort.SearchStrings(keys, string(to))]
	}
	return keys
}

// mergeSorted returns the union of two sorted lists; it may be one of them.
func mergeSorted(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	union := make([]string, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			union, a = append(union, a[0]), a[1:]
		case b[0] < a[0]:
			union, b = append(union, b[0]), b[1:]
		default:
			union, a, b = append(union, a[0]), a[1:], b[1:]
		}
	}
	return append(append(union, a...), b...)
}

// ended stands in for the snapshot of a transaction that has ended.
type ended struct{}

var errEnded = errors.New("the transaction has ended: use it only in the function that it was given to")

func (ended) Get([]byte) ([]byte, error) { return nil, errEnded }

func (ended) Scan(_, _ []byte, _ bool) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) { yield(Pair{}, errEnded) }
}
