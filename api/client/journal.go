package client

import (
	"context"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"
)

// Event is one entry of the journal.
type Event struct {
	Seq    uint64    `json:"seq" doc:"1, 2, … without a gap"`
	Time   time.Time `json:"time" doc:"when it was recorded"`
	Kind   string    `json:"kind" doc:"what happened"`
	CA     string    `json:"ca,omitempty" doc:"ID of the CA concerned"`
	Serial string    `json:"serial,omitempty" doc:"serial number of the certificate concerned"`
	Actor  string    `json:"actor,omitempty" doc:"who did it"`
	Detail string    `json:"detail,omitempty" doc:"more, short"`
}

// Proof is a Merkle proof over the journal (RFC 6962, Section 2.1). The root
// that it leads to is a checkpoint's, never the answer's.
type Proof struct {
	From   uint64   `json:"from" doc:"the event that is included, or the size of the older tree"`
	Size   int64    `json:"size" doc:"the size of the tree that it leads to"`
	Hashes []string `json:"hashes" doc:"node hashes, hexadecimal"`
}

// Journal walks the journal from after on, to its present end.
func (c *Client) Journal(ctx context.Context, after uint64) iter.Seq2[*Event, error] {
	return all[Event](ctx, c, "/v1/journal", values("after", number(after)))
}

// FollowJournal returns what came after an event; it waits up to wait for it.
func (c *Client) FollowJournal(ctx context.Context, after uint64, wait time.Duration) ([]Event, error) {
	p, err := call[Page[Event]](ctx, c, http.MethodGet, "/v1/journal", values("after", number(after), "wait", wait.String()), nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// Checkpoint returns a signed checkpoint of the journal (a signed note).
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/journal/checkpoint", accept: "text/plain"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// InclusionProof proves that an event is in the tree of a size.
func (c *Client) InclusionProof(ctx context.Context, seq uint64, size int64) (*Proof, error) {
	return call[Proof](ctx, c, http.MethodGet, "/v1/journal/proof", values("seq", number(seq), "size", strconv.FormatInt(size, 10)), nil)
}

// ConsistencyProof proves that the tree of size from is a prefix of that of
// size.
func (c *Client) ConsistencyProof(ctx context.Context, from, size int64) (*Proof, error) {
	return call[Proof](ctx, c, http.MethodGet, "/v1/journal/proof", values("from", strconv.FormatInt(from, 10), "size", strconv.FormatInt(size, 10)), nil)
}
