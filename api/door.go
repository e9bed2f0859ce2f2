package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// Bounds of one connection.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = time.Minute
	writeTimeout  = 2 * time.Minute // longer than maxWait; a backup moves its own deadline
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

// Door returns an http.Server for the API; certificate gives the node's own
// certificate and is asked at every handshake. The caller runs
// ServeTLS(listener, "", "") on it.
func (s *Server) Door(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *http.Server {
	h := Bounded(s.Handler(), s.cfg.Log)
	h.TLSConfig = s.TLSConfig(certificate)
	h.ConnState = s.connState
	// One request after the other on a connection: HTTP/2 would let one peer
	// open hundreds at once and costs more than it gives between servers.
	h.Protocols = new(http.Protocols)
	h.Protocols.SetHTTP1(true)
	return h
}

// Bounded returns an http.Server that does not wait for ever for anybody.
func Bounded(h http.Handler, l *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          connectionLog(l),
	}
}

// connectionLog takes what net/http says of broken connections. It is a peer's
// doing, so it is not an error here.
func connectionLog(l *slog.Logger) *log.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return slog.NewLogLogger(l.Handler(), slog.LevelDebug)
}

// TLSConfig is the door's TLS: TLS 1.3, a client certificate required, nothing
// resumed, so that every connection presents its certificate anew. Go has no
// early data on the server's side. A certificate is held against the anchors by
// Go's verifier, and by verify with the rules for names, policies and purposes;
// its status is looked up at every request, where a refusal can be told in
// words.
func (s *Server) TLSConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         certificate,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Time:                   s.cfg.Now,
		VerifyConnection:       s.verifyConnection,
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if s.broken.blocked(hello.Conn.RemoteAddr().String()) {
			s.metrics.refused.WithLabelValues("handshake-rate").Inc()
			return nil, errors.New("too many failed handshakes from this address")
		}
		pool, err := s.anchors.pool(hello.Context(), s)
		if err != nil {
			return nil, err
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		c.ClientCAs = pool
		return c, nil
	}
	return base
}

// verifyConnection is run for every handshake, resumed or not (there are none).
func (s *Server) verifyConnection(cs tls.ConnectionState) error {
	if len(cs.VerifiedChains) == 0 {
		return errors.New("no client certificate that leads to an anchor")
	}
	// Go has found a chain with what the peer sent or with our own CAs.
	var above [][]byte
	for _, chain := range cs.VerifiedChains {
		for _, c := range chain[1:] {
			above = append(above, c.Raw)
		}
	}
	_, err := s.cfg.Verifier.Chain(cs.PeerCertificates[0].Raw, above, verify.Staff, verify.Client)
	return err
}

// connState gives a strike for a connection that ends before its handshake is
// done: no certificate, a certificate that does not fit, or no TLS at all.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	if t, ok := c.(*tls.Conn); ok && !t.ConnectionState().HandshakeComplete {
		s.metrics.refused.WithLabelValues("handshake").Inc()
		s.broken.strike(c.RemoteAddr().String())
	}
}

// anchorPool holds the anchors and the CAs that callers' certificates come from,
// so that a client learns from the list of authorities which of its certificates
// to present, and need not send its chain.
type anchorPool struct {
	mu   sync.Mutex
	read time.Time
	made *x509.CertPool
}

// poolHold is how long a CA that is new in the book may go unnoticed at the door.
const poolHold = time.Second

func (p *anchorPool) pool(ctx context.Context, s *Server) (*x509.CertPool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := s.cfg.Now()
	if p.made != nil && now.Sub(p.read) < poolHold {
		return p.made, nil
	}
	ders := slices.Clone(s.cfg.Verifier.Anchors)
	err := s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		for c, err := range store.CAs.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if c.Kind == policy.KindStaff || c.Kind == policy.KindServices {
				ders = append(ders, c.Certificate)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the CAs: %w", err)
	}
	pool := x509.NewCertPool()
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading a CA certificate: %w", err)
		}
		pool.AddCert(c)
	}
	p.made, p.read = pool, now
	return pool, nil
}
