package slapd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/internal/slapd"
)

// pki is one CA with a server and two clients, as PEM.
type pki struct {
	ca, server, serverKey, publisher, publisherKey, stranger, strangerKey, foreign []byte
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	caKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(name pkix.Name) (cert, key []byte) {
		k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		p8, _ := x509.MarshalPKCS8PrivateKey(k)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})
	}
	p := &pki{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})}
	p.server, p.serverKey = leaf(pkix.Name{CommonName: "directory"})
	// Every character that a DN or slapd.conf treats in a way of its own.
	p.publisher, p.publisherKey = leaf(pkix.Name{CommonName: `the "publisher", node+1 \ #2`, Organization: []string{"Hufu"}})
	p.stranger, p.strangerKey = leaf(pkix.Name{CommonName: "stranger", Organization: []string{"Hufu"}})
	p.foreign, _ = leaf(pkix.Name{CommonName: "虎符"})
	return p
}

func schema(t *testing.T) []byte {
	t.Helper()
	s, err := os.ReadFile("../../ldapsync/schema/hufu.schema")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, p *pki) *slapd.Server {
	t.Helper()
	s, err := slapd.Start(t.Context(), slapd.Config{
		Dir: filepath.Join(t.TempDir(), "a folder"), Suffix: "o=Hufu,c=CN", Schema: schema(t),
		Certificate: p.server, Key: p.serverKey, ClientCA: p.ca, Publisher: p.publisher,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func tlsConfig(t *testing.T, p *pki, cert, key []byte) *tls.Config {
	t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}
	cfg.RootCAs.AppendCertsFromPEM(p.ca)
	if cert != nil {
		c, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{c}
	}
	return cfg
}

func dial(t *testing.T, url string, cfg *tls.Config) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(url, ldap.DialWithTLSConfig(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetTimeout(30 * time.Second)
	return c
}

func add(c *ldap.Conn, dn, class string) error {
	return c.Add(&ldap.AddRequest{DN: dn, Attributes: []ldap.Attribute{{Type: "objectClass", Vals: []string{class}}}})
}

func entries(t *testing.T, c *ldap.Conn) int {
	t.Helper()
	r, err := c.SearchWithPaging(ldap.NewSearchRequest("o=Hufu,c=CN", ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=*)", []string{"1.1"}, nil), 100)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Entries)
}

func TestOnlyThePublisherWrites(t *testing.T) {
	p := newPKI(t)
	s := start(t, p)

	anonymous := dial(t, s.SecureURL(), tlsConfig(t, p, nil, nil))
	if err := add(anonymous, "o=Hufu,c=CN", "organization"); err == nil {
		t.Error("somebody without a certificate may write")
	}
	stranger := dial(t, s.SecureURL(), tlsConfig(t, p, p.stranger, p.strangerKey))
	if err := stranger.ExternalBind(); err != nil {
		t.Fatal(err)
	}
	if err := add(stranger, "o=Hufu,c=CN", "organization"); !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
		t.Errorf("a stranger's write: %v, want insufficient access rights", err)
	}

	first := dial(t, s.SecureURL(), tlsConfig(t, p, p.publisher, p.publisherKey))
	if err := first.ExternalBind(); err != nil {
		t.Fatal(err)
	}
	if err := add(first, "o=Hufu,c=CN", "organization"); err != nil {
		t.Fatal(err)
	}
	over := map[string]*ldap.Conn{
		"ldaps":    dial(t, s.SecureURL(), tlsConfig(t, p, p.publisher, p.publisherKey)),
		"StartTLS": dial(t, s.URL(), nil),
	}
	if err := over["StartTLS"].StartTLS(tlsConfig(t, p, p.publisher, p.publisherKey)); err != nil {
		t.Fatal(err)
	}
	for name, c := range over {
		if err := c.ExternalBind(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		who, err := c.WhoAmI(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: the publisher is %s", name, who.AuthzID)
		if err := add(c, "ou=x,o=Hufu,c=CN", "organizationalUnit"); err != nil {
			t.Errorf("%s: the publisher may not write: %v", name, err)
		}
		if err := c.Del(&ldap.DelRequest{DN: "ou=x,o=Hufu,c=CN"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPagesOfAnyLength(t *testing.T) {
	p := newPKI(t)
	s := start(t, p)
	c := dial(t, s.SecureURL(), tlsConfig(t, p, p.publisher, p.publisherKey))
	if err := c.ExternalBind(); err != nil {
		t.Fatal(err)
	}
	if err := add(c, "o=Hufu,c=CN", "organization"); err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		if err := add(c, "ou="+big.NewInt(int64(i)).String()+",o=Hufu,c=CN", "organizationalUnit"); err != nil {
			t.Fatal(err)
		}
	}
	everyone := dial(t, s.URL(), nil)
	if n := entries(t, everyone); n != 601 {
		t.Errorf("anyone can read %d entries page by page, want 601", n)
	}
}

// TestLife stops, kills, restarts and reverts a server, and looks that what was answered is there and nobody is left behind.
func TestLife(t *testing.T) {
	p := newPKI(t)
	s := start(t, p)
	write := func(dn, class string) {
		t.Helper()
		c := dial(t, s.SecureURL(), tlsConfig(t, p, p.publisher, p.publisherKey))
		if err := c.ExternalBind(); err != nil {
			t.Fatal(err)
		}
		if err := add(c, dn, class); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int { t.Helper(); return entries(t, dial(t, s.URL(), nil)) }
	url, secure := s.URL(), s.SecureURL()

	write("o=Hufu,c=CN", "organization")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if s.Pid() != 0 {
		t.Error("a killed server has a process")
	}
	if _, err := net.Dial("tcp", url[len("ldap://"):]); err == nil {
		t.Error("a killed server answers")
	}
	old := filepath.Join(t.TempDir(), "old")
	if err := s.Snapshot(old); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.URL() != url || s.SecureURL() != secure {
		t.Error("a restarted server has other addresses")
	}
	if n := count(); n != 1 {
		t.Fatalf("after a SIGKILL %d entries, want 1", n)
	}
	if err := s.Snapshot(old); err == nil {
		t.Error("the database of a running server is copied")
	}
	write("ou=later,o=Hufu,c=CN", "organizationalUnit")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Revert(t.TempDir()); err == nil {
		t.Error("an empty folder is taken for a copy of the database")
	}
	if err := s.Revert(old); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 {
		t.Fatalf("after going back to the copy %d entries, want 1", n)
	}
}

func TestPause(t *testing.T) {
	p := newPKI(t)
	s := start(t, p)
	c := dial(t, s.URL(), nil)
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(50 * time.Millisecond)
	if _, err := c.WhoAmI(nil); err == nil {
		t.Error("a paused server answers")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, s.URL(), nil)
	if n := entries(t, c); n != 0 {
		t.Errorf("%d entries in a new server", n)
	}
	// A paused server still stops.
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	p := newPKI(t)
	good := slapd.Config{Suffix: "o=Hufu,c=CN", Schema: schema(t), Certificate: p.server, Key: p.serverKey, ClientCA: p.ca, Publisher: p.publisher}
	for name, spoil := range map[string]func(*slapd.Config){
		"no certificate": func(c *slapd.Config) { c.Certificate = nil },
		"no publisher":   func(c *slapd.Config) { c.Publisher = nil },
		"other letters":  func(c *slapd.Config) { c.Publisher = p.foreign },
		"wrong key":      func(c *slapd.Config) { c.Key = p.publisherKey },
		"broken schema":  func(c *slapd.Config) { c.Schema = []byte("attributetype ( nonsense") },
		"bad suffix":     func(c *slapd.Config) { c.Suffix = "no name" },
	} {
		cfg := good
		cfg.Dir = t.TempDir()
		spoil(&cfg)
		s, err := slapd.Start(t.Context(), cfg)
		if err == nil {
			s.Stop()
			t.Errorf("%s: the server starts", name)
			continue
		}
		t.Logf("%s: %v", name, err)
	}
}

// TestManyAtOnce: no two servers get the same port, and none is left when the context of its start has long ended.
func TestManyAtOnce(t *testing.T) {
	p := newPKI(t)
	const n = 8
	type result struct {
		s   *slapd.Server
		err error
	}
	results := make(chan result)
	ctx, cancel := context.WithCancel(t.Context())
	schema := schema(t)
	for range n {
		dir := t.TempDir()
		go func() {
			s, err := slapd.Start(ctx, slapd.Config{
				Dir: dir, Suffix: "o=Hufu,c=CN", Schema: schema,
				Certificate: p.server, Key: p.serverKey, ClientCA: p.ca, Publisher: p.publisher,
			})
			results <- result{s, err}
		}()
	}
	seen := map[string]bool{}
	var all []*slapd.Server
	for range n {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		if seen[r.s.URL()] || seen[r.s.SecureURL()] {
			t.Errorf("two servers at %s", r.s.URL())
		}
		seen[r.s.URL()], seen[r.s.SecureURL()] = true, true
		all = append(all, r.s)
	}
	cancel()
	for _, s := range all {
		pid := s.Pid()
		entries(t, dial(t, s.URL(), nil))
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join("/proc", big.NewInt(int64(pid)).String())); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
}
