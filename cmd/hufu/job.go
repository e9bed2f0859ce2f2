package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newJobCommand(g *globals) *cobra.Command {
	return group("job", "Long work: list, show, watch, cancel", newJobList(g), newJobShow(g), newJobWatch(g), newJobCancel(g))
}

func newJobList(g *globals) *cobra.Command {
	var limit int
	c := &cobra.Command{Use: "list", Short: "Jobs, newest first", Args: cobra.NoArgs}
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Job{}
		t := &table{heads: []string{"job", "kind", "state", "done", "failures", "actor", "started"}}
		err := limited(cl.Jobs(ctx), limit, func(j *client.Job) {
			rows = append(rows, j)
			t.add(j.ID, j.Kind, j.State, fmt.Sprintf("%d/%d", j.Done, j.Total), num(j.Failures), j.Actor, when(j.Created))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func (g *globals) showJob(cmd *cobra.Command, j *client.Job) error {
	return g.showFields(cmd, j, []field{{"job", j.ID}, {"kind", j.Kind}, {"state", j.State}, {"done", fmt.Sprintf("%d/%d", j.Done, j.Total)},
		{"failures", num(j.Failures)}, {"error", j.Error}, {"actor", j.Actor}, {"started", when(j.Created)}, {"updated", when(j.Updated)}})
}

func newJobShow(g *globals) *cobra.Command {
	var failed, items bool
	c := &cobra.Command{Use: "show JOB", Short: "One job, and its results with --items", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&items, "items", false, "the result for each item")
	c.Flags().BoolVar(&failed, "failed", false, "the items that failed")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		j, err := cl.Job(ctx, args[0])
		if err != nil {
			return err
		}
		if !items && !failed {
			return g.showJob(cmd, j)
		}
		rows := []*client.JobItem{}
		t := &table{heads: []string{"item", "name", "result"}}
		err = limited(cl.JobItems(ctx, j.ID), 0, func(it *client.JobItem) {
			if failed && it.OK {
				return
			}
			rows = append(rows, it)
			result := it.Error
			if it.OK {
				result = string(it.Result)
			}
			t.add(num(it.N), it.Name, result)
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func newJobWatch(g *globals) *cobra.Command {
	return &cobra.Command{Use: "watch JOB", Short: "Follow a job to its end", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			j, err := g.watch(ctx, cmd, cl, args[0])
			if j == nil {
				return err
			}
			return errors.Join(err, g.showJob(cmd, j))
		})}
}

func newJobCancel(g *globals) *cobra.Command {
	return &cobra.Command{Use: "cancel JOB", Short: "Ask a job to stop; what is done stays done", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			j, err := cl.CancelJob(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showJob(cmd, j)
		})}
}
