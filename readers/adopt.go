package readers

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/ca"
	"hufu/store"
)

// Adopt brings a reader in line with certificates that came into the book by
// another way than this register: brought back from a directory after a restore,
// with ca.Adopt for each of them. A reader that is not registered is registered
// as what its certificates show; one that is goes on from the state that it has.
// Of a pair in two states the stricter one counts, for both certificates; of two
// pairs the newer one on hold is a renewal's; a reader whose life is over stays
// so. Half a pair is a *PairError, and nothing is changed. It may be repeated.
func (r *Register) Adopt(tx *store.Tx, number, actor string) error {
	rd, err := r.Find(tx, number)
	if errors.Is(err, store.ErrNotFound) {
		rd, err = &Reader{Number: number}, nil
	}
	if err != nil {
		return err
	}
	pairs, device, err := certificatesOf(tx, number)
	if err != nil {
		return err
	}
	before := rd.shape()
	state, kept := rd.follow(pairs, device)
	revoking := slices.DeleteFunc(pairs, func(p *couple) bool { return slices.Contains(kept, p) })
	if err := r.levelAll(tx, kept, revoking, actor); err != nil {
		return fmt.Errorf("reader %s: %w", number, err)
	}
	if rd.DeviceCA != "" && state.Ended() {
		if err := r.revokeIfNot(tx, ca.Ref{CA: rd.DeviceCA, Serial: rd.DeviceSerial}, superseded, time.Time{}, actor); err != nil {
			return fmt.Errorf("reader %s: %w", number, err)
		}
	}
	if rd.State == state && rd.shape() == before {
		return nil
	}
	return rd.move(tx, adopt, state, actor, "brought back")
}

// couple is a pair as the book holds it, and the stricter of its two states.
type couple struct {
	sign, encrypt *store.Certificate
	state         store.State
}

func (p *couple) certs() []*store.Certificate { return []*store.Certificate{p.sign, p.encrypt} }

// shape is what Adopt may change of a reader.
type shape struct {
	city, ca, nextCA                 string
	sign, encrypt, nextSign, nextEnc store.Serial
	device                           store.Hash
	end                              int64
	elsewhere                        bool
}

func (rd *Reader) shape() shape {
	return shape{rd.City, rd.CA, rd.NextCA, rd.Sign, rd.Encrypt, rd.NextSign, rd.NextEncrypt, rd.Device, rd.NotAfter.Unix(), rd.Elsewhere}
}

// follow makes of the certificates that the book holds the reader's present pair
// and the one of its renewal, and returns the state that they show. What is not
// kept must be revoked.
func (rd *Reader) follow(pairs []*couple, device *store.Certificate) (state State, kept []*couple) {
	if device != nil && rd.Device.IsZero() || device != nil && rd.Device == store.Sum(device.DER) {
		rd.DeviceCA, rd.DeviceSerial, rd.Device, rd.DeviceKey = device.CA, device.Serial, store.Sum(device.DER), device.SPKI
	}
	if rd.State.Ended() {
		return rd.State, nil
	}
	if len(pairs) == 0 {
		if rd.State == "" || rd.State == Manufactured {
			return Prepared, nil
		}
		return rd.State, nil
	}
	present, next := rd.choose(pairs)
	rd.Elsewhere = false
	if rd.Sign != present.sign.Serial {
		// Where its encryption key is kept, the key management centre knows.
		rd.Escrowed = rd.NextSign == present.sign.Serial && rd.NextEscrowed
		rd.City = present.sign.City
		rd.take(present.certs())
	}
	rd.NotAfter = present.sign.NotAfter
	kept = []*couple{present}
	if next == nil {
		rd.NextCA, rd.NextSign, rd.NextEncrypt, rd.NextEscrowed = "", store.Serial{}, store.Serial{}, false
	} else {
		rd.NextCA, rd.NextSign, rd.NextEncrypt = next.sign.CA, next.sign.Serial, next.encrypt.Serial
		kept = append(kept, next)
	}
	switch present.state {
	case store.Good:
		return Active, kept
	case store.Held:
		if rd.beginning() {
			return Initialised, kept
		}
		return Suspended, kept
	}
	return Revoked, kept
}

