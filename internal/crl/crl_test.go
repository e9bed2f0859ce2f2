package crl_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/internal/crl"
	"hufu/internal/oid"
)

// authority is a CA that signs lists.
type authority struct {
	cert      *x509.Certificate
	key       crypto.Signer
	algorithm []byte
	hash      crypto.Hash
}

func newAuthority(t testing.TB, key crypto.Signer, algorithm asn1.ObjectIdentifier, h crypto.Hash) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Hufu"}, CommonName: "test CA"}, SubjectKeyId: []byte("0123456789abcdefghij"),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	identifier := pkix.AlgorithmIdentifier{Algorithm: algorithm}
	if _, ok := key.(*rsa.PrivateKey); ok {
		identifier.Parameters = asn1.NullRawValue
	}
	der, err := asn1.Marshal(identifier)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: certify(t, template, key), key: key, algorithm: der, hash: h}
}

func certify(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newP256(t testing.TB) *authority {
	t.Helper()
	return newAuthority(t, newKey(t, elliptic.P256()), oid.SignatureECDSASHA256, crypto.SHA256)
}

func (a *authority) template() *crl.Template {
	at := time.Now().UTC().Truncate(time.Second)
	return &crl.Template{Algorithm: a.algorithm, Issuer: a.cert.RawSubject, AuthorityKeyID: a.cert.SubjectKeyId, ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour), Number: 1_700_000_000_000}
}

func (a *authority) encode(w io.Writer, t *crl.Template, entries iter.Seq2[crl.Entry, error]) (int, error) {
	h := sha256.New()
	if a.hash == crypto.SHA384 {
		h = sha512.New384()
	}
	return crl.Encode(w, t, entries, h, func(digest []byte) ([]byte, error) { return a.key.Sign(rand.Reader, digest, a.hash) })
}

