package path_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"hufu/internal/ocsp"
	"hufu/verify/path"
)

// hostile are chains by somebody who knows where verifiers look away.
var hostile = []fault{
	// What stands where crypto/x509 does not look.
	{"a version 1 certificate with extensions", path.Unreadable, func(c *chain) {
		c.extend(leaf, ext(true, []byte{5, 0}, 1, 2, 3, 4))
		c.rebuild(leaf, func(p [][]byte) [][]byte { return p[1:] })
	}},
	{"a version 2 certificate with extensions", path.Unreadable, func(c *chain) {
		c.rebuild(leaf, func(p [][]byte) [][]byte { p[0] = tagged(0xa0, integerDER(1)); return p })
	}},
	{"a version 1 CA", path.NotCA, func(c *chain) { c.rebuild(sub, func(p [][]byte) [][]byte { return p[1:7] }) }},
	{"a second list of extensions", path.Unreadable, func(c *chain) {
		c.rebuild(leaf, func(p [][]byte) [][]byte {
			first := elements(c.t, append([]byte{0x30}, p[7][1:]...))[0]
			p[7] = tagged(0xa3, first, seq(seq(oidDER("1.2.3.4"), []byte{1, 1, 0xff}, tagged(4, []byte{5, 0}))))
			return p
		})
	}},
	{"an element behind the extensions", path.Unreadable, func(c *chain) {
		c.rebuild(leaf, func(p [][]byte) [][]byte { return append(p, tagged(0xa4, []byte{5, 0})) })
	}},
	{"an element behind the signature", path.Unreadable, func(c *chain) {
		c.late = append(c.late, func() { c.part[leaf].der = seq(append(elements(c.t, c.part[leaf].der), []byte{5, 0})...) })
	}},
	{"a time with an offset", path.Unreadable, func(c *chain) { c.validity(0x17, "20060102150405+0000") }},
	{"a time with a fraction", path.Unreadable, func(c *chain) { c.validity(0x18, "20060102150405.0Z") }},
	{"a time without seconds", path.Unreadable, func(c *chain) { c.validity(0x17, "0601021504Z") }},
	{"no issuer", path.Unreadable, func(c *chain) {
		c.rebuild(leaf, func(p [][]byte) [][]byte { p[3] = seq(); return p })
		c.part[sub].x.Subject = pkix.Name{}
	}},
	{"no name at all", path.Unreadable, func(c *chain) {
		c.part[leaf].x.Subject, c.part[leaf].x.DNSNames = pkix.Name{}, nil
	}},
	{"a length in more octets than it needs", path.Unreadable, func(c *chain) {
		c.late = append(c.late, func() {
			d := c.part[leaf].der
			c.part[leaf].der = append([]byte{0x30, 0x83, 0}, d[2:]...)
		})
	}},
	{"RSA-PSS with a salt of another length", path.Algorithm, func(c *chain) {
		c.part[sub].key = rsaKey(c.t, 2048)
		c.part[leaf].x.SignatureAlgorithm = x509.SHA256WithRSAPSS
		c.late = append(c.late, func() {
			c.part[leaf].der = bytes.ReplaceAll(c.part[leaf].der, []byte("\xa2\x03\x02\x01\x20"), []byte("\xa2\x03\x02\x01\x21"))
		})
	}},

	// Names.
	{"dNSName with a trailing dot under a constraint", path.NameForm, func(c *chain) {
		c.part[leaf].x.DNSNames = []string{"www.forge.example."}
		c.constrain(inter, nil, [][]byte{dns("forge.example")})
	}},
	{"a constraint with a trailing dot", path.Unreadable, func(c *chain) { c.constrain(inter, nil, [][]byte{dns("forge.example.")}) }},
	{"mailbox of a person in another case, permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.EmailAddresses = []string{"A@forge.example"}
		c.constrain(inter, [][]byte{mail("a@forge.example")}, nil)
	}},
	{"mailbox of a person in another case, excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.EmailAddresses = []string{"A@forge.example"}
		c.constrain(inter, nil, [][]byte{mail("a@forge.example")})
	}},
	{"URI with an IPv6 address under a constraint", path.NameForm, func(c *chain) {
		c.part[leaf].x.URIs = []*url.URL{mustURL("https://[2001:db8::1]:443/")}
		c.constrain(inter, nil, [][]byte{uri("forge.example")})
	}},

	// Purposes.
	{"any usage for time stamps", path.Purpose, func(c *chain) {
		c.part[leaf].x.ExtKeyUsage, c.req.Purpose = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, "timestamp"
	}},
	{"root is for clients", path.Purpose, func(c *chain) {
		c.part[root].x.ExtKeyUsage, c.req.Purpose = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, "server"
	}},

	// Policies of the anchor.
	{"root demands a policy", path.Policy, func(c *chain) { c.extend(root, ext(true, seq(tagged(0x80, []byte{0})), 2, 5, 29, 36)) }},
	{"root allows another policy", path.Policy, func(c *chain) {
		c.policies(map[int][]string{root: {"1.2.3.9"}, inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
		c.explicit("1.2.3.1")
	}},
	{"root inhibits anyPolicy", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"2.5.29.32.0"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
		c.extend(root, ext(true, integerDER(0), 2, 5, 29, 54))
		c.explicit("1.2.3.1")
	}},

	// Lists.
	{"another CA of sub's name hides a revocation behind a higher number", path.Revoked, func(c *chain) {
		key := rollover(c, x509.KeyUsageCRLSign)
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 1}}
		c.more = append(c.more, &listForge{ca: sub, signer: key, number: 99, this: c.now, next: c.now.Add(time.Hour)})
	}},
	{"the second of two lists with one number revokes", path.Revoked, func(c *chain) {
		l := *c.list[sub]
		l.entries = []entryForge{{serial: 1003, reason: 1}}
		c.more = append(c.more, &l)
	}},
	{"the first of two lists with one number revokes", path.Revoked, func(c *chain) {
		l := *c.list[sub]
		c.more = append(c.more, &l)
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 1}}
	}},
	{"the list of a place relative to the issuer revokes", path.Revoked, func(c *chain) {
		relative(c)
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 1}}
	}},
	{"the list of another place relative to the issuer", path.StatusUnknown, func(c *chain) {
		relative(c)
		c.list[sub].scope = seq(tagged(0xa0, tagged(0xa1, shard("Other"))))
	}},
	{"a delta past its time lifts a hold", path.OnHold, func(c *chain) {
		c.list[sub].entries, c.list[sub].freshest = []entryForge{{serial: 1003, reason: 6}}, true
		c.more = append(c.more, &listForge{ca: sub, number: 11, base: 10, this: c.now.Add(-time.Hour), next: c.now.Add(-time.Second), entries: []entryForge{{serial: 1003, reason: 8}}})
	}},
	{"a delta lifts what is for good", path.Revoked, func(c *chain) {
		c.list[sub].entries, c.list[sub].freshest = []entryForge{{serial: 1003, reason: 1}}, true
		c.more = append(c.more, &listForge{ca: sub, number: 11, base: 10, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003, reason: 8}}})
	}},
	{"lists for some reasons only, one reason left out", path.StatusUnknown, func(c *chain) {
		c.list[sub].scope = seq(tagged(0x83, []byte{0, 0x70}))
		c.more = append(c.more, &listForge{ca: sub, number: 1, this: c.now, next: c.now.Add(time.Hour), scope: seq(tagged(0x83, []byte{0, 0x0f}))})
	}},
	{"another issuer's entry in a list that says it is not indirect", path.StatusUnreadable, func(c *chain) {
		c.list[sub].scope = seq(tagged(0x84, []byte{0}))
		c.list[sub].entries = []entryForge{{serial: 7, issuer: subName()}}
	}},

	// OCSP answers.
	{"OCSP good, the list revokes", path.Revoked, func(c *chain) {
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 1}}
		c.answer(sub, 1003, nil, nil)
	}},
	{"a responder without the usage", path.StatusUnknown, func(c *chain) { c.delegate(sub, func(x *x509.Certificate) { x.ExtKeyUsage = nil }) }},
	{"a responder of any usage", path.StatusUnknown, func(c *chain) {
		c.delegate(sub, func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	}},
	{"a responder of the CA above", path.StatusUnknown, func(c *chain) { c.delegate(inter, nil) }},
	{"a responder that ended", path.StatusUnknown, func(c *chain) { c.delegate(sub, func(x *x509.Certificate) { x.NotAfter = c.now.Add(-time.Minute) }) }},
	{"a responder that has not begun", path.StatusUnknown, func(c *chain) { c.delegate(sub, func(x *x509.Certificate) { x.NotBefore = c.now.Add(time.Minute) }) }},
	{"a responder that may not sign", path.StatusUnknown, func(c *chain) {
		c.delegate(sub, func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyEncipherment })
	}},
	{"a responder whose key usage holds nothing", path.StatusUnreadable, func(c *chain) {
		c.delegate(sub, func(x *x509.Certificate) {
			x.KeyUsage, x.ExtraExtensions = 0, append(x.ExtraExtensions, ext(true, []byte{3, 1, 0}, 2, 5, 29, 15))
		})
	}},
	{"a responder that would have to be looked up", path.StatusUnknown, func(c *chain) { c.delegate(sub, func(x *x509.Certificate) { x.ExtraExtensions = nil }) }},
	{"a responder with an unknown critical extension", path.StatusUnknown, func(c *chain) {
		c.delegate(sub, func(x *x509.Certificate) {
			x.ExtraExtensions = append(x.ExtraExtensions, ext(true, []byte{5, 0}, 1, 2, 3, 4))
		})
	}},
	{"an answer from the future", path.StatusStale, func(c *chain) {
		c.list[sub] = nil
		c.answer(sub, 1003, func(d *ocsp.ResponseData) { d.Responses[0].ThisUpdate = c.now.Add(time.Hour / 2) }, nil)
	}},
	{"an answer without an end", path.StatusStale, func(c *chain) {
		c.list[sub] = nil
		c.answer(sub, 1003, func(d *ocsp.ResponseData) { d.Responses[0].NextUpdate = time.Time{} }, nil)
	}},
	{"one answer that says good and revoked", path.Revoked, func(c *chain) {
		c.list[sub] = nil
		c.answer(sub, 1003, func(d *ocsp.ResponseData) {
			bad := d.Responses[0]
			bad.Status, bad.RevokedAt = ocsp.Revoked, c.now
			d.Responses = append(d.Responses, bad, d.Responses[0])
		}, nil)
	}},
}

