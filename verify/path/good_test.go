package path_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"hufu/verify/path"
)

type good struct {
	name  string
	make  func(*chain)
	lists bool // rests on lists that crypto/x509 does not know
}

// ordinary are chains that are valid, each with what is special about it.
var ordinary = []good{
	{"plain", func(c *chain) {}, false},
	{"server of that name", func(c *chain) { c.req.Purpose, c.req.Name = "server", "WWW.forge.example" }, false},
	{"no status asked", func(c *chain) { c.req.NoStatus = true; c.list = [3]*listForge{} }, false},
	{"lists younger than the bound", func(c *chain) { c.req.MaxAge = time.Hour }, false},
	{"names in every permitted form", func(c *chain) {
		c.constrain(inter, [][]byte{
			tagged(0x82, []byte("forge.example")), tagged(0x81, []byte("forge.example")), tagged(0x86, []byte(".forge.example")),
			tagged(0x87, []byte{10, 0, 0, 0, 255, 0, 0, 0}), tagged(0xa4, nameDER(pkix.Name{Country: []string{"CN"}, Organization: []string{"Forge"}})),
		}, nil)
		l := c.part[leaf].x
		l.EmailAddresses, l.IPAddresses = []string{"a@forge.example"}, []net.IP{{10, 1, 2, 3}}
		l.URIs = []*url.URL{mustURL("https://www.forge.example/x")}
	}, false},
	{"policies mapped", func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.2"}, leaf: {"1.2.3.2"}})
		c.extend(inter, ext(false, seq(seq(oidDER("1.2.3.1"), oidDER("1.2.3.2"))), 2, 5, 29, 33))
		c.req.Policies, c.req.ExplicitPolicy = []string{"1.2.3.1"}, true
	}, false},
	{"issuer written in another case, with more spaces and another string type", func(c *chain) {
		// UTF8String and two spaces for the PrintableString and one of the subject.
		c.part[sub].x.Subject.CommonName = "Sub  CA"
		c.late = append(c.late, func() {
			c.resign(leaf, func(tbs []byte) {
				copy(tbs[indexOf(tbs, "Sub  CA"):], "SUB  ca")
				tbs[indexOf(tbs, "SUB  ca")-2] = 12
			})
		})
	}, false},
	{"two paths, the first of them expired", func(c *chain) {
		c.late = append(c.late, func() {
			old := *c.part[sub].x
			old.SerialNumber, old.NotAfter = big.NewInt(77), c.now.Add(-time.Minute)
			c.also = append(c.also, c.issue(inter, &old, c.part[sub].key))
			c.req.Intermediates = [][]byte{c.also[0]}
		})
	}, false},
	{"a delta lifts a hold", func(c *chain) {
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 6}}
		c.list[sub].freshest = true
		c.more = append(c.more, &listForge{ca: sub, number: 11, base: 10, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003, reason: 8}}})
	}, true},
	{"a base past its time with a delta of now", func(c *chain) {
		c.list[sub].this, c.list[sub].next = c.now.Add(-2*time.Hour), c.now.Add(-time.Hour)
		c.list[sub].freshest = true
		c.more = append(c.more, &listForge{ca: sub, number: 11, base: 9, this: c.now, next: c.now.Add(time.Hour)})
	}, true},
	{"two lists share the reasons", func(c *chain) {
		c.list[sub].scope = seq(tagged(0x83, []byte{0, 0x70}))
		c.more = append(c.more, &listForge{ca: sub, number: 1, this: c.now, next: c.now.Add(time.Hour), scope: seq(tagged(0x83, []byte{7, 0x0f, 0x80}))})
	}, true},
	{"the list of the certificate's own place", func(c *chain) {
		c.part[leaf].x.CRLDistributionPoints = []string{"http://forge.example/2.crl"}
		c.list[sub].scope = seq(place("http://forge.example/2.crl"), tagged(0x81, []byte{0xff}))
	}, true},
	{"a place that the list names relative to its issuer", func(c *chain) {
		full := nameDER(pkix.Name{Country: []string{"CN"}, Organization: []string{"Forge"}, CommonName: "Sub"})
		shard := tagged(0x31, seq(oidDER("2.5.4.3"), tagged(0x13, []byte("Shard"))))
		full = seq(full[2:], shard)
		c.extend(leaf, ext(false, seq(seq(tagged(0xa0, tagged(0xa0, tagged(0xa4, full))))), 2, 5, 29, 31))
		c.list[sub].scope = seq(tagged(0xa0, tagged(0xa1, shard[2:])))
	}, true},
	{"an indirect list by another of the root's", func(c *chain) { indirect(c, nil) }, true},
	{"a list by another key of the issuer", func(c *chain) { c.list[sub].signer = rollover(c, x509.KeyUsageCRLSign) }, true},
	{"OCSP instead of a list", func(c *chain) { c.list[sub] = nil; c.answer(sub, 1003, nil, nil) }, true},
	{"a revoked neighbour", func(c *chain) { c.list[sub].entries = []entryForge{{serial: 1004}, {serial: 5, reason: 1}} }, true},
}

// indirect lets a CRL issuer of the intermediate CA's tell about the leaf.
func indirect(c *chain, entries []entryForge) {
	key := newKey(c.t)
	name := pkix.Name{Country: []string{"CN"}, Organization: []string{"Forge"}, CommonName: "Lists"}
	c.late = append(c.late, func() {
		c.also = append(c.also, c.issue(inter, &x509.Certificate{
			SerialNumber: big.NewInt(500), Subject: name, NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(time.Hour),
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign,
		}, key))
	})
	c.extend(leaf, ext(false, seq(seq(place("http://forge.example/i.crl"), tagged(0xa2, tagged(0xa4, nameDER(name))))), 2, 5, 29, 31))
	c.list[sub] = &listForge{
		ca: inter, issuer: nameDER(name), signer: key, number: 3, this: c.now, next: c.now.Add(time.Hour),
		scope: seq(place("http://forge.example/i.crl"), tagged(0x84, []byte{0xff})), entries: entries,
	}
}

func indexOf(b []byte, s string) int {
	for i := range b {
		if i+len(s) <= len(b) && string(b[i:i+len(s)]) == s {
			return i
		}
	}
	panic(s + " is not there")
}

func TestGood(t *testing.T) {
	for _, g := range goods {
		t.Run(g.name, func(t *testing.T) {
			c := newChain(t)
			g.make(c)
			a := path.Validate(t.Context(), c.sign())
			if !a.Valid {
				t.Fatalf("not valid: %v", a.Reason)
			}
			if len(a.Path) != 4 || a.Path[3].Source != "anchor" {
				t.Errorf("path %+v", a.Path)
			}
		})
	}
}
