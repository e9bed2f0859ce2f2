package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"hufu/ca"
	"hufu/store"
)

// keepAnswers is how long a write's answer can be asked for again.
const keepAnswers = 24 * time.Hour

// kept is the answer of a write, under its idempotency key, in the book: a
// caller who lost it gets the same one again, from any node, and the write is
// not done twice. A key belongs to one caller and one route.
type kept struct {
	Caller   store.Hash
	Route    string
	Key      string
	Request  store.Hash
	Status   int
	Location string
	Media    string
	Body     []byte
	Time     time.Time
}

var answers = store.Table[kept]{
	Name:  "api.answer",
	Key:   func(k *kept) []byte { return store.Key(k.Caller, k.Route, k.Key) },
	Codec: store.JSON[kept](),
	Indexes: []store.Index[kept]{
		{Name: "time", Keys: func(k *kept) [][]byte { return [][]byte{store.Key(k.Time)} }},
	},
}

// change does a write in one transaction together with keeping its answer.
// f may run more than once.
func (s *Server) change(c *call, f func(tx *store.Tx) (*answer, error)) (*answer, error) {
	a, err := s.keptAnswer(c)
	if a != nil || err != nil {
		return a, err
	}
	err = s.cfg.Book.Update(c.Context(), func(tx *store.Tx) error {
		// Another request with the same key may have come first.
		if a, err = lookUp(tx, c); a != nil || err != nil {
			return err
		}
		if a, err = f(tx); err != nil {
			return err
		}
		return s.keep(tx, c, a)
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// once does a write whose work commits by itself, and keeps its answer after it.
// Two requests with one key at the same time do it once; a node that dies
// between the work and the keeping leaves the key unused, so only work that may
// be done twice without harm goes this way.
func (s *Server) once(c *call, f func(ctx context.Context) (*answer, error)) (*answer, error) {
	request := c.requestHash()
	v, err, _ := s.writes.Do(string(append(c.keptKey(), request[:]...)), func() (any, error) {
		a, err := s.keptAnswer(c)
		if a != nil || err != nil {
			return a, err
		}
		// Whoever waits for the same key must not lose it by the first one's
		// going away.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), writeTimeout)
		defer cancel()
		if a, err = f(ctx); err != nil {
			return nil, err
		}
		return a, s.cfg.Book.Update(ctx, func(tx *store.Tx) error {
			if earlier, err := lookUp(tx, c); earlier != nil || err != nil {
				return err
			}
			return s.keep(tx, c, a)
		})
	})
	if err != nil {
		return nil, err
	}
	return v.(*answer), nil
}

func (s *Server) keptAnswer(c *call) (a *answer, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		a, err = lookUp(tx, c)
		return err
	})
	return a, err
}

// lookUp returns the answer kept under the call's key, nil when there is none.
func lookUp(tx *store.Tx, c *call) (*answer, error) {
	k, err := answers.Get(tx, c.keptKey())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case tx.Now().Sub(k.Time) > keepAnswers:
		return nil, nil
	case k.Request != c.requestHash():
		return nil, &ca.IdempotencyError{Key: c.key}
	}
	return &answer{status: k.Status, location: k.Location, media: k.Media, body: k.Body}, nil
}

// keep records an answer and removes two that are too old, so that the table
// does not grow beyond a day's writes.
func (s *Server) keep(tx *store.Tx, c *call, a *answer) error {
	// Reading the old ones costs more than writing the new one, so it is not done
	// while they are known to be young.
	if tx.Now().UnixNano() > s.forget.Load() {
		old, _, err := answers.Page(tx, store.Query{Index: "time", Limit: 2})
		if err != nil {
			return err
		}
		for _, k := range old {
			if tx.Now().Sub(k.Time) <= keepAnswers {
				s.forget.Store(k.Time.Add(keepAnswers).UnixNano())
				break
			}
			if err := answers.Delete(tx, answers.Key(k)); err != nil {
				return err
			}
		}
	}
	return answers.Put(tx, &kept{
		Caller: c.caller.Fingerprint, Route: c.route.ID, Key: c.key, Request: c.requestHash(),
		Status: a.status, Location: a.location, Media: a.media, Body: a.body, Time: tx.Now(),
	})
}

func (c *call) keptKey() []byte {
	return store.Key(store.Hash(c.caller.Fingerprint), c.route.ID, c.key)
}

// requestHash names what was asked.
func (c *call) requestHash() store.Hash {
	if c.sum.IsZero() {
		h := sha256.New()
		for _, s := range []string{c.Method, c.URL.Path, c.URL.RawQuery} {
			h.Write(store.Key(s))
		}
		h.Write(c.raw)
		c.sum = store.Hash(h.Sum(nil))
	}
	return c.sum
}
