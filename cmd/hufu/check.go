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
	"hufu/store"
	"hufu/store/bolt"
)

// daemonOrBook runs viaNode when a node answers, and viaBook on the book itself
// when none runs. A node that refuses is an answer too.
func (g *globals) daemonOrBook(cmd *cobra.Command, viaNode func(context.Context, *client.Client) error, viaBook func(context.Context, *store.Book) error) error {
	ctx := cmd.Context()
	conf, confErr := loadConfig(g.config)
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

func newRestoreCommand(g *globals) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Begin a new epoch of the book from a backup; works alone, with the node stopped",
		Long: `Restore a backup into the configuration's data folder. The old book, if there is
one, is moved aside, never deleted. The restored book begins a new epoch, whose
first event names the last state of the old one.

What was issued or revoked after the backup is not in it: the node finds
directories that are ahead of the restored book and refuses to start until
you say what to do (hufu serve explains).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			return g.restore(cmd, conf, args[0], dry)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "restore into a temporary file, check it and remove it")
	return c
}

func (g *globals) restore(cmd *cobra.Command, conf *Config, file string, dry bool) error {
	in, err := os.Open(file)
	if err != nil {
		return usagef("name the file that hufu backup wrote", "opening the backup: %v", err)
	}
	defer in.Close()
	if !dry {
		if err := g.sure(cmd, g.say("restoring an older state of the book"), "restore"); err != nil {
			return err
		}
		// The lock tells whether a node runs.
		if _, err := os.Stat(conf.bookPath()); err == nil {
			e, err := bolt.Open(conf.bookPath(), bolt.Options{})
			if err != nil {
				return &hinted{err: fmt.Errorf("opening the present book: %w", err), hint: "stop the node first", code: exitConflict}
			}
			e.Close()
		}
	}
	if err := os.MkdirAll(conf.Data, 0o700); err != nil {
		return err
	}
	temp := conf.bookPath() + ".restore"
	os.Remove(temp)
	defer os.Remove(temp)
	engine, err := bolt.Open(temp, bolt.Options{})
	if err != nil {
		return err
	}
	book, err := store.Restore(cmd.Context(), store.Config{Engine: engine, Tables: tables()}, in, "restore")
	if err != nil {
		engine.Close()
		return damagedf("take another backup", "restoring %s: %v", file, err)
	}
	defer book.Close()
	bar := newBar(cmd, "check")
	err = book.Check(cmd.Context(), bar.set)
	bar.end()
	if err != nil {
		return damagedf("take another backup", "the restored book is not whole: %v", err)
	}
	tree, err := book.Tree(cmd.Context())
	if err != nil {
		return err
	}
	if dry {
		g.tell(cmd.OutOrStdout(), "ok: the backup restores to epoch %d with %d events and is whole; nothing was changed", book.Epoch(), tree.Size)
		return nil
	}
	if err := book.Close(); err != nil {
		return err
	}
	aside := ""
	if _, err := os.Stat(conf.bookPath()); err == nil {
		aside = fmt.Sprintf("%s.before-epoch-%d", conf.bookPath(), book.Epoch())
		if err := os.Rename(conf.bookPath(), aside); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, conf.bookPath()); err != nil {
		return err
	}
	g.tell(cmd.OutOrStdout(), "restored: epoch %d begins after event %d", book.Epoch(), tree.Size)
	if aside != "" {
		g.tell(cmd.OutOrStdout(), "the book before it is kept at %s", aside)
	}
	return nil
}
