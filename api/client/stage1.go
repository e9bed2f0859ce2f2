package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

// Model is a sort of reader that was tested and approved.
type Model struct {
	Name      string    `json:"name" doc:"name, as manifests have it"`
	Maker     string    `json:"maker" doc:"who makes it"`
	Approval  string    `json:"approval" doc:"number of the approval"`
	Tested    time.Time `json:"tested,omitzero" doc:"when it was tested"`
	Until     time.Time `json:"until" doc:"when the approval lapses"`
	Firmware  []string  `json:"firmware,omitempty" doc:"versions that were tested; none means any"`
	State     string    `json:"state,omitempty" doc:"approved, lapsed or withdrawn"`
	Withdrawn time.Time `json:"withdrawn,omitzero" doc:"when it was withdrawn"`
	Note      string    `json:"note,omitempty" doc:"why"`
	Seq       uint64    `json:"seq,omitempty" doc:"the journal event of the last change"`
}

// ManifestRequest is a maker's manifest.
type ManifestRequest struct {
	Name     string `json:"name,omitempty" doc:"name of the file"`
	Encoding string `json:"encoding,omitempty" doc:"utf-8 or gb18030; absent means that the node finds out"`
	File     []byte `json:"file" doc:"the CSV file, at most 64 MiB"`
}

// ManifestReport is a manifest that nothing is wrong with.
type ManifestReport struct {
	Readers  int    `json:"readers" doc:"readers on it"`
	Encoding string `json:"encoding" doc:"utf-8 or gb18030"`
	SHA256   string `json:"sha256" doc:"SHA-256 of the file, hexadecimal"`
}

// Manifest is a manifest that was taken in.
type Manifest struct {
	ID       string    `json:"id" doc:"ID; the batch of its readers"`
	Name     string    `json:"name,omitempty" doc:"name of the file"`
	SHA256   string    `json:"sha256" doc:"SHA-256 of the file, hexadecimal"`
	Encoding string    `json:"encoding" doc:"utf-8 or gb18030"`
	Readers  int       `json:"readers" doc:"readers on it"`
	Prepared int       `json:"prepared" doc:"of them, whose device key is certified"`
	Actor    string    `json:"actor" doc:"who imported it"`
	Time     time.Time `json:"time" doc:"when"`
	Job      string    `json:"job" doc:"ID of the job that works at it, or did last"`
	Seq      uint64    `json:"seq" doc:"the journal event of its import"`
}

// Faults is all that is wrong with a manifest.
type Faults struct {
	Total int     `json:"total" doc:"how many faults there are"`
	List  []Fault `json:"list" doc:"the first hundred of them, by line"`
}

// Fault is one thing that is wrong with a manifest.
type Fault struct {
	Row    int    `json:"row" doc:"line of the file; 0 means the file as a whole"`
	Column string `json:"column,omitempty" doc:"the column"`
	Value  string `json:"value,omitempty" doc:"what stands there"`
	Reason string `json:"reason" doc:"what is wrong"`
	Remedy string `json:"remedy" doc:"what helps"`
}

// TicketRequest asks for a ticket.
type TicketRequest struct {
	City     string    `json:"city" doc:"city code that the ticket is for"`
	Expires  time.Time `json:"expires" doc:"no reader is initialised after it"`
	Quota    uint32    `json:"quota,omitempty" doc:"how many of the readers may be initialised; absent means all"`
	Readers  []string  `json:"readers,omitempty" doc:"their numbers; absent means the prepared readers that the other fields select"`
	Model    string    `json:"model,omitempty" doc:"of this model"`
	Firmware string    `json:"firmware,omitempty" doc:"with this firmware"`
	Batch    string    `json:"batch,omitempty" doc:"of this manifest"`
	Prefix   string    `json:"prefix,omitempty" doc:"whose numbers begin so"`
	Count    int       `json:"count,omitempty" doc:"so many of them; absent means all"`
}

// Ticket is a list of readers that a city may initialise.
type Ticket struct {
	ID       string    `json:"id" doc:"ID"`
	City     string    `json:"city" doc:"city code"`
	State    string    `json:"state" doc:"making, open, revoked or failed"`
	Issued   time.Time `json:"issued" doc:"when it was made"`
	Expires  time.Time `json:"expires" doc:"no reader is initialised after it"`
	Quota    uint32    `json:"quota" doc:"how many of its readers may be initialised"`
	Readers  uint32    `json:"readers" doc:"readers on it"`
	Used     uint32    `json:"used" doc:"of them, that are initialised as far as this book knows"`
	Size     int64     `json:"size,omitempty" doc:"octets of its file"`
	SHA256   string    `json:"sha256,omitempty" doc:"SHA-256 of its file, hexadecimal"`
	Imported bool      `json:"imported,omitempty" doc:"it came from the centre as a file"`
	Offline  bool      `json:"offline,omitempty" doc:"it was taken in without asking for the status of its signer"`
	Actor    string    `json:"actor" doc:"who asked for it"`
	Job      string    `json:"job,omitempty" doc:"ID of the job that made it or took it in"`
	Revoked  time.Time `json:"revoked,omitzero" doc:"when it was revoked"`
	Note     string    `json:"note,omitempty" doc:"why"`
	Seq      uint64    `json:"seq" doc:"the journal event of the last change"`
}

