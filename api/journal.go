package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"hufu/api/client"
	"hufu/store"
)

func wireEvent(e *store.Event) client.Event {
	w := client.Event{Seq: e.Seq, Time: e.Time, Kind: e.Kind, CA: e.CA, Actor: e.Actor, Detail: e.Detail}
	if !e.Serial.IsZero() {
		w.Serial = e.Serial.String()
	}
	return w
}

func (s *Server) journal(c *call) (*answer, error) {
	after, err := c.number("after", 0)
	if err != nil {
		return nil, err
	}
	limit, err := c.limit()
	if err != nil {
		return nil, err
	}
	wait, err := c.wait()
	if err != nil {
		return nil, err
	}
	events, err := s.cfg.Book.Events(c.Context(), after, limit)
	if err == nil && len(events) == 0 && wait > 0 {
		ctx, cancel := context.WithTimeout(c.Context(), wait)
		defer cancel()
		events, err = s.cfg.Book.Follow(ctx, after, limit)
		if errors.Is(err, context.DeadlineExceeded) && c.Context().Err() == nil {
			err = nil // nothing came, which is an answer
		}
	}
	if err != nil {
		return nil, err
	}
	page := client.Page[client.Event]{Items: []client.Event{}}
	for i := range events {
		page.Items = append(page.Items, wireEvent(&events[i]))
	}
	if len(events) == limit {
		page.Next = strconv.FormatUint(events[limit-1].Seq, 10)
	}
	return reply(http.StatusOK, page)
}

// lastCheckpoint is the newest checkpoint that this node signed.
type lastCheckpoint struct {
	mu   sync.Mutex
	note []byte
	size int64 // of the journal once the checkpoint itself was recorded
}

// checkpoint signs anew only when something has happened, so that asking does
// not fill the journal.
func (s *Server) checkpoint(c *call) (*answer, error) {
	if s.cfg.Checkpoint == nil {
		return nil, remedied(kindNotFound, "Ask a node whose token holds the checkpoint key.", "this node has no key to sign checkpoints with")
	}
	s.note.mu.Lock()
	defer s.note.mu.Unlock()
	tree, err := s.cfg.Book.Tree(c.Context())
	if err != nil {
		return nil, err
	}
	if s.note.note == nil || tree.Size > s.note.size {
		note, err := s.cfg.Book.Checkpoint(c.Context(), s.cfg.Checkpoint)
		if err != nil {
			return nil, err
		}
		// The event of the checkpoint comes after the tree that it signs. What
		// others append at the same time only makes the next one come sooner.
		s.note.note, s.note.size = note, tree.Size+1
	}
	return &answer{status: http.StatusOK, media: client.MediaNote, body: s.note.note}, nil
}

func (s *Server) proof(c *call) (*answer, error) {
	tree, err := s.cfg.Book.Tree(c.Context())
	if err != nil {
		return nil, err
	}
	size, err := c.number("size", uint64(tree.Size))
	if err != nil {
		return nil, err
	}
	seq, err := c.number("seq", 0)
	if err != nil {
		return nil, err
	}
	from, err := c.number("from", 0)
	if err != nil {
		return nil, err
	}
	if (seq == 0) == (from == 0) {
		return nil, problemf(kindMalformed, "name either seq, for a proof of inclusion, or from, for one of consistency")
	}
	if size > uint64(tree.Size) || max(seq, from) > size {
		return nil, problemf(kindNotFound, "the journal has %d events; a proof of %d in %d cannot be made", tree.Size, max(seq, from), size)
	}
	var p store.Proof
	if seq > 0 {
		p, err = s.cfg.Book.ProveInclusion(c.Context(), seq, int64(size))
	} else {
		p, err = s.cfg.Book.ProveConsistency(c.Context(), int64(from), int64(size))
	}
	if err != nil {
		return nil, err
	}
	w := client.Proof{From: p.From, Size: p.Size, Hashes: []string{}}
	for _, h := range p.Hashes {
		w.Hashes = append(w.Hashes, h.String())
	}
	return reply(http.StatusOK, w)
}
