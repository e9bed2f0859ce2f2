package crlcheck_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"fmt"
	"iter"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/internal/crl"
	"hufu/internal/crlcheck"
	"hufu/internal/testpki"
)

var world = testpki.Must(testpki.New(testpki.Config{}))

var at = time.Now().UTC().Truncate(time.Second)

// signed is a list of a CA.
func signed(t testing.TB, ca string, change func(*crl.Template), entries ...crl.Entry) []byte {
	t.Helper()
	template := crl.Template{Number: 10, ThisUpdate: at, NextUpdate: at.Add(time.Hour)}
	if change != nil {
		change(&template)
	}
	var der bytes.Buffer
	err := world.CA(ca).SignCRL(t.Context(), template, func(yield func(crl.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}, &der)
	if err != nil {
		t.Fatal(err)
	}
	return der.Bytes()
}

func parse(t testing.TB, der []byte) *crlcheck.List {
	t.Helper()
	l, err := crlcheck.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entry(n byte, reason int) crl.Entry {
	return crl.Entry{Serial: []byte{1, n}, RevokedAt: at.Add(-time.Hour), Reason: reason}
}

func status(n byte, reason int) crlcheck.Status {
	return crlcheck.Status{Serial: crlcheck.SerialOf([]byte{1, n}), Listed: true, Reason: reason, Time: at.Add(-time.Hour + 300*time.Millisecond), NotAfter: at.Add(time.Hour), Seq: 100}
}

func book(all ...crlcheck.Status) iter.Seq2[crlcheck.Status, error] {
	return func(yield func(crlcheck.Status, error) bool) {
		for _, s := range all {
			if !yield(s, nil) {
				return
			}
		}
	}
}

func issuer(ca string) *x509.Certificate {
	return testpki.Must(x509.ParseCertificate(world.CA(ca).Record.Certificate))
}

func TestCheck(t *testing.T) {
	lifted := status(3, 0)
	lifted.Listed = false
	ended := status(4, 1)
	ended.NotAfter = at.Add(-time.Minute)
	for what, c := range map[string]struct {
		der   []byte
		check crlcheck.Check
		want  []string // beginnings of the faults
	}{
		"all is well": {signed(t, "services", nil, entry(1, 1), entry(2, 6), entry(4, 1)),
			crlcheck.Check{Book: book(status(1, 1), status(2, 6), lifted, ended), AsOf: 100}, nil},
		"nothing is revoked":    {signed(t, "services", nil), crlcheck.Check{Book: book(), AsOf: 1}, nil},
		"ended, and has left":   {signed(t, "services", nil), crlcheck.Check{Book: book(ended), AsOf: 100}, nil},
		"revoked since":         {signed(t, "services", nil), crlcheck.Check{Book: book(status(1, 1)), AsOf: 99}, nil},
		"resumed since":         {signed(t, "services", nil, entry(3, 6)), crlcheck.Check{Book: book(lifted), AsOf: 99}, nil},
		"revoked since, a hold": {signed(t, "services", nil, entry(1, 6)), crlcheck.Check{Book: book(status(1, 1)), AsOf: 99}, nil},
		"missing":               {signed(t, "services", nil, entry(1, 1)), crlcheck.Check{Book: book(status(1, 1), status(2, 6)), AsOf: 100}, []string{"missing: 0102"}},
		"missing, by the time":  {signed(t, "services", nil), crlcheck.Check{Book: book(status(2, 6))}, []string{"missing: 0102"}},
		"a stranger":            {signed(t, "services", nil, entry(9, 1)), crlcheck.Check{Book: book(), AsOf: 100}, []string{"stranger: 0109"}},
		"good again":            {signed(t, "services", nil, entry(3, 6)), crlcheck.Check{Book: book(lifted), AsOf: 100}, []string{"stranger: 0103"}},
		"another reason":        {signed(t, "services", nil, entry(1, 4)), crlcheck.Check{Book: book(status(1, 1)), AsOf: 100}, []string{"otherwise: 0101"}},
		"another time": {signed(t, "services", nil, crl.Entry{Serial: []byte{1, 1}, RevokedAt: at, Reason: 1}),
			crlcheck.Check{Book: book(status(1, 1)), AsOf: 100}, []string{"otherwise: 0101"}},
		"twice":               {signed(t, "services", nil, entry(1, 1), entry(1, 1)), crlcheck.Check{Book: book(status(1, 1)), AsOf: 100}, []string{"form: 0101: stands there twice"}},
		"signed by another":   {signed(t, "device", nil), crlcheck.Check{Issuer: issuer("services")}, []string{"signature: it is the list of another"}},
		"too old":             {signed(t, "services", nil), crlcheck.Check{Now: at.Add(time.Hour)}, []string{"freshness: it ended"}},
		"not yet":             {signed(t, "services", nil), crlcheck.Check{Now: at.Add(-time.Second)}, []string{"freshness: it begins"}},
		"a number gone back":  {signed(t, "services", nil), crlcheck.Check{Least: big.NewInt(11)}, []string{"number: its number is 10"}},
		"a delta by itself":   {signed(t, "services", func(c *crl.Template) { c.Delta, c.Base = true, 9 }), crlcheck.Check{Book: book()}, []string{"form: a delta is held"}},
		"the number it needs": {signed(t, "services", nil), crlcheck.Check{Issuer: issuer("services"), Now: at, Least: big.NewInt(10)}, nil},
	} {
		r, err := parse(t, c.der).Check(c.check)
		if err != nil {
			t.Fatal(err)
		}
		ok := len(r.Faults) == len(c.want)
		for i := range min(len(r.Faults), len(c.want)) {
			ok = ok && strings.HasPrefix(r.Faults[i].String(), c.want[i])
		}
		if !ok || r.OK() != (len(c.want) == 0) {
			t.Errorf("%s: %v, want %q", what, r.Faults, c.want)
		}
	}
	bad := signed(t, "services", nil, entry(1, 1))
	bad[bytes.Index(bad, []byte{2, 2, 1, 1})+3] ^= 2
	if r, err := parse(t, bad).Check(crlcheck.Check{Issuer: issuer("services")}); err != nil || len(r.Faults) != 1 || r.Faults[0].Kind != crlcheck.KindSignature {
		t.Errorf("a changed list: %+v, %v", r, err)
	}
	ca := issuer("services")
	weak, key := *ca, testpki.Must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader))
	weak.PublicKey, weak.PublicKeyAlgorithm = key.Public(), x509.ECDSA
	old := testpki.Must(x509.CreateRevocationList(crand.Reader, &x509.RevocationList{
		SignatureAlgorithm: x509.ECDSAWithSHA1, Number: big.NewInt(10), ThisUpdate: at, NextUpdate: at.Add(time.Hour),
	}, &weak, key))
	if r, err := parse(t, old).Check(crlcheck.Check{Issuer: &weak}); err != nil || len(r.Faults) != 1 || r.Faults[0].Kind != crlcheck.KindSignature {
		t.Errorf("a list signed with SHA-1: %+v, %v", r, err)
	}
	broken := fmt.Errorf("broken")
	if _, err := parse(t, bad).Check(crlcheck.Check{Book: func(yield func(crlcheck.Status, error) bool) { yield(crlcheck.Status{}, broken) }}); err == nil {
		t.Error("a book that cannot be read is no fault of the book")
	}
}

