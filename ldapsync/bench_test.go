package ldapsync_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/ldapsync"
	"hufu/store"
)

// inParallel runs f for each of some connections at once.
func inParallel(b testing.TB, conns []*ldap.Conn, f func(*ldap.Conn) error) {
	b.Helper()
	errs := make(chan error, len(conns))
	for _, c := range conns {
		go func() { errs <- f(c) }()
	}
	for range conns {
		if err := <-errs; err != nil {
			b.Error(err)
		}
	}
}

// reads asks until the entry is revoked.
func reads(cert *store.Certificate) func(*ldap.Conn) error {
	return func(c *ldap.Conn) error {
		for {
			r, err := c.Search(ldap.NewSearchRequest(entryName(cert), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"hufuStatus"}, nil))
			if err != nil || r.Entries[0].GetAttributeValue("hufuStatus") == "revoked" {
				return err
			}
		}
	}
}

// BenchmarkReach measures a revocation from before its commit until 4 directories show it, against a direct write of the same change to the 4.
func BenchmarkReach(b *testing.B) {
	bk := newBook(b)
	var dirs []ldapsync.Directory
	var readers, writers []*ldap.Conn
	var names []string
	for _, name := range []string{"north", "east", "south", "west"} {
		s := startDirectory(b)
		names, dirs = append(names, name), append(dirs, directory(name, s))
		readers, writers = append(readers, dial(b, s)), append(writers, meddler(b, s))
	}
	own, bare := bk.issue("330100", b.N), bk.issue("330100", b.N)
	p := publish(b, bk, "n1", dirs...)
	p.inStep(b, bk, names...)
	var ours, theirs []float64
	b.ResetTimer()
	for i := range b.N {
		began := time.Now()
		bk.set(own[i], store.Revoked, 4)
		inParallel(b, readers, reads(own[i]))
		ours = append(ours, time.Since(began).Seconds()*1e3)

		began = time.Now()
		now := began.UTC().Format("20060102150405Z")
		var read sync.WaitGroup
		read.Go(func() { inParallel(b, readers, reads(bare[i])) }) // as ours are read, from the beginning
		inParallel(b, writers, func(c *ldap.Conn) error {
			m := ldap.NewModifyRequest(entryName(bare[i]), nil)
			m.Replace("hufuStatus", []string{"revoked"})
			m.Replace("hufuReason", []string{"4"})
			m.Replace("hufuStatusTime", []string{now})
			m.Replace("hufuSeq", []string{"2"})
			return c.Modify(m)
		})
		read.Wait()
		theirs = append(theirs, time.Since(began).Seconds()*1e3)
	}
	b.StopTimer()
	slices.Sort(ours)
	slices.Sort(theirs)
	at := func(v []float64, q float64) float64 { return v[min(int(q*float64(len(v))), len(v)-1)] }
	b.ReportMetric(at(ours, 0.5), "p50-ms")
	b.ReportMetric(at(ours, 0.99), "p99-ms")
	b.ReportMetric(at(theirs, 0.5), "bare-p50-ms")
	b.ReportMetric(at(theirs, 0.99), "bare-p99-ms")
	b.ReportMetric(at(theirs, 0.5)/at(ours, 0.5), "ratio-p50")
	b.ReportMetric(at(theirs, 0.99)/at(ours, 0.99), "ratio-p99")
}

// BenchmarkLoad fills an empty directory with b.N certificates, against a bare loop that adds the same entries with as many in flight.
func BenchmarkLoad(b *testing.B) {
	bk := newBook(b)
	one, two := startDirectory(b), startDirectory(b)
	for left := b.N; left > 0; left -= 500 {
		bk.issue("330100", min(left, 500))
	}
	b.ResetTimer()
	began := time.Now()
	p := publish(b, bk, "n1", directory("one", one))
	p.inStep(b, bk, "one")
	ours := time.Since(began)
	b.StopTimer()
	p.stop()

	// The same entries, those above first.
	r, err := dial(b, one).SearchWithPaging(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"*"}, nil), 500)
	if err != nil {
		b.Fatal(err)
	}
	c := meddler(b, two)
	add := func(e *ldap.Entry) error {
		req := ldap.NewAddRequest(e.DN, nil)
		for _, a := range e.Attributes {
			req.Attribute(a.Name, a.Values)
		}
		return c.Add(req)
	}
	var leaves []*ldap.Entry
	slices.SortStableFunc(r.Entries, func(x, y *ldap.Entry) int { return depth(x) - depth(y) })
	for _, e := range r.Entries {
		if slices.Contains(e.GetAttributeValues("objectClass"), "hufuCertificate") {
			leaves = append(leaves, e)
		} else if err := add(e); err != nil {
			b.Fatal(err)
		}
	}
	began = time.Now()
	todo := make(chan *ldap.Entry)
	ctx, cancel := context.WithCancel(b.Context())
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for e := range todo {
				if err := add(e); err != nil {
					b.Error(err)
					cancel()
				}
			}
		})
	}
	for _, e := range leaves {
		if ctx.Err() == nil {
			todo <- e
		}
	}
	close(todo)
	group.Wait()
	bare := time.Since(began)
	cancel()
	b.ReportMetric(float64(b.N)/ours.Seconds(), "entries/s")
	b.ReportMetric(float64(len(leaves))/bare.Seconds(), "bare-entries/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
}

func depth(e *ldap.Entry) int {
	dn, err := ldap.ParseDN(e.DN)
	if err != nil {
		return 0
	}
	return len(dn.RDNs)
}
