package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/ldapsync"
)

func newDirCommand(g *globals) *cobra.Command {
	return group("dir", "Directories: how far each has followed, what differs, and the proof; the schema they need",
		newDirStatus(g), newDirDiff(g), newDirRepair(g), newDirReach(g), newDirVerify(g), newDirSchema())
}

func newDirStatus(g *globals) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Each directory's watermark, lag and state", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			dirs, err := cl.Directories(ctx)
			if err != nil {
				return err
			}
			t := &table{heads: []string{"directory", "state", "in time", "epoch", "watermark", "lag", "seconds", "last error", "notice"}}
			for _, d := range dirs {
				notice := d.Notice
				if notice != "" {
					notice = when(d.NoticeTime) + " " + notice
				}
				t.add(d.Name, g.filling(&d), g.lateness(&d), num(d.Epoch), num(d.Watermark), num(d.LagChanges), fmt.Sprintf("%.3f", d.LagSeconds), d.LastError, notice)
			}
			return g.show(cmd, dirs, t)
		})}
}

// lateness says whether a directory keeps its bounds.
func (g *globals) lateness(d *client.Directory) string {
	switch d.Lateness {
	case "late":
		return g.say("late")
	case "alarming":
		return g.say("alarming")
	}
	return g.say("yes")
}

// filling is the state of a directory, with how far it is where that tells something.
func (g *globals) filling(d *client.Directory) string {
	if d.LagChanges == 0 || d.Applied <= d.From || d.Head <= d.From {
		return d.State
	}
	return fmt.Sprintf("%s %d%%", d.State, 100*(d.Applied-d.From)/(d.Head-d.From))
}

func newDirDiff(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "diff DIR", Short: "Compare a directory with the book, and say what differs; exit code 7 when something is wrong",
		Long: `Compare a directory with the book at the directory's own watermark. The digests
of 65,536 buckets are compared, and the entries of those that differ:

  missing   the book has published the entry, and it is not there
  altered   it is not what the book wrote
  foreign   it says that it is of this book, which does not have it
  behind    it has a change on its way; that is no fault`,
		Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			j, err := cl.DiffDirectory(ctx, args[0])
			if err != nil {
				return err
			}
			d, err := g.found(ctx, cmd, cl, j)
			if err != nil {
				return err
			}
			if n := d.Wrong(); n > 0 {
				return damagedf("hufu dir repair "+d.Directory+" puts it right", "directory %s differs from the book in %d entries", d.Directory, n)
			}
			return nil
		}),
	}
}

func newDirRepair(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "repair DIR", Short: "Compare a directory with the book, and put right what differs",
		Long: `Compare a directory with the book as hufu dir diff does, and put right what
differs: entries that are missing or altered are written anew, and those that
falsely say that they are of this book are taken away. Entries of others are left
alone. The repair is counted, and the journal tells who did it.`,
		Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := g.sure(cmd, fmt.Sprintf("Entries of directory %s that differ from the book are overwritten", args[0]), args[0]); err != nil {
				return err
			}
			j, err := cl.RepairDirectory(ctx, args[0])
			if err != nil {
				return err
			}
			d, err := g.found(ctx, cmd, cl, j)
			if err != nil {
				return err
			}
			if d.Left > 0 {
				return damagedf("the list says why; somebody has to look at them", "%d entries of directory %s were left as they are", d.Left, d.Directory)
			}
			return nil
		}),
	}
}

// found waits for a comparison or a repair, and shows what it found.
func (g *globals) found(ctx context.Context, cmd *cobra.Command, cl *client.Client, j *client.Job) (*client.DirectoryDiff, error) {
	j, err := g.watch(ctx, cmd, cl, j.ID)
	if err != nil && j != nil && j.State == "failed" {
		return nil, &hinted{err: err, hint: "hufu dir status tells how the directory is", code: exitUnready}
	}
	if err != nil {
		return nil, err
	}
	d, err := cl.DirectoryDiff(ctx, j.ID)
	if err != nil {
		return nil, err
	}
	return d, g.showDiff(cmd, d)
}

