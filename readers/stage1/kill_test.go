package stage1_test

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
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/jobs"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/store/bolt"
)

// The test below runs this test program again as a node that works at a manifest and
// then at a ticket, and kills it again and again until both are done.

const victimEnv = "HUFU_STAGE1_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "victim:", victim(context.Background(), dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// task is what the victim needs to be the centre.
type task struct {
	CA     store.CA
	Key    []byte // PKCS#8
	Signer stage1.Signer
	Sign   []byte // PKCS#8 of the signer's key
}

func openCentre(ctx context.Context, dir string) (*stage1.Stage, *jobs.Jobs, error) {
	var t task
	b, err := os.ReadFile(filepath.Join(dir, "task.json"))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(t.Key)
	if err != nil {
		return nil, nil, err
	}
	sign, err := x509.ParsePKCS8PrivateKey(t.Sign)
	if err != nil {
		return nil, nil, err
	}
	t.Signer.Key = sign.(crypto.Signer)
	issuer, err := issuance.NewIssuer(issuance.Config{CA: t.CA, Key: key.(crypto.Signer), Domain: testpki.Domain, BaseURL: "http://pki." + testpki.Domain})
	if err != nil {
		return nil, nil, err
	}
	engine, err := bolt.Open(filepath.Join(dir, "book"), bolt.Options{})
	if err != nil {
		return nil, nil, err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine, Tables: tables})
	if err != nil {
		return nil, nil, err
	}
	authority, err := ca.New(ca.Config{Book: book, Issuers: []*issuance.Issuer{issuer}, Node: "victim"})
	if err != nil {
		return nil, nil, err
	}
	register := readers.New(readers.Config{Book: book, Authority: authority, Domain: testpki.Domain})
	stage := stage1.New(stage1.Config{Book: book, Authority: authority, Register: register, DeviceCA: "device", Domain: testpki.Domain,
		Signer: func(context.Context) (*stage1.Signer, error) { return &t.Signer, nil }})
	// What an earlier life left open would be waited for.
	_, err = authority.Recover(ctx)
	return stage, jobs.New(jobs.Config{Book: book, Node: "victim", Funcs: stage.Work()}), err
}