// beginning tells whether the register knows a reader that has not been active.
func (rd *Reader) beginning() bool {
	return slices.Contains([]State{Manufactured, Prepared, Allotted, Initialised}, rd.State)
}

// choose picks of a reader's pairs, the oldest first, the present one and that of
// a renewal, nil where there is none.
func (rd *Reader) choose(pairs []*couple) (present, next *couple) {
	var live []*couple
	for _, p := range pairs {
		if p.state != store.Revoked {
			live = append(live, p)
		}
	}
	switch n := len(live); {
	case n == 0:
		return pairs[len(pairs)-1], nil
	case n == 1, live[n-1].state == store.Good:
		return live[n-1], nil
	case rd.beginning() && live[n-2].state == store.Held:
		return live[n-1], nil // the reader lost the keys of the one before
	default:
		return live[n-2], live[n-1]
	}
}

// certificatesOf finds the pairs of a reader, the oldest first, and the last of
// its device certificates.
func certificatesOf(tx *store.Tx, number string) (pairs []*couple, device *store.Certificate, err error) {
	var signs, encrypts []*store.Certificate
	for c, err := range store.Certificates.Scan(tx, "reader", store.Key(number)) {
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("looking up the certificates of reader %s: %w", number, err)
		case c.Profile == "reader-sign":
			signs = append(signs, c)
		case c.Profile == "reader-encrypt":
			encrypts = append(encrypts, c)
		case c.Profile == "device":
			device = c
		}
	}
	states := map[store.Serial]store.State{}
	for _, c := range slices.Concat(signs, encrypts) {
		s, err := status(tx, c.CA, c.Serial)
		if err != nil {
			return nil, nil, err
		}
		states[c.Serial] = s.State
	}
	for _, sign := range signs {
		// Both certificates of a pair are made at one moment.
		i := slices.IndexFunc(encrypts, func(e *store.Certificate) bool {
			return e.NotBefore.Equal(sign.NotBefore) && pairFits(sign, e) == nil
		})
		if i < 0 {
			if states[sign.Serial] != store.Revoked {
				return nil, nil, half(number)
			}
			continue
		}
		pairs = append(pairs, &couple{sign, encrypts[i], max(states[sign.Serial], states[encrypts[i].Serial])})
		encrypts = slices.Delete(encrypts, i, i+1)
	}
	for _, e := range encrypts {
		if states[e.Serial] != store.Revoked {
			return nil, nil, half(number)
		}
	}
	if pairs == nil && device == nil {
		return nil, nil, half(number)
	}
	// What came back stands in the book in any order.
	slices.SortStableFunc(pairs, func(a, b *couple) int {
		return cmp.Or(a.sign.NotBefore.Compare(b.sign.NotBefore), cmp.Compare(a.sign.Seq, b.sign.Seq))
	})
	return pairs, device, nil
}

func half(number string) error {
	return &PairError{number, "the book holds no whole pair of it", "revoke the certificate that came back alone, and issue the reader anew with new keys"}
}

// levelAll gives both certificates of every pair that is kept the stricter state
// of the two, and revokes the other pairs.
func (r *Register) levelAll(tx *store.Tx, kept, revoking []*couple, actor string) error {
	for _, p := range kept {
		if err := r.level(tx, p, actor); err != nil {
			return err
		}
	}
	for _, p := range revoking {
		for _, c := range p.certs() {
			if err := r.revokeIfNot(tx, ca.Ref{CA: c.CA, Serial: c.Serial}, superseded, time.Time{}, actor); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Register) level(tx *store.Tx, p *couple, actor string) error {
	var pair [2]*store.Status
	for i, c := range p.certs() {
		var err error
		if pair[i], err = status(tx, c.CA, c.Serial); err != nil {
			return err
		}
	}
	mild, strict := pair[0], pair[1]
	if mild.State > strict.State {
		mild, strict = strict, mild
	}
	ref := ca.Ref{CA: mild.CA, Serial: mild.Serial}
	switch {
	case mild.State == strict.State:
		return nil
	case strict.State == store.Held:
		return r.Authority.Suspend(tx, ref, actor)
	}
	return r.Authority.Revoke(tx, ref, strict.Reason, strict.InvalidityDate, actor)
}
