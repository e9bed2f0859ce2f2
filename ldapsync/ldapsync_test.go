package ldapsync_test

import (
	"testing"
	"time"

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
