package ldapsync_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
)

// soak is how many times more often the counted tests try, for long runs.
func soak() int {
	n, err := strconv.Atoi(os.Getenv("HUFU_SOAK"))
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// changeAtRandom changes the book while f runs.
func changeAtRandom(t *testing.T, b *book, certs []*store.Certificate, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(4 * time.Millisecond) // what two cores with a race detector can follow
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			c := certs[rand.IntN(len(certs))]
			switch rand.IntN(4) {
			case 0:
				b.issue(certs[0].CA, 1)
			case 1:
				b.set(c, store.Good, 0)
			default:
				b.set(c, store.Held, 6)
			}
		}
	}()
	f()
	cancel()
	<-done
}

// TestKilledDirectory kills a directory under load, again and again; nothing is lost, and the other one never waits.
func TestKilledDirectory(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	certs := b.issue("330100", 50)
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "north", "south")
	reader := dial(t, south)
	southGoesOn := func() {
		t.Helper()
		c := b.issue("330100", 1)[0]
		until(t, "a new certificate in the south", func() bool { return statusIn(t, reader, c) == "good" })
	}
	changeAtRandom(t, b, certs, func() {
		for range 4 * soak() {
			southGoesOn()
			if err := north.Kill(); err != nil {
				t.Fatal(err)
			}
			southGoesOn()
			until(t, "notice", func() bool { return p.of("north").State == "unreachable" })
			southGoesOn()
			if err := north.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			until(t, "the north to follow again", func() bool { return p.of("north").State == "catching up" || p.of("north").State == "in step" })
		}
	})
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
	holds(t, south, b)
}

// TestPausedDirectory: a directory that hangs, with its connections open, delays only itself.
func TestPausedDirectory(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	certs := b.issue("330100", 40)
	hanging := directory("north", north)
	hanging.Timeout = 500 * time.Millisecond
	p := publish(t, b, "n1", hanging, directory("south", south))
	p.inStep(t, b, "north", "south")
	if err := north.Pause(); err != nil {
		t.Fatal(err)
	}
	for _, c := range certs {
		b.set(c, store.Revoked, 4)
	}
	p.inStep(t, b, "south")
	holds(t, south, b)
	until(t, "the north to be missed", func() bool { return p.of("north").State == "unreachable" })
	if s := p.of("north"); s.LagChanges < 40 || s.LastError == "" {
		t.Errorf("a directory that hangs has the status %+v", s)
	}
	if err := north.Resume(); err != nil {
		t.Fatal(err)
	}
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// TestAbsentDirectory: a directory may be there later than the node, and away for a while.
func TestAbsentDirectory(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	if err := north.Stop(); err != nil {
		t.Fatal(err)
	}
	b.issue("330100", 20)
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "south")
	if err := north.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// TestWorkerRestarts stops the publisher at random moments while it fills a directory, and starts another one.
func TestWorkerRestarts(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 300)
	changeAtRandom(t, b, certs, func() {
		for range 10 * soak() {
			p := publish(t, b, "n1", directory("north", north))
			d := rand.N(60 * time.Millisecond)
			began := time.Now()
			until(t, "some moment", func() bool { return time.Since(began) > d })
			p.stop()
		}
	})
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	holds(t, north, b)
	if s := p.of("north"); s.Repairs != 0 {
		t.Errorf("%d repairs where nobody else wrote", s.Repairs)
	}
}

