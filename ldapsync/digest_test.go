package ldapsync_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/ldapsync"
	"hufu/store"
)

// TestTree: whatever the order and the detours, the digest depends on what is there in the end.
func TestTree(t *testing.T) {
	for range 10 * soak() {
		kept := map[string]store.Hash{}
		grown := new(ldapsync.Tree)
		var copied *ldapsync.Tree
		var was store.Hash
		for range rand.IntN(300) {
			name := fmt.Sprintf("hufuSerial=%d", rand.IntN(100))
			sum := store.Sum([]byte{byte(rand.IntN(256))})
			kept[name] = sum
			grown.Set(strings.ToUpper(name), sum)
			switch rand.IntN(50) {
			case 0:
				grown.Root()
			case 1:
				copied = grown.Clone()
				was = copied.Root()
			}
		}
		fresh := new(ldapsync.Tree)
		for name, sum := range kept {
			fresh.Set(name, sum)
		}
		if grown.Root() != fresh.Root() || grown.Len() != int64(len(kept)) {
			t.Fatalf("%d entries, grown %s, made anew %s", len(kept), grown.Root(), fresh.Root())
		}
		if copied != nil && copied.Root() != was {
			t.Fatal("a copy changed with the original")
		}
		fresh.Set("one more", store.Hash{})
		if fresh.Root() == grown.Root() {
			t.Fatal("one more entry does not show in the digest")
		}
	}
}

// TestEntryDigest: what must not matter does not, what must does.
func TestEntryDigest(t *testing.T) {
	entry := func(name string, attributes ...string) store.Hash {
		e := &ldapsync.Entry{Name: name}
		for i := 0; i < len(attributes); i += 2 {
			var values [][]byte
			for v := range strings.SplitSeq(attributes[i+1], "|") {
				values = append(values, []byte(v))
			}
			e.Attributes = append(e.Attributes, ldapsync.Attribute{Type: attributes[i], Values: values})
		}
		return e.Digest()
	}
	want := entry("ou=1", "hufuSeq", "5", "userCertificate;binary", "x|y")
	for what, got := range map[string]store.Hash{
		"the order of attributes":    entry("ou=1", "userCertificate;binary", "x|y", "hufuSeq", "5"),
		"the order of values":        entry("ou=1", "hufuSeq", "5", "userCertificate;binary", "y|x"),
		"capital letters in names":   entry("OU=1", "HUFUSEQ", "5", "usercertificate;BINARY", "x|y"),
		"the option ;binary":         entry("ou=1", "hufuSeq", "5", "userCertificate", "x|y"),
		"attributes of other people": entry("ou=1", "hufuSeq", "5", "userCertificate;binary", "x|y", "description", "z", "entryUUID", "u"),
	} {
		if got != want {
			t.Errorf("%s changes the digest", what)
		}
	}
	for what, got := range map[string]store.Hash{
		"the name":                   entry("ou=2", "hufuSeq", "5", "userCertificate;binary", "x|y"),
		"a value":                    entry("ou=1", "hufuSeq", "6", "userCertificate;binary", "x|y"),
		"capital letters in a value": entry("ou=1", "hufuSeq", "5", "userCertificate;binary", "X|y"),
		"a missing value":            entry("ou=1", "hufuSeq", "5", "userCertificate;binary", "x"),
		"a missing attribute":        entry("ou=1", "hufuSeq", "5"),
		"where a value stands":       entry("ou=1", "hufuSeq", "5|x", "userCertificate;binary", "y"),
	} {
		if got == want {
			t.Errorf("%s does not change the digest", what)
		}
	}
}

func TestStatement(t *testing.T) {
	key := testpki.Must(testpki.Key())
	st := &ldapsync.Statement{
		Book: strings.Repeat("0f", 16), Epoch: 1763900000123, Seq: 77, Time: time.Now().UTC().Truncate(time.Millisecond),
		Journal: store.Tree{Size: 80, Root: store.Sum([]byte("root"))}, Entries: 12, Digest: store.Sum([]byte("digest")),
	}
	for _, filling := range []bool{false, true} {
		if filling {
			st.Entries, st.Digest = 0, store.Hash{}
		}
		signed, err := st.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ldapsync.ParseStatement(signed, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if *back != *st {
			t.Errorf("read back %+v, want %+v", back, st)
		}
		if _, err := ldapsync.ParseStatement(signed, testpki.Must(testpki.Key()).Public()); err == nil {
			t.Error("another key's statement is believed")
		}
		for i := range signed {
			changed := append([]byte(nil), signed...)
			changed[i] ^= 1
			if back, err := ldapsync.ParseStatement(changed, key.Public()); err == nil && *back != *st {
				t.Fatalf("a statement with octet %d changed is believed", i)
			}
		}
	}
	if p384, err := st.Sign(testpki.Must(ecdsa.GenerateKey(elliptic.P384(), cryptorand.Reader))); err != nil {
		t.Errorf("a P-384 key: %v, %s", err, p384)
	}
	if _, err := st.Sign(testpki.Must(rsa.GenerateKey(cryptorand.Reader, 2048))); err == nil {
		t.Error("an RSA key signs statements")
	}
}

// TestSchemaNumbers: the schema lies where package oid says.
func TestSchemaNumbers(t *testing.T) {
	for _, want := range []string{"objectidentifier hufu           " + oid.HufuString + "\n", "hufuAttribute  hufu:" + strings.TrimPrefix(oid.LDAPAttributesString, oid.HufuString+".") + "\n",
		"hufuClass      hufu:" + strings.TrimPrefix(oid.LDAPClassesString, oid.HufuString+".") + "\n"} {
		if !strings.Contains(string(ldapsync.Schema), want) {
			t.Errorf("the schema does not say %q", want)
		}
	}
}

// FuzzName: a CA and a serial number make one name, and the name leads back to them.
func FuzzName(f *testing.F) {
	f.Add("330100.2", "12345678901234567", "o=Hufu,c=CN")
	f.Add(` a,b+c="d"\#`, "\x01", `o=H\,u,c=CN`)
	f.Fuzz(func(t *testing.T, ca, serial, base string) {
		var s store.Serial
		copy(s[:], serial)
		s[0] = 1 // as every serial number of Hufu begins
		if ca == "" || strings.ContainsRune(ca, 0) || !utf8.ValidString(ca) || !utf8.ValidString(base) {
			return
		}
		dn, backCA, backSerial, normalised, err := ldapsync.NameOf(ca, string(s[:]), base)
		if err != nil {
			return // the base is no name
		}
		if backCA != ca || backSerial != string(s[:]) {
			t.Errorf("%q leads to CA %q, serial number %x", dn, backCA, backSerial)
		}
		if want := strings.ToLower(strings.TrimSuffix(dn, ","+base)); normalised != want {
			t.Errorf("%q is named %q, want %q", dn, normalised, want)
		}
	})
}
