package ldapsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// States of a directory, in words. Standing by names the other writer.
const (
	stateStarting    = "starting"
	stateUnreachable = "unreachable"
	stateFailing     = "does not take our changes"
	stateAhead       = "ahead of the book"
	stateCatchingUp  = "catching up"
	stateInStep      = "in step"
	stateSilent      = "silent"
	stateRefuses     = "refuses an entry"
	stateMute        = "without statement: the key does not sign"
	stateStopped     = "stopped"
)

// worker carries the book into one directory. Everything but kept and status belongs to the goroutine that runs it.
type worker struct {
	p    *Publisher
	dir  *Directory
	id   string // node and incarnation
	held bool   // it has published before

	// The tree over what the directory holds, as far as was acknowledged. It outlives a connection, as long as the directory still
	// shows the statement that it belonged to.
	tree   *Tree
	treeAt uint64 // the tree is right once everything up to this event is in the directory
	last   string // the statement last written
	cursor uint64 // how far the journal was read when the last connection ended

	reached position // the watermark as this worker last knew it
	kept    position // the one that the book remembers; belongs to remember

	mu     sync.Mutex
	status DirectoryStatus // guarded by mu
}

// run publishes until ctx ends.
func (w *worker) run(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; tries++ {
		before := w.last
		err := w.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if w.last != before {
			tries = 0 // it had come so far as to write its watermark
		}
		w.failed(err)
		pause(ctx, backoff(tries))
	}
	w.note(func(s *DirectoryStatus) { s.State = stateStopped })
}

// failed notes why a connection ended.
func (w *worker) failed(err error) {
	var ahead *AheadError
	var answer *ldap.Error
	state := stateUnreachable
	switch {
	case errors.As(err, &ahead):
		state = stateAhead
	case errors.As(err, &answer) && answer.ResultCode < ldap.ErrorNetwork:
		state = stateFailing
	}
	w.trouble(state, err)
}

// trouble notes what is wrong. The log hears of it once.
func (w *worker) trouble(state string, err error) {
	w.mu.Lock()
	known := w.status.State == state && w.status.LastError == err.Error()
	w.status.State, w.status.LastError, w.status.ErrorTime = state, err.Error(), w.p.now().UTC()
	w.mu.Unlock()
	if !known {
		w.p.log.Warn("directory does not follow", slog.String("directory", w.dir.Name), slog.String("state", state), slog.Any("error", err))
	}
}

func (w *worker) note(f func(*DirectoryStatus)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.status)
}

// backoff grows from 50 ms to 10 s; the jitter keeps directories that failed together from coming back together.
func backoff(tries int) time.Duration {
	d := min(50*time.Millisecond<<min(tries, 8), 10*time.Second)
	return d/2 + rand.N(d)
}

// pause waits for d; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errDeposed ends a session whose watermark another writer has moved.
var errDeposed = errors.New("another worker has taken the directory over, or it was put back to an older state")

// session is one connection to a directory, from the look at its watermark to its end.
type session struct {
	*worker
	link  *link
	bulk  bulkLink // for CA entries
	mark  watermark
	start uint64 // the directory had every change up to here when the session began
	sched *schedule

	todo   chan job
	done   chan outcome
	events chan []store.Event
	built  chan builtTree
	broken chan error
	say    chan utterance        // to the one who writes the watermark
	said   chan utterance        // and back
	acked  map[string]store.Hash // what was written before the tree was there
	wrote  map[target]position   // where entries of certificates that changed were last written

	spoke    time.Time // when the watermark was last written
	hush     time.Time // no statement before: the key could not sign
	active   time.Time // when something last happened
	told     time.Time // when the status last learned how far it is
	complete bool      // the last statement had a digest
	counted  bool      // unknowns is known
	unknowns int64     // entries of the book that the book does not know
	draining bool      // nothing new is begun until there is something to say that is whole
	speaking bool      // the watermark is being written
}

type job struct {
	target target
	first  uint64
	last   position // where the entry was last written, as far as this session remembers
}

type outcome struct {
	target   target
	written  []*record // what the entries are now
	repaired []string  // names of those that were not as this book had left them
	err      error
}

