package ldapsync

import (
	"time"

	"hufu/store"
)

// schedule decides which entry is written next. Events come in the order of the journal; what they name is written in any order and each
// entry by one writer at a time, since a write takes the newest state from the book. Several events of an entry that waits become one
// write. An entry that was held, resumed or revoked goes before those that only appeared.
type schedule struct {
	cursor  uint64 // Seq of the last event taken in
	pending map[target]*change
	urgent  []target
	normal  []target
	running int
	bulky   int                // of those, entries of CAs, which may be long
	parked  map[target]*change // refused by the server, waiting for another try
}

// change is an entry that does not yet stand as the book has it.
type change struct {
	first   uint64 // Seq of the first event that is not in the directory yet
	again   uint64 // the first event that came in while the write was under way; 0 = none
	running bool
	tries   int
	retry   time.Time
}

func newSchedule(cursor uint64) *schedule {
	return &schedule{cursor: cursor, pending: map[target]*change{}, parked: map[target]*change{}}
}

// take notes what an event may have changed.
func (s *schedule) take(e *store.Event) {
	s.cursor = e.Seq
	t, ok := targetOf(e)
	if !ok {
		return
	}
	c := s.pending[t]
	if c != nil && c.running {
		if c.again == 0 {
			c.again = e.Seq
		}
		return
	}
	if c == nil {
		c = &change{first: e.Seq}
		s.pending[t] = c
		s.queue(t, e.Kind)
	} else if urgent(e.Kind) {
		s.queue(t, e.Kind) // a second place in the queues does no harm: next skips what is done
	}
}

func urgent(kind string) bool {
	return kind == store.KindHeld || kind == store.KindResumed || kind == store.KindRevoked
}

func (s *schedule) queue(t target, kind string) {
	if urgent(kind) {
		s.urgent = append(s.urgent, t)
	} else {
		s.normal = append(s.normal, t)
	}
}

// next returns what is to be written next, without taking it out.
func (s *schedule) next() (t target, first uint64, ok bool) {
	for _, q := range []*[]target{&s.urgent, &s.normal} {
		for len(*q) > 0 {
			t = (*q)[0]
			if c := s.pending[t]; c != nil && !c.running && s.parked[t] == nil {
				return t, c.first, true
			}
			*q = (*q)[1:]
		}
	}
	return target{}, 0, false
}

func (s *schedule) started(t target) {
	s.pending[t].running = true
	s.running++
	if t.isCA() {
		s.bulky++
	}
}

func (s *schedule) ended(t target) *change {
	s.running--
	if t.isCA() {
		s.bulky--
	}
	return s.pending[t]
}

// done ends a write that has brought the entry up to date.
func (s *schedule) done(t target) {
	c := s.ended(t)
	if c.again == 0 {
		delete(s.pending, t)
		return
	}
	*c = change{first: c.again}
	s.urgent = append(s.urgent, t)
}

// failed puts an entry aside that the server did not take. It holds the watermark where it is until a later try succeeds.
func (s *schedule) failed(t target, now time.Time) {
	c := s.ended(t)
	c.running, c.again = false, 0
	c.tries++
	c.retry = now.Add(backoff(c.tries))
	s.parked[t] = c
}

// wake queues what was put aside and is due, and returns when the next one is.
func (s *schedule) wake(now time.Time) (next time.Time) {
	for t, c := range s.parked {
		if !c.retry.After(now) {
			delete(s.parked, t)
			s.urgent = append(s.urgent, t)
		} else if next.IsZero() || c.retry.Before(next) {
			next = c.retry
		}
	}
	return next
}

// idle says that every event taken in is in the directory.
func (s *schedule) idle() bool { return len(s.pending) == 0 }

// prefix returns up to which event, without a gap, everything is in the directory.
func (s *schedule) prefix() uint64 {
	p := s.cursor
	for _, c := range s.pending {
		p = min(p, c.first-1)
	}
	return p
}
