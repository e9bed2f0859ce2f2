package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/store"
	"hufu/store/bolt"
)

var ctx = context.Background()

// engine opens a fresh engine in a file of its own.
func engine(t testing.TB) store.Engine { return engineAt(t, filepath.Join(t.TempDir(), "book")) }

func engineAt(t testing.TB, path string) store.Engine {
	t.Helper()
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// create begins a book that is checked and closed when the test ends.
func create(t testing.TB, tables ...store.Checked) *store.Book {
	t.Helper()
	b, err := store.Create(ctx, store.Config{Engine: engine(t), Tables: tables})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		check(t, b)
		closeBook(t, b)
	})
	return b
}

func check(t testing.TB, b *store.Book) {
	t.Helper()
	if err := b.Check(ctx, nil); err != nil {
		t.Error(err)
	}
}

func closeBook(t testing.TB, b *store.Book) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func update(t testing.TB, b *store.Book, f func(tx *store.Tx) error) {
	t.Helper()
	if err := b.Update(ctx, f); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, b *store.Book, f func(tx *store.Tx) error) {
	t.Helper()
	if err := b.View(ctx, f); err != nil {
		t.Fatal(err)
	}
}

// append1 adds one event of that kind.
func append1(kind string) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: kind})
		return nil
	}
}

func serial() (s store.Serial) {
	rand.Read(s[:])
	s[0] = 1
	return s
}

// mint makes real certificates quickly: one signed by a real key, whose serial number and key identifier are replaced since nobody here looks
// at the signature.
type mint struct {
	der    []byte
	serial []byte // where in der
	spki   []byte
}

func newMint(t testing.TB) *mint {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number := serial()
	template := &x509.Certificate{SerialNumber: number.BigInt(), Subject: pkix.Name{CommonName: "r100.330100.readers.card.example"},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_800_000_000, 0), DNSNames: []string{"r100.330100.readers.card.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	m := &mint{der: der}
	input := cryptobyte.String(der)
	var outer, tbs, spki, n cryptobyte.String
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1(&tbs, asn1.SEQUENCE) || !tbs.SkipASN1(asn1.Tag(0).Constructed().ContextSpecific()) ||
		!tbs.ReadASN1(&n, asn1.INTEGER) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.SkipASN1(asn1.SEQUENCE) ||
		!tbs.SkipASN1(asn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, asn1.SEQUENCE) {
		t.Fatal("the certificate cannot be taken apart")
	}
	m.serial, m.spki = n, spki
	return m
}

// certificate returns a certificate with a new serial number and a new key, and the intent that goes before it.
func (m *mint) certificate(ca string) (*store.Certificate, *store.Intent) {
	number := serial()
	copy(m.serial, number[:])
	rand.Read(m.spki[len(m.spki)-64:]) // the point
	der := append([]byte(nil), m.der...)
	c := &store.Certificate{CA: ca, Serial: number, DER: der, Profile: "reader-sign", Subject: "CN=r100.330100.readers.card.example",
		Line: "r100/" + number.String(), Reader: "r100." + number.String()[2:6], City: "330100", Requester: "operator",
		Names: []string{"r100.330100.readers.card.example"}, SPKI: store.Sum(m.spki), NotBefore: time.Unix(1_700_000_000, 0).UTC(),
		NotAfter: time.Unix(1_800_000_000, 0).UTC()}
	input := cryptobyte.String(der)
	var outer, tbs cryptobyte.String
	input.ReadASN1(&outer, asn1.SEQUENCE)
	outer.ReadASN1Element(&tbs, asn1.SEQUENCE)
	i := &store.Intent{CA: ca, Serial: number, TBSHash: sha256.Sum256(tbs), SPKI: c.SPKI, Requester: c.Requester, Profile: c.Profile, Line: c.Line,
		Node: "node-1", Time: time.Unix(1_700_000_000, 0).UTC()}
	return c, i
}

// reserve and commit are what an issuance does to the book, in its two transactions.
func reserve(tx *store.Tx, i *store.Intent) error {
	i.Seq = tx.Append(store.Event{Kind: store.KindIntent, CA: i.CA, Serial: i.Serial, Actor: i.Requester})
	return store.Intents.Insert(tx, i)
}

func commit(tx *store.Tx, c *store.Certificate) error {
	c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial, Actor: c.Requester})
	if err := store.Certificates.Insert(tx, c); err != nil {
		return err
	}
	return store.Statuses.Insert(tx, &store.Status{CA: c.CA, Serial: c.Serial, State: store.Good, Time: tx.Now(), NotAfter: c.NotAfter, Seq: c.Seq})
}

// issue puts n certificates of that CA into the book, in one go.
func issue(t testing.TB, b *store.Book, ca string, n int) []*store.Certificate {
	t.Helper()
	m := newMint(t)
	certs := make([]*store.Certificate, n)
	update(t, b, func(tx *store.Tx) error {
		for j := range certs {
			c, i := m.certificate(ca)
			certs[j] = c
			if err := reserve(tx, i); err != nil {
				return err
			}
			if err := commit(tx, c); err != nil {
				return err
			}
		}
		return nil
	})
	return certs
}

// setState moves a certificate to another state.
func setState(tx *store.Tx, c *store.Certificate, state store.State, kind string) error {
	s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
	if err != nil {
		return err
	}
	s.State, s.Time = state, tx.Now()
	s.Seq = tx.Append(store.Event{Kind: kind, CA: c.CA, Serial: c.Serial})
	return store.Statuses.Put(tx, s)
}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// contents returns every key and value in a file, in order.
func contents(t testing.TB, path string) (all []byte) {
	t.Helper()
	e := engineAt(t, path)
	defer e.Close()
	err := e.View(ctx, func(s store.Snapshot) error {
		for pair, err := range s.Scan(nil, nil, false) {
			if err != nil {
				return err
			}
			all = fmt.Appendf(all, "%x=%x\n", pair.Key, pair.Value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
