package stage2_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"hufu/ca"
	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/softhsm"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/policy"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/verify"
)

const city = "330100"

var (
	tables   = slices.Concat(ca.Tables, jobs.Tables, readers.Tables, stage1.Tables, stage2.Tables, escrow.Tables)
	operator = policy.Caller{Name: "Chen Jie", City: city, Fingerprint: [32]byte{1}}
	another  = policy.Caller{Name: "Sun Li", City: city, Fingerprint: [32]byte{2}}
)

// place is one node with a book of its own: the centre, or a city.
type place struct {
	*stage2.Service
	t        testing.TB
	pki      *testpki.World
	book     *store.Book
	jobs     *jobs.Jobs
	stage    *stage1.Stage
	register *readers.Register

	mu    sync.Mutex
	ahead time.Duration
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

func (p *place) must(err error) {
	if err != nil {
		p.t.Helper()
		p.t.Fatal(err)
	}
}

// newPlace makes a node that holds the keys of some CAs.
func newPlace(t testing.TB, pki *testpki.World, lines ...string) *place {
	t.Helper()
	p := &place{t: t, pki: pki}
	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "book"), bolt.Options{}))
	p.book = testpki.Must(store.Create(t.Context(), store.Config{Engine: engine, Tables: tables, Now: p.now}))
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		for _, c := range pki.CAs() {
			record := c.Record
			if record.ID != "root" && !slices.Contains(lines, record.ID) {
				continue
			}
			record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
			if err := store.CAs.Put(tx, &record); err != nil {
				return err
			}
		}
		return nil
	}))
	var issuers []*issuance.Issuer
	verifier := &verify.Verifier{Anchors: pki.Anchors(), Domain: testpki.Domain, Now: p.now, Status: verify.FromBook(p.book)}
	for _, id := range lines {
		issuers = append(issuers, pki.CA(id).Issuer)
		verifier.Intermediates = append(verifier.Intermediates, pki.CA(id).Record.Certificate)
	}
	authority := testpki.Must(ca.New(ca.Config{Book: p.book, Issuers: issuers, Node: "n1", Now: p.now}))
	p.register = readers.New(readers.Config{Book: p.book, Authority: authority, Domain: testpki.Domain})
	cfg := stage1.Config{Book: p.book, Authority: authority, Register: p.register, Verifier: verifier, Domain: testpki.Domain, Now: p.now}
	if slices.Contains(lines, "device") {
		cfg.DeviceCA, cfg.Signer = "device", p.signer(authority)
	}
	p.stage = stage1.New(cfg)
	p.Service = stage2.New(stage2.Config{Book: p.book, Authority: authority, Register: p.register, Stage: p.stage, Verifier: verifier, Now: p.now})
	p.jobs = jobs.New(jobs.Config{Book: p.book, Node: "n1", Funcs: p.stage.Work()})
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
		if err := errors.Join(p.register.Check(context.Background()), p.book.Check(context.Background(), nil)); err != nil {
			t.Error(err)
		}
		p.must(p.book.Close())
	})
	return p
}

// newCentre is a node that is the centre and holds a city as well.
func newCentre(t testing.TB) *place {
	t.Helper()
	return newPlace(t, testpki.Must(testpki.New(testpki.Config{})), "device", city, "330200")
}

// restart is the node after a power cut: what was in memory is gone.
func (p *place) restart() { p.Service = stage2.New(p.Config) }

