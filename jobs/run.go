package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"hufu/store"
)

// Run is one job under way, as its function sees it.
type Run struct {
	ID     string
	Actor  string
	City   string
	Args   json.RawMessage
	Cursor json.RawMessage // of the last Save before this run; nil at first

	jobs    *Jobs
	attempt uint64
}

// Progress records how far the job is. total 0 means that it is not known.
func (r *Run) Progress(ctx context.Context, done, total int64) error {
	return r.update(ctx, func(tx *store.Tx, job *Job) error {
		job.Done, job.Total = done, total
		return nil
	})
}

// Save records items, and the cursor from which the job goes on after a kill, in
// one transaction; Done moves forward by the number of items.
func (r *Run) Save(ctx context.Context, cursor any, results ...Item) error {
	return r.SaveWith(ctx, cursor, func(*store.Tx) ([]Item, error) { return results, nil })
}

// SaveWith is Save for work that is done in the book: work does it in the
// transaction that records its results, so that a kill leaves both or neither. It
// may run more than once; its error is what SaveWith returns.
func (r *Run) SaveWith(ctx context.Context, cursor any, work func(*store.Tx) ([]Item, error)) error {
	b, err := json.Marshal(cursor)
	if err != nil {
		return fmt.Errorf("writing the cursor of job %s: %w", r.ID, err)
	}
	return r.update(ctx, func(tx *store.Tx, job *Job) error {
		results, err := work(tx)
		if err != nil {
			return err
		}
		job.Cursor = b
		job.Done += int64(len(results))
		for i := range results {
			it := results[i]
			job.Items++
			if !it.OK {
				job.Failures++
			}
			it.Job, it.N = job.ID, job.Items
			if err := items.Insert(tx, &it); err != nil {
				return fmt.Errorf("recording item %d: %w", it.N, err)
			}
		}
		return nil
	})
}

// update changes the job's record as long as this run still has the job, and
// renews the lease with it.
func (r *Run) update(ctx context.Context, f func(*store.Tx, *Job) error) error {
	err := r.jobs.Book.Update(ctx, func(tx *store.Tx) error {
		job, err := r.own(tx)
		if err != nil {
			return err
		}
		if err := f(tx, job); err != nil {
			return err
		}
		job.Lease = r.jobs.Now().Add(r.jobs.Lease).UTC()
		job.touch(tx)
		return all.Put(tx, job)
	})
	if err != nil {
		return fmt.Errorf("recording job %s: %w", r.ID, err)
	}
	r.jobs.notify()
	return nil
}

// own returns the job's record if this run still has the job.
func (r *Run) own(tx *store.Tx) (*Job, error) {
	job, err := all.Get(tx, store.Key(r.ID))
	if err != nil {
		return nil, err
	}
	if job.State != Running || job.Node != r.jobs.Node || job.Attempt != r.attempt {
		return nil, errLost
	}
	return job, nil
}

// Run takes jobs up and runs them until ctx ends; then it waits for their
// functions to return and puts the unfinished back into the queue.
func (j *Jobs) Run(ctx context.Context) error {
	var after uint64
	if err := j.Book.View(ctx, func(tx *store.Tx) error { after = tx.Head(); return nil }); err != nil {
		return fmt.Errorf("reading the head of the journal: %w", err)
	}
	under, cancelAll := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancelAll()

	events := make(chan store.Event)
	followed := make(chan error, 1)
	wg.Go(func() { followed <- j.follow(under, after, events) })
	ended := make(chan string, j.Workers)
	cancels := map[string]context.CancelFunc{} // of the jobs that run here
	defer func() {
		for _, cancel := range cancels {
			cancel()
		}
	}()
	tick := time.NewTicker(j.Lease / 3)
	defer tick.Stop()
	for {
		taken, err := j.takeUp(under, cancels)
		if err != nil {
			return fmt.Errorf("taking up jobs: %w", err)
		}
		for _, r := range taken {
			ctx, cancel := context.WithCancel(under)
			cancels[r.ID] = cancel
			wg.Go(func() {
				j.do(ctx, r.kind, r.Run)
				ended <- r.ID
			})
		}
		// Something that may let a job be taken up ends this wait.
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-followed:
				return err
			case e := <-events:
				var d struct{ ID string }
				if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
					return fmt.Errorf("reading event %d, %s: %w", e.Seq, e.Kind, err)
				}
				if cancel := cancels[d.ID]; cancel != nil && e.Kind == KindCancel {
					cancel()
				}
				again = e.Kind == KindStarted
			case id := <-ended:
				cancels[id]()
				delete(cancels, id)
				again = true
			case <-tick.C:
				// The leases of other nodes may have ended; one's own are renewed.
				if err := j.renew(under, cancels); err != nil {
					return fmt.Errorf("renewing the leases of jobs: %w", err)
				}
				again = true
			}
		}
	}
}

