package ldapsync_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
	"hufu/store/bolt"
)

// nodeFolder tells the test binary that it is a node: one process that has the book, changes it and publishes, until it is killed.
const nodeFolder = "HUFU_DRILL_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(nodeFolder); dir != "" {
		if err := runNode(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// A fault is mostly waiting, so more of them than processors may go on at once, unless somebody says otherwise.
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		if err := flag.Set("test.parallel", "4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// runNode revokes one certificate after the other, and tells each one that the book has taken: serial number, epoch, event.
func runNode(dir string) error {
	file := func(name string) []byte { return testpki.Must(os.ReadFile(filepath.Join(dir, name))) }
	engine, err := bolt.Open(string(file("book")), bolt.Options{})
	if err != nil {
		return err
	}
	book, err := store.Open(context.Background(), store.Config{Engine: engine, Tables: ldapsync.Tables()})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(testpki.Must(x509.ParseCertificate(file("root"))))
	client := &tls.Config{
		RootCAs: roots, ServerName: "ldap.services.card.example",
		Certificates: []tls.Certificate{testpki.Must(tls.X509KeyPair(file("publisher"), file("publisher.key")))},
	}
	cfg := ldapsync.Config{Book: book, Key: testpki.Must(x509.ParsePKCS8PrivateKey(file("key"))).(*ecdsa.PrivateKey), Node: "n1", Lease: 3 * time.Second}
	for i, url := range strings.Fields(string(file("urls"))) {
		cfg.Directories = append(cfg.Directories, ldapsync.Directory{
			Name: []string{"north", "south"}[i], URL: url, Base: base, TLS: client, Timeout: time.Second,
		})
	}
	p, err := ldapsync.New(cfg)
	if err != nil {
		return err
	}
	go p.Run(context.Background())
	for _, line := range strings.Fields(string(file("serials"))) {
		ca, text, _ := strings.Cut(line, "/")
		serial, err := store.ParseSerial(text)
		if err != nil {
			return err
		}
		var seq uint64
		err = book.Update(context.Background(), func(tx *store.Tx) error {
			s, err := store.Statuses.Get(tx, store.SerialKey(ca, serial))
			if err != nil || s.State == store.Revoked {
				return err
			}
			s.State, s.Reason, s.Time = store.Revoked, 1, tx.Now()
			s.Seq = tx.Append(store.Event{Kind: store.KindRevoked, CA: ca, Serial: serial})
			seq = s.Seq
			return store.Statuses.Put(tx, s)
		})
		if err != nil {
			return err
		}
		if seq > 0 {
			fmt.Println(line, book.Epoch(), seq)
		}
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // so that writes meet each other at all distances
	}
	select {} // the parent kills it
}

// drillNode kills the node at random moments, while it changes the book and publishes.
func drillNode(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.publish()
	d.p.inStep(t, d.b, "north", "south")
	d.p.stop()
	certs := map[string]*store.Certificate{}
	var lines []string
	for _, c := range append(d.b.issue("330200", 240), d.certs...) {
		line := c.CA + "/" + c.Serial.String()
		certs[line] = c
		lines = append(lines, line)
	}
	if err := d.b.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"book": []byte(d.b.path), "root": pki().Root.Record.Certificate, "publisher": pki().publisher.PEM(), "publisher.key": pki().publisher.KeyPEM(),
		"key": testpki.Must(x509.MarshalPKCS8PrivateKey(pki().key)), "urls": []byte(d.north.SecureURL() + " " + d.south.SecureURL()),
		"serials": []byte(strings.Join(lines, "\n")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.watch(d.north, nil)
	d.watch(d.south, nil)
	kills := 0
	for range 5 {
		d.killNode(dir, certs)
		kills++
	}
	d.b.engine = openEngine(t, d.b.path)
	sb, err := store.Open(t.Context(), d.b.config())
	if err != nil {
		t.Fatal(err)
	}
	d.b.keep(sb)
	// What the node has said is in the book, or the write is lost.
	missing := 0
	err = d.b.View(t.Context(), func(tx *store.Tx) error {
		for _, r := range d.revoked {
			s, err := store.Statuses.Get(tx, store.SerialKey(r.cert.CA, r.cert.Serial))
			if err != nil {
				return err
			}
			if s.State != store.Revoked {
				missing++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.reasons = append(d.reasons, fmt.Sprintf("%d kills, %d revocations acknowledged", kills, len(d.revoked)))
	d.publish()
	d.noticed("ended without giving it up")
	r := d.settle()
	if r.lost += missing; missing > 0 || len(d.revoked) == 0 {
		t.Errorf("of %d acknowledged revocations %d are not in the book", len(d.revoked), missing)
	}
	return r
}

// killNode lets a node run for a moment.
func (d *drill) killNode(dir string, certs map[string]*store.Certificate) {
	d.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nodeFolder+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	first, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			f := strings.Fields(s.Text())
			if len(f) != 3 || certs[f[0]] == nil {
				continue // a line that the kill cut short
			}
			epoch, _ := strconv.ParseUint(f[1], 10, 64)
			seq, _ := strconv.ParseUint(f[2], 10, 64)
			d.mu.Lock()
			if d.revoked = append(d.revoked, revocation{certs[f[0]], epoch, seq}); first != nil {
				close(first)
				first = nil
			}
			d.mu.Unlock()
		}
	}()
	d.mu.Lock()
	begun := first
	d.mu.Unlock()
	if begun != nil {
		select {
		case <-begun:
		case <-read:
		}
	}
	time.Sleep(rand.N(250 * time.Millisecond)) // the random moment
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.Error(err)
	}
	<-read
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		d.Fatalf("the node ended by itself: %v", err)
	}
}