// TestForm spoils a good list where the encoder would not.
func TestForm(t *testing.T) {
	delta := signed(t, "services", func(c *crl.Template) {
		c.Delta, c.Base, c.Point = true, 9, &crl.Point{URIs: []string{"http://a.example/"}}
	}, entry(1, 8))
	spoil := func(old, new []byte) []byte {
		if !bytes.Contains(delta, old) {
			t.Fatalf("%x is not there", old)
		}
		return bytes.Replace(delta, old, new, 1)
	}
	indicator := []byte{0x06, 3, 0x55, 0x1d, 27, 1, 1, 0xff}
	for what, c := range map[string]struct {
		der  []byte
		want string
	}{
		"indicator of another kind": {spoil(indicator, []byte{0x06, 3, 0x55, 0x1d, 99, 1, 1, 0xff}), "2.5.29.99 is not known"},
		"reason 7":                  {spoil([]byte{0x0a, 1, 8}, []byte{0x0a, 1, 7}), "no reason 7"},
		"base not older":            {spoil([]byte{0x02, 1, 9}, []byte{0x02, 1, 10}), "not newer than its base"},
		"a negative serial number":  {spoil([]byte{2, 2, 1, 1}, []byte{2, 2, 0x81, 1}), "not a serial number"},
	} {
		l, err := crlcheck.Parse(c.der)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		r, err := l.Check(crlcheck.Check{})
		if err != nil || !strings.Contains(fmt.Sprint(r.Faults), c.want) {
			t.Errorf("%s: %v, %v", what, r, err)
		}
	}
	for what, der := range map[string][]byte{"nothing": nil, "cut": delta[:len(delta)-1], "more": append(slices.Clone(delta), 0)} {
		if _, err := crlcheck.Parse(der); err == nil {
			t.Errorf("%s is read as a list", what)
		}
	}
}

