package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/jobs"
	"hufu/store"
	"hufu/store/bolt"
)

// patience bounds every wait.
const patience = 30 * time.Second

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func newBook(t *testing.T, c *clock) *store.Book {
	t.Helper()
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	book := testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Now: c.now, Tables: jobs.Tables}))
	t.Cleanup(func() {
		if err := book.Check(context.Background(), nil); err != nil {
			t.Error(err)
		}
		book.Close()
	})
	return book
}

// run runs jobs until stop is called or the test ends.
func run(t *testing.T, j *jobs.Jobs) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- j.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-end; !errors.Is(err, context.Canceled) {
				t.Errorf("Run ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func start(t *testing.T, book *store.Book, j *jobs.Jobs, kind string, args any) *jobs.Job {
	t.Helper()
	var job *jobs.Job
	err := book.Update(t.Context(), func(tx *store.Tx) (err error) {
		job, err = j.Start(tx, kind, args, "tester", "330100")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// until waits until a job is as wanted.
func until(t *testing.T, j *jobs.Jobs, id string, wanted func(*jobs.Job) bool) *jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	version := uint64(0)
	for {
		job, err := j.Wait(ctx, id, version, patience)
		if err != nil {
			t.Fatal(err)
		}
		if wanted(job) {
			return job
		}
		if job.Finished() || ctx.Err() != nil {
			t.Fatalf("the job is %+v", job)
		}
		version = job.Version
	}
}

func finished(job *jobs.Job) bool { return job.Finished() }

// count is a job that counts to Args, ten items at a time.
func count(ctx context.Context, r *jobs.Run) error {
	var to, at int
	if err := json.Unmarshal(r.Args, &to); err != nil {
		return err
	}
	if len(r.Cursor) > 0 {
		if err := json.Unmarshal(r.Cursor, &at); err != nil {
			return err
		}
	}
	if err := r.Progress(ctx, int64(at), int64(to)); err != nil {
		return err
	}
	for at < to {
		var results []jobs.Item
		for ; at < to && len(results) < 10; at++ {
			results = append(results, jobs.Item{Name: fmt.Sprint(at), OK: at%7 != 0})
		}
		if err := r.Save(ctx, at, results...); err != nil {
			return err
		}
	}
	return nil
}

// results returns all items of a job, and checks that they are the numbers from
// 0, each once.
func results(t *testing.T, j *jobs.Jobs, id string) []*jobs.Item {
	t.Helper()
	var all []*jobs.Item
	for after := []byte(nil); ; {
		list, next, err := j.Items(t.Context(), id, after, 7)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
		if after = next; next == nil {
			break
		}
	}
	for i, it := range all {
		if it.Name != fmt.Sprint(i) || it.N != uint64(i+1) {
			t.Fatalf("item %d is %+v", i, it)
		}
	}
	return all
}

func TestJob(t *testing.T) {
	book := newBook(t, &clock{})
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"count": count}})
	job := start(t, book, j, "count", 95)
	if job.State != jobs.Queued {
		t.Errorf("it began as %s", job.State)
	}
	run(t, j)
	job = until(t, j, job.ID, finished)
	if job.State != jobs.Done || job.Done != 95 || job.Total != 95 || job.Items != 95 || job.Failures != 14 || job.City != "330100" {
		t.Errorf("it ended as %+v", job)
	}
	if n := len(results(t, j, job.ID)); n != 95 {
		t.Errorf("it has %d items", n)
	}
	err := book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := j.Start(tx, "no such kind", nil, "tester", "")
		return err
	})
	if err == nil {
		t.Error("a job without a function was started")
	}
	if _, err := j.Job(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a job that does not exist: %v", err)
	}
	if _, _, err := j.Items(t.Context(), "none", nil, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("items of a job that does not exist: %v", err)
	}
}