// utterance is a statement on its way into the watermark.
type utterance struct {
	statement Statement
	old       watermark // what it takes the place of
	next      watermark
	idle      bool  // every change was in the directory
	release   bool  // the directory is given up for others
	unsigned  error // why there is no signature
	err       error // why it was not written
}

type builtTree struct {
	tree *Tree
	at   uint64
	err  error
}

// The watermark is written when nothing has happened for quiet, and in any case in the session's rhythm.
const (
	quiet      = 20 * time.Millisecond
	maxPending = 100_000 // entries known to be behind; the journal keeps the rest
	farewell   = 2 * time.Second
)

func (w *worker) session(ctx context.Context) error {
	l, err := connect(ctx, w.dir)
	if err != nil {
		return err
	}
	defer l.close()
	mark, start, err := w.takeOver(ctx, l)
	if err != nil {
		return err
	}
	w.welcome(ctx, mark.position, start)
	w.note(func(s *DirectoryStatus) {
		s.State, s.LastError, s.Epoch, s.Watermark, s.From, s.Applied = stateCatchingUp, "", mark.epoch, start, start, start
	})
	s := &session{
		worker: w, link: l, bulk: bulkLink{dir: w.dir}, mark: *mark, start: start, sched: newSchedule(start),
		todo: make(chan job), done: make(chan outcome, w.dir.InFlight), events: make(chan []store.Event),
		built: make(chan builtTree, 1), broken: make(chan error, 1),
		say: make(chan utterance, 1), said: make(chan utterance, 1), acked: map[string]store.Hash{}, wrote: map[target]position{},
		spoke: time.Now(), active: time.Now(),
	}
	return s.run(ctx)
}

// run starts what the session needs, leads it, and ends everything again.
func (s *session) run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { s.followJournal(inner) })
	group.Go(func() {
		for u := range s.say {
			s.said <- s.utter(inner, u)
		}
	})
	for range s.dir.InFlight {
		group.Go(func() {
			for j := range s.todo {
				// Once the session has ended nobody takes outcomes any more, and
				// there may be more of them than the channel holds.
				select {
				case s.done <- s.write(inner, j):
				case <-inner.Done():
				}
			}
		})
	}
	s.prepareTree(inner, &group)
	err := s.lead(ctx, inner)
	s.cursor = s.sched.cursor
	cancel()
	close(s.todo)
	close(s.say)
	s.link.close()
	s.bulk.close()
	group.Wait()
	return err
}

// prepareTree finds the tree for the digest: an empty one when everything is written anew, the one of the last connection when the
// directory has not changed since, or else one made from the book while the changes already flow.
func (s *session) prepareTree(ctx context.Context, group *sync.WaitGroup) {
	switch {
	case s.start == 0:
		s.tree, s.treeAt = new(Tree), 0
	case s.tree != nil && s.last == s.mark.note:
		s.treeAt = max(s.treeAt, s.cursor)
	default:
		s.tree = nil
		group.Go(func() {
			tree, at, err := s.p.expected(ctx)
			s.built <- builtTree{tree, at, err}
		})
	}
}

// followJournal hands the events on as they come.
func (s *session) followJournal(ctx context.Context) {
	for after := s.start; ; {
		events, err := s.p.book.Follow(ctx, after, 1000)
		if err != nil {
			s.broken <- fmt.Errorf("following the journal: %w", err)
			return
		}
		select {
		case s.events <- events:
			after = events[len(events)-1].Seq
		case <-ctx.Done():
			return
		}
	}
}

