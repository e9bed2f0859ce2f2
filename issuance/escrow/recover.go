package escrow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"hufu/internal/cms"
	"hufu/store"
	"hufu/verify"
)

// maxReason bounds what a recovery is asked for by.
const maxReason = 500

// Recovery is the request that officers approve: whose key, for whom, why. What they
// sign is its canonical form, which names both certificates by their hashes.
type Recovery struct {
	CA          string       `json:"ca"`
	Serial      store.Serial `json:"serial"`
	Certificate store.Hash   `json:"certificate"` // SHA-256 of its DER
	Reader      string       `json:"reader"`
	City        string       `json:"city"`
	Recipient   []byte       `json:"recipient"` // DER
	RecipientOf string       `json:"recipientSubject"`
	SHA256      store.Hash   `json:"recipientSHA256"`
	Reason      string       `json:"reason"`
}

// Canonical returns the octets that an approval is asked for with.
func (r *Recovery) Canonical() []byte {
	b, _ := json.Marshal(r) // plain values: it cannot fail
	return b
}

// ParseRecovery reads what Canonical writes.
func ParseRecovery(canonical []byte) (*Recovery, error) {
	r := &Recovery{}
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil || !bytes.Equal(r.Canonical(), canonical) {
		return nil, errors.New("the approval is not one of a recovery")
	}
	return r, nil
}

// RecoveryError says why a key is not recovered.
type RecoveryError struct {
	Problem string // stable: "not-kept", "recipient", "reason", "changed"
	Detail  string
	Remedy  string
}

func (e *RecoveryError) Error() string { return e.Detail + ": " + e.Remedy }

// Prepare judges a recovery before anybody is asked to approve it: the centre keeps the
// key of the certificate, the recipient's certificate is a good one of this book, and
// there is a reason.
func (e *Escrow) Prepare(ctx context.Context, serial store.Serial, recipient []byte, reason string) (r *Recovery, err error) {
	if reason == "" || len(reason) > maxReason || !utf8.ValidString(reason) {
		return nil, &RecoveryError{"reason", fmt.Sprintf("the reason has %d octets", len(reason)), fmt.Sprintf("say in 1 to %d octets why the key is needed; officers read it", maxReason)}
	}
	err = e.cfg.Book.View(ctx, func(tx *store.Tx) error {
		k, cert, err := keptOf(tx, serial)
		if err != nil {
			return err
		}
		to, err := e.mayReceive(tx, recipient)
		if err != nil {
			return err
		}
		r = &Recovery{CA: k.CA, Serial: k.Serial, Certificate: store.Sum(cert.DER), Reader: k.Reader, City: k.City,
			Recipient: recipient, RecipientOf: to.Subject, SHA256: store.Sum(recipient), Reason: reason}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("preparing a recovery: %w", err)
	}
	return r, nil
}

// keptOf finds the key that is kept for the certificate of a serial number.
func keptOf(tx *store.Tx, serial store.Serial) (*Key, *store.Certificate, error) {
	for k, err := range kept.Scan(tx, "certificate", store.Key(serial)) {
		if err != nil {
			return nil, nil, err
		}
		cert, err := store.FindCertificate(tx, k.CA, k.Serial)
		if err != nil {
			return nil, nil, fmt.Errorf("reading certificate %s: %v", serial, err) // never "not found"
		}
		return k, cert, nil
	}
	return nil, nil, &RecoveryError{"not-kept", fmt.Sprintf("the centre keeps no key of a certificate %s", serial),
		"name the serial number of a reader's encryption certificate whose key the centre made; signing keys and keys that a reader made are nowhere but in the reader"}
}

// mayReceive checks a recipient's certificate: it is of this book, chains to the root,
// fits the purpose, and is good now.
func (e *Escrow) mayReceive(tx *store.Tx, der []byte) (*store.Certificate, error) {
	refused := func(format string, args ...any) error {
		return &RecoveryError{"recipient", fmt.Sprintf(format, args...), "give a good certificate of profile recipient, of a person"}
	}
	c, err := e.cfg.Verifier.Chain(der, nil, verify.Recipient)
	if err != nil {
		return nil, refused("the recipient's certificate does not do: %v", err)
	}
	serial, err := store.SerialFrom(c.X509.SerialNumber)
	if err != nil {
		return nil, refused("the recipient's certificate is not of this book")
	}
	for cert, err := range store.Certificates.Scan(tx, "serial", store.Key(serial)) {
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(cert.DER, der) {
			continue
		}
		s, err := store.Statuses.Get(tx, store.SerialKey(cert.CA, cert.Serial))
		switch {
		case err != nil:
			return nil, fmt.Errorf("reading the status of certificate %s: %v", cert.Serial, err) // never "not found"
		case s.State != store.Good:
			return nil, refused("the recipient's certificate %s is %v", cert.Serial, s.State)
		case !e.cfg.Now().Before(cert.NotAfter):
			return nil, refused("the recipient's certificate %s has ended", cert.Serial)
		}
		return cert, nil
	}
	return nil, refused("the recipient's certificate is not of this book")
}

// Recover seals a kept key for the recipient that officers have approved and returns the
// envelope. release runs in the transaction that records it: there the caller consumes
// the approval, which must be one for r.Canonical(), and keeps the envelope; without it
// nothing is given out. A refusal is journalled.
func (e *Escrow) Recover(ctx context.Context, r *Recovery, actor, approval string, release func(tx *store.Tx, envelope []byte) error) ([]byte, error) {
	envelope, err := e.recover(ctx, r, actor, approval, release)
	if err == nil {
		return envelope, nil
	}
	if refused := e.Refuse(ctx, r, actor, approval, err); refused != nil {
		e.cfg.Log.Error("journalling a refused recovery failed", "approval", approval, "err", refused)
	}
	return nil, fmt.Errorf("recovering the key of certificate %s: %w", r.Serial, err)
}

// Refuse journals that a recovery was not granted, and why.
func (e *Escrow) Refuse(ctx context.Context, r *Recovery, actor, approval string, why error) error {
	text := why.Error()
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	// The caller hangs up when it pleases; the refusal is written all the same.
	return e.cfg.Book.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: KindRefused, CA: r.CA, Serial: r.Serial, Actor: actor,
			Detail: detail{Recipient: r.SHA256, Approval: approval, Reason: r.Reason, Why: text}.String()})
		return nil
	})
}

