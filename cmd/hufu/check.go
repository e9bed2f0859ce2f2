package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/issuance/escrow"
	"hufu/store"
)

// daemonOrBook runs viaNode when a node answers, and viaBook on the book itself
// when none runs. A node that refuses is an answer too.
func (g *globals) daemonOrBook(cmd *cobra.Command, viaNode func(context.Context, *client.Client) error, viaBook func(context.Context, *store.Book) error) error {
	ctx := cmd.Context()
	conf, confErr := loadConfig(g.config)
	if confErr != nil && cmd.Flags().Changed("config") {
		return confErr // a node that answers is no answer for a file that was named
	}
	if _, err := os.Stat(g.client); err == nil {
		err := g.asClient(func(ctx context.Context, _ *cobra.Command, c *client.Client, _ []string) error {
			return viaNode(ctx, c)
		})(cmd, nil)
		var h *hinted
		if err == nil || confErr != nil || !errors.As(err, &h) || h.code != exitUnready {
			return err
		}
	}
	if confErr != nil {
		return confErr
	}
	book, err := openBook(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer book.Close()
	return viaBook(ctx, book)
}

func newCheckCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the whole book against itself: journal, records, indexes; changes nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.daemonOrBook(cmd, func(ctx context.Context, c *client.Client) error {
				j, err := c.Check(ctx)
				if err != nil {
					return err
				}
				if j, err = g.watch(ctx, cmd, c, j.ID); err != nil {
					return err
				}
				g.tell(cmd.OutOrStdout(), "ok: %d records are whole", j.Total)
				return nil
			}, func(ctx context.Context, b *store.Book) error {
				bar := newBar(cmd, "check")
				var all int64
				err := b.Check(ctx, func(done, total int64) { all = total; bar.set(done, total) })
				bar.end()
				if err == nil {
					err = escrow.Check(ctx, b)
				}
				if err != nil {
					return damagedf("keep the file as evidence and restore the last backup: hufu restore", "the book is damaged: %v", err)
				}
				g.tell(cmd.OutOrStdout(), "ok: %d records are whole", all)
				return nil
			})
		},
	}
}

func newBackupCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a consistent snapshot of the book; through the running node, or from the book itself where none runs",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Renaming replaces what is there, and that could be the book of a node
			// that runs: it would go on in a file without a name.
			if _, err := os.Lstat(args[0]); err == nil {
				return &hinted{err: fmt.Errorf("%s exists already, and a backup replaces nothing", args[0]), hint: "name a new file, or move the old one away", code: exitConflict}
			}
			// Written beside its place and renamed, so that FILE is a whole backup
			// or is not there.
			f, err := os.CreateTemp(filepath.Dir(args[0]), ".backup-*")
			if err != nil {
				return usagef("the folder must exist and be writable", "making the backup: %v", err)
			}
			defer os.Remove(f.Name())
			defer f.Close()
			err = g.daemonOrBook(cmd, func(ctx context.Context, c *client.Client) error {
				bar := newBar(cmd, "backup")
				_, err := c.Backup(ctx, &counted{w: f, bar: bar})
				bar.end()
				return err
			}, func(ctx context.Context, b *store.Book) error {
				bar := newBar(cmd, "backup")
				err := b.Backup(ctx, f, bar.set)
				bar.end()
				return err
			})
			if err != nil {
				return fmt.Errorf("writing the backup: %w", err)
			}
			if err := f.Sync(); err != nil {
				return fmt.Errorf("writing the backup: %w", err)
			}
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if err := os.Rename(f.Name(), args[0]); err != nil {
				return err
			}
			g.tell(cmd.OutOrStdout(), "backup of %d octets written to %s; try it: hufu restore --dry-run %s", info.Size(), args[0], args[0])
			return nil
		},
	}
}

// counted shows how much went through it.
type counted struct {
	w   io.Writer
	bar *bar
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.bar.set(c.n, c.n+1)
	return n, err
}
