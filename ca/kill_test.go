package ca_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/store"
	"hufu/store/bolt"
)

// The tests here run this test program again as a node, the victim, and kill it
// at a random moment. The victim says on its standard output what it begins
// (try) and what was acknowledged (ack), and it writes the hash of everything
// that it signs into a file before the signature leaves the key.

const victimEnv = "HUFU_CA_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		if err := victim(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Files in the folder that victim and killer share.
const (
	bookFile   = "book"
	signedFile = "signed"
	taskFile   = "task.json"
)

// task tells the victim what to do.
type task struct {
	CA      store.CA
	Key     []byte         // PKCS#8
	Serials []store.Serial // to be revoked, held and resumed; none: issue
}

// scribe is a key that writes down the hash of everything it signs.
type scribe struct {
	crypto.Signer
	log *os.File
}

func (s *scribe) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	if err == nil {
		// One write of one line: it is in the file whatever happens to the process.
		_, err = fmt.Fprintf(s.log, "%x\n", digest)
	}
	return signature, err
}

const (
	victimWorkers = 8
	victimName    = "victim"
)

// victim works until it is killed.
func victim(ctx context.Context, dir string) error {
	var t task
	b, err := os.ReadFile(filepath.Join(dir, taskFile))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, signedFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(t.Key)
	if err != nil {
		return err
	}
	issuer, err := issuance.NewIssuer(issuance.Config{CA: t.CA, Key: &scribe{key.(crypto.Signer), log}, Domain: testpki.Domain, BaseURL: "http://pki." + testpki.Domain})
	if err != nil {
		return err
	}
	engine, err := bolt.Open(filepath.Join(dir, bookFile), bolt.Options{})
	if err != nil {
		return err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine, Tables: ca.Tables})
	if err != nil {
		return err
	}
	a, err := ca.New(ca.Config{Book: book, Issuers: []*issuance.Issuer{issuer}, Node: victimName})
	if err != nil {
		return err
	}
	ends := make(chan error)
	for i := range victimWorkers {
		if len(t.Serials) == 0 {
			go func() { ends <- issueForEver(ctx, a) }()
		} else {
			n := len(t.Serials) / victimWorkers
			go func() { ends <- changeForEver(ctx, book, a, t.CA.ID, t.Serials[i*n:(i+1)*n]) }()
		}
	}
	return <-ends
}

// serverOrder is the order that a victim asks for, as often as it likes.
func serverOrder(key string, csrs ...[]byte) ca.Order {
	o := ca.Order{Requester: victimName, IdempotencyKey: key}
	for i, csr := range csrs {
		r := server(fmt.Sprintf("h%d.%s.example", i, key))
		r.CSR = csr
		o.Requests = append(o.Requests, r)
	}
	return o
}

func issueForEver(ctx context.Context, a *ca.Authority) error {
	for n := 0; ; n++ {
		key := fmt.Sprintf("k%x", rand.Uint64())
		csrs := [][]byte{testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))}
		if n%4 == 0 {
			csrs = append(csrs, testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))))
		}
		hexed := make([]string, len(csrs))
		for i := range csrs {
			hexed[i] = hex.EncodeToString(csrs[i])
		}
		fmt.Printf("try %s %s\n", key, strings.Join(hexed, " "))
		certs, err := a.Issue(ctx, serverOrder(key, csrs...))
		if err != nil {
			return err
		}
		serials := make([]string, len(certs))
		for i := range certs {
			serials[i] = certs[i].Serial.String()
		}
		fmt.Printf("ack %s %s\n", key, strings.Join(serials, " "))
	}
}

func changeForEver(ctx context.Context, book *store.Book, a *ca.Authority, caID string, serials []store.Serial) error {
	for _, s := range serials {
		r := ca.Ref{CA: caID, Serial: s}
		for _, to := range []store.State{store.Held, store.Good, store.Revoked} {
			fmt.Printf("try %s %d\n", s, to)
			err := book.Update(ctx, func(tx *store.Tx) error {
				switch to {
				case store.Held:
					return a.Suspend(tx, r, victimName)
				case store.Good:
					return a.Resume(tx, r, victimName)
				}
				return a.Revoke(tx, r, 4, time.Time{}, victimName)
			})
			if err != nil {
				return err
			}
			fmt.Printf("ack %s %d\n", s, to)
		}
	}
	select {} // all is done: wait for the end
}

