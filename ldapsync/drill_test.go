package ldapsync_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/slapd"
	"hufu/ldapsync"
	"hufu/store"
)

// TestDrill runs every fault that directories must survive, HUFU_SOAK times each; make drill makes a table of what it logs.
func TestDrill(t *testing.T) {
	faults := []struct {
		name string
		run  func(t *testing.T) *result
	}{
		{"down for a while", drillDown},
		{"killed, last writes lost", drillKilled},
		{"slow", drillSlow},
		{"hanging", drillHanging},
		{"restored from an old backup", drillOldBackup},
		{"restored partly", drillPartly},
		{"written to by a stranger", drillStranger},
		{"read-only", drillReadOnly},
		{"schema missing", drillSchema},
		{"disk full", drillFull},
		{"node killed", drillNode},
		{"two writers", drillTwoWriters},
		{"partition, both directions", func(t *testing.T) *result { return drillPartition(t, true, true) }},
		{"partition, requests only", func(t *testing.T) *result { return drillPartition(t, true, false) }},
		{"partition, answers only", func(t *testing.T) *result { return drillPartition(t, false, true) }},
		{"book restored from a backup", drillBook},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // most of a fault is waiting
			for range soak() {
				t.Run("trial", func(t *testing.T) { f.run(t).print(t, f.name) })
			}
		})
	}
}

func drillDown(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	d.north.must(d.north.Stop())
	d.seen(says("unreachable"))
	d.north.must(d.north.Restart(t.Context()))
	return d.settle()
}

// The database goes back to what it was at some moment before the kill, as if what came later had never reached the disk.
func drillKilled(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	kept := d.north.freeze()
	d.outgrow()
	d.north.must(d.north.Kill())
	d.seen(says("unreachable"))
	d.north.must(d.north.Revert(kept))
	d.north.must(d.north.Restart(t.Context()))
	d.noticed("it was put back to an older state, or has lost its last writes")
	return d.settle()
}

// outgrow waits until the north's watermark says more than a copy that was just made. What was on its way into the watermark then may be in the
// copy; the one after it is not.
func (d *drill) outgrow() {
	for range 2 {
		mark := d.p.of("north").Watermark
		until(d, "a later watermark", func() bool { return d.p.of("north").Watermark > mark })
	}
}

func drillSlow(t *testing.T) *result {
	var way *proxy
	d := newDrill(t, nil, func(f *fragile) ldapsync.Directory {
		way = startProxy(t, f.Server)
		slow := way.directory("north")
		slow.Bound = time.Second
		return slow
	})
	d.begin()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // one read of the proxy passes every 100 ms
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			way.hold()
			<-tick.C
			<-tick.C
			way.release()
		}
	}()
	d.seen(says("it answers, but too slowly"))
	cancel()
	<-done
	return d.settle()
}

func drillHanging(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	d.north.must(d.north.Pause())
	d.seen(says("unreachable"))
	d.north.must(d.north.Resume())
	return d.settle()
}

func drillOldBackup(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.publish()
	d.p.inStep(t, d.b, "north", "south")
	d.north.must(d.north.Stop())
	old := t.TempDir() + "/old"
	d.north.must(d.north.Snapshot(old))
	d.north.must(d.north.Restart(t.Context()))
	d.p.stop()
	d.begin()
	d.outgrow()
	d.north.must(d.north.Stop())
	d.seen(says("unreachable"))
	d.north.must(d.north.Revert(old))
	d.north.must(d.north.Restart(t.Context()))
	d.noticed("it was put back to an older state, or has lost its last writes")
	return d.settle()
}

// spoil lets somebody with the publisher's certificate change the north behind the publisher's back. Until it is repaired, whoever looks
// finds that the statement does not fit.
func (d *drill) spoil(change func(c *ldap.Conn)) {
	d.Helper()
	d.quiet.Store(true) // so that nothing but the stranger's writes can make the statement unfit
	d.p.inStep(d, d.b, "north", "south")
	d.blind.Store(true)
	change(asPublisher(d, d.north.Server))
	anyone := ldapsync.Directory{Name: "north", URL: d.north.URL(), Base: base}
	if v, err := ldapsync.Verify(d.Context(), anyone, d.b.ID(), pki().key.Public()); err != nil {
		d.Fatal(err)
	} else if v.Err() == nil {
		d.Error("whoever verifies the directory finds nothing wrong")
	} else {
		d.reasons = append(d.reasons, "verify: "+v.Err().Error())
	}
	if _, err := d.p.Diff(d.Context(), "north", nil); err != nil {
		d.Fatal(err)
	}
	d.noticed("hufu dir repair north puts it right")
	d.quiet.Store(false)
	d.undisturbed()
	r, err := d.p.Repair(d.Context(), "north", "drill", nil)
	if err != nil {
		d.Fatal(err)
	}
	if r.Wrong() == 0 || r.Repaired == 0 {
		d.Errorf("the repair found %s and put %d entries right", r.Diff, r.Repaired)
	}
	d.noticed("put right")
	if s := d.p.of("north"); s.Repairs == 0 {
		d.Error("the status does not count the repairs")
	}
	d.blind.Store(false)
}

