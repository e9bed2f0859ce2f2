package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/readers/stage1"
)

func newModelCommand(g *globals) *cobra.Command {
	return group("model", "Models of readers and their approvals", newModelAdd(g), newModelList(g), newModelShow(g), newModelWithdraw(g))
}

// onDay reads a day as the moment at which it begins, UTC.
func onDay(flag, value string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, value)
	if err != nil {
		return t, usagef("write it as 2027-12-31", "--%s %q is not a day", flag, value)
	}
	return t, nil
}

func newModelAdd(g *globals) *cobra.Command {
	m := client.Model{}
	var tested, until string
	c := &cobra.Command{Use: "add NAME", Short: "Record an approved model, or a new approval of a known one", Args: cobra.ExactArgs(1),
		Example: "  hufu model add XF-100 --maker 'Hangzhou Readers' --approval CN-2026-017 --until 2029-12-31 --firmware 1.2.0"}
	f := c.Flags()
	f.StringVar(&m.Maker, "maker", "", "who makes it")
	f.StringVar(&m.Approval, "approval", "", "the `number` of the approval")
	f.StringVar(&tested, "tested", "", "the `day` of the test")
	f.StringVar(&until, "until", "", "the `day` on which the approval lapses")
	f.StringSliceVar(&m.Firmware, "firmware", nil, "a `version` that was tested; none means any")
	c.MarkFlagRequired("maker")
	c.MarkFlagRequired("approval")
	c.MarkFlagRequired("until")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) (err error) {
		m.Name = args[0]
		if m.Until, err = onDay("until", until); err != nil {
			return err
		}
		if tested != "" {
			if m.Tested, err = onDay("tested", tested); err != nil {
				return err
			}
		}
		added, err := cl.AddModel(ctx, m)
		if err != nil {
			return err
		}
		return g.showModel(cmd, added)
	})
	return c
}

func (g *globals) showModel(cmd *cobra.Command, m *client.Model) error {
	return g.showFields(cmd, m, []field{{"model", m.Name}, {"maker", m.Maker}, {"state", m.State}, {"approval", m.Approval}, {"firmware", strings.Join(m.Firmware, ", ")},
		{"tested", when(m.Tested)}, {"lapses", when(m.Until)}, {"withdrawn", when(m.Withdrawn)}, {"note", m.Note}, {"event", num(m.Seq)}})
}

func newModelList(g *globals) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "The models by name", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			rows := []*client.Model{}
			t := &table{heads: []string{"model", "maker", "state", "approval", "firmware", "lapses"}}
			err := limited(cl.Models(ctx), 0, func(m *client.Model) {
				rows = append(rows, m)
				t.add(m.Name, m.Maker, m.State, m.Approval, strings.Join(m.Firmware, ", "), when(m.Until))
			})
			if err != nil {
				return err
			}
			return g.show(cmd, rows, t)
		})}
}

func newModelShow(g *globals) *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "One model", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			m, err := cl.Model(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showModel(cmd, m)
		})}
}

func newModelWithdraw(g *globals) *cobra.Command {
	n := client.Note{}
	c := &cobra.Command{Use: "withdraw NAME", Short: "End a model: no more readers of it come in", Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&n.Note, "note", "", "a few words for the history")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		m, err := cl.WithdrawModel(ctx, args[0], n)
		if err != nil {
			return err
		}
		return g.showModel(cmd, m)
	})
	return c
}

func newManifestCommand(g *globals) *cobra.Command {
	return group("manifest", "Makers' manifests: check, import, list, show", newManifestCheck(g), newManifestImport(g), newManifestList(g), newManifestShow(g))
}