// follow sends the journal's events about jobs.
func (j *Jobs) follow(ctx context.Context, after uint64, to chan<- store.Event) error {
	for {
		events, err := j.Book.Follow(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("following the journal: %w", err)
		}
		for _, e := range events {
			after = e.Seq
			if e.Kind != KindStarted && e.Kind != KindCancel {
				continue
			}
			select {
			case to <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// taken is a job that was taken up.
type taken struct {
	*Run
	kind string
}

// takeUp makes jobs this node's own, as many as there are free workers: queued
// ones, those of a node whose lease has ended, and those that an earlier process
// of this node left.
func (j *Jobs) takeUp(ctx context.Context, here map[string]context.CancelFunc) ([]taken, error) {
	if len(here) >= j.Workers {
		return nil, nil
	}
	open, err := j.open(ctx, here)
	if err != nil || len(open) == 0 {
		return nil, err
	}
	var list []taken
	err = j.Book.Update(ctx, func(tx *store.Tx) error {
		list = nil
		for _, id := range open {
			if len(list)+len(here) >= j.Workers {
				break
			}
			job, err := all.Get(tx, store.Key(id))
			if err != nil {
				return err
			}
			if !j.free(job, here) {
				continue
			}
			job.State, job.Node, job.Lease = Running, j.Node, j.Now().Add(j.Lease).UTC()
			job.Attempt++
			if job.Cancel { // asked for while the node that ran it was gone
				job.State = Cancelled
				job.journal(tx, KindCancelled, job.Actor)
			}
			job.touch(tx)
			if err := all.Put(tx, job); err != nil {
				return err
			}
			if job.Cancel {
				continue
			}
			args, err := argumentsOf(tx, id)
			if err != nil {
				return err
			}
			list = append(list, taken{&Run{ID: id, Actor: job.Actor, City: job.City, Args: args, Cursor: job.Cursor,
				jobs: j, attempt: job.Attempt}, job.Kind})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	j.notify()
	return list, nil
}

// open lists the jobs that may be taken up, oldest first.
func (j *Jobs) open(ctx context.Context, here map[string]context.CancelFunc) (ids []string, err error) {
	err = j.Book.View(ctx, func(tx *store.Tx) error {
		for job, err := range all.Scan(tx, "unfinished", nil) {
			if err != nil {
				return err
			}
			if j.free(job, here) {
				ids = append(ids, job.ID)
			}
		}
		return nil
	})
	return ids, err
}

// free tells whether a job may be taken up here.
func (j *Jobs) free(job *Job, here map[string]context.CancelFunc) bool {
	if job.Finished() || here[job.ID] != nil || j.Funcs[job.Kind] == nil {
		return false
	}
	return job.State == Queued || job.Node == j.Node || job.Lease.Before(j.Now())
}

// renew renews the leases of the jobs that run here.
func (j *Jobs) renew(ctx context.Context, here map[string]context.CancelFunc) error {
	if len(here) == 0 {
		return nil
	}
	return j.Book.Update(ctx, func(tx *store.Tx) error {
		for id := range here {
			job, err := all.Get(tx, store.Key(id))
			if err != nil {
				return err
			}
			if job.State == Running && job.Node == j.Node {
				job.Lease = j.Now().Add(j.Lease).UTC()
				if err := all.Put(tx, job); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// do runs a job's function and records how it ended.
func (j *Jobs) do(ctx context.Context, kind string, r *Run) {
	outcome := j.call(ctx, kind, r)
	// The outcome is recorded even though ctx has ended.
	err := j.Book.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		job, err := r.own(tx)
		if err != nil {
			return err
		}
		switch {
		case outcome == nil:
			job.State = Done
			job.journal(tx, KindDone, job.Actor)
		case job.Cancel:
			job.State = Cancelled
			job.journal(tx, KindCancelled, job.Actor)
		case ctx.Err() != nil: // the node stops: another, or the next start, goes on
			job.State, job.Node = Queued, ""
		default:
			job.State, job.Error = Failed, outcome.Error()
			job.journal(tx, KindFailed, job.Actor)
		}
		job.touch(tx)
		return all.Put(tx, job)
	})
	if err != nil {
		j.Log.Error("recording the end of a job failed", "job", r.ID, "kind", kind, "err", err)
		return
	}
	j.notify()
}

// call runs a function; a panic in it is the failure of its job alone.
func (j *Jobs) call(ctx context.Context, kind string, r *Run) (err error) {
	defer func() {
		if p := recover(); p != nil {
			j.Log.Error("a job panicked", "job", r.ID, "kind", kind, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error in a job of kind %s; the log of node %s has the details", kind, j.Node)
		}
	}()
	return j.Funcs[kind](ctx, r)
}
