package ldapsync_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/slapd"
	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
)

// meddler connects to a directory with the right to write, as a stranger who stole it would.
func meddler(t testing.TB, s *slapd.Server) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.SecureURL(), ldap.DialWithTLSConfig(clientTLS()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.ExternalBind(); err != nil {
		t.Fatal(err)
	}
	return c
}

func entryName(c *store.Certificate) string {
	return "hufuSerial=" + c.Serial.String() + ",ou=certificates,ou=" + c.CA + "," + base
}

// spoil changes a directory behind the publisher's back, and returns how many entries of the book are not right any more.
func spoil(t testing.TB, s *slapd.Server, b *book, certs []*store.Certificate) int {
	t.Helper()
	c := meddler(t, s)
	set := func(cert *store.Certificate, attribute, value string) {
		t.Helper()
		m := ldap.NewModifyRequest(entryName(cert), nil)
		m.Replace(attribute, []string{value})
		if err := c.Modify(m); err != nil {
			t.Fatal(err)
		}
	}
	set(certs[0], "hufuStatus", "good")
	set(certs[1], "hufuProfile", "server")
	set(certs[2], "hufuSeq", "1")
	tree, err := b.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set(certs[3], "hufuSeq", fmt.Sprint(tree.Size)) // later than what the book has, yet not later than the book
	for _, cert := range certs[4:7] {
		if err := c.Del(ldap.NewDelRequest(entryName(cert), nil)); err != nil {
			t.Fatal(err)
		}
	}
	add := ldap.NewAddRequest(strings.Replace(entryName(certs[7]), certs[7].Serial.String(), "4a000000000000000000000000000001", 1), nil)
	for name, value := range map[string]string{"hufuBook": b.ID(), "hufuEpoch": fmt.Sprint(b.Epoch()), "hufuSeq": "3", "hufuSerial": "4a000000000000000000000000000001",
		"hufuStatus": "good", "hufuStatusTime": "20260101000000Z"} {
		add.Attribute(name, []string{value})
	}
	add.Attribute("objectClass", []string{"top", "hufuEntry", "hufuCertificate"})
	if err := c.Add(add); err != nil {
		t.Fatal(err)
	}
	return 8
}

func TestDiffAndRepair(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	certs := b.issue("330100", 60)
	b.set(certs[0], store.Revoked, 1)
	b.publishCRL("330100")
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "north", "south")
	d, err := p.Diff(t.Context(), "north", nil)
	if err != nil || d.Wrong() != 0 || d.Buckets != 0 || d.Entries != d.Expected || d.String() != "nothing differs" {
		t.Fatalf("a directory in step differs: %+v, %v", d, err)
	}

	guest := stranger(t, north)
	wrong := spoil(t, north, b, certs)
	var told int64
	d, err = p.Diff(t.Context(), "north", func(done, _ int64) { told = done })
	if err != nil {
		t.Fatal(err)
	}
	counts := d.Counts()
	if d.Wrong() != wrong || counts[ldapsync.Altered] != 4 || counts[ldapsync.Missing] != 3 || counts[ldapsync.Foreign] != 1 || d.Buckets > 2*wrong || told != d.Entries {
		t.Errorf("found %v in %d buckets, told of %d: %+v", d, d.Buckets, told, d.Differences)
	}
	if i := slices.IndexFunc(d.Differences, func(x ldapsync.Difference) bool { return strings.Contains(x.Name, certs[0].Serial.String()) }); i < 0 || d.Differences[i].Detail != "differs in hufustatus" {
		t.Errorf("what differs is not said: %+v", d.Differences)
	}
	r, err := p.Repair(t.Context(), "north", "auditor", nil)
	if err != nil || r.Repaired != wrong || r.Removed != 1 || len(r.Left) != 0 {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
	holds(t, south, b)
	if d, err = p.Diff(t.Context(), "north", nil); err != nil || d.String() != "nothing differs" {
		t.Errorf("after the repair: %v, %v", d, err)
	}
	if s := p.of("north"); s.Repairs != int64(wrong) {
		t.Errorf("%d repairs were counted of %d", s.Repairs, wrong)
	}
	if e := journalled(t, b, store.KindDirectoryRepaired); len(e) != 1 || e[0].Actor != "auditor" || !strings.Contains(e[0].Detail, "7 put right, 1 taken away") {
		t.Errorf("the journal says %+v", e)
	}
	guest(t)
	if _, err := p.Diff(t.Context(), "east", nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a directory that nobody knows: %v", err)
	}
}

// TestDiffWhileChanging: changes on their way are behind at most, never wrong.
func TestDiffWhileChanging(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 80)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	changeAtRandom(t, b, certs, func() {
		for range 10 {
			d, err := p.Diff(t.Context(), "north", nil)
			if err != nil || d.Wrong() != 0 {
				t.Fatalf("%+v, %v", d, err)
			}
		}
	})
	p.inStep(t, b, "north")
	p.stop()
	b.set(certs[0], store.Revoked, 1)
	added := b.issue("330200", 1)
	d, err := p.Diff(t.Context(), "north", nil)
	if err != nil || d.Counts()[ldapsync.Behind] != 2 || d.Wrong() != 0 {
		t.Errorf("with the worker away: %+v (%s is new), %v", d, added[0].Serial, err)
	}
}

