package ldapsync

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"hufu/store"
)

// Kinds of event that tell of a directory that misses its bound, and of its end.
const (
	KindLate = "directory.late"
	KindBack = "directory.back"
)

// Levels of lateness.
const (
	InTime   = 0
	Late     = 1 // the directory misses the bound that it normally keeps
	Alarming = 2 // and the one at which somebody has to look after it
)

// watch looks after the bounds of all directories. Each time one of them is missed there is one line in the log, one event in the journal
// and a count.
func (p *Publisher) watch(ctx context.Context) {
	every := time.Second
	for _, w := range p.workers {
		every = min(every, w.dir.Bound/4)
	}
	p.started = p.now()
	remembered := time.Now()
	for pause(ctx, max(every, 10*time.Millisecond)) {
		if time.Since(remembered) >= remembering {
			remembered = time.Now()
			p.remember(ctx)
		}
		for i, s := range p.Status(ctx) {
			p.judgeLag(ctx, p.workers[i], &s)
		}
	}
}

// judgeLag compares how late a directory is with its bounds.
func (p *Publisher) judgeLag(ctx context.Context, w *worker, s *DirectoryStatus) {
	// Who stands by for another writer knows little of the directory, and whoever starts is not yet late.
	if strings.HasPrefix(s.State, "standing by") {
		return
	}
	lag := min(time.Duration(s.LagSeconds*float64(time.Second)), p.now().Sub(p.started))
	level := InTime
	switch {
	case lag >= w.dir.Alarm:
		level = Alarming
	case lag >= w.dir.Bound:
		level = Late
	}
	if level == s.Level || level == Late && s.Level == Alarming {
		return // a directory that recovers is late until it is in time
	}
	w.note(func(d *DirectoryStatus) {
		d.Level = level
		switch level {
		case Late:
			d.Missed++
		case Alarming:
			d.Alarms++
			if s.Level == InTime {
				d.Missed++
			}
		}
	})
	bound, kind := w.dir.Bound, KindLate
	if level == Alarming {
		bound = w.dir.Alarm
	}
	detail := fmt.Sprintf("directory %s: %d changes behind for %v, more than %v: %s", s.Name, s.LagChanges, lag.Round(time.Millisecond), bound, s.State)
	if s.LastError != "" {
		detail += ": " + s.LastError
	}
	attrs := []any{slog.String("directory", s.Name), slog.Uint64("changes", s.LagChanges), slog.Duration("lag", lag), slog.String("state", s.State)}
	switch level {
	case InTime:
		kind, detail = KindBack, "directory "+s.Name+" is in time again"
		p.log.Info("directory is in time again", attrs...)
	case Late:
		p.log.Warn("directory misses its bound", append(attrs, slog.Duration("bound", bound))...)
	case Alarming:
		p.log.Error("directory misses its alarm bound", append(attrs, slog.Duration("bound", bound))...)
	}
	err := p.book.Update(ctx, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: kind, Actor: "node " + p.node, Detail: detail})
		return nil
	})
	if err != nil && ctx.Err() == nil {
		p.log.Error("alarm is not in the journal", slog.String("directory", s.Name), slog.Any("error", err))
	}
}

// compareOften repairs a directory at its own pace, while it is otherwise in step.
func (p *Publisher) compareOften(ctx context.Context, w *worker) {
	for pause(ctx, w.dir.Compare) {
		w.mu.Lock()
		ready := w.status.State == stateInStep
		w.mu.Unlock()
		if !ready {
			continue
		}
		if _, err := p.Repair(ctx, w.dir.Name, "node "+p.node, nil); err != nil && ctx.Err() == nil {
			p.log.Warn("directory was not compared", slog.String("directory", w.dir.Name), slog.Any("error", err))
		}
	}
}
