// Package jobs does long work that outlives a request and a process.
//
// A job is a record in the book: kind, arguments, cursor, counts, lease and a
// paged result for each item. Its function comes from a plain map; it is taken
// up again at start, from the cursor that it last saved, by the node that ran it
// or, when that node's lease on the job has ended, by another. Wait is woken by
// what happens and polls nothing.
//
// The package refuses a kind that has no function, and a write from a runner
// that lost its lease. It does not make a function's work happen once: a
// function that is killed between its work and its Save does the work again, so
// its work carries an idempotency of its own.
package jobs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hufu/store"
)

// Kinds of event that this package appends.
const (
	KindStarted   = "job.started"
	KindCancel    = "job.cancel" // somebody asked
	KindCancelled = "job.cancelled"
	KindDone      = "job.done"
	KindFailed    = "job.failed"
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
	Actor, City string
	State       string
	Cursor      json.RawMessage `json:",omitempty"` // the function's own
	Done, Total int64           // Total is 0 while unknown
	Failures    int64           // items that failed
	Items       uint64          // items recorded
	Error       string          // why the job as a whole failed
	Cancel      bool            // somebody asked it to stop
	Created     time.Time
	Updated     time.Time
	Node        string    // who runs it
	Lease       time.Time // until when it is theirs without a sign of life
	Attempt     uint64    // goes up each time it is taken up
	Version     uint64    // goes up with every change; what Wait compares
}

// Finished tells whether the job will not move any more.
func (j *Job) Finished() bool {
	return j.State == Done || j.State == Failed || j.State == Cancelled
}

// Item is the result for one item of a job.
type Item struct {
	Job    string
	N      uint64 // 1, 2, …: given by Save
	Name   string // what the item is about
	OK     bool
	Error  string
	Result json.RawMessage `json:",omitempty"`
}

// Func does the work of one kind of job. It begins at r.Cursor and returns nil
// when all is done. An error ends the job as failed, unless ctx ended: then the
// job was cancelled, or is taken up again later.
type Func func(ctx context.Context, r *Run) error

// Config is what Jobs stand on.
type Config struct {
	Book    *store.Book
	Node    string          // two running nodes never share a name
	Funcs   map[string]Func // by kind
	Workers int             // jobs that run at once here; zero means 4
	Lease   time.Duration   // zero means 30 s
	Now     func() time.Time
	Log     *slog.Logger
}

// Jobs keeps and runs jobs.
type Jobs struct {
	Config

	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed when a job changes in this process
}

// New returns Jobs that have started nothing.
func New(cfg Config) *Jobs {
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.Lease <= 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Jobs{Config: cfg, changed: make(chan struct{})}
}

// Start records a job, whose arguments are written as JSON. Run takes it up once
// the transaction is committed.
func (j *Jobs) Start(tx *store.Tx, kind string, args any, actor, city string) (*Job, error) {
	if j.Funcs[kind] == nil {
		return nil, fmt.Errorf("there is no job of kind %q", kind)
	}
	b, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("writing the arguments of job %s: %w", kind, err)
	}
	var id [8]byte
	rand.Read(id[:])
	now := tx.Now().UTC()
	job := &Job{ID: hex.EncodeToString(id[:]), Kind: kind, Actor: actor, City: city, State: Queued, Created: now, Updated: now, Version: 1}
	job.journal(tx, KindStarted, actor)
	for n := uint64(0); n == 0 || len(b) > 0; n++ {
		part := b[:min(len(b), argumentPart)]
		b = b[len(part):]
		if err := arguments.Insert(tx, &argument{job.ID, n, part}); err != nil {
			return nil, fmt.Errorf("recording the arguments of job %s: %w", job.ID, err)
		}
	}
	if err := all.Insert(tx, job); err != nil {
		return nil, fmt.Errorf("recording job %s: %w", job.ID, err)
	}
	return job, nil
}

// Cancel asks a job to stop. A queued one stops at once; one that runs stops
// where its function next looks, and keeps what it has done.
func (j *Jobs) Cancel(tx *store.Tx, id, actor string) (*Job, error) {
	job, err := all.Get(tx, store.Key(id))
	if err != nil {
		return nil, fmt.Errorf("looking up job %q: %w", id, err)
	}
	if job.Finished() || job.Cancel {
		return job, nil
	}
	job.Cancel = true
	job.journal(tx, KindCancel, actor)
	if job.State == Queued {
		job.State = Cancelled
		job.journal(tx, KindCancelled, actor)
	}
	job.touch(tx)
	return job, all.Put(tx, job)
}

// Job returns one job.
func (j *Jobs) Job(ctx context.Context, id string) (*Job, error) {
	job, _, err := j.look(ctx, id)
	return job, err
}

