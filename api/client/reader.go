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
	State        string         `json:"state" doc:"manufactured, prepared, allotted, initialised, active, suspended, replaced, revoked or retired"`
	Model        string         `json:"model,omitempty" doc:"the maker's model"`
	Firmware     string         `json:"firmware,omitempty" doc:"the firmware's version"`
	Approval     string         `json:"approval,omitempty" doc:"the approval number of the model"`
	Batch        string         `json:"batch,omitempty" doc:"ID of the maker's manifest"`
	Customer     string         `json:"customer,omitempty" doc:"an opaque word for the customer that the reader is bound to"`
	Ticket       string         `json:"ticket,omitempty" doc:"ID of the ticket that allotted the reader to its city"`
	Device       string         `json:"device,omitempty" doc:"SHA-256 of the device certificate, hexadecimal"`
	DeviceSerial string         `json:"deviceSerial,omitempty" doc:"serial number of the device certificate, where this book holds it"`
	CA           string         `json:"ca,omitempty" doc:"ID of the city CA that issued the pair"`
	Sign         string         `json:"sign,omitempty" doc:"serial number of the signing certificate"`
	Encrypt      string         `json:"encrypt,omitempty" doc:"serial number of the encryption certificate"`
	NotAfter     time.Time      `json:"notAfter,omitzero" doc:"when the pair ends"`
	Escrowed     bool           `json:"escrowed,omitempty" doc:"the key management centre keeps the encryption key"`
	Elsewhere    bool           `json:"elsewhere,omitempty" doc:"the pair is in the book of the city that issued it"`
	NextSign     string         `json:"nextSign,omitempty" doc:"serial number of the signing certificate of a renewal under way, on hold"`
	NextEncrypt  string         `json:"nextEncrypt,omitempty" doc:"serial number of the encryption certificate of a renewal under way, on hold"`
	Successor    string         `json:"successor,omitempty" doc:"number of the reader that replaced this one"`
	Predecessor  string         `json:"predecessor,omitempty" doc:"number of the reader that this one replaced"`
	Receipt      string         `json:"receipt,omitempty" doc:"SHA-256 of the reader's last receipt, hexadecimal"`
	History      []ReaderChange `json:"history,omitempty" doc:"the steps of its life, oldest first"`
	Seq          uint64         `json:"seq" doc:"the journal event of the last change"`
	Certificates []Certificate  `json:"certificates,omitempty" doc:"the pair, signing first, then that of a renewal; not in lists"`
}

// ReaderChange is one step of a reader's life.
type ReaderChange struct {
	Time  time.Time `json:"time" doc:"when"`
	Step  string    `json:"step,omitempty" doc:"what was done"`
	From  string    `json:"from,omitempty" doc:"state before"`
	To    string    `json:"to" doc:"state after"`
	Actor string    `json:"actor" doc:"who did it"`
	Note  string    `json:"note,omitempty" doc:"a few words"`
	Seq   uint64    `json:"seq,omitempty" doc:"the journal event of the step"`
}

// Binding binds a reader to a customer.
type Binding struct {
	Customer string `json:"customer" doc:"an opaque word of at most 128 octets, no personal data; empty releases the reader"`
}

// Replacement says which reader takes another's place.
type Replacement struct {
	By     string `json:"by" doc:"number of the reader that takes its place and its customer"`
	Reason int    `json:"reason,omitempty" doc:"CRL reason code (RFC 5280, Section 5.3.1); absent means superseded"`
	Note   string `json:"note,omitempty" doc:"a few words for the history"`
}

// MassSelection selects readers for a mass change; what is empty selects all.
type MassSelection struct {
	City     string `json:"city,omitempty" doc:"city code"`
	Model    string `json:"model,omitempty" doc:"the maker's model"`
	Firmware string `json:"firmware,omitempty" doc:"the firmware's version"`
	Batch    string `json:"batch,omitempty" doc:"ID of the maker's manifest"`
}

// MassPlan is a mass change that was looked at and not done. As a file it is the
// same JSON.
type MassPlan struct {
	Hufu      string         `json:"hufu" doc:"reader-mass"`
	Book      string         `json:"book" doc:"ID of the book"`
	Epoch     uint64         `json:"epoch" doc:"epoch of the book"`
	Seq       uint64         `json:"seq" doc:"the journal event that the readers are looked at as of"`
	Time      time.Time      `json:"time" doc:"when the plan was made"`
	Action    string         `json:"action" doc:"suspend, resume or revoke"`
	Reason    int            `json:"reason,omitempty" doc:"CRL reason code of a revocation"`
	Note      string         `json:"note,omitempty" doc:"a few words for the history"`
	Selection MassSelection  `json:"selection" doc:"which readers"`
	Count     int            `json:"count" doc:"how many readers will be changed"`
	SHA256    string         `json:"sha256" doc:"SHA-256 of their numbers, in order, each with a line feed, hexadecimal"`
	Sample    []string       `json:"sample" doc:"the first of them"`
	States    map[string]int `json:"states" doc:"how many of the selected readers are in which state"`
	Elsewhere int            `json:"elsewhere,omitempty" doc:"how many of the selected readers have their pair in a city's own book, and are not changed"`
	Approvals int            `json:"approvals,omitempty" doc:"how many other people must approve"`
}

// MassRequest asks that a plan be done.
type MassRequest struct {
	Plan     MassPlan `json:"plan" doc:"the plan, as it was given"`
	Approval string   `json:"approval,omitempty" doc:"ID of the granted approval, where one is needed"`
}

// BatchRequest asks for many pairs of one city in a job.
type BatchRequest struct {
	City    string        `json:"city" doc:"city code that every reader of the batch belongs to"`
	Readers []PairRequest `json:"readers" doc:"the pairs asked for; each result is an item of the job"`
}

// ReaderQuery selects readers; an empty field selects all.
type ReaderQuery struct {
	City, State, Model, Firmware, Batch, Customer, Ticket string
	Number                                                string // how the number begins
	ExpiresBefore                                         time.Time
	Limit                                                 uint64
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
	return all[Reader](ctx, c, "/v1/readers", values("city", q.City, "state", q.State, "model", q.Model, "firmware", q.Firmware, "batch", q.Batch,
		"customer", q.Customer, "ticket", q.Ticket, "number", q.Number, "expires-before", moment(q.ExpiresBefore), "limit", number(q.Limit)))
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

// BindReader binds a reader to a customer, or releases it.
func (c *Client) BindReader(ctx context.Context, num string, b Binding) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/bind", nil, b)
}

// ReplaceReader ends a reader and gives its customer to another.
func (c *Client) ReplaceReader(ctx context.Context, num string, r Replacement) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/replace", nil, r)
}

// RetireReader ends a reader that nothing replaces.
func (c *Client) RetireReader(ctx context.Context, num string, n Note) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/readers/"+num+"/retire", nil, n)
}

// PlanMass looks at what a mass change would do.
func (c *Client) PlanMass(ctx context.Context, action string, s MassSelection, reason int, note string) (*MassPlan, error) {
	return call[MassPlan](ctx, c, http.MethodGet, "/v1/mass/plan", values("action", action, "city", s.City, "model", s.Model, "firmware", s.Firmware,
		"batch", s.Batch, "reason", number(uint64(reason)), "note", note), nil)
}

// RequestMass asks for the approval of a plan that is too large for one person.
func (c *Client) RequestMass(ctx context.Context, p MassPlan) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodPost, "/v1/mass/approvals", nil, p)
}

// RunMass starts the job that does a plan.
func (c *Client) RunMass(ctx context.Context, r MassRequest) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/mass", nil, r)
}