// readManifest reads a manifest's file; - is standard input.
func readManifest(cmd *cobra.Command, path string) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("name the maker's CSV file", "reading a manifest: %v", err)
		}
		defer f.Close()
		in = f
	}
	file, err := io.ReadAll(io.LimitReader(in, stage1.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(file) > stage1.MaxManifest {
		return nil, usagef("split it into several manifests", "%s has more than %d octets", path, stage1.MaxManifest)
	}
	return file, nil
}

func newManifestCheck(g *globals) *cobra.Command {
	var encoding string
	var node bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Tell every fault of a manifest at once; works alone",
		Long: `Tell every fault of a maker's manifest at once: columns, numbers, keys, certificate
requests, and what stands there twice. It works alone; with --node the node holds
the file against its models, its register and its certificates too. Nothing is
taken in.

The file is CSV in UTF-8 or GB18030. Its columns are number, model, firmware,
approval, and key or csr, in any order, or in Chinese 编号, 型号, 固件, 批准号, 公钥
and 证书请求. A key is a SubjectPublicKeyInfo, a csr a PKCS#10 request, both in
base64 or hexadecimal.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&encoding, "encoding", "", "utf-8 or gb18030; absent means find out")
	c.Flags().BoolVar(&node, "node", false, "ask the node too")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := readManifest(cmd, args[0])
		if err != nil {
			return err
		}
		sheet, err := stage1.ReadManifest(file, encoding)
		faults := new(stage1.Faults)
		if errors.As(err, &faults) {
			list := &client.Faults{Total: faults.Total}
			for _, f := range faults.List {
				list.List = append(list.List, client.Fault{Row: f.Row, Column: f.Column, Value: f.Value, Reason: f.Reason, Remedy: f.Remedy})
			}
			return g.faulty(cmd, list)
		}
		report := &client.ManifestReport{Readers: len(sheet.Rows), Encoding: sheet.Encoding, SHA256: sheet.Sum.String()}
		if !node {
			return g.showReport(cmd, report)
		}
		return g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			report, err := cl.CheckManifest(ctx, client.ManifestRequest{Name: filepath.Base(args[0]), Encoding: encoding, File: file})
			if err != nil {
				return g.maybeFaulty(cmd, err)
			}
			return g.showReport(cmd, report)
		})(cmd, args)
	}
	return c
}

func (g *globals) showReport(cmd *cobra.Command, r *client.ManifestReport) error {
	return g.showFields(cmd, r, []field{{"readers", num(r.Readers)}, {"encoding", r.Encoding}, {"SHA-256", r.SHA256}, {"faults", "0"}})
}

// maybeFaulty shows the faults that a node found in a manifest.
func (g *globals) maybeFaulty(cmd *cobra.Command, err error) error {
	var p *client.Problem
	if errors.As(err, &p) && p.Manifest != nil {
		return g.faulty(cmd, p.Manifest)
	}
	return err
}

// faulty shows the faults of a manifest, and is an error.
func (g *globals) faulty(cmd *cobra.Command, f *client.Faults) error {
	t := &table{heads: []string{"line", "column", "value", "fault", "remedy"}}
	for _, x := range f.List {
		t.add(num(x.Row), x.Column, x.Value, x.Reason, x.Remedy)
	}
	if err := g.show(cmd, f, t); err != nil {
		return err
	}
	return damagedf("have the maker put right what is listed, and send the whole file again", "the manifest has %d faults; nothing of it was taken in", f.Total)
}

func newManifestImport(g *globals) *cobra.Command {
	r := client.ManifestRequest{}
	var detach bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take a manifest in, as a whole or not at all, and certify its device keys",
		Long: `Take a maker's manifest in, as a whole or not at all, and certify its device keys in
a job. Where it was interrupted, import the same file again: it goes on with what is
missing, and no reader comes in twice. hufu manifest check tells the form of the file.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&r.Encoding, "encoding", "", "utf-8 or gb18030; absent means find out")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait for the job")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) (err error) {
		if r.File, err = readManifest(cmd, args[0]); err != nil {
			return err
		}
		r.Name = filepath.Base(args[0])
		m, err := cl.ImportManifest(ctx, r)
		if err != nil {
			return g.maybeFaulty(cmd, err)
		}
		if !detach {
			if err := g.finishJob(ctx, cmd, cl, m.Job); err != nil {
				return err
			}
			if m, err = cl.Manifest(ctx, m.ID); err != nil {
				return err
			}
		}
		return g.showManifest(cmd, m)
	})
	return c
}

// finishJob waits for a job that must do all that it was asked.
func (g *globals) finishJob(ctx context.Context, cmd *cobra.Command, cl *client.Client, id string) error {
	j, err := g.watch(ctx, cmd, cl, id)
	if err != nil {
		return err
	}
	switch {
	case j.State != "done":
		return &hinted{err: fmt.Errorf("job %s is %s: %s", id, j.State, j.Error), hint: "see its items: hufu job show " + id + " --failed", code: exitConflict}
	case j.Failures > 0:
		return &hinted{err: fmt.Errorf("%d of %d readers were refused", j.Failures, j.Total), hint: "see why: hufu job show " + id + " --failed", code: exitConflict}
	}
	return nil
}

func (g *globals) showManifest(cmd *cobra.Command, m *client.Manifest) error {
	return g.showFields(cmd, m, []field{{"manifest", m.ID}, {"file", m.Name}, {"readers", num(m.Readers)}, {"prepared", num(m.Prepared)}, {"encoding", m.Encoding},
		{"SHA-256", m.SHA256}, {"actor", m.Actor}, {"time", when(m.Time)}, {"job", m.Job}, {"event", num(m.Seq)}})
}

func newManifestList(g *globals) *cobra.Command {
	var limit int
	c := &cobra.Command{Use: "list", Short: "Manifests, newest first", Args: cobra.NoArgs}
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Manifest{}
		t := &table{heads: []string{"manifest", "file", "readers", "prepared", "actor", "time"}}
		err := limited(cl.Manifests(ctx), limit, func(m *client.Manifest) {
			rows = append(rows, m)
			t.add(m.ID, m.Name, num(m.Readers), num(m.Prepared), m.Actor, when(m.Time))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func newManifestShow(g *globals) *cobra.Command {
	return &cobra.Command{Use: "show MANIFEST", Short: "One manifest and how far it is", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			m, err := cl.Manifest(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showManifest(cmd, m)
		})}
}
