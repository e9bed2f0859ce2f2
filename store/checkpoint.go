package store

import (
	"context"
	"crypto"
	"time"
)

// Checkpoint is a statement of what the journal was at some time.
type Checkpoint struct {
	Origin string // "hufu/book/<id>/<epoch>"
	Epoch  uint64
	Size   int64
	Root   Hash
	Time   time.Time
}

// Checkpoint signs the present tree and records the note in the journal as an event of Kind "checkpoint".
func (b *Book) Checkpoint(ctx context.Context, key crypto.Signer) ([]byte, error) {
	return nil, errNotBuilt
}

// ParseCheckpoint reads a signed note and checks its signature.
func ParseCheckpoint(signed []byte, key crypto.PublicKey) (*Checkpoint, error) {
	return nil, errNotBuilt
}

// VerifyCheckpoint says whether the book contains the history that the checkpoint pins, and if not, whether it was edited, cut or
// rolled back.
func (b *Book) VerifyCheckpoint(ctx context.Context, cp *Checkpoint) error { return errNotBuilt }

// Proof is a list of node hashes. From is the Seq of the event for an inclusion proof, and the size of the older tree for a consistency
// proof; Size is the size of the tree that it leads to.
type Proof struct {
	From   uint64
	Size   int64
	Hashes []Hash
}

// ProveInclusion proves that the event stands in the tree of that size.
func (b *Book) ProveInclusion(ctx context.Context, seq uint64, size int64) (Proof, error) {
	return Proof{}, errNotBuilt
}

// CheckInclusion checks a proof that e stands in the tree with that root.
func CheckInclusion(p Proof, e *Event, root Hash) error { return errNotBuilt }

// ProveConsistency proves that the tree of size old is the beginning of the tree of the given size.
func (b *Book) ProveConsistency(ctx context.Context, old, size int64) (Proof, error) {
	return Proof{}, errNotBuilt
}

// CheckConsistency checks a proof that the tree with root old is the beginning of the one with root.
func CheckConsistency(p Proof, old, root Hash) error { return errNotBuilt }