func (g *globals) showDiff(cmd *cobra.Command, d *client.DirectoryDiff) error {
	if g.output != "table" {
		return g.show(cmd, d, nil)
	}
	err := g.showFields(cmd, d, []field{{"directory", d.Directory}, {"watermark", fmt.Sprintf("%d.%d", d.Epoch, d.Watermark)},
		{"entries", fmt.Sprintf("%d / %d", d.Entries, d.Expected)}, {"missing", num(d.Missing)}, {"altered", num(d.Altered)}, {"foreign", num(d.Foreign)},
		{"behind", num(d.Behind)}, {"repaired", num(d.Repaired)}})
	if err != nil || len(d.Differences) == 0 {
		return err
	}
	t := &table{heads: []string{"kind", "entry", "detail"}}
	for _, x := range d.Differences {
		t.add(g.say(x.Kind), x.Entry, x.Detail)
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return g.show(cmd, nil, t)
}

func newDirReach(g *globals) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "reach SERIAL", Short: "Where a certificate's status is served, by reading it back; exit code 7 where it is not",
		Long: `Read back what every directory, and the OCSP responder and the CRL that the
certificate itself names, say of a certificate, and since when. Answers and lists
are checked against the CA. With --wait, places that do not say what the book
says are asked again, until they do.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().DurationVar(&wait, "wait", 0, "how long to ask again, at most 60s")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		r, err := cl.Reach(ctx, args[0], wait)
		if err != nil {
			return err
		}
		if g.output == "table" {
			g.tell(cmd.OutOrStdout(), "%s has been %s since %s", r.Serial, r.State, when(r.Changed))
		}
		t := &table{heads: []string{"place", "kind", "served", "answer", "since", "seconds", "error"}}
		for _, p := range r.Places {
			served, seconds := g.say("no"), ""
			if p.Served {
				served, seconds = g.say("yes"), fmt.Sprintf("%.3f", p.Seconds)
			}
			t.add(p.Where, p.Kind, served, p.Answer, when(p.At), seconds, p.Error)
		}
		if err := g.show(cmd, r, t); err != nil {
			return err
		}
		if !r.Everywhere {
			return damagedf("hufu dir status tells which directory is behind, hufu dir diff DIR whether somebody else changed it; with --wait it is asked again", "the status of %s is not served everywhere", r.Serial)
		}
		return nil
	})
	return c
}

// proof is what a stranger finds in a directory.
type proof struct {
	Directory string    `json:"directory"`
	Book      string    `json:"book"`
	Epoch     uint64    `json:"epoch"`
	Sequence  uint64    `json:"sequence"`
	Time      time.Time `json:"time"`
	Age       float64   `json:"ageSeconds"`
	Entries   int64     `json:"entries"`
	Digest    string    `json:"digest"`
	Committed string    `json:"committed"`
	OK        bool      `json:"ok"`
	Problem   string    `json:"problem,omitempty"`
}

func newDirVerify(g *globals) *cobra.Command {
	var at, base, book, keyFile, roots string
	var maxAge time.Duration
	var startTLS bool
	c := &cobra.Command{
		Use: "verify --ldap URL --checkpoint-key FILE", Short: "Prove that a directory serves what the CA committed, and how old that is; exit code 7 when not",
		Long: `Prove that a directory serves what the CA committed, and how old that is. Works
alone: it needs the directory, which anyone may read, and the CA's public key. It
reads all entries, computes their digest and compares it with the statement that
the CA signed and keeps in the directory. Whoever trusts none of the servers can
do the same with ldapsearch and SHA-256.

The key is printed by hufu audit key; it lies on a node as data/checkpoint.pem.
Take it from a hand that you trust, not from the directory.`,
		Example: `  hufu audit key > checkpoint.pem
  hufu dir verify --ldap ldap://ldap1.card.example --base o=Hufu,c=CN --checkpoint-key checkpoint.pem --max-age 1m`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&at, "ldap", "", "the directory: ldap:// or ldaps:// `URL`, with the base as its path if --base is not given")
	f.StringVar(&base, "base", "", "the `entry` that everything is published below")
	f.StringVar(&book, "book", "", "identity of the CA's `book`, where the directory holds several that the key signed")
	f.StringVar(&keyFile, "checkpoint-key", "", "the CA's checkpoint key (public key in PEM `file`)")
	f.StringVar(&roots, "roots", "", "roots for ldaps:// or --starttls (PEM `file`); empty = those of this machine")
	f.BoolVar(&startTLS, "starttls", false, "secure an ldap:// connection by StartTLS")
	f.DurationVar(&maxAge, "max-age", 0, "how old the statement may be; 0 = any age")
	c.MarkFlagRequired("ldap")
	c.MarkFlagRequired("checkpoint-key")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		key, err := readPublicKey(keyFile)
		if err != nil {
			return err
		}
		d := ldapsync.Directory{Name: at, URL: at, Base: base, StartTLS: startTLS, TLS: &tls.Config{MinVersion: tls.VersionTLS12}}
		if base == "" {
			u, err := url.Parse(at)
			if err != nil || strings.Trim(u.Path, "/") == "" {
				return usagef("name it with --base, such as --base o=Hufu,c=CN", "the base to look below is not given")
			}
			d.Base = strings.Trim(u.Path, "/")
		}
		if roots != "" {
			if d.TLS.RootCAs, err = readRoots(roots); err != nil {
				return err
			}
		}
		b := newBar(cmd, "verify")
		r, err := ldapsync.Prove(cmd.Context(), d, book, key, b.set)
		b.end()
		if err != nil {
			return proofError(err)
		}
		return g.showProof(cmd, at, r, maxAge)
	}
	return c
}

