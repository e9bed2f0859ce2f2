// Package stepca serves ACME (RFC 8555) with smallstep's handlers in front of
// Hufu's spine.
//
// smallstep speaks the protocol and validates the challenges; every certificate
// is made by ca.Issue with the profile "server", and is in the book, in the
// directories and in OCSP like any other. ACME's own records (accounts, orders,
// authorisations, challenges) are tables of the book; nonces live in memory,
// and a client whose nonce was lost asks for another (RFC 8555, Section 6.5).
//
// The package refuses: everything of a request but its key and the names that
// were validated; smallstep's own database, renewal, re-key and SSH doors, none
// of which is mounted; names outside the domains that were configured; http-01
// answers by way of a proxy. It has no key-change, no renewal information
// (RFC 9773) and no CAA check, since the handlers have none.
//
// smallstep's types stay in this package. It sets one global of theirs, the
// port of http-01, so a process has one ACME server.
package stepca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	acmeapi "github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/policy"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"

	"hufu/ca"
	"hufu/store"
)

// provisionerName is the path element of the directory: /acme/hufu/directory.
const provisionerName = "hufu"

// maxBody bounds a request; the largest is a finalize with an RSA-4096 CSR.
const maxBody = 64 << 10

// Config is what the ACME server stands on.
type Config struct {
	Authority *ca.Authority
	Book      *store.Book
	CA        string   // the line of the services CA that issues
	Name      string   // DNS name by which clients call the server
	Domains   []string // names that may be certified are these or lie below them; empty: any name
	Denied    []string // names that are not certified though they lie below Domains, such as the node's own
	HTTPPort  int      // port on which http-01 answers are fetched; 0 = 80
	Root      []byte   // DER of the root
	Log       *slog.Logger
	Now       func() time.Time
}

// New makes the handler. Its directory is /acme/hufu/directory.
func New(cfg Config) (http.Handler, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	root, err := x509.ParseCertificate(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("parsing the root: %w", err)
	}
	if cfg.HTTPPort != 0 && cfg.HTTPPort != 80 {
		acme.InsecurePortHTTP01 = cfg.HTTPPort
	}
	records := &records{book: cfg.Book, now: cfg.Now, nonces: newNonces(cfg.Now)}
	engine := &engine{cfg: cfg}
	shell, err := newShell(cfg, engine, root)
	if err != nil {
		return nil, err
	}
	base := authority.NewContext(context.Background(), shell)
	base = db.NewContext(base, authDB{engine: engine})
	base = acme.NewContext(base, records, newFetcher(cfg.HTTPPort), acme.NewLinker(cfg.Name, "acme"), nil)
	mux := chi.NewRouter()
	mux.Route("/acme", func(r chi.Router) { acmeapi.Route(r) })
	d := &door{now: cfg.Now, fresh: records.nonces.create, used: map[string]allowance{}}
	return d.guard(withValues(base, mux)), nil
}

// newShell makes the authority that smallstep's handlers insist on; it holds no
// key and decides nothing: engine does. Its claims are wide, since the profile
// in policy is the one that counts.
func newShell(cfg Config, e *engine, root *x509.Certificate) (*authority.Authority, error) {
	claims := config.GlobalProvisionerClaims
	claims.MinTLSDur = &provisioner.Duration{Duration: time.Minute}
	claims.MaxTLSDur = &provisioner.Duration{Duration: 10 * 365 * 24 * time.Hour}
	claims.DefaultTLSDur = &provisioner.Duration{Duration: 24 * time.Hour}
	p := &provisioner.ACME{Type: "ACME", Name: provisionerName, Claims: &claims,
		Challenges: []provisioner.ACMEChallenge{provisioner.HTTP_01, provisioner.TLS_ALPN_01}}
	if len(cfg.Domains) > 0 {
		names := &policy.X509NameOptions{}
		for _, d := range cfg.Domains {
			names.DNSDomains = append(names.DNSDomains, d, "*."+d)
		}
		p.Options = &provisioner.Options{X509: &provisioner.X509Options{AllowedNames: names}}
		if len(cfg.Denied) > 0 {
			p.Options.X509.DeniedNames = &policy.X509NameOptions{DNSDomains: cfg.Denied}
		}
	}
	shell, err := authority.NewEmbedded(
		authority.WithConfig(&config.Config{DNSNames: []string{cfg.Name},
			AuthorityConfig: &config.AuthConfig{Provisioners: provisioner.List{p}, Claims: &claims}}),
		authority.WithDatabase(authDB{engine: e}),
		authority.WithX509CAService(e),
		authority.WithX509RootCerts(root),
		authority.WithQuietInit(),
		authority.WithAuthorizeRenewFunc(func(context.Context, *provisioner.Controller, *x509.Certificate) error {
			return errors.New("renewal goes by a new order")
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("making smallstep's shell: %w", err)
	}
	return shell, nil
}

// withValues gives every request the values that smallstep's handlers look for
// in its context, on top of the request's own cancellation, and bounds its body.
func withValues(base context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(values{r.Context(), base}))
	})
}

// values is a request's context whose missing values come from base.
type values struct {
	context.Context
	base context.Context
}

func (v values) Value(key any) any {
	if x := v.Context.Value(key); x != nil {
		return x
	}
	return v.base.Value(key)
}
