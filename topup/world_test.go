package topup_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/topup"
	"hufu/verify"
)

const home, away = "330100", "330200"

// canary is what no file, event or error may ever hold.
var canary = []byte("load key 3F9A17C2 of this very card")

// soak multiplies the number of trials.
func soak() int {
	if n, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && n > 0 {
		return n
	}
	return 1
}

// world is two cities with their readers, one book and one service.
type world struct {
	*testpki.World
	dir     string
	book    *store.Book
	service *topup.Service
	signer  map[string]*testpki.Leaf
	token   *testpki.Signer // of the home city
	city    policy.Caller   // the home city's back end

	mu    sync.Mutex
	clock time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		World: testpki.Must(testpki.New(testpki.Config{})), dir: t.TempDir(), clock: time.Now(), signer: map[string]*testpki.Leaf{},
		city: backEnd(home),
	}
	w.open(t, store.Create)
	w.update(t, func(tx *store.Tx) error {
		for _, ca := range w.CAs() {
			r := ca.Record
			r.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: r.ID})
			if err := store.CAs.Insert(tx, &r); err != nil {
				return err
			}
		}
		return nil
	})
	for _, city := range []string{home, away} {
		w.signer[city] = testpki.Must(w.CitySigner(city))
		w.record(t, city, w.signer[city])
	}
	w.token = &testpki.Signer{Key: w.signer[home].Key}
	t.Cleanup(func() { w.close(t) })
	return w
}

// backEnd is a city's machine.
func backEnd(city string) policy.Caller {
	return policy.Caller{Name: "top-up of " + city, Roles: []policy.Role{policy.TopUp}, City: city}
}

// open opens the book, or creates it, and puts a service on it.
func (w *world) open(t testing.TB, how func(context.Context, store.Config) (*store.Book, error)) {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(w.dir, "book"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.book, err = how(context.Background(), store.Config{Engine: engine, Tables: topup.Tables})
	if err != nil {
		t.Fatal(err)
	}
	verifier := &verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Status: verify.FromBook(w.book), Now: w.now}
	w.service, err = topup.New(topup.Config{
		Book: w.book, Verifier: verifier, Now: w.now,
		Signer: func(_ context.Context, city string) (topup.Signer, error) {
			leaf := w.signer[city]
			if leaf == nil {
				return topup.Signer{}, errors.New("no such city")
			}
			s := topup.Signer{Certificate: leaf.Certificate, Chain: leaf.Chain[:1], Key: leaf.Key}
			if city == home {
				s.Key = w.token
			}
			return s, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// close checks the whole book, and that nothing of any data script is in it.
func (w *world) close(t testing.TB) {
	t.Helper()
	if err := w.book.Check(context.Background(), nil); err != nil {
		t.Errorf("checking the book: %v", err)
	}
	if err := w.book.Close(); err != nil {
		t.Error(err)
	}
	files, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(w.dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if found := leaks(b); found != "" {
			t.Errorf("%s holds the data script's plaintext, as %s", f.Name(), found)
		}
	}
}

func (w *world) reopen(t testing.TB) {
	t.Helper()
	w.close(t)
	w.open(t, store.Open)
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) update(t testing.TB, f func(tx *store.Tx) error) {
	t.Helper()
	if err := w.book.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// record writes a certificate into the book as the spine would.
func (w *world) record(t testing.TB, ca string, leaf *testpki.Leaf) {
	t.Helper()
	w.update(t, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: store.KindIntent, CA: ca, Serial: leaf.Serial})
		r := leaf.Record
		r.CA, r.Serial, r.DER = ca, leaf.Serial, leaf.Certificate
		r.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: ca, Serial: leaf.Serial})
		if err := store.Certificates.Insert(tx, &r); err != nil {
			return err
		}
		return store.Statuses.Put(tx, &store.Status{CA: ca, Serial: leaf.Serial, State: store.Good, Time: tx.Now(), NotAfter: r.NotAfter, Seq: r.Seq})
	})
}

// mark changes the status of a certificate as the spine would.
func (w *world) mark(t testing.TB, ca string, leaf *testpki.Leaf, state store.State) {
	t.Helper()
	kind := map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}[state]
	w.update(t, func(tx *store.Tx) error {
		s, err := store.Statuses.Get(tx, store.SerialKey(ca, leaf.Serial))
		if err != nil {
			return err
		}
		s.State, s.Time, s.Seq = state, tx.Now(), tx.Append(store.Event{Kind: kind, CA: ca, Serial: leaf.Serial})
		return store.Statuses.Put(tx, s)
	})
}

