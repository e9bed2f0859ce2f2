package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"hufu/api/client"
	"hufu/policy"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

var stage1Routes = []route{
	{
		Method: http.MethodPost, Path: "/v1/models", ID: "addModel", Doc: "Records a model of reader that was approved, or a new approval of a known one.",
		Operation: policy.OpModelWrite, City: noCity, Write: true,
		Body:   client.Model{Name: "XF-100", Maker: "Hangzhou Readers", Approval: "CN-2026-017", Until: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC), Firmware: []string{"1.2.0"}},
		Status: 201, Answer: client.Model{}, Location: true, Handle: (*Server).addModel,
	},
	{
		Method: http.MethodGet, Path: "/v1/models", ID: "listModels", Doc: "Lists the models by name.",
		Operation: policy.OpModelRead, City: noCity, Query: paging, Status: 200, Answer: client.Page[client.Model]{}, Handle: (*Server).models,
	},
	{
		Method: http.MethodGet, Path: "/v1/models/{name}", ID: "readModel", Doc: "Returns one model.",
		Operation: policy.OpModelRead, City: noCity, Status: 200, Answer: client.Model{}, Handle: (*Server).model,
	},
	{
		Method: http.MethodPost, Path: "/v1/models/{name}/withdraw", ID: "withdrawModel", Doc: "Ends a model: no more readers of it are taken in.",
		Operation: policy.OpModelWrite, City: noCity, Write: true, Body: client.Note{Note: "recalled by its maker"}, Optional: true,
		Status: 200, Answer: client.Model{}, Handle: (*Server).withdrawModel,
	},
	{
		Method: http.MethodPost, Path: "/v1/manifests/check", ID: "checkManifest", Doc: "Tells every fault of a maker's manifest at once, and takes nothing in.",
		Operation: policy.OpManifestRead, City: noCity, Body: exampleManifest, MaxBody: maxManifest,
		Status: 200, Answer: client.ManifestReport{}, Handle: (*Server).checkManifest,
	},
	{
		Method: http.MethodPost, Path: "/v1/manifests", ID: "importManifest",
		Doc:       "Takes a maker's manifest in, as a whole or not at all, and starts a job that certifies the device keys. The same file again goes on with what is missing.",
		Operation: policy.OpManifestImport, City: noCity, Write: true, Body: exampleManifest, MaxBody: maxManifest,
		Status: 202, Answer: client.Manifest{}, Location: true, Handle: (*Server).importManifest,
	},
	{
		Method: http.MethodGet, Path: "/v1/manifests", ID: "listManifests", Doc: "Lists the manifests, the newest first.",
		Operation: policy.OpManifestRead, City: noCity, Query: paging, Status: 200, Answer: client.Page[client.Manifest]{}, Handle: (*Server).manifests,
	},
	{
		Method: http.MethodGet, Path: "/v1/manifests/{id}", ID: "readManifest", Doc: "Returns one manifest.",
		Operation: policy.OpManifestRead, City: noCity, Status: 200, Answer: client.Manifest{}, Handle: (*Server).manifest,
	},
	{
		Method: http.MethodPost, Path: "/v1/tickets", ID: "createTicket", Doc: "Chooses prepared readers for a city and starts a job that allots them and signs the ticket.",
		Operation: policy.OpTicketCreate, City: noCity, Write: true, MaxBody: 4 << 20,
		Body:   client.TicketRequest{City: "330100", Expires: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC), Quota: 950, Batch: "5f0c", Count: 1000},
		Status: 202, Answer: client.Ticket{}, Location: true, Handle: (*Server).createTicket,
	},
	{
		Method: http.MethodGet, Path: "/v1/tickets", ID: "listTickets", Doc: "Lists tickets, the newest first.",
		Operation: policy.OpTicketRead, City: ofQuery, Query: append([]param{byCity}, paging...), Status: 200, Answer: client.Page[client.Ticket]{}, Handle: (*Server).tickets,
	},
	{
		Method: http.MethodGet, Path: "/v1/tickets/{id}", ID: "readTicket", Doc: "Returns one ticket. Its readers are those of /v1/readers?ticket=ID.",
		Operation: policy.OpTicketRead, City: ofTicket, Status: 200, Answer: client.Ticket{}, Handle: (*Server).ticket,
	},
	{
		Method: http.MethodGet, Path: "/v1/tickets/{id}/file", ID: "readTicketFile", Doc: "Streams the ticket as the centre signed it.",
		Operation: policy.OpTicketRead, City: ofTicket, Status: 200, Media: client.MediaCMS, Handle: (*Server).ticketFile,
	},
	{
		Method: http.MethodPost, Path: "/v1/tickets/{id}/revoke", ID: "revokeTicket",
		Doc:       "Ends a ticket at once, and starts a job that takes the readers off it that are not initialised.",
		Operation: policy.OpTicketRevoke, City: ofTicket, Write: true, Body: client.Note{Note: "the lorry was robbed"}, Optional: true,
		Status: 202, Answer: client.Ticket{}, Location: true, Handle: (*Server).revokeTicket,
	},
	{
		Method: http.MethodPost, Path: "/v1/tickets/import", ID: "importTicket", Doc: "Takes a ticket of the centre into a city's own book, and starts a job that registers its readers.",
		Operation: policy.OpTicketImport, City: ofImport, Write: true, Body: client.TicketImport{Ticket: exampleDER}, MaxBody: 34 << 20,
		Status: 202, Answer: client.Ticket{}, Location: true, Handle: (*Server).importTicket,
	},
	{
		Method: http.MethodPost, Path: "/v1/tickets/{id}/receipts", ID: "reconcileTicket",
		Doc:       "Holds receipts of an offline city against the ticket and the register, and brings the readers' state up. The same receipts again change nothing.",
		Operation: policy.OpTicketReconcile, City: ofTicket, Write: true, Body: client.Receipts{Lines: []string{"{}"}}, MaxBody: 40 << 20,
		Status: 200, Answer: client.Matches{}, Handle: (*Server).reconcileTicket,
	},
}

