package stage2

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"hufu/ca"
	"hufu/internal/oid"
	"hufu/issuance"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// Grant is a pair on hold, as the reader gets it.
type Grant struct {
	Number    string
	Sign      []byte   // DER
	Encrypt   []byte   // DER
	Chain     [][]byte // issuers upward, without the root
	SealedKey []byte   // EnvelopedData for the transport key, where the centre made the key
	Again     bool     // the same pair as before
}

// Enrol judges a reader's enrolment and gives it its pair, on hold. The same
// enrolment gets the same answer while its session lives; the same keys in another
// session get the same pair; new keys get another pair, and the one on hold is
// revoked. A challenge is good for one enrolment.
func (s *Service) Enrol(ctx context.Context, caller policy.Caller, id string, der []byte) (*Grant, error) {
	o, err := s.session(caller, id)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := store.Sum(der)
	if o.granted != nil && sum == o.enrolment {
		return o.granted, nil
	}
	var g *Grant
	if o.granted != nil {
		err = unproven(o.Number, errors.New("another enrolment answered the challenge of this session before"))
	} else if g, err = s.enrol(ctx, caller, o, der); err == nil {
		o.enrolment, o.granted = sum, g
		return g, nil
	}
	return nil, s.refused(ctx, caller.Name, o.Number, o.City, err)
}

