package ca

import (
	"context"
	"errors"
	"fmt"

	"hufu/store"
)

// answer remembers an order by its idempotency key. It holds no state of its
// own: the order is open while its intents are, and answered once its
// certificates are there. Closing the intents removes it.
type answer struct {
	Requester, Key string
	Hash           store.Hash
	Refs           []Ref
}

var answers = store.Table[answer]{
	Name:  "answer",
	Key:   func(a *answer) []byte { return answerKey(a.Requester, a.Key) },
	Codec: store.JSON[answer](),
}

// answerKey keeps the order of the requester's keys: those that begin with the
// time lie side by side, which costs the engine less than keys at random. Neither
// part is longer than maxWord.
func answerKey(requester, key string) []byte {
	return store.Key(requester, key)
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&answers}

// recall gives every order that was answered before its certificates, and marks
// the ones that are under way elsewhere.
func (a *Authority) recall(ctx context.Context, us []*underway) error {
	named := false
	for _, u := range us {
		u.open = 0
		u.hash = u.Order.sum()
		named = named || u.IdempotencyKey != ""
	}
	if !named {
		return nil
	}
	return a.Book.View(ctx, func(tx *store.Tx) error {
		for _, u := range us {
			if err := recallOne(tx, u); err != nil {
				return err
			}
		}
		return nil
	})
}

func recallOne(tx *store.Tx, u *underway) error {
	if u.IdempotencyKey == "" {
		return nil
	}
	ans, err := answers.Get(tx, answerKey(u.Requester, u.IdempotencyKey))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if ans.Hash != u.hash {
		u.err = &IdempotencyError{Key: u.IdempotencyKey}
		return nil
	}
	certs := make([]*store.Certificate, len(ans.Refs))
	for i, ref := range ans.Refs {
		certs[i], err = store.FindCertificate(tx, ref.CA, ref.Serial)
		if errors.Is(err, store.ErrNotFound) {
			u.open = tx.Head()
			return nil
		}
		if err != nil {
			return err
		}
	}
	u.certs = certs
	return nil
}

// reserve is step 4 for one order.
func (a *Authority) reserve(tx *store.Tx, u *underway, node string) error {
	// The same order may have come in since recall looked. Then this one waits.
	if err := recallOne(tx, u); err != nil || !u.goesOn() {
		return err
	}
	refs := make([]Ref, len(u.items))
	for i := range u.items {
		it := &u.items[i]
		c := it.cert
		refs[i] = Ref{c.CA, c.Serial}
		if err := mayIssue(tx, it); err != nil {
			return err
		}
		if err := a.mayHold(tx, c); err != nil {
			return err
		}
		intent := store.Intent{CA: c.CA, Serial: c.Serial, TBSHash: it.token.TBSHash(), SPKI: c.SPKI, RequestHash: u.hash,
			Requester: u.Requester, Profile: c.Profile, IdempotencyKey: u.IdempotencyKey, Line: c.Line, Node: node, Shard: c.Shard,
			Time: tx.Now().UTC()}
		intent.Seq = tx.Append(store.Event{Kind: store.KindIntent, CA: c.CA, Serial: c.Serial, Actor: u.Requester,
			Detail: `{"profile":"` + c.Profile + `","tbs":"` + intent.TBSHash.String() + `"}`})
		if err := store.Intents.Insert(tx, &intent); err != nil {
			return fmt.Errorf("recording the intent of %s: %w", c.Serial, err)
		}
	}
	if u.IdempotencyKey != "" {
		if err := answers.Insert(tx, &answer{u.Requester, u.IdempotencyKey, u.hash, refs}); err != nil {
			return fmt.Errorf("recording the idempotency key: %w", err)
		}
	}
	if u.Reserve != nil {
		return u.Reserve(tx, u.records())
	}
	return nil
}

// mayIssue checks that the CA is active and that a renewal renews what it says.
func mayIssue(tx *store.Tx, it *item) error {
	c := it.cert
	switch rec, err := store.CAs.Get(tx, store.Key(c.CA)); {
	case err != nil:
		return fmt.Errorf("looking up CA %q: %w", c.CA, err)
	case rec.State != "active":
		return &CAError{CA: c.CA, Detail: "it is " + rec.State + " and issues no more certificates", Remedy: "name its line, so that the newest generation is used"}
	}
	if !it.renewal {
		return nil
	}
	last, err := store.OneOfLine(tx, c.Line)
	if errors.Is(err, store.ErrNotFound) {
		return &RequestError{Problem: "request-line", Detail: fmt.Sprintf("there is no certificate line %q", c.Line), Remedy: "leave the line out to begin a new one"}
	}
	if err != nil {
		return fmt.Errorf("looking up line %q: %w", c.Line, err)
	}
	if last.Profile != c.Profile || last.Subject != c.Subject {
		return &RequestError{Problem: "request-line", Detail: fmt.Sprintf("line %s is of profile %s for %q", c.Line, last.Profile, last.Subject),
			Remedy: "ask for the same profile and names, or leave the line out to begin a new one"}
	}
	return nil
}

// mayHold checks that the certificate may be made for its key. A key belongs to
// one line, from its first intent on, and to none once it was compromised.
func (a *Authority) mayHold(tx *store.Tx, c *store.Certificate) error {
	if id, ok := a.keys[c.SPKI]; ok {
		return &KeyTakenError{SPKI: c.SPKI, Line: "that of CA " + id}
	}
	for i, err := range store.Intents.Scan(tx, "spki", store.Key(c.SPKI)) {
		if err != nil {
			return fmt.Errorf("looking up the key %s: %w", c.SPKI, err)
		}
		if i.Line != c.Line {
			return &KeyTakenError{SPKI: c.SPKI, Line: i.Line}
		}
	}
	taken, err := takenBy(tx, c)
	if err == nil && taken != nil {
		err = taken
	}
	if err == nil && a.MayHold != nil {
		err = a.MayHold(tx, c)
	}
	return err
}

// Adopt checks, of a certificate that came into the book by another way than
// Issue (brought back from a directory after a restore), that its key belongs to
// no other line. An open intent for the key is no hindrance: it is of an order
// that was under way when the backup was made and came to nothing.
func Adopt(tx *store.Tx, c *store.Certificate) error {
	taken, err := takenBy(tx, c)
	if err == nil && taken != nil && taken.Line != c.Line {
		err = taken
	}
	if err != nil {
		return fmt.Errorf("adopting certificate %s: %w", c.Serial, err)
	}
	return nil
}

// takenBy finds what keeps the key of c from its line: a certificate of another
// line, or else one whose key was compromised.
func takenBy(tx *store.Tx, c *store.Certificate) (taken *KeyTakenError, err error) {
	for have, err := range store.Certificates.Scan(tx, "spki", store.Key(c.SPKI)) {
		if err != nil {
			return nil, fmt.Errorf("looking up the key %s: %w", c.SPKI, err)
		}
		s, err := store.Statuses.Get(tx, store.SerialKey(have.CA, have.Serial))
		if err != nil {
			// Not wrapped: it is a fault of the book, never "not found".
			return nil, fmt.Errorf("looking up the key %s: the status of %s: %v", c.SPKI, have.Serial, err)
		}
		compromised := s.State == store.Revoked && s.Reason == keyCompromise
		if have.Line != c.Line || compromised {
			taken = &KeyTakenError{SPKI: c.SPKI, Line: have.Line, Compromised: compromised}
		}
		if have.Line != c.Line {
			break
		}
	}
	return taken, nil
}
