package ca_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/ca"
	"hufu/internal/crl"
	"hufu/internal/crlcheck"
	"hufu/internal/testpki"
	"hufu/store"
	"hufu/store/bolt"
)

// octets returns a list that was published.
func (w *world) octets(c *store.CRL) (der []byte) {
	w.t.Helper()
	w.view(func(tx *store.Tx) (err error) {
		der, err = io.ReadAll(store.OpenCRL(tx, c))
		return err
	})
	return der
}

// reasons reads a list that its CA must have signed: reasons by serial number.
func (w *world) reasons(c *store.CRL) (*crl.List, map[store.Serial]int) {
	w.t.Helper()
	all := map[store.Serial]int{}
	l, err := crl.Parse(bytes.NewReader(w.octets(c)), func(e crl.Entry) error {
		if _, twice := all[store.Serial(e.Serial)]; twice {
			return fmt.Errorf("%x stands there twice", e.Serial)
		}
		all[store.Serial(e.Serial)] = e.Reason
		return nil
	})
	if err == nil {
		err = l.CheckSignature(w.pki.CA(c.CA).Record.Certificate)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return l, all
}

// judge has a list, alone and with its delta, judged by the checker that shares no
// code with what made it.
func (w *world) judge(full, delta *store.CRL) {
	w.t.Helper()
	var book []crlcheck.Status
	w.view(func(tx *store.Tx) error {
		book = nil
		for s, err := range store.Statuses.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if s.CA == full.CA && (full.Shard == 0 || s.Shard == full.Shard) && (s.State != store.Good || s.Lifted) {
				book = append(book, crlcheck.Status{Serial: crlcheck.SerialOf(s.Serial[:]), Listed: s.State != store.Good, Reason: s.Reason, Time: s.Time, NotAfter: s.NotAfter, Seq: s.Seq})
			}
		}
		return nil
	})
	lists := []*crlcheck.List{testpki.Must(crlcheck.Parse(w.octets(full)))}
	lists = append(lists, testpki.Must(lists[0].Apply(testpki.Must(crlcheck.Parse(w.octets(delta))))))
	for i, c := range []*store.CRL{full, delta} {
		r, err := lists[i].Check(crlcheck.Check{
			Issuer: testpki.Must(x509.ParseCertificate(w.pki.CA(c.CA).Record.Certificate)), Now: w.clock.now(), Least: new(big.Int).SetUint64(c.Number), AsOf: c.AsOf,
			Book: func(yield func(crlcheck.Status, error) bool) {
				for _, s := range book {
					if !yield(s, nil) {
						return
					}
				}
			},
		})
		if err != nil || !r.OK() || r.Pending > 0 {
			w.t.Fatalf("list %d of %s: %+v, %v", c.Number, c.CA, r, err)
		}
	}
}

// TestDeltas changes statuses at random: every full list with any later delta to
// it is the full list that is made at the same moment.
func TestDeltas(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Shards: 2, Deltas: true})
	if _, err := w.PublishDelta(t.Context(), "330100", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a delta to nothing: %v", err)
	}
	var refs []ca.Ref
	for n := range 12 {
		o := pair(fmt.Sprint(n))
		o.Hold = n%3 == 0
		for _, c := range w.issue(o) {
			refs = append(refs, ref(c))
		}
	}
	type full struct {
		*store.CRL
		reasons map[store.Serial]int
	}
	fulls := map[uint16][]full{}
	for range 40 * soak() {
		for range rand.IntN(4) {
			r := refs[rand.IntN(len(refs))]
			_ = w.book.Update(t.Context(), func(tx *store.Tx) error { // what may not be is refused
				switch rand.IntN(5) {
				case 0:
					return w.Revoke(tx, r, 4, time.Time{}, "tester")
				case 1, 2:
					return w.Suspend(tx, r, "tester")
				}
				return w.Resume(tx, r, "tester")
			})
		}
		shard := uint16(rand.IntN(3))
		now := testpki.Must(w.PublishShard(t.Context(), "330100", shard))
		_, want := w.reasons(now)
		fulls[shard] = append(fulls[shard], full{now, want})
		delta := testpki.Must(w.PublishDelta(t.Context(), "330100", shard))
		list, changes := w.reasons(delta)
		w.judge(now, delta)
		if list.Base == nil || list.Base.Uint64() != delta.Base || delta.Number <= now.Number {
			t.Fatalf("delta %+v after full list %d", delta, now.Number)
		}
		for _, f := range fulls[shard] {
			if f.Number < delta.Base {
				continue
			}
			got := map[store.Serial]int{}
			for serial, reason := range f.reasons {
				got[serial] = reason
			}
			for serial, reason := range changes {
				if got[serial] = reason; reason == 8 {
					delete(got, serial)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("full list %d and delta %d give %v, want %v", f.Number, delta.Number, got, want)
			}
		}
	}
	for shard, list := range fulls {
		for serial := range list[len(list)-1].reasons {
			if s := w.status(ca.Ref{CA: "330100", Serial: serial}); shard > 0 && s.Shard != shard {
				t.Errorf("%s of shard %d is on the list of shard %d", serial, s.Shard, shard)
			}
		}
	}
}

