package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

// asClient makes a RunE of a function that talks to the node.
func (g *globals) asClient(f func(ctx context.Context, cmd *cobra.Command, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, id, err := g.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer id.close()
		defer c.Close()
		return unreachable(f(cmd.Context(), cmd, c, args))
	}
}

// group makes a command that only holds others.
func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(cmds...)
	return c
}

// limited walks a list and stops after limit rows; 0 is no limit.
func limited[T any](seq func(func(*T, error) bool), limit int, f func(*T)) error {
	n := 0
	for v, err := range seq {
		if err != nil {
			return err
		}
		f(v)
		if n++; limit > 0 && n == limit {
			break
		}
	}
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func num[N int | int64 | uint64](n N) string { return strconv.FormatInt(int64(n), 10) }

func short(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}

// watch shows a job until it is finished and turns its failure into an error.
func (g *globals) watch(ctx context.Context, cmd *cobra.Command, c *client.Client, id string) (*client.Job, error) {
	b := newBar(cmd, id)
	j, err := c.WaitJob(ctx, id, func(j *client.Job) { b.set(j.Done, j.Total) })
	b.end()
	if err != nil {
		return nil, err
	}
	switch j.State {
	case "failed":
		return j, damagedf("", "job %s failed: %s", j.ID, j.Error)
	case "cancelled":
		return j, &hinted{err: fmt.Errorf("job %s was cancelled after %d of %d", j.ID, j.Done, j.Total), code: exitError}
	}
	return j, nil
}
