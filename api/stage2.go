package api

import (
	"errors"
	"net/http"

	"hufu/api/client"
	"hufu/policy"
	"hufu/readers/stage2"
	"hufu/verify"
)

var (
	ofSessionRequest = city{words: "the one in the body", find: func(_ *Server, c *call) (string, error) {
		b := in[client.SessionRequest](c)
		if len(b.Number) == 0 || len(b.Number) > 20 || len(b.City) != 6 || len(b.Ticket) > 32 {
			return "", problemf(kindMalformed, "a session needs a number of 1 to 20 digits and letters and a city of six digits, and a ticket has an ID of 32")
		}
		return b.City, nil
	}}
	ofSession = city{words: "that of the session", find: func(s *Server, c *call) (string, error) {
		if s.cfg.Stage2 == nil {
			return "", errNoStage2
		}
		return s.cfg.Stage2.City(c.PathValue("id"))
	}}
	ofReceipt = city{words: "that of the session, or else of the reader that the receipt names", find: func(s *Server, c *call) (string, error) {
		if s.cfg.Stage2 == nil {
			return "", errNoStage2
		}
		return s.cfg.Stage2.ReceiptCity(c.Context(), c.PathValue("id"), in[client.StageMessage](c).Message)
	}}
)

// The kinds of problem of the second stage, by outcome.
var (
	kindSession = &kind{"session-unknown", 404, "The session is not open here", "Open another session for the reader; nothing that it was given is lost."}

	stage2Kinds = map[stage2.Outcome]*kind{
		stage2.NotOnTicket:        {"not-on-ticket", 409, "The reader is not on the ticket", "Send the reader back to the centre, or have it put on a ticket of this city."},
		stage2.WrongCity:          {"wrong-city", 409, "The reader belongs to another city", "Send the reader to its city, or back to the centre."},
		stage2.AlreadyInitialised: {"already-initialised", 409, "The reader was initialised before", "Renew its pair, or replace the reader."},
		stage2.QuotaSpent:         {"quota-spent", 409, "The ticket's quota is spent", "Ask the centre for another ticket."},
		stage2.TicketExpired:      {"ticket-expired", 409, "The ticket has expired", "Ask the centre for another ticket."},
		stage2.TicketRevoked:      {"ticket-revoked", 409, "The ticket was revoked", "Ask the centre for another ticket."},
		stage2.TicketNotReady:     {"ticket-not-ready", 409, "The ticket is not ready", "Wait for the job that makes it or takes it in."},
		stage2.ProofFailed:        {"proof-failed", 403, "The reader's proof fails", "Open another session and let the reader answer it; a reader that fails again goes back to the centre."},
	}

	errNoStage2 = problemf(kindCA, "this node initialises no readers")
)

// stage2KindList is the kinds in the order of the outcomes.
func stage2KindList() []*kind {
	list := []*kind{kindSession}
	for _, o := range stage2.Outcomes {
		list = append(list, stage2Kinds[o])
	}
	return list
}

// stage2Problem tells the refusals of the second stage.
func stage2Problem(err error) *client.Problem {
	var (
		refusal *stage2.Refusal
		session *stage2.SessionError
		busy    *stage2.BusyError
	)
	switch {
	case errors.As(err, &refusal) && stage2Kinds[refusal.Outcome] != nil:
		return remedied(stage2Kinds[refusal.Outcome], refusal.Remedy, "%s", refusal.Detail)
	case errors.As(err, &session):
		return remedied(kindSession, session.Remedy(), "session %q %s", session.ID, session.Detail)
	case errors.As(err, &busy):
		return problemf(kindUnavailable, "%s", busy)
	}
	return nil
}

