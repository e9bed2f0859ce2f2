package escrow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/store"
)

// profile is the only one that a kept key is certified by.
const profile = "reader-encrypt"

var errEmpty = errors.New("the pool has no spare key")

// Claim gives a reader of a city an encryption key and returns its SubjectPublicKeyInfo.
// A reader that has claimed one and has no certificate for it yet gets the same again. An
// empty pool does not stop it: the key is made on the spot.
func (e *Escrow) Claim(ctx context.Context, reader, city string) (spki []byte, err error) {
	if reader == "" || city == "" || len(reader) > 255 || len(city) > 255 {
		return nil, fmt.Errorf("claiming a key for reader %q of city %q: both must be named", reader, city)
	}
	claim := func(tx *store.Tx) error {
		k, err := e.claim(tx, reader, city)
		if err == nil {
			spki = k.SPKI
		}
		return err
	}
	err = e.cfg.Book.Update(ctx, claim)
	if errors.Is(err, errEmpty) {
		var made []*Key
		if made, err = e.make(ctx, 1); err == nil {
			err = e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
				if err := claim(tx); !errors.Is(err, errEmpty) {
					return err
				}
				k := *made[0]
				if err := insert(tx, []*Key{&k}); err != nil {
					return err
				}
				return claim(tx)
			})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("claiming a key for reader %s: %w", reader, err)
	}
	e.taken()
	return spki, nil
}

// claim finds the reader's claimed key or takes a spare one.
func (e *Escrow) claim(tx *store.Tx, reader, city string) (*Key, error) {
	epoch := e.cfg.Book.Epoch()
	for k, err := range kept.Scan(tx, "reader", store.Key(reader, uint8(Claimed))) {
		if err != nil {
			return nil, err
		}
		if k.Epoch != epoch {
			if err := e.adopt(tx, k); err != nil {
				return nil, err
			}
			continue
		}
		if k.City == city {
			return k, nil
		}
		if err := move(tx, k, History, "escrow", "the reader went to another city"); err != nil {
			return nil, err
		}
	}
	for k, err := range kept.Scan(tx, "state", store.Key(uint8(Spare), epoch)) {
		if err != nil {
			return nil, err
		}
		// A certificate over a spare key is one that was brought back.
		cert, _, err := certificateOf(tx, k)
		if err != nil {
			return nil, err
		}
		if cert != nil {
			if err := e.adopt(tx, k); err != nil {
				return nil, err
			}
			continue
		}
		k.Reader, k.City = reader, city
		return k, move(tx, k, Claimed, "escrow", "")
	}
	return nil, errEmpty
}

func keyOf(tx *store.Tx, spki []byte) (*Key, error) {
	k, err := kept.Get(tx, store.Key(store.Sum(spki)))
	if err != nil {
		return nil, fmt.Errorf("looking up the kept key %s: %w", store.Sum(spki), err)
	}
	return k, nil
}

// Claimed checks, in the transaction that reserves a certificate, that the centre keeps
// this key and keeps it for this reader.
func (e *Escrow) Claimed(tx *store.Tx, spki []byte, reader string) error {
	k, err := keyOf(tx, spki)
	if err != nil {
		return err
	}
	if k.State != Claimed || k.Reader != reader || k.Epoch != e.cfg.Book.Epoch() {
		return &StateError{SPKI: k.Hash, State: k.State, Step: "certify for reader " + reader, Remedy: "claim a key for this reader first"}
	}
	return nil
}

// InUse records, in the transaction that records the certificate, that a claimed key has
// one.
func (e *Escrow) InUse(tx *store.Tx, spki []byte, cert *store.Certificate) error {
	if err := e.Claimed(tx, spki, cert.Reader); err != nil {
		return err
	}
	k, err := keyOf(tx, spki)
	if err != nil {
		return err
	}
	if cert.SPKI != k.Hash || cert.Profile != profile || cert.City != k.City {
		return fmt.Errorf("certificate %s of profile %s and city %s is not one for the key kept for reader %s of city %s", cert.Serial, cert.Profile, cert.City, k.Reader, k.City)
	}
	k.CA, k.Serial, k.NotAfter = cert.CA, cert.Serial, cert.NotAfter
	return move(tx, k, InUse, cert.Requester, "")
}

// Release takes a key to history that a reader has claimed and will not use, if there is
// one: the reader may have had it delivered, so nobody else gets it.
func (e *Escrow) Release(tx *store.Tx, reader, actor, why string) error {
	for k, err := range kept.Scan(tx, "reader", store.Key(reader, uint8(Claimed))) {
		if err != nil {
			return err
		}
		if err := move(tx, k, History, actor, why); err != nil {
			return err
		}
	}
	return nil
}

// Retire takes the key of a certificate to history that has ended for good. It does
// nothing for a certificate whose key is not kept, or was retired before; Run does it
// behind the journal, so nobody must.
func (e *Escrow) Retire(tx *store.Tx, ca string, serial store.Serial) error {
	for k, err := range kept.Scan(tx, "certificate", store.SerialKey(ca, serial)) {
		if err != nil {
			return err
		}
		if k.State == InUse {
			if err := move(tx, k, History, "escrow", "its certificate was revoked"); err != nil {
				return err
			}
		}
	}
	return nil
}

// Deliver returns a key that is in use, sealed for the one-time P-256 key
// whose SubjectPublicKeyInfo is transport: EnvelopedData that cms.Opener.OpenKey opens. It
// may be asked for again, for the same or another one-time key.
//
// A key that has no certificate yet stays where it is: whoever had it could certify it
// for signing. Once it has one, the spine keeps it from every other.
func (e *Escrow) Deliver(ctx context.Context, spki, transport []byte) ([]byte, error) {
	var k *Key
	deliverable := func(tx *store.Tx) (err error) {
		if k, err = keyOf(tx, spki); err == nil && k.State != InUse {
			err = &StateError{SPKI: k.Hash, State: k.State, Step: "deliver", Remedy: "have the certificate issued first; the key of one that has ended is recovered by key officers"}
		}
		return err
	}
	if err := e.cfg.Book.View(ctx, deliverable); err != nil {
		return nil, fmt.Errorf("delivering a kept key: %w", err)
	}
	envelope, err := cms.SealKey(cms.KeyRecipient{SPKI: slices.Clone(transport)}, func(content []byte) ([]byte, error) { return e.rewrap(ctx, k, content) })
	if err != nil {
		return nil, fmt.Errorf("delivering the key of reader %s: %w", k.Reader, err)
	}
	err = e.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		if err := deliverable(tx); err != nil {
			return err
		}
		tx.Append(store.Event{Kind: KindDelivered, CA: k.CA, Serial: k.Serial, Actor: "escrow",
			Detail: detail{SPKI: k.Hash, Reader: k.Reader, City: k.City, Transport: store.Sum(transport), SHA256: store.Sum(envelope)}.String()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("delivering the key of reader %s: %w", k.Reader, err)
	}
	return envelope, nil
}

// ParseKind reads the name of a kind of keys that the centre can make.
func ParseKind(name string) (hsm.KeyKind, error) {
	if name == "" {
		return hsm.P256, nil
	}
	return hsm.ParseKeyKind(name)
}