// maxManifest bounds a manifest as base64 in JSON.
const maxManifest = stage1.MaxManifest/3*4 + 64<<10

var (
	exampleManifest = client.ManifestRequest{Name: "lorry-17.csv", File: []byte("number,model,firmware,approval,key\n")}

	ofTicket = city{words: "that of the ticket", find: func(s *Server, c *call) (string, error) {
		t, err := s.cfg.Stage1.Ticket(c.Context(), c.PathValue("id"))
		if err != nil {
			return "", err
		}
		return t.City, nil
	}}
	// What the file says of its city is not believed yet, but whoever may not act
	// for that city need not have it judged.
	ofImport = city{words: "the one that the ticket names", find: func(_ *Server, c *call) (string, error) {
		t, err := verify.ReadTicket(in[client.TicketImport](c).Ticket)
		if err != nil {
			return "", err
		}
		return t.City, nil
	}}
)

func (s *Server) wireModel(m *stage1.Model) client.Model {
	return client.Model{Name: m.Name, Maker: m.Maker, Approval: m.Approval, Tested: m.Tested, Until: m.Until, Firmware: m.Firmware,
		State: m.State(s.cfg.Now()), Withdrawn: m.Withdrawn, Note: m.Note, Seq: m.Seq}
}

func (s *Server) addModel(c *call) (*answer, error) {
	b := in[client.Model](c)
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		m, err := s.cfg.Stage1.AddModel(tx, stage1.Model{Name: b.Name, Maker: b.Maker, Approval: b.Approval, Tested: b.Tested, Until: b.Until, Firmware: b.Firmware}, c.caller.Name)
		if err != nil {
			return nil, err
		}
		a, err := reply(http.StatusCreated, s.wireModel(m))
		if err == nil {
			a.location = "/v1/models/" + m.Name
		}
		return a, err
	})
}

func (s *Server) models(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*stage1.Model, []byte, error) {
		return s.cfg.Stage1.Models(c.Context(), after, limit)
	}, s.wireModel)
}

func (s *Server) model(c *call) (*answer, error) {
	m, err := s.cfg.Stage1.Model(c.Context(), c.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, s.wireModel(m))
}

