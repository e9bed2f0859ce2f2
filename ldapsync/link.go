package ldapsync

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// link is a connection to a directory. Several requests may be under way on it at once; the server answers in any order.
type link struct {
	ldap *ldap.Conn
	raw  net.Conn
	dir  *Directory
	base *ldap.DN
	lost chan error // gets why the connection ended, at once and also when nobody asks anything
}

// boundedConn gives every write an end: the LDAP library writes from the goroutine that also watches the time, so a server that stops
// reading would otherwise hold both up for ever.
type boundedConn struct {
	net.Conn
	timeout time.Duration
	lost    chan<- error
}

// Read is called by the LDAP library all the time, so the end of the connection is seen when it comes.
func (c *boundedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		select {
		case c.lost <- err:
		default: // it is known already
		}
	}
	return n, err
}

func (c *boundedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// connect dials, secures the connection and, where there is a client certificate, binds with it (SASL EXTERNAL, RFC 4422, Appendix A).
func connect(ctx context.Context, d *Directory) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	base, err := ldap.ParseDN(d.Base)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: base %q is not a name: %w", d.Name, d.Base, err)
	}
	l := &link{dir: d, base: base, lost: make(chan error, 1)}
	if err := l.open(ctx); err != nil {
		l.close()
		return nil, fmt.Errorf("connecting to %s: %w", d.URL, err)
	}
	return l, nil
}

func (l *link) open(ctx context.Context) error {
	host, secure, err := l.dir.address()
	if err != nil {
		return err
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return err
	}
	l.raw = raw
	// A cancelled or late set-up ends with the connection.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	cfg := l.dir.TLS.Clone()
	if cfg != nil && cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(host)
	}
	var conn net.Conn = &boundedConn{raw, l.dir.Timeout, l.lost}
	if secure {
		t := tls.Client(conn, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = t
	}
	l.ldap = ldap.NewConn(conn, secure)
	l.ldap.SetTimeout(l.dir.Timeout)
	l.ldap.Start()
	if l.dir.StartTLS {
		if err := l.ldap.StartTLS(cfg); err != nil {
			return err
		}
	}
	if (secure || l.dir.StartTLS) && (len(cfg.Certificates) > 0 || cfg.GetClientCertificate != nil) {
		if err := l.ldap.ExternalBind(); err != nil {
			return fmt.Errorf("the directory does not take our client certificate (SASL EXTERNAL): %w", err)
		}
	}
	return ctx.Err()
}

// close hangs up. The socket goes first, so that nothing waits for a server that does not answer.
func (l *link) close() {
	if l.raw != nil {
		l.raw.Close()
	}
	if l.ldap != nil {
		l.ldap.Close()
	}
}

// address returns host and port, and whether TLS is spoken from the first octet.
func (d *Directory) address() (host string, secure bool, err error) {
	u, err := url.Parse(d.URL)
	if err != nil {
		return "", false, err
	}
	port := u.Port()
	switch {
	case u.Hostname() == "":
		return "", false, fmt.Errorf("%q names no host", d.URL)
	case u.Scheme == "ldaps":
		secure = true
		if port == "" {
			port = "636"
		}
	case u.Scheme == "ldap":
		if port == "" {
			port = "389"
		}
	default:
		return "", false, fmt.Errorf("%q is neither ldaps:// nor ldap://", d.URL)
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

// dn returns the full name of an entry below the base.
func (l *link) dn(name string) string {
	if name == "" {
		return l.dir.Base
	}
	return name + "," + l.dir.Base
}

// get reads one entry, nil if it is not there.
func (l *link) get(name string) (*ldap.Entry, error) {
	r, err := l.ldap.Search(ldap.NewSearchRequest(l.dn(name), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)", []string{"*"}, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(r.Entries) != 1 {
		return nil, nil
	}
	return r.Entries[0], nil
}

// each goes through the entries below the base that match, page by page (RFC 2696), while f returns nil.
func (l *link) each(ctx context.Context, filter string, attributes []string, f func(*ldap.Entry) error) error {
	page := ldap.NewControlPaging(500)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := l.ldap.Search(ldap.NewSearchRequest(l.dir.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, []ldap.Control{page}))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range r.Entries {
			if err := f(e); err != nil {
				return err
			}
		}
		next, ok := ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		page.SetCookie(next.Cookie)
	}
}

// create adds an entry. One that is there already is no error.
func (l *link) create(name string, classes []string, attributes ...ldap.Attribute) error {
	err := l.ldap.Add(&ldap.AddRequest{DN: l.dn(name), Attributes: append([]ldap.Attribute{{Type: attrClass, Vals: classes}}, attributes...)})
	if ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
		return nil
	}
	return err
}

