package ldapsync_test

import (
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

func TestPublish(t *testing.T) {
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	certs := b.issue("330100", 200)
	certs = append(certs, b.issue("330200", 10)...)
	b.closeIntent("330100")
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
	holds(t, south, b)

	b.set(certs[0], store.Revoked, 1)
	b.set(certs[1], store.Held, 6)
	b.set(certs[2], store.Held, 6)
	b.set(certs[2], store.Good, 0)
	crl := b.publishCRL("330100")
	began := time.Now()
	p.inStep(t, b, "north", "south")
	t.Logf("in both directories, statements included, %v later", time.Since(began))
	holds(t, north, b)
	holds(t, south, b)
	e := ldapsearch(t, south, "(ou=330100)")
	if len(e) != 1 || e[0].one("certificaterevocationlist;binary") != string(crl) {
		t.Error("the CRL is not in the CA's entry")
	}
	if s := p.of("north"); s.Repairs != 0 || s.LastError != "" || s.LagChanges != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestLatency prints how long a status change takes from its commit until anybody who asks a directory sees it.
func TestLatency(t *testing.T) {
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	certs := b.issue("330100", 60)
	p := publish(t, b, "n1", directory("north", north), directory("south", south))
	p.inStep(t, b, "north", "south")
	readers := []*ldap.Conn{dial(t, north), dial(t, south)}
	var took []time.Duration
	for _, c := range certs {
		b.set(c, store.Revoked, 1)
		began := time.Now()
		for _, r := range readers {
			until(t, "the revocation", func() bool { return statusIn(t, r, c) == "revoked" })
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("revoked in both directories after %v (median), %v (worst of %d)", took[len(took)/2], took[len(took)-1], len(took))
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
}

// TestThroughput prints how fast a directory fills.
func TestThroughput(t *testing.T) {
	b := newBook(t)
	south := startDirectory(t)
	const n = 1500
	b.issue("330100", n)
	p := publish(t, b, "n1", directory("south", south))
	began := time.Now()
	p.inStep(t, b, "south")
	t.Logf("%.0f certificates per second", n/time.Since(began).Seconds())
	holds(t, south, b)
}
