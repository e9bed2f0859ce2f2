package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// PairRequest asks for the two certificates of a reader.
type PairRequest struct {
	Number   string    `json:"number" doc:"reader number: 1 to 20 digits and lower-case letters"`
	City     string    `json:"city" doc:"city code, six digits"`
	Model    string    `json:"model,omitempty" doc:"the maker's model"`
	CSR      []byte    `json:"csr" doc:"PKCS#10 request in DER of the signing key; it carries the encryption key in an extension that its signature covers"`
	NotAfter time.Time `json:"notAfter,omitzero" doc:"an earlier end than the profile's"`
}

// Reader is a card reader.
type Reader struct {
	Number       string         `json:"number" doc:"reader number"`
	City         string         `json:"city" doc:"city code"`
	State        string         `json:"state" doc:"active, suspended, revoked, or another state of a reader's life"`
	Model        string         `json:"model,omitempty" doc:"the maker's model"`
	CA           string         `json:"ca" doc:"ID of the city CA that issued the pair"`
	Sign         string         `json:"sign" doc:"serial number of the signing certificate"`
	Encrypt      string         `json:"encrypt" doc:"serial number of the encryption certificate"`
	History      []ReaderChange `json:"history,omitempty" doc:"the steps of its life, oldest first"`
	Seq          uint64         `json:"seq" doc:"the journal event of the last change"`
	Certificates []Certificate  `json:"certificates,omitempty" doc:"the pair, signing first; not in lists"`
}

// ReaderChange is one step of a reader's life.
type ReaderChange struct {
	Time  time.Time `json:"time" doc:"when"`
	From  string    `json:"from,omitempty" doc:"state before"`
	To    string    `json:"to" doc:"state after"`
	Actor string    `json:"actor" doc:"who did it"`
	Note  string    `json:"note,omitempty" doc:"a few words"`
}

// BatchRequest asks for many pairs of one city in a job.
type BatchRequest struct {
	City    string        `json:"city" doc:"city code that every reader of the batch belongs to"`
	Readers []PairRequest `json:"readers" doc:"the pairs asked for; each result is an item of the job"`
}

// ReaderQuery selects readers; an empty field selects all.
type ReaderQuery struct {
	City, State string
	Limit       uint64
}

// IssuePair asks for a reader's pair.
func (c *Client) IssuePair(ctx context.Context, r PairRequest) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers", nil, r)
}

// IssueBatch starts a job that issues many pairs.
func (c *Client) IssueBatch(ctx context.Context, r BatchRequest) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/readers/batch", nil, r)
}

// Reader returns one reader with its pair.
func (c *Client) Reader(ctx context.Context, num string) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodGet, "/v1/readers/"+num, nil, nil)
}

// Readers walks the readers that a query selects.
func (c *Client) Readers(ctx context.Context, q ReaderQuery) iter.Seq2[*Reader, error] {
	return all[Reader](ctx, c, "/v1/readers", values("city", q.City, "state", q.State, "limit", number(q.Limit)))
}

// SuspendReader puts a reader, and both its certificates, on hold.
func (c *Client) SuspendReader(ctx context.Context, num string, n Note) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/suspend", nil, n)
}

// ResumeReader lifts a reader's hold.
func (c *Client) ResumeReader(ctx context.Context, num string, n Note) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/resume", nil, n)
}

// RevokeReader ends a reader for ever.
func (c *Client) RevokeReader(ctx context.Context, num string, r Revocation) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/revoke", nil, r)
}