// tally is what the counted tests print; the last three have to be 0.
type tally struct{ trials, acknowledged, recovered, lost, double, unrecorded int }

func (c *tally) report(t *testing.T, what string) {
	t.Helper()
	fmt.Printf("kill while %s: trials %d, acknowledged %d, recovered %d, lost %d, double %d, unrecorded %d\n",
		what, c.trials, c.acknowledged, c.recovered, c.lost, c.double, c.unrecorded)
	if c.lost+c.double+c.unrecorded > 0 || c.acknowledged == 0 {
		t.Errorf("kill while %s: %+v", what, *c)
	}
}

// stage is the folder of a few trials: a book, a task, and what was signed.
type stage struct {
	t    *testing.T
	dir  string
	pki  *testpki.World
	task task
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, dir: t.TempDir(), pki: testpki.Must(testpki.New(testpki.Config{}))}
	services := s.pki.CA("services")
	s.task = task{CA: services.Record, Key: testpki.Must(x509.MarshalPKCS8PrivateKey(services.Signer.Key))}
	book := testpki.Must(store.Create(t.Context(), store.Config{Engine: testpki.Must(bolt.Open(filepath.Join(s.dir, bookFile), bolt.Options{})), Tables: ca.Tables}))
	w := &world{t: t, pki: s.pki, book: book, clock: &clock{}}
	w.addCAs()
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens the book after the victim's death.
func (s *stage) open() *world {
	s.t.Helper()
	engine := &counter{Engine: testpki.Must(bolt.Open(filepath.Join(s.dir, bookFile), bolt.Options{}))}
	w := &world{t: s.t, pki: s.pki, engine: engine, clock: &clock{}}
	w.book = testpki.Must(store.Open(s.t.Context(), store.Config{Engine: engine, Tables: ca.Tables}))
	w.Authority = w.node(victimName)
	return w
}

// killOnce runs the victim until a random moment and returns what it said.
func (s *stage) killOnce() (said [][]string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, taskFile), testpki.Must(json.Marshal(s.task)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(testpki.Must(os.Executable()))
	cmd.Env = append(os.Environ(), victimEnv+"="+s.dir)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out := testpki.Must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	// A number of words into its work, and a moment more.
	words, moment := rand.IntN(60), time.Duration(rand.IntN(5000))*time.Microsecond
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		said = append(said, strings.Fields(lines.Text()))
		if len(said) == words+1 {
			time.AfterFunc(moment, func() { cmd.Process.Kill() })
		}
	}
	err := cmd.Wait()
	if cmd.ProcessState.Exited() {
		s.t.Fatalf("the victim ended by itself: %v: %s", err, complaint.String())
	}
	return said
}

