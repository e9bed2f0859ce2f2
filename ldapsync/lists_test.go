package ldapsync_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/store"
)

// publishList records a list of a CA that names nobody; what is in it is not this package's business.
func (b *book) publishList(id string, shard uint16, delta bool) []byte {
	b.t.Helper()
	b.crls++
	now := time.Now().UTC().Truncate(time.Second)
	ca := pki().CA(id)
	der := testpki.Must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(b.crls), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
	}, testpki.Must(x509.ParseCertificate(ca.Record.Certificate)), ca.Signer))
	b.update(func(tx *store.Tx) error {
		c := &store.CRL{CA: id, Shard: shard, Delta: delta, Number: uint64(b.crls), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: id})
		return store.PutCRL(tx, c, bytes.NewReader(der))
	})
	return der
}

// TestShards: each shard's list has an entry below its CA, with its delta beside it, and a list that changes leaves the others alone.
func TestShards(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	b.issue("330100", 3)
	one, three := b.publishList("330100", 1, false), b.publishList("330100", 3, false)
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")
	holds(t, north, b)
	list := func(filter, attribute string) string {
		t.Helper()
		e := ldapsearch(t, north, filter)
		if len(e) != 1 {
			t.Fatalf("%d entries %s", len(e), filter)
		}
		return e[0].one(attribute)
	}
	const full, delta = "certificaterevocationlist;binary", "deltarevocationlist;binary"
	if list("(&(objectClass=cRLDistributionPoint)(cn=1))", full) != string(one) || list("(&(objectClass=cRLDistributionPoint)(cn=3))", full) != string(three) {
		t.Error("the lists of the shards are not in their entries")
	}
	whole, change := b.publishList("330100", 0, false), b.publishList("330100", 1, true)
	p.inStep(t, b, "north")
	holds(t, north, b)
	if list("(&(objectClass=cRLDistributionPoint)(cn=1))", delta) != string(change) || list("(&(objectClass=pkiCA)(ou=330100))", full) != string(whole) {
		t.Error("a later list or delta did not follow")
	}
	// A full list that is newer than the delta takes its place.
	one = b.publishList("330100", 1, false)
	p.inStep(t, b, "north")
	holds(t, north, b)
	if list("(&(objectClass=cRLDistributionPoint)(cn=1))", delta) != "" || list("(&(objectClass=cRLDistributionPoint)(cn=1))", full) != string(one) {
		t.Error("the old delta still stands beside the new list")
	}
	// A worker that finds nothing to start from computes the same digest as the one that wrote it.
	p.stop()
	p = publish(t, b, "n1", directory("north", north))
	b.publishList("330100", 3, false)
	p.inStep(t, b, "north")
	holds(t, north, b)
	if s := p.of("north"); s.Repairs != 0 {
		t.Errorf("%d repairs where nobody else wrote", s.Repairs)
	}
}

// TestDirmngr: GnuPG's directory manager fetches a full CRL from a directory, checks it and keeps it. The CA has an RSA key: dirmngr 2.2
// fetches lists with ECDSA signatures too, but cannot check them.
func TestDirmngr(t *testing.T) {
	key := testpki.Must(rsa.GenerateKey(rand.Reader, 2048))
	now := time.Now().UTC().Truncate(time.Second)
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Old CA"}, SubjectKeyId: []byte{1, 2, 3, 4}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	self.Raw = testpki.Must(x509.CreateCertificate(rand.Reader, self, self, key.Public(), key))
	self = testpki.Must(x509.ParseCertificate(self.Raw))
	revoked := store.Serial{0x4a, 15: 7}
	list := testpki.Must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.BigInt(), RevocationTime: now, ReasonCode: 1}},
	}, self, key))

	b := newBookOf(t, "root")
	north := startDirectory(t)
	b.update(func(tx *store.Tx) error {
		ca := store.CA{ID: "old", Line: "old", Generation: 1, Kind: "city", State: "active", Certificate: self.Raw, SPKI: store.Sum(self.RawSubjectPublicKeyInfo)}
		ca.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: ca.ID})
		if err := store.CAs.Insert(tx, &ca); err != nil {
			return err
		}
		c := &store.CRL{CA: ca.ID, Number: 1, ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: 1}
		c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: ca.ID})
		return store.PutCRL(tx, c, bytes.NewReader(list))
	})
	p := publish(t, b, "n1", directory("north", north))
	p.inStep(t, b, "north")

	home := t.TempDir()
	for _, dir := range []string{"bin", "trusted-certs"} {
		if err := os.Mkdir(filepath.Join(home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(home, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It looks for trusted certificates below /etc only, unless a file beside the program says otherwise.
	program, err := exec.LookPath("dirmngr")
	if err != nil {
		t.Fatal("dirmngr is not there; install it with: apt-get install dirmngr")
	}
	copyFile(t, program, filepath.Join(home, "bin", "dirmngr"))
	if err := os.Chmod(filepath.Join(home, "bin", "dirmngr"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("bin/gpgconf.ctl", []byte("rootdir = /usr\nsysconfdir = "+home+"\n"))
	write("trusted-certs/old.crt", self.Raw)
	dirmngr := func(args ...string) (string, error) {
		out, err := exec.Command(filepath.Join(home, "bin", "dirmngr"), append([]string{"--homedir", home, "--ldap-wrapper-program", "/usr/lib/gnupg/dirmngr_ldap"}, args...)...).CombinedOutput()
		return string(out), err
	}
	said, err := dirmngr("--fetch-crl", north.URL()+"/ou=old,"+base+"?certificateRevocationList;binary")
	if err != nil {
		t.Fatalf("dirmngr --fetch-crl: %v\n%s", err, said)
	}
	cached, err := dirmngr("--list-crls")
	if err != nil || !strings.Contains(strings.ToLower(cached), revoked.String()) {
		t.Errorf("dirmngr does not know the revoked serial number %s: %v\n%s\n%s", revoked, err, said, cached)
	}
}
