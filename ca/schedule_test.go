package ca

import (
	"slices"
	"testing"
	"time"
)

// TestSchedule lives through an hour in which something changes every 200 ms.
func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		deltas    bool
		full      time.Duration // what it takes
		most      time.Duration // the longest from a change to the full list
		busy      float64       // the most of the time that full lists may take
		leastFull int
	}{
		"short lists":                {true, 5 * time.Millisecond, 1100 * time.Millisecond, 0.02, 3000},
		"long lists":                 {true, 2 * time.Second, 24 * time.Second, 0.11, 150},
		"lists longer than an hour":  {true, 10 * time.Minute, 71 * time.Minute, 0.2, 1},
		"short lists, no deltas":     {false, 5 * time.Millisecond, 1100 * time.Millisecond, 0.02, 3000},
		"long lists, without deltas": {false, 2 * time.Second, 5300 * time.Millisecond, 1, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			every := 10 * time.Minute
			s := newSchedule("services", 0, c.deltas, every, time.Hour)
			begun := time.Unix(1_800_000_000, 0)
			now := begun
			var spent time.Duration
			made := 0
			open := map[bool]time.Time{} // by delta: the first change that no list shows
			var worst [2]time.Duration
			change := func(at time.Time) {
				for _, delta := range []bool{false, true} {
					if open[delta].IsZero() {
						open[delta] = at
					}
				}
				s.changed(0)
			}
			changes := begun
			for now.Sub(begun) < time.Hour {
				for !changes.After(now) {
					change(changes)
					changes = changes.Add(200 * time.Millisecond)
				}
				due := s.dueAt(now)
				if len(due) == 0 {
					now = slices.MinFunc([]time.Time{s.next(), changes}, time.Time.Compare)
					continue
				}
				l := due[0]
				began, first := now, open[l.delta]
				delete(open, l.delta)
				took := time.Millisecond
				if !l.delta {
					took, made = c.full, made+1
					spent += took
				}
				now = now.Add(took)
				s.made(l, began, now)
				if !first.IsZero() {
					worst[bit(l.delta)] = max(worst[bit(l.delta)], now.Sub(first))
				}
			}
			if worst[0] > c.most || made < c.leastFull || spent.Seconds()/now.Sub(begun).Seconds() > c.busy {
				t.Errorf("%d full lists took %v of %v, the slowest came %v after a change", made, spent, now.Sub(begun), worst[0])
			}
			// A delta waits for nothing but the full list that is being made.
			if c.deltas && worst[1] > gather+c.full+100*time.Millisecond {
				t.Errorf("a delta came %v after a change", worst[1])
			}
			if c.deltas == (worst[1] == 0) {
				t.Errorf("deltas: %v, and the slowest came after %v", c.deltas, worst[1])
			}
		})
	}
}

// TestScheduleWithoutChanges: full lists and deltas come at their times, and what
// failed comes again.
func TestScheduleWithoutChanges(t *testing.T) {
	s := newSchedule("services", 2, true, 10*time.Minute, time.Hour)
	now := time.Unix(1_800_000_000, 0)
	if due := s.dueAt(now); len(due) != 3 || due[0].delta || due[0].shard != 0 || due[2].shard != 2 {
		t.Fatalf("due at the start: %v", due)
	}
	for _, l := range s.dueAt(now) {
		s.made(l, now, now)
	}
	for _, l := range s.dueAt(now) {
		if !l.delta {
			t.Errorf("%v is due at once again", l)
		}
		s.made(l, now, now)
	}
	if at := s.next(); !at.Equal(now.Add(10 * time.Minute)) {
		t.Errorf("the next list is due after %v", at.Sub(now))
	}
	if due := s.dueAt(now.Add(59 * time.Minute)); len(due) != 3 || !due[0].delta {
		t.Errorf("due before the hour: %v", due)
	}
	if due := s.dueAt(now.Add(time.Hour)); len(due) != 6 || !due[0].delta || due[5].delta {
		t.Errorf("due after the hour: %v", due)
	}
	s.failed(list{"services", 1, true}, now)
	if at := s.next(); !at.Equal(now.Add(retry)) {
		t.Errorf("what failed comes again after %v", at.Sub(now))
	}
}
