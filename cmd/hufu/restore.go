package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"hufu/store"
	"hufu/store/bolt"
)

type restoreOptions struct {
	dry  bool
	from []string
}

func newRestoreCommand(g *globals) *cobra.Command {
	o := &restoreOptions{}
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Begin a new epoch of the book from a backup; works alone, with the node stopped",
		Long: `Restore a backup into the configuration's data folder. The old book, if there is
one, is moved aside, never deleted. The restored book begins a new epoch, whose
first event names the last state of the old one.

What was issued or revoked after the backup is not in it, and a node refuses to
start while a directory knows more than its book. --from-directory brings back
what a directory of the configuration knows: certificates, their statuses and
CRLs, each held against the CA that signed it, and readers by their pairs. A
revocation in the directory, or on a CRL there, wins over good in the backup.
What no directory knows is answered as unknown, never as good. The directory is
read as anyone may read it, over TLS, and nothing in it is changed.

No directory knows officers, approvals, jobs and loads: look through these after
the restore.`,
		Example: "  hufu restore monday.hufu --from-directory north --from-directory south",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			return g.restore(cmd, conf, args[0], o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.dry, "dry-run", false, "restore into a temporary file, check it and remove it")
	f.StringArrayVar(&o.from, "from-directory", nil, "bring back what the directory of this `name` knows; may be repeated")
	return c
}

// restore makes the book beside its final place, checks it there, and moves it
// in as the last act: what was interrupted is simply done again.
func (g *globals) restore(cmd *cobra.Command, conf *Config, file string, o *restoreOptions) error {
	ctx := cmd.Context()
	for _, name := range o.from {
		if !slices.ContainsFunc(conf.Directories, func(d DirectoryConfig) bool { return d.Name == name }) {
			return usagef("name one that stands below directories", "the configuration knows no directory %q", name)
		}
	}
	in, err := os.Open(file)
	if err != nil {
		return usagef("name the file that hufu backup wrote", "opening the backup: %v", err)
	}
	defer in.Close()
	temp := conf.bookPath() + ".dry-run"
	if !o.dry {
		temp = conf.bookPath() + ".restore"
		if err := g.sure(cmd, g.say("restoring an older state of the book"), "restore"); err != nil {
			return err
		}
		hold, err := holdBook(conf)
		if err != nil {
			return err
		}
		defer hold.Close()
	}
	if err := os.MkdirAll(conf.Data, 0o700); err != nil {
		return err
	}
	os.Remove(temp)
	defer os.Remove(temp)
	n := &node{conf: conf, log: slog.New(slog.DiscardHandler)}
	defer n.close()
	if n.book, err = readBackup(ctx, temp, in); err != nil {
		return unreadable(file, err)
	}
	if len(o.from) > 0 {
		if err := g.recall(cmd, n, o.from); err != nil {
			return err
		}
	}
	bar := newBar(cmd, "check")
	err = n.book.Check(ctx, bar.set)
	bar.end()
	if err != nil {
		return unreadable(file, err)
	}
	epochs := n.book.Epochs()
	began := epochs[len(epochs)-1]
	if err := n.book.Close(); err != nil {
		return err
	}
	n.book = nil
	if o.dry {
		g.tell(cmd.OutOrStdout(), "ok: the backup restores to epoch %d with %d events and is whole; nothing was changed", began.Epoch, began.Size)
		return nil
	}
	aside, err := moveIn(conf, temp, began.Epoch)
	if err != nil {
		return fmt.Errorf("moving the restored book to its place: %w", err)
	}
	g.tell(cmd.OutOrStdout(), "restored: epoch %d begins after event %d", began.Epoch, began.Size)
	if aside != "" {
		g.tell(cmd.OutOrStdout(), "the book before it is kept at %s", aside)
	}
	return nil
}

// unreadable tells a damaged backup from one of another version and from a
// restore that was stopped.
func unreadable(file string, err error) error {
	var format *store.FormatError
	switch {
	case errors.As(err, &format), errors.Is(err, context.Canceled):
		return fmt.Errorf("restoring %s: %w", file, err)
	}
	return damagedf("take another backup", "restoring %s: %v", file, err)
}

// holdBook keeps every node away from the present book until it is closed. A
// book that is damaged can be held too: it is why people restore.
func holdBook(conf *Config) (io.Closer, error) {
	e, err := bolt.Open(conf.bookPath(), bolt.Options{MustExist: true, ReadOnly: true})
	switch {
	case err == nil:
		return e, nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
		return io.NopCloser(nil), nil
	}
	return nil, &hinted{err: fmt.Errorf("opening the present book: %w", err), hint: "stop the node first", code: exitConflict}
}

func readBackup(ctx context.Context, path string, in io.Reader) (*store.Book, error) {
	engine, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	book, err := store.Restore(ctx, store.Config{Engine: engine, Tables: tables()}, in, "restore")
	if err != nil {
		engine.Close()
	}
	return book, err
}

// moveIn puts the restored book into its place and says where the one before it
// went; a crash between the two renames leaves both under their names.
func moveIn(conf *Config, temp string, epoch uint64) (aside string, err error) {
	if _, err := os.Stat(conf.bookPath()); err == nil {
		aside = fmt.Sprintf("%s.before-epoch-%d", conf.bookPath(), epoch)
		if err := os.Rename(conf.bookPath(), aside); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, conf.bookPath()); err != nil {
		return "", err
	}
	return aside, syncFolder(conf.Data)
}
