package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// Directory is how far a directory has followed the journal.
type Directory struct {
	Name       string    `json:"name" doc:"name in the node's configuration"`
	URL        string    `json:"url" doc:"where it is"`
	State      string    `json:"state" doc:"how it is, in words"`
	Lateness   string    `json:"lateness" doc:"in time, late (it misses its bound) or alarming (it misses its alarm bound)"`
	Epoch      uint64    `json:"epoch" doc:"epoch of its watermark"`
	Watermark  uint64    `json:"watermark" doc:"every change up to this journal event is in the directory"`
	Time       time.Time `json:"time,omitzero" doc:"time of its last statement"`
	Entries    int64     `json:"entries" doc:"entries that the statement covers; -1 while the directory is being filled"`
	From       uint64    `json:"from" doc:"where the worker's connection began: it has done applied-from of head-from"`
	Applied    uint64    `json:"applied" doc:"how far it is; ahead of the watermark while it catches up"`
	Head       uint64    `json:"head" doc:"the newest journal event"`
	LagChanges uint64    `json:"lagChanges" doc:"journal events that it does not show yet"`
	LagSeconds float64   `json:"lagSeconds" doc:"age of the oldest of them"`
	Unknown    int64     `json:"unknown,omitempty" doc:"entries from before a restore that nobody brought back; they are left alone"`
	Repairs    int64     `json:"repairs" doc:"entries that were not as they should have been and were put right"`
	Missed     int64     `json:"missed" doc:"times that its bound was missed since the node started"`
	Alarms     int64     `json:"alarms" doc:"times that its alarm bound was missed since the node started"`
	LastError  string    `json:"lastError,omitempty" doc:"what went wrong last"`
	ErrorTime  time.Time `json:"errorTime,omitzero" doc:"when it did"`
	Notice     string    `json:"notice,omitempty" doc:"what was last found out about it: it was put back to an older state, somebody else wrote there, another node published there before"`
	NoticeTime time.Time `json:"noticeTime,omitzero" doc:"when it was"`
}

// DirectoryDiff is how a directory differs from the book, and what a repair did
// about it.
type DirectoryDiff struct {
	Directory   string       `json:"directory" doc:"name of the directory"`
	Epoch       uint64       `json:"epoch" doc:"epoch of its watermark"`
	Watermark   uint64       `json:"watermark" doc:"the journal event that it was compared at"`
	Entries     int64        `json:"entries" doc:"entries that it has of this book"`
	Expected    int64        `json:"expected" doc:"entries that the book has"`
	Buckets     int          `json:"buckets" doc:"of 65,536 buckets, those whose digests differ; entries of others were not compared one by one"`
	Missing     int          `json:"missing" doc:"entries that are not there"`
	Altered     int          `json:"altered" doc:"entries that are not as the book wrote them"`
	Foreign     int          `json:"foreign" doc:"entries that falsely say that they are of this book"`
	Behind      int          `json:"behind" doc:"entries with a change on its way"`
	Repaired    int          `json:"repaired" doc:"entries that were put right or taken away"`
	Removed     int          `json:"removed" doc:"of those, taken away"`
	Left        int          `json:"left" doc:"entries that a repair had to leave as they are"`
	Seconds     float64      `json:"seconds" doc:"how long the comparison took"`
	Differences []Difference `json:"differences" doc:"the first thousand, by name; after a repair, those that were left"`
}

// Wrong is the number of differences that no change on its way explains.
func (d *DirectoryDiff) Wrong() int { return d.Missing + d.Altered + d.Foreign }

// Difference is one entry that is not as the book has it.
type Difference struct {
	Entry  string `json:"entry" doc:"its name below the directory's base"`
	Kind   string `json:"kind" doc:"missing, altered, foreign or behind"`
	Detail string `json:"detail" doc:"what differs, in words"`
}

// Reach tells where a certificate's present status is served.
type Reach struct {
	CA         string         `json:"ca" doc:"ID of the CA"`
	Serial     string         `json:"serial" doc:"serial number"`
	State      string         `json:"state" doc:"what the book says: good, on-hold or revoked"`
	Reason     int            `json:"reason" doc:"and why: RFC 5280, Section 5.3.1"`
	Changed    time.Time      `json:"changed" doc:"when the status was reached"`
	Everywhere bool           `json:"everywhere" doc:"whether every place serves it"`
	Places     []ReachedPlace `json:"places" doc:"each directory, and the responder and the CRL that the certificate names"`
}

// ReachedPlace is what one place said when it was read.
type ReachedPlace struct {
	Where   string    `json:"where" doc:"name of the directory, or address"`
	Kind    string    `json:"kind" doc:"directory, ocsp or crl"`
	Served  bool      `json:"served" doc:"whether it says what the book says"`
	Answer  string    `json:"answer,omitempty" doc:"what it says"`
	At      time.Time `json:"at,omitzero" doc:"since when, by its own account; a renewed answer or list is later than the first that had it"`
	Seen    time.Time `json:"seen" doc:"when it was read"`
	Seconds float64   `json:"seconds,omitempty" doc:"from the change to the first moment at which it is known to have been served"`
	Error   string    `json:"error,omitempty" doc:"why it could not be read"`
}

// Directories lists how far the directories have followed.
func (c *Client) Directories(ctx context.Context) ([]Directory, error) {
	return everything[Directory](ctx, c, "/v1/directories")
}

// DiffDirectory starts a job that compares a directory with the book.
func (c *Client) DiffDirectory(ctx context.Context, name string) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/directories/"+name+"/diff", nil, nil)
}

// RepairDirectory starts a job that compares a directory with the book and puts
// right what differs.
func (c *Client) RepairDirectory(ctx context.Context, name string) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/directories/"+name+"/repair", nil, nil)
}

// DirectoryDiff returns what a job of either kind found, once it is done.
func (c *Client) DirectoryDiff(ctx context.Context, job string) (*DirectoryDiff, error) {
	for item, err := range c.JobItems(ctx, job) {
		if err != nil {
			return nil, err
		}
		d := new(DirectoryDiff)
		return d, json.Unmarshal(item.Result, d)
	}
	return nil, errors.New("reading the comparison: the job left no result")
}

// Reach reads back where a certificate's status is served. Places that do not
// serve it yet are asked again until wait has passed.
func (c *Client) Reach(ctx context.Context, serial string, wait time.Duration) (*Reach, error) {
	return call[Reach](ctx, c, http.MethodGet, "/v1/directories/reach/"+serial, values("wait", wait.String()), nil)
}

// CheckpointKey returns the public key of checkpoints and statements, in PEM.
func (c *Client) CheckpointKey(ctx context.Context) ([]byte, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/journal/key", accept: "text/plain"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}