func (a *authority) mustEncode(t testing.TB, template *crl.Template, entries iter.Seq2[crl.Entry, error]) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := a.encode(&b, template, entries); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func list(entries ...crl.Entry) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// many yields n entries, of which a third each carries a reason, a reason and an
// invalidity date, or neither. It reuses the serial's octets, as a table does.
func many(n int) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		serial := make([]byte, 17)
		serial[0] = 1
		for i := range n {
			serial[14], serial[15], serial[16] = byte(i>>16), byte(i>>8), byte(i)
			e := crl.Entry{Serial: serial, RevokedAt: at.Add(time.Duration(i) * time.Second)}
			if i%3 > 0 {
				e.Reason = 1
			}
			if i%3 > 1 {
				e.InvalidityDate = at
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func date(year int) time.Time { return time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC) }

var sample = []crl.Entry{
	{Serial: []byte{1}, RevokedAt: date(2025)},
	{Serial: slices.Concat([]byte{1}, bytes.Repeat([]byte{0xff}, 16)), RevokedAt: date(2025), Reason: 6},
	{Serial: []byte{0, 0x80}, RevokedAt: date(2049), Reason: 1, InvalidityDate: date(2024)},
	{Serial: []byte{2}, RevokedAt: date(2050), InvalidityDate: date(2051)},
	{Serial: []byte{3}, RevokedAt: date(1999), Reason: 10},
	{Serial: bytes.Repeat([]byte{0x7f}, 20), RevokedAt: date(2050), Reason: 5, InvalidityDate: date(2050)},
}

func TestReadByTheStandardLibrary(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*authority{
		"P-256": newP256(t),
		"P-384": newAuthority(t, newKey(t, elliptic.P384()), oid.SignatureECDSASHA384, crypto.SHA384),
		"RSA":   newAuthority(t, rsaKey, oid.SignatureRSASHA256, crypto.SHA256),
	} {
		for _, n := range []int{0, 1, 3, len(sample)} {
			template := a.template()
			got, err := x509.ParseRevocationList(a.mustEncode(t, template, list(sample[:n]...)))
			if err != nil {
				t.Fatalf("%s, %d entries: %v", name, n, err)
			}
			if err := got.CheckSignatureFrom(a.cert); err != nil {
				t.Errorf("%s, %d entries: %v", name, n, err)
			}
			if len(got.RevokedCertificateEntries) != n || got.Number.Uint64() != template.Number || !got.ThisUpdate.Equal(template.ThisUpdate) ||
				!got.NextUpdate.Equal(template.NextUpdate) || !bytes.Equal(got.AuthorityKeyId, template.AuthorityKeyID) {
				t.Errorf("%s: read as %+v", name, got)
			}
			for i, e := range got.RevokedCertificateEntries {
				want := sample[i]
				if e.SerialNumber.Cmp(new(big.Int).SetBytes(want.Serial)) != 0 || !e.RevocationTime.Equal(want.RevokedAt) || e.ReasonCode != want.Reason {
					t.Errorf("%s: entry %d is read as %+v", name, i, e)
				}
			}
			if n == 0 && got.RevokedCertificateEntries != nil {
				t.Error("an empty list has revokedCertificates")
			}
		}
	}
}

// TestSameAsTheStandardLibrary: where crypto/x509 can say the same, it says it in
// the same octets.
func TestSameAsTheStandardLibrary(t *testing.T) {
	a := newP256(t)
	template := a.template()
	var entries []x509.RevocationListEntry
	var ours []crl.Entry
	for _, e := range sample {
		if e.InvalidityDate.IsZero() {
			entries = append(entries, x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(e.Serial), RevocationTime: e.RevokedAt, ReasonCode: e.Reason})
			ours = append(ours, e)
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: new(big.Int).SetUint64(template.Number), ThisUpdate: template.ThisUpdate,
		NextUpdate: template.NextUpdate, RevokedCertificateEntries: entries}, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := x509.ParseRevocationList(a.mustEncode(t, template, list(ours...)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mine.RawTBSRevocationList, theirs.RawTBSRevocationList) {
		t.Errorf("we sign\n%x, crypto/x509\n%x", mine.RawTBSRevocationList, theirs.RawTBSRevocationList)
	}
}

// parsed is what comes back: the list and its entries.
func parsed(r io.Reader) (*crl.List, []crl.Entry, error) {
	var entries []crl.Entry
	l, err := crl.Parse(r, func(e crl.Entry) error {
		e.Serial = bytes.Clone(e.Serial)
		entries = append(entries, e)
		return nil
	})
	return l, entries, err
}

func TestRoundTrip(t *testing.T) {
	a := newP256(t)
	full, delta, users, cas := a.template(), a.template(), a.template(), a.template()
	full.Freshest = []string{"http://pki.card.example/crl/330100-delta.crl", "http://b.example/d.crl"}
	full.Point = &crl.Point{URIs: []string{"http://pki.card.example/crl/330100.crl"}}
	delta.Delta, delta.Base = true, delta.Number-1
	users.Point = &crl.Point{URIs: []string{"http://pki.card.example/crl/330100.crl"}, OnlyUsers: true}
	cas.Point, cas.NextUpdate = &crl.Point{OnlyCAs: true}, date(2050)
	for name, template := range map[string]*crl.Template{"plain": a.template(), "full": full, "delta": delta, "users": users, "CAs": cas} {
		entries := sample
		if template.Delta {
			entries = append(slices.Clone(sample), crl.Entry{Serial: []byte{9}, RevokedAt: date(2025), Reason: 8})
		}
		der := a.mustEncode(t, template, list(entries...))
		if _, err := x509.ParseRevocationList(der); err != nil {
			t.Errorf("%s: crypto/x509: %v", name, err)
		}
		l, got, err := parsed(slowly(der))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := l.CheckSignature(a.cert.Raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.EqualFunc(got, entries, sameEntry) || l.Entries != len(entries) {
			t.Errorf("%s: the entries came back as %+v", name, got)
		}
		base := uint64(0)
		if l.Base != nil {
			base = l.Base.Uint64()
		}
		if l.Number.Uint64() != template.Number || base != template.Base || (l.Base != nil) != template.Delta || !l.ThisUpdate.Equal(template.ThisUpdate) ||
			!l.NextUpdate.Equal(template.NextUpdate) || !bytes.Equal(l.Issuer, template.Issuer) || !bytes.Equal(l.AuthorityKeyID, template.AuthorityKeyID) ||
			!slices.Equal(l.Freshest, template.Freshest) || fmt.Sprint(l.Point) != fmt.Sprint(template.Point) {
			t.Errorf("%s: came back as %+v", name, l)
		}
	}
}

func sameEntry(a, b crl.Entry) bool {
	return bytes.Equal(a.Serial, b.Serial) && a.RevokedAt.Equal(b.RevokedAt) && a.Reason == b.Reason && a.InvalidityDate.Equal(b.InvalidityDate)
}

// slowly reads in pieces of seven octets, so that every border falls somewhere.
func slowly(b []byte) io.Reader { return &dribble{b} }

type dribble struct{ b []byte }

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(7, len(p))], d.b)
	d.b = d.b[n:]
	return n, nil
}

