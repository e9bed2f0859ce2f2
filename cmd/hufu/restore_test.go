package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/internal/softhsm"
	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
	"hufu/store/bolt"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// lived is a quickstart's world whose processes a test ends and starts again.
type lived struct {
	t    *testing.T
	dir  string
	conf *Config
	env  []string
	node *exec.Cmd // started by the test; nil while the quickstart's own runs
	log  bytes.Buffer
	apis map[string]*client.Client // by officer
}

func liveIn(t *testing.T, args ...string) *lived {
	t.Helper()
	w := &lived{t: t, dir: filepath.Join(t.TempDir(), "w"), apis: map[string]*client.Client{}}
	t.Cleanup(func() {
		w.stopNode()
		if out, err := exec.Command("hufu", "quickstart", "--stop", w.dir).CombinedOutput(); err != nil {
			t.Errorf("stopping the world: %v: %s", err, out)
		}
		if t.Failed() {
			t.Logf("the node's log:\n%s", w.log.String())
		}
	})
	if out, err := exec.Command("hufu", append([]string{"quickstart", w.dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("making the world: %v: %s", err, out)
	}
	var err error
	if w.conf, err = loadConfig(w.path("centre", "hufu.yaml")); err != nil {
		t.Fatal(err)
	}
	home, err := softhsm.New(w.path("centre", "hsm"))
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), home.Env()...)
	return w
}

func (w *lived) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// hufu runs a command that must succeed.
func (w *lived) hufu(args ...string) string {
	w.t.Helper()
	out, code := w.exits(args...)
	if code != 0 {
		w.t.Fatalf("hufu %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// as is the API as one of the world's officers.
func (w *lived) as(officer string) *client.Client {
	w.t.Helper()
	if w.apis[officer] == nil {
		g := &globals{client: w.path("officers", officer+".yaml")}
		c, id, err := g.dial(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close(); id.close() })
		w.apis[officer] = c
	}
	return w.apis[officer]
}

// must ends the test where there is an error.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *lived) exits(args ...string) (out string, code int) {
	w.t.Helper()
	c := exec.Command("hufu", args...)
	c.Dir, c.Env = w.dir, w.env
	raw, err := c.CombinedOutput()
	if ran := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ran) {
		w.t.Fatal(err)
	}
	return string(raw), c.ProcessState.ExitCode()
}

// pid finds a process that the quickstart has started; 0 when it is gone.
func (w *lived) pid(name string) (pid int) {
	raw, _ := os.ReadFile(w.path("running"))
	for line := range strings.Lines(string(raw)) {
		var n, began string
		var p int
		if k, _ := fmt.Sscan(line, &n, &p, &began); k == 3 && n == name && startTime(p) == began {
			pid = p
		}
	}
	return pid
}

func (w *lived) end(pid int) {
	w.t.Helper()
	if err := endProcess(w.t.Context(), pid, startTime(pid)); err != nil {
		w.t.Fatalf("ending process %d: %v", pid, err)
	}
}

func (w *lived) stopNode() {
	if w.node != nil {
		w.node.Process.Signal(syscall.SIGTERM)
		w.node.Wait()
		w.node = nil
	} else if pid := w.pid("node"); pid != 0 {
		w.end(pid)
	}
}

// startNode starts hufu serve and waits until it is ready.
func (w *lived) startNode() {
	w.t.Helper()
	c := exec.Command("hufu", "serve", "-c", w.path("centre", "hufu.yaml"))
	c.Dir, c.Env, c.Stdout, c.Stderr = w.dir, w.env, &w.log, &w.log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.node = c
	w.until("the node is ready", func() bool {
		a, err := http.Get("http://" + w.conf.Ops.Listen + "/readyz")
		if err != nil {
			return false
		}
		a.Body.Close()
		return a.StatusCode == http.StatusOK
	})
}

func (w *lived) until(what string, yes func() bool) {
	w.t.Helper()
	if !waitUntil(w.t.Context(), patience, yes) {
		w.t.Fatalf("not in time: %s", what)
	}
}

// inStep waits until both directories have everything.
func (w *lived) inStep() {
	w.t.Helper()
	w.until("both directories are in step", func() bool {
		dirs, err := w.as("operator").Directories(w.t.Context())
		if err != nil || len(dirs) != 2 {
			w.t.Fatalf("%v: %+v", err, dirs)
		}
		return !slices.ContainsFunc(dirs, func(d client.Directory) bool { return d.State != "in step" || d.LagChanges != 0 })
	})
}

