package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/policy"
	"hufu/readers"
)

// stock issues the pairs of n readers of city 330100, of two models in turn.
func (w *world) stock(n int) {
	w.t.Helper()
	pairs := make([]readers.Pair, n)
	for i := range pairs {
		pairs[i] = readers.Pair{Number: fmt.Sprintf("m%04d", i), City: "330100", Model: []string{"CR-1", "CR-2"}[i%2], CSR: pairCSR()}
	}
	w.must(w.register.Batch(w.t.Context(), "stock", pairs, 0, "test", func(_ int, results []readers.Result) error {
		for _, r := range results {
			w.must(r.Err)
		}
		return nil
	}))
}

func TestMassChange(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.stock(203)
	op := w.hire("Zhao Liu", "330100", policy.CityOperator)
	counter := w.hire("Sun Qi", "330100", policy.Counter)
	all := client.MassSelection{City: "330100"}
	odd := client.MassSelection{City: "330100", Model: "CR-2"}

	_, err := op.client.PlanMass(ctx, "suspend", client.MassSelection{Firmware: "1"}, 0, "")
	refusedAs(t, err, "plan-refused")
	_, err = op.client.PlanMass(ctx, "suspend", client.MassSelection{City: "330200"}, 0, "")
	refusedAs(t, err, "forbidden")
	_, err = counter.client.PlanMass(ctx, "suspend", odd, 0, "")
	refusedAs(t, err, "forbidden")

	// Few readers: one person.
	p, err := op.client.PlanMass(ctx, "suspend", client.MassSelection{Model: "CR-2", City: "330100"}, 0, "a fault in CR-2")
	w.must(err)
	if p.Count != 101 || p.Approvals != 2 || p.States["active"] != 101 || len(p.Sample) != 10 {
		t.Fatalf("the plan is %+v", p)
	}
	_, err = op.client.RevokeReader(ctx, "m0001", client.Revocation{Reason: 1})
	w.must(err)
	p, err = op.client.PlanMass(ctx, "suspend", odd, 0, "a fault in CR-2")
	w.must(err)
	if p.Count != 100 || p.Approvals != 0 {
		t.Fatalf("the plan is %+v", p)
	}
	_, err = op.client.RequestMass(ctx, *p)
	refusedAs(t, err, "plan-refused")
	_, err = op.client.SuspendReader(ctx, "m0003", client.Note{})
	w.must(err)
	j, err := op.client.Keyed("once").RunMass(ctx, client.MassRequest{Plan: *p})
	w.must(err)
	again, err := op.client.Keyed("once").RunMass(ctx, client.MassRequest{Plan: *p})
	w.must(err)
	if again.ID != j.ID {
		t.Errorf("one key started two jobs")
	}
	j, err = op.client.WaitJob(ctx, j.ID, nil)
	w.must(err)
	if j.State != "done" || j.Done != 100 || j.Total != 100 || j.Failures != 1 {
		t.Errorf("the job is %+v", j)
	}
	for item, err := range op.client.JobItems(ctx, j.ID) {
		w.must(err)
		if item.OK == (item.Name == "m0003") || !item.OK && !strings.Contains(item.Error, "since the plan was made it became suspended") {
			t.Errorf("item %+v", item)
		}
	}
	r, err := op.client.Reader(ctx, "m0005")
	w.must(err)
	if r.State != "suspended" || r.Certificates[0].Status.State != "on-hold" || r.Certificates[1].Status.State != "on-hold" || r.History[1].Note != "a fault in CR-2" {
		t.Errorf("the reader is %+v", r)
	}

	// Many: two others agree to exactly this.
	p, err = op.client.PlanMass(ctx, "revoke", all, 4, "")
	w.must(err)
	if p.Count != 202 || p.Approvals != 2 {
		t.Fatalf("the plan is %+v", p)
	}
	_, err = op.client.RunMass(ctx, client.MassRequest{Plan: *p})
	refusedAs(t, err, "approval")
	a, err := op.client.RequestMass(ctx, *p)
	w.must(err)
	if a.Needed != 2 || a.State != "open" || a.City != "330100" || !strings.Contains(string(a.Canonical), p.SHA256) {
		t.Errorf("the approval is %+v", a)
	}
	_, err = op.client.Approve(ctx, a.ID, op.consent(a.Canonical))
	refusedAs(t, err, "approval")
	for i, name := range []string{"Qian Ba", "Wu Jiu"} {
		_, err = op.client.RunMass(ctx, client.MassRequest{Plan: *p, Approval: a.ID})
		refusedAs(t, err, "approval")
		other := w.hire(name, "330100", policy.CityOperator)
		got, err := other.client.Approve(ctx, a.ID, other.consent(a.Canonical))
		w.must(err)
		if (got.State == "granted") != (i == 1) {
			t.Errorf("after %d signatures it is %s", i+1, got.State)
		}
	}
	other := *p
	other.Note = "something else"
	_, err = op.client.RunMass(ctx, client.MassRequest{Plan: other, Approval: a.ID})
	refusedAs(t, err, "approval")
	j, err = op.client.RunMass(ctx, client.MassRequest{Plan: *p, Approval: a.ID})
	w.must(err)
	_, err = op.client.RunMass(ctx, client.MassRequest{Plan: *p, Approval: a.ID})
	refusedAs(t, err, "approval")
	j, err = op.client.WaitJob(ctx, j.ID, nil)
	w.must(err)
	if j.State != "done" || j.Done != 202 || j.Failures != 0 {
		t.Errorf("the job is %+v", j)
	}
	w.must(w.register.Check(ctx))

	// Who says that it is of few, so as to need nobody, gets nothing.
	w.must(func() error {
		_, err := op.client.IssuePair(ctx, client.PairRequest{Number: "n1", City: "330100", CSR: pairCSR()})
		return err
	}())
	p.Count, p.Action, p.Reason = 1, "revoke", 4
	j, err = op.client.RunMass(ctx, client.MassRequest{Plan: *p})
	w.must(err)
	j, err = op.client.WaitJob(ctx, j.ID, nil)
	w.must(err)
	if j.State != "failed" || j.Done != 0 || !strings.Contains(j.Error, "the plan is refused") {
		t.Errorf("a plan that lies about its size ended as %+v", j)
	}
}