func TestReadsTheStandardLibrary(t *testing.T) {
	a := newP256(t)
	template := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: date(2025), NextUpdate: date(2050)}
	for _, n := range []int{0, 2} {
		template.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(200), RevocationTime: date(2025), ReasonCode: 4},
			{SerialNumber: big.NewInt(1), RevocationTime: date(2024)}}[:n]
		der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
		if err != nil {
			t.Fatal(err)
		}
		l, got, err := parsed(bytes.NewReader(der))
		if err != nil {
			t.Fatal(err)
		}
		want := []crl.Entry{{Serial: []byte{0, 200}, RevokedAt: date(2025), Reason: 4}, {Serial: []byte{1}, RevokedAt: date(2024)}}[:n]
		if err := l.CheckSignature(a.cert.Raw); err != nil || !slices.EqualFunc(got, want, sameEntry) || l.Number.Int64() != 7 {
			t.Errorf("read as %+v %+v, %v", l, got, err)
		}
	}
}

func TestEncodingRefused(t *testing.T) {
	a := newP256(t)
	for name, change := range map[string]func(*crl.Template){
		"no number":            func(c *crl.Template) { c.Number = 0 },
		"no nextUpdate":        func(c *crl.Template) { c.NextUpdate = time.Time{} },
		"no thisUpdate":        func(c *crl.Template) { c.ThisUpdate = time.Time{} },
		"no issuer":            func(c *crl.Template) { c.Issuer = nil },
		"no algorithm":         func(c *crl.Template) { c.Algorithm = nil },
		"no key identifier":    func(c *crl.Template) { c.AuthorityKeyID = nil },
		"delta of itself":      func(c *crl.Template) { c.Delta, c.Base = true, c.Number },
		"delta with a fresher": func(c *crl.Template) { c.Delta, c.Base, c.Freshest = true, 1, []string{"http://a.example"} },
		"empty point":          func(c *crl.Template) { c.Point = &crl.Point{} },
		"users only, CAs only": func(c *crl.Template) { c.Point = &crl.Point{OnlyUsers: true, OnlyCAs: true} },
	} {
		template := a.template()
		change(template)
		var b bytes.Buffer
		if _, err := a.encode(&b, template, list()); err == nil || b.Len() > 0 {
			t.Errorf("%s: %v, %d octets written", name, err, b.Len())
		}
	}
	for name, e := range map[string]crl.Entry{
		"no serial":         {RevokedAt: date(2025)},
		"serial of 21":      {Serial: bytes.Repeat([]byte{1}, 21), RevokedAt: date(2025)},
		"serial not DER":    {Serial: []byte{0, 1}, RevokedAt: date(2025)},
		"no time":           {Serial: []byte{1}},
		"reason 7":          {Serial: []byte{1}, RevokedAt: date(2025), Reason: 7},
		"reason 11":         {Serial: []byte{1}, RevokedAt: date(2025), Reason: 11},
		"reason -1":         {Serial: []byte{1}, RevokedAt: date(2025), Reason: -1},
		"removal, no delta": {Serial: []byte{1}, RevokedAt: date(2025), Reason: 8},
	} {
		var b bytes.Buffer
		if _, err := a.encode(&b, a.template(), list(e)); err == nil || b.Len() > 0 {
			t.Errorf("%s: %v, %d octets written", name, err, b.Len())
		}
	}
	broken := errors.New("the table broke")
	failing := func(yield func(crl.Entry, error) bool) {
		_ = yield(sample[0], nil) && yield(crl.Entry{}, broken)
	}
	if _, err := a.encode(io.Discard, a.template(), failing); !errors.Is(err, broken) {
		t.Errorf("a failing source gives %v", err)
	}
	noKey := errors.New("the token is away")
	_, err := crl.Encode(io.Discard, a.template(), list(), sha256.New(), func([]byte) ([]byte, error) { return nil, noKey })
	if !errors.Is(err, noKey) {
		t.Errorf("a failing signer gives %v", err)
	}
}