func (e *Escrow) recover(ctx context.Context, r *Recovery, actor, approval string, release func(*store.Tx, []byte) error) ([]byte, error) {
	var k *Key
	judge := func(tx *store.Tx) error {
		have, cert, err := keptOf(tx, r.Serial)
		if err != nil {
			return err
		}
		if have.CA != r.CA || store.Sum(cert.DER) != r.Certificate || store.Sum(r.Recipient) != r.SHA256 {
			return &RecoveryError{"changed", "what was approved names other certificates than the book has", "ask for a new approval"}
		}
		k = have
		_, err = e.mayReceive(tx, r.Recipient)
		return err
	}
	if err := e.cfg.Book.View(ctx, judge); err != nil {
		return nil, err
	}
	envelope, err := cms.SealKey(cms.KeyRecipient{Certificate: slices.Clone(r.Recipient)}, func(content []byte) ([]byte, error) { return e.rewrap(ctx, k, content) })
	if err != nil {
		return nil, err
	}
	err = e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		if err := judge(tx); err != nil {
			return err
		}
		tx.Append(store.Event{Kind: KindRecovered, CA: r.CA, Serial: r.Serial, Actor: actor,
			Detail: detail{SPKI: k.Hash, Reader: k.Reader, City: k.City, Recipient: r.SHA256, Approval: approval, Reason: r.Reason, SHA256: store.Sum(envelope)}.String()})
		return release(tx, envelope)
	})
	if err != nil {
		return nil, err
	}
	return envelope, nil
}

// List returns the keys that are kept for certificates of a reader, newest state last.
func (e *Escrow) List(ctx context.Context, reader string, after []byte, limit int) (keys []*Key, next []byte, err error) {
	err = e.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		q := store.Query{Index: "reader", After: after, Limit: limit}
		if reader != "" {
			q.Prefix = store.Key(reader)
		}
		keys, next, err = kept.Page(tx, q)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the kept keys: %w", err)
	}
	return keys, next, nil
}
