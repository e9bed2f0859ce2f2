package path_test

import (
	"bytes"
	"encoding/asn1"
	"io"
	"testing"
	"time"

	"hufu/verify/path"
)

// FuzzPath: whatever it is given, Validate does not panic, gives a reason exactly
// when it is not valid, says valid only of octets that were really signed, never of
// a certificate that its CA revoked, and of nothing with status that it would
// refuse without.
func FuzzPath(f *testing.F) {
	t := &testing.T{}
	c := newChain(t)
	genuine := map[string]bool{}
	c.part[leaf].x.CRLDistributionPoints = []string{"http://forge.example/2.crl"}
	c.constrain(inter, [][]byte{dns("forge.example")}, nil)
	c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
	c.answer(inter, 1002, nil, nil)
	c.answer(root, 1001, nil, nil)
	c.sign()
	revoked := *c.part[leaf].x
	revoked.SerialNumber = integerOf(9999)
	bad := c.issue(sub, &revoked, c.part[leaf].key)
	c.list[sub].entries = []entryForge{{serial: 9999, reason: 1}}
	lists := c.lists()

	for _, p := range c.part {
		genuine[tbs(p.der)] = true
	}
	for _, l := range lists {
		f.Add(c.part[leaf].der, c.part[sub].der, c.part[inter].der, l, c.ocsp[0], byte(0))
		f.Add(bad, c.part[sub].der, c.part[inter].der, l, c.ocsp[1], byte(0x80))
	}
	for _, g := range goods {
		other := newChain(t)
		g.make(other)
		other.sign()
		genuine[tbs(other.part[leaf].der)] = true
		for _, l := range other.lists() {
			f.Add(other.part[leaf].der, other.part[sub].der, other.part[inter].der, l, []byte{0x30, 3, 10, 1, 6}, byte(1))
		}
	}
	f.Fuzz(func(t *testing.T, target, one, two, crl, ocsp []byte, flags byte) {
		r := path.Request{
			Certificate: target, Intermediates: [][]byte{one, two, c.part[sub].der, c.part[inter].der}, Anchors: [][]byte{c.part[root].der},
			OCSP: append([][]byte{ocsp}, c.ocsp...), Time: c.now, NoStatus: flags&1 != 0, ExplicitPolicy: flags&2 != 0, SHA1: flags&4 != 0,
		}
		if flags&8 != 0 {
			r.Policies = []string{"1.2.3.1"}
		}
		if flags&16 != 0 {
			r.Name, r.Purpose = "www.forge.example", "server"
		}
		ask := func() path.Answer {
			r.CRLs = []io.Reader{bytes.NewReader(crl)}
			for _, l := range lists {
				r.CRLs = append(r.CRLs, bytes.NewReader(l))
			}
			a := path.Validate(t.Context(), &r)
			if a.Valid == (a.Reason != nil) || a.Valid && len(a.Path) < 2 {
				t.Fatalf("an answer that is none: %+v", a)
			}
			return a
		}
		began := time.Now()
		a := ask()
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("it took %v", took)
		}
		if !a.Valid {
			return
		}
		if signed := tbs(target); signed == "" || !genuine[signed] && signed != tbs(bad) {
			t.Fatalf("valid, and nobody signed it")
		}
		if !r.NoStatus && tbs(target) == tbs(bad) {
			t.Fatal("valid, and revoked")
		}
		if r.NoStatus = true; !ask().Valid {
			t.Fatal("valid with its status, and not without")
		}
	})
}

func tbs(der []byte) string {
	var parts struct{ TBS, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(der, &parts); err != nil {
		return "" // crypto/x509 would not read every genuine one
	}
	return string(parts.TBS.FullBytes)
}
