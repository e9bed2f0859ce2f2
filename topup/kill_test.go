package topup_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"hufu/internal/testpki"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/topup"
	"hufu/verify"
)

// errand is what a child process is to do.
type errand struct {
	Anchors     [][]byte
	Certificate []byte
	Chain       [][]byte
	Key         []byte // PKCS#8
	Requests    [][]byte
}

// TestMain is also the child process that TestKilled kills.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "authorise" {
		if err := child(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child authorises the requests one after another and says which permission each
// one got.
func child(dir string) error {
	ctx := context.Background()
	var e errand
	b, err := os.ReadFile(filepath.Join(dir, "errand"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(e.Key)
	if err != nil {
		return err
	}
	engine, err := bolt.Open(filepath.Join(dir, "book"), bolt.Options{})
	if err != nil {
		return err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine})
	if err != nil {
		return err
	}
	service, err := topup.New(topup.Config{
		Book: book, Verifier: &verify.Verifier{Anchors: e.Anchors, Domain: testpki.Domain, Status: verify.FromBook(book)},
		Signer: func(context.Context, string) (topup.Signer, error) {
			return topup.Signer{Certificate: e.Certificate, Chain: e.Chain, Key: key.(crypto.Signer)}, nil
		},
	})
	if err != nil {
		return err
	}
	w := &world{service: service, city: backEnd(home)}
	for i, request := range e.Requests {
		permission, err := w.authorise(request, true)
		if err != nil {
			return err
		}
		fmt.Println(i, store.Sum(permission))
	}
	return book.Close()
}

// A node is killed while it authorises. Whatever it had answered is answered again,
// octet for octet; whatever it had not is finished; nothing is authorised twice.
func TestKilled(t *testing.T) {
	const n = 150
	trials := 2 * soak()
	acknowledged := 0
	for range trials {
		w := newWorld(t)
		r := w.reader(t, home, "1001")
		e := errand{Anchors: w.Anchors(), Certificate: w.signer[home].Certificate, Chain: w.signer[home].Chain[:1],
			Key: testpki.Must(x509.MarshalPKCS8PrivateKey(w.signer[home].Key))}
		for i := range n {
			e.Requests = append(e.Requests, w.signed(r, w.request(r, "9901000000012345", uint32(i))))
		}
		if err := os.WriteFile(filepath.Join(w.dir, "errand"), testpki.Must(json.Marshal(e)), 0o600); err != nil {
			t.Fatal(err)
		}
		w.close(t)
		answered := killed(t, w.dir, mathrand.IntN(n))
		w.open(t, store.Open)
		for i, request := range e.Requests {
			permission, err := w.authorise(request, true)
			if err != nil {
				t.Fatal(err)
			}
			if want, ok := answered[i]; ok && store.Sum(permission).String() != want {
				t.Errorf("request %d was answered by %s and is now by %s", i, want, store.Sum(permission))
			}
		}
		if got := len(w.events(t, store.KindTopUpAuthorised)); got != n {
			t.Errorf("%d authorisations of %d requests", got, n)
		}
		acknowledged += len(answered)
	}
	t.Logf("%d trials, %d acknowledged before the kill", trials, acknowledged)
}

// killed runs the child in dir, kills it after some answers, and returns all that
// it answered.
func killed(t *testing.T, dir string, after int) map[int]string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "authorise", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answered := map[int]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var i int
		var hash string
		// The last line may be cut: then it was not answered.
		if n, _ := fmt.Sscan(lines.Text(), &i, &hash); n == 2 && len(hash) == 64 {
			answered[i] = hash
		}
		if len(answered) == after {
			cmd.Process.Kill()
		}
	}
	cmd.Wait() // it was killed
	return answered
}
