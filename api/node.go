package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"hufu/api/client"
	"hufu/store"
)

// backupStall is how long a reader of a backup may take for one piece of it.
const backupStall = time.Minute

// backup streams. A peer that breaks off, or is too slow, ends it.
func (s *Server) backup(c *call) (*answer, error) {
	s.cfg.Log.Info("backup", "request", c.id, "caller", c.caller.Name)
	return &answer{status: http.StatusOK, media: client.MediaBackup, stream: func(w io.Writer) error {
		return s.cfg.Book.Backup(c.Context(), &patient{w: w, deadline: http.NewResponseController(c.w)}, nil)
	}}, nil
}

// patient gives each piece of a stream its own time.
type patient struct {
	w        io.Writer
	deadline *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.deadline.SetWriteDeadline(time.Now().Add(backupStall)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

func (s *Server) openAPI(*call) (*answer, error) {
	return &answer{status: http.StatusOK, media: client.MediaJSON, body: s.document}, nil
}

func (s *Server) problemPage(c *call) (*answer, error) {
	for _, k := range kinds {
		if k.Name == c.PathValue("name") {
			text := fmt.Sprintf("%s\n\nHTTP status %d. %s\n", k.Title, k.Status, k.Remedy)
			return &answer{status: http.StatusOK, media: client.MediaNote, body: []byte(text)}, nil
		}
	}
	return nil, problemf(kindNotFound, "there is no sort of problem named %q", c.PathValue("name"))
}

// health is what was found, kept a moment so that asking often costs nothing.
type health struct {
	at    time.Time
	found client.Health
}

// Probes get probeTime together, and what they found holds for probeHold.
const (
	probeTime = 5 * time.Second
	probeHold = 2 * time.Second
)

// live tells that the process answers.
func (s *Server) live(context.Context) client.Health {
	return client.Health{OK: true, Checks: []client.Check{{Name: "process", OK: true}}}
}

// ready tells whether the node can do its work: the book answers, the node's
// lease on its intents is fresh, which also shows that the book takes writes,
// and the probes pass.
func (s *Server) ready(ctx context.Context) client.Health {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	if now := s.cfg.Now(); now.Sub(s.health.at) < probeHold && !s.health.at.IsZero() {
		return s.health.found
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime)
	defer cancel()
	h := client.Health{OK: true}
	for _, p := range append([]Probe{{"book", s.bookAnswers}, {"lease", s.leaseFresh}}, s.cfg.Probes...) {
		check := client.Check{Name: p.Name, OK: true}
		if err := p.Check(ctx); err != nil {
			check.OK, check.Detail, h.OK = false, err.Error(), false
		}
		h.Checks = append(h.Checks, check)
	}
	s.health = health{at: s.cfg.Now(), found: h}
	return h
}

func (s *Server) bookAnswers(ctx context.Context) error {
	return s.cfg.Book.View(ctx, func(*store.Tx) error { return nil })
}

func (s *Server) leaseFresh(ctx context.Context) error {
	return s.cfg.Book.View(ctx, func(tx *store.Tx) error {
		n, err := store.Nodes.Get(tx, store.Key(s.cfg.Node))
		switch {
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("node %q has no lease yet", s.cfg.Node)
		case err != nil:
			return err
		case n.Lease.Before(s.cfg.Now()):
			return fmt.Errorf("the lease of node %q ended at %s: the book takes no writes, or the spine does not run", s.cfg.Node, n.Lease.UTC().Format(time.RFC3339))
		}
		return nil
	})
}

func (s *Server) healthy(c *call) (*answer, error) { return reply(http.StatusOK, s.live(c.Context())) }

func (s *Server) readyNow(c *call) (*answer, error) {
	h := s.ready(c.Context())
	if !h.OK {
		var wrong []string
		for _, check := range h.Checks {
			if !check.OK {
				wrong = append(wrong, check.Name+": "+check.Detail)
			}
		}
		return nil, problemf(kindUnavailable, "%s", strings.Join(wrong, "; "))
	}
	return reply(http.StatusOK, h)
}

func healthStatus(h client.Health) int {
	if h.OK {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// plainHealth answers on the plain listener.
func plainHealth(look func(context.Context) client.Health) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := look(r.Context())
		w.Header().Set("Content-Type", client.MediaJSON)
		w.WriteHeader(healthStatus(h))
		_ = json.NewEncoder(w).Encode(h) // an error means that the client is gone
	}
}