// decent are chains at the edge of what is valid.
var decent = []good{
	{"ends this very second", func(c *chain) { c.part[leaf].x.NotAfter = c.now }, false},
	{"begins this very second", func(c *chain) { c.part[leaf].x.NotBefore = c.now }, false},
	{"ends after 2049", func(c *chain) { c.part[leaf].x.NotAfter = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC) }, false},
	{"any usage for servers", func(c *chain) {
		c.part[leaf].x.ExtKeyUsage, c.req.Purpose = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, "server"
	}, false},
	{"a place relative to the issuer", relative, true},
	{"OCSP by a responder", func(c *chain) { c.delegate(sub, nil) }, true},
	{"OCSP by a responder without a key usage", func(c *chain) { c.delegate(sub, func(x *x509.Certificate) { x.KeyUsage = 0 }) }, true},
	{"root allows the policy", func(c *chain) {
		c.policies(map[int][]string{root: {"1.2.3.1", "1.2.3.9"}, inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
		c.explicit("1.2.3.1")
	}, false},
}

// All that is judged.
var (
	faults = slices.Concat(common, hostile)
	goods  = slices.Concat(ordinary, decent)
)

// rebuild takes the signed part of a certificate to pieces, lets change have them,
// and signs what comes back.
func (c *chain) rebuild(i int, change func([][]byte) [][]byte) {
	c.late = append(c.late, func() {
		c.t.Helper()
		parts := elements(c.t, c.part[i].der)
		tbs := seq(change(elements(c.t, parts[0]))...)
		digest := sha256.Sum256(tbs)
		signature, err := c.part[max(i-1, 0)].key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			c.t.Fatal(err)
		}
		c.part[i].der = wrap(tbs, parts[1], signature)
	})
}

