package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"hufu/api/client"
	"hufu/ca"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// ofIssue is the city of a city CA, or else the one that the name asks for.
var ofIssue = city{words: "that of the CA, or else the one in the name asked for", find: func(s *Server, c *call) (string, error) {
	b := in[client.IssueRequest](c)
	city := b.Name.City
	err := s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		issuer, err := store.CAs.Get(tx, store.Key(b.CA))
		if errors.Is(err, store.ErrNotFound) {
			return problemf(kindNotFound, "there is no CA %q", b.CA)
		}
		if err == nil && issuer.City != "" {
			city = issuer.City
		}
		return err
	})
	return city, err
}}

var ofCertificate = city{words: "that of the certificate", find: func(s *Server, c *call) (city string, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		cert, err := c.certificate(tx)
		if err == nil {
			city = cert.City
		}
		return err
	})
	return city, err
}}

// certificate finds the certificate that the path names.
func (c *call) certificate(tx *store.Tx) (*store.Certificate, error) {
	serial, err := store.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, problemf(kindMalformed, "%q is not a serial number of this book: 34 hexadecimal digits that begin with 01", c.PathValue("serial"))
	}
	rows, _, err := store.Certificates.Page(tx, store.Query{Index: "serial", Prefix: store.Key(serial), Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, problemf(kindNotFound, "no certificate has the serial number %s", serial)
	}
	return rows[0], nil
}

// wireCertificate joins a certificate with its present status.
func wireCertificate(tx *store.Tx, cert *store.Certificate) (*client.Certificate, error) {
	st, err := store.Statuses.Get(tx, store.SerialKey(cert.CA, cert.Serial))
	if err != nil {
		// Not wrapped: a certificate without a status is a fault of the book,
		// never "not found".
		return nil, fmt.Errorf("reading the status of certificate %s of CA %s: %v", cert.Serial, cert.CA, err)
	}
	return &client.Certificate{
		CA: cert.CA, Serial: cert.Serial.String(), Profile: cert.Profile, Subject: cert.Subject, Names: cert.Names, Line: cert.Line,
		Reader: cert.Reader, City: cert.City, Requester: cert.Requester, SPKI: cert.SPKI.String(),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Seq: cert.Seq, DER: cert.DER,
		Status: client.Status{State: st.State.String(), Reason: st.Reason, Time: st.Time, InvalidityDate: st.InvalidityDate, Seq: st.Seq},
	}, nil
}

// issue makes a certificate. The idempotency key is honoured by the spine.
func (s *Server) issue(c *call) (*answer, error) {
	b := in[client.IssueRequest](c)
	profile, err := s.mayAsk(c, b.Profile)
	if err != nil {
		return nil, err
	}
	order := ca.Order{
		Requests: []ca.Request{{
			CA: b.CA, Profile: b.Profile, CSR: b.CSR, Line: b.Line, NotAfter: b.NotAfter,
			Name: policy.Name{Reader: b.Name.Reader, City: b.Name.City, Domain: b.Name.Domain, DNS: b.Name.DNS,
				Person: b.Name.Person, Organisation: b.Name.Organisation, CommonName: b.Name.CommonName},
		}},
		Requester: c.caller.Name, IdempotencyKey: c.ownKey(), Hold: b.Hold,
	}
	if profile.Approvals > 0 {
		approval := b.Approval
		b.Approval = ""
		request, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		if approval == "" {
			// Nobody is asked to approve what cannot be issued.
			if _, err := issuance.ParseCSR(b.CSR); err != nil {
				return nil, err
			}
			return s.openApproval(c, policy.OpCertificateIssue, c.city, request, profile.Approvals)
		}
		order.Reserve = func(tx *store.Tx, _ []*store.Certificate) error {
			return s.cfg.Office.Consume(tx, approval, store.Sum(request))
		}
	}
	certs, err := s.cfg.Authority.Issue(c.Context(), order)
	if err != nil {
		return nil, err
	}
	var wire *client.Certificate
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		wire, err = wireCertificate(tx, certs[0])
		return err
	})
	if err != nil {
		return nil, err
	}
	a, err := reply(http.StatusCreated, wire)
	if err == nil {
		a.location = "/v1/certificates/" + wire.Serial
	}
	return a, err
}

