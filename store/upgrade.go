package store

import (
	"context"
	"fmt"
	"log/slog"
)

// upgrade turns the layout of one format into that of the next. It runs in the transaction that writes the new format number, so a step
// happens once or not at all. A step that has too much to write for one transaction leaves the rest to reads that know both layouts.
type upgrade func(*Tx) error

// upgrades has, at place n, the step from format n+1 to n+2. It is empty while there is one format.
var upgrades []upgrade

// upgrade brings an older book to the present format, after a backup.
func (b *Book) upgrade(ctx context.Context, cfg Config, i *identity, steps []upgrade) error {
	from, want := i.Format, 1+len(steps)
	if from == want {
		return nil
	}
	if from > want || from < 1 || cfg.Backup == nil {
		return &FormatError{Book: from, Program: want}
	}
	if err := b.backupBefore(ctx, cfg, from); err != nil {
		return fmt.Errorf("writing the backup that comes before an upgrade: %w", err)
	}
	for n := from; n < want; n++ {
		next := *i
		next.Format = n + 1
		err := b.Update(ctx, func(tx *Tx) error {
			if err := steps[n-1](tx); err != nil {
				return err
			}
			tx.Append(Event{Kind: KindBookUpgraded, Detail: detail(map[string]any{"from": n, "to": n + 1})})
			return tx.set(bookKey, next.encode())
		})
		if err != nil {
			return fmt.Errorf("upgrading the book from format %d to %d: %w", n, n+1, err)
		}
		b.log.LogAttrs(ctx, slog.LevelInfo, "book upgraded", slog.Int("from", n), slog.Int("to", n+1))
	}
	return nil
}

func (b *Book) backupBefore(ctx context.Context, cfg Config, format int) error {
	w, err := cfg.Backup(format)
	if err != nil {
		return err
	}
	err = b.Backup(ctx, w, nil)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}