// validity gives the leaf an end that is written in another form.
func (c *chain) validity(tag byte, layout string) {
	c.rebuild(leaf, func(p [][]byte) [][]byte {
		p[4] = seq(elements(c.t, p[4])[0], tagged(tag, []byte(c.part[leaf].x.NotAfter.UTC().Format(layout))))
		return p
	})
}

// shard is the contents of a RelativeDistinguishedName.
func shard(name string) []byte { return seq(oidDER("2.5.4.3"), tagged(0x13, []byte(name))) }

// relative lets the leaf and its list name their place relative to the issuer.
func relative(c *chain) {
	c.extend(leaf, ext(false, seq(seq(tagged(0xa0, tagged(0xa1, shard("Shard"))))), 2, 5, 29, 31))
	c.list[sub].scope = seq(tagged(0xa0, tagged(0xa1, shard("Shard"))))
}

// delegate replaces the leaf's list by an OCSP answer of a responder that a CA of the
// chain certified.
func (c *chain) delegate(ca int, change func(*x509.Certificate)) {
	c.list[sub] = nil
	key := newKey(c.t)
	c.late = append(c.late, func() {
		x := &x509.Certificate{
			SerialNumber: big.NewInt(700), Subject: pkix.Name{CommonName: "Responder"}, NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}},
		}
		if change != nil {
			change(x)
		}
		der := c.issue(ca, x, key)
		hash, err := ocsp.KeyHash(der)
		if err != nil {
			c.t.Fatal(err)
		}
		c.ocsp = append(c.ocsp, c.answered(sub, 1003, func(d *ocsp.ResponseData) { d.Responder = hash }, key, der))
	})
}