// TestStrangersFollowDeltas: openssl finds a certificate's status by the list of
// its shard and the delta to it, and by no other; GnuTLS reads them.
func TestStrangersFollowDeltas(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Shards: 2, Deltas: true})
	of := map[uint16][]*store.Certificate{}
	for n := 0; len(of[1]) < 2 || len(of[2]) < 1; n++ {
		c := w.issue(order(server(fmt.Sprintf("s%d.example", n))))[0]
		of[c.Shard] = append(of[c.Shard], c)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := w.pki.CA("services").Record
	roots := write("root.pem", testpki.PEM("CERTIFICATE", authority.Chain[0]))
	issuer := write("ca.pem", testpki.PEM("CERTIFICATE", authority.Certificate))
	verify := func(c *store.Certificate, lists ...*store.CRL) string {
		t.Helper()
		args := []string{"verify", "-CAfile", roots, "-untrusted", issuer, "-crl_check", "-extended_crl", "-use_deltas"}
		for i, l := range lists {
			args = append(args, "-CRLfile", write(fmt.Sprintf("%d.pem", i), testpki.PEM("X509 CRL", w.octets(l))))
		}
		out, _ := exec.Command("openssl", append(args, write("leaf.pem", testpki.PEM("CERTIFICATE", c.DER)))...).CombinedOutput()
		return string(out)
	}
	if _, err := w.PublishLists(t.Context(), "services"); err != nil {
		t.Fatal(err)
	}
	revoked, good, other := of[1][0], of[1][1], of[2][0]
	full := map[uint16]*store.CRL{}
	for shard := range uint16(3) {
		full[shard] = testpki.Must(w.PublishShard(t.Context(), "services", shard))
	}
	w.update(func(tx *store.Tx) error { return w.Revoke(tx, ref(revoked), 1, time.Time{}, "tester") })
	delta := testpki.Must(w.PublishDelta(t.Context(), "services", 1))
	for what, c := range map[string]struct{ out, want string }{
		"good, by the full list":           {verify(revoked, full[1]), "OK"}, // revoked since
		"revoked, by the delta":            {verify(revoked, full[1], delta), "certificate revoked"},
		"good, by list and delta":          {verify(good, full[1], delta), "OK"},
		"another shard's list":             {verify(other, full[1], delta), "different CRL scope"},
		"its own":                          {verify(other, full[2]), "OK"},
		"the whole CA's":                   {verify(other, full[0]), "OK"},
		"the shard's delta with the whole": {verify(revoked, full[0], delta), "OK"}, // a delta of another scope says nothing
	} {
		if !strings.Contains(c.out, c.want) {
			t.Errorf("%s: openssl says %s", what, c.out)
		}
	}
	for what, l := range map[string]*store.CRL{"full": full[1], "delta": delta} {
		file, authorityFile := write("list.der", w.octets(l)), write("ca.der", authority.Certificate)
		out, err := exec.Command("openssl", "crl", "-inform", "DER", "-in", file, "-CAfile", issuer, "-noout", "-text").CombinedOutput()
		text := string(out)
		if err != nil || !strings.Contains(text, "verify OK") || !strings.Contains(text, "Issuing Distribution Point: critical") || !strings.Contains(text, "/crl/services/1.crl") {
			t.Errorf("%s: openssl says %v %s", what, err, text)
		}
		if strings.Contains(text, "Freshest CRL") == l.Delta || strings.Contains(text, "Delta CRL Indicator: critical") != l.Delta {
			t.Errorf("%s: openssl says %s", what, text)
		}
		out, err = exec.Command("certtool", "--inder", "--crl-info", "--infile", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "CRL Number") {
			t.Errorf("%s: certtool says %v %s", what, err, out)
		}
		out, err = exec.Command("certtool", "--inder", "--verify-crl", "--load-ca-certificate", authorityFile, "--infile", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Verified.") {
			t.Errorf("%s: certtool says %v %s", what, err, out)
		}
	}
	out, err := exec.Command("openssl", "x509", "-in", filepath.Join(dir, "leaf.pem"), "-noout", "-text").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "X509v3 Freshest CRL") {
		t.Errorf("openssl says of a certificate: %v %s", err, out)
	}
}

