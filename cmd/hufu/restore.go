package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hufu/ca"
	"hufu/ldapsync"
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
		return damagedf("take another backup", "restoring %s: %v", file, err)
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
		return damagedf("take another backup", "the restored book is not whole: %v", err)
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

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// recall brings back what directories know and the restored book does not.
func (g *globals) recall(cmd *cobra.Command, n *node, names []string) error {
	ctx := cmd.Context()
	key, err := n.checkpointKey(ctx)
	if err != nil {
		return err
	}
	if n.root, err = caRecord(ctx, n.book, "root"); err != nil {
		return err
	}
	for _, d := range n.conf.Directories {
		if slices.Contains(names, d.Name) {
			if err := g.recallFrom(cmd, n, d, key); err != nil {
				return err
			}
		}
	}
	g.tell(cmd.OutOrStdout(), "in no directory are officers, approvals, jobs and loads: look through them with hufu officer list and hufu topup list")
	ahead, err := n.ahead(ctx, key)
	for _, a := range ahead {
		g.tell(cmd.OutOrStdout(), "directory %s still knows more, and the node will not start: %s; restore again with --from-directory %s besides", a.Directory, a.Reason, a.Directory)
	}
	return err
}

// checkpointKey is the public half of the key that signs the statements in
// directories: from its file, or from the token.
func (n *node) checkpointKey(ctx context.Context) (crypto.PublicKey, error) {
	file := n.conf.path("checkpoint.pem")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return readPublicKey(file)
	}
	if err := n.openKeys(ctx); err != nil {
		return nil, err
	}
	if n.checkpoint == nil {
		return nil, usagef("put checkpoint.pem, which auditors keep, into the data folder", "neither the data folder nor the token holds the checkpoint key, without which no directory can be believed")
	}
	return n.checkpoint.Public(), nil
}

// reading is a directory for who only reads it: without a client certificate.
func (n *node) reading(d DirectoryConfig) (ldapsync.Directory, error) {
	dir, err := n.directory(d, nil)
	if err == nil {
		dir.TLS.GetClientCertificate = nil
	}
	return dir, err
}

func (g *globals) recallFrom(cmd *cobra.Command, n *node, d DirectoryConfig, key crypto.PublicKey) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	dir, err := n.reading(d)
	if err != nil {
		return err
	}
	r, err := ldapsync.Recall(ctx, dir, n.book, key)
	if err != nil {
		return &hinted{err: err, hint: "the directory must run and be readable, under directories.url of the configuration; nothing was restored", code: exitUnready}
	}
	err = n.book.View(ctx, func(tx *store.Tx) error {
		if err := heedLists(tx, r); err != nil {
			return err
		}
		return leaveOpen(tx, r)
	})
	if err != nil {
		return err
	}
	if err := r.Commit(ctx, n.book, "restore", ca.Adopt); err != nil {
		return err
	}
	g.tell(w, "directory %s: %d certificates, %d statuses and %d CRLs came back", r.Directory, len(r.Certificates), len(r.Statuses), len(r.CRLs))
	if !r.Verified {
		g.tell(w, "directory %s does not hold what its last signed statement says: its writer died under load, or somebody else wrote there; compare it with another directory", r.Directory)
	}
	for _, k := range r.Kept {
		g.tell(w, "  stays in the directory alone: %s", k)
	}
	for _, note := range r.Notes {
		g.tell(w, "  %s", note)
	}
	return nil
}

// heedLists makes what a directory's entries say as strict as the CRLs beside
// them. A list is signed by its CA; an entry may have been written before the
// list, or by somebody else.
func heedLists(tx *store.Tx, r *ldapsync.Recalled) error {
	recalled := map[string]*store.Status{}
	for _, s := range r.Statuses {
		recalled[string(store.Key(s.CA, s.Serial))] = s
	}
	for _, c := range r.CRLs {
		list, err := x509.ParseRevocationList(c.DER)
		if err != nil {
			return fmt.Errorf("parsing the CRL of CA %s: %w", c.CRL.CA, err)
		}
		authority, err := store.CAs.Get(tx, store.Key(c.CRL.CA))
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(authority.Certificate)
		if err != nil {
			return fmt.Errorf("parsing the certificate of CA %s: %w", c.CRL.CA, err)
		}
		for i := range list.RevokedCertificateEntries {
			e := &list.RevokedCertificateEntries[i]
			serial, err := store.SerialFrom(e.SerialNumber)
			if err != nil {
				continue // no certificate of this book has such a number
			}
			s := recalled[string(store.Key(c.CRL.CA, serial))]
			known := s != nil
			if !known {
				s, err = store.Statuses.Get(tx, store.Key(c.CRL.CA, serial))
				if errors.Is(err, store.ErrNotFound) {
					// No certificate came back. Its number stays on the lists for
					// as long as it could have been valid.
					s, err = &store.Status{CA: c.CRL.CA, Serial: serial, Unissued: true, NotAfter: cert.NotAfter.UTC()}, nil
				}
				if err != nil {
					return err
				}
			}
			if stricter(s, e) && !known {
				r.Statuses = append(r.Statuses, s)
			}
		}
	}
	return nil
}

// stricter takes the entry of a CRL over into s if it is the stricter one. A
// hold counts only if it did not end before s was reached.
func stricter(s *store.Status, e *x509.RevocationListEntry) bool {
	const certificateHold = 6 // RFC 5280, Section 5.3.1
	state := store.Revoked
	if e.ReasonCode == certificateHold {
		state = store.Held
	}
	if s.State >= state || state == store.Held && (s.Unissued || e.RevocationTime.Before(s.Time.Truncate(time.Second))) {
		return false
	}
	s.State, s.Reason, s.Time = state, e.ReasonCode, e.RevocationTime.UTC()
	return true
}

// leaveOpen leaves to the node what was under way when the backup was made and
// came to nothing: ca.Recover closes it, with the claim on its key and the
// memory of its order.
func leaveOpen(tx *store.Tx, r *ldapsync.Recalled) (err error) {
	r.Statuses = slices.DeleteFunc(r.Statuses, func(s *store.Status) bool {
		if !s.Unissued || err != nil {
			return false
		}
		_, e := store.Intents.Get(tx, store.Key(s.CA, s.Serial))
		if e != nil && !errors.Is(e, store.ErrNotFound) {
			err = e
		}
		return e == nil
	})
	return err
}

// ahead asks all directories whether they know more than the book.
func (n *node) ahead(ctx context.Context, key crypto.PublicKey) ([]*ldapsync.AheadError, error) {
	var dirs []ldapsync.Directory
	for _, d := range n.conf.Directories {
		dir, err := n.reading(d)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	p, err := ldapsync.New(ldapsync.Config{Book: n.book, Directories: dirs, Key: publicHalf{key}, Node: n.conf.Node, Log: n.log})
	if err != nil {
		return nil, err
	}
	return p.Ahead(ctx), nil
}

// publicHalf is a key that is there for its public half.
type publicHalf struct{ key crypto.PublicKey }

func (p publicHalf) Public() crypto.PublicKey { return p.key }

func (publicHalf) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("only the public half of this key is here")
}
