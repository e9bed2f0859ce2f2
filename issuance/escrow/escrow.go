// Package escrow is the key management centre: it makes readers' encryption keys, keeps
// them wrapped, delivers them sealed, and recovers them for those whom k officers name.
//
// A key is made in the token and leaves it in one way only, wrapped by the token's own
// AES key (RFC 5649). What the book holds is that blob. It lies in a pool as spare, is
// claimed for one reader, is in use with a certificate, and stays in history when the
// certificate has ended; it is never deleted, since what was sealed to it may have to be
// opened years later. A key that was ever claimed is never given to anybody else.
//
// Delivery and recovery go the same way: the token unwraps the key as an object of one
// session and wraps it under a content key, and the content key is sealed to the
// recipient (internal/cms). So the plaintext of a private key is known to the token and to
// the recipient alone: not to the book, not to a log, not to this process.
//
// The package refuses: a key from outside, whoever brings it; a profile whose certificate
// may sign; delivery to anybody but the holder of the one-time key that was named;
// recovery without an approval, to a certificate that is not a good one of profile
// recipient. After a restore it gives out no key of the time before: a key that the
// backup calls spare may be in a reader's hands.
package escrow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hufu/hsm"
	"hufu/store"
	"hufu/verify"
)

const (
	defaultSpare    = 1000
	defaultParallel = 2
	defaultOfficers = 2

	// chunk is how many keys one commit brings into the pool.
	chunk = 256
)

// Config is what a centre stands on. Book, Token, Wrapping and Verifier must be set.
type Config struct {
	Book     *store.Book
	Token    *hsm.Token
	Wrapping string           // label of the token's AES key
	Kind     hsm.KeyKind      // of the keys made; 0 = P-256
	Spare    int              // keys that lie ready; 0 = 1000
	Parallel int              // of the token's sessions, how many the pool may use at once; 0 = 2
	Officers int              // how many key officers a recovery needs; 0 = 2
	Verifier *verify.Verifier // judges whom a key is recovered for
	Now      func() time.Time // nil means time.Now
	Log      *slog.Logger     // nil means no log
}

// Escrow is the key management centre of one book.
type Escrow struct {
	cfg  Config
	wake chan struct{} // a key was taken from the pool

	mu   sync.Mutex // guards keys
	keys map[string]*hsm.SecretKey
}

// New takes up the centre's wrapping key. It makes one only for a book that keeps nothing
// under that label yet; for any other, the token must hold the key that opens what lies
// there.
func New(ctx context.Context, cfg Config) (*Escrow, error) {
	if cfg.Wrapping == "" {
		return nil, errors.New("the key management centre needs the label of a wrapping key")
	}
	if cfg.Kind == 0 {
		cfg.Kind = hsm.P256
	}
	if cfg.Spare <= 0 {
		cfg.Spare = defaultSpare
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	if cfg.Officers <= 0 {
		cfg.Officers = defaultOfficers
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Escrow{cfg: cfg, wake: make(chan struct{}, 1), keys: map[string]*hsm.SecretKey{}}
	if err := e.takeUp(ctx); err != nil {
		return nil, fmt.Errorf("taking up the key management centre: %w", err)
	}
	return e, nil
}

// Officers is how many key officers a recovery needs.
func (e *Escrow) Officers() int { return e.cfg.Officers }

// takeUp finds or makes the wrapping key, and tries it on a key that the book keeps
// under it.
func (e *Escrow) takeUp(ctx context.Context) error {
	var last *Key
	err := e.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		last = nil
		p, err := poolOf(tx)
		if err != nil {
			return err
		}
		if hash, used := p.Under[e.cfg.Wrapping]; used {
			last, err = kept.Get(tx, store.Key(hash))
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = e.wrapping(ctx, e.cfg.Wrapping)
	if errors.Is(err, hsm.ErrKeyNotFound) && last == nil {
		_, err = e.cfg.Token.GenerateWrappingKey(ctx, e.cfg.Wrapping)
		if errors.Is(err, hsm.ErrKeyExists) {
			_, err = e.wrapping(ctx, e.cfg.Wrapping) // another node was first
		}
		return err
	}
	if errors.Is(err, hsm.ErrKeyNotFound) {
		return fmt.Errorf("the book keeps keys under %q and the token has no such wrapping key: connect the token that has it, or bring its backup: %w", e.cfg.Wrapping, err)
	}
	if err != nil || last == nil {
		return err
	}
	if _, err := e.rewrap(ctx, last, make([]byte, hsm.ContentKeySize)); err != nil {
		return fmt.Errorf("the token's wrapping key %q does not open what the book keeps under it: %w", e.cfg.Wrapping, err)
	}
	return nil
}

// wrapping returns the wrapping key of a label: older keys may lie under another one.
func (e *Escrow) wrapping(ctx context.Context, label string) (*hsm.SecretKey, error) {
	e.mu.Lock()
	k := e.keys[label]
	e.mu.Unlock()
	if k != nil {
		return k, nil
	}
	k, err := e.cfg.Token.WrappingKey(ctx, label)
	if err != nil {
		return nil, fmt.Errorf("finding the wrapping key %q: %w", label, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys[label] = k
	return k, nil
}

// rewrap has the token pass a kept key on under a content key.
func (e *Escrow) rewrap(ctx context.Context, k *Key, content []byte) ([]byte, error) {
	w, err := e.wrapping(ctx, k.Wrapping)
	if err != nil {
		return nil, err
	}
	return w.Rewrap(ctx, k.Blob, k.SPKI, content)
}

// Counts tells how many keys there are in each state.
type Counts struct {
	Spare, Claimed, InUse, History uint64
	Wanted                         uint64 // spare keys that the pool is filled to
}

// Status counts the keys by state; it reads one row.
func (e *Escrow) Status(ctx context.Context) (Counts, error) {
	c := Counts{Wanted: uint64(e.cfg.Spare)}
	err := e.cfg.Book.View(ctx, func(tx *store.Tx) error {
		p, err := poolOf(tx)
		if err == nil {
			c.Spare, c.Claimed, c.InUse, c.History = p.N[Spare], p.N[Claimed], p.N[InUse], p.N[History]
		}
		return err
	})
	if err != nil {
		return c, fmt.Errorf("counting the kept keys: %w", err)
	}
	return c, nil
}
