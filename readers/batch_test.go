package readers_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/jobs"
	"hufu/readers"
	"hufu/store"
	"hufu/store/bolt"
)

func TestBatch(t *testing.T) {
	w := newWorld(t)
	pairs := make([]readers.Pair, 150)
	for i := range pairs {
		pairs[i] = pair(fmt.Sprint("r", i), "330100")
	}
	pairs[7].CSR = []byte("rubbish")
	pairs[100].Number = "r3"
	run := func(from int) (serials map[string]store.Serial, failed []int) {
		serials = map[string]store.Serial{}
		at := from
		err := w.Batch(t.Context(), "j", pairs, from, "tester", func(next int, results []readers.Result) error {
			for i, r := range results {
				if r.Number != pairs[at+i].Number {
					t.Errorf("result %d is of reader %s", at+i, r.Number)
				}
				if r.Err != nil {
					failed = append(failed, at+i)
				} else {
					serials[r.Number] = r.Sign
				}
			}
			if at += len(results); at != next {
				t.Errorf("after result %d the batch goes on from %d", at, next)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return serials, failed
	}
	first, failed := run(0)
	if len(first) != 148 || len(failed) != 2 || failed[0] != 7 || failed[1] != 100 {
		t.Errorf("%d pairs, failures %v", len(first), failed)
	}
	again, _ := run(64)
	for number, serial := range again {
		if first[number] != serial {
			t.Errorf("reader %s got a second pair", number)
		}
	}
	stop := errors.New("stop")
	if err := w.Batch(t.Context(), "j", pairs, 0, "tester", func(int, []readers.Result) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the batch went on: %v", err)
	}
	if err := w.Batch(t.Context(), "j", pairs, 151, "tester", nil); err == nil {
		t.Error("the batch went on behind its end")
	}
}

// TestBatchWaitsForToken: a token that is away for a moment costs no pair.
func TestBatchWaitsForToken(t *testing.T) {
	w := newWorld(t)
	signer := w.pki.CA("330100").Signer
	signer.Before = func(n int64) error {
		if n == 3 || n == 4 {
			return errors.New("the token is restarting")
		}
		return nil
	}
	pairs := []readers.Pair{pair("1", "330100"), pair("2", "330100"), pair("3", "330100")}
	err := w.Batch(t.Context(), "j", pairs, 0, "tester", func(_ int, results []readers.Result) error {
		for _, r := range results {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The test below runs this test program again as a node that works at a batch,
// and kills it again and again until the batch is done.

const victimEnv = "HUFU_READERS_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "victim:", victim(context.Background(), dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

type task struct {
	CA  store.CA
	Key []byte // PKCS#8
}

// batchFunc ties a batch to a job, as a node does.
func batchFunc(register *readers.Register) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		var pairs []readers.Pair
		if err := json.Unmarshal(r.Args, &pairs); err != nil {
			return err
		}
		from := 0
		if len(r.Cursor) > 0 {
			if err := json.Unmarshal(r.Cursor, &from); err != nil {
				return err
			}
		}
		if err := r.Progress(ctx, int64(from), int64(len(pairs))); err != nil {
			return err
		}
		return register.Batch(ctx, r.ID, pairs, from, r.Actor, func(next int, results []readers.Result) error {
			items := make([]jobs.Item, len(results))
			for i, res := range results {
				items[i] = jobs.Item{Name: res.Number, OK: res.Err == nil, Error: fmt.Sprint(res.Err)}
			}
			return r.Save(ctx, next, items...)
		})
	}
}

func openJobs(ctx context.Context, dir string) (*store.Book, *jobs.Jobs, *readers.Register, error) {
	var t task
	b, err := os.ReadFile(filepath.Join(dir, "task.json"))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(t.Key)
	if err != nil {
		return nil, nil, nil, err
	}
	issuer, err := issuance.NewIssuer(issuance.Config{CA: t.CA, Key: key.(crypto.Signer), Domain: testpki.Domain, BaseURL: "http://pki." + testpki.Domain})
	if err != nil {
		return nil, nil, nil, err
	}
	engine, err := bolt.Open(filepath.Join(dir, "book"), bolt.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine, Tables: tables})
	if err != nil {
		return nil, nil, nil, err
	}
	authority, err := ca.New(ca.Config{Book: book, Issuers: []*issuance.Issuer{issuer}, Node: "victim"})
	if err != nil {
		return nil, nil, nil, err
	}
	register := readers.New(readers.Config{Book: book, Authority: authority, Domain: testpki.Domain})
	work := jobs.New(jobs.Config{Book: book, Node: "victim", Funcs: map[string]jobs.Func{"batch": batchFunc(register), "mass": massFunc(register)}})
	// What an earlier life left open would be waited for.
	_, err = authority.Recover(ctx)
	return book, work, register, err
}

func victim(ctx context.Context, dir string) error {
	_, work, _, err := openJobs(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println("started")
	return work.Run(ctx)
}

// trials is how often a kill test is run.
func trials() int {
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		return 2 * n
	}
	return 2
}

// writeTask writes what the victim needs to know.
func writeTask(t *testing.T, dir string, pki *testpki.World) {
	t.Helper()
	city := pki.CA("330100")
	spec := testpki.Must(json.Marshal(task{city.Record, testpki.Must(x509.MarshalPKCS8PrivateKey(city.Signer.Key))}))
	if err := os.WriteFile(filepath.Join(dir, "task.json"), spec, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBatchKilled(t *testing.T) {
	const readersInBatch = 400
	for range trials() {
		dir := t.TempDir()
		pki := testpki.Must(testpki.New(testpki.Config{}))
		writeTask(t, dir, pki)
		book := createBook(t, dir, pki)
		pairs := make([]readers.Pair, readersInBatch)
		for i := range pairs {
			pairs[i] = pair(fmt.Sprint("r", i), "330100")
		}
		var job *jobs.Job
		err := book.Update(t.Context(), func(tx *store.Tx) (err error) {
			work := jobs.New(jobs.Config{Funcs: map[string]jobs.Func{"batch": func(context.Context, *jobs.Run) error { return nil }}})
			job, err = work.Start(tx, "batch", pairs, "tester", "330100")
			return err
		})
		if err := errors.Join(err, book.Close()); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			killOnce(t, dir)
		}
		finish(t, dir, job.ID, readersInBatch)
	}
}

// killOnce runs the victim until a random moment.
func killOnce(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(testpki.Must(os.Executable()))
	cmd.Env = append(os.Environ(), victimEnv+"="+dir)
	out := testpki.Must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan() // it has started
	time.AfterFunc(time.Duration(rand.IntN(120))*time.Millisecond, func() { cmd.Process.Kill() })
	for lines.Scan() {
	}
	cmd.Wait()
	if cmd.ProcessState.Exited() {
		t.Fatal("the victim ended by itself")
	}
}

// finishJob lets a job come to its end, and returns the book open.
func finishJob(t *testing.T, dir, id string, n int) (*store.Book, *readers.Register) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	book, work, register, err := openJobs(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	end := make(chan error, 1)
	go func() { end <- work.Run(running) }()
	var job *jobs.Job
	for version := uint64(0); ; version = job.Version {
		if job, err = work.Wait(ctx, id, version, time.Minute); err != nil {
			t.Fatal(err)
		}
		if job.Finished() || ctx.Err() != nil {
			break
		}
	}
	stop()
	<-end
	if job.State != jobs.Done || job.Done != int64(n) || job.Items != uint64(n) || job.Failures != 0 {
		t.Errorf("the job ended as %+v", job)
	}
	t.Logf("taken up %d times", job.Attempt)
	return book, register
}

// finish lets the batch come to its end and counts.
func finish(t *testing.T, dir, id string, n int) {
	t.Helper()
	ctx := t.Context()
	book, register := finishJob(t, dir, id, n)
	defer book.Close()
	list, _, err := register.List(ctx, readers.Query{Limit: 2 * n})
	if err != nil || len(list) != n {
		t.Errorf("%d readers are registered, %v", len(list), err)
	}
	certificates := 0
	err = book.View(ctx, func(tx *store.Tx) error {
		for _, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			certificates++
		}
		return nil
	})
	if err != nil || certificates != 2*n {
		t.Errorf("%d readers have %d certificates, %v", n, certificates, err)
	}
	if err := errors.Join(book.Check(ctx, nil), register.Check(ctx)); err != nil {
		t.Error(err)
	}
}
