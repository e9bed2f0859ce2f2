package escrow_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"hufu/ca"
	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/issuance/escrow"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/verify"
)

// The test here runs this test program again as a node, the victim, and kills it at a
// random moment. The victim says on its standard output what was acknowledged.

const victimEnv = "HUFU_ESCROW_VICTIM"

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

// soak multiplies the counts of counted tests.
func soak() int {
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		return n
	}
	return 1
}

// task is what the victim needs to know.
type task struct {
	CA     store.CA
	Key    []byte // PKCS #8 of the CA
	Module string
	Round  int
}

// ack is one thing that was acknowledged.
type ack struct {
	Step   string
	Reader string
	Hash   store.Hash // of the key's public half, or of its private one
	Serial store.Serial
}

// victim works until it is killed.
func victim(ctx context.Context, dir string) error {
	var t task
	b, err := os.ReadFile(filepath.Join(dir, "task.json"))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(t.Key)
	if err != nil {
		return err
	}
	issuer, err := issuance.NewIssuer(issuance.Config{CA: t.CA, Key: key.(crypto.Signer), Domain: testpki.Domain, BaseURL: "http://pki." + testpki.Domain})
	if err != nil {
		return err
	}
	token, err := hsm.Open(ctx, hsm.Config{Module: t.Module, URI: "pkcs11:token=kmc", PIN: func() ([]byte, error) { return []byte("1234"), nil }})
	if err != nil {
		return err
	}
	engine, err := bolt.Open(filepath.Join(dir, "book"), bolt.Options{})
	if err != nil {
		return err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine, Tables: tables})
	if err != nil {
		return err
	}
	spine, err := ca.New(ca.Config{Book: book, Issuers: []*issuance.Issuer{issuer}, Node: "victim"})
	if err != nil {
		return err
	}
	centre, err := escrow.New(ctx, escrow.Config{Book: book, Token: token, Wrapping: label, Spare: 40, Verifier: &verify.Verifier{}})
	if err != nil {
		return err
	}
	w := &world{Escrow: centre, t: nobody{}, book: book, spine: spine}
	out := json.NewEncoder(os.Stdout) // one write of one line
	ends := make(chan error)
	go func() { ends <- centre.Run(ctx) }()
	lines := make(chan ack)
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				if err := w.work(ctx, fmt.Sprintf("%d%d%04d", t.Round+1, i, n), n, lines); err != nil {
					ends <- err
					return
				}
			}
		}()
	}
	for {
		select {
		case err := <-ends:
			return err
		case a := <-lines:
			if err := out.Encode(a); err != nil {
				return err
			}
		}
	}
}

// nobody is the testing.TB of a process that is not a test.
type nobody struct{ testing.TB }

func (nobody) Helper() {}

func (nobody) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// work takes one reader as far as it goes and says how far that was.
func (w *world) work(ctx context.Context, number string, n int, lines chan<- ack) error {
	r := &reader{number: number, transport: newKey(w.t)}
	var err error
	if r.spki, err = w.Claim(ctx, number, city); err != nil {
		return err
	}
	lines <- ack{Step: "claimed", Reader: number, Hash: store.Sum(r.spki)}
	if n%4 == 0 {
		return nil
	}
	certs, err := w.spine.Issue(ctx, w.order(r))
	if err != nil {
		return err
	}
	lines <- ack{Step: "in-use", Reader: number, Hash: store.Sum(r.spki), Serial: certs[1].Serial}
	if n%4 == 1 {
		err = w.book.Update(ctx, func(tx *store.Tx) error {
			return w.spine.Revoke(tx, ca.Ref{CA: city, Serial: certs[1].Serial}, 4, time.Time{}, "tester")
		})
		return err
	}
	envelope, err := w.Deliver(ctx, r.spki, spkiOf(w.t, r.transport.Public()))
	if err != nil {
		return err
	}
	o := &cms.Opener{ECDH: testpki.Must(r.transport.ECDH())}
	private, err := o.OpenKey(envelope, r.spki)
	if err != nil {
		return err
	}
	lines <- ack{Step: "delivered", Reader: number, Hash: sha256.Sum256(private), Serial: certs[1].Serial}
	return nil
}

