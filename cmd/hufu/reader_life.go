package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newReaderBind(g *globals) *cobra.Command {
	var release bool
	c := &cobra.Command{
		Use:   "bind NUMBER [CUSTOMER]",
		Short: "Bind a reader to a customer, or release it",
		Long: `Bind a reader to a customer.

CUSTOMER is an opaque word of your own system: no name, no card number. It stands in
the register and never in the journal, so that a binding can be forgotten.`,
		Args: cobra.RangeArgs(1, 2),
	}
	c.Flags().BoolVar(&release, "release", false, "bind it to nobody")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		if release != (len(args) == 1) {
			return usagef("name a customer, or give --release", "the reader is to be bound to one customer, or to nobody")
		}
		b := client.Binding{}
		if !release {
			b.Customer = args[1]
		}
		r, err := cl.BindReader(ctx, args[0], b)
		if err != nil {
			return err
		}
		return g.showFields(cmd, r, readerFields(r))
	})
	return c
}

func newReaderReplace(g *globals) *cobra.Command {
	b := client.Replacement{}
	c := &cobra.Command{
		Use:   "replace NUMBER",
		Short: "End a reader and give its customer to another one",
		Long: `End a reader and give its customer to another one, which is active and of the
same city. The old reader's certificates are revoked (reason 4, superseded, unless
--reason says otherwise); one that was revoked before keeps that reason.`,
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&b.By, "by", "", "the `number` of the reader that takes its place")
	reason := reasonFlag(c, "superseded")
	f.StringVar(&b.Note, "note", "", "a few words for the history")
	c.MarkFlagRequired("by")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		var err error
		if b.Reason, err = reason(); err != nil {
			return err
		}
		if err := g.sure(cmd, fmt.Sprintf(g.say("ending reader %s for ever, in favour of %s"), args[0], b.By), "replace"); err != nil {
			return err
		}
		r, err := cl.ReplaceReader(ctx, args[0], b)
		if err != nil {
			return err
		}
		return g.showFields(cmd, r, readerFields(r))
	})
	return c
}

// reasonFlag adds the reason of a revocation to c, by its name.
func reasonFlag(c *cobra.Command, unless string) func() (int, error) {
	var word string
	c.Flags().StringVar(&word, "reason", unless, "the `reason` of the revocation: "+strings.Join(sortedKeys(reasons), ", "))
	c.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(sortedKeys(reasons), cobra.ShellCompDirectiveNoFileComp))
	return func() (int, error) {
		code, ok := reasons[word]
		if !ok {
			return 0, usagef("one of: "+strings.Join(sortedKeys(reasons), ", "), "there is no revocation reason %q", word)
		}
		return code, nil
	}
}

func newReaderRetire(g *globals) *cobra.Command {
	n := client.Note{}
	c := &cobra.Command{Use: "retire NUMBER", Short: "End a reader that nothing replaces, and all its certificates", Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&n.Note, "note", "", "a few words for the history")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		if err := g.sure(cmd, fmt.Sprintf(g.say("ending reader %s for ever"), args[0]), "retire"); err != nil {
			return err
		}
		r, err := cl.RetireReader(ctx, args[0], n)
		if err != nil {
			return err
		}
		return g.showFields(cmd, r, readerFields(r))
	})
	return c
}

func newReaderExpiring(g *globals) *cobra.Command {
	q := client.ReaderQuery{}
	var days, limit int
	c := &cobra.Command{Use: "expiring", Short: "Readers whose pair ends soon, the first to end first", Args: cobra.NoArgs}
	f := c.Flags()
	f.IntVar(&days, "within", 90, "ends within so many `days`, or has ended")
	f.StringVar(&q.City, "city", "", "of this city")
	f.StringVar(&q.Model, "model", "", "of this model")
	f.IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		q.ExpiresBefore = time.Now().AddDate(0, 0, days)
		return g.showReaders(ctx, cmd, cl, q, limit)
	})
	return c
}

// showReaders lists what a query finds.
func (g *globals) showReaders(ctx context.Context, cmd *cobra.Command, cl *client.Client, q client.ReaderQuery, limit int) error {
	rows := []*client.Reader{}
	t := &table{heads: []string{"number", "city", "state", "model", "firmware", "batch", "customer", "ends", "signing"}}
	err := limited(cl.Readers(ctx, q), limit, func(r *client.Reader) {
		rows = append(rows, r)
		end := ""
		if !r.NotAfter.IsZero() {
			end = r.NotAfter.UTC().Format(time.DateOnly)
		}
		t.add(r.Number, r.City, r.State, r.Model, r.Firmware, r.Batch, r.Customer, end, short(r.Sign))
	})
	if err != nil {
		return err
	}
	return g.show(cmd, rows, t)
}
