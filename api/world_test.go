package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/api"
	"hufu/api/client"
	"hufu/ca"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/officers"
	"hufu/policy"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/topup"
	"hufu/verify"
)

const nodeName = "node.card.example"

// world is one node with everything below the door real: book on bbolt, keys in
// memory, TLS on loopback.
type world struct {
	t         testing.TB
	pki       *testpki.World
	book      *store.Book
	authority *ca.Authority
	office    *officers.Office
	jobs      *jobs.Jobs
	register  *readers.Register
	stage1    *stage1.Stage
	stage2    *stage2.Service
	loads     *topup.Service
	server    *api.Server
	url       string
	log       *lines
	admins    [2]*person

	folder string                          // where the book lies
	centre *escrow.Escrow                  // nil but in newCentre
	tap    func(http.Handler) http.Handler // sees every answer; nil: nobody does

	readTimeout time.Duration // of the door
	ahead       atomic.Int64  // nanoseconds that the book's clock is ahead
	sick        atomic.Bool   // the token does not sign
}

// person is somebody with a certificate of the staff or the services CA.
type person struct {
	*testpki.Leaf
	client *client.Client
	http   *http.Client
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, time.Minute)
}

func newWorldWith(t testing.TB, readTimeout time.Duration) *world {
	t.Helper()
	return newWorldOf(&world{t: t, readTimeout: readTimeout}, nil)
}

// newWorldOf builds a world; centre makes its key management centre, if it has one.
func newWorldOf(w *world, centre func(*verify.Verifier) *escrow.Escrow) *world {
	t := w.t
	t.Helper()
	w.pki, w.log, w.folder = testpki.Must(testpki.New(testpki.Config{})), &lines{}, t.TempDir()
	ctx := context.Background()
	engine, err := bolt.Open(filepath.Join(w.folder, "book"), bolt.Options{})
	w.must(err)
	tables := slices.Concat(api.Tables, ca.Tables, officers.Tables, jobs.Tables, readers.Tables, escrow.Tables, stage1.Tables, stage2.Tables)
	w.book, err = store.Create(ctx, store.Config{Engine: engine, Tables: tables, Now: w.bookTime})
	w.must(err)
	w.must(w.book.Update(ctx, func(tx *store.Tx) error {
		for _, c := range w.pki.CAs() {
			record := c.Record
			record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
			if err := store.CAs.Put(tx, &record); err != nil {
				return err
			}
		}
		return nil
	}))
	log := slog.New(slog.NewTextHandler(w.log, nil))
	w.authority, err = ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: "n1", Log: log})
	w.must(err)
	verifier := &verify.Verifier{Anchors: w.pki.Anchors(), Domain: testpki.Domain, Status: verify.FromBook(w.book)}
	for _, c := range w.pki.CAs()[1:] {
		verifier.Intermediates = append(verifier.Intermediates, c.Record.Certificate)
	}
	if centre != nil {
		w.centre = centre(verifier)
	}
	w.office = officers.New(officers.Config{Book: w.book, Log: log})
	w.register = readers.New(readers.Config{Book: w.book, Authority: w.authority, Domain: testpki.Domain, Log: log})
	signers := w.citySigners()
	w.loads, err = topup.New(topup.Config{Book: w.book, Verifier: verifier, Signer: signers, Log: log})
	w.must(err)
	// A directory that nobody listens at, and a publisher that does not run.
	publisher, err := ldapsync.New(ldapsync.Config{
		Book: w.book, Node: "n1", Key: testpki.Must(testpki.Key()), Directories: []ldapsync.Directory{{Name: "north", URL: "ldaps://127.0.0.1:1", Base: "o=Hufu,c=CN", TLS: &tls.Config{RootCAs: w.pki.Pool()}}},
	})
	w.must(err)
	w.stage1 = stage1.New(stage1.Config{Book: w.book, Authority: w.authority, Register: w.register, Verifier: verifier, DeviceCA: "device", Signer: w.centreSigner(), Domain: testpki.Domain, Log: log})
	w.stage2 = stage2.New(stage2.Config{Book: w.book, Authority: w.authority, Register: w.register, Stage: w.stage1, Verifier: verifier, Log: log})
	work := api.Work(w.book, w.register, publisher)
	maps.Copy(work, w.stage1.Work())
	w.jobs = jobs.New(jobs.Config{Book: w.book, Node: "n1", Funcs: work, Log: log})
	w.server = api.New(api.Config{
		Book: w.book, Authority: w.authority, Office: w.office, Jobs: w.jobs, Readers: w.register, Stage1: w.stage1, Stage2: w.stage2, TopUp: w.loads, Escrow: w.centre,
		Publisher: publisher, Verifier: verifier, Checkpoint: testpki.Must(testpki.Key()), Node: "n1", Version: "test", Log: log,
		Probes: []api.Probe{{Name: "token", Check: func(context.Context) error {
			if w.sick.Load() {
				return errors.New("the token is gone")
			}
			return nil
		}}},
	})
	w.open(ctx)
	w.bootstrap(ctx)
	w.firstLists(ctx)
	return w
}