func (j *Jobs) look(ctx context.Context, id string) (job *Job, head uint64, err error) {
	err = j.Book.View(ctx, func(tx *store.Tx) (err error) {
		head = tx.Head()
		job, err = all.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("looking up job %q: %w", id, err)
	}
	return job, head, nil
}

// List returns jobs, newest first, page by page. city "" lists all.
func (j *Jobs) List(ctx context.Context, city string, after []byte, limit int) (list []*Job, next []byte, err error) {
	q := store.Query{Index: "created", After: after, Limit: limit, Reverse: true}
	if city != "" {
		q.Index, q.Prefix = "city", store.Key(city)
	}
	err = j.Book.View(ctx, func(tx *store.Tx) (err error) {
		list, next, err = all.Page(tx, q)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing jobs: %w", err)
	}
	return list, next, nil
}

// Items returns the results of a job page by page, in order.
func (j *Jobs) Items(ctx context.Context, id string, after []byte, limit int) (list []*Item, next []byte, err error) {
	err = j.Book.View(ctx, func(tx *store.Tx) (err error) {
		if _, err := all.Get(tx, store.Key(id)); err != nil {
			return err
		}
		list, next, err = items.Page(tx, store.Query{Prefix: store.Key(id), After: after, Limit: limit})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the items of job %q: %w", id, err)
	}
	return list, next, nil
}

// Wait returns the job as soon as its Version is greater than after or it is
// finished, or as it is when d has passed. The progress that another node makes
// is seen with the next event in the book.
func (j *Jobs) Wait(ctx context.Context, id string, after uint64, d time.Duration) (*Job, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		// The channel is taken before the look, so that no change falls between.
		changed := j.change()
		job, head, err := j.look(context.WithoutCancel(ctx), id)
		if err != nil || job.Version > after || job.Finished() || ctx.Err() != nil {
			return job, err
		}
		event := make(chan struct{})
		waiting, stop := context.WithCancel(ctx)
		go func() {
			defer close(event)
			_, err := j.Book.Follow(waiting, head, 1)
			if err != nil && waiting.Err() == nil {
				cancel() // the book is closing: answer with what there is
			}
		}()
		select {
		case <-changed:
		case <-event:
		}
		stop()
		<-event
	}
}

// change returns a channel that is closed when a job changes in this process.
func (j *Jobs) change() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// notify wakes everybody who waits for a change.
func (j *Jobs) notify() {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.changed)
	j.changed = make(chan struct{})
}

// touch marks a change of the record.
func (j *Job) touch(tx *store.Tx) {
	j.Updated = tx.Now().UTC()
	j.Version++
}

func (j *Job) journal(tx *store.Tx, kind, actor string) {
	tx.Append(store.Event{Kind: kind, Actor: actor, Detail: fmt.Sprintf(`{"id":%q,"kind":%q}`, j.ID, j.Kind)})
}

// argumentPart is how many octets of a job's arguments stand in one row.
const argumentPart = 256 << 10

// argument is a part of a job's arguments. They are written once and kept apart
// from the record, which is written at every step.
type argument struct {
	Job  string
	N    uint64
	Part []byte
}

var (
	all = store.Table[Job]{
		Name:  "job",
		Key:   func(j *Job) []byte { return store.Key(j.ID) },
		Codec: store.JSON[Job](),
		Indexes: []store.Index[Job]{
			{Name: "created", Keys: func(j *Job) [][]byte { return [][]byte{store.Key(j.Created)} }},
			{Name: "city", Keys: func(j *Job) [][]byte { return [][]byte{store.Key(j.City, j.Created)} }},
			{Name: "unfinished", Keys: func(j *Job) [][]byte {
				if j.Finished() {
					return nil
				}
				return [][]byte{store.Key(j.Created)}
			}},
		},
	}
	items = store.Table[Item]{
		Name:  "jobitem",
		Key:   func(i *Item) []byte { return store.Key(i.Job, i.N) },
		Codec: store.JSON[Item](),
	}
	arguments = store.Table[argument]{
		Name:  "jobargs",
		Key:   func(a *argument) []byte { return store.Key(a.Job, a.N) },
		Codec: store.JSON[argument](),
	}

	// Tables are the tables of this package, for store.Config.
	Tables = []store.Checked{&all, &items, &arguments}
)

// argumentsOf puts a job's arguments together.
func argumentsOf(tx *store.Tx, id string) (json.RawMessage, error) {
	var args json.RawMessage
	for a, err := range arguments.Scan(tx, "", store.Key(id)) {
		if err != nil {
			return nil, fmt.Errorf("reading the arguments of job %s: %w", id, err)
		}
		args = append(args, a.Part...)
	}
	return args, nil
}

// errLost says that another runner has the job now.
var errLost = errors.New("the job was taken up by another node")
