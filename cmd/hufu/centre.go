package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/ca"
	"hufu/hsm"
	"hufu/internal/oid"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

// ticketSignLabel is the token's key that signs the centre's tickets.
const ticketSignLabel = "sign-centre"

// ownCertificate finds the newest good certificate of a profile for a key of the
// token, with the CA that issued it. The error wraps store.ErrNotFound where there
// is none.
func (n *node) ownCertificate(ctx context.Context, key *hsm.Key, profile string) (cert *store.Certificate, authority *store.CA, err error) {
	err = n.book.View(ctx, func(tx *store.Tx) error {
		cert, authority = nil, nil
		for c, err := range store.Certificates.Scan(tx, "spki", store.Key(store.Hash(key.SPKI()))) {
			if err != nil {
				return err
			}
			s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
			if err != nil {
				return err
			}
			if s.State == store.Good && c.Profile == profile && c.NotAfter.After(time.Now()) && (cert == nil || c.Seq > cert.Seq) {
				cert = c
			}
		}
		if cert == nil {
			return fmt.Errorf("no good certificate of profile %s: %w", profile, store.ErrNotFound)
		}
		authority, err = store.CAs.Get(tx, store.Key(cert.CA))
		return err
	})
	return cert, authority, err
}

// ticketSigner gives the centre's key for tickets and its certificate. Both are made
// when they are first asked for, at init; the certificate is renewed, with the same
// key, when a third of its life is left.
func (n *node) ticketSigner(ctx context.Context) (*stage1.Signer, error) {
	n.signing.Lock()
	defer n.signing.Unlock()
	line, err := n.conf.lineOf("device")
	if err != nil {
		return nil, err
	}
	key, err := keyLabelled(ctx, n.token, ticketSignLabel, hsm.P256)
	if err != nil {
		return nil, err
	}
	cert, authority, err := n.ownCertificate(ctx, key, "centre-sign")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if cert == nil || time.Until(cert.NotAfter) < cert.NotAfter.Sub(cert.NotBefore)/3 {
		renewed, err := n.certifyCentre(ctx, line, key, cert)
		switch {
		case err == nil:
			cert = renewed
			if authority, err = caRecord(ctx, n.book, cert.CA); err != nil {
				return nil, err
			}
		case cert == nil:
			return nil, err
		default:
			n.log.Error("renewing the centre's certificate failed", "error", err, "not_after", cert.NotAfter)
		}
	}
	return &stage1.Signer{Certificate: cert.DER, Chain: append([][]byte{authority.Certificate}, withoutRoot(authority.Chain)...), Key: key}, nil
}

// firstStage is the centre's half of a reader's first days; of a city's own node, as
// far as a city has to do with it.
func (n *node) firstStage(register *readers.Register, verifier *verify.Verifier) *stage1.Stage {
	cfg := stage1.Config{Book: n.book, Authority: n.authority, Register: register, Verifier: verifier, Domain: n.conf.Domain, Log: n.log}
	if line, err := n.conf.lineOf("device"); err == nil {
		cfg.DeviceCA, cfg.Signer = line, n.ticketSigner
	}
	return stage1.New(cfg)
}

// certifyCentre issues the certificate, in the line of the one before.
func (n *node) certifyCentre(ctx context.Context, line string, key *hsm.Key, before *store.Certificate) (*store.Certificate, error) {
	csr, err := request(key)
	if err != nil {
		return nil, err
	}
	r := ca.Request{CA: line, Profile: "centre-sign", CSR: csr}
	if before != nil {
		r.Line = before.Line
	}
	if err := n.signsForCentre(line); err != nil {
		return nil, err
	}
	certs, err := n.authority.Issue(ctx, ca.Order{Requester: "node:" + n.conf.Node, Requests: []ca.Request{r}})
	if err != nil {
		return nil, fmt.Errorf("issuing the centre's certificate by CA %s: %w", line, err)
	}
	return certs[0], nil
}

// signsForCentre refuses a device CA whose own certificate was made before tickets
// were: nobody would accept what it signs for the centre.
func (n *node) signsForCentre(line string) error {
	var newest *x509.Certificate
	generation := 0
	for _, i := range n.issuers {
		if rec := i.CA(); rec.Line == line && rec.Generation > generation {
			c, err := x509.ParseCertificate(rec.Certificate)
			if err != nil {
				return err
			}
			newest, generation = c, rec.Generation
		}
	}
	if newest == nil || !slices.ContainsFunc(newest.UnknownExtKeyUsage, oid.EKUCentreSigning.Equal) {
		return &hinted{err: fmt.Errorf("CA %s is not for the centre's signature: its certificate does not have %v", line, oid.EKUCentreSigning),
			hint: "certify the device CA anew with the root: hufu ca request, hufu ceremony run", code: exitConflict}
	}
	return nil
}
