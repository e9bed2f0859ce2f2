package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newCRLCommand(g *globals) *cobra.Command {
	return group("crl", "Certificate revocation lists: list, publish, import, check", newCRLList(g), newCRLPublish(g), newCRLImport(g), newCRLCheck(g))
}

func newCRLList(g *globals) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "The newest CRL of each CA and shard, with the deltas, and which of them run out", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			all, err := cl.CRLs(ctx)
			if err != nil {
				return err
			}
			t := &table{heads: []string{"CA", "shard", "kind", "number", "entries", "made", "next", "state", "octets"}}
			for i := range all {
				l := &all[i]
				t.add(l.CA, shardOf(l), kindOf(l), num(l.Number), num(l.Entries), when(l.ThisUpdate), when(l.NextUpdate), g.stateOf(l), num(l.Size))
			}
			return g.show(cmd, all, t)
		})}
}

func shardOf(l *client.CRL) string {
	if l.Shard == 0 {
		return ""
	}
	return strconv.Itoa(l.Shard)
}

func kindOf(l *client.CRL) string {
	if l.Delta {
		return "delta"
	}
	return "full"
}

func (g *globals) stateOf(l *client.CRL) string {
	if l.Ending {
		return g.say("runs out")
	}
	return g.say("good")
}

func newCRLPublish(g *globals) *cobra.Command {
	return &cobra.Command{Use: "publish CA", Short: "Sign and publish the CRL of a CA now, with those of its shards and the deltas", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			l, err := cl.PublishCRL(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showCRL(cmd, l)
		})}
}

func newCRLImport(g *globals) *cobra.Command {
	var ca string
	c := &cobra.Command{Use: "import FILE", Short: "Publish a CRL that was signed elsewhere, such as the root's",
		Long: `Publish the CRL of a CA whose key no node holds: the root's, which is signed in
a ceremony offline. FILE is the list in DER or PEM. The node takes it when the
CA signed it, it is a full list that holds now, and its number is higher than
that of the list before; it is then served and goes to the directories like any
other.`,
		Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&ca, "ca", "root", "the `ID` of the CA that signed it")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		der, err := readDER(cmd, args[0], "X509 CRL")
		if err != nil {
			return err
		}
		l, err := cl.ImportCRL(ctx, ca, der)
		if err != nil {
			return err
		}
		return g.showCRL(cmd, l)
	})
	return c
}

func (g *globals) showCRL(cmd *cobra.Command, l *client.CRL) error {
	return g.showFields(cmd, l, []field{{"CA", l.CA}, {"number", num(l.Number)}, {"entries", num(l.Entries)}, {"made", when(l.ThisUpdate)}, {"next", when(l.NextUpdate)}, {"sum", l.Sum}})
}