// lead is the one goroutine that knows what is behind, under way and done. When ctx ends, it lets what is under way come to an end, writes
// the watermark once more and gives the directory up for others.
func (s *session) lead(ctx, inner context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ending, ended := ctx.Done(), (<-chan time.Time)(nil)
	for {
		s.draining = s.draining || !s.speaking && s.overdue()
		if s.sched.running == 0 && !s.speaking && (ended != nil || time.Now().After(s.hush) && (s.draining || s.due())) {
			s.speak(ended != nil)
			s.draining = ended != nil
		}
		timer.Reset(s.wait())
		next, first, ready := s.sched.next()
		todo, events := s.todo, s.events
		if !ready || s.draining {
			todo = nil
		}
		if s.draining || len(s.sched.pending) >= maxPending {
			events = nil
		}
		select {
		case todo <- job{next, first, s.wrote[next]}:
			s.sched.started(next)
		case batch := <-events:
			for i := range batch {
				s.sched.take(&batch[i])
			}
			s.active = time.Now()
		case o := <-s.done:
			if err := s.finish(o); err != nil {
				return err
			}
		case u := <-s.said:
			if err := s.spoken(inner, u); err != nil || u.release {
				return err
			}
		case b := <-s.built:
			if b.err != nil {
				return fmt.Errorf("computing the digest of the book: %w", b.err)
			}
			s.adopt(b)
		case <-timer.C:
		case err := <-s.broken:
			return err
		case err := <-s.link.lost:
			return fmt.Errorf("the directory ended the connection: %w", err)
		case <-ending:
			ending, ended, s.draining = nil, time.After(farewell), true
		case <-ended:
			return errors.New("the directory did not answer in time for a farewell")
		}
	}
}

// overdue says that the watermark has to be written even though changes keep coming. A long CRL on its way is given time, since all others
// wait while it is waited for.
func (s *session) overdue() bool {
	silent := time.Since(s.spoke)
	rhythm := s.rhythm()
	return time.Now().After(s.hush) && (silent >= 2*rhythm || silent >= rhythm && s.sched.bulky == 0)
}

// rhythm is how often the watermark is written while changes never pause: often enough to keep the bound and the lease.
func (s *session) rhythm() time.Duration { return min(s.p.lease, s.dir.Bound) / 3 }

// due says that the directory has gained something that its watermark does not say yet, and that nothing more seems to come.
func (s *session) due() bool {
	return s.sched.idle() && time.Since(s.active) >= quiet && (s.sched.cursor > s.mark.seq || s.mark.epoch < s.p.book.Epoch() || s.gainedDigest())
}

// gainedDigest: the last statement had no digest, and now there is one.
func (s *session) gainedDigest() bool {
	return !s.complete && s.tree != nil && s.sched.cursor >= s.treeAt
}

// wait returns how long nothing has to be done if nothing happens.
func (s *session) wait() time.Duration {
	d := max(time.Until(s.spoke.Add(s.rhythm())), 10*time.Millisecond)
	if s.sched.idle() && time.Since(s.active) < quiet {
		d = min(d, time.Until(s.active.Add(quiet)))
	}
	d = max(d, time.Until(s.hush), time.Millisecond)
	if retry := s.sched.wake(time.Now()); !retry.IsZero() {
		d = min(d, time.Until(retry))
	}
	return d
}

// finish takes the outcome of one write in.
func (s *session) finish(o outcome) error {
	s.active = time.Now()
	for _, r := range o.written {
		// Changes of status tend to hit the same certificates; where they do not, the event of the issue is as good.
		if r.issued != 0 && r.at.seq != r.issued {
			if len(s.wrote) >= maxPending {
				clear(s.wrote)
			}
			s.wrote[r.target] = r.at
		}
		if digest := r.Digest(); s.tree == nil {
			s.acked[r.Name] = digest
		} else {
			s.tree.Set(r.Name, digest)
		}
	}
	for _, name := range o.repaired {
		s.note(func(st *DirectoryStatus) { st.Repairs++ })
		s.tell("its entry " + name + " was not as this book had left it, and was put right")
		s.p.log.Warn("entry was not as it should have been", slog.String("directory", s.dir.Name), slog.String("entry", name))
	}
	if o.err != nil && !o.target.isCA() && lostConnection(o.err) {
		return fmt.Errorf("publishing %s: %w", o.target, o.err)
	}
	if o.err != nil {
		s.sched.failed(o.target, time.Now())
		s.trouble(stateRefuses, fmt.Errorf("publishing %s: %w", o.target, o.err))
		return nil
	}
	s.sched.done(o.target)
	// The prefix costs a look at all that is pending, so it is not asked for at each of many.
	if time.Since(s.told) >= time.Second {
		s.told = time.Now()
		applied := s.sched.prefix()
		s.note(func(d *DirectoryStatus) { d.Applied = applied })
	}
	return nil
}

