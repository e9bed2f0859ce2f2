package ca

import (
	"bytes"
	"context"
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
// that ends already. The list that is there already is given back.
func (a *Authority) ImportCRL(ctx context.Context, caID string, der []byte, actor string) (*store.CRL, error) {
	if a.issuers[caID] != nil {
		return nil, &CAError{CA: caID, Detail: "this node holds its key and signs its lists itself", Remedy: "use `hufu crl publish`"}
	}
	list, err := crl.Parse(bytes.NewReader(der), nil)
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
		c.Number = number
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: caID, Actor: actor, Detail: detail(c)})
		if err := store.PutCRL(tx, c, bytes.NewReader(der)); err != nil {
			return err
		}
		return dropOld(tx, c)
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

func badList(text, remedy string) error {
	return &ListError{Detail: text, Remedy: remedy}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