// TestBigArguments: arguments may be larger than any row of the book.
func TestBigArguments(t *testing.T) {
	book := newBook(t, &clock{})
	big := strings.Repeat("x", 3<<20)
	got := make(chan bool, 1)
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"big": func(_ context.Context, r *jobs.Run) error {
		var s string
		err := json.Unmarshal(r.Args, &s)
		got <- s == big
		return err
	}}})
	run(t, j)
	until(t, j, start(t, book, j, "big", big).ID, finished)
	if !<-got {
		t.Error("the arguments came back different")
	}
}

func TestFailure(t *testing.T) {
	book := newBook(t, &clock{})
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{
		"fail":  func(context.Context, *jobs.Run) error { return errors.New("no such luck") },
		"panic": func(context.Context, *jobs.Run) error { panic("at the disco") },
	}})
	run(t, j)
	if job := until(t, j, start(t, book, j, "fail", nil).ID, finished); job.State != jobs.Failed || job.Error != "no such luck" {
		t.Errorf("it ended as %+v", job)
	}
	if job := until(t, j, start(t, book, j, "panic", nil).ID, finished); job.State != jobs.Failed || strings.Contains(job.Error, "disco") {
		t.Errorf("it ended as %+v", job)
	}
}

// stalled is a job that saves one item and then waits for its end.
func stalled(ctx context.Context, r *jobs.Run) error {
	if len(r.Cursor) > 0 {
		return count(ctx, r)
	}
	if err := r.Save(ctx, 1, jobs.Item{Name: "0", OK: false}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func saved(job *jobs.Job) bool { return job.Done == 1 }

func TestCancel(t *testing.T) {
	book := newBook(t, &clock{})
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"stalled": stalled, "count": count}})
	cancel := func(id string) *jobs.Job {
		t.Helper()
		var job *jobs.Job
		err := book.Update(t.Context(), func(tx *store.Tx) (err error) {
			job, err = j.Cancel(tx, id, "tester")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	if job := cancel(start(t, book, j, "count", 5).ID); job.State != jobs.Cancelled {
		t.Errorf("a queued job that was cancelled is %s", job.State)
	}
	run(t, j)
	job := start(t, book, j, "stalled", 50)
	until(t, j, job.ID, saved)
	cancel(job.ID)
	if job = until(t, j, job.ID, finished); job.State != jobs.Cancelled || job.Items != 1 {
		t.Errorf("a running job that was cancelled is %+v", job)
	}
	version := job.Version
	if job = cancel(job.ID); job.Version != version {
		t.Error("a job was cancelled twice")
	}
}

// TestShutdown: a job whose node stops goes back into the queue, and goes on
// where it stopped.
func TestShutdown(t *testing.T) {
	book := newBook(t, &clock{})
	cfg := jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"stalled": stalled}}
	j := jobs.New(cfg)
	stop := run(t, j)
	job := start(t, book, j, "stalled", 50)
	until(t, j, job.ID, saved)
	stop()
	if job = testpki.Must(j.Job(t.Context(), job.ID)); job.State != jobs.Queued {
		t.Errorf("after the stop it is %s", job.State)
	}
	cfg.Node = "b"
	j = jobs.New(cfg)
	run(t, j)
	if job = until(t, j, job.ID, finished); job.State != jobs.Done || job.Attempt != 2 {
		t.Errorf("it ended as %+v", job)
	}
	results(t, j, job.ID)
}

