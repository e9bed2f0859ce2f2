package api

import (
	"context"
	"net/http"

	"hufu/api/client"
	"hufu/store"
	"hufu/topup"
	"hufu/verify"
)

var ofAgreement = city{words: "the one in the body that speaks", find: func(_ *Server, c *call) (string, error) {
	return in[client.AgreementRequest](c).City, nil
}}

func wireEvidence(e verify.Evidence) client.Evidence {
	return client.Evidence{Source: e.Source, Epoch: e.Epoch, Seq: e.Seq, Time: e.Time, State: e.State}
}

func (s *Server) verifyLoad(c *call) (*answer, error) {
	v, err := s.cfg.TopUp.Verify(c.Context(), c.caller, in[client.LoadMessage](c).Message)
	if err != nil {
		return nil, err
	}
	l := v.Load
	return reply(http.StatusOK, client.Load{
		Transaction: l.Transaction, CardCity: l.CardCity, ReaderCity: l.ReaderCity, Reader: l.Reader, Card: l.Card, Counter: l.Counter,
		Random: l.Random, Amount: l.Amount, Balance: l.Balance, Type: l.Type, KeyIndex: l.KeyIndex, KeyVersion: l.KeyVersion,
		Algorithm: l.Algorithm, MAC1: l.MAC1, Terminal: l.Terminal, Expiry: l.Expiry, Agreement: v.Agreement != nil, Evidence: wireEvidence(l.Evidence),
	})
}

func (s *Server) authoriseLoad(c *call) (*answer, error) {
	b := in[client.Authorisation](c)
	permission, evidence, err := s.cfg.TopUp.Authorise(c.Context(), c.caller, topup.Authorisation{
		Request: b.Message, CommandScript: b.CommandScript, DataScript: b.DataScript, MAC1Accepted: b.MAC1Accepted,
	})
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, client.Permission{Message: permission, Evidence: wireEvidence(evidence)})
}

func (s *Server) confirmLoad(c *call) (*answer, error) {
	b := in[client.Confirmation](c)
	return replyTransaction(s.cfg.TopUp.Confirm(c.Context(), c.caller, topup.Confirmation{Result: b.Message, TACAccepted: b.TACAccepted}))
}

func (s *Server) transaction(c *call) (*answer, error) {
	return replyTransaction(s.cfg.TopUp.Transaction(c.Context(), c.caller, c.PathValue("id")))
}

func (s *Server) resolveTransaction(c *call) (*answer, error) {
	b := in[client.Resolution](c)
	return s.once(c, func(ctx context.Context) (*answer, error) {
		return replyTransaction(s.cfg.TopUp.Resolve(ctx, c.caller, topup.Resolution{
			ID: c.PathValue("id"), Counter: b.Counter, Balance: b.Balance, TAC: b.TAC, Note: b.Note,
		}))
	})
}

func replyTransaction(t *topup.Transaction, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireTransaction(t))
}

func wireTransaction(t *topup.Transaction) client.Transaction {
	return client.Transaction{
		ID: t.ID, City: t.City, ReaderCity: t.ReaderCity, Reader: t.Reader, Card: t.Card, Counter: t.Counter, Amount: t.Amount,
		Balance: t.Balance, NewBalance: t.NewBalance, State: string(t.State), Expiry: t.Expiry, Authorised: t.Authorised, Closed: t.Closed,
		TAC: t.TAC, SupersededBy: t.SupersededBy, Note: t.Note, Caller: t.Caller, Evidence: wireEvidence(t.Evidence), Seq: t.Seq,
	}
}

func (s *Server) transactions(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*topup.Transaction, []byte, error) {
		return s.cfg.TopUp.List(c.Context(), c.caller, topup.Query{City: c.city, State: topup.State(c.query("state")), After: after, Limit: limit})
	}, wireTransaction)
}

func wireAgreement(a *topup.Agreement) client.Agreement {
	return client.Agreement{A: a.A, B: a.B, Until: a.Until, Approved: a.Approved, Ended: a.Ended, Seq: a.Seq}
}

func (s *Server) agreements(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*topup.Agreement, []byte, error) {
		return s.cfg.TopUp.Agreements(c.Context(), c.city, after, limit)
	}, wireAgreement)
}

func (s *Server) putAgreement(c *call) (*answer, error) {
	b := in[client.AgreementRequest](c)
	if b.End == !b.Until.IsZero() {
		return nil, problemf(kindMalformed, "name either until, to approve an agreement, or end, to end it")
	}
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		var a *topup.Agreement
		var err error
		if b.End {
			a, err = topup.EndAgreement(tx, b.City, b.Other, c.caller.Name)
		} else {
			a, err = topup.ApproveAgreement(tx, b.City, b.Other, b.Until, c.caller.Name)
		}
		if err != nil {
			return nil, err
		}
		return reply(http.StatusOK, wireAgreement(a))
	})
}
