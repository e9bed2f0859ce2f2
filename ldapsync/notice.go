package ldapsync

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"hufu/store"
)

// KindPutBack is the event that tells of a directory that came back older than it was.
const KindPutBack = "directory.put-back"

// tell notes what was found out about a directory. Unlike an error it stays in the status when all is well again.
func (w *worker) tell(what string) {
	w.note(func(s *DirectoryStatus) { s.Notice, s.NoticeTime = what, w.p.now().UTC() })
}

// welcome compares the watermark of a directory that answers with what it was when it was last seen. One that went back tells that the
// directory was restored from a backup or has lost its last writes; everything since is written again, and people hear of it.
func (w *worker) welcome(ctx context.Context, at position, start uint64) {
	was := w.reached
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
		return nil
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