func TestKilledWhileIssuing(t *testing.T) {
	var c tally
	var s *stage
	for c.trials < 10*soak() {
		if c.trials%20 == 0 {
			s = newStage(t)
		}
		c.trials++
		before := s.head()
		said := s.killOnce()
		w := s.open()
		c.lookAtIssued(w, s, said, before)
		w.check()
		if err := w.book.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.report(t, "issuing")
}

func (s *stage) head() uint64 {
	w := s.open()
	defer w.book.Close()
	return w.head()
}

// lookAtIssued compares what the victim said and signed with what is in the book.
func (c *tally) lookAtIssued(w *world, s *stage, said [][]string, before uint64) {
	t := w.t
	intended := map[string]bool{}
	for _, e := range testpki.Must(allEvents(t.Context(), w.book)) {
		var d struct{ TBS string }
		if e.Kind == store.KindIntent && json.Unmarshal([]byte(e.Detail), &d) == nil {
			intended[d.TBS] = true
		}
	}
	signed := testpki.Must(os.ReadFile(filepath.Join(s.dir, signedFile)))
	for _, line := range strings.Fields(string(signed)) {
		if !intended[line] {
			c.unrecorded++
		}
	}
	c.recovered += testpki.Must(w.Recover(t.Context()))
	if open := w.intents(); len(open) > 0 {
		t.Errorf("%d intents are open after recovery", len(open))
	}
	orders, acked := map[string]ca.Order{}, map[string][]string{}
	for _, words := range said {
		if words[0] == "ack" {
			acked[words[1]] = words[2:]
			continue
		}
		var csrs [][]byte
		for _, h := range words[2:] {
			csrs = append(csrs, testpki.Must(hex.DecodeString(h)))
		}
		orders[words[1]] = serverOrder(words[1], csrs...)
	}
	for key, o := range orders {
		serials, answered := acked[key]
		c.acknowledged += len(serials)
		for _, serial := range serials {
			c.lost += w.missing(ca.Ref{CA: s.task.CA.ID, Serial: testpki.Must(store.ParseSerial(serial))})
		}
		// Asked again, an order that was answered gets the same answer, and one
		// that was cut short is granted.
		for i, cert := range w.issue(o) {
			if answered && cert.Serial.String() != serials[i] {
				c.double++
			}
		}
	}
	seen := map[store.Hash]bool{}
	w.view(func(tx *store.Tx) error {
		for cert, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if seen[cert.SPKI] {
				c.double++ // one key, one order, one certificate
			}
			seen[cert.SPKI] = true
		}
		return nil
	})
}

// missing is 1 if a certificate that was acknowledged is not there and good.
func (w *world) missing(r ca.Ref) int {
	n := 0
	w.view(func(tx *store.Tx) error {
		cert, err := store.FindCertificate(tx, r.CA, r.Serial)
		if err != nil || len(cert.DER) == 0 {
			n = 1
			return nil
		}
		s, err := store.Statuses.Get(tx, store.SerialKey(r.CA, r.Serial))
		if err != nil || s.State != store.Good {
			n = 1
		}
		return nil
	})
	return n
}

func TestKilledWhileRevoking(t *testing.T) {
	var c tally
	for c.trials < 5*soak() {
		c.trials++
		s := newStage(t)
		s.supply(20 * victimWorkers)
		said := s.killOnce()
		w := s.open()
		c.lookAtRevoked(w, s, said)
		w.check()
		if err := w.book.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.report(t, "revoking")
}

// supply puts certificates into the book for the victim to revoke.
func (s *stage) supply(n int) {
	w := s.open()
	defer w.book.Close()
	orders := make([]ca.Order, n)
	for i := range orders {
		orders[i] = order(server("a.example"))
	}
	err := w.IssueBatch(s.t.Context(), orders, func(_ int, certs []*store.Certificate, err error) error {
		if err == nil {
			s.task.Serials = append(s.task.Serials, certs[0].Serial)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// lookAtRevoked compares what the victim said with the statuses and the journal.
func (c *tally) lookAtRevoked(w *world, s *stage, said [][]string) {
	state := map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}
	events := map[string]int{}
	for _, e := range testpki.Must(allEvents(w.t.Context(), w.book)) {
		events[e.Kind+e.Serial.String()]++
	}
	reached, begun := map[string]string{}, map[string]string{} // state by serial
	for _, words := range said {
		if words[0] == "ack" {
			c.acknowledged++
			reached[words[1]] = words[2]
		}
		begun[words[1]] = words[2]
	}
	for serial := range begun {
		st := w.status(ca.Ref{CA: s.task.CA.ID, Serial: testpki.Must(store.ParseSerial(serial))})
		is := fmt.Sprint(uint8(st.State))
		if reached[serial] == "" {
			reached[serial] = fmt.Sprint(uint8(store.Good))
		}
		// What was only begun has happened or has not.
		if is != reached[serial] && is != begun[serial] {
			c.lost++
		}
		if st.State != store.Good && events[state[st.State]+serial] == 0 {
			c.unrecorded++
		}
		for _, kind := range state {
			if events[kind+serial] > 1 {
				c.double++
			}
		}
	}
}
