package ldapsync_test

import (
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/ds389"
	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
)

// TestDS389 does with a 389 Directory Server what other tests do with slapd: publishing, searching, the guard of each write, and
// convergence after a kill.
func TestDS389(t *testing.T) {
	t.Parallel() // most of it is waiting for the server's own tools
	s, err := ds389.Start(t.Context(), ds389.Config{
		Dir: t.TempDir(), Suffix: base, Schema: ldapsync.Schema,
		Certificate: pki().server.PEM(), Key: pki().server.KeyPEM(), ClientCA: testpki.PEM("CERTIFICATE", pki().Root.Record.Certificate),
		Publisher: pki().publisher.PEM(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := newBook(t)
	certs := b.issue("330100", 40)
	lastly := b.closeIntent("330200")
	b.publishCRL("330100")
	south := startDirectory(t)
	north := directory("north", s)
	north.Timeout = 2 * time.Second
	p := publish(t, b, "n1", north, directory("south", south))
	p.inStep(t, b, "north", "south")
	holds(t, s, b)

	// Only the publisher may write.
	anyone := dial(t, s)
	m := newModify(certs[0])
	m.Replace("hufuStatus", []string{"revoked"})
	if err := anyone.Modify(m); err == nil {
		t.Error("anyone may write")
	}

	// Searches, by people who know nothing of Hufu.
	b.set(certs[0], store.Revoked, 1)
	b.set(certs[1], store.Held, 6)
	p.inStep(t, b, "north")
	for filter, want := range map[string]int{
		"(hufuStatus=revoked)": 2, "(hufuStatus=on-hold)": 1, "(hufuReader=" + certs[2].Reader + ")": 1, "(hufuSerial=" + lastly.String() + ")": 1,
		"(certificateRevocationList;binary=*)": 1, "(&(hufuStatus=good)(userCertificate;binary=*))": 38,
	} {
		if got := len(ldapsearch(t, s, filter)); got != want {
			t.Errorf("%s finds %d entries, want %d", filter, got, want)
		}
	}
	found := ldapsearch(t, s, "(hufuSerial="+certs[2].Serial.String()+")")
	if len(found) != 1 || found[0].one("usercertificate;binary") != string(certs[2].DER) {
		t.Error("the certificate is not what was issued")
	}

	// The guard: a modify that is based on an old state fails as a whole.
	old := newModify(certs[0])
	old.Replace("hufuStatus", []string{"good"})
	old.Delete("hufuSeq", []string{"1"})
	old.Add("hufuSeq", []string{"1000000"})
	if err := asPublisher(t, s).Modify(old); !ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute) {
		t.Errorf("a change of an old state: %v, want noSuchAttribute", err)
	}
	holds(t, s, b)

	// Convergence: killed under load, and away for a while.
	changeAtRandom(t, b, certs[2:], func() {
		for range soak() {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			until(t, "the reason in the status", func() bool { return p.of("north").State == "unreachable" })
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			until(t, "the north to follow again", func() bool {
				return p.of("north").State == "catching up" || p.of("north").State == "in step"
			})
		}
	})
	p.inStep(t, b, "north", "south")
	holds(t, s, b)
	holds(t, south, b)

	// What somebody else did is found and put right.
	spoilt := newModify(certs[0])
	spoilt.Replace("hufuStatus", []string{"good"})
	if err := asPublisher(t, s).Modify(spoilt); err != nil {
		t.Fatal(err)
	}
	v, err := ldapsync.Verify(t.Context(), ldapsync.Directory{Name: "north", URL: s.URL(), Base: base}, b.ID(), pki().key.Public())
	if err != nil || v.Err() == nil {
		t.Errorf("a foreign write is not found: %v", err)
	}
	r, err := p.Repair(t.Context(), "north", "test", nil)
	if err != nil || r.Repaired != 1 {
		t.Errorf("the repair: %+v, %v; want one entry put right", r, err)
	}
	p.inStep(t, b, "north")
	holds(t, s, b)
}
