package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newReaderMass(g *globals) *cobra.Command {
	return group("mass", "Suspend, resume or revoke many readers at once, by a plan",
		newMassPlan(g), newMassShow(g), newMassRun(g))
}

func newMassPlan(g *globals) *cobra.Command {
	s := client.MassSelection{}
	var note, out string
	c := &cobra.Command{
		Use:   "plan suspend|resume|revoke",
		Short: "Look at what it would do, and write it down in a file; nothing is changed",
		Long: `Look at what it would do to suspend, resume or revoke all readers of a city, a
model, a firmware or a batch (any of them together), and write it down in a file.

The plan is of the readers as they are now: it names their count and the hash of
their numbers. Whoever changes state before it is run is left alone then, and named.`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"suspend", "resume", "revoke"},
	}
	f := c.Flags()
	f.StringVar(&s.City, "city", "", "of this city")
	f.StringVar(&s.Model, "model", "", "of this model")
	f.StringVar(&s.Firmware, "firmware", "", "with this firmware; needs --model")
	f.StringVar(&s.Batch, "batch", "", "of this maker's manifest")
	reason := reasonFlag(c, "unspecified")
	f.StringVar(&note, "note", "", "a few words for the history")
	f.StringVar(&out, "out", "", "write the plan to this `file`, which must not exist")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		code, err := reason()
		if err != nil {
			return err
		}
		p, err := cl.PlanMass(ctx, args[0], s, code, note)
		if err != nil {
			return err
		}
		if out != "" {
			raw, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				return err
			}
			if err := writeNew(out, append(raw, '\n'), 0o644); err != nil {
				return usagef("choose another --out", "writing the plan: %v", err)
			}
		}
		if err := g.showPlan(cmd, p); err != nil {
			return err
		}
		if out != "" && g.output == "table" {
			g.tell(cmd.ErrOrStderr(), "nothing is changed yet; to do it: hufu reader mass run %s", out)
		}
		return nil
	})
	return c
}

func newMassShow(g *globals) *cobra.Command {
	return &cobra.Command{Use: "show PLAN", Short: "What a plan file says; works alone", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readPlan(args[0])
			if err != nil {
				return err
			}
			return g.showPlan(cmd, p)
		}}
}

func newMassRun(g *globals) *cobra.Command {
	r := client.MassRequest{}
	c := &cobra.Command{
		Use:   "run PLAN",
		Short: "Do a plan, as one job, with the approvals that it needs",
		Long: `Do a plan, as one job that goes on after a kill.

A plan of many readers needs the approval of two other people: the first run asks
for it and names it; once both have signed it (hufu officer approve), run the plan
again with --approval.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&r.Approval, "approval", "", "the `ID` of the granted approval")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := readPlan(args[0])
		if err != nil {
			return err
		}
		r.Plan = *p
		return g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			return g.runMass(ctx, cmd, cl, r, args[0])
		})(cmd, args)
	}
	return c
}

func (g *globals) runMass(ctx context.Context, cmd *cobra.Command, cl *client.Client, r client.MassRequest, file string) error {
	if r.Plan.Approvals > 0 && r.Approval == "" {
		a, err := cl.RequestMass(ctx, r.Plan)
		if err != nil {
			return err
		}
		if err := g.showApproval(cmd, a); err != nil {
			return err
		}
		if g.output == "table" {
			g.tell(cmd.ErrOrStderr(), "once %d others have approved it: hufu reader mass run %s --approval %s", a.Needed, file, a.ID)
		}
		return nil
	}
	if err := g.sure(cmd, fmt.Sprintf(g.say("changing %d readers at once (%s)"), r.Plan.Count, r.Plan.Action), r.Plan.Action); err != nil {
		return err
	}
	j, err := cl.RunMass(ctx, r)
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
		return &hinted{err: fmt.Errorf("%d of %d readers were left as they are", j.Failures, j.Total), hint: "see which and why: hufu job show " + j.ID + " --failed", code: exitConflict}
	}
	return nil
}

// readPlan reads a plan file; a word that nobody knows is a mistake, since what
// stands there is done to many.
func readPlan(path string) (*client.MassPlan, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("name the file that `hufu reader mass plan --out` wrote", "reading the plan: %v", err)
	}
	p := &client.MassPlan{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil || p.Hufu != "reader-mass" {
		return nil, usagef("name the file that `hufu reader mass plan --out` wrote", "%s is no plan of a mass change (%v)", path, err)
	}
	return p, nil
}

func (g *globals) showPlan(cmd *cobra.Command, p *client.MassPlan) error {
	var states []string
	for _, s := range slices.Sorted(maps.Keys(p.States)) {
		states = append(states, fmt.Sprintf("%s %d", s, p.States[s]))
	}
	sample := strings.Join(p.Sample, " ")
	if p.Count > len(p.Sample) {
		sample += " …"
	}
	fields := []field{
		{"action", p.Action}, {"readers", num(p.Count)}, {"first", sample},
		{"city", p.Selection.City}, {"model", p.Selection.Model}, {"firmware", p.Selection.Firmware}, {"batch", p.Selection.Batch},
		{"selected", strings.Join(states, ", ")}, {"note", p.Note}, {"sum", p.SHA256}, {"made", when(p.Time)}, {"event", num(p.Seq)}, {"approvals", num(p.Approvals)},
	}
	if p.Reason > 0 {
		fields = append(fields, []field{{"reason", num(p.Reason)}}...)
	}
	if p.Elsewhere > 0 {
		fields = append(fields, []field{{"in other books", num(p.Elsewhere)}}...)
	}
	return g.showFields(cmd, p, fields)
}
