package stepca

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/certificates/acme"
)

// Whoever reaches the door may open an account, so what an address can have
// written into the book, or fetched from elsewhere, is bounded. An allowance
// comes back at its pace, one address after a burst like any other.
var allowances = []struct {
	path  string // ends or, for a challenge, holds
	burst float64
	every time.Duration // until one comes back
}{
	{"/new-account", 20, 10 * time.Second},
	{"/new-order", 60, time.Second},
	{"/challenge/", 120, 500 * time.Millisecond},
}

const (
	maxIdentifiers = 16     // of an order: as many names as the profile certifies
	maxAddresses   = 10_000 // whose allowances are remembered
)

// allowance is what an address has left for one sort of request.
type allowance struct {
	left float64
	at   time.Time
}

// door bounds what strangers may ask for, before anything is read from the book.
type door struct {
	now   func() time.Time
	fresh func() acme.Nonce

	mu   sync.Mutex
	used map[string]allowance // guarded by mu; by address and path
}

// allows takes one from an address's allowance for a path. When too many
// addresses are remembered, all are forgotten: that bounds the memory, and
// whoever has so many addresses gains little by it.
func (d *door) allows(remote, path string) (wait time.Duration) {
	for _, a := range allowances {
		if !strings.HasSuffix(path, a.path) && !(strings.HasSuffix(a.path, "/") && strings.Contains(path, a.path)) {
			continue
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		key, now := host(remote)+a.path, d.now()
		left := a.burst
		if u, ok := d.used[key]; ok {
			left = min(a.burst, u.left+float64(now.Sub(u.at))/float64(a.every))
		}
		if left < 1 {
			return a.every
		}
		if len(d.used) >= maxAddresses {
			clear(d.used)
		}
		d.used[key] = allowance{left - 1, now}
	}
	return 0
}

// host is an address without its port; all of an IPv6 /64 is one host.
func host(remote string) string {
	h, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	if ip := net.ParseIP(h); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return h
}

// guard answers for what is too much and passes the rest on.
func (d *door) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if wait := d.allows(r.RemoteAddr, r.URL.Path); wait > 0 {
			w.Header().Set("Retry-After", "10")
			d.refuse(w, http.StatusTooManyRequests, "rateLimited", "too many requests of this kind from this address: wait, then ask again")
			return
		}
		if strings.HasSuffix(r.URL.Path, "/new-order") {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				d.refuse(w, http.StatusRequestEntityTooLarge, "malformed", "the request is too large")
				return
			}
			if identifiers(body) > maxIdentifiers {
				d.refuse(w, http.StatusBadRequest, "rejectedIdentifier", "an order has at most 16 names: split it")
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

// identifiers counts the names of a new order. What cannot be read is left to
// the handlers, which refuse it.
func identifiers(body []byte) int {
	var jws struct{ Payload string }
	var order struct{ Identifiers []json.RawMessage }
	if json.Unmarshal(body, &jws) != nil {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil || json.Unmarshal(payload, &order) != nil {
		return 0
	}
	return len(order.Identifiers)
}

// refuse answers with a problem (RFC 8555, Section 6.7) and a nonce for the next
// request.
func (d *door) refuse(w http.ResponseWriter, status int, kind, detail string) {
	body, err := json.Marshal(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
	if err != nil {
		panic("stepca: a problem cannot be written as JSON: " + err.Error()) // plain values only
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Replay-Nonce", string(d.fresh()))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the peer is gone
}
