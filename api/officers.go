package api

import (
	"crypto/x509"
	"net/http"
	"slices"

	"hufu/api/client"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
)

var (
	ofCaller   = city{words: "the caller's", find: func(_ *Server, c *call) (string, error) { return c.caller.City, nil }}
	ofApproval = city{words: "that of what is to be approved", find: func(s *Server, c *call) (string, error) {
		a, err := s.cfg.Office.Approval(c.Context(), c.PathValue("id"))
		if err != nil {
			return "", err
		}
		return a.City, nil
	}}
)

func roleNames(roles []policy.Role) []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return names
}

func (s *Server) whoAmI(c *call) (*answer, error) {
	return reply(http.StatusOK, client.Person{
		Name: c.caller.Name, Fingerprint: store.Hash(c.caller.Fingerprint).String(), Roles: roleNames(c.caller.Roles), City: c.caller.City,
	})
}

func (s *Server) officers(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*officers.Person, []byte, error) {
		return s.cfg.Office.People(c.Context(), after, limit)
	}, wireOfficer)
}

func wireOfficer(p *officers.Person) client.Officer {
	return client.Officer{
		Fingerprint: p.Fingerprint.String(), Name: p.Name, Roles: roleNames(p.Roles), City: p.City, State: p.State, Certificate: p.Certificate, Seq: p.Seq,
	}
}

// addOfficer opens an approval; nobody adds a person alone.
func (s *Server) addOfficer(c *call) (*answer, error) {
	b := in[client.OfficerRequest](c)
	if b.Name == "" || len(b.Roles) == 0 {
		return nil, problemf(kindMalformed, "an officer has a name and at least one role")
	}
	p := officers.Person{Fingerprint: store.Sum(b.Certificate), Name: b.Name, City: b.City, Certificate: b.Certificate}
	for _, r := range b.Roles {
		if !slices.Contains(policy.Roles, policy.Role(r)) {
			return nil, problemf(kindMalformed, "there is no role %q", r)
		}
		p.Roles = append(p.Roles, policy.Role(r))
	}
	if _, err := x509.ParseCertificate(b.Certificate); err != nil {
		return nil, problemf(kindMalformed, "the officer's certificate is not a certificate in DER")
	}
	return s.openApproval(c, policy.OpOfficerAdd, "", p.Canonical(policy.OpOfficerAdd), officerApprovals)
}

// officerApprovals is how many people beside the requester agree to a change of
// officers.
const officerApprovals = 1

func (s *Server) removeOfficer(c *call) (*answer, error) {
	fingerprint, err := c.hash("fingerprint", c.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	p, err := s.cfg.Office.Person(c.Context(), fingerprint)
	if err != nil {
		return nil, err
	}
	return s.openApproval(c, policy.OpOfficerRemove, "", p.Canonical(policy.OpOfficerRemove), officerApprovals)
}

func wireApproval(a *officers.Approval) client.Approval {
	w := client.Approval{
		ID: a.ID, Operation: string(a.Op), City: a.City, Requester: a.Name, Canonical: a.Canonical, Hash: a.Hash.String(),
		Needed: a.Needed, State: a.State, Created: a.Created, Expires: a.Expires,
	}
	for _, g := range a.Given {
		w.Given = append(w.Given, client.ApprovalGiven{Name: g.Name, Fingerprint: g.Fingerprint.String(), Time: g.Time})
	}
	return w
}

// openApproval opens an approval of a request and answers 202 with it.
func (s *Server) openApproval(c *call, op policy.Operation, city string, request []byte, needed int) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		a, err := s.cfg.Office.Request(tx, c.caller, op, city, request, needed)
		if err != nil {
			return nil, err
		}
		ans, err := reply(http.StatusAccepted, wireApproval(a))
		if err == nil {
			ans.location = "/v1/approvals/" + a.ID
		}
		return ans, err
	})
}

func (s *Server) approvals(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*officers.Approval, []byte, error) {
		return s.cfg.Office.Approvals(c.Context(), c.city, c.query("state"), after, limit)
	}, wireApproval)
}

func (s *Server) approval(c *call) (*answer, error) {
	a, err := s.cfg.Office.Approval(c.Context(), c.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireApproval(a))
}

func (s *Server) approve(c *call) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		a, err := s.cfg.Office.Approve(tx, c.caller, c.PathValue("id"), in[client.Consent](c).CMS)
		if err != nil {
			return nil, err
		}
		if a.State == officers.Granted {
			if err := s.carryOut(tx, c, a); err != nil {
				return nil, err
			}
		}
		return reply(http.StatusOK, wireApproval(a))
	})
}

// carryOut does what was approved, where it needs nothing but the book. A
// certificate needs a signature, so its requester asks again.
func (s *Server) carryOut(tx *store.Tx, c *call, a *officers.Approval) error {
	if a.Op != policy.OpOfficerAdd && a.Op != policy.OpOfficerRemove {
		return nil
	}
	p, op, err := officers.ParsePerson(a.Request)
	if err != nil {
		return err
	}
	if op == policy.OpOfficerRemove {
		err = s.cfg.Office.Remove(tx, c.caller, p.Fingerprint, a.ID)
	} else {
		_, err = s.cfg.Office.Add(tx, c.caller, *p, a.ID)
	}
	if err == nil {
		a.State = officers.Used
	}
	return err
}
