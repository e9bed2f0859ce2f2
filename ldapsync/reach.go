package ldapsync

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/store"
)

// Reached is what one place says of a certificate when it is read as a relying party reads it.
type Reached struct {
	Where  string // the directory's name, or the address
	Kind   string // "directory", "ocsp" or "crl"
	Served bool   // it says what the book says
	Answer string // what it says
	// At is when it took the change by its own account: a directory's modifyTimestamp, the answer's or the list's thisUpdate. An answer or a
	// list that was renewed since is later than the first one that had it.
	At     time.Time
	Seen   time.Time     // when it was read
	Within time.Duration // from the change to the first moment at which it is known to have been served
	Err    string        // it could not be read
}

// reachLimit bounds what is read of one answer of a stranger's.
const reachLimit = 512 << 20

// Reach asks every directory, and the responder and the CRL that the certificate itself names, for what they say of a serial number. Nothing
// is assumed: each is read, and answers and lists are checked against the CA. Where the book's state is not served yet it asks again,
// until wait has passed.
func (p *Publisher) Reach(ctx context.Context, serial store.Serial, wait time.Duration) (*store.Status, []Reached, error) {
	var status *store.Status
	var ca *store.CA
	var cert *store.Certificate
	err := p.book.View(ctx, func(tx *store.Tx) (err error) {
		status = nil
		for s, err := range store.Statuses.Scan(tx, "", store.Key(serial)) {
			if err != nil {
				return err
			}
			status = s
		}
		if status == nil {
			return fmt.Errorf("serial number %s: %w", serial, store.ErrNotFound)
		}
		if ca, err = store.CAs.Get(tx, store.Key(status.CA)); err != nil {
			return err
		}
		cert, err = optional(store.FindCertificate(tx, status.CA, serial))
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("looking where %s is served: %w", serial, err)
	}
	a := &asking{p: p, status: status, ca: ca, http: &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	defer a.http.CloseIdleConnections()
	places := a.places(cert)
	until, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	found := make([]Reached, len(places))
	var group sync.WaitGroup
	for i, look := range places {
		group.Go(func() {
			for first := true; ; first = false {
				r := look(ctx)
				r.Seen = p.now().UTC()
				if r.Served {
					r.Within = max(0, r.Seen.Sub(status.Time))
					// What was there at the first look was there before; its own account may say since when.
					if own := r.At.Sub(status.Time); first && own >= 0 && own < r.Within {
						r.Within = own
					}
				}
				found[i] = r
				if r.Served || !pause(until, 20*time.Millisecond) {
					return
				}
			}
		})
	}
	group.Wait()
	return status, found, ctx.Err()
}

// asking is one look at where a status is served.
type asking struct {
	p      *Publisher
	status *store.Status
	ca     *store.CA
	http   *http.Client
}

// places lists what there is to read.
func (a *asking) places(cert *store.Certificate) (all []func(context.Context) Reached) {
	for _, w := range a.p.workers {
		all = append(all, func(ctx context.Context) Reached { return a.directory(ctx, w.dir) })
	}
	if cert == nil {
		return all
	}
	parsed, err := x509.ParseCertificate(cert.DER)
	if err != nil {
		return all
	}
	for _, at := range parsed.OCSPServer {
		all = append(all, func(ctx context.Context) Reached { return a.outcome(ctx, "ocsp", at, a.responder) })
	}
	for _, at := range parsed.CRLDistributionPoints {
		if u, err := url.Parse(at); err == nil && strings.HasPrefix(u.Scheme, "http") {
			all = append(all, func(ctx context.Context) Reached { return a.outcome(ctx, "crl", at, a.list) })
		}
	}
	return all
}

// directory reads the entry as anyone may.
func (a *asking) directory(ctx context.Context, d *Directory) Reached {
	return a.outcome(ctx, "directory", d.Name, func(ctx context.Context, _ string, r *Reached) error {
		l, err := connect(ctx, d)
		if err != nil {
			return err
		}
		defer l.close()
		name := target{ca: a.status.CA, serial: a.status.Serial}.name()
		found, err := l.ldap.Search(ldap.NewSearchRequest(l.dn(name), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)",
			[]string{attrStatus, attrReason, attrBook, "modifyTimestamp"}, nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) || err == nil && len(found.Entries) == 0 {
			r.Answer = "no entry"
			return nil
		}
		if err != nil {
			return err
		}
		e := found.Entries[0]
		r.Answer = e.GetAttributeValue(attrStatus)
		r.At, _ = time.Parse(generalizedTime, e.GetAttributeValue("modifyTimestamp")) // zero where the server does not say
		reason := ""
		if a.status.State != store.Good {
			reason = strconv.Itoa(a.status.Reason)
		}
		r.Served = e.GetAttributeValue(attrBook) == a.p.book.ID() && r.Answer == a.status.State.String() && e.GetAttributeValue(attrReason) == reason
		return nil
	})
}

func (a *asking) outcome(ctx context.Context, kind, where string, look func(ctx context.Context, where string, r *Reached) error) Reached {
	r := Reached{Kind: kind, Where: where}
	if err := look(ctx, where, &r); err != nil {
		r.Served, r.Err = false, err.Error()
	}
	return r
}

// responder asks by OCSP (RFC 6960), over HTTP POST.
func (a *asking) responder(ctx context.Context, where string, r *Reached) error {
	issuer, err := ocsp.NewIssuer(a.ca.Certificate)
	if err != nil {
		return err
	}
	id := issuer.CertID(crypto.SHA256, a.status.Serial.BigInt().Bytes())
	ask, err := ocsp.MakeRequest(nil, id)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(ask))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	der, err := a.fetch(req, 64<<10)
	if err != nil {
		return err
	}
	got, err := ocsp.ParseResponse(der, 64<<10)
	if err != nil {
		return err
	}
	if err := got.CheckSignature(a.ca.Certificate, a.p.now()); err != nil {
		return err
	}
	one := got.Find(id)
	if one == nil {
		return errors.New("the answer is about other certificates")
	}
	r.At, r.Answer = one.ThisUpdate.UTC(), one.Status.String()
	r.Served = (one.Status == ocsp.Revoked) == (a.status.State != store.Good) && one.Status != ocsp.Unknown
	if r.Served && one.Status == ocsp.Revoked {
		r.Served = one.Reason == a.status.Reason
	}
	return nil
}

// list reads the newest CRL, as a stream.
func (a *asking) list(ctx context.Context, where string, r *Reached) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", where, resp.Status)
	}
	serial := a.status.Serial.BigInt().Bytes()
	found, reason := false, 0
	l, err := crl.Scan(io.LimitReader(resp.Body, reachLimit), func(e crl.Entry) error {
		if bytes.Equal(bytes.TrimLeft(e.Serial, "\x00"), serial) {
			found, reason = true, e.Reason
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.CheckSignature(a.ca.Certificate); err != nil {
		return err
	}
	r.At, r.Answer = l.ThisUpdate.UTC(), "not on the list"
	if found {
		r.Answer = "on the list"
	}
	r.Served = found == (a.status.State != store.Good) && (!found || reason == a.status.Reason)
	return nil
}

// fetch returns the body of a good answer.
func (a *asking) fetch(req *http.Request, limit int64) ([]byte, error) {
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", req.Method, req.URL, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, limit+1))
}
