// Package client is the wire of Hufu's API and the client that speaks it.
//
// The types are what api sends and takes as JSON; api, cmd/hufu and programs
// that stand outside Hufu share them. A Client speaks HTTP over mutual TLS to
// one node. A write carries an idempotency key that the client makes itself and
// keeps while it asks again for an answer that got lost, so that a retry never
// does the work twice. A refusal comes back as *Problem (RFC 9457).
//
// The package refuses plain HTTP, a redirect, and an answer that is not what
// the route promises. It imports nothing else of Hufu.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Media types of the API.
const (
	MediaJSON    = "application/json"
	MediaProblem = "application/problem+json" // RFC 9457, Section 3
	MediaCMS     = "application/pkcs7-mime"   // RFC 8551, Section 3.2
	MediaNote    = "text/plain; charset=utf-8"
	MediaLines   = "application/jsonl" // one JSON value to a line
	MediaBackup  = "application/octet-stream"
	MediaMetrics = "text/plain; version=0.0.4; charset=utf-8"
)

// Headers of the API.
const (
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderRequestID      = "Hufu-Request" // names the request in the node's log
)

// maxAnswer bounds what a Client reads of one answer, a backup excepted.
const maxAnswer = 64 << 20

// Config is what a Client needs.
type Config struct {
	// URL of the node, such as "https://ca.card.example:8443".
	URL string

	// TLS carries the caller's certificate and the anchors that the node's
	// certificate must lead to. New raises its lowest version to TLS 1.3.
	TLS *tls.Config

	// Patience is how long a Client goes on asking for an answer that got
	// lost, or that the node asked it to come back for. Zero means 30 s;
	// negative means that it asks once.
	Patience time.Duration
}

// Client asks one node. It may be used by several goroutines at once.
type Client struct {
	base     *url.URL
	http     *http.Client
	patience time.Duration
	key      string // of the next writes; "" makes a new one for each
}

// New returns a Client that has not connected yet.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the node's address: %w", err)
	}
	if base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("the node's address %q is not of the form https://host:port", cfg.URL)
	}
	if cfg.TLS == nil {
		return nil, errors.New("a client needs a TLS configuration with the caller's certificate")
	}
	t := cfg.TLS.Clone()
	t.MinVersion = max(t.MinVersion, tls.VersionTLS13)
	c := &Client{base: base, patience: cfg.Patience}
	if c.patience == 0 {
		c.patience = 30 * time.Second
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:       t,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 90 * time.Second, // longer than any long poll
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   64,
		},
		// A node never redirects. Whoever does is not one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Keyed returns a Client that sends key with its writes, instead of one that it
// makes itself. A program that may be killed keeps the key and asks again with
// it. Use one for one write.
func (c *Client) Keyed(key string) *Client {
	k := *c
	k.key = key
	return &k
}

// Close closes the connections that stand idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one question to the node.
type request struct {
	method, path string
	query        url.Values
	media        string // of body
	accept       string
	body         []byte
}

// call asks with a JSON body (nil for none) and decodes the answer into A.
func call[A any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (*A, error) {
	q := request{method: method, path: path, query: query, accept: MediaJSON}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("writing the request: %w", err)
		}
		q.media, q.body = MediaJSON, b
	}
	resp, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var a A
	if resp.StatusCode == http.StatusNoContent {
		return &a, nil
	}
	if m, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); m != MediaJSON {
		return nil, fmt.Errorf("%s %s: the answer has content type %q, want %s", method, path, m, MediaJSON)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&a); err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return &a, nil
}

// do asks until there is an answer that can be used, or patience ends. The
// caller closes the body of the answer, whose status is 2xx.
func (c *Client) do(ctx context.Context, q request) (*http.Response, error) {
	key := c.key
	if key == "" {
		key = NewKey()
	}
	began := time.Now()
	for attempt := 0; ; attempt++ {
		resp, err := c.once(ctx, q, key)
		if err == nil && resp.StatusCode/100 == 2 {
			return resp, nil
		}
		var pause time.Duration
		if err == nil {
			pause, err = retryAfter(resp), problemOf(resp)
			resp.Body.Close()
		} else if worthAsking(err, attempt) {
			pause = backoff(attempt)
		}
		if pause == 0 || ctx.Err() != nil || time.Since(began)+pause > c.patience {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

func (c *Client) once(ctx context.Context, q request, key string) (*http.Response, error) {
	u := c.base.JoinPath(q.path)
	u.RawQuery = q.query.Encode()
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), bytes.NewReader(q.body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if q.media != "" {
		req.Header.Set("Content-Type", q.media)
	}
	if q.method != http.MethodGet {
		req.Header.Set(HeaderIdempotencyKey, key)
	}
	req.Header.Set("Accept", q.accept)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the node: %w", err)
	}
	return resp, nil
}

// worthAsking tells whether asking again may help: the answer of a request that
// may have arrived got lost. A node that cannot be reached at all, at the first
// try, and a handshake that either side refused are final.
func worthAsking(err error, attempt int) bool {
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &cert), errors.As(err, &alert):
		return false
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert of the node
		return false
	case errors.As(err, &op) && op.Op == "dial":
		return attempt > 0
	}
	return true
}

// backoff is 50 ms, doubled with each attempt, at most 2 s.
func backoff(attempt int) time.Duration {
	return min(50*time.Millisecond<<min(attempt, 10), 2*time.Second)
}

// retryAfter is the pause that the node asks for (RFC 9110, Section 10.2.3);
// zero means that the answer is final.
func retryAfter(resp *http.Response) time.Duration {
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0
	}
	s, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After")))
	if err != nil || s < 1 {
		return time.Second
	}
	return time.Duration(s) * time.Second
}

// NewKey makes an idempotency key: 128 bits of chance. It begins with the time,
// in milliseconds and hexadecimal digits, so that a node's book has the keys of
// one moment side by side.
func NewKey() string { return fmt.Sprintf("%011x-%s", time.Now().UnixMilli(), rand.Text()) }
