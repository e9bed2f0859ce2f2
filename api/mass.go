package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"hufu/api/client"
	"hufu/jobs"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
)

// massApprovals is how many people beside the requester agree to a mass change
// of more readers than Config.MassAlone.
const massApprovals = 2

// massAlone is Config.MassAlone where nobody says.
const massAlone = 100

var (
	ofMass = city{words: "that of the plan", find: func(_ *Server, c *call) (string, error) {
		return in[client.MassRequest](c).Plan.Selection.City, nil
	}}
	ofPlan = city{words: "that of the plan", find: func(_ *Server, c *call) (string, error) {
		return in[client.MassPlan](c).Selection.City, nil
	}}
)

// massNeeds is how many approvals a plan needs.
func (s *Server) massNeeds(p *readers.Plan) int {
	if p.Count <= s.cfg.MassAlone {
		return 0
	}
	return massApprovals
}

func (s *Server) wirePlan(p *readers.Plan) client.MassPlan {
	w := client.MassPlan{
		Hufu: p.Hufu, Book: p.Book, Epoch: p.Epoch, Seq: p.Seq, Time: p.Time, Action: p.Action, Reason: p.Reason, Note: p.Note,
		Selection: client.MassSelection(p.Selection), Count: p.Count, SHA256: p.SHA256.String(), Sample: p.Sample, States: map[string]int{},
		Elsewhere: p.Elsewhere, Approvals: s.massNeeds(p),
	}
	for state, n := range p.States {
		w.States[string(state)] = n
	}
	return w
}

// planOf is the plan that came over the wire. How many approvals it says that it
// needs is not believed.
func planOf(c *call, w *client.MassPlan) (*readers.Plan, error) {
	sum, err := c.hash("sha256", w.SHA256)
	if err != nil {
		return nil, err
	}
	p := &readers.Plan{
		Hufu: w.Hufu, Book: w.Book, Epoch: w.Epoch, Seq: w.Seq, Time: w.Time, Action: w.Action, Reason: w.Reason, Note: w.Note,
		Selection: readers.Selection(w.Selection), Count: w.Count, SHA256: sum, Sample: w.Sample, States: map[readers.State]int{}, Elsewhere: w.Elsewhere,
	}
	for state, n := range w.States {
		p.States[readers.State(state)] = n
	}
	return p, nil
}

func (s *Server) planMass(c *call) (*answer, error) {
	reason, err := c.number("reason", 0)
	if err != nil {
		return nil, err
	}
	selection := readers.Selection{City: c.city, Model: c.query("model"), Firmware: c.query("firmware"), Batch: c.query("batch")}
	p, err := s.cfg.Readers.Plan(c.Context(), c.query("action"), selection, int(min(reason, 100)), c.query("note"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, s.wirePlan(p))
}

// requestMass opens the approval of a plan.
func (s *Server) requestMass(c *call) (*answer, error) {
	p, err := planOf(c, in[client.MassPlan](c))
	if err != nil {
		return nil, err
	}
	if s.massNeeds(p) == 0 {
		return nil, problemf(kindPlan, "the plan changes %d readers, and up to %d need no approval", p.Count, s.cfg.MassAlone)
	}
	// Nobody is asked to approve what cannot be done.
	if _, err := s.cfg.Readers.Planned(c.Context(), p); err != nil {
		return nil, err
	}
	return s.openApproval(c, policy.OpReaderMass, c.city, p.Canonical(), massApprovals)
}

// runMass starts the job. Its approval is used up in the transaction that records
// the job.
func (s *Server) runMass(c *call) (*answer, error) {
	b := in[client.MassRequest](c)
	p, err := planOf(c, &b.Plan)
	if err != nil {
		return nil, err
	}
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		if err := s.cfg.Readers.Judge(tx, p); err != nil {
			return nil, err
		}
		if s.massNeeds(p) > 0 {
			if b.Approval == "" {
				return nil, problemf(kindApproval, "the plan changes %d readers: more than %d need the approval of %d other people", p.Count, s.cfg.MassAlone, massApprovals)
			}
			if err := s.cfg.Office.Consume(tx, b.Approval, store.Sum(p.Canonical())); err != nil {
				return nil, err
			}
		}
		j, err := s.cfg.Jobs.Start(tx, JobMass, p, c.caller.Name, c.city)
		if err != nil {
			return nil, err
		}
		a, err := reply(http.StatusAccepted, wireJob(j))
		if err == nil {
			a.location = "/v1/jobs/" + j.ID
		}
		return a, err
	})
}

// massJob does a plan, a chunk at a time, each reader once: a chunk and its
// results are one commit.
func massJob(register *readers.Register) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		p := new(readers.Plan)
		if err := json.Unmarshal(r.Args, p); err != nil {
			return fmt.Errorf("reading the plan: %w", err)
		}
		from := 0
		if len(r.Cursor) > 0 {
			if err := json.Unmarshal(r.Cursor, &from); err != nil {
				return fmt.Errorf("reading where the mass change stopped: %w", err)
			}
		}
		// A plan that says less than it does, so as to need no approval, ends here.
		numbers, err := register.Planned(ctx, p)
		if err != nil {
			return err
		}
		if err := r.Progress(ctx, int64(from), int64(len(numbers))); err != nil {
			return err
		}
		return register.Mass(ctx, p, numbers, from, r.Actor, func(next int, work func(*store.Tx) ([]readers.MassResult, error)) error {
			return r.SaveWith(ctx, next, func(tx *store.Tx) ([]jobs.Item, error) {
				results, err := work(tx)
				items := make([]jobs.Item, len(results))
				for i, res := range results {
					items[i] = jobs.Item{Name: res.Number, OK: res.Err == nil}
					if res.Err != nil {
						items[i].Error = res.Err.Error()
						continue
					}
					items[i].Result, _ = json.Marshal(map[string]string{"state": string(res.State)})
				}
				return items, err
			})
		})
	}
}
