// Package responder serves the status of certificates over plain HTTP: OCSP
// answers, revocation lists and issuer certificates.
//
// An OCSP answer is signed by a responder that the CA delegated, when it is asked
// for the first time, and kept while it is asked for. Whether a kept answer still
// holds is found out for every request, from the book or from nothing having been
// committed since it was: from the moment that a change of status was committed, no
// answer of before it is given out. Following the journal only throws away early
// what would not be used any more, and signs anew what takes its place.
//
// A kept answer takes about 0.5 KB of memory (TestMemory prints it); a certificate
// whose status nobody asks for takes none. Nothing is read at the start, so the first
// question is answered as soon as the book is open, however large it is.
//
// The package refuses to say good of a serial number that the book does not know
// (it says unknown), to answer for a CA whose key the book does not hold
// (unauthorized), and to give anything but tryLater when it cannot sign.
//
// It follows RFC 6960 and RFC 9919 (OCSP), RFC 9654 (nonces), RFC 5280 (what is
// served as CRL and as issuer) and RFC 9111 (caching).
package responder

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"hufu/store"
)

// Config is what a Responder needs. Book and Renew are required.
type Config struct {
	Book *store.Book

	// Renew has the CA certify a key for signing its OCSP answers (profile
	// "ocsp"). It is called when there is no certificate yet, when the present
	// one has gone through two thirds of its life, and when its key failed.
	Renew func(ctx context.Context, caID string) (certificate []byte, key crypto.Signer, err error)

	// Changed is Changed of the engine below the book: its channel is closed before
	// the Update returns of a commit that a View begun before the call did not see.
	// With it, an answer that was held against the book needs no other look until
	// something is committed. nil = a look for every request.
	Changed func() <-chan struct{}

	BasePath string        // path in the BaseURL of the certificates, such as "/pki"; mostly ""
	MaxAge   time.Duration // how long a cache on the way may keep anything whose truth may change; 0 = 5 s
	Validity time.Duration // from thisUpdate to nextUpdate of an OCSP answer; 0 = 1 h
	Answers  int           // OCSP answers kept in memory, about 0.5 KB each; 0 = 65,536
	Patience time.Duration // how long a question waits for the token before it is told to try later; 0 = 3 s
	Now      func() time.Time
	Log      *slog.Logger
}

const (
	defaultMaxAge   = 5 * time.Second
	defaultValidity = time.Hour
	defaultAnswers  = 1 << 16
	defaultPatience = 3 * time.Second
)

// Responder answers. It is safe for concurrent use.
type Responder struct {
	cfg     Config
	answers *answers
	flights singleflight.Group // one signature where many ask for the same
	desk    desk

	replaced chan key // answers that were dropped and are to be signed anew

	mu          sync.RWMutex
	authorities map[string]*authority // by CA.ID; those asked for so far. Guarded by mu

	last atomic.Pointer[look] // nil before the first request
	slow atomic.Int64         // the minute in which a slow token was last logged

	control []string               // value of Cache-Control for what may change
	expires atomic.Pointer[expiry] // value of Expires in this second
}

// New makes a Responder. It reads nothing yet.
func New(cfg Config) *Responder {
	if cfg.MaxAge == 0 {
		cfg.MaxAge = defaultMaxAge
	}
	if cfg.Validity == 0 {
		cfg.Validity = defaultValidity
	}
	if cfg.Answers == 0 {
		cfg.Answers = defaultAnswers
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Changed == nil {
		always := make(chan struct{})
		close(always)
		cfg.Changed = func() <-chan struct{} { return always }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.BasePath = strings.TrimSuffix(cfg.BasePath, "/")
	r := &Responder{
		cfg:         cfg,
		replaced:    make(chan key, 1024),
		answers:     newAnswers(cfg.Answers),
		authorities: make(map[string]*authority),
		control:     []string{"max-age=" + strconv.Itoa(int(cfg.MaxAge/time.Second)) + ", public, no-transform, must-revalidate"},
	}
	r.desk = desk{waiting: make(chan *signed, waitingAtOnce), failed: r.failed}
	return r
}

// Handler serves BasePath + "/ocsp/CA", "/crl/CA.crl", "/crl/CA/SHARD.crl", the
// deltas to these, "/crl/CA.delta.crl" and "/crl/CA/SHARD.delta.crl", and
// "/issuer/CA.cer", where CA is the ID of a CA in the book. It must be the handler of an http.Server itself, or
// be chosen by a test of the path's beginning: an http.ServeMux above it would
// redirect OCSP requests whose base64 has two slashes in a row.
func (r *Responder) Handler() http.Handler { return http.HandlerFunc(r.serve) }

func (r *Responder) serve(w http.ResponseWriter, req *http.Request) {
	path, ok := strings.CutPrefix(req.URL.Path, r.cfg.BasePath)
	if !ok {
		http.NotFound(w, req)
		return
	}
	if rest, ok := strings.CutPrefix(path, "/ocsp/"); ok {
		r.serveOCSP(w, req, rest)
		return
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
		return
	}
	if file, ok := strings.CutPrefix(path, "/crl/"); ok {
		if path, ok := strings.CutSuffix(file, ".crl"); ok {
			if id, name, ok := parseList(path); ok {
				r.serveCRL(w, req, id, name)
				return
			}
		}
	}
	if file, ok := strings.CutPrefix(path, "/issuer/"); ok {
		if id, ok := strings.CutSuffix(file, ".cer"); ok {
			r.serveIssuer(w, req, id)
			return
		}
	}
	http.NotFound(w, req)
}

// Run follows the journal and keeps what is asked for fresh, until ctx ends.
func (r *Responder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.follow(ctx) })
	g.Go(func() error { return r.renew(ctx) })
	return g.Wait()
}

// follow drops the answers whose status changed and the CAs that changed.
func (r *Responder) follow(ctx context.Context) error {
	tree, err := r.cfg.Book.Tree(ctx)
	if err != nil {
		return endOr(ctx, fmt.Errorf("following the journal: %w", err))
	}
	after := uint64(tree.Size)
	for {
		events, err := r.cfg.Book.Follow(ctx, after, 0)
		if err != nil {
			return endOr(ctx, fmt.Errorf("following the journal after event %d: %w", after, err))
		}
		for i := range events {
			e := &events[i]
			switch e.Kind {
			case store.KindCAAdded, store.KindCARetired:
				r.forget(e.CA)
			case store.KindHeld, store.KindResumed, store.KindRevoked:
				r.replace(r.answers.drop(e.CA, e.Serial))
			}
			after = e.Seq
		}
	}
}

// endOr is nil when ctx has ended: then an error is only the way to hear of it.
func endOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// expiry is the value of the Expires header during one second.
type expiry struct {
	second int64
	value  []string
}

// expiresAt says when a cache that only knows HTTP/1.0 forgets what it is given now:
// no later than others do. The answer's own nextUpdate would break the promise.
func (r *Responder) expiresAt(now time.Time) []string {
	second := now.Unix()
	e := r.expires.Load()
	if e == nil || e.second != second {
		e = &expiry{second, []string{now.Add(r.cfg.MaxAge).UTC().Format(http.TimeFormat)}}
		r.expires.Store(e)
	}
	return e.value
}
