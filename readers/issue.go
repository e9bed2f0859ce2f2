package readers

import (
	"context"
	"fmt"
	"time"

	"hufu/ca"
	"hufu/policy"
	"hufu/store"
)

// Pair asks for a reader's two certificates.
type Pair struct {
	Number   string    `json:"number"`
	City     string    `json:"city"`
	Model    string    `json:"model,omitempty"`
	CSR      []byte    `json:"csr"` // of the signing key; carries the encryption key (ca.EncryptionKeyOf)
	NotAfter time.Time `json:"notAfter,omitzero"`
}

// IssuePair takes a reader in at once: it issues both certificates and makes the
// reader active, all in one order. The certificates come back as signing,
// encryption.
func (r *Register) IssuePair(ctx context.Context, p Pair, actor, idempotencyKey string) (*Reader, []*store.Certificate, error) {
	o, err := r.order(p, actor, idempotencyKey)
	if err != nil {
		return nil, nil, err
	}
	certs, err := r.Authority.Issue(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing the pair of reader %s: %w", p.Number, err)
	}
	rd, err := r.Reader(ctx, p.Number)
	return rd, certs, err
}

// order makes the order for a pair: both certificates in one, with the same
// names, beginning and end.
func (r *Register) order(p Pair, actor, idempotencyKey string) (ca.Order, error) {
	if err := r.checkNumber(p.Number, p.City); err != nil {
		return ca.Order{}, err
	}
	encryption, err := ca.EncryptionKeyOf(p.CSR)
	if err != nil {
		return ca.Order{}, err
	}
	if encryption == nil {
		return ca.Order{}, &PairError{p.Number, "the signing request carries no encryption key", "put the SubjectPublicKeyInfo of the encryption key into the request as the extension that `hufu reader csr --help` names"}
	}
	name := policy.Name{Reader: p.Number, City: p.City}
	return ca.Order{
		Requests: []ca.Request{
			{CA: p.City, Profile: "reader-sign", CSR: p.CSR, Name: name, NotAfter: p.NotAfter},
			{CA: p.City, Profile: "reader-encrypt", SPKI: encryption, Name: name, NotAfter: p.NotAfter},
		},
		Requester:      actor,
		IdempotencyKey: idempotencyKey,
		// The register is looked at before anything is signed, and written
		// with the pair. Of two orders for one number that pass the look
		// together, the second to commit fails, and its serials are revoked.
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error { return numberFree(tx, p.Number) },
		Commit:  func(tx *store.Tx, certs []*store.Certificate) error { return enrol(tx, p, certs, actor) },
	}, nil
}

// checkNumber refuses a number or a city that no name can be made of. A number
// with a space or a dot would be refused by policy too; here it is refused before
// it becomes a key of the register.
func (r *Register) checkNumber(number, city string) error {
	if number == "" {
		return &PairError{number, "the number is missing", "give 1 to 20 digits and lower-case letters"}
	}
	if _, _, err := policy.ParseReaderName(policy.ReaderName(number, city, r.Domain), r.Domain); err != nil {
		return &PairError{number, err.Error(), "give a number of 1 to 20 digits and lower-case letters and a city of six digits"}
	}
	return nil
}

// enrol writes a new reader with its pair into the register.
func enrol(tx *store.Tx, p Pair, certs []*store.Certificate, actor string) error {
	if err := numberFree(tx, p.Number); err != nil {
		return err
	}
	rd := &Reader{Number: p.Number, City: p.City, Model: p.Model}
	if err := rd.mayHave(tx, certs, store.Good); err != nil {
		return err
	}
	rd.take(certs)
	return rd.step(tx, issue, actor, "")
}

// mayHave checks that two certificates are a pair of this reader's, in that
// state.
func (rd *Reader) mayHave(tx *store.Tx, certs []*store.Certificate, want store.State) error {
	const remedy = "issue its pair in one order: the signing certificate, then the encryption one"
	if len(certs) != 2 {
		return &PairError{rd.Number, fmt.Sprintf("%d certificates are no pair", len(certs)), remedy}
	}
	for i, profile := range []string{"reader-sign", "reader-encrypt"} {
		c := certs[i]
		if c.Profile != profile || c.Reader != rd.Number || c.City != rd.City {
			return &PairError{rd.Number, fmt.Sprintf("certificate %s is of profile %s for reader %q of city %q, and should be of %s for this one of %q", c.Serial, c.Profile, c.Reader, c.City, profile, rd.City), remedy}
		}
		s, err := status(tx, c.CA, c.Serial)
		if err != nil {
			return err
		}
		if s.State != want {
			return &PairError{rd.Number, fmt.Sprintf("certificate %s is %s, and should be %s", c.Serial, s.State, want), remedy}
		}
	}
	return pairFits(certs[0], certs[1])
}

// take makes a pair the reader's present one.
func (rd *Reader) take(certs []*store.Certificate) {
	rd.CA, rd.Sign, rd.Encrypt, rd.NotAfter = certs[0].CA, certs[0].Serial, certs[1].Serial, certs[0].NotAfter
}

// pairFits holds what makes two certificates a pair.
func pairFits(sign, encrypt *store.Certificate) error {
	var what string
	switch {
	case sign.CA != encrypt.CA:
		what = "issuers"
	case sign.Subject != encrypt.Subject:
		what = "subjects"
	case !sign.NotAfter.Equal(encrypt.NotAfter):
		what = "ends"
	case sign.SPKI == encrypt.SPKI:
		return &PairError{sign.Reader, "its two certificates hold one key", "make two key pairs"}
	default:
		return nil
	}
	return &PairError{sign.Reader, "its two certificates have different " + what, "issue them in one order"}
}

// status reads a certificate's status. A status that is missing is a fault of the
// book, never "not found".
func status(tx *store.Tx, caID string, serial store.Serial) (*store.Status, error) {
	s, err := store.Statuses.Get(tx, store.SerialKey(caID, serial))
	if err != nil {
		return nil, fmt.Errorf("status of certificate %s of CA %s: %v", serial, caID, err)
	}
	return s, nil
}