// Some entries come from an old backup and the watermark does not.
func drillPartly(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	old := map[*store.Certificate]*ldap.Entry{}
	c := dial(t, d.north.Server)
	for range 5 {
		cert := d.b.issue("330200", 1)[0]
		until(t, "a new entry", func() bool { return statusIn(t, c, cert) == "good" })
		r, err := c.Search(ldap.NewSearchRequest(nameIn(cert), ldap.ScopeBaseObject, 0, 1, 0, false, "(objectClass=*)", nil, nil))
		d.north.must(err)
		old[cert] = r.Entries[0]
		d.revokeThis(cert)
	}
	gone := d.b.issue("330200", 2)
	for _, cert := range gone {
		until(t, "a new entry", func() bool { return statusIn(t, c, cert) == "good" })
	}
	for cert := range old {
		until(t, "a revoked entry", func() bool { return statusIn(t, c, cert) == "revoked" })
	}
	d.spoil(func(c *ldap.Conn) {
		for cert, e := range old {
			d.north.must(c.Del(ldap.NewDelRequest(nameIn(cert), nil)))
			back := &ldap.AddRequest{DN: e.DN}
			for _, a := range e.Attributes {
				back.Attribute(a.Name, a.Values)
			}
			d.north.must(c.Add(back))
		}
		for _, cert := range gone {
			d.north.must(c.Del(ldap.NewDelRequest(nameIn(cert), nil)))
		}
	})
	return d.settle()
}

func drillStranger(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	var victims []*store.Certificate
	for range 3 {
		victims = append(victims, d.revoke())
	}
	lost := d.b.issue("330200", 1)[0]
	c := dial(t, d.north.Server)
	until(t, "the entries", func() bool { return statusIn(t, c, victims[2]) == "revoked" && statusIn(t, c, lost) == "good" })
	d.spoil(func(c *ldap.Conn) {
		for _, cert := range victims {
			m := newModify(cert)
			m.Replace("hufuStatus", []string{"good"})
			d.north.must(c.Modify(m))
		}
		d.north.must(c.Del(ldap.NewDelRequest(nameIn(lost), nil)))
	})
	return d.settle()
}

func drillReadOnly(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	d.north.reconfigure(func(conf string) string { return conf + "readonly on\n" })
	d.seen(says("does not take our changes", "refuses an entry"))
	d.north.reconfigure(func(conf string) string { return strings.ReplaceAll(conf, "readonly on\n", "") })
	return d.settle()
}

// A new, empty directory whose operator has forgotten the schema.
func drillSchema(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	var lines []string
	d.north.reconfigure(func(conf string) string {
		for line := range strings.Lines(conf) {
			if strings.Contains(line, "hufu.schema") || strings.HasPrefix(line, "index ") {
				line = "# " + line
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	})
	d.publish()
	d.p.inStep(t, d.b, "south")
	d.observe()
	d.seen(says("does not take our changes", "refuses an entry"))
	d.north.reconfigure(func(conf string) string { return strings.ReplaceAll(conf, "# i", "i") })
	return d.settle()
}

// The database has reached its greatest size (MDB_MAP_FULL), which is what slapd meets on a full disk, too.
func drillFull(t *testing.T) *result {
	d := newDrill(t, func(c *slapd.Config) { c.MaxSize = 512 << 10 }, nil)
	d.begin()
	for range 40 {
		d.keep(d.b.issue("330200", 20)...)
		if s := d.p.of("north"); s.State == "refuses an entry" || s.State == "does not take our changes" {
			break
		}
	}
	d.seen(says("refuses an entry", "does not take our changes"))
	d.north.reconfigure(func(conf string) string { return strings.ReplaceAll(conf, "maxsize 524288", "maxsize 1073741824") })
	return d.settle()
}

// Two nodes that share the book publish to both directories; the first falls silent and comes back.
func drillTwoWriters(t *testing.T) *result {
	var way *proxy
	d := newDrill(t, nil, func(f *fragile) ldapsync.Directory {
		way = startProxy(t, f.Server)
		return way.directory("north")
	})
	d.begin()
	second := publish(t, d.b, "n2", directory("north", d.north.Server), directory("south", d.south.Server))
	until(t, "the second to stand by", func() bool { return strings.HasPrefix(second.of("north").State, "standing by: n1/") })
	way.hold()
	d.seen(says("unreachable"))
	until(t, "the second to take over", func() bool { return !strings.HasPrefix(second.of("north").State, "standing by") })
	way.release()
	way.cut()
	until(t, "the first to stand by", func() bool { return strings.HasPrefix(d.p.of("north").State, "standing by: n2/") })
	d.reasons = append(d.reasons, d.p.of("north").State)
	second.stop()
	return d.settle()
}

// The book goes back to a backup, under directories that know more.
func drillBook(t *testing.T) *result {
	d := newDrill(t, nil, nil)
	d.begin()
	old := d.b.backup()
	d.measure(4)
	d.halt()
	d.p.inStep(t, d.b, "north", "south")
	d.p.stop()
	d.b.restore(old)
	d.publish()
	until(t, "the reason in the status", func() bool {
		return d.p.of("north").State == "ahead of the book" && d.p.of("south").State == "ahead of the book"
	})
	d.reasons = append(d.reasons, d.p.of("north").State+": "+d.p.of("north").LastError)
	d.p.stop()
	for _, dir := range d.dirs {
		r, err := ldapsync.Recall(t.Context(), dir, d.b.Book, pki().key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Commit(t.Context(), d.b.Book, "drill", nil); err != nil {
			t.Fatal(err)
		}
	}
	d.publish()
	d.watch(d.north, &d.blind)
	d.watch(d.south, nil)
	d.change()
	return d.settle()
}