// TestCompareOften: a directory that is compared at its own pace puts itself right.
func TestCompareOften(t *testing.T) {
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 20)
	dir := directory("north", north)
	dir.Compare = 50 * time.Millisecond
	p := publish(t, b, "n1", dir)
	p.inStep(t, b, "north")
	wrong := spoil(t, north, b, certs)
	until(t, "the repair", func() bool { return p.of("north").Repairs >= int64(wrong-1) }) // certs[0] is good in any case
	p.inStep(t, b, "north")
	holds(t, north, b)
}

// stranger adds entries that are nobody's business, and returns a check that they are as they were.
func stranger(t testing.TB, s *slapd.Server) func(testing.TB) {
	t.Helper()
	c := meddler(t, s)
	names := []string{"ou=people," + base, "cn=Guest,ou=people," + base, "cn=guest,ou=330100," + base}
	for i, name := range names {
		add := ldap.NewAddRequest(name, nil)
		if i == 0 {
			add.Attribute("objectClass", []string{"organizationalUnit"})
		} else {
			add.Attribute("objectClass", []string{"person"})
			add.Attribute("sn", []string{"Guest"})
			add.Attribute("description", []string{"not of any book"})
		}
		if err := c.Add(add); err != nil {
			t.Fatal(err)
		}
	}
	return func(t testing.TB) {
		t.Helper()
		if e := ldapsearch(t, s, "(description=not of any book)"); len(e) != 2 {
			t.Errorf("%d of a third party's 2 entries are left", len(e))
		}
	}
}

