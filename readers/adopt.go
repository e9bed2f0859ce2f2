package readers

import (
	"errors"
	"fmt"

	"hufu/ca"
	"hufu/store"
)

// Adopt brings a reader in line with certificates that came into the book by
// another way than this register: brought back from a directory after a restore,
// with ca.Adopt for each of them. A reader that is not registered is registered
// with its pair; one that is takes the state of its pair. Of a pair in two states
// the stricter one counts, for both certificates. Half a pair is a *PairError,
// and nothing is changed. It may be repeated.
func (r *Register) Adopt(tx *store.Tx, number, actor string) error {
	const note = "brought back"
	rd, err := register.Get(tx, store.Key(number))
	if errors.Is(err, store.ErrNotFound) {
		rd, err = &Reader{Number: number}, nil
	}
	if err != nil {
		return fmt.Errorf("looking up reader %q: %w", number, err)
	}
	sign, encrypt, err := newestPair(tx, number)
	if err != nil {
		return err
	}
	rd.City, rd.CA, rd.Sign, rd.Encrypt = sign.City, sign.CA, sign.Serial, encrypt.Serial
	state, err := r.level(tx, rd, actor)
	if err != nil {
		return fmt.Errorf("reader %s: %w", number, err)
	}
	if rd.State == "" {
		if err := rd.step(tx, issue, actor, note); err != nil {
			return err
		}
	}
	if certificateState[rd.State] == state {
		return nil
	}
	s := map[store.State]step{store.Good: resume, store.Held: suspend, store.Revoked: revoke}[state]
	s.from = []State{rd.State}
	return rd.step(tx, s, actor, note)
}

// newestPair finds the last signing certificate of a reader and the last one
// that encrypts to it.
func newestPair(tx *store.Tx, number string) (sign, encrypt *store.Certificate, err error) {
	for c, err := range store.Certificates.Scan(tx, "reader", store.Key(number)) {
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("looking up the certificates of reader %s: %w", number, err)
		case c.Profile == "reader-sign" && (sign == nil || c.Seq > sign.Seq):
			sign = c
		case c.Profile == "reader-encrypt" && (encrypt == nil || c.Seq > encrypt.Seq):
			encrypt = c
		}
	}
	if sign == nil || encrypt == nil {
		return nil, nil, &PairError{number, "the book holds one certificate of its pair alone", "revoke that one, and issue the reader anew with new keys"}
	}
	return sign, encrypt, pairFits(sign, encrypt)
}

// level gives both certificates the stricter state of the two and returns it.
func (r *Register) level(tx *store.Tx, rd *Reader, actor string) (store.State, error) {
	var pair [2]*store.Status
	var refs [2]ca.Ref
	for i, serial := range []store.Serial{rd.Sign, rd.Encrypt} {
		var err error
		refs[i] = ca.Ref{CA: rd.CA, Serial: serial}
		if pair[i], err = store.Statuses.Get(tx, store.SerialKey(rd.CA, serial)); err != nil {
			return 0, fmt.Errorf("status of %s: %w", serial, err)
		}
	}
	mild, strict := 0, 1
	if pair[0].State > pair[1].State {
		mild, strict = 1, 0
	}
	var err error
	switch s := pair[strict]; {
	case pair[mild].State == s.State:
	case s.State == store.Held:
		err = r.Authority.Suspend(tx, refs[mild], actor)
	case s.State == store.Revoked:
		err = r.Authority.Revoke(tx, refs[mild], s.Reason, s.InvalidityDate, actor)
	}
	return pair[strict].State, err
}
