package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Officer is a person or a machine that may act.
type Officer struct {
	Fingerprint string   `json:"fingerprint" doc:"SHA-256 of the certificate, hexadecimal"`
	Name        string   `json:"name" doc:"name"`
	Roles       []string `json:"roles" doc:"roles"`
	City        string   `json:"city,omitempty" doc:"city code; absent means the centre and all cities"`
	State       string   `json:"state" doc:"active or removed"`
	Certificate []byte   `json:"certificate,omitempty" doc:"the certificate in DER"`
	Seq         uint64   `json:"seq" doc:"the journal event of the last change"`
}

// OfficerRequest asks that a person or a machine be added.
type OfficerRequest struct {
	Name        string   `json:"name" doc:"name"`
	Roles       []string `json:"roles" doc:"roles, at least one"`
	City        string   `json:"city,omitempty" doc:"city code; absent means the centre and all cities"`
	Certificate []byte   `json:"certificate" doc:"the certificate in DER"`
}

// Approval is a request that waits for other people's signatures.
type Approval struct {
	ID        string          `json:"id" doc:"ID"`
	Operation string          `json:"operation" doc:"what is to be approved"`
	City      string          `json:"city,omitempty" doc:"city code of what is to be approved"`
	Requester string          `json:"requester" doc:"name of who asked"`
	Canonical []byte          `json:"canonical" doc:"the bytes that an approver signs as the content of a CMS SignedData"`
	Hash      string          `json:"sha256" doc:"SHA-256 of the canonical bytes, hexadecimal"`
	Needed    int             `json:"needed" doc:"signatures needed"`
	Given     []ApprovalGiven `json:"given,omitempty" doc:"signatures given"`
	State     string          `json:"state" doc:"open, granted, used or expired"`
	Created   time.Time       `json:"created" doc:"when it was asked"`
	Expires   time.Time       `json:"expires" doc:"until when it can be given and used"`
}

// ApprovalGiven is one person's consent.
type ApprovalGiven struct {
	Name        string    `json:"name" doc:"who"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of the approver's certificate, hexadecimal"`
	Time        time.Time `json:"time" doc:"when"`
}

// Consent is an approver's signature.
type Consent struct {
	CMS []byte `json:"cms" doc:"CMS SignedData over the canonical bytes, in DER"`
}

// Person is who the node takes the caller for.
type Person struct {
	Name        string   `json:"name" doc:"name"`
	Fingerprint string   `json:"fingerprint" doc:"SHA-256 of the caller's certificate, hexadecimal"`
	Roles       []string `json:"roles" doc:"roles"`
	City        string   `json:"city,omitempty" doc:"city code; absent means the centre and all cities"`
}

// WhoAmI returns who the node takes the caller for.
func (c *Client) WhoAmI(ctx context.Context) (*Person, error) {
	return call[Person](ctx, c, http.MethodGet, "/v1/whoami", nil, nil)
}

// Officers walks the people and machines that may act.
func (c *Client) Officers(ctx context.Context) iter.Seq2[*Officer, error] {
	return all[Officer](ctx, c, "/v1/officers", nil)
}

// AddOfficer asks that a person be added. Nothing happens before another person
// has approved.
func (c *Client) AddOfficer(ctx context.Context, r OfficerRequest) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodPost, "/v1/officers", nil, r)
}

// RemoveOfficer asks that a person's rights be taken away. Nothing happens
// before another person has approved.
func (c *Client) RemoveOfficer(ctx context.Context, fingerprint string) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodDelete, "/v1/officers/"+fingerprint, nil, nil)
}

// Approvals walks the approvals in one state; "" walks all.
func (c *Client) Approvals(ctx context.Context, state string) iter.Seq2[*Approval, error] {
	return all[Approval](ctx, c, "/v1/approvals", values("state", state))
}

// Approval returns one approval.
func (c *Client) Approval(ctx context.Context, id string) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodGet, "/v1/approvals/"+id, nil, nil)
}

// Approve gives consent. With the last signature needed, what was approved
// happens.
func (c *Client) Approve(ctx context.Context, id string, cms []byte) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodPost, "/v1/approvals/"+id, nil, Consent{CMS: cms})
}