func (s *Service) enrol(ctx context.Context, caller policy.Caller, o *open, der []byte) (*Grant, error) {
	p, err := s.prove(ctx, o, der)
	if err != nil {
		return nil, err
	}
	certs, again, err := s.onHold(ctx, o, p)
	if err == nil && certs == nil {
		certs, err = s.order(ctx, caller, o, p)
	}
	if err != nil {
		return nil, err
	}
	g := &Grant{Number: o.Number, Sign: certs[0].DER, Encrypt: certs[1].DER, Again: again}
	if g.Chain, err = s.chain(ctx, certs[0].CA); err != nil {
		return nil, err
	}
	if p.transport != nil {
		x, err := x509.ParseCertificate(certs[1].DER)
		if err != nil {
			return nil, fmt.Errorf("reading the encryption certificate of reader %s: %w", o.Number, err)
		}
		if g.SealedKey, err = s.Escrow.Deliver(ctx, x.RawSubjectPublicKeyInfo, p.transport); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// proof is what a good enrolment proves.
type proof struct {
	csr       []byte
	sign      store.Hash   // of the new signing key
	encrypt   []byte       // SPKI, made by the reader; or else
	transport []byte       // SPKI that the encryption key is to be sealed to
	device    *verify.Cert // that signed it; nil for a renewal
	chain     [][]byte     // CAs of device, the root left out
}

// prove judges an enrolment: the session's challenge, the reader's key, and the
// request with its proof of possession.
func (s *Service) prove(ctx context.Context, o *open, der []byte) (*proof, error) {
	fails := func(format string, args ...any) error { return unproven(o.Number, fmt.Errorf(format, args...)) }
	e, m, err := s.Verifier.EnrolmentFile(der)
	switch {
	case err != nil:
		return nil, unproven(o.Number, err)
	case e.Session != o.ID || !bytes.Equal(e.Challenge, o.Challenge):
		return nil, fails("it answers the challenge of another session")
	case e.Number != o.Number || e.City != o.City:
		return nil, fails("it is of reader %s of city %s, and the session of reader %s of city %s", e.Number, e.City, o.Number, o.City)
	}
	p := &proof{csr: e.CSR}
	var rd *readers.Reader
	var present *store.Certificate
	err = s.Book.View(ctx, func(tx *store.Tx) (err error) {
		if rd, err = s.Register.Find(tx, o.Number); err == nil && o.Renew {
			present, err = store.FindCertificate(tx, rd.CA, rd.Sign)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case o.Renew && m.Signer.Hash != store.Sum(present.DER):
		return nil, fails("it is not signed with the reader's present signing key")
	case !o.Renew && (m.Signer.City != "" || store.Hash(m.Signer.Hash) != rd.Device):
		return nil, fails("it is not signed with the device key whose certificate the ticket names")
	}
	if !o.Renew {
		p.device = m.Signer
		for c := m.Signer.Issuer; c != nil && c.Issuer != nil; c = c.Issuer {
			p.chain = append(p.chain, c.DER)
		}
	}
	// A city without a line to the centre cannot ask for the status of a device; there
	// the ticket vouches for it.
	if _, err := s.Verifier.CheckStatus(ctx, m.Signer); err != nil {
		if o.Renew || rd.DeviceCA != "" || !errors.As(err, new(*verify.StaleError)) {
			return nil, unproven(o.Number, err)
		}
	}
	return p, p.keys(o, m.Signer)
}

// keys reads the keys of the request.
func (p *proof) keys(o *open, signer *verify.Cert) error {
	fails := func(format string, args ...any) error { return unproven(o.Number, fmt.Errorf(format, args...)) }
	csr, err := issuance.ParseCSR(p.csr)
	if err != nil {
		return unproven(o.Number, err)
	}
	p.sign = store.Sum(csr.SPKI)
	for i := range csr.Extensions {
		switch x := &csr.Extensions[i]; {
		case x.Id.Equal(oid.EncryptionKey):
			p.encrypt = x.Value
		case x.Id.Equal(oid.TransportKey):
			p.transport = x.Value
		}
	}
	switch {
	case bytes.Equal(csr.SPKI, signer.X509.RawSubjectPublicKeyInfo):
		return fails("the new signing key is the one that signed the enrolment")
	case o.Encryption == ByCentre && (p.transport == nil || p.encrypt != nil):
		return fails("the request must cover a transport key for the encryption key that the centre makes, and no encryption key")
	case o.Encryption == ByReader && (p.encrypt == nil || p.transport != nil):
		return fails("the request must cover the encryption key that the reader made, and no transport key")
	case bytes.Equal(csr.SPKI, p.encrypt) || bytes.Equal(csr.SPKI, p.transport):
		return fails("one key is to sign and to decrypt")
	}
	return nil
}

// onHold finds the pair that the reader has on hold for these keys already.
func (s *Service) onHold(ctx context.Context, o *open, p *proof) (certs []*store.Certificate, again bool, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		certs = nil
		rd, err := s.Register.Find(tx, o.Number)
		if err != nil {
			return err
		}
		id, sign, encrypt, escrowed := rd.CA, rd.Sign, rd.Encrypt, rd.Escrowed
		if o.Renew {
			id, sign, encrypt, escrowed = rd.NextCA, rd.NextSign, rd.NextEncrypt, rd.NextEscrowed
		}
		if sign.IsZero() || !o.Renew && rd.State != readers.Initialised || escrowed != (p.transport != nil) {
			return nil
		}
		pair := make([]*store.Certificate, 2)
		for i, serial := range []store.Serial{sign, encrypt} {
			if pair[i], err = store.FindCertificate(tx, id, serial); err != nil {
				return fmt.Errorf("reading the pair of reader %s: %v", o.Number, err) // never "not found"
			}
		}
		if pair[0].SPKI == p.sign && (escrowed || pair[1].SPKI == store.Sum(p.encrypt)) {
			certs = pair
		}
		return nil
	})
	return certs, certs != nil, err
}

// order has the city's CA issue the pair, on hold. Ticket, quota and state are
// looked at again before anything is signed, and a last time where the reader
// becomes initialised.
func (s *Service) order(ctx context.Context, caller policy.Caller, o *open, p *proof) (_ []*store.Certificate, err error) {
	encrypt, kept := p.encrypt, p.transport != nil
	if kept {
		if encrypt, err = s.Escrow.Claim(ctx, o.Number, o.City); err != nil {
			return nil, err
		}
	}
	name := policy.Name{Reader: o.Number, City: o.City}
	request := Request{Number: o.Number, City: o.City, Ticket: o.Ticket, Renew: o.Renew}
	return s.Authority.Issue(ctx, ca.Order{
		Requester: caller.Name,
		Hold:      true,
		Requests: []ca.Request{
			{CA: o.City, Profile: "reader-sign", CSR: p.csr, Name: name},
			{CA: o.City, Profile: "reader-encrypt", SPKI: encrypt, Kept: kept, Name: name},
		},
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error {
			if _, err := s.admit(tx, &request); err != nil || !kept {
				return err
			}
			return s.Escrow.Claimed(tx, encrypt, o.Number)
		},
		Commit: func(tx *store.Tx, certs []*store.Certificate) error {
			rd, err := s.admit(tx, &request)
			if err != nil {
				return err
			}
			if kept {
				if err := s.Escrow.InUse(tx, encrypt, certs[1]); err != nil {
					return err
				}
			}
			if o.Renew {
				_, err = s.Register.Renewing(tx, o.Number, certs, kept, caller.Name)
				return err
			}
			if err := s.Stage.Spend(tx, rd); err != nil {
				return outcome(o.Number, err)
			}
			if err := s.noteDevice(tx, rd, p); err != nil {
				return err
			}
			_, err = s.Register.Initialised(tx, o.Number, certs, kept, caller.Name)
			return err
		},
	})
}

// chain is the CA that issued a pair and those above it, without the root.
func (s *Service) chain(ctx context.Context, id string) (ders [][]byte, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		ders, err = chainOf(tx, id)
		return err
	})
	return ders, err
}

func chainOf(tx *store.Tx, id string) ([][]byte, error) {
	rec, err := store.CAs.Get(tx, store.Key(id))
	if err != nil {
		return nil, fmt.Errorf("reading CA %s: %v", id, err)
	}
	ders := [][]byte{rec.Certificate}
	if n := len(rec.Chain); n > 1 {
		ders = append(ders, rec.Chain[:n-1]...) // the root stands last
	}
	return ders, nil
}