// TestOldCopyOfDirectory puts a directory back to an older state while the publisher runs.
func TestOldCopyOfDirectory(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 30)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	old := filepath.Join(t.TempDir(), "old")
	if err := north.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := north.Snapshot(old); err != nil {
		t.Fatal(err)
	}
	if err := north.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range certs[:20] {
		b.set(c, store.Revoked, 1)
	}
	b.issue("330200", 5)
	b.publishCRL("330100")
	p.inStep(t, b, "north")
	if err := north.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := north.Revert(old); err != nil {
		t.Fatal(err)
	}
	if err := north.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the revocations to be back", func() bool {
		c := dial(t, north)
		defer c.Close()
		return statusIn(t, c, certs[19]) == "revoked"
	})
	b.set(certs[25], store.Held, 6)
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// TestIdleDirectoryPutBack puts a directory back while the book is idle and the worker has no reason to speak for hours: it notices all
// the same, writes again what is missing, and says what happened.
func TestIdleDirectoryPutBack(t *testing.T) {
	t.Parallel()
	b := newBookOf(t, "330100")
	north := startFragile(t, nil)
	certs := b.issue("330100", 20)
	d := directory("north", north.Server)
	d.Bound, d.Alarm = time.Hour, time.Hour
	patient, err := ldapsync.New(ldapsync.Config{Book: b.Book, Directories: []ldapsync.Directory{d}, Key: pki().key, Node: "n1", Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, patient)
	p.inStep(t, b, "north")
	old, then := north.freeze(), p.of("north").Watermark
	for _, c := range certs[:7] {
		b.set(c, store.Revoked, 1)
	}
	p.inStep(t, b, "north")
	now := p.of("north").Watermark
	north.must(north.Kill())
	until(t, "the end of the connection to be noticed", func() bool { return p.of("north").State == "unreachable" })
	north.must(north.Revert(old))
	north.must(north.Restart(t.Context()))
	until(t, "what is missing to be written again", func() bool { s := p.of("north"); return s.State == "in step" && s.Watermark > now })
	holds(t, north.Server, b)
	want := fmt.Sprintf("went from epoch 1, sequence %d back to epoch 1, sequence %d; the %d changes since are written again", now, then, now-then)
	if s := p.of("north"); !strings.Contains(s.Notice, want) || s.NoticeTime.IsZero() {
		t.Errorf("the status says %q; want in it: %s", s.Notice, want)
	}
	if told := journalled(t, b, ldapsync.KindPutBack); len(told) != 1 || !strings.Contains(told[0].Detail, want) {
		t.Errorf("the journal says %+v", told)
	}
}

// TestPutBackWhileNodeIsDown: a directory that was put back while nobody looked is found out by the node that starts next, once.
func TestPutBackWhileNodeIsDown(t *testing.T) {
	t.Parallel()
	b := newBookOf(t, "330100")
	north := startFragile(t, nil)
	certs := b.issue("330100", 20)
	p := publish(t, b, "n1", directory("north", north.Server))
	p.inStep(t, b, "north")
	p.stop()
	old := t.TempDir() + "/old"
	north.must(north.Stop())
	north.must(north.Snapshot(old))
	north.must(north.Restart(t.Context()))
	for _, c := range certs[:7] {
		b.set(c, store.Revoked, 1)
	}
	p = publish(t, b, "n1", directory("north", north.Server))
	p.inStep(t, b, "north")
	if s := p.of("north"); s.Notice != "" {
		t.Errorf("a directory that was left alone is said to be other: %s", s.Notice)
	}
	p.stop()
	north.must(north.Stop())
	north.must(north.Revert(old))
	north.must(north.Restart(t.Context()))
	p = publish(t, b, "n1", directory("north", north.Server))
	p.inStep(t, b, "north")
	holds(t, north.Server, b)
	if s := p.of("north"); !strings.Contains(s.Notice, "it was put back to an older state") || !strings.Contains(s.Notice, "are written again") {
		t.Errorf("the status says %q", s.Notice)
	}
	p.stop()
	p = publish(t, b, "n1", directory("north", north.Server))
	p.inStep(t, b, "north")
	if s := p.of("north"); s.Notice != "" {
		t.Errorf("it is told again: %s", s.Notice)
	}
	if told := journalled(t, b, ldapsync.KindPutBack); len(told) != 1 {
		t.Errorf("the journal says %+v", told)
	}
}

// TestLostBeyondWatermark: what a directory took and lost again before its watermark said so is written again. Nobody was promised it, so
// there is no notice.
func TestLostBeyondWatermark(t *testing.T) {
	t.Parallel()
	b := newBookOf(t, "330100")
	north := startFragile(t, nil)
	certs := b.issue("330100", 5)
	var away atomic.Bool
	key := &testpki.Signer{Key: pki().key, Before: func(int64) error {
		if away.Load() {
			return errors.New("token not present")
		}
		return nil
	}}
	p := publishWith(t, b, "n1", key, directory("north", north.Server))
	p.inStep(t, b, "north")
	away.Store(true)
	old, mark := north.freeze(), p.of("north").Watermark
	b.set(certs[0], store.Revoked, 1)
	revoked := func() bool {
		c := dial(t, north.Server)
		defer c.Close()
		return statusIn(t, c, certs[0]) == "revoked"
	}
	until(t, "the revocation", revoked)
	north.must(north.Kill())
	until(t, "the end of the connection to be noticed", func() bool { return p.of("north").State == "unreachable" })
	north.must(north.Revert(old))
	north.must(north.Restart(t.Context()))
	until(t, "the revocation once more", revoked)
	if s := p.of("north"); s.Watermark != mark || s.Notice != "" {
		t.Errorf("watermark %d, was %d; notice %q", s.Watermark, mark, s.Notice)
	}
	away.Store(false)
	p.inStep(t, b, "north")
	holds(t, north.Server, b)
}

// TestSilentDirectory: a directory that hangs while there is nothing to do is no longer called in step when its bound has passed.
func TestSilentDirectory(t *testing.T) {
	t.Parallel()
	b := newBookOf(t, "330100")
	north := startFragile(t, nil)
	d := directory("north", north.Server)
	d.Bound, d.Timeout = 300*time.Millisecond, time.Minute // nothing fails for as long as this test waits
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	north.must(north.Pause())
	var s ldapsync.DirectoryStatus
	until(t, "the silence to be told", func() bool { s = p.of("north"); return s.State != "in step" })
	if s.State != "silent" || !strings.HasPrefix(s.LastError, "it was in step, and has confirmed nothing for ") {
		t.Errorf("the status says %q: %q", s.State, s.LastError)
	}
	north.must(north.Resume())
	until(t, "it to be in step again", func() bool { s = p.of("north"); return s.State == "in step" })
	if s.LastError != "" {
		t.Errorf("in step, and yet: %s", s.LastError)
	}
}

// TestTwoPublishers: one publishes, the other stands by until the first gives up or falls silent.
func TestTwoPublishers(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	b.issue("330100", 10)
	way := startProxy(t, north)
	first := publish(t, b, "first", way.directory("north"))
	first.inStep(t, b, "north")
	second := publish(t, b, "second", directory("north", north))
	until(t, "the second to stand by", func() bool { return strings.HasPrefix(second.of("north").State, "standing by: first/") })

	// The first falls silent.
	way.hold()
	b.issue("330100", 10)
	second.inStep(t, b, "north")
	holds(t, north, b)
	way.release()
	way.cut()
	until(t, "the first to stand by", func() bool { return strings.HasPrefix(first.of("north").State, "standing by: second/") })
	b.issue("330100", 10)
	second.inStep(t, b, "north")

	// The second leaves in good order, and the first need not wait for its lease.
	second.stop()
	b.issue("330100", 10)
	first.inStep(t, b, "north")
	holds(t, north, b)
}

// TestDelayedWriter: what an old writer has sent reaches the directory after a new writer's later change, and does nothing.
func TestDelayedWriter(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 20)
	way := startProxy(t, north)
	first := publish(t, b, "first", way.directory("north"))
	first.inStep(t, b, "north")
	way.hold()
	for _, c := range certs {
		b.set(c, store.Held, 6)
	}
	until(t, "the first's changes on their way", func() bool { return way.held.Load() > 0 })
	for _, c := range certs {
		b.set(c, store.Revoked, 1)
	}
	second := publish(t, b, "second", directory("north", north))
	second.inStep(t, b, "north")
	holds(t, north, b)
	way.release()
	until(t, "the delayed changes to arrive", func() bool { return way.held.Load() == 0 })
	until(t, "the first to stand by", func() bool { return strings.HasPrefix(first.of("north").State, "standing by: second/") })
	holds(t, north, b)
}

