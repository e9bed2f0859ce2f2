package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hufu/store"
)

// StatusFunc tells the present status of a certificate. An error means that it
// cannot be told; a Verifier then refuses. It is not asked about anchors.
type StatusFunc func(ctx context.Context, c *Cert) (Evidence, error)

// SourceBook is the Source of Evidence from the book.
const SourceBook = "book"

// The states of Evidence.
const (
	Good    = "good"
	OnHold  = "on-hold"
	Revoked = "revoked"
	Unknown = "unknown" // the CA knows of no such certificate
)

// Evidence is what a status rests on.
type Evidence struct {
	Source string    `json:"source"` // SourceBook, or "ocsp" or "crl" and the address
	Epoch  uint64    `json:"epoch,omitempty"`
	Seq    uint64    `json:"seq,omitempty"` // of the newest event in the journal when the book was read
	Time   time.Time `json:"time"`          // as of when
	State  string    `json:"state"`
	Reason int       `json:"reason,omitempty"` // RFC 5280, Section 5.3.1
	Since  time.Time `json:"since,omitzero"`   // of a hold or a revocation
}

func (e Evidence) String() string {
	s := fmt.Sprintf("%s at %s", e.Source, e.Time.UTC().Format(time.RFC3339))
	if e.Seq > 0 {
		s += fmt.Sprintf(" (epoch %d, sequence %d)", e.Epoch, e.Seq)
	}
	return s
}

var errNoSource = errors.New("no status source is configured")

// CheckStatus asks for the status of a certificate and of every CA between it and
// the anchor. Only good is no error. The evidence is that of the certificate.
func (v *Verifier) CheckStatus(ctx context.Context, c *Cert) (Evidence, error) {
	if v.Status == nil {
		return Evidence{}, &StaleError{Subject: c.Subject, Err: errNoSource}
	}
	var leaf Evidence
	for x := c; x.Issuer != nil; x = x.Issuer {
		e, err := v.Status(ctx, x)
		if x == c {
			leaf = e
		}
		if err != nil {
			if _, ok := errors.AsType[*StaleError](err); !ok {
				err = &StaleError{Subject: x.Subject, Evidence: e, Err: err}
			}
			return leaf, err
		}
		if err := e.Misfit(x.Subject); err != nil {
			return leaf, err
		}
	}
	return leaf, nil
}

// Misfit is nil only for good; else it is a *HeldError, *RevokedError or
// *UnknownError.
func (e Evidence) Misfit(subject string) error {
	switch e.State {
	case Good:
		return nil
	case OnHold:
		return &HeldError{Subject: subject, Evidence: e}
	case Revoked:
		return &RevokedError{Subject: subject, Evidence: e}
	}
	return &UnknownError{Subject: subject, Evidence: e}
}

// First asks one source after the other until one can tell.
func First(sources ...StatusFunc) StatusFunc {
	return func(ctx context.Context, c *Cert) (Evidence, error) {
		if len(sources) == 0 {
			return Evidence{}, errNoSource
		}
		var all []error
		for _, source := range sources {
			e, err := source(ctx, c)
			if err == nil {
				return e, nil
			}
			all = append(all, err)
		}
		return Evidence{}, errors.Join(all...)
	}
}

// FromBook tells the status from the book that issued the certificate. What one of
// the book's CAs should have issued and the book does not hold, octet for octet, is
// unknown; of the certificates of other CAs it cannot tell.
func FromBook(b *store.Book) StatusFunc {
	ours := &ownCAs{}
	return func(ctx context.Context, c *Cert) (e Evidence, err error) {
		err = b.View(ctx, func(tx *store.Tx) error {
			if e, err = BookStatus(tx, c); err != nil || e.State != Unknown {
				return err
			}
			return ours.settle(tx, c, &e)
		})
		e.Epoch = b.Epoch()
		return e, err
	}
}

// BookStatus tells the status within a transaction, so that what the transaction
// does is bound to it. A certificate that the book does not hold is unknown. The
// epoch is left to the caller.
func BookStatus(tx *store.Tx, c *Cert) (Evidence, error) {
	e := Evidence{Source: SourceBook, Seq: tx.Head(), Time: tx.Now(), State: Unknown}
	for row, err := range store.Certificates.Scan(tx, "serial", store.Key(c.Serial)) {
		if err != nil {
			return e, fmt.Errorf("looking up certificate %s: %w", c.Serial, err)
		}
		if !bytes.Equal(row.DER, c.DER) {
			continue
		}
		s, err := store.Statuses.Get(tx, store.SerialKey(row.CA, row.Serial))
		if err != nil {
			return e, fmt.Errorf("looking up the status of %s: %w", c.Serial, err)
		}
		e.State = s.State.String()
		if s.State != store.Good {
			e.Reason, e.Since = s.Reason, s.Time
		}
		return e, nil
	}
	return e, nil
}

// ownCAs remembers which CA certificates are the book's. A book never gives a CA
// up, nor changes its certificate, so what was found once holds.
type ownCAs struct {
	mu    sync.Mutex
	known map[[32]byte]bool // SHA-256 of the certificate
}

// settle decides about a certificate that the book does not hold. A working CA was
// issued by the offline root, whose certificates a book need not hold: that it is
// one of the book's own CAs is its good status.
func (o *ownCAs) settle(tx *store.Tx, c *Cert, e *Evidence) error {
	ca := c
	if !c.X509.IsCA {
		ca = c.Issuer
	}
	own, err := o.has(tx, ca)
	switch {
	case err != nil:
		return fmt.Errorf("looking up the CA %s: %w", ca.Subject, err)
	case !own:
		return fmt.Errorf("the book has no CA %s: configure an OCSP or CRL source for it", ca.Subject)
	case c.X509.IsCA:
		e.State = Good
	}
	return nil
}

func (o *ownCAs) has(tx *store.Tx, c *Cert) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known[c.Hash] {
		return true, nil
	}
	for ca, err := range store.CAs.Scan(tx, "", nil) {
		if err != nil {
			return false, err
		}
		if bytes.Equal(ca.Certificate, c.DER) {
			if o.known == nil {
				o.known = make(map[[32]byte]bool)
			}
			o.known[c.Hash] = true
			return true, nil
		}
	}
	return false, nil
}
