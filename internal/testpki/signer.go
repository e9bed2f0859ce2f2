package testpki

import (
	"crypto"
	"io"
	"sync/atomic"
)

// A Signer is a key that counts what it signs and fails where it is told to.
type Signer struct {
	Key crypto.Signer

	// Before is asked before the n-th signature is made, After once it was made
	// and before it is handed out; an error of theirs is the signer's. nil asks
	// nobody. Set them while nobody signs.
	Before, After func(n int64) error

	n atomic.Int64
}

// Public is the public key.
func (s *Signer) Public() crypto.PublicKey { return s.Key.Public() }

// Count is the number of signatures that were asked for.
func (s *Signer) Count() int64 { return s.n.Load() }

// Sign counts, and signs unless it is told to fail.
func (s *Signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	n := s.n.Add(1)
	if s.Before != nil {
		if err := s.Before(n); err != nil {
			return nil, err
		}
	}
	signature, err := s.Key.Sign(rand, digest, opts)
	if err == nil && s.After != nil {
		err = s.After(n)
	}
	if err != nil {
		return nil, err
	}
	return signature, nil
}