func TestParsingRefused(t *testing.T) {
	a := newP256(t)
	template := a.template()
	template.Point = &crl.Point{URIs: []string{"http://pki.card.example/crl/330100.crl"}, OnlyUsers: true}
	good := a.mustEncode(t, template, list(sample...))
	if _, _, err := parsed(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		t.Helper()
		o, _ := hex.DecodeString(old)
		n, _ := hex.DecodeString(new)
		if len(o) != len(n) || !bytes.Contains(good, o) {
			t.Fatalf("%s cannot be replaced", old)
		}
		return bytes.Replace(good, o, n, 1)
	}
	twoAlgorithms := bytes.Clone(good)
	twoAlgorithms[bytes.LastIndex(good, a.algorithm)+len(a.algorithm)-1]++ // ecdsa-with-SHA384 beside the list
	for name, der := range map[string][]byte{
		"empty":                  {},
		"rubbish":                []byte("-----BEGIN X509 CRL-----"),
		"tail":                   append(bytes.Clone(good), 0),
		"endless":                {0x30, 0x80},
		"length of 126 octets":   bytes.Repeat([]byte{0xfe}, 200),
		"version 1":              replace("020101"+"300a", "020100"+"300a"),
		"two algorithms":         twoAlgorithms,
		"reason 7":               replace("0a0106", "0a0107"),
		"31 February":            replace(hex.EncodeToString([]byte("991231235959Z")), hex.EncodeToString([]byte("990231235959Z"))),
		"fraction":               replace(hex.EncodeToString([]byte("991231235959Z")), hex.EncodeToString([]byte("9912312359.5Z"))),
		"for some reasons only":  replace("8101ff", "8301ff"),
		"indirect":               replace("8101ff", "8401ff"),
		"a place without a URI":  replace("8626687474", "8226687474"),
		"critical and not known": replace("0603551d1c0101ff", "0603551d630101ff"),
	} {
		if l, _, err := parsed(bytes.NewReader(der)); err == nil {
			t.Errorf("%s: read as %+v", name, l)
		}
	}
	for i := range good {
		if _, err := crl.Parse(bytes.NewReader(good[:i]), nil); err == nil {
			t.Fatalf("the first %d of %d octets were read as a list", i, len(good))
		}
	}
	stop := errors.New("found it")
	if _, err := crl.Parse(bytes.NewReader(good), func(crl.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of each gives %v", err)
	}
}

func TestSignatureRefused(t *testing.T) {
	a, b := newP256(t), newP256(t)
	good := a.mustEncode(t, a.template(), list(sample...))
	l, err := crl.Parse(bytes.NewReader(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignature(b.cert.Raw); err == nil {
		t.Error("another CA of the same name is taken for the signer")
	}
	variant := func(change func(*x509.Certificate)) []byte {
		c := *a.cert
		change(&c)
		return certify(t, &c, a.key).Raw
	}
	for name, cert := range map[string][]byte{
		"another name":      variant(func(c *x509.Certificate) { c.RawSubject, c.Subject.CommonName = nil, "other" }),
		"another key id":    variant(func(c *x509.Certificate) { c.SubjectKeyId = []byte("other") }),
		"not for lists":     variant(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }),
		"not a certificate": {0x30, 0},
	} {
		if err := l.CheckSignature(cert); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := l.CheckSignature(variant(func(*x509.Certificate) {})); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	at := bytes.Index(good, sample[1].Serial)
	bad := bytes.Clone(good)
	bad[at+5] ^= 1
	if l, err = crl.Parse(bytes.NewReader(bad), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignature(a.cert.Raw); err == nil {
		t.Error("a changed serial number is accepted")
	}
}

// TestSpool: a list that goes through a temporary file is the same list, and
// leaves no file behind.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	a := newP256(t)
	const n = 40_000
	der := a.mustEncode(t, a.template(), many(n))
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(a.cert); err != nil {
		t.Error(err)
	}
	next, stop := iter.Pull2(many(n))
	defer stop()
	l, err := crl.Parse(bytes.NewReader(der), func(e crl.Entry) error {
		if want, _, _ := next(); !sameEntry(e, want) {
			return fmt.Errorf("read %+v, want %+v", e, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignature(a.cert.Raw); err != nil || l.Entries != n {
		t.Errorf("%d entries, %v", l.Entries, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestConstantMemory: neither side holds the list.
func TestConstantMemory(t *testing.T) {
	a := newP256(t)
	run := func(n int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, w := io.Pipe()
		go func() {
			_, err := a.encode(w, a.template(), many(n))
			w.CloseWithError(err)
		}()
		l, err := crl.Parse(r, nil)
		if err != nil || l.Entries != n || l.CheckSignature(a.cert.Raw) != nil {
			t.Fatalf("%d entries: %v", n, err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	few, lots := run(20_000), run(200_000)
	if lots > few+(1<<20) {
		t.Errorf("20,000 entries allocate %d octets, 200,000 allocate %d", few, lots)
	}
}

// TestStrangersRead: openssl and GnuTLS judge our lists.
func TestStrangersRead(t *testing.T) {
	a := newP256(t)
	dir := t.TempDir()
	ca, file := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "list.der")
	caDER := filepath.Join(dir, "ca.der")
	if err := os.WriteFile(caDER, a.cert.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	judge := func(template *crl.Template, entries iter.Seq2[crl.Entry, error], openssl, gnutls []string) {
		t.Helper()
		if err := os.WriteFile(file, a.mustEncode(t, template, entries), 0o600); err != nil {
			t.Fatal(err)
		}
		out := command("openssl", "crl", "-inform", "DER", "-in", file, "-CAfile", ca, "-noout", "-text")
		for _, want := range append(openssl, "verify OK") {
			if !strings.Contains(out, want) {
				t.Errorf("openssl does not say %q:\n%s", want, out)
			}
		}
		out = command("certtool", "--inder", "--crl-info", "--infile", file)
		for _, want := range gnutls {
			if !strings.Contains(out, want) {
				t.Errorf("certtool does not say %q:\n%s", want, out)
			}
		}
		out = command("certtool", "--inder", "--verify-crl", "--load-ca-certificate", caDER, "--infile", file)
		if !strings.Contains(out, "Verified.") {
			t.Errorf("certtool does not verify:\n%s", out)
		}
	}
	full := a.template()
	full.Point = &crl.Point{URIs: []string{"http://pki.card.example/crl/330100.crl"}, OnlyUsers: true}
	full.Freshest = []string{"http://pki.card.example/crl/330100-delta.crl"}
	judge(full, list(sample...),
		[]string{"Version 2", "URI:http://pki.card.example/crl/330100.crl", "Only User Certificates", "X509v3 Freshest CRL", "Certificate Hold", "Invalidity Date", "Dec 31 23:59:59 2050 GMT"},
		[]string{"Revoked certificates (6)", "CRL Number"})
	judge(a.template(), list(), []string{"No Revoked Certificates"}, []string{"No revoked certificates"})
	delta := a.template()
	delta.Delta, delta.Base = true, 1
	judge(delta, list(sample[0]), []string{"X509v3 Delta CRL Indicator: critical"}, []string{"Revoked certificates (1)"})
}

func FuzzParse(f *testing.F) {
	a := newP256(f)
	template := a.template()
	template.Point = &crl.Point{URIs: []string{"http://a.example/a.crl"}, OnlyUsers: true}
	template.Freshest = []string{"http://a.example/d.crl"}
	good := a.mustEncode(f, template, list(sample...))
	f.Add(good)
	f.Add(a.mustEncode(f, a.template(), list()))
	delta := a.template()
	delta.Delta, delta.Base = true, delta.Number-1
	f.Add(a.mustEncode(f, delta, list(crl.Entry{Serial: []byte{1}, RevokedAt: delta.ThisUpdate, Reason: 8})))
	// What is read, crypto/x509 reads alike, and it believes what we believe.
	f.Fuzz(func(t *testing.T, der []byte) {
		l, entries, err := parsed(bytes.NewReader(der))
		if err != nil {
			return
		}
		reencode(t, a, l, entries)
		theirs, err := x509.ParseRevocationList(der)
		if err != nil {
			return // it refuses some that we read, such as other reasons and names
		}
		if len(theirs.RevokedCertificateEntries) != len(entries) || !theirs.ThisUpdate.Equal(l.ThisUpdate) || !theirs.NextUpdate.Equal(l.NextUpdate) {
			t.Fatalf("we read %+v, crypto/x509 %+v", l, theirs)
		}
		if ours := l.CheckSignature(a.cert.Raw) == nil; ours && theirs.CheckSignatureFrom(a.cert) != nil {
			t.Fatal("we believe what crypto/x509 does not")
		}
	})
}

// reencode writes what was read anew: it says the same, or it is refused. What was
// read may be looser than what is written: another order, other forms of a time,
// more than one name in a point, no number.
func reencode(t *testing.T, a *authority, l *crl.List, entries []crl.Entry) {
	t.Helper()
	if l.Number == nil || !l.Number.IsUint64() || l.Base != nil && !l.Base.IsUint64() {
		return
	}
	template := &crl.Template{Algorithm: a.algorithm, Issuer: l.Issuer, AuthorityKeyID: l.AuthorityKeyID, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate,
		Number: l.Number.Uint64(), Delta: l.Base != nil, Point: l.Point, Freshest: l.Freshest}
	if l.Base != nil {
		template.Base = l.Base.Uint64()
	}
	var b bytes.Buffer
	if _, err := a.encode(&b, template, list(entries...)); err != nil {
		return
	}
	again, back, err := parsed(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatalf("what was written anew is not read: %v", err)
	}
	if again.Number.Cmp(l.Number) != 0 || (again.Base == nil) != (l.Base == nil) || l.Base != nil && again.Base.Cmp(l.Base) != 0 || !again.ThisUpdate.Equal(l.ThisUpdate) ||
		!again.NextUpdate.Equal(l.NextUpdate) || !bytes.Equal(again.Issuer, l.Issuer) || !bytes.Equal(again.AuthorityKeyID, l.AuthorityKeyID) ||
		!reflect.DeepEqual(again.Point, l.Point) || !slices.Equal(again.Freshest, l.Freshest) || !slices.EqualFunc(back, entries, sameEntry) {
		t.Fatalf("%+v with %v was written anew as %+v with %v", l, entries, again, back)
	}
}

const million = 1_000_000

// BenchmarkEncode writes a million entries; BenchmarkEncodeStandard has
// crypto/x509 do the same from its own form of them.
func BenchmarkEncode(b *testing.B) {
	a := newP256(b)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := a.encode(io.Discard, a.template(), many(million)); err != nil || n != million {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeStandard(b *testing.B) {
	a := newP256(b)
	at := date(2025)
	template := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: at, NextUpdate: at.Add(time.Hour)}
	for e := range many(million) {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(e.Serial), RevocationTime: e.RevokedAt, ReasonCode: e.Reason})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	a := newP256(b)
	der := a.mustEncode(b, a.template(), many(million))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := crl.Parse(bytes.NewReader(der), nil); err != nil {
			b.Fatal(err)
		}
	}
}
