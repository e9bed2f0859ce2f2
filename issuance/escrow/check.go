package escrow

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"hufu/store"
)

// maxFaults bounds what Check tells.
const maxFaults = 20

// Check holds every kept key against the book. It changes nothing.
//
// It finds: a count that is not that of the rows, so a key that was lost; a key whose
// public half is not what it is called by; a state without what belongs to it; and, what
// must never be, a kept key in a certificate that may sign, in a CA's certificate, or in
// anything but a reader's encryption certificate.
func (e *Escrow) Check(ctx context.Context) error {
	return Check(ctx, e.cfg.Book)
}

// Check is the same without a token, for a book that no node serves.
func Check(ctx context.Context, book *store.Book) error {
	var faults []error
	fault := func(format string, args ...any) {
		if len(faults) < maxFaults {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	err := book.View(ctx, func(tx *store.Tx) error {
		p, err := poolOf(tx)
		if err != nil {
			return err
		}
		authorities := map[store.Hash]string{}
		for c, err := range store.CAs.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			authorities[c.SPKI] = c.ID
		}
		var n [states]uint64
		var all uint64
		for k, err := range kept.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			n[k.State]++
			all++
			if ca := authorities[k.Hash]; ca != "" {
				fault("the kept key %s is the key of CA %s", k.Hash, ca)
			}
			if err := checkKey(tx, k, p, book.Epoch(), fault); err != nil {
				return err
			}
		}
		for s := Spare; s < states; s++ {
			if n[s] != p.N[s] {
				fault("%d kept keys are %v and %d are counted", n[s], s, p.N[s])
			}
		}
		if all != p.Made {
			fault("%d keys were made and %d are kept: history was lost", p.Made, all)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking the kept keys: %w", err)
	}
	if len(faults) > 0 {
		return fmt.Errorf("checking the kept keys: %w", errors.Join(faults...))
	}
	return nil
}

// MayHold keeps every certificate but a reader's encryption certificate, and every one of
// another reader, from a key that the centre made, for ca.Config: whoever has had such a
// key delivered or recovered, even in a time that a restored book knows nothing of,
// cannot have it certified for signing.
func MayHold(tx *store.Tx, c *store.Certificate) error {
	k, err := kept.Get(tx, store.Key(c.SPKI))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.Profile != profile || c.Reader != k.Reader || c.City != k.City {
		return &StateError{SPKI: k.Hash, State: k.State, Step: "certify by profile " + c.Profile, Remedy: "the key management centre made this key, for encryption alone: make a new key"}
	}
	return nil
}

// signing are the usages that no kept key may ever have.
const signing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageCertSign | x509.KeyUsageCRLSign

func checkKey(tx *store.Tx, k *Key, p *pool, epoch uint64, fault func(string, ...any)) error {
	if _, err := x509.ParsePKIXPublicKey(k.SPKI); err != nil || store.Sum(k.SPKI) != k.Hash {
		fault("the kept key %s has another public half", k.Hash)
	}
	if len(k.Blob) < 32 || len(k.Blob)%8 != 0 || k.Wrapping == "" {
		fault("the kept key %s has no wrapped private half", k.Hash)
	}
	if k.Epoch > epoch {
		fault("the kept key %s is of epoch %d, and the book is in %d", k.Hash, k.Epoch, epoch)
	}
	if (k.Reader == "") != (k.City == "") || k.State == Spare && k.Reader != "" || (k.State == Claimed || k.State == InUse) && k.Reader == "" {
		fault("the kept key %s is %v and belongs to reader %q of city %q", k.Hash, k.State, k.Reader, k.City)
	}
	if k.State == InUse && k.CA == "" || (k.State == Spare || k.State == Claimed) && k.CA != "" {
		fault("the kept key %s is %v with a certificate of CA %q", k.Hash, k.State, k.CA)
	}
	found := false
	for cert, err := range store.Certificates.Scan(tx, "spki", store.Key(k.Hash)) {
		if err != nil {
			return err
		}
		parsed, err := x509.ParseCertificate(cert.DER)
		if err != nil {
			return err
		}
		if cert.Profile != profile || parsed.KeyUsage&signing != 0 || parsed.IsCA {
			fault("the kept key %s stands in certificate %s of profile %s, whose key may sign", k.Hash, cert.Serial, cert.Profile)
		}
		if cert.CA == k.CA && cert.Serial == k.Serial {
			found = true
			if cert.Reader != k.Reader || cert.City != k.City || !cert.NotAfter.Equal(k.NotAfter) {
				fault("the kept key %s is of reader %s of city %s, and certificate %s is not", k.Hash, k.Reader, k.City, cert.Serial)
			}
			continue
		}
		// Brought back by a restore: Run and Claim take care of what is of an older
		// epoch before it is given out.
		if k.State != History && k.Epoch == epoch {
			fault("the kept key %s is %v and stands in certificate %s", k.Hash, k.State, cert.Serial)
		}
	}
	if k.CA == "" {
		return nil
	}
	if !found {
		fault("the kept key %s names certificate %s of CA %s, which is not in the book with this key", k.Hash, k.Serial, k.CA)
		return nil
	}
	s, err := store.Statuses.Get(tx, store.SerialKey(k.CA, k.Serial))
	if err != nil {
		return fmt.Errorf("reading the status of certificate %s: %v", k.Serial, err)
	}
	if k.State == InUse && s.State == store.Revoked && s.Seq <= p.Cursor {
		fault("the kept key %s is in use, and its certificate %s was revoked", k.Hash, k.Serial)
	}
	return nil
}