// ownKey is the idempotency key as the spine takes it: names of callers are not
// unique, so the key carries the caller's fingerprint.
func (c *call) ownKey() string { return store.Hash(c.caller.Fingerprint).String()[:32] + ":" + c.key }

// mayAsk finds a profile that the caller may ask for here.
func (s *Server) mayAsk(c *call, name string) (*policy.Profile, error) {
	p, err := policy.Find(name)
	if err != nil {
		var names []string
		for i := range policy.Profiles {
			if !policy.Profiles[i].CA {
				names = append(names, policy.Profiles[i].Name)
			}
		}
		return nil, problemf(kindProfile, "there is no profile %q; there are %s", name, strings.Join(names, ", "))
	}
	if isPair(p.Name) {
		return nil, problemf(kindPair, "profile %s makes one half of a reader's pair", p.Name)
	}
	if !slices.ContainsFunc(c.caller.Roles, func(r policy.Role) bool { return slices.Contains(p.Ask, r) }) {
		return nil, s.refuse(c, "profile", fmt.Sprintf("a certificate of profile %s is for %v to ask for", p.Name, p.Ask))
	}
	return p, nil
}

// isPair tells whether a certificate of a profile is one half of a reader's pair.
func isPair(profile string) bool { return profile == "reader-sign" || profile == "reader-encrypt" }

func (s *Server) certificate(c *call) (a *answer, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		cert, err := c.certificate(tx)
		if err != nil {
			return err
		}
		wire, err := wireCertificate(tx, cert)
		if err != nil {
			return err
		}
		a, err = reply(http.StatusOK, wire)
		return err
	})
	return a, err
}

func (s *Server) suspend(c *call) (*answer, error) {
	return s.changeStatus(c, func(tx *store.Tx, r ca.Ref) error { return s.cfg.Authority.Suspend(tx, r, c.caller.Name) })
}

func (s *Server) resume(c *call) (*answer, error) {
	return s.changeStatus(c, func(tx *store.Tx, r ca.Ref) error { return s.cfg.Authority.Resume(tx, r, c.caller.Name) })
}

func (s *Server) revoke(c *call) (*answer, error) {
	b := in[client.Revocation](c)
	return s.changeStatus(c, func(tx *store.Tx, r ca.Ref) error {
		return s.cfg.Authority.Revoke(tx, r, b.Reason, b.InvalidityDate, c.caller.Name)
	})
}

func (s *Server) changeStatus(c *call, f func(tx *store.Tx, r ca.Ref) error) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		cert, err := c.certificate(tx)
		if err != nil {
			return nil, err
		}
		if isPair(cert.Profile) {
			return nil, problemf(kindPair, "certificate %s belongs to the pair of reader %s", cert.Serial, cert.Reader)
		}
		if err := f(tx, ca.Ref{CA: cert.CA, Serial: cert.Serial}); err != nil {
			return nil, err
		}
		wire, err := wireCertificate(tx, cert)
		if err != nil {
			return nil, err
		}
		return reply(http.StatusOK, wire)
	})
}

// maxRead bounds the rows that one page of a narrowed list looks at.
const maxRead = 5000

// selection is what a list of certificates is narrowed to.
type selection struct {
	city, reader, line, subject, ca, state string
	spki                                   store.Hash
	before                                 time.Time
}

func (l *selection) takes(cert *store.Certificate, state string) bool {
	return (l.city == "" || cert.City == l.city) && (l.reader == "" || cert.Reader == l.reader) &&
		(l.line == "" || cert.Line == l.line) && (l.subject == "" || cert.Subject == l.subject) &&
		(l.ca == "" || cert.CA == l.ca) && (l.state == "" || state == l.state) &&
		(l.spki.IsZero() || cert.SPKI == l.spki) && (l.before.IsZero() || cert.NotAfter.Before(l.before))
}

