package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// restoringKey marks an engine that a restore is filling. It goes away in the transaction that makes the engine a book.
var restoringKey = []byte{spaceBook, 'r', 'e', 's', 't', 'o', 'r', 'i', 'n', 'g'}

// Restore fills an empty engine from a backup, begins a new epoch there, and opens the book. The first event of the epoch, of Kind "book.restored",
// names the tree and the last checkpoint of what was restored. The number of the epoch is at least that of the time in milliseconds, so
// that two restores of one backup do not share it.
//
// An engine that holds anything but the remains of a restore that was cut short is refused. A backup of a newer format is refused too; one of an
// older format is upgraded, the backup being there already. If the backup turns out to be damaged, the engine is left as empty as it was.
func Restore(ctx context.Context, cfg Config, r io.Reader, actor string) (*Book, error) {
	b, err := restore(ctx, cfg, r, actor, upgrades)
	if err != nil {
		return nil, fmt.Errorf("restoring book: %w", err)
	}
	return b, nil
}

func restore(ctx context.Context, cfg Config, r io.Reader, actor string, steps []upgrade) (*Book, error) {
	if err := claim(ctx, cfg.Engine); err != nil {
		return nil, err
	}
	i, err := fill(ctx, cfg, r, actor, 1+len(steps))
	if err != nil {
		// Whoever gave up, or gave a damaged backup, finds the engine as it was.
		return nil, errors.Join(err, wipe(context.WithoutCancel(ctx), cfg.Engine))
	}
	b := cfg.book(i)
	cfg.Backup = func(int) (io.WriteCloser, error) { return nopCloser{io.Discard}, nil }
	return b, b.upgrade(ctx, cfg, i, steps)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// claim marks an empty engine as being restored.
func claim(ctx context.Context, engine Engine) error {
	begun := false
	err := engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		raw, err := s.Get(bookKey)
		if err == nil && raw == nil {
			raw, err = s.Get(restoringKey)
			begun = raw != nil
		}
		if err != nil || begun {
			return nil, err
		}
		for _, err := range s.Scan([]byte{0}, nil, false) {
			return nil, errors.Join(err, fmt.Errorf("there is something in it already: choose another place: %w", ErrExists))
		}
		return []Write{{Key: string(restoringKey), Value: []byte{}}}, nil
	})
	if err == nil && begun {
		if err = wipe(ctx, engine); err == nil {
			return claim(ctx, engine)
		}
	}
	return err
}

// fill writes what is in the backup, and at last what makes it a book.
func fill(ctx context.Context, cfg Config, r io.Reader, actor string, format int) (*identity, error) {
	var batch []Write
	size := 0
	flush := func() error {
		writes := batch
		batch, size = nil, 0
		return cfg.Engine.Update(ctx, func(Snapshot) ([]Write, error) { return writes, nil })
	}
	c, err := readBackup(ctx, r, nil, func(key, value []byte) error {
		batch = append(batch, Write{Key: string(key), Value: append([]byte{}, value...)})
		if size += len(key) + len(value); size < restoreBatch {
			return nil
		}
		return flush()
	})
	if err == nil && c.identity.Format > format {
		err = &FormatError{Book: c.identity.Format, Program: format}
	}
	if err == nil {
		err = flush()
	}
	if err != nil {
		return nil, err
	}
	now := cfg.now().UTC().Round(0)
	old := c.identity.epoch()
	c.identity.Epochs = append(c.identity.Epochs, Epoch{Epoch: max(old+1, uint64(now.UnixMilli())), Size: int64(c.head.seq), Time: now})
	return c.identity, cfg.found(ctx, c.identity, c.head, func(tx *Tx) error {
		fields := map[string]any{"epoch": c.identity.epoch(), "from_epoch": old, "size": c.head.seq, "root": c.head.root, "made": c.about.Time}
		if err := lastCheckpoint(tx, fields); err != nil {
			return err
		}
		tx.Append(Event{Kind: KindBookRestored, Actor: actor, Detail: detail(fields)})
		return tx.set(restoringKey, nil)
	})
}

// lastCheckpoint adds what the newest checkpoint in the journal says, if there is one.
func lastCheckpoint(tx *Tx, fields map[string]any) error {
	e, err := tx.LastCheckpoint()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	text, _, _ := strings.Cut(e.Detail, "\n\n")
	c, err := parseText(text + "\n")
	if err != nil {
		return fmt.Errorf("%w: event %d is not a checkpoint: %w", ErrCorrupt, e.Seq, err)
	}
	fields["checkpoint"] = map[string]any{"event": e.Seq, "epoch": c.Epoch, "size": c.Size, "root": c.Root, "time": c.Time}
	return nil
}

// wipe empties an engine; the mark of the restore goes last.
func wipe(ctx context.Context, engine Engine) error {
	for more := true; more; {
		err := engine.Update(ctx, func(s Snapshot) ([]Write, error) {
			var writes []Write
			mark := false
			for pair, err := range s.Scan([]byte{0}, nil, false) {
				if err != nil {
					return nil, err
				}
				if bytes.Equal(pair.Key, restoringKey) {
					mark = true
					continue
				}
				if writes = append(writes, Write{Key: string(pair.Key)}); len(writes) == keysToWipe {
					break
				}
			}
			if more = len(writes) > 0; !more && mark {
				writes = append(writes, Write{Key: string(restoringKey)})
			}
			return writes, nil
		})
		if err != nil {
			return fmt.Errorf("emptying the engine again: %w", err)
		}
	}
	return nil
}
