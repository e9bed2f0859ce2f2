package api

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"hufu/api/client"
	"hufu/policy"
	"hufu/store"
)

// call is one request on its way.
type call struct {
	*http.Request
	route  *route
	w      http.ResponseWriter // for the deadlines of a stream; the answer goes another way
	id     string              // names the request in the log
	caller policy.Caller
	key    string     // idempotency key
	raw    []byte     // body
	in     any        // body decoded: a pointer to the type of route.Body
	city   string     // what the gate was asked about
	sum    store.Hash // what was asked, once requestHash has been called
}

// in returns the decoded body.
func in[T any](c *call) *T { return c.in.(*T) }

// answer is what goes back.
type answer struct {
	status   int
	location string
	media    string
	body     []byte
	stream   func(w io.Writer) error // instead of body
}

// reply makes an answer of a wire type.
func reply(status int, v any) (*answer, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &answer{status: status, media: client.MediaJSON, body: body}, nil
}

// handler is the way of every request to one route.
func (s *Server) handler(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		c := &call{Request: r, route: rt, w: w, id: rand.Text()[:12]}
		a, err := s.serve(c)
		status, broken := s.write(c, a, err)
		s.metrics.observe(rt, status, time.Since(began))
		if rt.Write {
			s.cfg.Log.Info("write", "request", c.id, "route", rt.ID, "status", status, "caller", c.caller.Name, "city", c.city, "took", time.Since(began))
		}
		if status == http.StatusInternalServerError {
			s.cfg.Log.Error("request failed", "request", c.id, "route", rt.ID, "caller", c.caller.Name, "error", err)
		}
		if broken != nil {
			s.cfg.Log.Error("answer broke off", "request", c.id, "route", rt.ID, "caller", c.caller.Name, "error", broken)
			panic(http.ErrAbortHandler) // the peer sees a broken connection, not a short answer
		}
	})
}

// serve brings a call through the checks, in the order that lets each peer cost
// as little as can be: nobody's body is read before it is known that the caller
// may send one.
func (s *Server) serve(c *call) (a *answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			a, err = nil, fmt.Errorf("a handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if err := s.identify(c); err != nil {
		return nil, err
	}
	if err := s.mayAtAll(c); err != nil {
		return nil, err
	}
	if err := c.checkHead(); err != nil {
		return nil, err
	}
	if err := c.readBody(); err != nil {
		return nil, err
	}
	// The time for reading a request is over with its body. Left standing, its
	// end would cancel a long poll or a backup that is still under way.
	if err := http.NewResponseController(c.w).SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("lifting the read deadline: %w", err)
	}
	if c.route.City.find != nil {
		if c.city, err = c.route.City.find(s, c); err != nil {
			return nil, err
		}
	}
	if c.route.Operation != "" && !c.route.City.later {
		if err := s.cfg.Office.Gate(c.Context(), c.caller, c.route.Operation, c.city); err != nil {
			return nil, err
		}
	}
	return c.route.Handle(s, c)
}

// identify finds who asks. The status of the caller's certificate is looked up
// each time, so that a revocation holds from the next request on.
func (s *Server) identify(c *call) error {
	if c.TLS == nil || len(c.TLS.PeerCertificates) == 0 {
		return problemf(kindNoCertificate, "this door wants mutual TLS, and the request came without a client certificate")
	}
	if c.route.Access == anyPeer {
		return nil
	}
	var err error
	c.caller, err = s.cfg.Office.Caller(c.Context(), c.TLS.PeerCertificates[0].Raw)
	if err == nil || s.problem(err).Status == http.StatusInternalServerError {
		return err
	}
	s.metrics.refused.WithLabelValues("caller").Inc()
	if s.strange.blocked(c.RemoteAddr) {
		return problemf(kindRate, "too many refused requests from this address")
	}
	s.strange.strike(c.RemoteAddr)
	return err
}

// mayAtAll refuses a caller who could do the operation nowhere, before anything
// of the request is read or looked up.
func (s *Server) mayAtAll(c *call) error {
	if c.route.Operation == "" {
		return nil
	}
	denied := policy.Allowed(c.caller, c.route.Operation, c.caller.City)
	if denied == nil {
		return nil
	}
	// The gate journals the refusal.
	if err := s.cfg.Office.Gate(c.Context(), c.caller, c.route.Operation, c.caller.City); err != nil {
		return err
	}
	return denied
}

// checkHead looks at what stands in the request's line and headers.
func (c *call) checkHead() error {
	if err := c.checkQuery(); err != nil {
		return err
	}
	if !c.route.Write {
		return nil
	}
	c.key = c.Header.Get(client.HeaderIdempotencyKey)
	if c.key == "" {
		return problemf(kindNoKey, "a write needs the header %s", client.HeaderIdempotencyKey)
	}
	if len(c.key) > maxKey || !printable(c.key) {
		return problemf(kindNoKey, "the %s is not 1 to %d printable ASCII characters", client.HeaderIdempotencyKey, maxKey)
	}
	return nil
}

const maxKey = 128

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// write sends the answer, or the problem. It returns the status that was sent,
// and what broke a stream off.
func (s *Server) write(c *call, a *answer, err error) (status int, broken error) {
	if err != nil {
		a = s.problemAnswer(c, err)
	}
	h := c.w.Header()
	h.Set(client.HeaderRequestID, c.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.media != "" {
		h.Set("Content-Type", a.media)
	}
	if a.stream == nil {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	c.w.WriteHeader(a.status)
	switch {
	case c.Method == http.MethodHead:
	case a.stream != nil:
		broken = a.stream(c.w)
	default:
		c.w.Write(a.body) // a peer that has gone away is not told
	}
	return a.status, broken
}

// refuse is for what a right of the table allows and a route still does not: it
// is journalled, with a rule's name, like a refusal at the gate.
func (s *Server) refuse(c *call, rule, why string) error {
	err := s.cfg.Office.Refuse(c.Context(), c.caller, c.route.Operation, c.city, rule)
	if errors.As(err, new(*policy.Denied)) {
		return problemf(kindForbidden, "%s", why)
	}
	return err
}
