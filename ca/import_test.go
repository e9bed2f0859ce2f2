package ca_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/crl"
	"hufu/internal/testpki"
	"hufu/store"
)

// rootList is a list that the root signs on its own machine.
func (w *world) rootList(signer string, change func(*crl.Template), entries ...crl.Entry) []byte {
	w.t.Helper()
	at := w.clock.now().UTC().Truncate(time.Second)
	template := crl.Template{Number: 1, ThisUpdate: at, NextUpdate: at.Add(180 * 24 * time.Hour)}
	if change != nil {
		change(&template)
	}
	var der bytes.Buffer
	err := w.pki.CA(signer).SignCRL(w.t.Context(), template, func(yield func(crl.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}, &der)
	if err != nil {
		w.t.Fatal(err)
	}
	return der.Bytes()
}

// TestImport: the root's list is taken up as it was signed; a list that is another
// CA's, older, for a part only, or past its end is not.
func TestImport(t *testing.T) {
	w := newWorld(t)
	number := func(n uint64) func(*crl.Template) { return func(c *crl.Template) { c.Number = n } }
	first := w.rootList("root", number(5), crl.Entry{Serial: []byte{1, 2}, RevokedAt: w.clock.now(), Reason: 1})
	c, err := w.ImportCRL(t.Context(), "root", first, "Zhang San")
	if err != nil || c.Number != 5 || c.Entries != 1 || c.Seq == 0 || !bytes.Equal(w.octets(c), first) {
		t.Fatalf("imported %+v, %v", c, err)
	}
	if again, err := w.ImportCRL(t.Context(), "root", first, "Zhang San"); err != nil || again.Seq != c.Seq {
		t.Errorf("imported again: %+v, %v", again, err)
	}
	for what, bad := range map[string]struct {
		ca, want string
		der      []byte
	}{
		"the same number": {"root", "its number is 5", w.rootList("root", number(5))},
		"a lower number":  {"root", "its number is 4", w.rootList("root", number(4))},
		"another CA's":    {"root", "another issuer", w.rootList("device", number(6))},
		"of users only":   {"root", "of a part", w.rootList("root", func(c *crl.Template) { c.Number, c.Point = 6, &crl.Point{URIs: []string{"http://a.example/"}} })},
		"a delta":         {"root", "a delta", w.rootList("root", func(c *crl.Template) { c.Number, c.Delta, c.Base = 6, true, 5 })},
		"past its end": {"root", "it ended", w.rootList("root", func(c *crl.Template) {
			c.Number, c.ThisUpdate, c.NextUpdate = 6, c.ThisUpdate.Add(-time.Hour), c.ThisUpdate
		})},
		"from the future":      {"root", "future", w.rootList("root", func(c *crl.Template) { c.Number, c.ThisUpdate = 6, c.ThisUpdate.Add(time.Hour) })},
		"older, higher number": {"root", "it was made", w.rootList("root", func(c *crl.Template) { c.Number, c.ThisUpdate = 6, c.ThisUpdate.Add(-time.Hour) })},
		"without the entry":    {"root", "serial number 0102 was revoked on list 5 and is missing", w.rootList("root", number(6))},
		"the entry on hold":    {"root", "is missing", w.rootList("root", number(6), crl.Entry{Serial: []byte{1, 2}, RevokedAt: w.clock.now(), Reason: 6})},
		"cut":                  {"root", "parsing CRL", first[:len(first)-1]},
		"a CA of this node":    {"device", "signs its lists itself", w.rootList("device", number(6))},
		"a CA that is not":     {"moon", "does not hold it", w.rootList("root", number(6))},
	} {
		var refused *ca.ListError
		var authority *ca.CAError
		_, err := w.ImportCRL(t.Context(), bad.ca, bad.der, "Zhang San")
		if !errors.As(err, &refused) && !errors.As(err, &authority) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stays := crl.Entry{Serial: []byte{1, 2}, RevokedAt: w.clock.now(), Reason: 1}
	if c, err := w.ImportCRL(t.Context(), "root", w.rootList("root", number(6), stays), "Zhang San"); err != nil || c.Number != 6 {
		t.Errorf("the next: %+v, %v", c, err)
	}
}

// TestImportKeepsRevocations: an entry leaves an imported list when it was on hold,
// or on a list past its certificate's end, and not before.
func TestImportKeepsRevocations(t *testing.T) {
	w := newWorld(t)
	device := testpki.Must(x509.ParseCertificate(w.pki.CA("device").Record.Certificate))
	entry := crl.Entry{Serial: device.SerialNumber.FillBytes(make([]byte, 17)), RevokedAt: w.clock.now(), Reason: 1}
	held := crl.Entry{Serial: []byte{1, 3}, RevokedAt: w.clock.now(), Reason: 6}
	n := uint64(0)
	take := func(entries ...crl.Entry) error {
		t.Helper()
		_, err := w.ImportCRL(t.Context(), "root", w.rootList("root", func(c *crl.Template) { n++; c.Number = n }, entries...), "Zhang San")
		return err
	}
	if err := errors.Join(take(), take(held), take(entry, held), take(entry)); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(device.NotAfter.Sub(w.clock.now()) - time.Hour)
	if err := take(); err == nil || !strings.Contains(err.Error(), "its certificate holds until") {
		t.Errorf("a revoked CA left the list an hour before its end: %v", err)
	}
	w.clock.advance(2 * time.Hour)
	if err := take(); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("it left without a list past its end: %v", err)
	}
	if err := errors.Join(take(entry), take()); err != nil {
		t.Errorf("it cannot leave: %v", err)
	}
}

// TestCalendar: a list whose end comes near is warned of, by the rule of its own
// length, and one that follows in time is not.
func TestCalendar(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Shards: 1, Deltas: true})
	var log bytes.Buffer
	w.Log = slog.New(slog.NewTextHandler(&log, nil))
	if _, err := w.ImportCRL(t.Context(), "root", w.rootList("root", nil), "Zhang San"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PublishLists(t.Context(), "services"); err != nil {
		t.Fatal(err)
	}
	warnings := func(after time.Duration) []string {
		t.Helper()
		w.clock.advance(after)
		log.Reset()
		if err := w.WarnOfEnds(t.Context()); err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	}
	if got := warnings(17 * time.Hour); got[0] != "" {
		t.Errorf("early: %q", got)
	}
	got := warnings(2 * time.Hour)
	if len(got) != 4 { // the whole CA's, the shard's, and their deltas
		t.Errorf("19 of 24 hours on: %q", got)
	}
	for _, line := range got {
		if !strings.Contains(line, "ca=services") || !strings.Contains(line, "remedy=") {
			t.Errorf("the warning is %s", line)
		}
	}
	// Without deltas the old ones are older than their full list: of the past.
	for shard := range uint16(2) {
		if _, err := w.PublishShard(t.Context(), "services", shard); err != nil {
			t.Fatal(err)
		}
	}
	if got := warnings(0); got[0] != "" {
		t.Errorf("after the next lists: %q", got)
	}
	got = warnings(149 * 24 * time.Hour)
	if n := len(got); n != 2 { // the root has 31 days left
		t.Errorf("a month before the root's end: %q", got)
	}
	got = warnings(2 * 24 * time.Hour)
	if len(got) != 3 || !strings.Contains(strings.Join(got, "\n"), "hufu crl import") {
		t.Errorf("less than a month before the root's end: %q", got)
	}
	var lists []*store.CRL
	w.view(func(tx *store.Tx) (err error) { lists, err = ca.Lists(tx); return err })
	if len(lists) != 3 || w.CRLAddress(lists[0]) != "http://pki.card.example/crl/root.crl" || w.CRLAddress(lists[2]) != "http://pki.card.example/crl/services/1.crl" {
		t.Errorf("the lists are %+v", lists)
	}
}