// selection reads what is asked for, and chooses the index that leads: the one
// that finds the fewest.
func (c *call) selection() (l selection, lead store.Query, err error) {
	l = selection{city: c.city, reader: c.query("reader"), line: c.query("line"), subject: c.query("subject"), ca: c.query("ca"), state: c.query("state")}
	if v := c.query("spki"); v != "" {
		if l.spki, err = c.hash("spki", v); err != nil {
			return l, lead, err
		}
	}
	if l.before, err = c.moment("expires-before"); err != nil {
		return l, lead, err
	}
	if l.state != "" && l.state != store.Good.String() && l.state != store.Held.String() && l.state != store.Revoked.String() {
		return l, lead, problemf(kindMalformed, "parameter state is %q; good, on-hold or revoked are allowed", l.state)
	}
	switch {
	case c.query("serial") != "":
		serial, err := store.ParseSerial(c.query("serial"))
		if err != nil {
			return l, lead, problemf(kindMalformed, "parameter serial: %v", err)
		}
		lead = store.Query{Index: "serial", Prefix: store.Key(serial)}
	case !l.spki.IsZero():
		lead = store.Query{Index: "spki", Prefix: store.Key(l.spki)}
	case l.reader != "":
		lead = store.Query{Index: "reader", Prefix: store.Key(l.reader)}
	case l.line != "":
		lead = store.Query{Index: "line", Prefix: store.Key(l.line)}
	case l.subject != "":
		lead = store.Query{Index: "subject", Prefix: store.Key(l.subject)}
	case !l.before.IsZero():
		lead = store.Query{Index: "expiry"}
	case l.city != "":
		lead = store.Query{Index: "city", Prefix: store.Key(l.city)}
	case l.ca != "":
		lead = store.Query{Index: "ca", Prefix: store.Key(l.ca)}
	}
	return l, lead, nil
}

// certificates lists. What is held or revoked is few among many, so a list of
// them alone is led by the status.
func (s *Server) certificates(c *call) (*answer, error) {
	limit, after, err := c.page()
	if err != nil {
		return nil, err
	}
	l, lead, err := c.selection()
	if err != nil {
		return nil, err
	}
	byState := (lead.Prefix == nil || lead.Index == "ca") && lead.Index != "expiry" && l.state != "" && l.state != store.Good.String()
	lead.After = after
	page := client.Page[client.Certificate]{Items: []client.Certificate{}}
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		if lead.Index == "line" {
			// All of a line have one subject, and an index for that.
			one, err := store.OneOfLine(tx, l.line)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			lead.Index, lead.Prefix = "subject", store.Key(one.Subject)
		}
		for read := 0; len(page.Items) < limit && read < maxRead; {
			lead.Limit = limit - len(page.Items)
			rows, next, err := leadPage(tx, lead, byState, &l)
			if err != nil {
				return err
			}
			read += len(rows)
			for _, cert := range rows {
				if !l.before.IsZero() && lead.Index == "expiry" && !cert.NotAfter.Before(l.before) {
					next = nil // the index goes by expiry: nothing later fits
					break
				}
				wire, err := wireCertificate(tx, cert)
				if err != nil {
					return err
				}
				if l.takes(cert, wire.Status.State) {
					page.Items = append(page.Items, *wire)
				}
			}
			lead.After = next
			if next == nil {
				return nil
			}
		}
		page.Next = c.next(lead.After)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, page)
}

// leadPage reads one page of certificates by the leading index, which is that of
// the statuses when byState.
func leadPage(tx *store.Tx, q store.Query, byState bool, l *selection) ([]*store.Certificate, []byte, error) {
	if !byState {
		return store.Certificates.Page(tx, q)
	}
	q.Index, q.Prefix = "state", store.Key(l.state)
	if l.ca != "" {
		q.Prefix = store.Key(l.state, l.ca)
	}
	statuses, next, err := store.Statuses.Page(tx, q)
	if err != nil {
		return nil, nil, err
	}
	certs := make([]*store.Certificate, 0, len(statuses))
	for _, st := range statuses {
		cert, err := store.FindCertificate(tx, st.CA, st.Serial)
		if errors.Is(err, store.ErrNotFound) && st.Unissued {
			continue // a closed intent has a status and no certificate
		}
		if err != nil {
			return nil, nil, err
		}
		certs = append(certs, cert)
	}
	return certs, next, nil
}