func victim(ctx context.Context, dir string) error {
	_, work, err := openCentre(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println("started")
	return work.Run(ctx)
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
	time.AfterFunc(time.Duration(rand.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
	for lines.Scan() {
	}
	cmd.Wait()
	if cmd.ProcessState.Exited() {
		t.Fatal("the victim ended by itself")
	}
}

// atCentre opens the centre's book between two lives, and closes it.
func atCentre(t *testing.T, dir string, f func(*stage1.Stage, *jobs.Jobs)) {
	t.Helper()
	stage, work, err := openCentre(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	f(stage, work)
	if err := stage.Book.Close(); err != nil {
		t.Fatal(err)
	}
}

// finish lets a job come to its end.
func finish(t *testing.T, work *jobs.Jobs, id string) *jobs.Job {
	t.Helper()
	running, stop := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- work.Run(running) }()
	var job *jobs.Job
	for version := uint64(0); job == nil || !job.Finished(); version = job.Version {
		var err error
		if job, err = work.Wait(t.Context(), id, version, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	<-end
	if job.State != jobs.Done || job.Failures != 0 {
		t.Errorf("the job ended as %+v", job)
	}
	t.Logf("%s: taken up %d times", job.Kind, job.Attempt)
	return job
}

func TestKilled(t *testing.T) {
	const n = 1500
	dir := t.TempDir()
	pki := testpki.Must(testpki.New(testpki.Config{}))
	device, centre := pki.CA("device"), testpki.Must(pki.CentreSigner())
	spec := testpki.Must(json.Marshal(task{device.Record, testpki.Must(x509.MarshalPKCS8PrivateKey(device.Signer.Key)),
		stage1.Signer{Certificate: centre.Certificate, Chain: centre.Chain[:1]}, testpki.Must(x509.MarshalPKCS8PrivateKey(centre.Key))}))
	if err := os.WriteFile(filepath.Join(dir, "task.json"), spec, 0o600); err != nil {
		t.Fatal(err)
	}
	engine := testpki.Must(bolt.Open(filepath.Join(dir, "book"), bolt.Options{}))
	book := testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Tables: tables}))
	record := device.Record
	err := book.Update(t.Context(), func(tx *store.Tx) error {
		record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
		return store.CAs.Put(tx, &record)
	})
	if err := errors.Join(err, book.Close()); err != nil {
		t.Fatal(err)
	}
	numbers := numbersOf(n)
	file := csvOf(keysOf(numbers), numbers...)
	start := func(kind string, begin func(*stage1.Stage, *store.Tx) (any, error)) (id string) {
		atCentre(t, dir, func(s *stage1.Stage, work *jobs.Jobs) {
			err := s.Book.Update(t.Context(), func(tx *store.Tx) error {
				args, err := begin(s, tx)
				if err != nil {
					return err
				}
				job, err := work.Start(tx, kind, args, "tester", "")
				if err == nil {
					id = job.ID
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
		return id
	}
	var manifest, ticket string
	job := start(stage1.JobManifest, func(s *stage1.Stage, tx *store.Tx) (any, error) {
		if _, err := s.AddModel(tx, model, "tester"); err != nil {
			return nil, err
		}
		sheet, err := stage1.ReadManifest(file, "")
		if err != nil {
			return nil, err
		}
		m, err := s.Import(tx, sheet, "manifest.csv", "tester")
		if err != nil {
			return nil, err
		}
		manifest = m.ID
		return stage1.ManifestArgs{Manifest: m.ID}, nil
	})
	for range 5 {
		killOnce(t, dir)
	}
	atCentre(t, dir, func(s *stage1.Stage, work *jobs.Jobs) {
		if j := finish(t, work, job); j.Done != n {
			t.Errorf("%+v", j)
		}
		if m, err := s.Manifest(t.Context(), manifest); err != nil || m.Prepared != n {
			t.Errorf("%+v, %v", m, err)
		}
		counted(t, s, n)
	})
	order := stage1.TicketOrder{City: "330100", Expires: time.Now().Add(time.Hour)}
	job = start(stage1.JobTicket, func(s *stage1.Stage, tx *store.Tx) (any, error) {
		v, args, err := s.Begin(tx, order, numbers, "tester")
		ticket = v.ID
		return args, err
	})
	for range 5 {
		killOnce(t, dir)
	}
	atCentre(t, dir, func(s *stage1.Stage, work *jobs.Jobs) {
		finish(t, work, job)
		v, err := s.Ticket(t.Context(), ticket)
		if err != nil || v.State != stage1.TicketOpen || v.Readers != n || v.Quota != n {
			t.Errorf("%+v, %v", v, err)
		}
		if err := errors.Join(s.Book.Check(t.Context(), nil), s.Register.Check(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// counted holds that every reader is there once, with one certificate.
func counted(t *testing.T, s *stage1.Stage, n int) {
	t.Helper()
	certificates, prepared := map[string]int{}, 0
	err := s.Book.View(t.Context(), func(tx *store.Tx) error {
		for c, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			certificates[c.Reader]++
		}
		return nil
	})
	if err != nil || len(certificates) != n {
		t.Errorf("%d readers have certificates, %v", len(certificates), err)
	}
	for number, k := range certificates {
		if k != 1 {
			t.Errorf("reader %s has %d certificates", number, k)
		}
	}
	q := readers.Query{State: readers.Prepared, Limit: 256}
	for {
		page, next, err := s.Register.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if prepared += len(page); next == nil {
			break
		}
		q.After = next
	}
	if prepared != n {
		t.Errorf("%d readers are prepared", prepared)
	}
}