// keep gives the node a key management centre in a real token.
func (p *place) keep() *escrow.Escrow {
	p.t.Helper()
	h := testpki.Must(softhsm.New(p.t.TempDir()))
	p.must(h.Activate())
	testpki.Must(h.Init("kmc", []byte("12345678"), []byte("1234")))
	token := testpki.Must(hsm.Open(context.Background(), hsm.Config{Module: h.Module(), URI: "pkcs11:token=kmc", PIN: func() ([]byte, error) { return []byte("1234"), nil }}))
	p.t.Cleanup(func() { token.Close() })
	cfg := p.Config
	cfg.Escrow = testpki.Must(escrow.New(p.t.Context(), escrow.Config{Book: p.book, Token: token, Wrapping: "kmc", Spare: 4, Verifier: p.Verifier, Now: p.now}))
	p.Service = stage2.New(cfg)
	return cfg.Escrow
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

// run starts a job in the transaction that prepares it, and waits for its end.
func (p *place) run(kind string, begin func(tx *store.Tx) (args any, err error)) {
	p.t.Helper()
	var job *jobs.Job
	p.must(p.book.Update(p.t.Context(), func(tx *store.Tx) error {
		args, err := begin(tx)
		if err == nil {
			job, err = p.jobs.Start(tx, kind, args, "tester", "")
		}
		return err
	}))
	for version := uint64(0); !job.Finished(); version = job.Version {
		var err error
		job, err = p.jobs.Wait(p.t.Context(), job.ID, version, time.Minute)
		p.must(err)
	}
	if job.State != jobs.Done || job.Failures > 0 {
		p.t.Fatalf("%+v", job)
	}
}

// prepared makes readers whose first stage is done.
func (p *place) prepared(numbers ...string) map[string]*reader {
	p.t.Helper()
	all := map[string]*reader{}
	for _, n := range numbers {
		r := &reader{t: p.t, number: n, device: testpki.Must(testpki.Key()), issuer: p.pki.CA("device").Record.Certificate}
		p.must(p.book.Update(p.t.Context(), func(tx *store.Tx) error {
			_, err := p.register.Enter(tx, readers.Reader{Number: n, Model: "XF-100", Firmware: "1.2.0", Approval: "A", Batch: "b1"}, "centre")
			return err
		}))
		_, err := p.Authority.Issue(p.t.Context(), ca.Order{Requester: "centre",
			Requests: []ca.Request{{CA: "device", Profile: "device", CSR: testpki.Must(testpki.CSR(r.device)), Name: policy.Name{Reader: n}}},
			Commit: func(tx *store.Tx, certs []*store.Certificate) error {
				r.certificate = certs[0].DER
				_, err := p.register.Prepare(tx, n, certs[0], "centre")
				return err
			}})
		p.must(err)
		all[n] = r
	}
	return all
}

// ticket puts prepared readers on a ticket.
func (p *place) ticket(of string, quota int, numbers ...string) string {
	p.t.Helper()
	o := stage1.TicketOrder{City: of, Quota: uint32(quota), Expires: p.now().Add(24 * time.Hour), Numbers: numbers}
	chosen := testpki.Must(p.stage.Choose(p.t.Context(), o))
	var id string
	p.run(stage1.JobTicket, func(tx *store.Tx) (any, error) {
		t, args, err := p.stage.Begin(tx, o, chosen, "centre")
		if err == nil {
			id = t.ID
		}
		return args, err
	})
	return id
}

// one is a reader on a ticket of its own.
func (p *place) one(number string) *reader {
	p.t.Helper()
	r := p.prepared(number)[number]
	r.ticket = p.ticket(city, 1, number)
	return r
}

// reader is the other side: what a real one keeps in its flash.
type reader struct {
	t           testing.TB
	number      string
	ticket      string
	device      crypto.Signer
	certificate []byte // of device
	issuer      []byte // of certificate

	sign, encrypt, transport crypto.Signer // of the pair to come
	pair                     *stage2.Grant // installed
	present                  crypto.Signer // signing key of the pair that was finished
	was                      *stage2.Grant // its certificates
}

func (r *reader) makeKeys() {
	r.sign, r.encrypt = testpki.Must(testpki.Key()), testpki.Must(testpki.Key())
}

func spkiOf(k crypto.Signer) []byte { return testpki.Must(x509.MarshalPKIXPublicKey(k.Public())) }

// csr asks for a pair.
func (r *reader) csr(s *stage2.Session) []byte {
	if s.Encryption == stage2.ByCentre {
		r.transport = testpki.Must(testpki.Key())
		return testpki.Must(testpki.TransportCSR(r.sign, r.transport.Public()))
	}
	return testpki.Must(testpki.PairCSR(r.sign, r.encrypt.Public()))
}

// enrolment answers a session, with what change makes of it.
func (r *reader) enrolment(s *stage2.Session, change ...func(*verify.Enrolment)) []byte {
	r.t.Helper()
	if r.sign == nil {
		r.makeKeys()
	}
	e := &verify.Enrolment{Session: s.ID, Challenge: s.Challenge, Number: r.number, City: s.City, Firmware: "1.2.0", CSR: r.csr(s)}
	for _, f := range change {
		f(e)
	}
	if s.Renew {
		return say(oid.ContentEnrolment, e, r.was.Sign, r.was.Chain, r.present)
	}
	return say(oid.ContentEnrolment, e, r.certificate, [][]byte{r.issuer}, r.device)
}

func say(kind []int, content interface{ Marshal() ([]byte, error) }, cert []byte, chain [][]byte, key crypto.Signer) []byte {
	return testpki.Must(cms.Sign(kind, testpki.Must(content.Marshal()), cert, chain, key, time.Now()))
}

// install takes a pair in: the reader judges it as a real one does.
func (r *reader) install(g *stage2.Grant) {
	r.t.Helper()
	sign, encrypt := testpki.Must(x509.ParseCertificate(g.Sign)), testpki.Must(x509.ParseCertificate(g.Encrypt))
	if !bytes.Equal(sign.RawSubjectPublicKeyInfo, spkiOf(r.sign)) {
		r.t.Fatal("the signing certificate is of another key")
	}
	if g.SealedKey != nil {
		exchange := testpki.Must(r.transport.(*ecdsa.PrivateKey).ECDH())
		der := testpki.Must((&cms.Opener{ECDH: exchange}).OpenKey(g.SealedKey, encrypt.RawSubjectPublicKeyInfo))
		r.encrypt = testpki.Must(x509.ParsePKCS8PrivateKey(der)).(*ecdsa.PrivateKey)
	}
	if !bytes.Equal(encrypt.RawSubjectPublicKeyInfo, spkiOf(r.encrypt)) {
		r.t.Fatal("the encryption certificate is of another key")
	}
	r.pair = g
}

// receipt is signed with the new key.
func (r *reader) receipt(s *stage2.Session, change ...func(*verify.Receipt)) []byte {
	r.t.Helper()
	v := &verify.Receipt{Session: s.ID, Number: r.number, City: s.City, Ticket: s.Ticket, Firmware: "1.2.0", Time: time.Now().UTC().Truncate(time.Second),
		Sign: sha256.Sum256(r.pair.Sign), Encrypt: sha256.Sum256(r.pair.Encrypt), Device: sha256.Sum256(r.certificate)}
	for _, f := range change {
		f(v)
	}
	return say(oid.ContentReceipt, v, r.pair.Sign, r.pair.Chain, r.sign)
}

// finish is the reader after its receipt was taken.
func (r *reader) finish() {
	r.present, r.was = r.sign, r.pair
	r.sign, r.encrypt, r.transport = nil, nil, nil
}

func (p *place) open(r *reader) *stage2.Session {
	p.t.Helper()
	s, err := p.Open(p.t.Context(), operator, stage2.Request{Number: r.number, City: city, Ticket: r.ticket, Renew: r.present != nil})
	p.must(err)
	return s
}

// enrol goes through the first two steps.
func (p *place) enrol(r *reader) (*stage2.Session, *stage2.Grant) {
	p.t.Helper()
	s := p.open(r)
	g, err := p.Enrol(p.t.Context(), operator, s.ID, r.enrolment(s))
	p.must(err)
	r.install(g)
	return s, g
}

// initialise goes through all of them.
func (p *place) initialise(r *reader) {
	p.t.Helper()
	s, _ := p.enrol(r)
	_, err := p.Receipt(p.t.Context(), operator, s.ID, r.receipt(s))
	p.must(err)
	r.finish()
}

func (p *place) reader(number string) *readers.Reader {
	p.t.Helper()
	rd, err := p.register.Reader(p.t.Context(), number)
	p.must(err)
	return rd
}

// status is that of a certificate here.
func (p *place) status(der []byte) (s *store.Status) {
	p.t.Helper()
	serial := testpki.Must(store.SerialFrom(testpki.Must(x509.ParseCertificate(der)).SerialNumber))
	p.must(p.book.View(p.t.Context(), func(tx *store.Tx) (err error) {
		s, err = store.Statuses.Get(tx, store.SerialKey(city, serial))
		return err
	}))
	return s
}

// both is the state of both certificates of a pair.
func (p *place) both(g *stage2.Grant, want store.State) {
	p.t.Helper()
	for _, der := range [][]byte{g.Sign, g.Encrypt} {
		if s := p.status(der); s.State != want {
			p.t.Errorf("a certificate of reader %s is %s, and should be %s", g.Number, s.State, want)
		}
	}
}

// refused holds an error against an outcome, and finds it in the journal.
func (p *place) refused(what string, err error, want stage2.Outcome) {
	p.t.Helper()
	r, ok := errors.AsType[*stage2.Refusal](err)
	if !errors.Is(err, want) || !ok || r.Remedy == "" || r.Detail == "" {
		p.t.Errorf("%s: %v, and should be %s", what, err, want)
		return
	}
	events := testpki.Must(p.book.Events(p.t.Context(), uint64(testpki.Must(p.book.Tree(p.t.Context())).Size)-1, 1))
	if len(events) != 1 || events[0].Kind != stage2.KindRefused || !bytes.Contains([]byte(events[0].Detail), []byte(want)) {
		p.t.Errorf("%s: the journal ends with %+v", what, events)
	}
}

// device names a reader's device certificate.
func device(rd *readers.Reader) ca.Ref { return ca.Ref{CA: rd.DeviceCA, Serial: rd.DeviceSerial} }

// spoilt is a message whose signature is not what it was.
func spoilt(message []byte) []byte {
	b := bytes.Clone(message)
	b[len(b)-1] ^= 1
	return b
}
