package ldapsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hufu/store"
)

// KindPutBack is the event that tells of a directory that came back older than it was.
const KindPutBack = "directory.put-back"

// sight is the row that says what watermark a directory has shown, so that a node that starts again knows it.
type sight struct {
	Directory string
	Epoch     uint64
	Seq       uint64
}

// sights has the primary key Key(Directory).
var sights = store.Table[sight]{Name: "ldapsync.sight", Key: func(s *sight) []byte { return store.Key(s.Directory) }, Codec: store.JSON[sight]()}

// remembering is how often what directories have shown goes into the book while the node runs; it also does when the node stops. What was
// shown since is forgotten with a node that is killed: then a directory that went back by less than that is not noticed, and what it lacks
// is written again all the same.
const remembering = time.Minute

// remember writes down how far each directory was seen.
func (p *Publisher) remember(ctx context.Context) {
	var news []*sight
	for _, w := range p.workers {
		w.mu.Lock()
		at := position{w.status.Epoch, w.status.Watermark}
		w.mu.Unlock()
		if w.kept.compare(at) < 0 {
			w.kept = at
			news = append(news, &sight{w.dir.Name, at.epoch, at.seq})
		}
	}
	if news == nil {
		return
	}
	err := p.book.Update(ctx, func(tx *store.Tx) error {
		for _, s := range news {
			if err := sights.Put(tx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		p.log.Error("how far the directories are is not in the book", slog.Any("error", err))
	}
}

// sighted is the watermark that a directory showed to an earlier run of this node, or to another node of the book.
func (w *worker) sighted(ctx context.Context) (at position) {
	err := w.p.book.View(ctx, func(tx *store.Tx) error {
		s, err := sights.Get(tx, store.Key(w.dir.Name))
		if err == nil {
			at = position{s.Epoch, s.Seq}
		}
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		w.p.log.Error("how far the directory was is not known", slog.String("directory", w.dir.Name), slog.Any("error", err))
	}
	return at
}

// tell notes what was found out about a directory. Unlike an error it stays in the status when all is well again.
func (w *worker) tell(what string) {
	w.note(func(s *DirectoryStatus) { s.Notice, s.NoticeTime = what, w.p.now().UTC() })
}

// welcome compares the watermark of a directory that answers with what it was when it was last seen. One that went back tells that the
// directory was restored from a backup or has lost its last writes; everything since is written again, and people hear of it. What a directory had
// taken and its watermark did not say yet was never promised to anybody: if that is lost it is written again without a word.
func (w *worker) welcome(ctx context.Context, at position, start uint64) {
	was := w.reached
	if was == (position{}) {
		was = w.sighted(ctx)
	}
	w.reached = at
	if was == (position{}) || at.compare(was) >= 0 {
		return
	}
	what := fmt.Sprintf("it was put back to an older state, or has lost its last writes: its watermark went from %v back to %v; the %d changes since are written again",
		was, at, was.seq-min(start, was.seq))
	w.tell(what)
	w.p.log.Warn("directory was put back", slog.String("directory", w.dir.Name), slog.String("from", was.String()), slog.String("to", at.String()))
	err := w.p.book.Update(ctx, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: KindPutBack, Actor: "node " + w.p.node, Detail: "directory " + w.dir.Name + ": " + what})
		return sights.Put(tx, &sight{w.dir.Name, at.epoch, at.seq}) // it is told once
	})
	if err != nil && ctx.Err() == nil {
		w.p.log.Error("the directory's setback is not in the journal", slog.String("directory", w.dir.Name), slog.Any("error", err))
	}
}

// doubt corrects a status by what time tells: a directory that has confirmed nothing for longer than its bound is not known to be in step,
// and one that is late without an error is slow.
func (w *worker) doubt(s *DirectoryStatus) {
	switch silent := w.p.now().Sub(s.Time); {
	case s.State == stateInStep && silent > max(w.dir.Bound, time.Second):
		s.State = stateSilent
		if s.LastError == "" {
			s.LastError = fmt.Sprintf("it was in step, and has confirmed nothing for %v", silent.Round(time.Millisecond))
		}
	case s.State == stateCatchingUp && s.LastError == "" && s.LagSeconds >= w.dir.Bound.Seconds():
		s.LastError = fmt.Sprintf("it answers, but too slowly: %d changes behind, the oldest of them for %.1f s", s.LagChanges, s.LagSeconds)
	}
}
