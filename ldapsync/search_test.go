package ldapsync_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// What a stranger with ldapsearch, SHA-256 and the public key does. Nothing here uses package ldapsync.

// found is an entry as ldapsearch prints it.
type found struct {
	dn    string
	attrs map[string][]string // lower-case names
}

func (f *found) one(name string) string {
	if v := f.attrs[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// ldapsearch asks a directory anonymously.
func ldapsearch(t testing.TB, s server, filter string) []*found {
	t.Helper()
	out, err := exec.Command("ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-E", "pr=300/noprompt", "-H", s.URL(), "-b", base, filter).Output()
	if err != nil {
		var said []byte
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			said = e.Stderr
			if e.ExitCode() == 32 { // the base is not there
				return nil
			}
		}
		t.Fatalf("ldapsearch: %v: %s", err, said)
	}
	var all []*found
	var e *found
	for line := range strings.Lines(string(out)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if coded, isBase64 := strings.CutPrefix(value, ":"); isBase64 {
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(coded))
			if err != nil {
				t.Fatal(err)
			}
			value = string(raw)
		} else {
			value = strings.TrimPrefix(value, " ")
		}
		name = strings.ToLower(name)
		if name == "dn" {
			e = &found{dn: value, attrs: map[string][]string{}}
			all = append(all, e)
			continue
		}
		e.attrs[name] = append(e.attrs[name], value)
	}
	return all
}

// digest follows the recipe in the documentation of the digest, the slow way.
func digest(entries []*found) store.Hash {
	number := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	text := func(s string) []byte { return append(number(len(s)), s...) }
	sha := func(parts ...[]byte) []byte {
		sum := sha256.Sum256(bytes.Join(parts, nil))
		return sum[:]
	}
	buckets := make([][][]byte, 65536)
	for _, e := range entries {
		name := strings.ToLower(strings.TrimSuffix(e.dn, ","+base))
		var names []string
		for n := range e.attrs {
			switch {
			case strings.HasPrefix(n, "hufu"), n == "usercertificate;binary", n == "cacertificate;binary", n == "certificaterevocationlist;binary",
				n == "deltarevocationlist;binary":
				names = append(names, n)
			}
		}
		slices.Sort(names)
		parts := [][]byte{text(name), number(len(names))}
		for _, n := range names {
			var sums [][]byte
			for _, v := range e.attrs[n] {
				sums = append(sums, sha([]byte(v)))
			}
			slices.SortFunc(sums, bytes.Compare)
			parts = append(append(parts, text(n), number(len(sums))), sums...)
		}
		at := binary.BigEndian.Uint16(sha([]byte(name)))
		buckets[at] = append(buckets[at], sha(parts...))
	}
	var groups [][]byte
	for g := range 256 {
		var sums [][]byte
		for _, b := range buckets[g*256 : g*256+256] {
			slices.SortFunc(b, bytes.Compare)
			sums = append(sums, sha(b...))
		}
		groups = append(groups, sha(sums...))
	}
	return store.Hash(sha(groups...))
}

// statement reads the watermark, checks its signature by hand and returns its lines by their first words.
func statement(t testing.TB, s server, book string) map[string]string {
	t.Helper()
	marks := ldapsearch(t, s, "(&(objectClass=hufuWatermark)(hufuBook="+book+"))")
	if len(marks) != 1 {
		t.Fatalf("%d watermarks of the book", len(marks))
	}
	signed := marks[0].one("hufustatement")
	text, signatures, ok := strings.Cut(signed, "\n\n")
	if !ok {
		t.Fatalf("the statement is no signed note: %q", signed)
	}
	text += "\n"
	fields := strings.Fields(signatures)
	if len(fields) != 3 || fields[0] != "—" || fields[1] != strings.SplitN(text, "\n", 2)[0] {
		t.Fatalf("signature line %q", signatures)
	}
	raw, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	if !ecdsa.VerifyASN1(pki().key.Public().(*ecdsa.PublicKey), sum[:], raw[4:]) {
		t.Fatal("the statement's signature does not fit")
	}
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		lines[word] = rest
	}
	if lines["sequence"] != marks[0].one("hufuseq") {
		t.Errorf("the watermark says sequence %s, its statement %s", marks[0].one("hufuseq"), lines["sequence"])
	}
	return lines
}

// holds compares a directory that stands still with the book: every certificate with its status, nothing else, and a statement with the digest of it.
func holds(t testing.TB, s server, b *book) {
	t.Helper()
	entries := ldapsearch(t, s, "(&(objectClass=hufuEntry)(hufuBook="+b.ID()+"))")
	st := statement(t, s, b.ID())
	if got := digest(entries); hex.EncodeToString(got[:]) != st["digest"] {
		t.Errorf("the directory's %d entries have the digest %s, its statement says %s over %s", len(entries), got, st["digest"], st["entries"])
	}
	bySerial := map[string]*found{}
	cas := map[string]*found{}
	for _, e := range entries {
		if serial := e.one("hufuserial"); serial != "" {
			if bySerial[serial] != nil {
				t.Errorf("serial number %s is there twice", serial)
			}
			bySerial[serial] = e
		} else {
			cas[e.one("ou")] = e
		}
	}
	err := b.View(t.Context(), func(tx *store.Tx) error {
		for status, err := range store.Statuses.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			e := bySerial[status.Serial.String()]
			delete(bySerial, status.Serial.String())
			if e == nil {
				t.Errorf("serial number %s (%s) is missing", status.Serial, status.State)
				continue
			}
			if e.one("hufustatus") != status.State.String() {
				t.Errorf("serial number %s is %s in the book and %s in the directory", status.Serial, status.State, e.one("hufustatus"))
			}
			if status.Unissued {
				continue
			}
			cert, err := store.FindCertificate(tx, status.CA, status.Serial)
			if err != nil {
				return err
			}
			if e.one("usercertificate;binary") != string(cert.DER) || e.one("hufureader") != cert.Reader {
				t.Errorf("the entry of %s has another certificate", status.Serial)
			}
		}
		for ca, err := range store.CAs.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if e := cas[ca.ID]; e == nil || e.one("cacertificate;binary") != string(ca.Certificate) {
				t.Errorf("CA %s is not in the directory as it should be", ca.ID)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for serial := range bySerial {
		t.Errorf("serial number %s is in the directory and not in the book", serial)
	}
}

// dial connects as anybody can.
func dial(t testing.TB, s server) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(30 * time.Second)
	t.Cleanup(func() { c.Close() })
	return c
}

// statusIn asks for one certificate by its serial number; "" when it is not there.
func statusIn(t testing.TB, c *ldap.Conn, cert *store.Certificate) string {
	t.Helper()
	r, err := c.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, 0, 1, 0, false, "(hufuSerial="+cert.Serial.String()+")", []string{"hufuStatus"}, nil))
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		t.Fatal(err)
	}
	if err != nil || len(r.Entries) == 0 {
		return ""
	}
	return r.Entries[0].GetAttributeValue("hufuStatus")
}

// newModify begins a change of a certificate's entry.
func newModify(cert *store.Certificate) *ldap.ModifyRequest {
	return ldap.NewModifyRequest("hufuSerial="+cert.Serial.String()+",ou=certificates,ou="+cert.CA+","+base, nil)
}