func (w *world) reader(t testing.TB, city, number string) *testpki.Reader {
	t.Helper()
	r := testpki.Must(w.Reader(city, number))
	w.record(t, city, r.Sign)
	w.record(t, city, r.Encrypt)
	return r
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// request is a request of a reader for a card of the home city.
func (w *world) request(r *testpki.Reader, card string, counter uint32) *verify.LoadRequest {
	return &verify.LoadRequest{
		Transaction: hex.EncodeToString(random(16)), CardCity: home, ReaderCity: r.City, Reader: r.Sign.X509().DNSNames[0],
		Card: card, Counter: counter, Random: random(4), Amount: 5000, Balance: 10000, Type: 2, KeyIndex: 1, KeyVersion: 1,
		MAC1: random(4), Terminal: random(6), Expiry: w.now().Add(5 * time.Minute), EncryptionHash: sha256.Sum256(r.Encrypt.Certificate),
	}
}

func (w *world) sign(r *testpki.Reader, kind []int, content interface{ Marshal() ([]byte, error) }) []byte {
	return testpki.Must(cms.Sign(kind, testpki.Must(content.Marshal()), r.Sign.Certificate, [][]byte{r.Sign.Chain[0], r.Encrypt.Certificate}, r.Sign.Key, w.now()))
}

func (w *world) signed(r *testpki.Reader, req *verify.LoadRequest) []byte {
	return w.sign(r, oid.ContentLoadRequest, req)
}

// authorise asks for permission with a data script that holds the canary.
func (w *world) authorise(request []byte, mac1 bool) ([]byte, error) {
	permission, _, err := w.service.Authorise(context.Background(), w.city, topup.Authorisation{
		Request: request, CommandScript: []byte("select; credit; tac"), DataScript: canary, MAC1Accepted: mac1,
	})
	return permission, err
}

// execute opens a permission as the reader does.
func (w *world) execute(t testing.TB, r *testpki.Reader, permission, request []byte) *verify.SealedScript {
	t.Helper()
	v := &verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Status: verify.FromBook(w.book), Now: w.now}
	p, _, err := v.LoadPermission(context.Background(), permission, request)
	if err != nil {
		t.Fatalf("the reader refuses the permission: %v", err)
	}
	key := testpki.Must(ecdhKey(r.Encrypt.Key))
	plain, err := (&cms.Opener{Certificate: r.Encrypt.Certificate, ECDH: key}).Open(p.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	script := testpki.Must(verify.ParseSealedScript(plain))
	if err := script.Check(p); err != nil {
		t.Fatal(err)
	}
	return script
}

// result is a reader's result for a request that was permitted.
func result(req *verify.LoadRequest, permission []byte, outcome verify.Outcome) *verify.LoadResult {
	r := &verify.LoadResult{
		Transaction: req.Transaction, City: req.CardCity, Reader: req.Reader, Card: req.Card, Counter: req.Counter, Outcome: outcome,
		Balance: req.Balance, ScriptResult: []byte{0x90, 0}, PermissionHash: sha256.Sum256(permission),
	}
	if outcome == verify.Credited {
		r.TAC, r.Balance = []byte{0xFB, 0xD1, 0x23, 0x32}, req.Balance+req.Amount
	}
	return r
}

func (w *world) confirm(r *testpki.Reader, res *verify.LoadResult, tac bool) (*topup.Transaction, error) {
	return w.service.Confirm(context.Background(), w.city, topup.Confirmation{Result: w.sign(r, oid.ContentLoadResult, res), TACAccepted: tac})
}

func (w *world) state(t testing.TB, id string) topup.State {
	t.Helper()
	tr, err := w.service.Transaction(context.Background(), w.city, id)
	if err != nil {
		t.Fatal(err)
	}
	return tr.State
}

// events returns the details of all events of a kind.
func (w *world) events(t testing.TB, kind string) (list []map[string]any) {
	t.Helper()
	for after := uint64(0); ; {
		page, err := w.book.Events(context.Background(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return list
		}
		for _, e := range page {
			after = e.Seq
			if e.Kind != kind {
				continue
			}
			d := map[string]any{"actor": e.Actor}
			if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
				t.Fatalf("detail %q: %v", e.Detail, err)
			}
			list = append(list, d)
		}
	}
}

// refused checks the kind of an error, that it is a refusal, that it holds no
// secret, and that it was journalled.
func refused[T error](t *testing.T, w *world, what string, err error) {
	t.Helper()
	e, ok := errors.AsType[T](err)
	if !ok {
		t.Errorf("%s: %T %v, want %T", what, err, err, e)
		return
	}
	if leaks([]byte(err.Error())) != "" {
		t.Errorf("%s: the error tells the script: %v", what, err)
	}
	all := w.events(t, store.KindRefused)
	if len(all) == 0 || !strings.Contains(err.Error(), all[len(all)-1]["detail"].(string)) {
		t.Errorf("%s: not journalled: %v", what, err)
	}
}
