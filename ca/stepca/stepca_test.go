package stepca_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca"
	"hufu/ca/stepca"
	"hufu/internal/testpki"
	"hufu/store"
	"hufu/store/bolt"
)

// world is an ACME server in front of a real spine and a real book. smallstep's
// port of http-01 is a global of the process, so there is one for all tests.
type world struct {
	t    *testing.T
	pki  *testpki.World
	book *store.Book
	url  string
	http string // port on which certbot answers http-01
	dir  string

	ahead atomic.Int64 // of the node's clock
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// newWorld takes the domains that may be certified; a name after ! may not.
func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	var domains, denied []string
	for _, n := range names {
		if not, ok := strings.CutPrefix(n, "!"); ok {
			denied = append(denied, not)
		} else {
			domains = append(domains, n)
		}
	}
	w := &world{t: t, pki: testpki.Must(testpki.New(testpki.Config{})), dir: t.TempDir(), http: freePort(t)}
	engine, err := bolt.Open(filepath.Join(w.dir, "book"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.book, err = store.Create(t.Context(), store.Config{Engine: engine, Tables: slices.Concat(ca.Tables, stepca.Tables)})
	if err != nil {
		t.Fatal(err)
	}
	err = w.book.Update(t.Context(), func(tx *store.Tx) error {
		for _, c := range w.pki.CAs() {
			record := c.Record
			record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: record.ID})
			if err := store.CAs.Insert(tx, &record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.New(ca.Config{Book: w.book, Issuers: w.pki.Issuers(), Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	var port int
	fmt.Sscan(w.http, &port)
	h, err := stepca.New(stepca.Config{Authority: authority, Book: w.book, CA: "services", Name: "localhost", Domains: domains, HTTPPort: port, Denied: denied,
		Root: w.pki.Root.Record.Certificate, Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := w.pki.Server("localhost")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	_, at, _ := net.SplitHostPort(l.Addr().String())
	w.url = "https://localhost:" + at
	t.Cleanup(func() {
		server.Close()
		if err := w.book.Check(context.Background(), nil); err != nil {
			t.Errorf("the book: %v", err)
		}
		w.book.Close()
	})
	root := testpki.PEM("CERTIFICATE", w.pki.Root.Record.Certificate)
	if err := os.WriteFile(w.path("root.pem"), root, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// certbot runs certbot with folders of its own.
func (w *world) certbot(args ...string) ([]byte, error) {
	args = append(args, "--non-interactive", "--server", w.url+"/acme/hufu/directory",
		"--config-dir", w.path("cb"), "--work-dir", w.path("cb-work"), "--logs-dir", w.path("cb-logs"))
	c := exec.CommandContext(w.t.Context(), "certbot", args...)
	c.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+w.path("root.pem"))
	return c.CombinedOutput()
}

func (w *world) certonly(name string, more ...string) ([]byte, error) {
	return w.certbot(append([]string{"certonly", "--standalone", "--agree-tos", "--register-unsafely-without-email",
		"--http-01-port", w.http, "--cert-name", name, "-d", name}, more...)...)
}

// live reads what certbot keeps for a name.
func (w *world) live(name string) *x509.Certificate {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.path("cb"), "live", name, "cert.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// row finds a certificate in the book.
func (w *world) row(c *x509.Certificate) (*store.Certificate, *store.Status) {
	w.t.Helper()
	serial, err := store.SerialFrom(c.SerialNumber)
	if err != nil {
		w.t.Fatal(err)
	}
	var cert *store.Certificate
	var status *store.Status
	err = w.book.View(w.t.Context(), func(tx *store.Tx) error {
		if cert, err = store.FindCertificate(tx, "services", serial); err != nil {
			return err
		}
		status, err = store.Statuses.Get(tx, store.SerialKey("services", serial))
		return err
	})
	if err != nil {
		w.t.Fatalf("certificate %s in the book: %v", serial, err)
	}
	return cert, status
}

// TestCertbot lets certbot get, renew and revoke a certificate by http-01, and
// looks for each step in the book.
func TestCertbot(t *testing.T) {
	w := newWorld(t)
	if out, err := w.certonly("localhost", "--key-type", "ecdsa", "--reuse-key"); err != nil {
		t.Fatalf("certbot certonly: %v\n%s", err, out)
	}
	first := w.live("localhost")
	cert, status := w.row(first)
	if cert.Profile != "server" || !slices.Equal(cert.Names, []string{"localhost"}) || cert.Requester != "acme" || status.State != store.Good {
		t.Errorf("in the book: profile %s, names %v, requester %s, %s", cert.Profile, cert.Names, cert.Requester, status.State)
	}
	if !bytes.Equal(cert.DER, first.Raw) {
		t.Error("the book's certificate is not the one that certbot has")
	}
	above, err := x509.ParseCertificate(w.pki.CA("services").Record.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(above)
	if _, err := first.Verify(x509.VerifyOptions{Roots: w.pki.Pool(), Intermediates: pool, DNSName: "localhost"}); err != nil {
		t.Errorf("the certificate does not verify: %v", err)
	}

	// A renewal with the same key stays in the line; it is a new certificate.
	if out, err := w.certonly("localhost", "--key-type", "ecdsa", "--force-renewal", "--reuse-key"); err != nil {
		t.Fatalf("renewing: %v\n%s", err, out)
	}
	second := w.live("localhost")
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the renewal gave the old certificate again")
	}
	if !bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Error("certbot did not keep its key, so nothing is shown of renewals")
	}
	if renewed, _ := w.row(second); renewed.Line != cert.Line {
		t.Errorf("the renewed certificate is of line %s, the first of %s", renewed.Line, cert.Line)
	}

	if out, err := w.certbot("revoke", "--cert-name", "localhost", "--reason", "keycompromise", "--no-delete-after-revoke"); err != nil {
		t.Fatalf("revoking: %v\n%s", err, out)
	}
	if _, status := w.row(second); status.State != store.Revoked || status.Reason != 1 {
		t.Errorf("after the revocation: %s, reason %d", status.State, status.Reason)
	}
	if _, status := w.row(first); status.State != store.Good {
		t.Errorf("the first certificate became %s too", status.State)
	}
}

// TestDomains: a name outside the configured domains is refused before any
// certificate is made.
func TestDomains(t *testing.T) {
	for _, names := range [][]string{{"card.example"}, {"localhost", "!localhost"}} {
		w := newWorld(t, names...)
		after := w.events(t)
		if out, err := w.certonly("localhost"); err == nil {
			t.Fatalf("%v: certbot got a certificate for localhost:\n%s", names, out)
		}
		for _, e := range after() {
			if e.Kind == store.KindIntent || e.Kind == store.KindIssued {
				t.Errorf("%v: event %d: %s", names, e.Seq, e.Kind)
			}
		}
	}
}

// events gives what the journal gets from now on.
func (w *world) events(t *testing.T) func() []store.Event {
	tree, err := w.book.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func() []store.Event {
		list, err := w.book.Events(t.Context(), uint64(tree.Size), 0)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
}

// TestOnlyACMEIsMounted: smallstep's own doors, by which its authority would
// renew whatever chains to the root, are not there.
func TestOnlyACMEIsMounted(t *testing.T) {
	w := newWorld(t)
	leaf, err := w.pki.Server("victim.card.example")
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pki.Pool(), Certificates: []tls.Certificate{leaf.TLS()}}}}
	for _, path := range []string{"/renew", "/1.0/renew", "/rekey", "/re-sign", "/sign", "/1.0/sign", "/revoke", "/ssh/sign", "/provisioners", "/roots", "/crl"} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			q, _ := http.NewRequest(method, w.url+path, bytes.NewReader([]byte("{}")))
			a, err := c.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if a.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %s", method, path, a.Status)
			}
		}
	}
}

// TestRubbish: nothing that is not ACME changes the book.
func TestRubbish(t *testing.T) {
	w := newWorld(t)
	after := w.events(t)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pki.Pool()}}}
	for _, path := range []string{"new-account", "new-order", "revoke-cert", "order/x/finalize", "certificate/x"} {
		for name, body := range map[string][]byte{"empty": nil, "rubbish": []byte("\x30\x82\xff"), "large": bytes.Repeat([]byte("a"), 1<<20), "json": []byte(`{"protected":"","payload":"","signature":""}`)} {
			a, err := c.Post(w.url+"/acme/hufu/"+path, "application/jose+json", bytes.NewReader(body))
			if err != nil {
				continue // the server may hang up on a body that is too large
			}
			a.Body.Close()
			if a.StatusCode < 400 {
				t.Errorf("%s with a body that is %s: %s", path, name, a.Status)
			}
		}
	}
	if list := after(); len(list) > 0 {
		t.Errorf("the journal got %d events, the first %s", len(list), list[0].Kind)
	}
}