// TestRunDeltas: a revocation is on its shard's delta and the whole CA's within a
// second or so, and on the full lists where they are quickly made.
func TestRunDeltas(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Shards: 3, Deltas: true})
	c := w.issue(order(server("a.example")))[0]
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	end := make(chan error)
	go func() { end <- w.Run(ctx) }()
	after := uint64(0)
	// until follows the journal until these lists of the CA were made.
	until := func(want ...string) (made []string) {
		t.Helper()
		for {
			events, err := w.book.Follow(ctx, after, 1)
			if err != nil {
				t.Fatalf("waiting for the lists %q: there are %q: %v", want, made, err)
			}
			after = events[0].Seq
			if e := events[0]; e.Kind == store.KindCRL && e.CA == "services" {
				kind := "full"
				if strings.Contains(e.Detail, `"base"`) {
					kind = "delta"
				}
				scope, _, _ := strings.Cut(strings.TrimPrefix(e.Detail, `{"shard":`), ",")
				if len(scope) > 1 {
					scope = "0"
				}
				made = append(made, kind+" "+scope)
			}
			if !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(made, w) }) {
				return made
			}
		}
	}
	until("full 0", "full 1", "full 2", "full 3", "delta 0", "delta 1", "delta 2", "delta 3")
	began := time.Now()
	w.update(func(tx *store.Tx) error { return w.Revoke(tx, ref(c), 0, time.Time{}, "tester") })
	made := until("delta 0", fmt.Sprintf("delta %d", c.Shard), "full 0", fmt.Sprintf("full %d", c.Shard))
	t.Logf("revocation to full lists and deltas: %v", time.Since(began).Round(time.Millisecond))
	for other := range 4 {
		if l := fmt.Sprintf("full %d", other); other > 0 && other != int(c.Shard) && slices.Contains(made, l) {
			t.Errorf("a revocation in shard %d made the lists %q", c.Shard, made)
		}
	}
	for _, shard := range []uint16{0, c.Shard} {
		for _, delta := range []bool{false, true} {
			var last *store.CRL
			w.view(func(tx *store.Tx) (err error) { last, err = store.LastCRL(tx, "services", shard, delta); return err })
			if _, all := w.reasons(last); len(all) != 1 {
				t.Errorf("list %d (delta: %v) has %v", shard, delta, all)
			}
		}
	}
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
}

// TestShardOfNoCertificate: a serial number whose certificate may exist, unseen,
// is revoked on the list that the certificate would name.
func TestShardOfNoCertificate(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Shards: 5})
	signer := w.pki.CA("services").Signer
	signer.After = func(int64) error { return errors.New("the answer is lost") }
	for n := range 8 {
		if _, err := w.Issue(t.Context(), order(server(fmt.Sprintf("s%d.example", n)))); err == nil {
			t.Fatal("a signature that was lost gave a certificate")
		}
	}
	signer.After = nil
	seen := 0
	w.view(func(tx *store.Tx) error {
		seen = 0
		for s, err := range store.Statuses.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if want := w.pki.CA("services").Shard(s.Serial); !s.Unissued || s.Shard != want || want == 0 {
				t.Errorf("%s is %s in shard %d, want %d", s.Serial, s.State, s.Shard, want)
			}
			seen++
		}
		return nil
	})
	if seen != 8 {
		t.Errorf("%d serial numbers were revoked", seen)
	}
	for shard := range uint16(6) {
		c := testpki.Must(w.PublishShard(t.Context(), "services", shard))
		_, all := w.reasons(c)
		for serial := range all {
			if shard > 0 && w.pki.CA("services").Shard(serial) != shard {
				t.Errorf("%s is on the list of shard %d", serial, shard)
			}
		}
		if shard == 0 && len(all) != 8 {
			t.Errorf("%d entries on the list of the whole CA", len(all))
		}
	}
}

