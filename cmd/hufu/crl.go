package main

import (
	"context"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newCRLCommand(g *globals) *cobra.Command {
	return group("crl", "Certificate revocation lists: list, publish", newCRLList(g), newCRLPublish(g))
}

func newCRLList(g *globals) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "The newest CRL of each CA", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			cas, err := cl.CAs(ctx)
			if err != nil {
				return err
			}
			rows := []*client.CRL{}
			t := &table{heads: []string{"CA", "number", "entries", "made", "next", "octets"}}
			for _, ca := range cas {
				full, err := cl.CA(ctx, ca.ID)
				if err != nil {
					return err
				}
				if l := full.CRL; l != nil {
					rows = append(rows, l)
					t.add(l.CA, num(l.Number), num(l.Entries), when(l.ThisUpdate), when(l.NextUpdate), num(l.Size))
				}
			}
			return g.show(cmd, rows, t)
		})}
}

func newCRLPublish(g *globals) *cobra.Command {
	return &cobra.Command{Use: "publish CA", Short: "Sign and publish a CRL now", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			l, err := cl.PublishCRL(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showFields(cmd, l, []field{{"CA", l.CA}, {"number", num(l.Number)}, {"entries", num(l.Entries)}, {"made", when(l.ThisUpdate)}, {"next", when(l.NextUpdate)}, {"sum", l.Sum}})
		})}
}
