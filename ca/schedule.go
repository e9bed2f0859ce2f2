package ca

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// gather is how long changes may wait for each other before a list is signed.
const gather = time.Second

// retry is how long a list that could not be signed waits.
const retry = 5 * time.Second

// rest is how many times as long as a full list took its CA goes on without the
// next one, where a delta tells of the changes meanwhile. A list of a million takes
// as much as thousands of changes; making it every second would halve their number.
const rest = 9

// list names the CRL of a shard, full or delta.
type list struct {
	ca    string
	shard uint16
	delta bool
}

// schedule says when the lists of one CA are made. Every full list is due at the
// start, since the book may have changed while no node ran; then at its time; and
// after a change at once, but not within a second of the list before. Where the CA
// has deltas, one follows each full list, and a full list takes at most a tenth of
// the time: while it rests, a change makes the delta alone, within that second.
type schedule struct {
	ca               string
	deltas           bool
	every, fullEvery time.Duration // when nothing changes
	due, last        map[list]time.Time
	took             map[list]time.Duration // by the last of each
}

func newSchedule(ca string, shards int, deltas bool, every, fullEvery time.Duration) *schedule {
	s := &schedule{ca: ca, deltas: deltas, every: every, fullEvery: fullEvery,
		due: map[list]time.Time{}, last: map[list]time.Time{}, took: map[list]time.Duration{}}
	for n := range shards + 1 {
		s.due[list{ca, uint16(n), false}] = time.Time{}
	}
	return s
}

// changed makes the lists that a change shows on due.
func (s *schedule) changed(shard uint16) {
	full := list{s.ca, shard, false}
	wait := gather
	if s.deltas {
		wait = max(wait, rest*s.took[full])
	}
	s.hasten(full, s.last[full].Add(wait))
	if delta := (list{s.ca, shard, true}); s.deltas && wait > gather {
		s.hasten(delta, s.last[delta].Add(gather))
	}
}

// hasten makes a list due no later than at that time. A list that never was due, as
// the delta to a full list that was not made yet, comes when it can.
func (s *schedule) hasten(l list, at time.Time) {
	if due, known := s.due[l]; known && at.Before(due) {
		s.due[l] = at
	}
}

// made notes a list, and what is due after it.
func (s *schedule) made(l list, began, ended time.Time) {
	s.last[l], s.took[l] = ended, ended.Sub(began)
	s.due[l] = ended.Add(s.every)
	if !l.delta {
		s.due[l] = ended.Add(s.fullEvery)
		if s.deltas { // the delta of before is older than this list
			s.due[list{l.ca, l.shard, true}] = ended
		}
	}
}

// failed notes a list that could not be made.
func (s *schedule) failed(l list, now time.Time) { s.due[l] = now.Add(retry) }

// dueAt returns what is due: deltas first, since a full list may take long, and the
// whole CA's before those of its shards.
func (s *schedule) dueAt(now time.Time) []list {
	all := slices.SortedFunc(maps.Keys(s.due), func(x, y list) int {
		return cmp.Or(cmp.Compare(bit(y.delta), bit(x.delta)), cmp.Compare(x.shard, y.shard))
	})
	return slices.DeleteFunc(all, func(l list) bool { return s.due[l].After(now) })
}

// next is when something is due.
func (s *schedule) next() time.Time {
	return slices.MinFunc(slices.Collect(maps.Values(s.due)), time.Time.Compare)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