func (w *world) bookTime() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// open starts the node's runners and its door, and ends them with the test.
func (w *world) open(ctx context.Context) {
	node := testpki.Must(w.pki.Server(nodeName)).TLS()
	door := w.server.Door(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &node, nil })
	door.ReadTimeout = w.readTimeout
	if w.tap != nil {
		door.Handler = w.tap(door.Handler)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.url = "https://" + l.Addr().String()
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := door.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			w.t.Errorf("serving: %v", err)
		}
	})
	for name, run := range map[string]func(context.Context) error{"jobs": w.jobs.Run, "spine": w.authority.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				w.t.Errorf("running the %s: %v", name, err)
			}
		})
	}
	w.t.Cleanup(func() {
		stop()
		door.Close()
		running.Wait()
		if err := w.book.Check(context.Background(), nil); err != nil {
			w.t.Errorf("checking the book: %v", err)
		}
		if w.t.Failed() {
			w.t.Log(w.log.String())
		}
		w.must(w.book.Close())
	})
}

// firstLists waits until the spine has published a CRL for each CA, so that it
// does nothing by itself any more while nothing is revoked.
func (w *world) firstLists(ctx context.Context) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	after, lists := uint64(0), 0
	for lists < len(w.pki.Issuers()) {
		events, err := w.book.Follow(ctx, after, 100)
		w.must(err)
		for _, e := range events {
			if after = e.Seq; e.Kind == store.KindCRL {
				lists++
			}
		}
	}
}

// bootstrap records two CA admins.
func (w *world) bootstrap(ctx context.Context) {
	var first [2]officers.Person
	for i, name := range []string{"Zhang San", "Li Si"} {
		w.admins[i] = w.certify("operator", policy.Name{Person: name})
		first[i] = officers.Person{Name: name, Certificate: w.admins[i].Certificate}
	}
	w.must(w.book.Update(ctx, func(tx *store.Tx) error { return w.office.Bootstrap(tx, first) }))
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

// citySigners gives each city its signing certificate, issued by the spine.
func (w *world) citySigners() func(context.Context, string) (topup.Signer, error) {
	signers := map[string]topup.Signer{}
	for _, city := range []string{"330100", "330200"} {
		key := testpki.Must(testpki.Key())
		certs, err := w.authority.Issue(context.Background(), ca.Order{
			Requests:  []ca.Request{{CA: city, Profile: "city-sign", CSR: testpki.Must(testpki.CSR(key)), Name: policy.Name{City: city}}},
			Requester: "test",
		})
		w.must(err)
		issuer := w.pki.CA(city).Record
		signers[city] = topup.Signer{Certificate: certs[0].DER, Chain: append([][]byte{issuer.Certificate}, issuer.Chain...), Key: key}
	}
	return func(_ context.Context, city string) (topup.Signer, error) {
		s, ok := signers[city]
		if !ok {
			return s, errors.New("no such city")
		}
		return s, nil
	}
}

// centreSigner gives the centre its signing certificate, issued by the spine.
func (w *world) centreSigner() func(context.Context) (*stage1.Signer, error) {
	key := testpki.Must(testpki.Key())
	certs, err := w.authority.Issue(context.Background(), ca.Order{
		Requests: []ca.Request{{CA: "device", Profile: "centre-sign", CSR: testpki.Must(testpki.CSR(key))}}, Requester: "test",
	})
	w.must(err)
	return func(context.Context) (*stage1.Signer, error) {
		return &stage1.Signer{Certificate: certs[0].DER, Chain: [][]byte{w.pki.CA("device").Record.Certificate}, Key: key}, nil
	}
}

// certify makes somebody's certificate by the spine, so that the book knows it.
func (w *world) certify(profile string, name policy.Name) *person {
	w.t.Helper()
	key := testpki.Must(testpki.Key())
	line := map[string]string{"operator": "staff", "client": "services"}[profile]
	certs, err := w.authority.Issue(context.Background(), ca.Order{
		Requests:  []ca.Request{{CA: line, Profile: profile, CSR: testpki.Must(testpki.CSR(key)), Name: name}},
		Requester: "test",
	})
	w.must(err)
	issuer := w.pki.CA(line).Record
	return w.person(&testpki.Leaf{
		Certificate: certs[0].DER, Chain: append([][]byte{issuer.Certificate}, issuer.Chain...), Key: key, Serial: certs[0].Serial, Record: *certs[0],
	})
}

func (w *world) person(leaf *testpki.Leaf) *person {
	conf := &tls.Config{RootCAs: w.pki.Pool(), ServerName: nodeName, Certificates: []tls.Certificate{leaf.TLS()}, MinVersion: tls.VersionTLS13}
	p := &person{Leaf: leaf, http: &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}}
	w.t.Cleanup(func() {
		p.http.CloseIdleConnections()
		if p.client != nil {
			p.client.Close()
		}
	})
	if w.url != "" {
		p.client = testpki.Must(client.New(client.Config{URL: w.url, TLS: conf}))
	}
	return p
}

