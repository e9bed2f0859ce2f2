package api

import (
	"errors"
	"net/http"

	"hufu/api/client"
	"hufu/issuance/escrow"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
)

// escrowRoutes are the doors of the key management centre. None of them takes a key, and
// none gives one out but sealed to a recipient.
var escrowRoutes = []route{
	{
		Method: http.MethodGet, Path: "/v1/escrow", ID: "readEscrow", Doc: "Counts the encryption keys that the key management centre keeps, by state.",
		Operation: policy.OpEscrowRead, City: noCity, Status: 200, Answer: client.Escrow{}, Handle: (*Server).escrow,
	},
	{
		Method: http.MethodGet, Path: "/v1/escrow/keys", ID: "listEscrowKeys", Doc: "Lists the kept keys that belong to readers, by reader; never the keys themselves.",
		Operation: policy.OpEscrowRead, City: noCity, Query: append([]param{{"reader", "string", "reader number"}}, paging...),
		Status: 200, Answer: client.Page[client.EscrowKey]{}, Handle: (*Server).escrowKeys,
	},
	{
		Method: http.MethodPost, Path: "/v1/escrow/recoveries", ID: "requestRecovery",
		Doc:       "Asks that the kept key of an encryption certificate be sealed for a recipient. Key officers approve it, each with a signature over both certificates and the reason; the requester is none of them.",
		Operation: policy.OpEscrowRecover, City: noCity, Write: true,
		Body:   client.RecoveryRequest{Serial: "0123456789abcdef0123456789abcdef01", Recipient: exampleDER, Reason: "order of a court, file 17"},
		Status: 202, Answer: client.Approval{}, Location: true, Handle: (*Server).requestRecovery,
	},
	{
		Method: http.MethodPost, Path: "/v1/escrow/recoveries/{approval}/release", ID: "releaseRecovery",
		Doc:       "Uses a granted approval up and returns the key, sealed for the recipient that the officers have signed for.",
		Operation: policy.OpEscrowRecover, City: noCity, Write: true, Status: 200, Answer: client.Recovered{}, Handle: (*Server).releaseRecovery,
	},
}

// centre is the node's key management centre, where it has one.
func (s *Server) centre() (*escrow.Escrow, error) {
	if s.cfg.Escrow == nil {
		return nil, problemf(kindCentre, "this node has no key management centre")
	}
	return s.cfg.Escrow, nil
}

func (s *Server) escrow(c *call) (*answer, error) {
	e, err := s.centre()
	if err != nil {
		return nil, err
	}
	n, err := e.Status(c.Context())
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, client.Escrow{Spare: n.Spare, Wanted: n.Wanted, Claimed: n.Claimed, InUse: n.InUse, History: n.History, Officers: e.Officers()})
}

func wireKey(k *escrow.Key) client.EscrowKey {
	w := client.EscrowKey{SPKI: k.Hash.String(), State: k.State.String(), Kind: k.Kind, Reader: k.Reader, City: k.City, CA: k.CA, Made: k.Made, Changed: k.Changed, Seq: k.Seq}
	if k.CA != "" {
		w.Serial = k.Serial.String()
	}
	return w
}

func (s *Server) escrowKeys(c *call) (*answer, error) {
	e, err := s.centre()
	if err != nil {
		return nil, err
	}
	return list(c, func(after []byte, limit int) ([]*escrow.Key, []byte, error) {
		return e.List(c.Context(), c.query("reader"), after, limit)
	}, wireKey)
}

// requestRecovery opens an approval of what was judged first: nobody is asked to approve
// what cannot be done.
func (s *Server) requestRecovery(c *call) (*answer, error) {
	e, err := s.centre()
	if err != nil {
		return nil, err
	}
	b := in[client.RecoveryRequest](c)
	serial, err := store.ParseSerial(b.Serial)
	if err != nil {
		return nil, problemf(kindMalformed, "%q is not a serial number of this book: 34 hexadecimal digits that begin with 01", b.Serial)
	}
	r, err := e.Prepare(c.Context(), serial, b.Recipient, b.Reason)
	if err != nil {
		return nil, err
	}
	return s.openApproval(c, policy.OpEscrowRecover, "", r.Canonical(), e.Officers())
}

// releaseRecovery consumes the approval, seals the key and keeps the answer, in one
// transaction: an answer that was lost is had again with the same idempotency key.
func (s *Server) releaseRecovery(c *call) (*answer, error) {
	e, err := s.centre()
	if err != nil {
		return nil, err
	}
	if a, err := s.keptAnswer(c); a != nil || err != nil {
		return a, err
	}
	approval, err := s.cfg.Office.Approval(c.Context(), c.PathValue("approval"))
	if err != nil {
		return nil, err
	}
	if approval.Op != policy.OpEscrowRecover {
		return nil, &officers.ApprovalError{ID: approval.ID, Problem: "other-bytes", Detail: "it is one of " + string(approval.Op) + " and not of a recovery", Remedy: "ask for a recovery first"}
	}
	r, err := escrow.ParseRecovery(approval.Request)
	if err != nil {
		return nil, err
	}
	var ans *answer
	_, err = e.Recover(c.Context(), r, c.caller.Name, approval.ID, func(tx *store.Tx, envelope []byte) error {
		if approval.Needed < e.Officers() {
			return &officers.ApprovalError{ID: approval.ID, Problem: "not-granted", Detail: "it was asked for when fewer key officers were enough", Remedy: "have it requested again"}
		}
		if err := s.cfg.Office.Consume(tx, approval.ID, store.Sum(approval.Request)); err != nil {
			return err
		}
		cert, err := store.FindCertificate(tx, r.CA, r.Serial)
		if err != nil {
			return err
		}
		ans, err = reply(http.StatusOK, client.Recovered{Approval: approval.ID, Reader: r.Reader, Serial: r.Serial.String(), Certificate: cert.DER, Envelope: envelope})
		if err != nil {
			return err
		}
		return s.keep(tx, c, ans)
	})
	if err != nil {
		// Another request with the same key may have come first.
		if a, again := s.keptAnswer(c); a != nil && again == nil {
			return a, nil
		}
		return nil, err
	}
	return ans, nil
}

// centreProblem tells the centre's refusals.
func centreProblem(err error) *client.Problem {
	var (
		recovery *escrow.RecoveryError
		state    *escrow.StateError
	)
	switch {
	case errors.As(err, &recovery) && recovery.Problem == "not-kept":
		return remedied(kindNotFound, recovery.Remedy, "%s", recovery.Detail)
	case errors.As(err, &recovery) && recovery.Problem == "reason":
		return remedied(kindMalformed, recovery.Remedy, "%s", recovery.Detail)
	case errors.As(err, &recovery):
		return remedied(kindRecovery, recovery.Remedy, "%s", recovery.Detail)
	case errors.As(err, &state):
		return remedied(kindState, state.Remedy, "the kept key %s is %v", state.SPKI, state.State)
	}
	return nil
}