func journalled(t testing.TB, b *book, kind string) (found []store.Event) {
	t.Helper()
	for after := uint64(0); ; {
		events, err := b.Events(context.Background(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			return found
		}
		for _, e := range events {
			after = e.Seq
			if e.Kind == kind {
				found = append(found, e)
			}
		}
	}
}

// TestAlarm: each time that a bound is missed stands once in the journal, and so does the end of it.
func TestAlarm(t *testing.T) {
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	c := b.issue("330100", 1)[0]
	dir := directory("north", north)
	dir.Bound, dir.Alarm = 300*time.Millisecond, 1200*time.Millisecond
	p := publish(t, b, "n1", dir, directory("south", south))
	p.inStep(t, b, "north", "south")
	// On a slow machine the first filling may have missed the bound.
	until(t, "both in time", func() bool { return p.of("north").Level == ldapsync.InTime && p.of("south").Level == ldapsync.InTime })
	before, southBefore := p.of("north"), p.of("south")
	told := len(journalled(t, b, ldapsync.KindLate))
	if err := north.Stop(); err != nil {
		t.Fatal(err)
	}
	b.set(c, store.Revoked, 1)
	until(t, "the alarm", func() bool { return p.of("north").Level == ldapsync.Alarming })
	if err := north.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the alarm", func() bool { return p.of("north").Level == ldapsync.InTime })
	if s := p.of("north"); s.Missed-before.Missed != 1 || s.Alarms-before.Alarms != 1 {
		t.Errorf("the bound was missed %d times, the alarm %d times", s.Missed-before.Missed, s.Alarms-before.Alarms)
	}
	until(t, "the last event", func() bool { return len(journalled(t, b, ldapsync.KindBack)) > int(before.Missed) })
	late := journalled(t, b, ldapsync.KindLate)[told:]
	if len(late) != 2 || !strings.Contains(late[0].Detail, "more than 300ms") || !strings.Contains(late[1].Detail, "more than 1.2s: unreachable") {
		t.Errorf("the journal says %+v", late)
	}
	if n := p.of("south").Missed - southBefore.Missed; n != 0 {
		t.Errorf("the other directory missed its bound %d times", n)
	}
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
}

// TestReach reads back from each directory what it says.
func TestReach(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	c := b.issue("330100", 1)[0]
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "north", "south")
	b.set(c, store.Revoked, 1)
	// The certificate names a responder and a list too, at addresses where nobody answers.
	status, places, err := p.Reach(t.Context(), c.Serial, 2*time.Second)
	if err != nil || status.State != store.Revoked {
		t.Fatal(status, err)
	}
	of := func(places []ldapsync.Reached, where string) ldapsync.Reached {
		i := slices.IndexFunc(places, func(r ldapsync.Reached) bool { return r.Where == where })
		if i < 0 {
			t.Fatalf("%s is not among %+v", where, places)
		}
		return places[i]
	}
	for _, name := range []string{"north", "south"} {
		if r := of(places, name); !r.Served || r.Answer != "revoked" || r.Within <= 0 || r.Within > 30*time.Second || r.At.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	if err := south.Stop(); err != nil {
		t.Fatal(err)
	}
	m := ldap.NewModifyRequest(entryName(c), nil)
	m.Replace("hufuStatus", []string{"good"})
	if err := meddler(t, north).Modify(m); err != nil {
		t.Fatal(err)
	}
	if _, places, err = p.Reach(t.Context(), c.Serial, 0); err != nil {
		t.Fatal(err)
	}
	if r := of(places, "north"); r.Served || r.Answer != "good" {
		t.Errorf("a directory that says good was taken to say revoked: %+v", r)
	}
	if r := of(places, "south"); r.Served || r.Err == "" {
		t.Errorf("a directory that is down: %+v", r)
	}
	if _, _, err := p.Reach(t.Context(), store.Serial{1}, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a serial number that nobody gave out: %v", err)
	}
}

// TestTwoBooksEverywhere: two books with CAs of their own publish into all of the same directories, and neither touches what is not its own.
func TestTwoBooksEverywhere(t *testing.T) {
	t.Parallel()
	one, two := newBookOf(t, "root", "330100"), newBookOf(t, "device", "330200")
	north, south := startDirectory(t), startDirectory(t)
	dirs := []ldapsync.Directory{directory("north", north), directory("south", south)}
	mine, theirs := one.issue("330100", 40), two.issue("330200", 40)
	p, q := publish(t, one, "n1", dirs...), publish(t, two, "n2", dirs...)
	p.inStep(t, one, "north", "south")
	q.inStep(t, two, "north", "south")
	guest := stranger(t, south)
	changeAtRandom(t, one, mine, func() {
		changeAtRandom(t, two, theirs, func() {
			if err := north.Kill(); err != nil {
				t.Fatal(err)
			}
			until(t, "both to notice", func() bool { return p.of("north").State == "unreachable" && q.of("north").State == "unreachable" })
			if err := north.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	})
	for range 2 {
		p.inStep(t, one, "north", "south")
		q.inStep(t, two, "north", "south")
		for _, s := range []*slapd.Server{north, south} {
			holds(t, s, one)
			holds(t, s, two)
		}
		guest(t)
		// One book's directories are spoiled and repaired; the other's entries are not its business.
		spoil(t, south, one, mine)
		if r, err := p.Repair(t.Context(), "south", "n1", nil); err != nil || len(r.Left) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if d, err := q.Diff(t.Context(), "south", nil); err != nil || d.Wrong() != 0 {
			t.Errorf("the other book: %+v, %v", d, err)
		}
	}
}

// TestProve: a stranger knows the directory and the key, and nothing else.
func TestProve(t *testing.T) {
	t.Parallel()
	one, two := newBookOf(t, "root", "330100"), newBookOf(t, "330200")
	north := startDirectory(t)
	certs := one.issue("330100", 20)
	anyone := ldapsync.Directory{Name: "north", URL: north.URL(), Base: base}
	prove := func(book string, key crypto.PublicKey) (*ldapsync.Report, error) {
		return ldapsync.Prove(t.Context(), anyone, book, key, nil)
	}
	var unproven *ldapsync.UnprovenError
	if _, err := prove("", pki().key.Public()); !errors.As(err, &unproven) {
		t.Errorf("an empty directory: %v", err)
	}
	p := publish(t, one, "n1", directory("north", north))
	p.inStep(t, one, "north")
	r, err := prove("", pki().key.Public())
	if err != nil || r.Err() != nil || r.Statement.Book != one.ID() || r.Entries != 22 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := prove("", testpki.Must(testpki.Key()).Public()); !errors.As(err, &unproven) {
		t.Errorf("with another key: %v", err)
	}
	q := publish(t, two, "n2", directory("north", north))
	q.inStep(t, two, "north")
	if _, err := prove("", pki().key.Public()); !errors.As(err, &unproven) || !strings.Contains(err.Error(), two.ID()) {
		t.Errorf("with two books under one key: %v", err)
	}
	spoil(t, north, one, certs)
	if r, err := prove(one.ID(), pki().key.Public()); err != nil || r.Err() == nil {
		t.Errorf("a directory that was written to proves %+v, %v", r, err)
	}
	if r, err := prove(two.ID(), pki().key.Public()); err != nil || r.Err() != nil {
		t.Errorf("the other book's part: %+v, %v", r, err)
	}
}

// TestAdvanceLooksCloser: an entry that is not as it was last written is not taken for it when its status changes.
func TestAdvanceLooksCloser(t *testing.T) {
	b := newBook(t)
	north := startDirectory(t)
	certs := b.issue("330100", 20)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	c := meddler(t, north)
	m := ldap.NewModifyRequest(entryName(certs[0]), nil)
	m.Replace("hufuSeq", []string{"1"})
	m.Replace("hufuProfile", []string{"server"})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
	if err := c.Del(ldap.NewDelRequest(entryName(certs[1]), nil)); err != nil {
		t.Fatal(err)
	}
	for _, state := range []store.State{store.Held, store.Good, store.Revoked} {
		for _, cert := range certs[:3] {
			reason := map[store.State]int{store.Held: 6, store.Revoked: 1}[state]
			b.set(cert, state, reason)
		}
		p.inStep(t, b, "north")
		holds(t, north, b)
	}
}
