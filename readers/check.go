package readers

import (
	"context"
	"fmt"

	"hufu/ca"
	"hufu/store"
)

// Check holds every reader against its certificates: same issuer, subject and
// end, two keys, and statuses that are those of the reader's state, with the
// exceptions that the package declares.
func (r *Register) Check(ctx context.Context) error {
	return r.Book.View(ctx, func(tx *store.Tx) error {
		for rd, err := range register.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if err := rd.check(tx); err != nil {
				return fmt.Errorf("checking reader %s: %w", rd.Number, err)
			}
		}
		return nil
	})
}

func (rd *Reader) check(tx *store.Tx) error {
	want, paired := certificateState[rd.State]
	switch {
	case !paired && (!rd.Sign.IsZero() || !rd.NextSign.IsZero()):
		return fmt.Errorf("it is %s and has a pair", rd.State)
	case paired && !rd.State.Ended() && rd.Sign.IsZero():
		return fmt.Errorf("it is %s and has no pair", rd.State)
	case rd.Sign.IsZero() != rd.Encrypt.IsZero() || rd.NextSign.IsZero() != rd.NextEncrypt.IsZero():
		return fmt.Errorf("it has half a pair")
	}
	if rd.Paired() {
		if err := rd.checkPair(tx, rd.pair(), want); err != nil {
			return err
		}
	}
	if next := rd.next(); next != nil {
		want := store.Held
		if rd.State.Ended() {
			want = store.Revoked
		}
		if err := rd.checkPair(tx, next, want); err != nil {
			return fmt.Errorf("the pair of its renewal: %w", err)
		}
	}
	if err := rd.checkLeft(tx); err != nil {
		return err
	}
	return rd.checkDevice(tx)
}

// checkPair holds two certificates against the reader and the state that both
// must have.
func (rd *Reader) checkPair(tx *store.Tx, refs []ca.Ref, want store.State) error {
	var pair [2]*store.Certificate
	for i, ref := range refs {
		var err error
		if pair[i], err = store.FindCertificate(tx, ref.CA, ref.Serial); err != nil {
			return fmt.Errorf("certificate %s: %w", ref.Serial, err)
		}
		s, err := status(tx, ref.CA, ref.Serial)
		if err != nil {
			return err
		}
		if s.State != want {
			return fmt.Errorf("the reader is %s and certificate %s is %s", rd.State, ref.Serial, s.State)
		}
		if pair[i].Reader != rd.Number || pair[i].City != rd.City {
			return fmt.Errorf("certificate %s is of reader %s in city %s", ref.Serial, pair[i].Reader, pair[i].City)
		}
	}
	return pairFits(pair[0], pair[1])
}

// checkLeft holds that no other pair of the reader's is alive.
func (rd *Reader) checkLeft(tx *store.Tx) error {
	known := map[store.Serial]bool{rd.Sign: true, rd.Encrypt: true, rd.NextSign: true, rd.NextEncrypt: true}
	for c, err := range store.Certificates.Scan(tx, "reader", store.Key(rd.Number)) {
		if err != nil {
			return err
		}
		if !isPair(c) || known[c.Serial] {
			continue
		}
		s, err := status(tx, c.CA, c.Serial)
		if err != nil {
			return err
		}
		if s.State != store.Revoked {
			return fmt.Errorf("certificate %s is %s, and of neither pair that the reader has", c.Serial, s.State)
		}
	}
	return nil
}

// isPair tells whether a certificate is half of a reader's pair.
func isPair(c *store.Certificate) bool {
	return c.Profile == "reader-sign" || c.Profile == "reader-encrypt"
}

func (rd *Reader) checkDevice(tx *store.Tx) error {
	if rd.DeviceCA == "" {
		return nil
	}
	c, err := store.FindCertificate(tx, rd.DeviceCA, rd.DeviceSerial)
	if err != nil {
		return fmt.Errorf("device certificate %s: %w", rd.DeviceSerial, err)
	}
	if c.Reader != rd.Number || store.Sum(c.DER) != rd.Device || c.SPKI != rd.DeviceKey {
		return fmt.Errorf("device certificate %s is not the one that the register names", c.Serial)
	}
	s, err := status(tx, c.CA, c.Serial)
	if err != nil {
		return err
	}
	if rd.State.Ended() && s.State != store.Revoked {
		return fmt.Errorf("its life is over and device certificate %s is %s", c.Serial, s.State)
	}
	return nil
}