func (s *Server) openSession(c *call) (*answer, error) {
	if s.cfg.Stage2 == nil {
		return nil, errNoStage2
	}
	b := in[client.SessionRequest](c)
	o, err := s.cfg.Stage2.Open(c.Context(), c.caller, stage2.Request{Number: b.Number, City: b.City, Ticket: b.Ticket, Renew: b.Renew})
	if err != nil {
		return nil, err
	}
	a, err := reply(http.StatusCreated, client.Session{ID: o.ID, Challenge: o.Challenge, Number: o.Number, City: o.City, Ticket: o.Ticket, Encryption: o.Encryption, Expires: o.Expires})
	if err == nil {
		a.location = "/v1/stage2/sessions/" + o.ID
	}
	return a, err
}

// enrol and receive keep no answers: the service answers a repeat by itself.
func (s *Server) enrol(c *call) (*answer, error) {
	g, err := s.cfg.Stage2.Enrol(c.Context(), c.caller, c.PathValue("id"), in[client.StageMessage](c).Message)
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, client.Grant{Number: g.Number, Sign: g.Sign, Encrypt: g.Encrypt, Chain: g.Chain, SealedKey: g.SealedKey, Again: g.Again})
}

func (s *Server) receive(c *call) (*answer, error) {
	rd, err := s.cfg.Stage2.Receipt(c.Context(), c.caller, c.PathValue("id"), in[client.StageMessage](c).Message)
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireReader(rd))
}

func (s *Server) receipts(c *call) (*answer, error) {
	if s.cfg.Stage2 == nil {
		return nil, errNoStage2
	}
	if c.city == "" {
		return nil, problemf(kindMalformed, "receipts go by city: name one in the parameter city")
	}
	return list(c, func(after []byte, limit int) ([]*verify.ReceiptLine, []byte, error) {
		return s.cfg.Stage2.Receipts(c.Context(), c.city, c.query("ticket"), after, limit)
	}, func(l *verify.ReceiptLine) client.Receipt { return client.Receipt(*l) })
}

func stageCMS(c *call, v any) { v.(*client.StageMessage).Message = c.raw }

var stage2Routes = []route{
	{
		Method: http.MethodPost, Path: "/v1/stage2/sessions", ID: "openSession",
		Doc:       "Begins to initialise a reader that a ticket names, or to renew an active one, and gives the challenge that it signs. A newer session of a reader ends the one before.",
		Operation: policy.OpReaderInitialise, City: ofSessionRequest, Write: true, Body: client.SessionRequest{Number: "1000001", City: "330100"},
		Status: 201, Answer: client.Session{}, Location: true, Handle: (*Server).openSession,
	},
	{
		Method: http.MethodPost, Path: "/v1/stage2/sessions/{id}/enrolment", ID: "enrolReader",
		Doc:       "Takes a reader's enrolment and issues its pair, on hold. The same enrolment gets the same answer.",
		Operation: policy.OpReaderInitialise, City: ofSession, Write: true, Body: client.StageMessage{Message: exampleDER}, CMS: stageCMS,
		Status: 200, Answer: client.Grant{}, Handle: (*Server).enrol,
	},
	{
		Method: http.MethodPost, Path: "/v1/stage2/sessions/{id}/receipt", ID: "receiveReceipt",
		Doc:       "Takes the receipt that a reader signed with its new key and makes its pair good. A repeat gets the same answer, and so does a receipt whose session the node forgot.",
		Operation: policy.OpReaderInitialise, City: ofReceipt, Write: true, Body: client.StageMessage{Message: exampleDER}, CMS: stageCMS,
		Status: 200, Answer: client.Reader{}, Handle: (*Server).receive,
	},
	{
		Method: http.MethodGet, Path: "/v1/stage2/receipts", ID: "listReceipts",
		Doc:       "Lists the receipts of first pairs with all that the centre needs to judge them. A page may hold fewer than its limit, or none, and still have a next.",
		Operation: policy.OpReaderInitialise, City: ofQuery, Query: append([]param{byCity, {"ticket", "string", "ID of the ticket"}}, paging...),
		Status: 200, Answer: client.Page[client.Receipt]{}, Handle: (*Server).receipts,
	},
}