// order asks for a server certificate; the name's key is made once.
func (w *lived) order(name string) client.IssueRequest {
	w.t.Helper()
	file := w.path(name)
	if _, err := os.Stat(file + ".csr"); err != nil {
		if err := newKeyAndRequest(file, name); err != nil {
			w.t.Fatal(err)
		}
	}
	return client.IssueRequest{CA: "services", Profile: "server", CSR: readRequest(w.t, file+".csr"), Name: client.Name{DNS: []string{name + ".card.example"}}}
}

// server has a server certificate issued and gives its serial number.
func (w *lived) server(name string) string {
	w.t.Helper()
	return must[*client.Certificate](w.t)(w.as("operator").Issue(w.t.Context(), w.order(name))).Serial
}

// pair has a reader's pair issued.
func (w *lived) pair(number string) *client.Reader {
	w.t.Helper()
	if err := readerFiles(w.path("readers"), number); err != nil {
		w.t.Fatal(err)
	}
	return must[*client.Reader](w.t)(w.as("city-operator").IssuePair(w.t.Context(),
		client.PairRequest{Number: number, City: worldCity, CSR: readRequest(w.t, w.path("readers", number+".csr"))}))
}

func readRequest(t *testing.T, file string) []byte {
	t.Helper()
	block, _ := pem.Decode(must[[]byte](t)(os.ReadFile(file)))
	return block.Bytes
}

// ocsp asks the node, by openssl, for one serial number.
func (w *lived) ocsp(ca, serial, want string) {
	w.t.Helper()
	issuer := w.path(ca + ".issuer.pem")
	if _, err := os.Stat(issuer); err != nil {
		authority := must[*client.CA](w.t)(w.as("operator").CA(w.t.Context(), ca))
		if err := os.WriteFile(issuer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate}), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	out, err := exec.Command("openssl", "ocsp", "-issuer", issuer, "-serial", "0x"+serial, "-url", w.conf.Publish.URL+"/ocsp/"+ca, "-CAfile", w.path("roots.pem")).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Response verify OK")) || !bytes.Contains(out, []byte(": "+want)) {
		w.t.Errorf("OCSP of %s %s does not say %s: %v: %s", ca, serial, want, err, out)
	}
}