// TestNumbersAfterRestore: lists that a restored book knows nothing of are followed
// by higher numbers, and a delta of before the loss by none that goes out from it.
func TestNumbersAfterRestore(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Deltas: true})
	r := ref(w.issue(order(server("a.example")))[0])
	if _, err := w.PublishLists(t.Context(), "services"); err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := w.book.Backup(t.Context(), &backup, nil); err != nil {
		t.Fatal(err)
	}
	w.update(func(tx *store.Tx) error { return w.Suspend(tx, r, "tester") })
	lost := testpki.Must(w.PublishCRL(t.Context(), "services"))
	lostDelta := testpki.Must(w.PublishDelta(t.Context(), "services", 0))

	engine := testpki.Must(bolt.Open(filepath.Join(t.TempDir(), "restored"), bolt.Options{}))
	book := testpki.Must(store.Restore(t.Context(), store.Config{Engine: engine, Now: w.clock.now, Tables: ca.Tables}, &backup, ""))
	defer book.Close()
	restored := testpki.Must(ca.New(ca.Config{Book: book, Issuers: w.pki.Issuers(), Node: "node-1", Now: w.clock.now}))
	full := testpki.Must(restored.PublishCRL(t.Context(), "services"))
	delta := testpki.Must(restored.PublishDelta(t.Context(), "services", 0))
	if full.Number <= lostDelta.Number || delta.Number <= full.Number || delta.Base == lost.Number || delta.Base == lostDelta.Number {
		t.Errorf("after %d and delta %d came %d and delta %d to %d", lost.Number, lostDelta.Number, full.Number, delta.Number, delta.Base)
	}
}

// TestDeltaBase: however many full lists follow changes, whoever has fetched one
// within CRLFullEvery goes on with the newest delta, and neither lists nor what a
// delta goes back over grow without end.
func TestDeltaBase(t *testing.T) {
	w := newWorldOf(t, testpki.Config{Deltas: true})
	var fulls []*store.CRL
	for range 200 {
		w.clock.advance(time.Minute)
		fulls = append(fulls, testpki.Must(w.PublishCRL(t.Context(), "services")))
		delta := testpki.Must(w.PublishDelta(t.Context(), "services", 0))
		var base *store.CRL
		for _, f := range fulls {
			if f.Number == delta.Base {
				base = f
			}
		}
		age, all := delta.ThisUpdate.Sub(base.ThisUpdate), delta.ThisUpdate.Sub(fulls[0].ThisUpdate)
		if age < min(all, time.Hour) || age > 2*time.Hour {
			t.Fatalf("the delta of %s goes out from the list of %s", delta.ThisUpdate, base.ThisUpdate)
		}
		var kept []*store.CRL
		w.view(func(tx *store.Tx) (err error) {
			kept, _, err = store.CRLs.Page(tx, store.Query{Prefix: store.CRLKey("services", 0, false)})
			return err
		})
		if len(kept) > 11 {
			t.Fatalf("%d full lists are kept", len(kept))
		}
	}
	// After very many events a delta goes out from a list that is near.
	before := fulls[len(fulls)-2]
	for range 11 {
		w.update(func(tx *store.Tx) error {
			for range 1000 {
				tx.Append(store.Event{Kind: store.KindRefused, Actor: "tester"})
			}
			return nil
		})
	}
	if delta := testpki.Must(w.PublishDelta(t.Context(), "services", 0)); delta.Base != before.Number {
		t.Errorf("after 11,000 events the delta goes out from %d, want %d", delta.Base, before.Number)
	}

	// A clock that was far ahead for one list does not tie the deltas to an old one.
	w.clock.advance(1000 * time.Hour)
	testpki.Must(w.PublishCRL(t.Context(), "services"))
	w.clock.advance(-1000 * time.Hour)
	for range 3 * 60 {
		w.clock.advance(time.Minute)
		testpki.Must(w.PublishCRL(t.Context(), "services"))
	}
	last := testpki.Must(w.PublishCRL(t.Context(), "services"))
	delta := testpki.Must(w.PublishDelta(t.Context(), "services", 0))
	// Numbers go on from the highest, one by one, until the clock has caught up.
	if lists := last.Number - delta.Base; lists < 60 || lists > 122 {
		t.Errorf("the delta goes back over %d lists", lists)
	}
}
