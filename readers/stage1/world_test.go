package stage1_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/jobs"
	"hufu/policy"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/verify"
)

var tables = slices.Concat(ca.Tables, jobs.Tables, readers.Tables, stage1.Tables)

// place is one node with a book of its own: the centre, or a city.
type place struct {
	*stage1.Stage
	t    testing.TB
	pki  *testpki.World
	book *store.Book
	jobs *jobs.Jobs

	mu    sync.Mutex
	ahead time.Duration
	told  verify.StatusFunc // beside the book; nil: nobody else tells
}

func (p *place) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Add(p.ahead)
}

func (p *place) wait(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead += d
}

// newPlace makes a node that holds the keys of some CAs.
func newPlace(t testing.TB, pki *testpki.World, lines ...string) *place {
	t.Helper()
	p := &place{t: t, pki: pki}
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	p.book = testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Tables: tables, Now: p.now}))
	var issuers []*issuance.Issuer
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		for _, c := range pki.CAs() {
			if id := c.Record.ID; id != "root" && !slices.Contains(lines, id) {
				continue
			}
			record := c.Record
			record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
			if err := store.CAs.Put(tx, &record); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, id := range lines {
		issuers = append(issuers, pki.CA(id).Issuer)
	}
	authority := testpki.Must(ca.New(ca.Config{Book: p.book, Issuers: issuers, Node: "n1", Now: p.now}))
	register := readers.New(readers.Config{Book: p.book, Authority: authority, Domain: testpki.Domain})
	verifier := &verify.Verifier{Anchors: pki.Anchors(), Domain: testpki.Domain, Now: p.now, Status: p.status}
	for _, c := range pki.CAs()[1:] {
		if slices.Contains(lines, c.Record.ID) {
			verifier.Intermediates = append(verifier.Intermediates, c.Record.Certificate)
		}
	}
	cfg := stage1.Config{Book: p.book, Authority: authority, Register: register, Verifier: verifier, Domain: testpki.Domain, Now: p.now}
	if slices.Contains(lines, "device") {
		cfg.DeviceCA, cfg.Signer = "device", p.signer(authority)
	}
	p.Stage = stage1.New(cfg)
	p.jobs = jobs.New(jobs.Config{Book: p.book, Node: "n1", Funcs: p.Work()})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.jobs.Run(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := register.Check(context.Background()); err != nil {
			t.Error(err)
		}
		if err := p.book.Check(context.Background(), nil); err != nil {
			t.Error(err)
		}
		p.must(p.book.Close())
	})
	return p
}

func (p *place) status(ctx context.Context, c *verify.Cert) (verify.Evidence, error) {
	sources := []verify.StatusFunc{verify.FromBook(p.book)}
	if p.told != nil {
		sources = append(sources, p.told)
	}
	return verify.First(sources...)(ctx, c)
}

func (p *place) signer(authority *ca.Authority) func(context.Context) (*stage1.Signer, error) {
	key := testpki.Must(testpki.Key())
	made := sync.OnceValues(func() (*stage1.Signer, error) {
		certs, err := authority.Issue(context.Background(), ca.Order{Requester: "test",
			Requests: []ca.Request{{CA: "device", Profile: "centre-sign", CSR: testpki.Must(testpki.CSR(key))}}})
		if err != nil {
			return nil, err
		}
		return &stage1.Signer{Certificate: certs[0].DER, Chain: [][]byte{p.pki.CA("device").Record.Certificate}, Key: key}, nil
	})
	return func(context.Context) (*stage1.Signer, error) { return made() }
}

func (p *place) must(err error) {
	if err != nil {
		p.t.Helper()
		p.t.Fatal(err)
	}
}

// run starts a job in the transaction that prepares it, and waits for its end.
func (p *place) run(kind string, begin func(tx *store.Tx) (args any, err error)) *jobs.Job {
	p.t.Helper()
	var job *jobs.Job
	p.must(p.book.Update(p.t.Context(), func(tx *store.Tx) error {
		args, err := begin(tx)
		if err != nil {
			return err
		}
		job, err = p.jobs.Start(tx, kind, args, "tester", "")
		return err
	}))
	for version := uint64(0); ; version = job.Version {
		var err error
		job, err = p.jobs.Wait(p.t.Context(), job.ID, version, time.Minute)
		p.must(err)
		if job.Finished() {
			return job
		}
	}
}

func (p *place) good(job *jobs.Job) {
	p.t.Helper()
	if job.State != jobs.Done || job.Failures > 0 {
		items, _, _ := p.jobs.Items(p.t.Context(), job.ID, nil, 3)
		for _, i := range items {
			p.t.Logf("%+v", i)
		}
		p.t.Fatalf("%+v", job)
	}
}

var model = stage1.Model{Name: "XF-100", Maker: "Hangzhou Readers", Approval: "CN-2026-017", Firmware: []string{"1.2.0", "1.2.1"}, Until: time.Now().AddDate(1, 0, 0)}

func (p *place) addModel(m stage1.Model) {
	p.t.Helper()
	p.must(p.book.Update(p.t.Context(), func(tx *store.Tx) error {
		_, err := p.AddModel(tx, m, "tester")
		return err
	}))
}

func spki(key crypto.Signer) []byte { return testpki.Must(x509.MarshalPKIXPublicKey(key.Public())) }

// csvOf is a manifest with a public key for each number.
func csvOf(keys map[string]crypto.Signer, numbers ...string) []byte {
	var b strings.Builder
	b.WriteString("number,model,firmware,approval,key\n")
	for _, n := range numbers {
		fmt.Fprintf(&b, "%s,XF-100,1.2.0,CN-2026-017,%s\n", n, base64.StdEncoding.EncodeToString(spki(keys[n])))
	}
	return []byte(b.String())
}