// directory is one of the world's directories as anyone may read it.
func (w *lived) directory(name string) ldapsync.Directory {
	w.t.Helper()
	roots, err := readRoots(w.path("roots.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range w.conf.Directories {
		if d.Name == name {
			return ldapsync.Directory{Name: name, URL: d.URL, Base: d.Base, TLS: &tls.Config{RootCAs: roots}}
		}
	}
	w.t.Fatalf("there is no directory %s", name)
	return ldapsync.Directory{}
}

// TestRestoreUnderLiveDirectories restores an old backup of the book while two
// directories know what came after it.
func TestRestoreUnderLiveDirectories(t *testing.T) {
	w := liveIn(t, "--readers", "3")
	config := []string{"-c", w.path("centre", "hufu.yaml")}
	ctx, operator, city := t.Context(), w.as("operator"), w.as("city-operator")
	cert, reader := must[*client.Certificate](t), must[*client.Reader](t)
	known := w.server("known")
	backup := w.path("old.hufu")
	w.hufu("backup", backup, "--client", w.path("officers", "li.yaml"))

	// What the backup does not know: new certificates, and what became of old
	// ones.
	good, bad := w.server("good"), w.server("bad")
	cert(operator.Revoke(ctx, bad, client.Revocation{Reason: 1}))
	cert(operator.Revoke(ctx, known, client.Revocation{Reason: 4}))
	reader(city.RevokeReader(ctx, "000001", client.Revocation{Reason: 1}))
	reader(city.SuspendReader(ctx, "000002", client.Note{}))
	fourth, fifth := w.pair("000004"), w.pair("000005")
	reader(city.RevokeReader(ctx, "000005", client.Revocation{}))
	w.inStep()

	// And something that no directory hears of.
	var slapds [][]string
	for _, name := range dirNames[:2] {
		pid := w.pid("slapd-" + name)
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		slapds = append(slapds, strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00"))
		w.end(pid)
	}
	unheard := w.server("unheard")
	w.ocsp("services", unheard, "good")
	w.stopNode()

	// A directory that does not answer is no reason to go on without it.
	before := must[[]byte](t)(os.ReadFile(w.conf.bookPath()))
	if out, code := w.exits(append(config, "restore", backup, "--yes", "--from-directory", "two")...); code != exitUnready || !strings.Contains(out, "nothing was restored") {
		t.Errorf("a directory that is down: exit code %d: %s", code, out)
	}
	if after := must[[]byte](t)(os.ReadFile(w.conf.bookPath())); !bytes.Equal(before, after) {
		t.Error("a restore that failed has changed the book")
	}
	for i, args := range slapds {
		c := exec.Command(args[0], args[1:]...)
		c.Dir = w.path("ldap-" + dirNames[i])
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			w.stopNode()
			c.Process.Signal(syscall.SIGTERM)
			c.Wait()
		})
		w.until("slapd answers", func() bool {
			_, err := ldapsync.Verify(t.Context(), w.directory(dirNames[i]), "", nil)
			return err != nil && !strings.Contains(err.Error(), "connect")
		})
	}

	// The backup alone: the node refuses, and names both directories.
	w.hufu(append(config, "restore", backup, "--yes")...)
	out, code := w.exits(append(config, "serve")...)
	if code != exitDamaged || !strings.Contains(out, "one: ") || !strings.Contains(out, "two: ") || !strings.Contains(out, "--from-directory one --from-directory two") {
		t.Errorf("serve: exit code %d: %s", code, out)
	}

	// A wrong name, and a trial, change nothing.
	if out, code := w.exits(append(config, "restore", backup, "--yes", "--from-directory", "three")...); code != exitUsage {
		t.Errorf("a directory that is not configured: exit code %d: %s", code, out)
	}
	before = must[[]byte](t)(os.ReadFile(w.conf.bookPath()))
	w.hufu(append(config, "restore", backup, "--dry-run", "--from-directory", "one")...)
	if after := must[[]byte](t)(os.ReadFile(w.conf.bookPath())); !bytes.Equal(before, after) {
		t.Error("a trial has changed the book")
	}

	// With what one directory knows, it starts.
	t.Log(w.hufu(append(config, "restore", backup, "--yes", "--from-directory", "one")...))
	w.hufu(append(config, "check")...)
	w.startNode()
	for serial, want := range map[string]string{good: "good", bad: "revoked", known: "revoked", unheard: "unknown"} {
		w.ocsp("services", serial, want)
	}
	for serial, want := range map[string]string{fourth.Sign: "good", fourth.Encrypt: "good", fifth.Sign: "revoked"} {
		w.ocsp(worldCity, serial, want)
	}
	for number, want := range map[string]string{"000001": "revoked", "000002": "suspended", "000003": "active", "000004": "active", "000005": "revoked"} {
		if r := reader(operator.Reader(ctx, number)); r.State != want {
			t.Errorf("reader %s is %s, not %s", number, r.State, want)
		}
	}
	reader(city.ResumeReader(ctx, "000002", client.Note{}))
	reader(city.SuspendReader(ctx, "000004", client.Note{}))
	// Keys keep their line, and a compromised one is certified no more.
	for _, name := range []string{"good", "bad"} {
		_, err := operator.Issue(ctx, w.order(name))
		if p := (*client.Problem)(nil); !errors.As(err, &p) || p.Status != http.StatusConflict {
			t.Errorf("the key of %q was certified for another line: %v", name, err)
		}
	}
	w.server("later")
	w.inStep()
	w.hufu("check", "--client", w.path("officers", "li.yaml"))

	// Anyone who has the checkpoint key finds both directories whole and equal.
	key, err := readPublicKey(w.conf.path("checkpoint.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w.stopNode()
	id := w.bookID()
	var digests []store.Hash
	for _, name := range dirNames[:2] {
		r, err := ldapsync.Verify(t.Context(), w.directory(name), id, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Errorf("directory %s: %v", name, err)
		}
		digests = append(digests, r.Digest)
	}
	if digests[0] != digests[1] {
		t.Error("the two directories differ")
	}
	w.hufu(append(config, "check")...)
}

func (w *lived) bookID() string {
	w.t.Helper()
	book, err := openBook(w.t.Context(), w.conf, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer book.Close()
	return book.ID()
}

// bookWith opens a book with the CAs of a test hierarchy.
func bookWith(t *testing.T, pki *testpki.World) *store.Book {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "book.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book, err := store.Create(t.Context(), store.Config{Engine: engine, Tables: tables()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Check(context.Background(), nil); err != nil {
			t.Error(err)
		}
		book.Close()
	})
	err = book.Update(t.Context(), func(tx *store.Tx) error {
		for _, id := range []string{"services"} {
			record := pki.CA(id).Record
			record.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: id})
			if err := store.CAs.Insert(tx, &record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// TestListsWin: a CRL in a directory is heeded where an entry beside it says
// less, and nothing on it makes a status milder.
func TestListsWin(t *testing.T) {
	pki := testpki.Must(testpki.New(testpki.Config{}))
	authority := pki.CA("services")
	book := bookWith(t, pki)
	now := time.Now().UTC().Truncate(time.Second)
	serial := func(n byte) store.Serial {
		s, err := store.SerialFrom(new(big.Int).SetBytes(append([]byte{1}, bytes.Repeat([]byte{n}, 16)...)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	status := func(n byte, s store.State, reason int) *store.Status {
		return &store.Status{CA: "services", Serial: serial(n), State: s, Reason: reason, Time: now, NotAfter: now.Add(time.Hour)}
	}
	entry := func(n byte, reason int, at time.Time) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: serial(n).BigInt(), RevocationTime: at, ReasonCode: reason}
	}
	cert, err := x509.ParseCertificate(authority.Record.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{
			entry(1, 1, now),                   // good beside it
			entry(2, 4, now),                   // on hold beside it
			entry(3, 4, now),                   // revoked beside it, for another reason
			entry(4, 6, now.Add(-time.Hour)),   // a hold that was lifted since
			entry(5, 6, now.Add(time.Hour)),    // a hold that came later
			entry(6, 1, now),                   // no entry came back
			entry(7, 6, now),                   // neither: a hold ends
			entry(8, 5, now.Add(-time.Minute)), // no certificate ever was
		},
	}, cert, authority.Signer)
	if err != nil {
		t.Fatal(err)
	}
	none := status(8, store.Revoked, 0)
	none.Unissued = true
	r := &ldapsync.Recalled{
		Statuses: []*store.Status{status(1, store.Good, 0), status(2, store.Held, 6), status(3, store.Revoked, 1), status(4, store.Good, 0), status(5, store.Good, 0), none},
		CRLs:     []ldapsync.RecalledCRL{{CRL: &store.CRL{CA: "services", Number: 1}, DER: der}},
	}
	if err := book.View(t.Context(), func(tx *store.Tx) error { return heedLists(tx, r) }); err != nil {
		t.Fatal(err)
	}
	want := map[byte]struct {
		state    store.State
		reason   int
		unissued bool
	}{1: {store.Revoked, 1, false}, 2: {store.Revoked, 4, false}, 3: {store.Revoked, 1, false}, 4: {store.Good, 0, false}, 5: {store.Held, 6, false},
		6: {store.Revoked, 1, true}, 8: {store.Revoked, 0, true}}
	for _, s := range r.Statuses {
		n := s.Serial[1]
		if w := want[n]; s.State != w.state || s.Reason != w.reason || s.Unissued != w.unissued {
			t.Errorf("%d is %+v, want %+v", n, s, w)
		}
		delete(want, n)
	}
	if len(want) > 0 {
		t.Errorf("nothing was said of %v", want)
	}
}

// TestWhatWasUnderWay: an order that was open when the backup was made is left
// to the node, which closes it with all that hangs on it.
func TestWhatWasUnderWay(t *testing.T) {
	pki := testpki.Must(testpki.New(testpki.Config{}))
	book := bookWith(t, pki)
	open := &store.Intent{CA: "services", Serial: store.Serial{1, 1}, Node: "n1#1", Time: time.Now().UTC()}
	err := book.Update(t.Context(), func(tx *store.Tx) error {
		open.Seq = tx.Append(store.Event{Kind: store.KindIntent, CA: open.CA, Serial: open.Serial})
		return store.Intents.Insert(tx, open)
	})
	if err != nil {
		t.Fatal(err)
	}
	closed := &store.Status{CA: "services", Serial: store.Serial{1, 2}, State: store.Revoked, Unissued: true}
	r := &ldapsync.Recalled{Statuses: []*store.Status{{CA: open.CA, Serial: open.Serial, State: store.Revoked, Unissued: true}, closed}}
	if err := book.View(t.Context(), func(tx *store.Tx) error { return leaveOpen(tx, r) }); err != nil {
		t.Fatal(err)
	}
	if len(r.Statuses) != 1 || r.Statuses[0] != closed {
		t.Errorf("left %+v", r.Statuses)
	}
}

// TestNoDirectoryUndoesAnother: of two directories the stricter wins.
func TestNoDirectoryUndoesAnother(t *testing.T) {
	status := func(n byte, s store.State) *store.Status {
		return &store.Status{CA: "services", Serial: store.Serial{1, n}, State: s}
	}
	taken := map[string]store.State{}
	one := &ldapsync.Recalled{Statuses: []*store.Status{status(1, store.Held), status(2, store.Good), status(3, store.Revoked)}}
	two := &ldapsync.Recalled{Statuses: []*store.Status{status(1, store.Good), status(2, store.Held), status(3, store.Revoked), status(4, store.Good)}}
	noMilder(one, taken)
	noMilder(two, taken)
	if len(one.Statuses) != 3 || len(one.Notes) != 0 || len(two.Statuses) != 3 || two.Statuses[0].Serial[1] != 2 || len(two.Notes) != 1 {
		t.Errorf("one gave %v, two gave %v and told %q", one.Statuses, two.Statuses, two.Notes)
	}
}

// TestRestoreOverWhatIsThere: a present book is moved aside, even one that is
// damaged; one that a process holds is left alone; a damaged backup changes
// nothing.
func TestRestoreOverWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "hufu.yaml")
	if err := os.WriteFile(conf, []byte(exampleConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	c.Data = filepath.Join(dir, "data")
	if err := os.WriteFile(conf, []byte(strings.Replace(exampleConfig, "data: ", "data: "+c.Data+" # ", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	book := bookWith(t, testpki.Must(testpki.New(testpki.Config{})))
	var backup bytes.Buffer
	if err := book.Backup(t.Context(), &backup, nil); err != nil {
		t.Fatal(err)
	}
	whole, broken := filepath.Join(dir, "whole"), filepath.Join(dir, "broken")
	half := bytes.Clone(backup.Bytes())
	half[len(half)/2] ^= 1
	if err := errors.Join(os.WriteFile(whole, backup.Bytes(), 0o600), os.WriteFile(broken, half, 0o600)); err != nil {
		t.Fatal(err)
	}
	restore := func(file string) int {
		t.Helper()
		var out bytes.Buffer
		root := newRootCommand()
		root.SetArgs([]string{"restore", file, "-c", conf, "--yes"})
		root.SetOut(&out)
		root.SetErr(&out)
		code := report(root, root.ExecuteContext(t.Context()))
		t.Log(out.String())
		return code
	}
	files := func() (names []string) {
		t.Helper()
		all, err := os.ReadDir(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			names = append(names, f.Name())
		}
		return names
	}

	if code := restore(broken); code != exitDamaged {
		t.Errorf("a damaged backup: exit code %d", code)
	}
	if left := files(); len(left) != 0 {
		t.Errorf("a damaged backup left %v", left)
	}
	if code := restore(whole); code != exitOK {
		t.Errorf("the first restore: exit code %d", code)
	}
	held, err := openBook(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := restore(whole); code != exitConflict {
		t.Errorf("a book that is open: exit code %d", code)
	}
	held.Close()
	if left := files(); len(left) != 1 {
		t.Errorf("there lie %v", left)
	}
	if err := os.WriteFile(c.bookPath(), []byte("no book at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := restore(whole); code != exitOK {
		t.Errorf("over a damaged book: exit code %d", code)
	}
	if left := files(); len(left) != 2 {
		t.Errorf("there lie %v", left)
	}
	again, err := openBook(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Check(t.Context(), nil); err != nil || again.ID() != book.ID() || again.Epoch() <= book.Epoch() {
		t.Errorf("the restored book is %s in epoch %d (%v)", again.ID(), again.Epoch(), err)
	}
}