// hire adds somebody with the consent of both admins.
func (w *world) hire(name, city string, roles ...policy.Role) *person {
	w.t.Helper()
	p := w.certify("operator", policy.Name{Person: name, City: city})
	if slices.Contains(roles, policy.TopUp) {
		p = w.certify("client", policy.Name{CommonName: name, City: city})
	}
	ctx := context.Background()
	who := officers.Person{Name: name, City: city, Roles: roles, Certificate: p.Certificate}
	asks, err := w.office.Caller(ctx, w.admins[0].Certificate)
	w.must(err)
	agrees, err := w.office.Caller(ctx, w.admins[1].Certificate)
	w.must(err)
	w.must(w.book.Update(ctx, func(tx *store.Tx) error {
		a, err := w.office.Request(tx, asks, policy.OpOfficerAdd, "", who.Canonical(policy.OpOfficerAdd), 1)
		if err != nil {
			return err
		}
		if _, err := w.office.Approve(tx, agrees, a.ID, w.admins[1].consent(a.Canonical)); err != nil {
			return err
		}
		_, err = w.office.Add(tx, agrees, who, a.ID)
		return err
	}))
	return p
}

// consent signs the canonical bytes of an approval.
func (p *person) consent(canonical []byte) []byte {
	return testpki.Must(cms.Sign(oid.ContentApproval, canonical, p.Certificate, p.Chain, p.Key, time.Now()))
}

// ask sends one request as it is and returns the status and the body.
func (p *person) ask(w *world, method, path, media, body string, header ...string) (int, http.Header, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	w.must(err)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(req)
	w.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	w.must(err)
	return resp.StatusCode, resp.Header, b
}

// head is the newest event of the journal.
func (w *world) head() uint64 {
	w.t.Helper()
	tree, err := w.book.Tree(context.Background())
	w.must(err)
	return uint64(tree.Size)
}

// since returns the kinds of the events after one, but for refusals and for what
// the node's runners do by themselves.
func (w *world) since(after uint64) (kinds []string) {
	w.t.Helper()
	events, err := w.book.Events(context.Background(), after, 1000)
	w.must(err)
	for _, e := range events {
		switch e.Kind {
		case store.KindRefused, store.KindCRL, jobs.KindDone, jobs.KindFailed:
		default:
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// keptAnswers counts the answers in the book.
func (w *world) keptAnswers() (n int) {
	w.t.Helper()
	w.must(w.book.View(context.Background(), func(tx *store.Tx) error {
		n = testpki.Must(api.KeptAnswers(tx))
		return nil
	}))
	return n
}

// pairCSR makes the request for a reader's pair.
func pairCSR() []byte {
	encrypt := testpki.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return testpki.Must(testpki.PairCSR(testpki.Must(testpki.Key()), encrypt.Public()))
}

// lines is a log that a test can read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func refOf(p *person) ca.Ref { return ca.Ref{CA: p.Record.CA, Serial: p.Serial} }