// TestLeases: a job of a living node is left alone, one of a dead node is taken
// up, and the dead node, awake again, can write no more.
func TestLeases(t *testing.T) {
	c := &clock{}
	book := newBook(t, c)
	asleep, wake := make(chan *jobs.Run), make(chan struct{})
	woke := make(chan error, 1)
	// One worker: a is asleep over the first job and cannot take the second.
	a := jobs.New(jobs.Config{Book: book, Node: "a", Now: c.now, Lease: time.Hour, Workers: 1, Funcs: map[string]jobs.Func{"work": func(ctx context.Context, r *jobs.Run) error {
		if err := r.Save(ctx, 1, jobs.Item{Name: "0"}); err != nil {
			return err
		}
		asleep <- r
		<-wake
		err := r.Save(ctx, 2, jobs.Item{Name: "twice"})
		woke <- err
		return err
	}}})
	run(t, a)
	rouse := sync.OnceFunc(func() { close(wake) })
	t.Cleanup(rouse) // before Run is waited for, however the test ends
	job := start(t, book, a, "work", 30)
	<-asleep
	b := jobs.New(jobs.Config{Book: book, Node: "b", Now: c.now, Lease: 30 * time.Millisecond, Funcs: map[string]jobs.Func{"work": count}})
	run(t, b)
	other := start(t, book, b, "work", 3) // b is at work
	until(t, b, other.ID, finished)
	if job = testpki.Must(b.Job(t.Context(), job.ID)); job.Node != "a" {
		t.Errorf("the job of a living node was taken by %s", job.Node)
	}
	c.ahead.Add(int64(2 * time.Hour))
	job = until(t, b, job.ID, finished)
	if job.State != jobs.Done || job.Node != "b" {
		t.Errorf("it ended as %+v", job)
	}
	rouse()
	if err := <-woke; err == nil || !strings.Contains(err.Error(), "another node") {
		t.Errorf("the sleeper wrote: %v", err)
	}
	if n := len(results(t, b, job.ID)); n != 30 {
		t.Errorf("it has %d items", n)
	}
}

func TestWait(t *testing.T) {
	book := newBook(t, &clock{})
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"count": count}})
	job := start(t, book, j, "count", 5)
	if got, err := j.Wait(t.Context(), job.ID, 0, time.Hour); err != nil || got.Version != 1 {
		t.Errorf("a wait for what is there: %+v, %v", got, err)
	}
	if got, err := j.Wait(t.Context(), job.ID, 1, 20*time.Millisecond); err != nil || got.Version != 1 {
		t.Errorf("a wait that ran out: %+v, %v", got, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := j.Wait(gone, job.ID, 1, time.Hour); err != nil || got.Version != 1 {
		t.Errorf("a waiter who went away: %+v, %v", got, err)
	}
	// A waiter elsewhere is woken by the journal alone.
	elsewhere := jobs.New(jobs.Config{Book: book, Node: "b"})
	run(t, j)
	if got := until(t, elsewhere, job.ID, finished); got.State != jobs.Done {
		t.Errorf("seen from elsewhere it ended as %+v", got)
	}
	if _, err := j.Wait(t.Context(), "none", 0, time.Hour); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a wait for a job that does not exist: %v", err)
	}
}

func TestList(t *testing.T) {
	c := &clock{}
	book := newBook(t, c)
	j := jobs.New(jobs.Config{Book: book, Node: "a", Funcs: map[string]jobs.Func{"count": count}})
	var want []string
	for range 5 {
		c.ahead.Add(int64(time.Second))
		want = append([]string{start(t, book, j, "count", 1).ID}, want...)
	}
	var got []string
	for after := []byte(nil); ; {
		list, next, err := j.List(t.Context(), "330100", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range list {
			got = append(got, job.ID)
		}
		if after = next; next == nil {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the list is %v, not %v", got, want)
	}
	if list, _, err := j.List(t.Context(), "330200", nil, 0); err != nil || len(list) > 0 {
		t.Errorf("another city has %d jobs: %v", len(list), err)
	}
	if list, _, err := j.List(t.Context(), "", nil, 0); err != nil || len(list) != 5 {
		t.Errorf("the centre has %d jobs: %v", len(list), err)
	}
}

// TestWorkers: no more jobs than workers run at once, and all are run.
func TestWorkers(t *testing.T) {
	book := newBook(t, &clock{})
	var now, most atomic.Int64
	j := jobs.New(jobs.Config{Book: book, Node: "a", Workers: 2, Funcs: map[string]jobs.Func{"work": func(ctx context.Context, r *jobs.Run) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return r.Save(ctx, 0)
	}}})
	var ids []string
	for range 9 {
		ids = append(ids, start(t, book, j, "work", nil).ID)
	}
	run(t, j)
	for _, id := range ids {
		until(t, j, id, finished)
	}
	if n := most.Load(); n > 2 {
		t.Errorf("%d jobs ran at once", n)
	}
}
