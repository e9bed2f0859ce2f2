// Package jobs does long work that outlives a request and a process.
//
// A job is a record in the book: kind, arguments, cursor, counts, lease and a
// paged result for each item. Its function comes from a plain map; it is taken
// up again at start, from the cursor that it last saved. Wait is woken by the
// journal and polls nothing.
//
// The package refuses a kind that has no function, and a write from a runner
// that lost its lease. It does not make a function's work happen once: a
// function that is killed between its work and its cursor does the work again,
// so its work carries its own idempotency.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"hufu/store"
)

var errNotBuilt = errors.New("not built yet")

// Kinds of event that this package appends.
const (
	KindStarted   = "job.started"
	KindDone      = "job.done"
	KindFailed    = "job.failed"
	KindCancelled = "job.cancelled"
)

// States of a Job.
const (
	Queued    = "queued"
	Running   = "running"
	Done      = "done"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Job is long work and how far it is.
type Job struct {
	ID          string
	Kind        string
	Args        json.RawMessage
	Actor, City string
	State       string
	Cursor      json.RawMessage // the function's own
	Done, Total int64
	Failures    int64  // items that failed
	Items       uint64 // items recorded
	Error       string // why the job as a whole failed
	Cancel      bool   // asked to stop
	Created     time.Time
	Updated     time.Time
	Node        string    // who runs it
	Lease       time.Time // until when
	Version     uint64    // goes up with every change; what Wait compares
}

// Item is the result for one item of a job.
type Item struct {
	N      uint64 // 1, 2, …; given by the job when zero
	Name   string // what the item is about
	OK     bool
	Error  string
	Result json.RawMessage
}

// Func does the work of one kind of job. It begins at r.Cursor and returns nil
// when all is done. An error ends the job as failed, unless ctx ended: then it
// is taken up again later.
type Func func(ctx context.Context, r *Run) error

// Config is what Jobs stand on.
type Config struct {
	Book  *store.Book
	Node  string
	Funcs map[string]Func
	Lease time.Duration // zero: 30 s
	Now   func() time.Time
	Log   *slog.Logger
}

// Jobs keeps and runs jobs.
type Jobs struct {
	cfg Config
}

// New returns Jobs that have started nothing.
func New(cfg Config) *Jobs { return &Jobs{cfg: cfg} }

// Start records a job; Run of any node takes it up.
func (j *Jobs) Start(tx *store.Tx, kind string, args any, actor, city string) (*Job, error) {
	return nil, errNotBuilt
}

// Job returns one job.
func (j *Jobs) Job(ctx context.Context, id string) (*Job, error) { return nil, errNotBuilt }

// List returns jobs, newest first, page by page. city "" lists all.
func (j *Jobs) List(ctx context.Context, city string, after []byte, limit int) (list []*Job, next []byte, err error) {
	return nil, nil, errNotBuilt
}

// Items returns the results of a job with N > after.
func (j *Jobs) Items(ctx context.Context, id string, after uint64, limit int) ([]*Item, error) {
	return nil, errNotBuilt
}

// Wait returns the job as soon as its Version is greater than after, or as it
// is when d has passed.
func (j *Jobs) Wait(ctx context.Context, id string, after uint64, d time.Duration) (*Job, error) {
	return nil, errNotBuilt
}

// Cancel asks a job to stop. A queued one stops at once.
func (j *Jobs) Cancel(tx *store.Tx, id, actor string) (*Job, error) { return nil, errNotBuilt }

// Run takes jobs up and runs them until ctx ends.
func (j *Jobs) Run(ctx context.Context) error { return errNotBuilt }

// Run is one job under way, as its function sees it.
type Run struct {
	ID     string
	Actor  string
	City   string
	Args   json.RawMessage
	Cursor json.RawMessage
}

// Progress records how far the job is.
func (r *Run) Progress(ctx context.Context, done, total int64) error { return errNotBuilt }

// Save records items and the cursor from which the job goes on after a kill,
// in one transaction, and moves Done forward by the number of items.
func (r *Run) Save(ctx context.Context, cursor any, items ...Item) error { return errNotBuilt }
