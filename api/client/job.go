package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"
)

// Job is long work.
type Job struct {
	ID       string    `json:"id" doc:"ID"`
	Kind     string    `json:"kind" doc:"what it does"`
	Actor    string    `json:"actor" doc:"who started it"`
	City     string    `json:"city,omitempty" doc:"city code that it works for"`
	State    string    `json:"state" doc:"queued, running, done, failed or cancelled"`
	Done     int64     `json:"done" doc:"steps done"`
	Total    int64     `json:"total" doc:"steps in all; 0 while unknown"`
	Failures int64     `json:"failures" doc:"items that failed"`
	Items    uint64    `json:"items" doc:"items recorded"`
	Error    string    `json:"error,omitempty" doc:"why the job as a whole failed"`
	Created  time.Time `json:"created" doc:"when it was started"`
	Updated  time.Time `json:"updated" doc:"when it last moved"`
	Version  uint64    `json:"version" doc:"goes up with every change; the after of a long poll"`
}

// Finished tells whether the job will not move any more.
func (j *Job) Finished() bool {
	return j.State == "done" || j.State == "failed" || j.State == "cancelled"
}

// JobItem is the result for one item of a job.
type JobItem struct {
	N      uint64          `json:"n" doc:"1, 2, …"`
	Name   string          `json:"name" doc:"what the item is about"`
	OK     bool            `json:"ok" doc:"whether it went well"`
	Error  string          `json:"error,omitempty" doc:"why it did not"`
	Result json.RawMessage `json:"result,omitempty" doc:"what came of it"`
}

// Jobs walks the jobs, newest first.
func (c *Client) Jobs(ctx context.Context) iter.Seq2[*Job, error] {
	return all[Job](ctx, c, "/v1/jobs", nil)
}

// Job returns one job.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return call[Job](ctx, c, http.MethodGet, "/v1/jobs/"+id, nil, nil)
}

// JobItems walks the results of a job.
func (c *Client) JobItems(ctx context.Context, id string) iter.Seq2[*JobItem, error] {
	return all[JobItem](ctx, c, "/v1/jobs/"+id+"/items", nil)
}

// CancelJob asks a job to stop.
func (c *Client) CancelJob(ctx context.Context, id string) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/jobs/"+id+"/cancel", nil, nil)
}

// WaitJob waits until a job is finished. each, if not nil, is called with every
// state of it that was seen.
func (c *Client) WaitJob(ctx context.Context, id string, each func(*Job)) (*Job, error) {
	query := values("wait", "30s")
	for {
		j, err := call[Job](ctx, c, http.MethodGet, "/v1/jobs/"+id, query, nil)
		if err != nil {
			return nil, err
		}
		if each != nil {
			each(j)
		}
		if j.Finished() {
			return j, nil
		}
		query.Set("after", number(j.Version))
	}
}
