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

// TestDS389 does with a 389 Directory Server what other tests do with slapd: publishing, searching, the guard of each write, and the
// faults of the drill that need nothing of slapd's own.
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

	// Convergence, counted as the drill of slapd is. This server writes more slowly, and takes some seconds to stop and to start.
	d := &drill{T: t, b: b, id: b.ID(), p: p, both: []server{s, south}, pace: 50 * time.Millisecond, bound: drillBound, certs: certs[2:]}
	t.Cleanup(d.halt)
	again := func() error { return s.Restart(t.Context()) }
	type fault struct {
		name       string
		begin, end func() error
		bound      time.Duration
	}
	faults := []fault{
		{"389: killed", s.Kill, again, drillBound},
		{"389: hanging", s.Pause, s.Resume, drillBound},
	}
	if soak() > 1 {
		// After a clean stop this server has been seen to answer questions at once, and writes only after nearly a minute.
		faults = append(faults, fault{"389: down for a while", s.Stop, again, 90 * time.Second})
	}
	for _, fault := range faults {
		d.bound = fault.bound
		for range soak() {
			for _, of := range d.both {
				d.watch(of, nil)
			}
			d.change()
			for range 3 {
				d.revoke()
			}
			if err := fault.begin(); err != nil {
				t.Fatal(err)
			}
			var status ldapsync.DirectoryStatus
			until(t, "the reason in the status", func() bool { status = p.of("north"); return status.State == "unreachable" })
			d.reasons = append(d.reasons, status.State+": "+status.LastError)
			for range 3 { // which the north learns of only afterwards
				d.revoke()
			}
			if err := fault.end(); err != nil {
				t.Fatal(err)
			}
			d.settle().print(t, fault.name)
		}
	}

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
