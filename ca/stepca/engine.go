package stepca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"

	casapi "github.com/smallstep/certificates/cas/apiv1"
	"github.com/smallstep/certificates/db"

	"hufu/ca"
	"hufu/policy"
	"hufu/store"
)

// engine is the certificate service that smallstep's authority calls. It turns
// a finalized order into an order of the spine.
type engine struct{ cfg Config }

var _ casapi.CertificateAuthorityService = (*engine)(nil)

// refusal gives an error the HTTP status that smallstep's handlers pass on.
type refusal struct{ error }

func (refusal) StatusCode() int { return http.StatusForbidden }
func (r refusal) Unwrap() error { return r.error }

// CreateCertificate issues through the spine. Of smallstep's template only the
// DNS names are used: they are the identifiers whose challenges were validated.
//
// smallstep tells neither order nor account here. The idempotency key is made
// of the key and of how many certificates ACME has delivered for it, so that a
// finalize that is repeated after a crash gets the certificate that was already
// issued, and a renewal with the same key gets a new one in the same line.
func (e *engine) CreateCertificate(r *casapi.CreateCertificateRequest) (*casapi.CreateCertificateResponse, error) {
	if r.CSR == nil || r.Template == nil {
		return nil, casapi.ValidationError{Message: "no request"}
	}
	if len(r.Template.IPAddresses)+len(r.Template.EmailAddresses)+len(r.Template.URIs) > 0 {
		return nil, casapi.ValidationError{Message: "only DNS names are certified"}
	}
	// smallstep's interface has no context here; the spine ends by itself.
	ctx := context.Background()
	spki := store.Sum(r.CSR.RawSubjectPublicKeyInfo)
	delivered, line, err := e.delivered(ctx, spki)
	if err != nil {
		return nil, err
	}
	names := sha256.New()
	for _, n := range r.Template.DNSNames {
		fmt.Fprintf(names, "%s\n", n)
	}
	certs, err := e.cfg.Authority.Issue(ctx, ca.Order{
		Requester:      "acme",
		IdempotencyKey: fmt.Sprintf("%s-%d-%x", spki, delivered, names.Sum(nil)),
		Requests: []ca.Request{{CA: e.cfg.CA, Profile: "server", CSR: r.CSR.Raw, Line: line,
			Name: policy.Name{DNS: r.Template.DNSNames}}},
	})
	if err != nil {
		var v *policy.Violation
		var taken *ca.KeyTakenError
		var bad *ca.RequestError
		if errors.As(err, &v) || errors.As(err, &taken) || errors.As(err, &bad) {
			return nil, refusal{err}
		}
		return nil, err
	}
	return e.response(ctx, certs[0])
}

func (e *engine) response(ctx context.Context, c *store.Certificate) (*casapi.CreateCertificateResponse, error) {
	var authority *store.CA
	err := e.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		authority, err = store.CAs.Get(tx, store.Key(c.CA))
		return err
	})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	out := &casapi.CreateCertificateResponse{Certificate: leaf}
	chain := append([][]byte{authority.Certificate}, authority.Chain...)
	for _, der := range chain[:len(chain)-1] { // a server does not send the root
		above, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out.CertificateChain = append(out.CertificateChain, above)
	}
	return out, nil
}

// delivered counts the certificates that ACME clients have got for a key, and
// gives the line they belong to.
func (e *engine) delivered(ctx context.Context, spki store.Hash) (n int, line string, err error) {
	err = e.cfg.Book.View(ctx, func(tx *store.Tx) error {
		n, line = 0, ""
		for r, err := range certificates.Scan(tx, "spki", store.Key(spki)) {
			if err != nil {
				return err
			}
			n++
			line = r.Line
		}
		return nil
	})
	return n, line, err
}

// RenewCertificate is smallstep's own renewal, which has no place here.
func (e *engine) RenewCertificate(*casapi.RenewCertificateRequest) (*casapi.RenewCertificateResponse, error) {
	return nil, casapi.NotImplementedError{Message: "renew by a new order"}
}

// RevokeCertificate does nothing: authDB.Revoke, which smallstep calls for the
// same revocation, is the one that counts.
func (e *engine) RevokeCertificate(r *casapi.RevokeCertificateRequest) (*casapi.RevokeCertificateResponse, error) {
	return &casapi.RevokeCertificateResponse{Certificate: r.Certificate}, nil
}

// find gives a certificate of the book by the decimal serial number that
// smallstep uses.
func (e *engine) find(ctx context.Context, decimal string) (cert *store.Certificate, status *store.Status, err error) {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return nil, nil, fmt.Errorf("%q is no serial number", decimal)
	}
	serial, err := store.SerialFrom(n)
	if err != nil {
		return nil, nil, err
	}
	err = e.cfg.Book.View(ctx, func(tx *store.Tx) error {
		rows, _, err := store.Certificates.Page(tx, store.Query{Index: "serial", Prefix: store.Key(serial), Limit: 1})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return store.ErrNotFound
		}
		cert = rows[0]
		status, err = store.Statuses.Get(tx, store.SerialKey(cert.CA, cert.Serial))
		return err
	})
	return cert, status, err
}

// authDB is what smallstep's authority asks about certificates. The embedded
// interface is nil: a method that is not here is one that no mounted door
// calls, and would panic rather than answer.
type authDB struct {
	db.AuthDB
	engine *engine
}

func (d authDB) IsRevoked(decimal string) (bool, error) {
	_, status, err := d.engine.find(context.Background(), decimal)
	if err != nil {
		return true, err
	}
	return status.State != store.Good, nil
}

// Revoke revokes through the spine. That the caller holds the account or the
// certificate's key was shown to smallstep's handler (RFC 8555, Section 7.6).
func (d authDB) Revoke(r *db.RevokedCertificateInfo) error {
	ctx := context.Background()
	cert, _, err := d.engine.find(ctx, r.Serial)
	if err != nil {
		return err
	}
	err = d.engine.cfg.Book.Update(ctx, func(tx *store.Tx) error {
		return d.engine.cfg.Authority.Revoke(tx, ca.Ref{CA: cert.CA, Serial: cert.Serial}, r.ReasonCode, noTime, "acme")
	})
	var state *ca.StateError
	if errors.As(err, &state) {
		return db.ErrAlreadyExists
	}
	return err
}

// GetCertificate is asked by the revocation handler.
func (d authDB) GetCertificate(decimal string) (*x509.Certificate, error) {
	cert, _, err := d.engine.find(context.Background(), decimal)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(cert.DER)
}

// GetCertificateData names the provisioner of every certificate. Without it,
// smallstep falls back to one that renews whatever chains to the root.
func (d authDB) GetCertificateData(string) (*db.CertificateData, error) {
	return &db.CertificateData{Provisioner: &db.ProvisionerData{ID: "acme/" + provisionerName, Name: provisionerName, Type: "ACME"}}, nil
}

func (d authDB) UseToken(string, string) (bool, error)    { return true, nil }
func (d authDB) StoreCertificate(*x509.Certificate) error { return nil }
func (d authDB) Shutdown() error                          { return nil }
