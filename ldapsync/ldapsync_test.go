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

// TestInitialLoad fills a directory, and revokes the last certificate meanwhile: that is not kept waiting behind the others.
func TestInitialLoad(t *testing.T) {
	b := newBook(t)
	south := startDirectory(t)
	const n = 1200
	certs := b.issue("330100", n)
	last := certs[n-1]
	p := publish(t, b, "n1", directory("south", south))
	began := time.Now()
	c := dial(t, south)
	until(t, "the first", func() bool { return statusIn(t, c, certs[0]) == "good" })
	b.set(last, store.Revoked, 1)
	until(t, "the revocation", func() bool { return statusIn(t, c, last) == "revoked" })
	if s := p.of("south"); s.State != "catching up" {
		t.Logf("the directory was filled before the revocation came (%s)", s.State)
	}
	revoked := time.Since(began)
	p.inStep(t, b, "south")
	took := time.Since(began)
	t.Logf("%.0f certificates per second; the last one revoked after %v of %v", n/took.Seconds(), revoked, took)
	holds(t, south, b)
}

// TestStatementUnderLoad: the watermark moves on while changes never pause.
func TestStatementUnderLoad(t *testing.T) {
	b := newBook(t)
	south := startDirectory(t)
	certs := b.issue("330100", 100)
	p := publish(t, b, "n1", directory("south", south))
	p.inStep(t, b, "south")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if c := certs[n%len(certs)]; n/len(certs)%2 == 0 {
				b.set(c, store.Held, 6)
			} else {
				b.set(c, store.Good, 0)
			}
		}
	}()
	marks := []uint64{p.of("south").Watermark}
	until(t, "three statements", func() bool {
		if w := p.of("south").Watermark; w > marks[len(marks)-1] {
			marks = append(marks, w)
		}
		return len(marks) == 4
	})
	close(stop)
	<-stopped
	p.inStep(t, b, "south")
	holds(t, south, b)
}