// adopt takes a tree made from the book; what was written meanwhile is newer.
func (s *session) adopt(b builtTree) {
	for name, digest := range s.acked {
		b.tree.Set(name, digest)
	}
	s.tree, s.treeAt, s.acked = b.tree, b.at, nil
	s.active = time.Now()
}

// speak has the watermark written. Nothing is under way, so what the statement says is what is there; what is begun from now on is in the
// next one, and waits for none of this.
func (s *session) speak(release bool) {
	u := utterance{
		statement: Statement{Book: s.p.book.ID(), Epoch: s.p.book.Epoch(), Seq: s.sched.prefix(), Time: s.p.now().UTC().Truncate(time.Millisecond)},
		old:       s.mark, idle: s.sched.idle(), release: release,
	}
	if s.tree != nil && u.statement.Seq >= s.treeAt {
		u.statement.Entries, u.statement.Digest = s.tree.Len(), s.tree.Root()
	}
	s.speaking = true
	s.say <- u
}

// utter signs a statement and writes it. It runs beside the session.
func (s *session) utter(ctx context.Context, u utterance) utterance {
	st := &u.statement
	if st.Journal, u.err = s.p.book.Tree(ctx); u.err != nil {
		u.err = fmt.Errorf("reading the head of the book: %w", u.err)
		return u
	}
	var signed []byte
	if signed, u.unsigned = st.Sign(s.p.key); u.unsigned != nil {
		return u
	}
	u.next = watermark{position: position{st.Epoch, st.Seq}, fence: u.old.fence, writer: s.id, note: string(signed)}
	if u.release {
		u.next.writer = ""
	}
	u.err = s.link.moveWatermark(st.Book, &u.old, &u.next)
	if ldap.IsErrorWithCode(u.err, ldap.LDAPResultNoSuchAttribute) || ldap.IsErrorWithCode(u.err, ldap.LDAPResultNoSuchObject) {
		u.err = errDeposed
	} else if u.err != nil {
		u.err = fmt.Errorf("writing the watermark: %w", u.err)
	}
	return u
}

// spoken takes in how the writing of the watermark ended.
func (s *session) spoken(ctx context.Context, u utterance) error {
	s.speaking = false
	if u.err != nil {
		return u.err
	}
	if u.unsigned != nil {
		// A token that is away for a moment must not hold changes up; only the watermark stays where it is.
		s.hush = time.Now().Add(time.Second)
		s.trouble(stateMute, u.unsigned)
		return nil
	}
	st := &u.statement
	s.reached = u.next.position
	s.mark, s.last, s.spoke, s.complete = u.next, u.next.note, time.Now(), !st.Digest.IsZero()
	unknown, err := s.unknown(ctx, u.idle)
	if err != nil {
		return fmt.Errorf("counting what nobody brought back: %w", err)
	}
	s.note(func(d *DirectoryStatus) {
		d.Applied = st.Seq
		d.Epoch, d.Watermark, d.Time, d.Entries, d.Unknown = st.Epoch, st.Seq, st.Time, st.Entries, unknown
		if !s.complete {
			d.Entries = -1
		}
		switch {
		case len(s.sched.parked) > 0:
			d.State = stateRefuses
		case s.complete && u.idle:
			d.State, d.LastError = stateInStep, ""
		default:
			d.State = stateCatchingUp
		}
	})
	return nil
}

// unknown counts the entries of stretches of the book that a restore cut off. Those that were brought back have been written again by the
// time the session is in step for the first time, which is when it counts.
func (s *session) unknown(ctx context.Context, idle bool) (n int64, err error) {
	if s.counted || !idle || !s.complete {
		return s.unknowns, nil
	}
	stretches, err := s.p.stretches(ctx, s.dir.Name)
	if err != nil {
		return 0, err
	}
	for _, e := range stretches[:len(stretches)-1] {
		err := s.link.each(ctx, aheadFilter(s.p.book.ID(), e.epoch, e.end), []string{"1.1"}, func(*ldap.Entry) error { n++; return nil })
		if err != nil {
			return 0, err
		}
	}
	s.counted, s.unknowns = true, n
	return n, nil
}
