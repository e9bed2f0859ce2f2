package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"hufu/internal/crl"
	"hufu/store"
)

// skew is how far the clock of the machine that signed a list may be ahead.
const skew = 5 * time.Minute

// ImportCRL records the full CRL of a CA whose key this book does not hold, such
// as the root's, which is signed offline. It refuses a list that the CA did not
// sign, that is not of the whole CA, that is older than the one in the book, or
// that ends already, and one on which a revocation of the list before is missing
// whose certificate had not ended when that was made: for whoever reads it, the
// certificate would be good again. The list that is there already is given back.
func (a *Authority) ImportCRL(ctx context.Context, caID string, der []byte, actor string) (*store.CRL, error) {
	if a.issuers[caID] != nil {
		return nil, &CAError{CA: caID, Detail: "this node holds its key and signs its lists itself", Remedy: "use `hufu crl publish`"}
	}
	revoked := map[string]bool{} // by serial number; not what is on hold
	list, err := crl.Parse(bytes.NewReader(der), func(e crl.Entry) error {
		if e.Reason != certificateHold {
			revoked[string(e.Serial)] = true
		}
		return nil
	})
	if err != nil {
		return nil, badList(err.Error(), "give one CRL, in DER or PEM, as the CA's key signed it")
	}
	c := &store.CRL{CA: caID, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Entries: list.Entries, Size: int64(len(der)), Sum: store.Sum(der)}
	err = a.Book.Update(ctx, func(tx *store.Tx) error {
		authority, err := store.CAs.Get(tx, store.Key(caID))
		if errors.Is(err, store.ErrNotFound) {
			return &CAError{CA: caID, Detail: "the book does not hold it", Remedy: "name a CA that `hufu ca list` shows"}
		}
		if err != nil {
			return err
		}
		if err := a.mayImport(list, authority); err != nil {
			return err
		}
		last, err := newest(tx, c)
		if err != nil {
			return err
		}
		number := list.Number.Uint64()
		switch {
		case number == last.Number && c.Sum == last.Sum:
			*c = *last
			return nil
		case number <= last.Number: // RFC 5280, Section 5.2.3
			return badList(fmt.Sprintf("its number is %d, that of the list in the book is %d", number, last.Number), "have the CA sign a list with a higher number")
		case list.ThisUpdate.Before(last.ThisUpdate):
			return badList(fmt.Sprintf("it was made %s, before the list in the book (%s)", instant(list.ThisUpdate), instant(last.ThisUpdate)), "set the clock of the machine that signs, and sign the list again")
		}
		if last.Number > 0 {
			if err := keeps(tx, authority, last, revoked); err != nil {
				return err
			}
		}
		c.Number = number
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: caID, Actor: actor, Detail: detail(c)})
		if err := store.PutCRL(tx, c, bytes.NewReader(der)); err != nil {
			return err
		}
		return a.dropOld(tx, c)
	})
	if err != nil {
		return nil, fmt.Errorf("importing a CRL of CA %s: %w", caID, err)
	}
	return c, nil
}

// mayImport judges what a list says against its CA and the clock.
func (a *Authority) mayImport(list *crl.List, authority *store.CA) error {
	if err := list.CheckSignature(authority.Certificate); err != nil {
		return badList(err.Error(), "give the list that this CA's key signed")
	}
	now := a.Now()
	switch {
	case list.Base != nil || list.Point != nil && len(list.Point.URIs) > 0:
		return badList("it is a delta or of a part of the CA's certificates", "give the full list of the whole CA")
	case list.Number == nil || !list.Number.IsUint64() || list.Number.Sign() == 0:
		return badList("it has no number that can be kept", "have the CA number its lists (RFC 5280, Section 5.2.3)")
	case !list.NextUpdate.After(now):
		return badList("it ended "+instant(list.NextUpdate), "have the CA sign a new list")
	case list.ThisUpdate.After(now.Add(skew)):
		return badList("it begins "+instant(list.ThisUpdate)+", in the future", "set the clocks of both machines")
	}
	return nil
}

// keeps refuses a list on which a revocation of the last one is missing, unless the
// certificate had ended when that was made (RFC 5280, Section 3.3: an entry stays
// until it stood on one list past the end). Of a certificate that the book does not
// know it cannot tell, and an entry may always stay.
func keeps(tx *store.Tx, authority *store.CA, last *store.CRL, revoked map[string]bool) error {
	var gone [][]byte
	_, err := crl.Parse(store.OpenCRL(tx, last), func(e crl.Entry) error {
		if e.Reason != certificateHold && !revoked[string(e.Serial)] {
			gone = append(gone, bytes.Clone(e.Serial))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the list before, %d: %w", last.Number, err)
	}
	if len(gone) == 0 {
		return nil
	}
	issuer, err := x509.ParseCertificate(authority.Certificate)
	if err != nil {
		return fmt.Errorf("reading the certificate of CA %q: %w", authority.ID, err)
	}
	ends := map[string]time.Time{}
	for other, err := range store.CAs.Scan(tx, "", nil) {
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(other.Certificate)
		if err != nil {
			return fmt.Errorf("reading the certificate of CA %q: %w", other.ID, err)
		}
		if cert.CheckSignatureFrom(issuer) == nil {
			ends[string(cert.SerialNumber.Bytes())] = cert.NotAfter
		}
	}
	for _, serial := range gone {
		end, known := ends[string(bytes.TrimLeft(serial, "\x00"))]
		switch {
		case !known:
			return badList(fmt.Sprintf("serial number %x was revoked on list %d and is missing, and the book does not know whether its certificate has ended", serial, last.Number), "have the CA sign a list with this entry: it may stay when the certificate has ended")
		case !end.Before(last.ThisUpdate):
			return badList(fmt.Sprintf("serial number %x was revoked on list %d and is missing, though its certificate holds until %s", serial, last.Number, instant(end)), "have the CA sign a list with this entry: a revocation is final")
		}
	}
	return nil
}

func badList(text, remedy string) error {
	return &ListError{Detail: text, Remedy: remedy}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
