package store

import (
	"context"
	"io"
	"log/slog"
	"time"
)

// Config is what a book needs. Engine is required.
type Config struct {
	Engine Engine
	Now    func() time.Time // nil = time.Now
	Log    *slog.Logger     // nil = no log
	// Tables are the tables of other packages, so that Check goes through their rows too.
	Tables []Checked
	// Backup opens the place for the backup that is written before a book of an older format is upgraded. Without it, such a book
	// is refused.
	Backup func(format int) (io.WriteCloser, error)
}

// Checked is a table that Check goes through; every *Table is one.
type Checked interface {
	name() string
}

func (t *Table[T]) name() string { return t.Name }

// Book is a set of tables and one journal. It is safe for concurrent use.
type Book struct {
	id    string
	epoch uint64
}

// Create begins a new book in an empty engine and opens it.
func Create(ctx context.Context, cfg Config) (*Book, error) { return nil, errNotBuilt }

// Open opens the book in the engine.
func Open(ctx context.Context, cfg Config) (*Book, error) { return nil, errNotBuilt }

// Close waits for the writers and closes the engine.
func (b *Book) Close() error { return errNotBuilt }

// ID returns the identity of the book, 32 hexadecimal digits.
func (b *Book) ID() string { return b.id }

// Epoch returns how the present stretch of the book's life is called; it is 1 at first and grows with every Restore.
func (b *Book) Epoch() uint64 { return b.epoch }

// View runs f on a snapshot of the book. It never waits for writers, nor they for it.
func (b *Book) View(ctx context.Context, f func(*Tx) error) error { return errNotBuilt }

// Update runs f in a transaction that commits, durably, before Update returns nil. f may run more than once and so has no effect
// outside the transaction; it must not call Update. When f returns an error or panics, nothing of it is kept, and others are not touched.
// Update gives up when ctx ends while it waits for its turn; once f has run, the outcome is waited for.
func (b *Book) Update(ctx context.Context, f func(*Tx) error) error { return errNotBuilt }

// Tx is a transaction. It is not safe for concurrent use and ends with the function that it was given to.
type Tx struct{}

// Append adds an event to the journal and returns its Seq. Time is filled in when it is zero.
func (tx *Tx) Append(e Event) uint64 { return 0 }

// Head returns the Seq of the newest event that the transaction sees, its own among them.
func (tx *Tx) Head() uint64 { return 0 }

// Now returns the time of the transaction.
func (tx *Tx) Now() time.Time { return time.Time{} }

// Tree names a state of the journal: how many events it has, and the root of the Merkle tree over them.
type Tree struct {
	Size int64
	Root Hash
}

// Tree returns the present state of the journal.
func (b *Book) Tree(ctx context.Context) (Tree, error) { return Tree{}, errNotBuilt }

// Events returns up to limit events (0 = 1000) with Seq > after. It does not wait for any.
func (b *Book) Events(ctx context.Context, after uint64, limit int) ([]Event, error) {
	return nil, errNotBuilt
}

// Follow is Events, but waits until there is at least one.
func (b *Book) Follow(ctx context.Context, after uint64, limit int) ([]Event, error) {
	return nil, errNotBuilt
}

// Check goes through the whole book and compares everything in it with everything else. It changes nothing. progress may be nil.
func (b *Book) Check(ctx context.Context, progress func(done, total int64)) error { return errNotBuilt }

// Backup writes a consistent snapshot of the book as a stream that any engine can be restored from. progress may be nil.
func (b *Book) Backup(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	return errNotBuilt
}

// Restore fills an empty engine from a backup, begins a new epoch there, and opens the book.
func Restore(ctx context.Context, cfg Config, r io.Reader, actor string) (*Book, error) {
	return nil, errNotBuilt
}

// PutCRL records a CRL and its bytes.
func PutCRL(tx *Tx, c *CRL, der io.Reader) error { return errNotBuilt }

// OpenCRL returns the bytes of a CRL; it can be read while tx lasts.
func OpenCRL(tx *Tx, c *CRL) io.Reader { return nil }