func (s *Server) withdrawModel(c *call) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		m, err := s.cfg.Stage1.WithdrawModel(tx, c.PathValue("name"), c.caller.Name, in[client.Note](c).Note)
		if err != nil {
			return nil, err
		}
		return reply(http.StatusOK, s.wireModel(m))
	})
}

func (s *Server) sheet(c *call) (*stage1.Sheet, error) {
	b := in[client.ManifestRequest](c)
	return s.cfg.Stage1.CheckManifest(c.Context(), b.File, b.Encoding)
}

func (s *Server) checkManifest(c *call) (*answer, error) {
	sheet, err := s.sheet(c)
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, client.ManifestReport{Readers: len(sheet.Rows), Encoding: sheet.Encoding, SHA256: sheet.Sum.String()})
}

func wireManifest(m *stage1.Manifest) client.Manifest {
	return client.Manifest{ID: m.ID, Name: m.Name, SHA256: m.Sum.String(), Encoding: m.Encoding, Readers: m.Readers, Prepared: m.Prepared,
		Actor: m.Actor, Time: m.Time, Job: m.Job, Seq: m.Seq}
}

func (s *Server) importManifest(c *call) (*answer, error) {
	if a, err := s.keptAnswer(c); a != nil || err != nil {
		return a, err // the sheet would be judged as known
	}
	sheet, err := s.sheet(c)
	if err != nil {
		return nil, err
	}
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		m, err := s.cfg.Stage1.Import(tx, sheet, in[client.ManifestRequest](c).Name, c.caller.Name)
		if err != nil {
			return nil, err
		}
		j, err := s.cfg.Jobs.Start(tx, stage1.JobManifest, stage1.ManifestArgs{Manifest: m.ID}, c.caller.Name, c.city)
		if err != nil {
			return nil, err
		}
		if err := s.cfg.Stage1.StartedManifest(tx, m, j.ID); err != nil {
			return nil, err
		}
		return accepted(j.ID, wireManifest(m))
	})
}

// accepted answers 202 with what is being made, and where its job is.
func accepted(job string, v any) (*answer, error) {
	a, err := reply(http.StatusAccepted, v)
	if err == nil {
		a.location = "/v1/jobs/" + job
	}
	return a, err
}

func (s *Server) manifests(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*stage1.Manifest, []byte, error) {
		return s.cfg.Stage1.Manifests(c.Context(), after, limit)
	}, wireManifest)
}

func (s *Server) manifest(c *call) (*answer, error) {
	m, err := s.cfg.Stage1.Manifest(c.Context(), c.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireManifest(m))
}

func wireTicket(t *stage1.Ticket) client.Ticket {
	w := client.Ticket{ID: t.ID, City: t.City, State: t.State, Issued: t.Issued, Expires: t.Expires, Quota: t.Quota, Readers: t.Readers, Used: t.Used, Size: t.Size,
		Imported: t.Imported, Offline: t.Offline, Actor: t.Actor, Job: t.Job, Revoked: t.Revoked, Note: t.Note, Seq: t.Seq}
	if t.Size > 0 {
		w.SHA256 = t.Sum.String()
	}
	return w
}

func (s *Server) createTicket(c *call) (*answer, error) {
	if a, err := s.keptAnswer(c); a != nil || err != nil {
		return a, err // its readers are not prepared any more
	}
	b := in[client.TicketRequest](c)
	o := stage1.TicketOrder{City: b.City, Expires: b.Expires, Quota: b.Quota, Numbers: b.Readers, Count: b.Count,
		Select: readers.Query{Model: b.Model, Firmware: b.Firmware, Batch: b.Batch, Number: b.Prefix}}
	if len(b.Readers) > 0 && (b.Model+b.Firmware+b.Batch+b.Prefix != "" || b.Count != 0) {
		return nil, problemf(kindMalformed, "the ticket names its readers and selects others")
	}
	numbers, err := s.cfg.Stage1.Choose(c.Context(), o)
	if err != nil {
		return nil, err
	}
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		t, args, err := s.cfg.Stage1.Begin(tx, o, numbers, c.caller.Name)
		if err != nil {
			return nil, err
		}
		return s.ticketJob(tx, c, stage1.JobTicket, t, args)
	})
}