// TestCompare finds what changed and what left too early, for random lists and for
// deltas between them.
func TestCompare(t *testing.T) {
	for range 200 {
		reasons := func() map[byte]int {
			m := map[byte]int{}
			for n := range byte(12) {
				if rand.IntN(2) == 0 {
					m[n+1] = []int{1, 4, 6}[rand.IntN(3)]
				}
			}
			return m
		}
		list := func(m map[byte]int) (all []crl.Entry) {
			for n, reason := range m {
				all = append(all, entry(n, reason))
			}
			return all
		}
		a, b := reasons(), reasons()
		changes := map[byte]int{} // as a delta has them
		for n := range a {
			if _, on := b[n]; !on {
				changes[n] = 8
			}
		}
		for n, reason := range b {
			if a[n] != reason || rand.IntN(4) == 0 {
				changes[n] = reason
			}
		}
		older := parse(t, signed(t, "services", nil, list(a)...))
		newer := parse(t, signed(t, "services", func(c *crl.Template) { c.Number = 11 }, list(b)...))
		delta := parse(t, signed(t, "services", func(c *crl.Template) { c.Number, c.Delta, c.Base = 11, true, 10 }, list(changes)...))
		sum, err := older.Apply(delta)
		if err != nil {
			t.Fatal(err)
		}
		if left, faults := sum.Compare(newer, nil); len(left) > 0 || len(faults) != 1 || faults[0].Kind != crlcheck.KindNumber {
			t.Fatalf("list and delta differ from the newer list: %v, %v", left, faults)
		}
		found, faults := older.Compare(newer, func(s crlcheck.Serial) (time.Time, bool) {
			// Odd ones are valid for another hour, even ones ended before the older list.
			return at.Add(time.Duration(int(s[1])%2*2-1) * time.Hour), true
		})
		want, early := 0, 0
		for n := range byte(13) {
			if a[n] != b[n] {
				want++
			}
			if a[n] != 0 && b[n] == 0 && a[n] != 6 && n%2 == 1 {
				early++
			}
		}
		if len(found) != want || len(faults) != early {
			t.Fatalf("from %v to %v: %v, %v; want %d changes, %d left early", a, b, found, faults, want, early)
		}
	}
	older := parse(t, signed(t, "services", nil))
	for what, other := range map[string][]byte{
		"another CA's": signed(t, "device", func(c *crl.Template) { c.Number, c.Delta, c.Base = 11, true, 10 }),
		"another shard's": signed(t, "services", func(c *crl.Template) {
			c.Number, c.Delta, c.Base, c.Point = 11, true, 10, &crl.Point{URIs: []string{"http://a/"}}
		}),
		"to a newer base":         signed(t, "services", func(c *crl.Template) { c.Number, c.Delta, c.Base = 12, true, 11 }),
		"older than the list":     signed(t, "services", func(c *crl.Template) { c.Number, c.Delta, c.Base = 10, true, 9 }),
		"a full list for a delta": signed(t, "services", func(c *crl.Template) { c.Number = 11 }),
	} {
		if _, err := older.Apply(parse(t, other)); err == nil {
			t.Errorf("%s: taken for a delta to it", what)
		}
	}
}

// FuzzParse: whatever is read as a list is judged without a panic, and the checker
// agrees with the encoder's own reader on what stands on it.
func FuzzParse(f *testing.F) {
	f.Add(signed(f, "services", nil, entry(1, 1), entry(2, 6)))
	f.Add(signed(f, "services", func(c *crl.Template) {
		c.Delta, c.Base, c.Point = true, 9, &crl.Point{URIs: []string{"http://a.example/"}, OnlyUsers: true}
	}, entry(1, 8)))
	ca := issuer("services")
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := crlcheck.Parse(der)
		if err != nil {
			return
		}
		r, err := l.Check(crlcheck.Check{Issuer: ca, Now: at, Book: book()})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		theirs, err := crl.Parse(bytes.NewReader(der), func(e crl.Entry) error {
			n++
			if _, on := l.Entries[crlcheck.SerialOf(e.Serial)]; !on && e.Serial[0] < 0x80 {
				t.Errorf("%x is not found", e.Serial)
			}
			return nil
		})
		if err != nil {
			return
		}
		signed := !slices.ContainsFunc(r.Faults, func(f crlcheck.Fault) bool { return f.Kind == crlcheck.KindSignature })
		if theirs.CheckSignature(ca.Raw) == nil && !signed {
			t.Errorf("the encoder's reader believes what the checker does not: %v", r.Faults)
		}
		if n < len(l.Entries) || (theirs.Base != nil) != (l.Base != nil) {
			t.Errorf("%d entries and %d, base %v and %v", n, len(l.Entries), theirs.Base, l.Base)
		}
	})
}

// TestSameList: a list does not follow itself, and that is no fault.
func TestSameList(t *testing.T) {
	der := signed(t, "330100", nil, entry(1, 1))
	one, again := parse(t, der), parse(t, der)
	if changes, faults := one.Compare(again, nil); changes != nil || faults != nil || !one.Same(again) {
		t.Errorf("%v, %v of a list and itself", changes, faults)
	}
	// Another list of the same number is another matter.
	other := parse(t, signed(t, "330100", nil, entry(1, 1), entry(2, 1)))
	if _, faults := one.Compare(other, nil); one.Same(other) || len(faults) != 1 || faults[0].Kind != crlcheck.KindNumber {
		t.Errorf("faults of two lists with one number: %v", faults)
	}
}