// createBase adds the base entry, if it is of a kind whose class its name tells.
func (l *link) createBase() error {
	rdn := l.base.RDNs[0].Attributes
	class := map[string][]string{
		"o": {"top", "organization"}, "ou": {"top", "organizationalUnit"}, "c": {"top", "country"}, "dc": {"top", "domain"},
	}[strings.ToLower(rdn[0].Type)]
	if class == nil || len(rdn) != 1 {
		return fmt.Errorf("the base entry %s is not there, and its class cannot be told from its name: add it by hand", l.dir.Base)
	}
	return l.create("", class, ldap.Attribute{Type: rdn[0].Type, Vals: []string{rdn[0].Value}})
}

// add writes a new entry.
func (l *link) add(r *record) error {
	req := &ldap.AddRequest{DN: l.dn(r.Name)}
	req.Attribute(attrClass, r.classes)
	for _, a := range r.Attributes {
		req.Attribute(a.Type, texts(a.Values))
	}
	return l.ldap.Add(req)
}

// replace turns the entry have into r with one modify, which the server carries out as a whole or not at all (RFC 4511, Section 4.6). It
// takes the old epoch and sequence away by their values, so it fails with noSuchAttribute if another writer was quicker.
func (l *link) replace(have *ldap.Entry, r *record) error {
	req := ldap.NewModifyRequest(have.DN, nil)
	for _, guard := range []string{attrEpoch, attrSeq} {
		if old := have.GetAttributeValue(guard); old != "" {
			req.Delete(guard, []string{old})
		}
		req.Add(guard, []string{r.value(guard)})
	}
	want := map[string]bool{}
	for _, a := range r.Attributes {
		name, _ := managed(a.Type)
		want[name] = true
		if a.Type != attrEpoch && a.Type != attrSeq && !slices.EqualFunc(a.Values, stored(have, name), bytes.Equal) {
			req.Replace(a.Type, texts(a.Values))
		}
	}
	for _, a := range have.Attributes {
		if name, ok := managed(a.Name); ok && !want[name] && name != "hufuepoch" && name != "hufuseq" {
			req.Delete(a.Name, nil)
		}
	}
	classes := have.GetAttributeValues(attrClass)
	for _, c := range r.classes {
		if !slices.ContainsFunc(classes, func(h string) bool { return strings.EqualFold(h, c) }) {
			req.Add(attrClass, []string{c})
		}
	}
	return l.ldap.Modify(req)
}

// advance turns the entry of a certificate from what it was at the position last into r, with one modify that is guarded as that of replace.
// Only what a change of status changes is sent.
func (l *link) advance(r *record, last position) error {
	req := ldap.NewModifyRequest(l.dn(r.Name), nil)
	for _, guard := range []struct{ attribute, old string }{
		{attrBook, r.value(attrBook)}, {attrEpoch, strconv.FormatUint(last.epoch, 10)}, {attrSeq, strconv.FormatUint(last.seq, 10)},
	} {
		req.Delete(guard.attribute, []string{guard.old})
		req.Add(guard.attribute, []string{r.value(guard.attribute)})
	}
	for _, attribute := range []string{attrStatus, attrReason, attrStatusTime, attrInvalidityDate} {
		var values []string
		if v := r.value(attribute); v != "" {
			values = []string{v}
		}
		req.Replace(attribute, values)
	}
	return l.ldap.Modify(req)
}

// stored returns the values of a managed attribute of an entry.
func stored(e *ldap.Entry, name string) [][]byte {
	for _, a := range e.Attributes {
		if n, ok := managed(a.Name); ok && n == name {
			return a.ByteValues
		}
	}
	return nil
}

func texts(values [][]byte) []string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = string(v)
	}
	return s
}

// lostConnection says whether an error concerns the connection or the whole server, and not one entry.
func lostConnection(err error) bool {
	var ours refusal
	var e *ldap.Error
	if errors.As(err, &ours) {
		return false
	}
	if !errors.As(err, &e) {
		return true
	}
	switch e.ResultCode {
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultOther, ldap.LDAPResultOperationsError,
		ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return true
	}
	return e.ResultCode >= ldap.ErrorNetwork
}

// aheadFilter matches entries of a book that belong to an epoch and lie after a sequence number.
func aheadFilter(book string, epoch, seq uint64) string {
	return fmt.Sprintf("(&(objectClass=hufuEntry)(hufuBook=%s)(hufuEpoch=%d)(hufuSeq>=%d))", ldap.EscapeFilter(book), epoch, seq+1)
}

// bookFilter matches all entries of a book.
func bookFilter(book string) string {
	return fmt.Sprintf("(&(objectClass=hufuEntry)(hufuBook=%s))", ldap.EscapeFilter(book))
}