// TestReaderSearch: every way to look for readers, and who may be found.
func TestReaderSearch(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.stock(6)
	op := w.hire("Wang Wu", "", policy.CAOperator)
	here := w.hire("Zhao Liu", "330100", policy.CityOperator)
	there := w.hire("Sun Qi", "330200", policy.CityOperator)
	_, err := op.client.BindReader(ctx, "m0002", client.Binding{Customer: "c-7"})
	w.must(err)
	_, err = op.client.RetireReader(ctx, "m0003", client.Note{})
	w.must(err)
	r, err := op.client.ReplaceReader(ctx, "m0002", client.Replacement{By: "m0004", Note: "broken"})
	w.must(err)
	if r.State != "replaced" || r.Successor != "m0004" || r.Certificates[0].Status.Reason != 4 {
		t.Errorf("replaced: %+v", r)
	}
	end := r.NotAfter.Add(time.Hour)
	for _, c := range []struct {
		who  *person
		q    client.ReaderQuery
		want string
	}{
		{op, client.ReaderQuery{Number: "m000"}, "m0000 m0001 m0002 m0003 m0004 m0005"},
		{here, client.ReaderQuery{Number: "m0001"}, "m0001"},
		{there, client.ReaderQuery{Number: "m0001"}, ""},
		{op, client.ReaderQuery{Customer: "c-7"}, "m0004"},
		{there, client.ReaderQuery{Customer: "c-7"}, ""},
		{op, client.ReaderQuery{Model: "CR-2"}, "m0001 m0003 m0005"},
		{op, client.ReaderQuery{Model: "CR-2", State: "active"}, "m0001 m0005"},
		{op, client.ReaderQuery{State: "retired"}, "m0003"},
		{op, client.ReaderQuery{City: "330100", State: "active", Model: "CR-1"}, "m0000 m0004"},
		{op, client.ReaderQuery{ExpiresBefore: end}, "m0000 m0001 m0004 m0005"},
		{op, client.ReaderQuery{ExpiresBefore: end.AddDate(-1, 0, 0)}, ""},
		{op, client.ReaderQuery{Batch: "b"}, ""},
		{op, client.ReaderQuery{Ticket: "t"}, ""},
	} {
		for _, limit := range []uint64{0, 1} {
			var got []string
			c.q.Limit = limit
			for r, err := range c.who.client.Readers(ctx, c.q) {
				w.must(err)
				got = append(got, r.Number)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("%+v found %v, want %s", c.q, got, c.want)
			}
		}
	}
	for _, err := range op.client.Readers(ctx, client.ReaderQuery{State: "lost"}) {
		refusedAs(t, err, "malformed")
	}
}
