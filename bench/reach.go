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

	revoke := func(ctx context.Context, serial string) error {
		if _, err := n.Operator.Revoke(ctx, serial, client.Revocation{Reason: superseded}); err != nil {
			return err
		}
		return nodes.wait(ctx, dn(serial), store.Revoked)
	}
	var hufu, direct, syncrepl, busy []float64
	own, bare, far := take(trials), take(trials), take(trials)
	for i := range trials {
		for _, m := range []struct {
			times *[]float64
			f     func() error
		}{
			{&hufu, func() error { return revoke(ctx, own[i]) }},
			{&direct, func() error {
				if err := writers.write(ctx, dn(bare[i])); err != nil {
					return err
				}
				return nodes.wait(ctx, dn(bare[i]), store.Revoked)
			}},
			{&syncrepl, func() error {
				if err := provider.write(ctx, dn(far[i])); err != nil {
					return err
				}
				return replicas.wait(ctx, dn(far[i]), store.Revoked)
			}},
		} {
			began := time.Now()
			if err := m.f(); err != nil {
				return nil, err
			}
			*m.times = append(*m.times, time.Since(began).Seconds()*1e3)
		}
		if i%100 == 99 {
			b.say("  %d of %d: hufu %.1f ms, direct %.1f ms, syncrepl %.1f ms", i+1, trials, quantile(hufu, 0.5), quantile(direct, 0.5), quantile(syncrepl, 0.5))
		}
	}
	last := take(trials)
	err = n.besides(ctx, serials, func(ctx context.Context) error {
		for _, serial := range last {
			began := time.Now()
			if err := revoke(ctx, serial); err != nil {
				return err
			}
			busy = append(busy, time.Since(began).Seconds()*1e3)
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
	d := new(directories)
	b.atEnd(d.close)
	for _, u := range urls {
		c, err := ldap.DialURL(u, ldap.DialWithTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}))
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

// replication starts a provider with three replicas, all with the entries that a
// directory of the node has. It returns who writes to the provider and who reads
// from all four.
func (b *bench) replication(ctx context.Context, w *world.World, from *ldap.Conn) (writer, readers *directories, err error) {
	var files [4][]byte
	for i, name := range []string{"ldap-one.pem", "ldap-one.key", "roots.pem", filepath.Join("centre", "data", "tls", "publisher.pem")} {
		if files[i], err = os.ReadFile(filepath.Join(w.Dir, name)); err != nil {
			return nil, nil, err
		}
	}
	for block, rest := pem.Decode(files[3]); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			files[3] = pem.EncodeToMemory(block)
			break
		}
	}
	start := func(name string, modules, lines []string) (*slapd.Server, error) {
		s, err := slapd.Start(ctx, slapd.Config{Dir: filepath.Join(b.dir, name), Suffix: w.Base, Schema: ldapsync.Schema, Certificate: files[0], Key: files[1],
			ClientCA: files[2], Publisher: files[3], Modules: modules, Database: lines})
		if err == nil {
			b.atEnd(s.Stop)
		}
		return s, err
	}
	provider, err := start("provider", []string{"syncprov"}, []string{"index entryUUID,entryCSN eq", "limits anonymous size=unlimited time=unlimited", "overlay syncprov"})
	if err != nil {
		return nil, nil, err
	}
	if writer, err = b.publishers(w, []string{strings.Replace(provider.SecureURL(), "127.0.0.1", "localhost", 1)}); err != nil {
		return nil, nil, err
	}
	last, err := writer.copy(from, w.Base)
	if err != nil {
		return nil, nil, fmt.Errorf("copying the entries: %w", err)
	}
	urls := []string{provider.URL()}
	for i := range reachDirectories - 1 {
		s, err := start(fmt.Sprintf("replica-%d", i+1), nil, []string{"index entryUUID,entryCSN eq", `rootdn "cn=replica,` + w.Base + `"`,
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
	r, err := from.SearchWithPaging(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"*"}, nil), 1000)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(r.Entries, func(x, y *ldap.Entry) int { return strings.Count(x.DN, ",") - strings.Count(y.DN, ",") })
	for _, e := range r.Entries {
		add := ldap.NewAddRequest(e.DN, nil)
		for _, a := range e.Attributes {
			add.Attribute(a.Name, a.Values)
		}
		if err := d.conns[0].Add(add); err != nil {
			return "", fmt.Errorf("%s: %w", e.DN, err)
		}
		if e.GetAttributeValue("hufuStatus") == store.Good.String() {
			last = e.DN
		}
	}
	return last, nil
}

// quantile is the value below which that part of all lies.
func quantile(v []float64, part float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(int(part*float64(len(v))), len(v)-1)]
}
