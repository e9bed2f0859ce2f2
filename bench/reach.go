package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sync/errgroup"

	"hufu/api/client"
	"hufu/bench/world"
	"hufu/internal/slapd"
	"hufu/ldapsync"
	"hufu/store"
)

// reachDirectories is how many directories a change has to reach.
const reachDirectories = 4

// changesASecond is what the node does besides, for dir.reach4.busy.
const changesASecond = 200

// reachBlock is how many changes one side makes before the next has its turn.
const reachBlock = 50

// calm is longer than a list is gathered for: a node that did nothing for so long has nothing left to do.
const calm = 1200 * time.Millisecond

// between is how long a reader waits between two looks, on every side. Four that never wait take the two CPUs from all who write.
const between = 250 * time.Microsecond

// reaching measures how long a revocation takes until it can be read in every
// directory.
func (b *bench) reaching(ctx context.Context) ([]figure, error) {
	b.say("  setting up a node with %d directories", reachDirectories)
	w, err := world.Start(ctx, b.hufu, filepath.Join(b.dir, "reach"), reachDirectories)
	if err != nil {
		return nil, err
	}
	b.atEnd(w.Stop)
	n := &node{World: w}
	trials := max(int(400*b.pace), 20)
	serials, err := n.issue(ctx, 4*trials+100)
	if err != nil {
		return nil, err
	}
	take := func(count int) (part []string) {
		part, serials = serials[:count], serials[count:]
		return part
	}
	dn := func(serial string) string { return "hufuSerial=" + serial + ",ou=certificates,ou=services," + w.Base }
	nodes, err := b.readers(w.LDAP)
	if err != nil {
		return nil, err
	}
	for _, serial := range []string{serials[0], serials[len(serials)-1]} {
		if err := nodes.wait(ctx, dn(serial), store.Good); err != nil {
			return nil, err
		}
	}
	writers, err := b.writers(w)
	if err != nil {
		return nil, err
	}
	provider, replicas, err := b.replication(ctx, w, nodes.conns[0])
	if err != nil {
		return nil, fmt.Errorf("setting up replication: %w", err)
	}

	// A change is over when those who look at the directories have seen it in all of them. They look from its beginning, whoever makes it.
	timed := func(read *directories, serial string, change func() error) (ms float64, err error) {
		began := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return read.wait(ctx, dn(serial), store.Revoked) })
		group.Go(change)
		err = group.Wait()
		return time.Since(began).Seconds() * 1e3, err
	}
	revoke := func(ctx context.Context, serial string) (float64, error) {
		return timed(nodes, serial, func() error {
			_, err := n.Operator.Revoke(ctx, serial, client.Revocation{Reason: superseded})
			return err
		})
	}
	sides := []struct {
		times  []float64
		change func(serial string) (float64, error)
	}{
		{change: func(serial string) (float64, error) {
			if err := n.inStep(ctx, 0); err != nil {
				return 0, err
			}
			return revoke(ctx, serial)
		}},
		{change: func(serial string) (float64, error) {
			return timed(nodes, serial, func() error { return writers.write(ctx, dn(serial)) })
		}},
		{change: func(serial string) (float64, error) {
			return timed(replicas, serial, func() error { return provider.write(ctx, dn(serial)) })
		}},
	}
	// What the node does after a revocation (the watermarks, the list a second later) belongs to it. So the sides take turns in blocks, and
	// the next begins when the node has nothing left to do.
	for done := 0; done < trials; done += reachBlock {
		for i := range sides {
			if err := n.inStep(ctx, calm); err != nil {
				return nil, err
			}
			for _, serial := range take(min(reachBlock, trials-done)) {
				ms, err := sides[i].change(serial)
				if err != nil {
					return nil, err
				}
				sides[i].times = append(sides[i].times, ms)
			}
		}
	}
	hufu, direct, syncrepl := sides[0].times, sides[1].times, sides[2].times
	b.say("  %d each: hufu %.1f ms, direct %.1f ms, syncrepl %.1f ms", trials, quantile(hufu, 0.5), quantile(direct, 0.5), quantile(syncrepl, 0.5))
	var busy []float64
	last := take(trials)
	err = n.besides(ctx, serials, func(ctx context.Context) error {
		for _, serial := range last {
			ms, err := revoke(ctx, serial)
			if err != nil {
				return err
			}
			busy = append(busy, ms)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	against := "direct writes of the same change to the 4, in parallel"
	return []figure{
		newTime("dir.reach4", quantile(hufu, 0.5), quantile(direct, 0.5), against, 0.6, "ms, median, from the request until all 4 say revoked"),
		newTime("dir.reach4.p99", quantile(hufu, 0.99), quantile(direct, 0.99), against, 0.5, "ms, 99th percentile"),
		newTime("dir.reach4.syncrepl", quantile(hufu, 0.99), quantile(syncrepl, 0.99), "OpenLDAP syncrepl from one provider to 3 replicas", 1, "ms, 99th percentile"),
		newTime("dir.reach4.busy", quantile(busy, 0.99), quantile(hufu, 0.99), fmt.Sprintf("the same without %d changes a second besides", changesASecond), 0.25, "ms, 99th percentile"),
	}, nil
}

// inStep waits until the watermark of every directory is at the head of the book, and has been there for a while.
func (n *node) inStep(ctx context.Context, calm time.Duration) error {
	var since time.Time
	var head uint64
	for {
		all, err := n.Operator.Directories(ctx)
		if err != nil {
			return fmt.Errorf("asking how far the directories are: %w", err)
		}
		behind := slices.ContainsFunc(all, func(d client.Directory) bool { return d.LagChanges > 0 || d.State != "in step" })
		if behind || head != all[0].Head {
			head, since = all[0].Head, time.Now()
		}
		if !behind && time.Since(since) >= calm {
			return nil
		}
		if !pause(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// pause waits for d; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// besides keeps the node busy with changes of other certificates while f runs.
func (n *node) besides(ctx context.Context, serials []string, f func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		return f(ctx)
	})
	due := time.NewTicker(time.Second / changesASecond)
	defer due.Stop()
	turns := make(chan int)
	for range 16 {
		group.Go(func() (err error) {
			for i := range turns {
				serial := serials[i%len(serials)]
				if i/len(serials)%2 == 0 {
					_, err = n.Operator.Suspend(ctx, serial)
				} else {
					_, err = n.Operator.Resume(ctx, serial)
				}
				if err != nil {
					return fmt.Errorf("changing certificates besides: %w", err)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(turns)
		for i := 0; ; i++ {
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return nil
			case <-due.C:
			}
			select {
			case turns <- i:
			case <-done:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// directories are connections, one to each directory.
type directories struct{ conns []*ldap.Conn }

// readers connects as anyone may.
func (b *bench) readers(urls []string) (*directories, error) {
	d := new(directories)
	b.atEnd(d.close)
	for _, u := range urls {
		c, err := ldap.DialURL(u)
		if err != nil {
			return nil, err
		}
		d.conns = append(d.conns, c)
	}
	return d, nil
}

func (d *directories) close() (err error) {
	for _, c := range d.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// each runs f for all directories at once.
func (d *directories) each(f func(*ldap.Conn) error) error {
	var group errgroup.Group
	for _, c := range d.conns {
		group.Go(func() error { return f(c) })
	}
	return group.Wait()
}

// wait reads the entry until every directory gives it that state.
func (d *directories) wait(ctx context.Context, dn string, want store.State) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return d.each(func(c *ldap.Conn) error {
		for ctx.Err() == nil {
			r, err := c.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"hufuStatus"}, nil))
			switch {
			case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
			case err != nil:
				return err
			case len(r.Entries) == 1 && r.Entries[0].GetAttributeValue("hufuStatus") == want.String():
				return nil
			}
			pause(ctx, between)
		}
		return fmt.Errorf("%s did not become %s in time", dn, want)
	})
}

// write makes the change that a revocation makes to an entry.
func (d *directories) write(_ context.Context, dn string) error {
	now := time.Now().UTC().Format("20060102150405Z")
	return d.each(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace("hufuStatus", []string{store.Revoked.String()})
		m.Replace("hufuReason", []string{fmt.Sprint(superseded)})
		m.Replace("hufuStatusTime", []string{now})
		m.Replace("hufuSeq", []string{"1000000000"})
		return c.Modify(m)
	})
}

var secureAddress = regexp.MustCompile(`ldaps://localhost:[0-9]+`)

// writers connects to the node's directories as the node itself does.
func (b *bench) writers(w *world.World) (*directories, error) {
	config, err := os.ReadFile(filepath.Join(w.Dir, "centre", "hufu.yaml"))
	if err != nil {
		return nil, err
	}
	return b.publishers(w, secureAddress.FindAllString(string(config), -1))
}

func (b *bench) publishers(w *world.World, urls []string) (*directories, error) {
	conf, err := publisherTLS(w)
	if err != nil {
		return nil, err
	}
	d := new(directories)
	b.atEnd(d.close)
	for _, u := range urls {
		c, err := ldap.DialURL(u, ldap.DialWithTLSConfig(conf))
		if err != nil {
			return nil, err
		}
		if err := c.ExternalBind(); err != nil {
			return nil, err
		}
		d.conns = append(d.conns, c)
	}
	return d, nil
}

// publisherTLS is how the node shows itself to directories.
func publisherTLS(w *world.World) (*tls.Config, error) {
	own := filepath.Join(w.Dir, "centre", "data", "tls", "publisher.pem")
	pair, err := tls.LoadX509KeyPair(own, own)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(w.Dir, "roots.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}, nil
}

// startSlapd starts an empty directory with the settings and the certificate of
// those of the node.
func (b *bench) startSlapd(ctx context.Context, w *world.World, name string, modules, lines []string) (*slapd.Server, error) {
	var files [4][]byte
	for i, name := range []string{"ldap-one.pem", "ldap-one.key", "roots.pem", filepath.Join("centre", "data", "tls", "publisher.pem")} {
		var err error
		if files[i], err = os.ReadFile(filepath.Join(w.Dir, name)); err != nil {
			return nil, err
		}
	}
	for block, rest := pem.Decode(files[3]); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			files[3] = pem.EncodeToMemory(block)
			break
		}
	}
	s, err := slapd.Start(ctx, slapd.Config{Dir: filepath.Join(b.dir, name), Suffix: w.Base, Schema: ldapsync.Schema, Certificate: files[0], Key: files[1],
		ClientCA: files[2], Publisher: files[3], Modules: modules, Database: lines})
	if err == nil {
		b.atEnd(s.Stop)
	}
	return s, err
}

// localhost is the name in the certificate of a directory on this machine.
var localhost = strings.NewReplacer("127.0.0.1", "localhost")

// replication starts a provider with three replicas, all with the entries that a
// directory of the node has. It returns who writes to the provider and who reads
// from all four.
func (b *bench) replication(ctx context.Context, w *world.World, from *ldap.Conn) (writer, readers *directories, err error) {
	provider, err := b.startSlapd(ctx, w, "provider", []string{"syncprov"}, []string{"index entryUUID,entryCSN eq", "limits anonymous size=unlimited time=unlimited", "overlay syncprov"})
	if err != nil {
		return nil, nil, err
	}
	if writer, err = b.publishers(w, []string{publisherURL(provider)}); err != nil {
		return nil, nil, err
	}
	last, err := writer.copy(from, w.Base)
	if err != nil {
		return nil, nil, fmt.Errorf("copying the entries: %w", err)
	}
	urls := []string{provider.URL()}
	for i := range reachDirectories - 1 {
		s, err := b.startSlapd(ctx, w, fmt.Sprintf("replica-%d", i+1), nil, []string{"index entryUUID,entryCSN eq", `rootdn "cn=replica,` + w.Base + `"`,
			fmt.Sprintf(`syncrepl rid=001 provider=%s type=refreshAndPersist retry="1 +" searchbase="%s" bindmethod=simple`, provider.URL(), w.Base)})
		if err != nil {
			return nil, nil, err
		}
		urls = append(urls, s.URL())
	}
	if readers, err = b.readers(urls); err != nil {
		return nil, nil, err
	}
	return writer, readers, readers.wait(ctx, last, store.Good)
}

// copy adds every entry below base of another directory, and returns the name of
// the last one that is good.
func (d *directories) copy(from *ldap.Conn, base string) (last string, err error) {
	entries, err := below(from, base)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if err := d.add(e); err != nil {
			return "", err
		}
		if e.GetAttributeValue("hufuStatus") == store.Good.String() {
			last = e.DN
		}
	}
	return last, nil
}

// below reads every entry of a directory, those above before those below.
func below(from *ldap.Conn, base string) ([]*ldap.Entry, error) {
	r, err := from.SearchWithPaging(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"*"}, nil), 1000)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.Entries, func(x, y *ldap.Entry) int { return strings.Count(x.DN, ",") - strings.Count(y.DN, ",") })
	return r.Entries, nil
}

// add adds an entry to the first directory.
func (d *directories) add(e *ldap.Entry) error {
	add := ldap.NewAddRequest(e.DN, nil)
	for _, a := range e.Attributes {
		add.Attribute(a.Name, a.Values)
	}
	if err := d.conns[0].Add(add); err != nil {
		return fmt.Errorf("%s: %w", e.DN, err)
	}
	return nil
}

// quantile is the value below which that part of all lies.
func quantile(v []float64, part float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(int(part*float64(len(v))), len(v)-1)]
}
