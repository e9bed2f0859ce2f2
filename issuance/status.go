package issuance

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/internal/oid"
)

// SignCRL writes a list that the CA signs. The template's Algorithm, Issuer and
// AuthorityKeyID are filled in; nothing is written before the signature was made.
func (i *Issuer) SignCRL(ctx context.Context, t crl.Template, entries iter.Seq2[crl.Entry, error], w io.Writer) error {
	t.Algorithm, t.Issuer, t.AuthorityKeyID = i.algorithm.id, i.facts.Name, i.facts.KeyID
	_, err := crl.Encode(w, &t, entries, i.algorithm.hash.New(), func(digest []byte) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return i.sign(digest)
	})
	if err != nil {
		return fmt.Errorf("signing a CRL by CA %q: %w", i.ca.ID, err)
	}
	return nil
}

// SignOCSP signs a response with the CA's own key. The response's Responder is
// filled in.
func (i *Issuer) SignOCSP(ctx context.Context, d ocsp.ResponseData) ([]byte, error) {
	der, err := i.signOCSP(ctx, d, i.keyHash, nil)
	if err != nil {
		return nil, fmt.Errorf("signing an OCSP response by CA %q: %w", i.ca.ID, err)
	}
	return der, nil
}

func (s *signer) signOCSP(ctx context.Context, d ocsp.ResponseData, responder []byte, attached [][]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.Responder = responder
	tbs, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	signature, err := s.sign(s.algorithm.digest(tbs))
	if err != nil {
		return nil, err
	}
	return ocsp.Assemble(tbs, s.algorithm.id, signature, attached...), nil
}

// A Responder signs OCSP responses with a key that the CA certified for it by
// profile "ocsp". It is safe for concurrent use as far as its key is.
type Responder struct {
	signer
	certificate []byte
	keyHash     []byte // by which the responder names itself
	notAfter    time.Time
}

// ResponderConfig is what a Responder needs.
type ResponderConfig struct {
	Issuer      []byte // DER of the CA's certificate
	Certificate []byte // DER of the responder's own
	Key         crypto.Signer
}

// NewResponder checks that the certificate is for this purpose, of that key, and
// signed by that CA itself (RFC 6960, Section 4.2.2.2).
func NewResponder(cfg ResponderConfig) (*Responder, error) {
	wrap := func(err error) error { return fmt.Errorf("setting up an OCSP responder: %w", err) }
	issuer, err := x509.ParseCertificate(cfg.Issuer)
	if err != nil {
		return nil, wrap(err)
	}
	certificate, err := x509.ParseCertificate(cfg.Certificate)
	if err != nil {
		return nil, wrap(err)
	}
	if err := certificate.CheckSignatureFrom(issuer); err != nil {
		return nil, wrap(fmt.Errorf("the certificate is not signed by the CA: %w", err))
	}
	noCheck := slices.ContainsFunc(certificate.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid.OCSPNoCheck) })
	if !slices.Contains(certificate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || !noCheck {
		return nil, wrap(errors.New("the certificate is not for signing OCSP responses: use profile ocsp"))
	}
	s, err := newSigner(cfg.Key, certificate.PublicKey)
	if err != nil {
		return nil, wrap(err)
	}
	keyHash, err := ocsp.KeyHash(cfg.Certificate)
	if err != nil {
		return nil, wrap(err)
	}
	return &Responder{signer: *s, certificate: cfg.Certificate, keyHash: keyHash, notAfter: certificate.NotAfter}, nil
}

// Certificate is the DER of the responder's certificate.
func (r *Responder) Certificate() []byte { return r.certificate }

// NotAfter is when the responder's certificate ends.
func (r *Responder) NotAfter() time.Time { return r.notAfter }

// SignOCSP signs a response; the responder's certificate travels with it. It
// refuses a response that would be produced after that certificate's end.
func (r *Responder) SignOCSP(ctx context.Context, d ocsp.ResponseData) ([]byte, error) {
	if d.ProducedAt.After(r.notAfter) {
		return nil, fmt.Errorf("signing an OCSP response: the responder's certificate ended %s: renew it", r.notAfter.Format(time.RFC3339))
	}
	der, err := r.signOCSP(ctx, d, r.keyHash, [][]byte{r.certificate})
	if err != nil {
		return nil, fmt.Errorf("signing an OCSP response: %w", err)
	}
	return der, nil
}