// answered makes an OCSP answer of a CA about a certificate of it.
func (c *chain) answered(ca int, serial int64, change func(*ocsp.ResponseData), signer *ecdsa.PrivateKey, certificates ...[]byte) []byte {
	c.t.Helper()
	issuer, err := ocsp.NewIssuer(c.part[ca].der)
	if err != nil {
		c.t.Fatal(err)
	}
	hash, err := ocsp.KeyHash(c.part[ca].der)
	if err != nil {
		c.t.Fatal(err)
	}
	d := &ocsp.ResponseData{Responder: hash, ProducedAt: c.now, Responses: []ocsp.SingleResponse{{
		ID: issuer.CertID(crypto.SHA256, big.NewInt(serial).Bytes()), ThisUpdate: c.now.Add(-time.Minute), NextUpdate: c.now.Add(time.Hour),
	}}}
	if change != nil {
		change(d)
	}
	tbs, err := d.Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, signer, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	return ocsp.Assemble(tbs, []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"), signature, certificates...)
}

// TestPolicyBlowUp: CAs that each map every policy to every other one would make a
// tree of MaxPolicies to the power of the path's length (RFC 9618, Section 2).
func TestPolicyBlowUp(t *testing.T) {
	const n = 16
	c := newChain(t)
	var ids []string
	var pairs [][]byte
	for i := range n {
		ids = append(ids, oidOf(i))
		for k := range n {
			pairs = append(pairs, seq(oidDER(oidOf(i)), oidDER(oidOf(k))))
		}
	}
	now, key := c.now, newKey(t)
	var certs [][]byte
	for depth := range 16 {
		x := &x509.Certificate{
			SerialNumber: big.NewInt(int64(depth + 1)), Subject: pkix.Name{CommonName: oidOf(depth)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, Policies: oids(ids...),
			ExtraExtensions: []pkix.Extension{ext(true, seq(pairs...), 2, 5, 29, 33)},
		}
		parent := *x
		if depth > 0 {
			parent.Subject = pkix.Name{CommonName: oidOf(depth - 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, x, parentOf(&parent, key), key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, der)
	}
	began := time.Now()
	a := path.Validate(t.Context(), &path.Request{
		Certificate: certs[15], Intermediates: certs[1:15], Anchors: certs[:1], NoStatus: true, Time: now, ExplicitPolicy: true, Policies: ids[:1],
	})
	if !a.Valid {
		t.Errorf("%v", a.Reason)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func oidOf(i int) string { return "1.2.3." + big.NewInt(int64(i)).String() }