func numbersOf(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("3301%07d", i+1)
	}
	return list
}

func keysOf(numbers []string) map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	for _, n := range numbers {
		keys[n] = testpki.Must(testpki.Key())
	}
	return keys
}

// take imports a manifest to its end.
func (p *place) take(file []byte) (*stage1.Manifest, *jobs.Job) {
	p.t.Helper()
	sheet, err := p.CheckManifest(p.t.Context(), file, "")
	p.must(err)
	var m *stage1.Manifest
	job := p.run(stage1.JobManifest, func(tx *store.Tx) (any, error) {
		m, err = p.Import(tx, sheet, "manifest.csv", "tester")
		if err != nil {
			return nil, err
		}
		return stage1.ManifestArgs{Manifest: m.ID}, nil
	})
	m, err = p.Manifest(p.t.Context(), m.ID)
	p.must(err)
	return m, job
}

// ticket makes a ticket to its end and returns its file.
func (p *place) ticket(o stage1.TicketOrder) (*stage1.Ticket, []byte) {
	p.t.Helper()
	if o.Expires.IsZero() {
		o.Expires = p.now().Add(30 * 24 * time.Hour)
	}
	numbers, err := p.Choose(p.t.Context(), o)
	p.must(err)
	var t *stage1.Ticket
	p.good(p.run(stage1.JobTicket, func(tx *store.Tx) (any, error) {
		var args stage1.TicketArgs
		t, args, err = p.Begin(tx, o, numbers, "tester")
		return args, err
	}))
	t, err = p.Ticket(p.t.Context(), t.ID)
	p.must(err)
	var b bytes.Buffer
	p.must(p.WriteTicket(p.t.Context(), t.ID, &b))
	return t, b.Bytes()
}

// bring takes a ticket's file in at a city.
func (p *place) bring(der []byte, offline bool) (*stage1.Ticket, *jobs.Job) {
	p.t.Helper()
	v, err := p.Judge(p.t.Context(), der, offline)
	p.must(err)
	var t *stage1.Ticket
	job := p.run(stage1.JobTicketImport, func(tx *store.Tx) (any, error) {
		t, err = p.TakeIn(tx, v, der, offline, "tester")
		return stage1.TicketArgs{Ticket: v.ID}, err
	})
	t, err = p.Ticket(p.t.Context(), t.ID)
	p.must(err)
	return t, job
}

// reader is a device that was initialised at a city.
type reader struct {
	number        string
	device        []byte
	sign, encrypt *store.Certificate
	key           crypto.Signer
	city          *place
}

// initialise gives a reader of an open ticket its pair at a city, on hold, and
// activates it with its receipt, as stage 2 does.
func (p *place) initialise(number string, device []byte, ticket string) (*reader, []byte) {
	p.t.Helper()
	key, encrypt := testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
	city := ""
	for _, i := range p.Authority.Issuers {
		city = max(city, i.CA().City)
	}
	name := policy.Name{Reader: number, City: city}
	certs, err := p.Authority.Issue(p.t.Context(), ca.Order{
		Requests: []ca.Request{
			{CA: city, Profile: "reader-sign", CSR: testpki.Must(testpki.PairCSR(key, encrypt.Public())), Name: name},
			{CA: city, Profile: "reader-encrypt", SPKI: spki(encrypt), Name: name},
		},
		Requester: "tester", Hold: true,
		Commit: func(tx *store.Tx, certs []*store.Certificate) error {
			_, rd, err := p.Admit(tx, number, city, ticket)
			if err != nil {
				return err
			}
			if err := p.Spend(tx, rd); err != nil {
				return err
			}
			_, err = p.Register.Initialised(tx, number, certs, false, "tester")
			return err
		},
	})
	p.must(err)
	r := &reader{number, device, certs[0], certs[1], key, p}
	line := r.receipt(ticket, nil)
	var l verify.ReceiptLine
	p.must(json.Unmarshal(line, &l))
	p.must(p.book.Update(p.t.Context(), func(tx *store.Tx) error {
		_, err := p.Register.Activate(tx, number, store.Sum(l.Receipt), "tester")
		return err
	}))
	return r, line
}

// receipt is a line of a receipts file; change may spoil the receipt.
func (r *reader) receipt(ticket string, change func(*verify.Receipt)) []byte {
	v := &verify.Receipt{Session: strings.Repeat("00", 16), Number: r.number, City: r.sign.City, Ticket: ticket, Firmware: "1.2.0", Time: r.city.now(),
		Sign: sha256.Sum256(r.sign.DER), Encrypt: sha256.Sum256(r.encrypt.DER), Device: sha256.Sum256(r.device)}
	if change != nil {
		change(v)
	}
	issuer := r.city.pki.CA(r.sign.CA).Record.Certificate
	der := testpki.Must(cms.Sign(oid.ContentReceipt, testpki.Must(v.Marshal()), r.sign.DER, [][]byte{issuer}, r.key, r.city.now()))
	return testpki.Must(json.Marshal(verify.ReceiptLine{Number: r.number, Receipt: der, Sign: r.sign.DER, Encrypt: r.encrypt.DER, Device: r.device}))
}

func (p *place) state(number string) readers.State {
	p.t.Helper()
	rd, err := p.Register.Reader(p.t.Context(), number)
	p.must(err)
	return rd.State
}

func (p *place) device(number string) []byte {
	p.t.Helper()
	rd, err := p.Register.Reader(p.t.Context(), number)
	p.must(err)
	var der []byte
	p.must(p.book.View(p.t.Context(), func(tx *store.Tx) error {
		c, err := store.FindCertificate(tx, rd.DeviceCA, rd.DeviceSerial)
		if err == nil {
			der = c.DER
		}
		return err
	}))
	return der
}
