package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/ldapsync"
)

func newDirCommand(g *globals) *cobra.Command {
	return group("dir", "Directories: how far each has followed; the schema they need", newDirStatus(g), newDirSchema())
}

func newDirStatus(g *globals) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Each directory's watermark, lag and state", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			dirs, err := cl.Directories(ctx)
			if err != nil {
				return err
			}
			t := &table{heads: []string{"directory", "state", "epoch", "watermark", "lag", "seconds", "last error"}}
			for _, d := range dirs {
				t.add(d.Name, d.State, num(d.Epoch), num(d.Watermark), num(d.LagChanges), fmt.Sprintf("%.3f", d.LagSeconds), d.LastError)
			}
			return g.show(cmd, dirs, t)
		})}
}

func newDirSchema() *cobra.Command {
	return &cobra.Command{Use: "schema", Short: "Print the schema that a directory must load (slapd.conf form)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(ldapsync.Schema)
			return err
		}}
}
