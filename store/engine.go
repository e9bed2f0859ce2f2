package store

import (
	"context"
	"iter"
)

// Engine keeps ordered keys. A key has 1 to MaxKey octets, a value 0 to MaxValue; keys compare octet by octet. The first octet of a key says what
// kind of thing it is for, and there are few of these: an engine may keep them apart.
//
// It is safe for concurrent use. Package enginetest holds every engine to this contract.
type Engine interface {
	// View runs f on a snapshot: what was committed before View began, and nothing later, however long f takes. It neither waits
	// for Update nor makes it wait.
	View(ctx context.Context, f func(Snapshot) error) error

	// Update runs f on a snapshot of the newest commit while no other Update of any process runs, and then makes the writes that it
	// returns, all or none. They are durable when Update returns nil. Without writes nothing is committed. An error of f is returned
	// as it is. f may run more than once (a serialisation failure), one run after the other; it may panic or end its goroutine,
	// and then nothing is kept. A write whose outcome is not known is ErrFailed, and so is everything after it.
	Update(ctx context.Context, f func(Snapshot) ([]Write, error)) error

	// Changed returns a channel that is closed once a commit made after the call, by any process, is there to be seen by View, and
	// when the engine is closed. It may be closed sooner.
	Changed() <-chan struct{}

	// Close waits for what runs and releases the engine. From then on View and Update return ErrClosed.
	Close() error
}

// Limits that every engine keeps.
const (
	MaxKey   = 2048
	MaxValue = 1 << 20
)

// Write puts a value, or deletes the key when Value is nil. The writes of one Update come in key order, no key twice.
type Write struct {
	Key   string
	Value []byte
}

// Snapshot is what a transaction of an engine reads. It is not safe for concurrent use. The octets that it returns must not be changed and
// last as long as the snapshot.
type Snapshot interface {
	// Get returns the value of a key, or nil if there is none. An empty value is not nil.
	Get(key []byte) ([]byte, error)

	// Scan goes through the keys from <= key < to in order, or against it. to == nil means no end.
	Scan(from, to []byte, reverse bool) iter.Seq2[Pair, error]
}

// Pair is a key with its value.
type Pair struct{ Key, Value []byte }
