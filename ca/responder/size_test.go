package responder_test

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"hufu/ca/responder"
	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/store"
	"hufu/store/bolt"
)

// crowd is a book with many certificates. Their octets are not real, since nobody who
// tells statuses reads them.
type crowd struct {
	path    string
	serials []store.Serial // some of them, from all over the book
}

func newCrowd(t testing.TB, w *world, n int) *crowd {
	t.Helper()
	c := &crowd{path: filepath.Join(t.TempDir(), "crowd")}
	engine := testpki.Must(bolt.Open(c.path, bolt.Options{}))
	book := testpki.Must(store.Create(ctx, store.Config{Engine: engine}))
	update := func(f func(tx *store.Tx) error) {
		t.Helper()
		if err := book.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	update(w.addCAs)
	der := make([]byte, 512)
	end := time.Now().Add(365 * 24 * time.Hour)
	const group = 5000
	for at := 0; at < n; at += group {
		update(func(tx *store.Tx) error {
			for i := at; i < min(at+group, n); i++ {
				serial := testpki.Must(issuance.NewSerial(rand.Reader))
				rand.Read(der[:32])
				seq := tx.Append(store.Event{Kind: store.KindIssued, CA: "services", Serial: serial})
				if err := store.Certificates.Insert(tx, &store.Certificate{CA: "services", Serial: serial, Profile: "server", DER: bytes.Clone(der),
					SPKI: store.Sum(der), NotAfter: end, Seq: seq}); err != nil {
					return err
				}
				if err := store.Statuses.Insert(tx, &store.Status{CA: "services", Serial: serial, State: store.Good, Time: tx.Now(), NotAfter: end, Seq: seq}); err != nil {
					return err
				}
				if i%max(1, n/keptCount) == 0 {
					c.serials = append(c.serials, serial)
				}
			}
			return nil
		})
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// serve opens the book and has a responder answer from it, in the place of w's own.
func (c *crowd) serve(t testing.TB, w *world) {
	t.Helper()
	engine := testpki.Must(bolt.Open(c.path, bolt.Options{MustExist: true}))
	book := testpki.Must(store.Open(ctx, store.Config{Engine: engine}))
	t.Cleanup(func() { book.Close() })
	w.responder = responder.New(responder.Config{Book: book, Renew: w.renew, Changed: engine.Changed})
	w.run()
	server := httptest.NewServer(w.responder.Handler())
	t.Cleanup(server.Close)
	w.url = server.URL
}

const keptCount = 8192

// TestStart measures the time from the opening of a book with many certificates to the
// first answer: 20,000 of them, or a million where HUFU_SOAK is set.
func TestStart(t *testing.T) {
	n := 20_000
	if os.Getenv("HUFU_SOAK") != "" {
		n = 1_000_000
	}
	w := newWorld(t, nil)
	c := newCrowd(t, w, n)
	began := time.Now()
	c.serve(t, w)
	if s := w.status(c.serials[len(c.serials)/2]); s.Status != ocsp.Good {
		t.Errorf("%v", s.Status)
	}
	took := time.Since(began)
	info := testpki.Must(os.Stat(c.path))
	t.Logf("%d certificates, %d MB: the first answer came after %v", n, info.Size()>>20, took.Round(100*time.Microsecond))
	if took > 2*time.Second {
		t.Errorf("a responder with %d certificates answers after %v; 2 s are promised", n, took)
	}
}

// TestMemory measures what a kept answer takes, all told.
func TestMemory(t *testing.T) {
	const most = 600 // the package comment says 0.5 KB
	w := newWorld(t, nil)
	c := newCrowd(t, w, keptCount)
	c.serve(t, w)
	handler := w.responder.Handler()
	var requests [][]byte
	for _, serial := range c.serials {
		requests = append(requests, testpki.Must(ocsp.MakeRequest(nil, w.id(serial))))
	}
	ask := func(der []byte) {
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, httptest.NewRequest(http.MethodPost, "/ocsp/services", bytes.NewReader(der)))
		if rw.Code != http.StatusOK || rw.Body.Len() < 100 {
			t.Errorf("%d, %d octets", rw.Code, rw.Body.Len())
		}
	}
	ask(requests[0])
	before := heap()
	for _, der := range requests {
		ask(der)
	}
	after := heap()
	kept := w.responder.Kept()
	each := (after - before) / int64(kept)
	t.Logf("%d answers take %d octets of memory each", kept, each)
	if kept < keptCount || each > most {
		t.Errorf("%d answers are kept, of %d octets each; at most %d are stated", kept, each, most)
	}
	runtime.KeepAlive(requests)
}

// heap is how much memory is in use once what nobody needs is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