// TicketImport is a ticket's file for a city's own book.
type TicketImport struct {
	Ticket  []byte `json:"ticket" doc:"the centre's CMS SignedData in DER"`
	Offline bool   `json:"offline,omitempty" doc:"do not ask for the status of the centre's certificate: nobody here can tell it"`
}

// Receipts are lines of a receipts file.
type Receipts struct {
	Lines []string `json:"lines" doc:"lines of the file, at most 500 at once"`
}

// Matches is what became of receipts.
type Matches struct {
	Ticket  Ticket  `json:"ticket" doc:"the ticket, afterwards"`
	Matches []Match `json:"matches" doc:"one for each line"`
}

// Match is what became of one receipt.
type Match struct {
	Line    int    `json:"line" doc:"1, 2, …"`
	Number  string `json:"number,omitempty" doc:"reader number, as the line says"`
	Outcome string `json:"outcome" doc:"matched, double or foreign"`
	Reason  string `json:"reason,omitempty" doc:"why it is not matched, or that it was known already"`
	State   string `json:"state,omitempty" doc:"state of the reader in this book, afterwards"`
	Status  string `json:"status,omitempty" doc:"of its certificates: good, on-hold, or untold where nobody here can tell"`
}

// AddModel records a model, or a new approval of a known one.
func (c *Client) AddModel(ctx context.Context, m Model) (*Model, error) {
	return call[Model](ctx, c, http.MethodPost, "/v1/models", nil, m)
}

// Model returns one model.
func (c *Client) Model(ctx context.Context, name string) (*Model, error) {
	return call[Model](ctx, c, http.MethodGet, "/v1/models/"+name, nil, nil)
}

// Models walks the models.
func (c *Client) Models(ctx context.Context) iter.Seq2[*Model, error] {
	return all[Model](ctx, c, "/v1/models", nil)
}

// WithdrawModel ends a model.
func (c *Client) WithdrawModel(ctx context.Context, name string, n Note) (*Model, error) {
	return call[Model](ctx, c, http.MethodPost, "/v1/models/"+name+"/withdraw", nil, n)
}

// CheckManifest tells all that is wrong with a manifest, and takes nothing in.
func (c *Client) CheckManifest(ctx context.Context, r ManifestRequest) (*ManifestReport, error) {
	return call[ManifestReport](ctx, c, http.MethodPost, "/v1/manifests/check", nil, r)
}

// ImportManifest takes a manifest in and starts the job that certifies its readers.
func (c *Client) ImportManifest(ctx context.Context, r ManifestRequest) (*Manifest, error) {
	return call[Manifest](ctx, c, http.MethodPost, "/v1/manifests", nil, r)
}

// Manifest returns one manifest.
func (c *Client) Manifest(ctx context.Context, id string) (*Manifest, error) {
	return call[Manifest](ctx, c, http.MethodGet, "/v1/manifests/"+id, nil, nil)
}

// Manifests walks the manifests, the newest first.
func (c *Client) Manifests(ctx context.Context) iter.Seq2[*Manifest, error] {
	return all[Manifest](ctx, c, "/v1/manifests", nil)
}

// CreateTicket chooses readers and starts the job that makes a ticket for them.
func (c *Client) CreateTicket(ctx context.Context, r TicketRequest) (*Ticket, error) {
	return call[Ticket](ctx, c, http.MethodPost, "/v1/tickets", nil, r)
}

// Ticket returns one ticket.
func (c *Client) Ticket(ctx context.Context, id string) (*Ticket, error) {
	return call[Ticket](ctx, c, http.MethodGet, "/v1/tickets/"+id, nil, nil)
}

// Tickets walks the tickets, the newest first.
func (c *Client) Tickets(ctx context.Context, city string) iter.Seq2[*Ticket, error] {
	return all[Ticket](ctx, c, "/v1/tickets", values("city", city))
}

// TicketFile writes a ticket's file to w.
func (c *Client) TicketFile(ctx context.Context, id string, w io.Writer) error {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/tickets/" + id + "/file", accept: MediaCMS})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("reading ticket %s: %w", id, err)
	}
	return nil
}

// RevokeTicket ends a ticket and takes the readers off it that are not initialised.
func (c *Client) RevokeTicket(ctx context.Context, id string, n Note) (*Ticket, error) {
	return call[Ticket](ctx, c, http.MethodPost, "/v1/tickets/"+id+"/revoke", nil, n)
}

// ImportTicket takes the centre's ticket into a city's own book.
func (c *Client) ImportTicket(ctx context.Context, r TicketImport) (*Ticket, error) {
	return call[Ticket](ctx, c, http.MethodPost, "/v1/tickets/import", nil, r)
}

// Reconcile holds receipts against a ticket.
func (c *Client) Reconcile(ctx context.Context, id string, r Receipts) (*Matches, error) {
	return call[Matches](ctx, c, http.MethodPost, "/v1/tickets/"+id+"/receipts", nil, r)
}
