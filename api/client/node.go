package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Health is how a node is.
type Health struct {
	OK     bool    `json:"ok" doc:"whether every check passed"`
	Checks []Check `json:"checks" doc:"what was looked at"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name" doc:"what was looked at"`
	OK     bool   `json:"ok" doc:"whether it is well"`
	Detail string `json:"detail,omitempty" doc:"what is wrong with it"`
}

// Check starts a job that checks the whole book.
func (c *Client) Check(ctx context.Context) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/check", nil, nil)
}

// Ready asks, once, whether the node can do its work. A node that cannot answers
// with a problem.
func (c *Client) Ready(ctx context.Context) (*Health, error) {
	impatient := *c
	impatient.patience = -1
	return call[Health](ctx, &impatient, http.MethodGet, "/readyz", nil, nil)
}

// Backup writes a consistent snapshot of the node's book to w. Where it returns
// an error, what was written is not a backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/backup", accept: MediaBackup})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("reading the backup after %d octets: %w", n, err)
	}
	return n, nil
}