// ticketJob starts the job that works at a ticket.
func (s *Server) ticketJob(tx *store.Tx, c *call, kind string, t *stage1.Ticket, args stage1.TicketArgs) (*answer, error) {
	j, err := s.cfg.Jobs.Start(tx, kind, args, c.caller.Name, c.city)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Stage1.Started(tx, t, j.ID); err != nil {
		return nil, err
	}
	return accepted(j.ID, wireTicket(t))
}

func (s *Server) tickets(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*stage1.Ticket, []byte, error) {
		return s.cfg.Stage1.Tickets(c.Context(), c.city, after, limit)
	}, wireTicket)
}

func (s *Server) ticket(c *call) (*answer, error) {
	t, err := s.cfg.Stage1.Ticket(c.Context(), c.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireTicket(t))
}

func (s *Server) ticketFile(c *call) (*answer, error) {
	id := c.PathValue("id")
	if err := s.cfg.Stage1.HasFile(c.Context(), id); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, media: client.MediaCMS, stream: func(w io.Writer) error {
		return s.cfg.Stage1.WriteTicket(c.Context(), id, &patient{w: w, deadline: http.NewResponseController(c.w)})
	}}, nil
}

func (s *Server) revokeTicket(c *call) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		t, err := s.cfg.Stage1.Revoke(tx, c.PathValue("id"), c.caller.Name, in[client.Note](c).Note)
		if err != nil {
			return nil, err
		}
		return s.ticketJob(tx, c, stage1.JobTicketRevoke, t, stage1.TicketArgs{Ticket: t.ID})
	})
}

func (s *Server) importTicket(c *call) (*answer, error) {
	b := in[client.TicketImport](c)
	v, err := s.cfg.Stage1.Judge(c.Context(), b.Ticket, b.Offline)
	if err != nil {
		return nil, err
	}
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		t, err := s.cfg.Stage1.TakeIn(tx, v, b.Ticket, b.Offline, c.caller.Name)
		if err != nil {
			return nil, err
		}
		return s.ticketJob(tx, c, stage1.JobTicketImport, t, stage1.TicketArgs{Ticket: t.ID})
	})
}

// reconcileTicket needs no kept answer but for the look of it: the same receipts
// match again.
func (s *Server) reconcileTicket(c *call) (*answer, error) {
	return s.once(c, func(ctx context.Context) (*answer, error) {
		var lines [][]byte
		for _, l := range in[client.Receipts](c).Lines {
			lines = append(lines, []byte(l))
		}
		matches, err := s.cfg.Stage1.Reconcile(ctx, c.PathValue("id"), lines, c.caller.Name)
		if err != nil {
			return nil, err
		}
		t, err := s.cfg.Stage1.Ticket(ctx, c.PathValue("id"))
		if err != nil {
			return nil, err
		}
		w := client.Matches{Ticket: wireTicket(t), Matches: make([]client.Match, len(matches))}
		for i, m := range matches {
			w.Matches[i] = client.Match{Line: m.Line, Number: m.Number, Outcome: m.Outcome, Reason: m.Reason, State: m.State, Status: m.Status}
		}
		return reply(http.StatusOK, w)
	})
}

// stage1Problem tells the first stage's refusals.
func stage1Problem(err error) *client.Problem {
	var faults *stage1.Faults
	var refusal *stage1.Refusal
	switch {
	case errors.As(err, &faults):
		p := problemf(kindManifest, "%s", faults)
		p.Manifest = &client.Faults{Total: faults.Total}
		for _, f := range faults.List {
			p.Manifest.List = append(p.Manifest.List, client.Fault{Row: f.Row, Column: f.Column, Value: f.Value, Reason: f.Reason, Remedy: f.Remedy})
		}
		return p
	case errors.As(err, &refusal):
		return remedied(kindStage1, refusal.Remedy, "%s (%s)", refusal.Detail, refusal.Problem)
	}
	return nil
}
