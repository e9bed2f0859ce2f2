// Package store keeps the book of a certificate authority: its records, and the journal of everything that ever happened to them.
//
// A Book is written once, over a small Engine of ordered keys. A transaction changes records in several tables and appends events to
// the journal; it commits as one or not at all. Writers that arrive while another one's commit is on its way to the disk gather and go
// together; a lone writer never waits for anybody. The journal is a Merkle tree (RFC 6962, Section 2.1), so that a signed checkpoint
// pins all of history.
//
// The package refuses: a book of a newer format, a second way to write a record than through its table, an event that leaves a gap in
// Seq, a backup whose checksum does not fit, and to go on after the engine failed to write.
package store

import "errors"

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	// ErrConflict says that the book and what the caller knows of it do not fit together, for instance a place in the journal
	// that the book has not reached, or an epoch that has ended.
	ErrConflict = errors.New("conflict")
	// ErrCorrupt says that the bytes in the engine are not what this package wrote.
	ErrCorrupt  = errors.New("the book is damaged")
	ErrReadOnly = errors.New("the transaction is read-only")
	// ErrClosed says that the book, or the engine below it, was closed.
	ErrClosed = errors.New("the book is closed")
	// ErrFailed says that the engine once failed to write and, since nobody knows what then is on the disk, refuses everything from
	// there on. A restart finds out.
	ErrFailed = errors.New("the book failed to write and stopped: mend the disk, then restart the process")
)
