package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Name is what a request may say about names; the profile decides what of it is
// used.
type Name struct {
	Reader       string   `json:"reader,omitempty" doc:"reader number"`
	City         string   `json:"city,omitempty" doc:"city code, six digits"`
	Domain       string   `json:"domain,omitempty" doc:"domain of the readers; the node's own when absent"`
	DNS          []string `json:"dns,omitempty" doc:"DNS names of a server or client"`
	Person       string   `json:"person,omitempty" doc:"name of a person"`
	Organisation string   `json:"organisation,omitempty" doc:"name of an organisation"`
	CommonName   string   `json:"commonName,omitempty" doc:"common name where the profile takes one"`
}

// IssueRequest asks for one certificate.
type IssueRequest struct {
	CA       string    `json:"ca" doc:"CA line, such as 330100, or ID of one generation"`
	Profile  string    `json:"profile" doc:"certificate profile, such as server"`
	CSR      []byte    `json:"csr" doc:"PKCS#10 request in DER: the key, and the proof that the requester holds it; nothing else of it is used"`
	Name     Name      `json:"name" doc:"the names asked for"`
	Line     string    `json:"line,omitempty" doc:"the certificate line to renew; absent begins a new one"`
	NotAfter time.Time `json:"notAfter,omitzero" doc:"an earlier end than the profile's"`
	Hold     bool      `json:"hold,omitempty" doc:"issue on hold, to be resumed later"`
	Approval string    `json:"approval,omitempty" doc:"ID of the approval that was granted for exactly this request, where the profile needs one"`
}

// Certificate is a certificate and its present status.
type Certificate struct {
	CA        string    `json:"ca" doc:"ID of the CA that issued it"`
	Serial    string    `json:"serial" doc:"serial number, 34 lower-case hexadecimal digits"`
	Profile   string    `json:"profile" doc:"certificate profile"`
	Subject   string    `json:"subject" doc:"subject in the form of RFC 4514"`
	Names     []string  `json:"names,omitempty" doc:"DNS names"`
	Line      string    `json:"line" doc:"the line of renewals that it belongs to"`
	Reader    string    `json:"reader,omitempty" doc:"reader number"`
	City      string    `json:"city,omitempty" doc:"city code"`
	Requester string    `json:"requester" doc:"who asked for it"`
	SPKI      string    `json:"spki" doc:"SHA-256 of the SubjectPublicKeyInfo, hexadecimal"`
	NotBefore time.Time `json:"notBefore" doc:"start of validity"`
	NotAfter  time.Time `json:"notAfter" doc:"end of validity"`
	Seq       uint64    `json:"seq" doc:"the journal event that issued it"`
	DER       []byte    `json:"certificate" doc:"the certificate in DER"`
	Status    Status    `json:"status" doc:"the present status"`
}

// Status is what the book says of a certificate.
type Status struct {
	State          string    `json:"state" doc:"good, on-hold or revoked"`
	Reason         int       `json:"reason,omitempty" doc:"CRL reason code (RFC 5280, Section 5.3.1)"`
	Time           time.Time `json:"time,omitzero" doc:"when it became so"`
	InvalidityDate time.Time `json:"invalidityDate,omitzero" doc:"when the key is known to have been lost"`
	Seq            uint64    `json:"seq" doc:"the journal event that made it so"`
}

// Revocation says why something is revoked.
type Revocation struct {
	Reason         int       `json:"reason,omitempty" doc:"CRL reason code (RFC 5280, Section 5.3.1); absent means unspecified"`
	InvalidityDate time.Time `json:"invalidityDate,omitzero" doc:"when the key is known to have been lost"`
	Note           string    `json:"note,omitempty" doc:"a few words for the history"`
}

// Note is a few words for the history of what changes.
type Note struct {
	Note string `json:"note,omitempty" doc:"a few words for the history"`
}

// CertificateQuery selects certificates by one of its indexed fields; the first
// that is set leads, the others narrow what it finds.
type CertificateQuery struct {
	Serial, SPKI, Reader, Subject, Line, CA, City, State string
	ExpiresBefore                                        time.Time
	Limit                                                uint64
}

// Issue asks for a certificate. A profile that needs approvals is asked for with
// RequestIssue first.
func (c *Client) Issue(ctx context.Context, r IssueRequest) (*Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/v1/certificates", nil, r)
}

// RequestIssue asks for the approval of a certificate whose profile needs one.
// Once it is granted, Issue with its ID and the same request makes the
// certificate.
func (c *Client) RequestIssue(ctx context.Context, r IssueRequest) (*Approval, error) {
	r.Approval = ""
	return call[Approval](ctx, c, http.MethodPost, "/v1/certificates", nil, r)
}

// Certificate returns one certificate by serial number.
func (c *Client) Certificate(ctx context.Context, serial string) (*Certificate, error) {
	return call[Certificate](ctx, c, http.MethodGet, "/v1/certificates/"+serial, nil, nil)
}

// Certificates walks the certificates that a query selects.
func (c *Client) Certificates(ctx context.Context, q CertificateQuery) iter.Seq2[*Certificate, error] {
	return all[Certificate](ctx, c, "/v1/certificates", values(
		"serial", q.Serial, "spki", q.SPKI, "reader", q.Reader, "subject", q.Subject, "line", q.Line,
		"ca", q.CA, "city", q.City, "state", q.State, "expires-before", moment(q.ExpiresBefore), "limit", number(q.Limit)))
}

// Suspend puts a good certificate on hold.
func (c *Client) Suspend(ctx context.Context, serial string) (*Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/v1/certificates/"+serial+"/suspend", nil, nil)
}

// Resume lifts a hold.
func (c *Client) Resume(ctx context.Context, serial string) (*Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/v1/certificates/"+serial+"/resume", nil, nil)
}

// Revoke ends a certificate for ever.
func (c *Client) Revoke(ctx context.Context, serial string, r Revocation) (*Certificate, error) {
	return call[Certificate](ctx, c, http.MethodPost, "/v1/certificates/"+serial+"/revoke", nil, r)
}
