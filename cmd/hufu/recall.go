package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/ca"
	"hufu/ldapsync"
	"hufu/readers"
	"hufu/store"
)

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
	taken := map[string]store.State{}
	for _, d := range n.conf.Directories {
		if slices.Contains(names, d.Name) {
			if err := g.recallFrom(cmd, n, d, key, taken); err != nil {
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

// recallFrom brings back what one directory knows. taken are the states that
// earlier directories gave.
func (g *globals) recallFrom(cmd *cobra.Command, n *node, d DirectoryConfig, key crypto.PublicKey, taken map[string]store.State) error {
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
	noMilder(r, taken)
	if err := r.Commit(ctx, n.book, "restore", ca.Adopt); err != nil {
		return err
	}
	halves, err := n.adopt(ctx, r)
	if err != nil {
		return err
	}
	g.tell(w, "directory %s: %d certificates, %d statuses and %d CRLs came back", r.Directory, len(r.Certificates), len(r.Statuses), len(r.CRLs))
	if !r.Verified {
		g.tell(w, "directory %s does not hold what a signed statement says: its writer died under load, or somebody else wrote there; compare it with another directory", r.Directory)
	}
	for _, k := range r.Kept {
		g.tell(w, "  stays in the directory alone: %s", k)
	}
	for _, note := range append(r.Notes, halves...) {
		g.tell(w, "  %s", note)
	}
	return nil
}

// adopt brings in line what stands above the certificates that came back: the
// readers. It tells of those of which half a pair came back.
func (n *node) adopt(ctx context.Context, r *ldapsync.Recalled) (halves []string, err error) {
	authority, err := ca.New(ca.Config{Book: n.book, Node: n.conf.Node})
	if err != nil {
		return nil, err
	}
	register := readers.New(readers.Config{Book: n.book, Authority: authority, Domain: n.conf.Domain})
	numbers := map[string]bool{}
	for batch := range slices.Chunk(r.Statuses, 200) {
		err := n.book.View(ctx, func(tx *store.Tx) error {
			for _, s := range batch {
				cert, err := store.FindCertificate(tx, s.CA, s.Serial)
				if errors.Is(err, store.ErrNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if strings.HasPrefix(cert.Profile, "reader-") || cert.Profile == "device" {
					numbers[cert.Reader] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking for the readers that came back: %w", err)
		}
	}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(numbers)), 200) {
		var told []string
		err := n.book.Update(ctx, func(tx *store.Tx) error {
			told = nil
			for _, number := range batch {
				half := new(readers.PairError)
				if err := register.Adopt(tx, number, "restore"); errors.As(err, &half) {
					told = append(told, half.Error())
				} else if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("bringing the readers in line: %w", err)
		}
		halves = append(halves, told...)
	}
	return halves, nil
}

// heedLists makes what a directory's entries say as strict as the CRLs beside
// them. A list is signed by its CA; an entry may have been written before the
// list, or by somebody else.
func heedLists(tx *store.Tx, r *ldapsync.Recalled) error {
	recalled := map[string]*store.Status{}
	for _, s := range r.Statuses {
		recalled[string(store.SerialKey(s.CA, s.Serial))] = s
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
			s := recalled[string(store.SerialKey(c.CRL.CA, serial))]
			known := s != nil
			if !known {
				s, err = store.Statuses.Get(tx, store.SerialKey(c.CRL.CA, serial))
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
		_, e := store.Intents.Get(tx, store.SerialKey(s.CA, s.Serial))
		if e != nil && !errors.Is(e, store.ErrNotFound) {
			err = e
		}
		return e == nil
	})
	return err
}

// noMilder leaves out what would undo a hold or a revocation that came from
// another directory: which of the two knows the later state cannot be told, and
// a hold that should not be is lifted by a person.
func noMilder(r *ldapsync.Recalled, taken map[string]store.State) {
	r.Statuses = slices.DeleteFunc(r.Statuses, func(s *store.Status) bool {
		key := string(store.SerialKey(s.CA, s.Serial))
		if s.State < taken[key] {
			r.Notes = append(r.Notes, fmt.Sprintf("certificate %s of CA %s is %s here and %s in another directory; the stricter holds", s.Serial, s.CA, s.State, taken[key]))
			return true
		}
		taken[key] = s.State
		return false
	})
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
