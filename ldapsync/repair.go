package ldapsync

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Repaired is what a repair did.
type Repaired struct {
	*Diff                 // as it was found
	Repaired int          // entries that were put right
	Removed  int          // of those, taken away, since the book has no such entry
	Left     []Difference // with the reason why they were left as they are
}

// Repair compares a directory with the book, as Diff does, and puts right what differs: missing and altered entries are written anew, and
// those that falsely say that they are of this book are taken away. What is behind is left to the worker, and what belongs to somebody
// else is left alone. Writes are guarded as all others are, so a repair and the worker do not disturb each other. What was done is counted,
// and told in the journal with the actor's name.
func (p *Publisher) Repair(ctx context.Context, name, actor string, progress func(done, total int64)) (*Repaired, error) {
	w, l, err := p.visit(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("repairing directory %s: %w", name, err)
	}
	defer l.close()
	m, err := l.watermark(p.book.ID())
	if err == nil {
		_, err = p.judge(ctx, l, m)
	}
	if err != nil {
		return nil, fmt.Errorf("repairing directory %s: %w", name, err)
	}
	d, err := p.diff(ctx, l, progress)
	if err != nil {
		return nil, fmt.Errorf("repairing directory %s: %w", name, err)
	}
	r := &Repaired{Diff: d}
	if err := p.mend(ctx, w, l, r); err != nil {
		return r, fmt.Errorf("repairing directory %s: %w", name, err)
	}
	if r.Repaired == 0 && len(r.Left) == 0 {
		return r, nil
	}
	w.note(func(s *DirectoryStatus) { s.Repairs += int64(r.Repaired) })
	w.tell(fmt.Sprintf("compared with the book: %s; %d put right, %d left", d, r.Repaired, len(r.Left)))
	p.log.Warn("directory was repaired", slog.String("directory", name), slog.String("actor", actor), slog.Int("repaired", r.Repaired), slog.Int("left", len(r.Left)))
	err = p.book.Update(ctx, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindDirectoryRepaired, Actor: actor,
			Detail: fmt.Sprintf("directory %s: %s; %d put right, %d taken away, %d left", name, d, r.Repaired-r.Removed, r.Removed, len(r.Left))})
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("recording the repair of directory %s: %w", name, err)
	}
	return r, nil
}

// mend goes through the differences, several at a time; those of CAs first, since others lie below them.
func (p *Publisher) mend(ctx context.Context, w *worker, l *link, r *Repaired) error {
	// Every entry is expected to be there, so that it is looked for before it is added.
	s := &session{worker: w, link: l, start: math.MaxUint64}
	var first, rest []Difference
	for _, d := range r.Differences {
		switch {
		case d.Kind == Behind:
		case d.target.isCA():
			first = append(first, d)
		default:
			rest = append(rest, d)
		}
	}
	var mu sync.Mutex // guards r and failed
	var failed error
	one := func(d Difference) {
		done, err := s.mendOne(ctx, d)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && lostConnection(err):
			failed = err
		case err != nil:
			d.Detail += ": " + err.Error()
			r.Left = append(r.Left, d)
		case !done:
			r.Left = append(r.Left, d)
		default:
			r.Repaired++
			if d.removes {
				r.Removed++
			}
		}
	}
	for _, d := range first {
		one(d)
	}
	turns := make(chan Difference)
	var group sync.WaitGroup
	for range min(l.dir.InFlight, len(rest)) {
		group.Go(func() {
			for d := range turns {
				one(d)
			}
		})
	}
	for _, d := range rest {
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop || ctx.Err() != nil {
			break
		}
		turns <- d
	}
	close(turns)
	group.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

// mendOne makes one entry what the book has.
func (s *session) mendOne(ctx context.Context, d Difference) (done bool, err error) {
	if d.Kind == Foreign {
		if !d.removes {
			return false, nil
		}
		err := s.link.ldap.Del(ldap.NewDelRequest(s.link.dn(d.Name), nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			err = nil
		}
		return err == nil, err
	}
	r, err := s.p.read(ctx, d.target)
	if err != nil || r == nil {
		return false, err
	}
	_, _, err = s.publish(ctx, s.link, d.target, r)
	return err == nil, err
}
