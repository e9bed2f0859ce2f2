// Package api is Hufu's REST door: mutual TLS, one table of routes, and the
// manners that hold for all of them.
//
// A request goes one way (serve.go): who asks, the right to ask at all, the
// idempotency key, the size and the type of the body, the body itself, the city
// that it concerns, the gate, the work, the answer. The table of routes is read
// by the mux, by the OpenAPI document and by the test that walks every door, so
// that these cannot disagree. A refusal is a problem with a stable type and a
// remedy; what went wrong inside is for the log only.
//
// The package refuses: a caller without a certificate of this hierarchy or
// unknown to the book; a body larger than its route takes, of another type, or
// with a field that nobody knows; a query parameter that nobody knows; a write
// without an idempotency key; TLS below 1.3, session tickets and early data. It
// decides nothing about certificates: that is for the floors below.
//
// RFC 9110 (HTTP), RFC 9457 (problems), RFC 8446 (TLS 1.3), OpenAPI 3.1.
package api

import (
	"context"
	"crypto"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"hufu/ca"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/officers"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/topup"
	"hufu/verify"
)

// Config is what a Server stands on. All but Escrow, Publisher, Checkpoint, Probes and
// Version must be set.
type Config struct {
	Book      *store.Book
	Authority *ca.Authority
	Office    *officers.Office
	Jobs      *jobs.Jobs // with Work among its functions
	Readers   *readers.Register
	Stage1    *stage1.Stage // whose Work is among the jobs' functions
	TopUp     *topup.Service
	Escrow    *escrow.Escrow      // nil: this node has no key management centre
	Stage2    *stage2.Service     // nil: this node initialises no readers
	Publisher *ldapsync.Publisher // nil: this node has no directories
	Verifier  *verify.Verifier    // judges the certificates of callers

	// MassAlone is how many readers one person may change at once, without
	// approvals; zero means 100, less than zero none.
	MassAlone int

	// Checkpoint signs checkpoints of the journal. Without it, none are given.
	Checkpoint crypto.Signer

	// Probes are what /readyz asks beside the book, such as whether the token
	// signs.
	Probes []Probe

	Node    string // as in the book
	Version string
	Now     func() time.Time
	Log     *slog.Logger
}

// Probe is one thing that must be well before a node is ready.
type Probe struct {
	Name  string
	Check func(ctx context.Context) error
}

// Server answers the API's requests. It starts nothing by itself.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	metrics  *metrics
	broken   *limiter           // by address: handshakes that failed
	strange  *limiter           // by address: requests of strangers
	writes   singleflight.Group // one run for one idempotency key at a time
	forget   atomic.Int64       // Unix nanoseconds before which no kept answer is too old
	anchors  anchorPool
	note     lastCheckpoint
	document []byte // OpenAPI

	healthMu sync.Mutex // guards health, and keeps the probes from running twice at once
	health   health
}

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MassAlone == 0 {
		cfg.MassAlone = massAlone
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	s.metrics = newMetrics(s)
	s.broken = newLimiter(strikeRate, strikeBurst, cfg.Now)
	s.strange = newLimiter(strikeRate, strikeBurst, cfg.Now)
	for i := range routes {
		s.mux.Handle(routes[i].Method+" "+routes[i].Path, s.handler(&routes[i]))
	}
	s.mux.Handle("/", s.handler(&noRoute))
	s.document = openAPI(cfg.Version)
	return s
}

// Handler answers on the door, behind TLSConfig.
func (s *Server) Handler() http.Handler { return s.mux }

// OpsHandler answers /metrics, /healthz and /readyz to whoever asks: it is for a
// listener on a loopback address.
func (s *Server) OpsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.handler())
	mux.Handle("GET /healthz", plainHealth(s.live))
	mux.Handle("GET /readyz", plainHealth(s.ready))
	return mux
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&answers}
