package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newReaderCommand(g *globals) *cobra.Command {
	return group("reader", "Readers: issue pairs, search, bind, suspend, resume, replace, revoke, retire, many at once",
		newReaderIssue(g), newReaderBatch(g), newReaderList(g), newReaderExpiring(g), newReaderShow(g), newReaderBind(g),
		newReaderState(g, "suspend"), newReaderState(g, "resume"), newReaderReplace(g), newReaderRevoke(g), newReaderRetire(g), newReaderMass(g))
}

func newReaderIssue(g *globals) *cobra.Command {
	r := client.PairRequest{}
	var out string
	c := &cobra.Command{
		Use:   "issue CSR",
		Short: "Issue a reader's two certificates",
		Long: `Issue a reader's two certificates: one that signs, one that only decrypts.

The request is the signing key's; it carries the encryption key in the extension
1.3.6.1.4.1.32473.1.4.1, so that the request's signature covers both keys.`,
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&r.Number, "number", "", "the reader's number")
	f.StringVar(&r.City, "city", "", "the reader's city")
	f.StringVar(&r.Model, "model", "", "the maker's model")
	f.StringVar(&out, "out", "", "write the pair and its chain to this `file`")
	c.MarkFlagRequired("number")
	c.MarkFlagRequired("city")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		var err error
		if r.CSR, err = readDER(cmd, args[0], "CERTIFICATE REQUEST"); err != nil {
			return err
		}
		reader, err := cl.IssuePair(ctx, r)
		if err != nil {
			return err
		}
		var ders [][]byte
		for _, c := range reader.Certificates {
			ders = append(ders, c.DER)
		}
		return g.deliver(ctx, cmd, cl, reader.CA, out, reader, ders...)
	})
	return c
}

func newReaderBatch(g *globals) *cobra.Command {
	b := client.BatchRequest{}
	c := &cobra.Command{
		Use:   "batch DIR",
		Short: "Issue pairs for every NUMBER.csr in a folder, as one job",
		Args:  cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&b.City, "city", "", "the readers' city")
	c.MarkFlagRequired("city")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		files, err := filepath.Glob(filepath.Join(args[0], "*.csr"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return usagef("each request is a file named after its reader: 000017.csr", "%s holds no .csr files", args[0])
		}
		for _, f := range files {
			der, err := readDER(cmd, f, "CERTIFICATE REQUEST")
			if err != nil {
				return err
			}
			b.Readers = append(b.Readers, client.PairRequest{Number: strings.TrimSuffix(filepath.Base(f), ".csr"), City: b.City, CSR: der})
		}
		j, err := cl.IssueBatch(ctx, b)
		if err != nil {
			return err
		}
		if j, err = g.watch(ctx, cmd, cl, j.ID); err != nil {
			return err
		}
		if err := g.showJob(cmd, j); err != nil {
			return err
		}
		if j.Failures > 0 {
			return &hinted{err: fmt.Errorf("%d of %d readers got no pair", j.Failures, j.Total), hint: "see why: hufu job show " + j.ID + " --failed", code: exitConflict}
		}
		return nil
	})
	return c
}

func newReaderList(g *globals) *cobra.Command {
	q := client.ReaderQuery{}
	var limit int
	c := &cobra.Command{Use: "list", Short: "Search readers", Args: cobra.NoArgs}
	f := c.Flags()
	f.StringVar(&q.City, "city", "", "of this city")
	f.StringVar(&q.State, "state", "", "in this `state`: manufactured, prepared, allotted, initialised, active, suspended, replaced, revoked, retired")
	f.StringVar(&q.Number, "number", "", "whose number begins so")
	f.StringVar(&q.Model, "model", "", "of this model")
	f.StringVar(&q.Firmware, "firmware", "", "with this firmware")
	f.StringVar(&q.Batch, "batch", "", "of this maker's manifest")
	f.StringVar(&q.Customer, "customer", "", "bound to this customer")
	f.StringVar(&q.Ticket, "ticket", "", "on this ticket")
	f.IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		return g.showReaders(ctx, cmd, cl, q, limit)
	})
	return c
}

func readerFields(r *client.Reader) []field {
	fields := []field{{"number", r.Number}, {"city", r.City}, {"state", r.State}, {"model", r.Model}}
	for _, f := range []field{
		{"firmware", r.Firmware}, {"model's approval", r.Approval}, {"batch", r.Batch}, {"ticket", r.Ticket}, {"customer", r.Customer},
		{"device", r.DeviceSerial}, {"in place of", r.Predecessor}, {"replaced by", r.Successor},
	} {
		if f.value != "" {
			fields = append(fields, f)
		}
	}
	fields = append(fields, []field{{"CA", r.CA}, {"signing", r.Sign}, {"encryption", r.Encrypt}, {"ends", when(r.NotAfter)}}...)
	if r.NextSign != "" {
		fields = append(fields, []field{{"next signing", r.NextSign}, {"next encryption", r.NextEncrypt}}...)
	}
	fields = append(fields, field{"event", num(r.Seq)})
	for _, h := range r.History {
		fields = append(fields, field{"history", strings.Join(strings.Fields(when(h.Time)+" "+h.Step+" "+h.From+" → "+h.To+" "+h.Actor+" "+h.Note), " ")})
	}
	return fields
}

func newReaderShow(g *globals) *cobra.Command {
	return &cobra.Command{Use: "show NUMBER", Short: "One reader, its pair and its history", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			r, err := cl.Reader(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showFields(cmd, r, readerFields(r))
		})}
}

func newReaderState(g *globals, verb string) *cobra.Command {
	n := client.Note{}
	c := &cobra.Command{Use: verb + " NUMBER", Short: map[string]string{"suspend": "Put a reader and both its certificates on hold", "resume": "Lift a reader's hold"}[verb], Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&n.Note, "note", "", "a few words for the history")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		act := cl.SuspendReader
		if verb == "resume" {
			act = cl.ResumeReader
		}
		r, err := act(ctx, args[0], n)
		if err != nil {
			return err
		}
		return g.showFields(cmd, r, readerFields(r))
	})
	return c
}

func newReaderRevoke(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "revoke NUMBER", Short: "Revoke a reader and both its certificates for ever", Args: cobra.ExactArgs(1)}
	read := revocation(c)
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		rev, err := read()
		if err != nil {
			return err
		}
		if err := g.sure(cmd, fmt.Sprintf(g.say("revoking reader %s for ever"), args[0]), "revoke"); err != nil {
			return err
		}
		r, err := cl.RevokeReader(ctx, args[0], rev)
		if err != nil {
			return err
		}
		return g.showFields(cmd, r, readerFields(r))
	})
	return c
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