// TestKill: a node is killed again and again while it fills the pool, claims, certifies
// and delivers. What it acknowledged stands, no key is two readers', none is lost, and the
// same commands go on where it stopped.
func TestKill(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Dir(w.path)
	issuer := w.pki.CA(city)
	conf := task{CA: issuer.Record, Key: testpki.Must(x509.MarshalPKCS8PrivateKey(issuer.Signer.Key)), Module: w.home.Module()}
	var all []ack
	for round := range 3 * soak() {
		if err := w.book.Close(); err != nil {
			t.Fatal(err)
		}
		conf.Round = round
		if err := os.WriteFile(filepath.Join(dir, "task.json"), testpki.Must(json.Marshal(conf)), 0o600); err != nil {
			t.Fatal(err)
		}
		acks := killed(t, dir, 20+rand.IntN(120))
		all = append(all, acks...)
		engine := testpki.Must(bolt.Open(w.path, bolt.Options{}))
		w.book = testpki.Must(store.Open(t.Context(), store.Config{Engine: engine, Now: w.now, Tables: tables}))
		w.up()
		w.check()
		w.stands(all)
	}
	// The next run does what is left to do.
	w.run()
	w.full()
	for _, a := range all {
		if a.Step == "claimed" && w.stateOf(a) == escrow.Claimed {
			if spki := testpki.Must(w.Claim(t.Context(), a.Reader, city)); store.Sum(spki) != a.Hash {
				t.Errorf("reader %s gets another key than before the kill", a.Reader)
			}
		}
	}
	revoked := 0
	for _, e := range w.events() {
		if e.Kind == store.KindRevoked {
			revoked++
		}
	}
	w.until("the revoked to be history", func() bool { return w.counts().History >= uint64(revoked) })
	w.check()
	t.Logf("kill while keeping keys: %d trials, %d acknowledged steps, %d revoked, none lost: %+v", 3*soak(), len(all), revoked, w.counts())
}

// killed runs a victim until it has acknowledged n steps, kills it, and returns what it
// acknowledged.
func killed(t *testing.T, dir string, n int) (acks []ack) {
	t.Helper()
	cmd := exec.Command(testpki.Must(os.Executable()))
	cmd.Env = append(os.Environ(), victimEnv+"="+dir)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out := testpki.Must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var a ack
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			break // the last line, cut by the kill
		}
		if acks = append(acks, a); len(acks) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if len(acks) < n {
		t.Fatalf("the victim ended by itself after %d steps: %s", len(acks), &problems)
	}
	return acks
}

func (w *world) stateOf(a ack) escrow.State {
	for _, k := range w.all() {
		if k.Hash == a.Hash {
			return k.State
		}
	}
	return 0
}

// stands checks that all that was acknowledged is so.
func (w *world) stands(all []ack) {
	w.t.Helper()
	byHash, bySerial := map[store.Hash]*escrow.Key{}, map[store.Serial]*escrow.Key{}
	for _, k := range w.all() {
		byHash[k.Hash], bySerial[k.Serial] = k, k
	}
	for _, a := range all {
		k := byHash[a.Hash]
		switch a.Step {
		case "claimed":
			if k == nil || k.State < escrow.Claimed || k.Reader != a.Reader {
				w.t.Errorf("%+v was acknowledged, and the book has %+v", a, k)
			}
		case "in-use":
			if k == nil || k.State < escrow.InUse || k.Serial != a.Serial {
				w.t.Errorf("%+v was acknowledged, and the book has %+v", a, k)
			}
		case "delivered":
			k = bySerial[a.Serial]
			if k == nil {
				w.t.Errorf("%+v was acknowledged, and the book has no such key", a)
				continue
			}
			r := &reader{number: a.Reader, spki: k.SPKI, transport: newKey(w.t)}
			r.open(w, testpki.Must(w.Deliver(context.Background(), k.SPKI, spkiOf(w.t, r.transport.Public()))))
			if sha256.Sum256(r.key) != a.Hash {
				w.t.Errorf("reader %s gets another private key than before the kill", a.Reader)
			}
		}
	}
}