// TestGuard is the guard by itself: a modify that is based on an old state fails as a whole.
func TestGuard(t *testing.T) {
	b := newBook(t)
	north := startDirectory(t)
	cert := b.issue("330100", 1)[0]
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	b.set(cert, store.Revoked, 1)
	p.inStep(t, b, "north")
	old := ldap.NewModifyRequest("hufuSerial="+cert.Serial.String()+",ou=certificates,ou=330100,"+base, nil)
	old.Replace("hufuStatus", []string{"good"})
	old.Delete("hufuSeq", []string{strconv.FormatUint(cert.Seq, 10)})
	old.Add("hufuSeq", []string{strconv.FormatUint(cert.Seq+1, 10)})
	if err := asPublisher(t, north).Modify(old); !ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute) {
		t.Errorf("a change of an old state: %v, want noSuchAttribute", err)
	}
	holds(t, north, b)
}

// asPublisher connects with the publisher's certificate: what an operator, or a thief, could do.
func asPublisher(t testing.TB, s server) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.SecureURL(), ldap.DialWithTLSConfig(clientTLS()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetTimeout(30 * time.Second)
	if err := c.ExternalBind(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestForeignWrites: what others did is put right when the publisher comes by, and Verify tells in any case.
func TestForeignWrites(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 10)
	d := directory("north", north)
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	p.stop()
	verify := func() error {
		// Anyone can, without TLS and without a certificate.
		anyone := ldapsync.Directory{Name: "north", URL: north.URL(), Base: base}
		r, err := ldapsync.Verify(t.Context(), anyone, b.ID(), pki().key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return r.Err()
	}
	if err := verify(); err != nil {
		t.Errorf("an untouched directory: %v", err)
	}
	c := asPublisher(t, north)
	name := func(i int) string {
		return "hufuSerial=" + certs[i].Serial.String() + ",ou=certificates,ou=330100," + base
	}
	change := ldap.NewModifyRequest(name(0), nil)
	change.Replace("hufuStatus", []string{"revoked"})
	if err := c.Modify(change); err != nil {
		t.Fatal(err)
	}
	if err := c.Del(ldap.NewDelRequest(name(1), nil)); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err == nil {
		t.Error("Verify does not see foreign writes")
	} else {
		t.Log(err)
	}
	// Somebody replaces the statement, too: nothing of the watermark is believed, and everything is written anew.
	forged := ldap.NewModifyRequest("cn=watermark,cn="+b.ID()+","+base, nil)
	forged.Replace("hufuStatement", []string{"hufu/directory/nonsense\n\n— x AAAA\n"})
	if err := c.Modify(forged); err != nil {
		t.Fatal(err)
	}
	p = publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	holds(t, north, b)
	if s := p.of("north"); s.Repairs != 1 {
		t.Errorf("%d repairs, want 1 (the entry that was taken away counts as new in a fresh start)", s.Repairs)
	}
	if err := verify(); err != nil {
		t.Error(err)
	}
}

// TestRefusedEntry: an entry that a server does not take is told, holds the watermark, and does not hold up the others.
func TestRefusedEntry(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	bad := newCertificate("330100")
	bad.Reader = "读卡器" // the schema wants plain letters
	b.record([]*store.Certificate{bad})
	good := b.issue("330100", 5)
	c := dial(t, north)
	until(t, "the other entries", func() bool { return statusIn(t, c, good[4]) == "good" })
	until(t, "the refusal to be told", func() bool { return p.of("north").State == "refuses an entry" })
	until(t, "a statement", func() bool { return p.of("north").Time.After(time.Now().Add(-time.Second)) })
	if s := p.of("north"); s.Watermark >= bad.Seq || !strings.Contains(s.LastError, bad.Serial.String()) {
		t.Errorf("status %+v, though %s (event %d) was refused", s, bad.Serial, bad.Seq)
	}
}

// TestLaterEntry: an entry that says it is later than the book is left alone, and told; the others go on.
func TestLaterEntry(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 5)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	later := newModify(certs[0])
	later.Replace("hufuSeq", []string{"1000000"})
	if err := asPublisher(t, north).Modify(later); err != nil {
		t.Fatal(err)
	}
	b.set(certs[0], store.Revoked, 1)
	until(t, "the refusal to be told", func() bool { return strings.Contains(p.of("north").LastError, "later than the book's") })
	b.set(certs[1], store.Revoked, 1)
	c := dial(t, north)
	until(t, "the other revocation", func() bool { return statusIn(t, c, certs[1]) == "revoked" })
	if got := statusIn(t, c, certs[0]); got != "good" {
		t.Errorf("the later entry became %s", got)
	}
	p.stop()
	if ahead := newPublisher(t, b, "n1", directory("north", north)).Ahead(t.Context()); len(ahead) != 1 {
		t.Error("the later entry is not found at the next start")
	}
}

// TestStartTLS publishes over ldap:// with StartTLS.
func TestStartTLS(t *testing.T) {
	b := newBook(t)
	north := startDirectory(t)
	b.issue("330100", 3)
	d := directory("north", north)
	d.URL, d.StartTLS = north.URL(), true
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// TestStranger: a certificate that may not write is told so.
func TestStranger(t *testing.T) {
	b := newBook(t)
	north := startDirectory(t)
	d := directory("north", north)
	other, err := pki().Client("stranger", "")
	if err != nil {
		t.Fatal(err)
	}
	d.TLS.Certificates = []tls.Certificate{other.TLS()}
	p := publish(t, b, "n1", d)
	until(t, "the refusal", func() bool { return strings.Contains(p.of("north").LastError, "Insufficient Access Rights") })
}

func TestConfigurationIsChecked(t *testing.T) {
	b := newBook(t)
	good := ldapsync.Directory{Name: "north", URL: "ldaps://localhost", Base: base, TLS: clientTLS()}
	for name, spoil := range map[string]func(*ldapsync.Config){
		"no key":     func(c *ldapsync.Config) { c.Key = nil },
		"no name":    func(c *ldapsync.Config) { c.Directories[0].Name = "" },
		"bad URL":    func(c *ldapsync.Config) { c.Directories[0].URL = "http://x" },
		"no host":    func(c *ldapsync.Config) { c.Directories[0].URL = "ldaps://" },
		"bad base":   func(c *ldapsync.Config) { c.Directories[0].Base = "nonsense" },
		"no base":    func(c *ldapsync.Config) { c.Directories[0].Base = "" },
		"no TLS":     func(c *ldapsync.Config) { c.Directories[0].TLS = nil },
		"twice TLS":  func(c *ldapsync.Config) { c.Directories[0].StartTLS = true },
		"one name":   func(c *ldapsync.Config) { c.Directories = append(c.Directories, good) },
		"open":       func(c *ldapsync.Config) { c.Directories[0].URL, c.Directories[0].TLS = "ldap://localhost", nil },
		"slash":      func(c *ldapsync.Config) { c.Node = "a/b" },
		"no book":    func(c *ldapsync.Config) { c.Book = nil },
		"no problem": nil,
	} {
		cfg := ldapsync.Config{Book: b.Book, Key: pki().key, Directories: []ldapsync.Directory{good}}
		if spoil != nil {
			spoil(&cfg)
		}
		if _, err := ldapsync.New(cfg); (err == nil) != (spoil == nil) {
			t.Errorf("%s: %v", name, err)
		} else if err != nil {
			t.Logf("%s: %v", name, err)
		}
	}
}

// TestSchemaLDIF: a slapd with cn=config takes the schema in its other form.
func TestSchemaLDIF(t *testing.T) {
	core, err := os.ReadFile("/etc/ldap/schema/core.ldif")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "all.ldif")
	ldif := "dn: cn=config\nobjectClass: olcGlobal\ncn: config\n\ndn: cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: schema\n\n" +
		string(core) + "\n" + string(ldapsync.SchemaLDIF())
	if err := os.WriteFile(file, []byte(ldif), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "slapd.d")
	if err := os.Mkdir(config, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/usr/sbin/slapadd", "-n", "0", "-F", config, "-l", file).CombinedOutput(); err != nil {
		t.Errorf("slapadd: %v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(config, "cn=config", "cn=schema", "*hufu.ldif"))
	if err != nil || len(found) != 1 {
		t.Errorf("the schema did not arrive: %v", err)
	}
}

// TestKeyAway: while the statement's key does not sign, changes flow and the watermark waits.
func TestKeyAway(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 5)
	var away atomic.Bool
	key := &testpki.Signer{Key: pki().key, Before: func(int64) error {
		if away.Load() {
			return errors.New("token not present")
		}
		return nil
	}}
	p := publishWith(t, b, "n1", key, directory("north", north))
	p.inStep(t, b, "north")
	away.Store(true)
	mark := p.of("north").Watermark
	b.set(certs[0], store.Revoked, 1)
	c := dial(t, north)
	until(t, "the revocation", func() bool { return statusIn(t, c, certs[0]) == "revoked" })
	until(t, "the trouble to be told", func() bool { return strings.Contains(p.of("north").LastError, "token not present") })
	if s := p.of("north"); s.Watermark != mark {
		t.Errorf("the watermark moved from %d to %d without a statement", mark, s.Watermark)
	}
	away.Store(false)
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// TestTwoBooks: books with CAs of their own share a directory; a CA of another book is left alone.
func TestTwoBooks(t *testing.T) {
	t.Parallel()
	north := startDirectory(t)
	one, two := newBookOf(t, "330100"), newBookOf(t, "330200", "330100")
	one.issue("330100", 5)
	p1 := publish(t, one, "n1", directory("north", north))
	p1.inStep(t, one, "north")
	two.issue("330200", 5)
	p2 := publish(t, two, "n2", directory("north", north))
	until(t, "the second book's certificates, and the refusal of its second CA", func() bool {
		s := p2.of("north")
		return s.State == "refuses an entry" && strings.Contains(s.LastError, "belongs to the book "+one.ID()) &&
			len(ldapsearch(t, north, "(&(hufuStatus=good)(hufuBook="+two.ID()+"))")) == 5
	})
	one.issue("330100", 5)
	p1.inStep(t, one, "north")
	holds(t, north, one)
}

// TestAdoption: what an operator made by hand beforehand is taken over with what it says besides.
func TestAdoption(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	c := asPublisher(t, north)
	for _, e := range []*ldap.AddRequest{
		{DN: base, Attributes: []ldap.Attribute{{Type: "objectClass", Vals: []string{"organization"}}}},
		{DN: "ou=330100," + base, Attributes: []ldap.Attribute{{Type: "objectClass", Vals: []string{"organizationalUnit"}}, {Type: "description", Vals: []string{"the north"}}}},
	} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	b.issue("330100", 5)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	holds(t, north, b)
	e := ldapsearch(t, north, "(description=the north)")
	if len(e) != 1 || e[0].one("hufubook") != b.ID() || e[0].one("cacertificate;binary") == "" {
		t.Errorf("the entry made by hand is now %+v", e)
	}
}