// proofError tells a directory that cannot be read from one that proves nothing.
func proofError(err error) error {
	var nothing *ldapsync.UnprovenError
	if errors.As(err, &nothing) {
		return damagedf("is it the right key, and the right base? If so, the directory was written to by somebody else, or is being set up", "%v", err)
	}
	return &hinted{err: err, hint: "the directory must run, and let anyone read; see --ldap, --base and --roots", code: exitUnready}
}

func (g *globals) showProof(cmd *cobra.Command, at string, r *ldapsync.Report, maxAge time.Duration) error {
	st := r.Statement
	age := time.Since(st.Time)
	p := proof{Directory: at, Book: st.Book, Epoch: st.Epoch, Sequence: st.Seq, Time: st.Time, Age: age.Seconds(), Entries: r.Entries,
		Digest: r.Digest.String(), Committed: st.Digest.String(), OK: true}
	hint := "changes that the CA committed have not come here; ask its operator for hufu dir status"
	if err := r.Err(); err != nil {
		p.OK, p.Problem = false, err.Error()
		hint = "do not rely on this directory; its operator can see what differs: hufu dir diff"
	} else if maxAge > 0 && age > maxAge {
		p.OK, p.Problem = false, fmt.Sprintf("the statement is %v old, more than %v", age.Round(time.Millisecond), maxAge)
	}
	err := g.showFields(cmd, p, []field{{"directory", p.Directory}, {"book", p.Book}, {"sequence", fmt.Sprintf("%d.%d", p.Epoch, p.Sequence)},
		{"time", when(p.Time)}, {"age", age.Round(time.Millisecond).String()}, {"entries", num(p.Entries)}, {"digest", p.Digest}, {"committed", p.Committed}})
	if err != nil {
		return err
	}
	if !p.OK {
		return damagedf(hint, "%s", p.Problem)
	}
	if g.output == "table" {
		g.tell(cmd.OutOrStdout(), "ok: the directory serves what the CA committed")
	}
	return nil
}

func newDirSchema() *cobra.Command {
	var ldif bool
	c := &cobra.Command{Use: "schema", Short: "Print the schema that a directory must load (slapd.conf form)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema := ldapsync.Schema
			if ldif {
				schema = ldapsync.SchemaLDIF()
			}
			_, err := cmd.OutOrStdout().Write(schema)
			return err
		}}
	c.Flags().BoolVar(&ldif, "ldif", false, "as LDIF for cn=config")
	return c
}
