package path_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"hufu/internal/ocsp"
	"hufu/verify/path"
)

type fault struct {
	name  string
	want  string
	plant func(*chain)
}

// common are chains with one fault planted in each, and the reason that must be
// given.
var common = []fault{
	// Signatures, keys, times.
	{"leaf's signature spoilt", path.Signature, func(c *chain) { c.spoil(leaf) }},
	{"sub's signature spoilt", path.Signature, func(c *chain) { c.spoil(sub) }},
	{"leaf signed by a stranger of the issuer's name", path.Signature, func(c *chain) { c.part[leaf].signer = newKey(c.t) }},
	{"sub signed by a stranger of the issuer's name", path.Signature, func(c *chain) { c.part[sub].signer = newKey(c.t) }},
	{"an anchor of the same name with another key", path.Signature, func(c *chain) { c.part[inter].signer = newKey(c.t) }},
	{"leaf's signed part changed", path.Signature, func(c *chain) {
		c.late = append(c.late, func() { d := c.part[leaf].der; d[indexOf(d, "www.forge")] = 'v' })
	}},
	{"leaf ended", path.Expired, func(c *chain) { c.part[leaf].x.NotAfter = c.now.Add(-time.Minute) }},
	{"leaf not begun", path.NotYetValid, func(c *chain) { c.part[leaf].x.NotBefore = c.now.Add(time.Hour) }},
	{"sub ended", path.Expired, func(c *chain) { c.part[sub].x.NotAfter = c.now.Add(-time.Minute) }},
	{"inter not begun", path.NotYetValid, func(c *chain) { c.part[inter].x.NotBefore = c.now.Add(time.Hour) }},
	{"root ended", path.Expired, func(c *chain) { c.part[root].x.NotAfter = c.now.Add(-time.Minute) }},
	{"an intermediate is missing", path.NoIssuer, func(c *chain) {
		c.late = append(c.late, func() { c.part[inter].der = c.part[sub].der })
		c.list[inter] = nil
	}},
	{"issuer's name in another order", path.NoIssuer, func(c *chain) {
		c.late = append(c.late, func() {
			c.resign(leaf, func(tbs []byte) { // O before C: both relative names are of fixed length
				a, b := "\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CN", "\x31\x0e\x30\x0c\x06\x03\x55\x04\x0a\x13\x05Forge"
				copy(tbs[indexOf(tbs, a):], b+a)
			})
		})
	}},
	{"signed with MD5", path.Algorithm, func(c *chain) { c.rsaDigest(crypto.MD5, 4) }},
	{"signed with SHA-1", path.Algorithm, func(c *chain) { c.rsaDigest(crypto.SHA1, 5) }},
	{"leaf's RSA key of 1024 bits", path.Key, func(c *chain) { c.part[leaf].key = rsaKey(c.t, 1024) }},
	{"sub's RSA key of 1024 bits", path.Key, func(c *chain) { c.part[sub].key = rsaKey(c.t, 1024) }},
	{"leaf's key on P-224", path.Key, func(c *chain) {
		key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		if err != nil {
			c.t.Fatal(err)
		}
		c.part[leaf].key = key
	}},

	// CAs and extensions.
	{"sub without basic constraints", path.NotCA, func(c *chain) { c.part[sub].x.BasicConstraintsValid = false; c.part[sub].x.IsCA = false }},
	{"sub says that it is no CA", path.NotCA, func(c *chain) { c.part[sub].x.IsCA = false; c.part[sub].x.KeyUsage = x509.KeyUsageCRLSign }},
	{"root says that it is no CA", path.NotCA, func(c *chain) { c.part[root].x.IsCA = false; c.part[root].x.KeyUsage = x509.KeyUsageCRLSign }},
	{"sub may not sign certificates", path.KeyUsage, func(c *chain) { c.part[sub].x.KeyUsage = x509.KeyUsageCRLSign }},
	{"root may not sign certificates", path.KeyUsage, func(c *chain) { c.part[root].x.KeyUsage = x509.KeyUsageCRLSign }},
	{"inter allows no CA below", path.PathLength, func(c *chain) { c.part[inter].x.MaxPathLenZero = true }},
	{"root allows no CA below", path.PathLength, func(c *chain) { c.part[root].x.MaxPathLenZero = true }},
	{"root allows one CA below", path.PathLength, func(c *chain) { c.part[root].x.MaxPathLen = 1 }},
	{"a path length without a CA", path.Unreadable, func(c *chain) { c.extend(leaf, ext(true, seq(integerDER(3)), 2, 5, 29, 19)) }},
	{"a negative path length", path.Unreadable, func(c *chain) { c.extend(sub, ext(true, seq([]byte{1, 1, 0xff}, integerDER(-2)), 2, 5, 29, 19)) }},
	{"leaf has an unknown critical extension", path.Critical, func(c *chain) { c.extend(leaf, ext(true, []byte{5, 0}, 1, 2, 3, 4)) }},
	{"sub has an unknown critical extension", path.Critical, func(c *chain) { c.extend(sub, ext(true, []byte{5, 0}, 1, 2, 3, 4)) }},
	{"root has an unknown critical extension", path.Critical, func(c *chain) { c.extend(root, ext(true, []byte{5, 0}, 1, 2, 3, 4)) }},
	{"an extension stands twice", path.Unreadable, func(c *chain) {
		c.extend(leaf, ext(false, []byte{5, 0}, 1, 2, 3, 4), ext(false, []byte{5, 0}, 1, 2, 3, 4))
	}},
	{"octets after the certificate", path.Unreadable, func(c *chain) {
		c.late = append(c.late, func() { c.part[leaf].der = append(c.part[leaf].der, 0) })
	}},
	{"another algorithm inside than outside", path.Unreadable, func(c *chain) {
		c.late = append(c.late, func() {
			c.resign(leaf, func(tbs []byte) { tbs[indexOf(tbs, "\x2a\x86\x48\xce\x3d\x04\x03\x02")+7] = 3 })
		})
	}},

	// Names.
	{"dNSName not permitted", path.NotPermitted, func(c *chain) { c.constrain(inter, [][]byte{dns("other.example")}, nil) }},
	{"dNSName excluded", path.Excluded, func(c *chain) { c.constrain(inter, nil, [][]byte{dns("FORGE.example")}) }},
	{"dNSName excluded by the root", path.Excluded, func(c *chain) { c.constrain(root, nil, [][]byte{dns("forge.example")}) }},
	{"dNSName permitted by one CA and not by the next", path.NotPermitted, func(c *chain) {
		c.constrain(inter, [][]byte{dns("forge.example")}, nil)
		c.constrain(sub, [][]byte{dns("example.org")}, nil)
	}},
	{"dNSName that ends like a permitted one", path.NotPermitted, func(c *chain) { c.constrain(inter, [][]byte{dns("ge.example")}, nil) }},
	{"wildcard over an excluded host", path.Excluded, func(c *chain) {
		c.part[leaf].x.DNSNames = []string{"*.forge.example"}
		c.constrain(inter, nil, [][]byte{dns("secret.forge.example")})
	}},
	{"no domain name under a constraint", path.NameForm, func(c *chain) {
		c.part[leaf].x.DNSNames = []string{"www..forge.example"}
		c.constrain(inter, [][]byte{dns("forge.example")}, nil)
	}},
	{"mailbox not permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.EmailAddresses = []string{"a@sub.forge.example"}
		c.constrain(inter, [][]byte{mail("forge.example")}, nil)
	}},
	{"mailbox of another person", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.EmailAddresses = []string{"a@forge.example"}
		c.constrain(inter, [][]byte{mail("b@forge.example")}, nil)
	}},
	{"mailbox excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.EmailAddresses = []string{"a@x.Forge.example"}
		c.constrain(inter, nil, [][]byte{mail(".forge.example")})
	}},
	{"mailbox in the subject, excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.DNSNames = nil
		c.part[leaf].x.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@forge.example"}}
		c.constrain(inter, nil, [][]byte{mail("forge.example")})
	}},
	{"URI not permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.URIs = []*url.URL{mustURL("https://forge.example@evil.example/")}
		c.constrain(inter, [][]byte{uri("forge.example")}, nil)
	}},
	{"URI excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.URIs = []*url.URL{mustURL("ldap://a.b.forge.example:389/")}
		c.constrain(inter, nil, [][]byte{uri(".forge.example")})
	}},
	{"URI with an address under a constraint", path.NameForm, func(c *chain) {
		c.part[leaf].x.URIs = []*url.URL{mustURL("https://10.1.2.3/")}
		c.constrain(inter, nil, [][]byte{uri("forge.example")})
	}},
	{"URI without a host under a constraint", path.NameForm, func(c *chain) {
		c.part[leaf].x.URIs = []*url.URL{mustURL("urn:forge:1")}
		c.constrain(inter, nil, [][]byte{uri("forge.example")})
	}},
	{"address not permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.IPAddresses = []net.IP{{10, 1, 2, 3}}
		c.constrain(inter, [][]byte{tagged(0x87, []byte{10, 2, 0, 0, 255, 255, 0, 0})}, nil)
	}},
	{"address excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.IPAddresses = []net.IP{{10, 1, 2, 3}}
		c.constrain(inter, nil, [][]byte{tagged(0x87, []byte{10, 0, 0, 0, 255, 0, 0, 0})})
	}},
	{"address of the other kind not permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.IPAddresses = []net.IP{net.ParseIP("2001:db8::1")}
		c.constrain(inter, [][]byte{tagged(0x87, []byte{10, 0, 0, 0, 255, 0, 0, 0})}, nil)
	}},
	{"a mask with holes", path.Unreadable, func(c *chain) { c.constrain(inter, nil, [][]byte{tagged(0x87, []byte{10, 0, 0, 0, 255, 0, 255, 0})}) }},
	{"subject not permitted", path.NotPermitted, func(c *chain) {
		c.part[leaf].x.Subject.Organization = []string{"Other"}
		c.constrain(inter, [][]byte{directory("Forge")}, nil)
	}},
	{"sub's subject not permitted", path.NotPermitted, func(c *chain) {
		c.part[sub].x.Subject.Organization = []string{"Other"}
		c.constrain(inter, [][]byte{directory("Forge")}, nil)
	}},
	{"subject excluded", path.Excluded, func(c *chain) {
		c.part[leaf].x.Subject.Organization = []string{"Other"}
		c.constrain(inter, nil, [][]byte{directory("Other")})
	}},
	{"subject excluded in another case and string type", path.Excluded, func(c *chain) {
		c.part[leaf].x.Subject.Organization = []string{"OTHER  Ltd*"} // a star makes it a UTF8String
		c.constrain(inter, nil, [][]byte{directory("other ltd*")})
	}},
	{"directoryName among the alternative names, excluded", path.Excluded, func(c *chain) {
		c.named(directory("Other"))
		c.constrain(inter, nil, [][]byte{directory("Other")})
	}},
	{"otherName under a constraint", path.NameForm, func(c *chain) {
		other := tagged(0xa0, oidDER("1.2.3.4"), tagged(0xa0, tagged(12, []byte("x"))))
		c.named(other)
		c.constrain(inter, nil, [][]byte{other})
	}},
	{"registeredID under a constraint", path.NameForm, func(c *chain) {
		id := tagged(0x88, []byte{42, 3, 4})
		c.named(id)
		c.constrain(inter, [][]byte{id}, nil)
	}},
	{"a subtree with a minimum", path.Unreadable, func(c *chain) {
		c.extend(inter, ext(true, seq(tagged(0xa0, seq(dns("forge.example"), tagged(0x80, []byte{1})))), 2, 5, 29, 30))
	}},

	// Policies.
	{"leaf without the policy that is demanded", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}})
		c.explicit("1.2.3.1")
	}},
	{"sub has another policy", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.2"}, leaf: {"1.2.3.1"}})
		c.explicit("1.2.3.1")
	}},
	{"policies fit, and not the user's", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
		c.explicit("1.2.3.9")
	}},
	{"inter demands a policy", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}})
		c.extend(inter, ext(true, seq(tagged(0x80, []byte{0})), 2, 5, 29, 36))
	}},
	{"inter inhibits mapping", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.2"}})
		c.extend(inter, ext(true, seq(tagged(0x81, []byte{0})), 2, 5, 29, 36))
		c.extend(sub, ext(false, seq(seq(oidDER("1.2.3.1"), oidDER("1.2.3.2"))), 2, 5, 29, 33))
		c.explicit("1.2.3.1")
	}},
	{"inter inhibits anyPolicy", path.Policy, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"2.5.29.32.0"}, leaf: {"1.2.3.1"}})
		c.extend(inter, ext(true, integerDER(0), 2, 5, 29, 54))
		c.explicit("1.2.3.1")
	}},
	{"sub maps anyPolicy", path.PolicyMapping, func(c *chain) {
		c.policies(map[int][]string{inter: {"1.2.3.1"}, sub: {"1.2.3.1"}, leaf: {"1.2.3.1"}})
		c.extend(sub, ext(false, seq(seq(oidDER("2.5.29.32.0"), oidDER("1.2.3.1"))), 2, 5, 29, 33))
		c.explicit("1.2.3.1")
	}},
	{"a policy stands twice", path.Unreadable, func(c *chain) {
		c.extend(leaf, ext(false, seq(seq(oidDER("1.2.3.1")), seq(oidDER("1.2.3.1"))), 2, 5, 29, 32))
	}},
	{"a critical policy with an unknown qualifier", path.Unreadable, func(c *chain) {
		c.extend(leaf, ext(true, seq(seq(oidDER("1.2.3.1"), seq(seq(oidDER("1.2.3.4"), []byte{5, 0})))), 2, 5, 29, 32))
	}},

	// Purposes and names asked for.
	{"leaf is for clients", path.Purpose, func(c *chain) {
		c.part[leaf].x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.req.Purpose = "server"
	}},
	{"sub is for clients", path.Purpose, func(c *chain) {
		c.part[sub].x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.req.Purpose = "server"
	}},
	{"leaf's key may only sign lists", path.Purpose, func(c *chain) { c.part[leaf].x.KeyUsage = x509.KeyUsageCRLSign; c.req.Purpose = "server" }},
	{"another host", path.NameMismatch, func(c *chain) { c.req.Name = "other.forge.example" }},
	{"host only in the common name", path.NameMismatch, func(c *chain) {
		c.part[leaf].x.Subject.CommonName, c.req.Name = "cn.forge.example", "cn.forge.example"
	}},
	{"wildcard for two labels", path.NameMismatch, func(c *chain) {
		c.part[leaf].x.DNSNames, c.req.Name = []string{"*.forge.example"}, "a.b.forge.example"
	}},
	{"another address", path.NameMismatch, func(c *chain) {
		c.part[leaf].x.IPAddresses, c.req.Name = []net.IP{{10, 1, 2, 3}}, "10.1.2.4"
	}},

	// Revocation.
	{"leaf revoked", path.Revoked, func(c *chain) { c.list[sub].entries = []entryForge{{serial: 1003, reason: 1}} }},
	{"sub revoked", path.Revoked, func(c *chain) { c.list[inter].entries = []entryForge{{serial: 1002}} }},
	{"inter revoked", path.Revoked, func(c *chain) { c.list[root].entries = []entryForge{{serial: 3}, {serial: 1001, reason: 2}} }},
	{"leaf on hold", path.OnHold, func(c *chain) { c.list[sub].entries = []entryForge{{serial: 1003, reason: 6}} }},
	{"no list of sub", path.StatusUnknown, func(c *chain) { c.list[sub] = nil }},
	{"no list of the root", path.StatusUnknown, func(c *chain) { c.list[root] = nil }},
	{"sub's list past its time", path.StatusStale, func(c *chain) {
		c.list[sub].this, c.list[sub].next = c.now.Add(-2*time.Hour), c.now.Add(-time.Hour)
	}},
	{"sub's list from the future", path.StatusStale, func(c *chain) { c.list[sub].this = c.now.Add(30 * time.Minute) }},
	{"sub's list older than the bound", path.StatusStale, func(c *chain) { c.req.MaxAge = time.Second }},
	{"sub's list with a spoilt signature", path.StatusUnknown, func(c *chain) { c.list[sub].spoil = true }},
	{"sub's list by a stranger", path.StatusUnknown, func(c *chain) { c.list[sub].signer = newKey(c.t) }},
	{"sub's list signed by inter", path.StatusUnknown, func(c *chain) { c.list[sub].signer = c.part[inter].key }},
	{"sub may not sign lists", path.StatusUnknown, func(c *chain) { c.part[sub].x.KeyUsage = x509.KeyUsageCertSign }},
	{"sub's list with an unknown critical extension", path.StatusUnreadable, func(c *chain) { c.list[sub].critical = asn1.ObjectIdentifier{1, 2, 3, 4} }},
	{"an entry with an unknown critical extension", path.StatusUnreadable, func(c *chain) { c.list[sub].entries = []entryForge{{serial: 9, critical: true}} }},
	{"sub's list for CAs only", path.StatusUnknown, func(c *chain) { c.list[sub].scope = seq(tagged(0x82, []byte{0xff})) }},
	{"inter's list for users only", path.StatusUnknown, func(c *chain) { c.list[inter].scope = seq(tagged(0x81, []byte{0xff})) }},
	{"sub's list for attribute certificates", path.StatusUnknown, func(c *chain) { c.list[sub].scope = seq(tagged(0x85, []byte{0xff})) }},
	{"sub's list of another place", path.StatusUnknown, func(c *chain) {
		c.part[leaf].x.CRLDistributionPoints = []string{"http://forge.example/2.crl"}
		c.list[sub].scope = seq(place("http://forge.example/3.crl"))
	}},
	{"sub's list of a place, and none in the leaf", path.StatusUnknown, func(c *chain) { c.list[sub].scope = seq(place("http://forge.example/3.crl")) }},
	{"sub's list for some reasons", path.StatusUnknown, func(c *chain) { c.list[sub].scope = seq(tagged(0x83, []byte{5, 0x60})) }},
	{"a delta revokes", path.Revoked, func(c *chain) {
		c.list[sub].freshest = true
		c.more = append(c.more, &listForge{ca: sub, number: 11, base: 10, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003}}})
	}},
	{"a delta to a later list revokes", path.Revoked, func(c *chain) {
		c.list[sub].freshest = true
		c.more = append(c.more, &listForge{ca: sub, number: 21, base: 20, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003}}})
	}},
	{"a delta by another key of the issuer lifts a hold", path.OnHold, func(c *chain) {
		key := rollover(c, x509.KeyUsageCRLSign)
		c.list[sub].entries = []entryForge{{serial: 1003, reason: 6}}
		c.list[sub].freshest = true
		c.more = append(c.more, &listForge{ca: sub, signer: key, number: 11, base: 10, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003, reason: 8}}})
	}},
	{"a full list removes what only a delta can", path.Revoked, func(c *chain) { c.list[sub].entries = []entryForge{{serial: 1003, reason: 8}} }},
	{"sub's list by another certificate of its name that signs no lists", path.StatusUnknown, func(c *chain) { c.list[sub].signer = rollover(c, 0) }},
	{"a delta alone", path.StatusUnknown, func(c *chain) { c.list[sub].base = 9 }},
	{"the newer of two lists revokes", path.Revoked, func(c *chain) {
		c.more = append(c.more, &listForge{ca: sub, number: 11, this: c.now, next: c.now.Add(time.Hour), entries: []entryForge{{serial: 1003}}})
	}},
	{"an indirect list revokes", path.Revoked, func(c *chain) {
		// The second entry has no issuer of its own: that of the first holds.
		indirect(c, []entryForge{{serial: 1, issuer: subName()}, {serial: 1003}})
	}},
	{"an indirect list calls the issuer by its other name", path.Revoked, func(c *chain) {
		other := nameDER(pkix.Name{CommonName: "Sub by another name"})
		c.extend(leaf, ext(false, seq(tagged(0xa4, other)), 2, 5, 29, 18))
		indirect(c, []entryForge{{serial: 1003, issuer: other}})
	}},
	{"an indirect list whose issuer is itself revoked", path.StatusUnknown, func(c *chain) {
		indirect(c, nil)
		c.list[inter].entries = []entryForge{{serial: 500}}
	}},
	{"an indirect list that does not say so", path.StatusUnknown, func(c *chain) {
		indirect(c, nil)
		c.list[sub].scope = seq(place("http://forge.example/i.crl"))
	}},
	{"another issuer's entry in a list that is not indirect", path.StatusUnreadable, func(c *chain) {
		c.list[sub].entries = []entryForge{{serial: 7, issuer: subName()}}
	}},
	{"OCSP says revoked, the list good", path.Revoked, func(c *chain) {
		c.answer(sub, 1003, func(d *ocsp.ResponseData) { d.Responses[0].Status, d.Responses[0].RevokedAt = ocsp.Revoked, c.now }, nil)
	}},
	{"OCSP past its time says revoked, the list good", path.Revoked, func(c *chain) {
		c.answer(sub, 1003, func(d *ocsp.ResponseData) {
			d.Responses[0].Status, d.Responses[0].RevokedAt, d.Responses[0].NextUpdate = ocsp.Revoked, c.now, c.now.Add(-time.Second)
		}, nil)
	}},
	{"OCSP knows of no such certificate", path.StatusUnknown, func(c *chain) {
		c.answer(sub, 1003, func(d *ocsp.ResponseData) { d.Responses[0].Status = ocsp.Unknown }, nil)
	}},
	{"OCSP past its time", path.StatusStale, func(c *chain) {
		c.list[sub] = nil
		c.answer(sub, 1003, func(d *ocsp.ResponseData) { d.Responses[0].NextUpdate = c.now.Add(-time.Second) }, nil)
	}},
	{"OCSP by a stranger", path.StatusUnknown, func(c *chain) { c.list[sub] = nil; c.answer(sub, 1003, nil, newKey(c.t)) }},
	{"OCSP about another certificate", path.StatusUnknown, func(c *chain) { c.list[sub] = nil; c.answer(sub, 1004, nil, nil) }},
	{"OCSP of another CA", path.StatusUnknown, func(c *chain) { c.list[sub] = nil; c.answer(inter, 1003, nil, nil) }},
}

// rollover gives sub's name another key, certified by inter.
func rollover(c *chain, usage x509.KeyUsage) crypto.Signer {
	key := newKey(c.t)
	c.late = append(c.late, func() {
		c.also = append(c.also, c.issue(inter, &x509.Certificate{
			SerialNumber: big.NewInt(600), Subject: c.part[sub].x.Subject, NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(time.Hour),
			BasicConstraintsValid: true, KeyUsage: usage,
		}, key))
	})
	return key
}

func (c *chain) spoil(i int) {
	c.late = append(c.late, func() { c.part[i].der[len(c.part[i].der)-1] ^= 1 })
}

func (c *chain) explicit(policies ...string) {
	c.req.Policies, c.req.ExplicitPolicy = policies, true
}

func dns(s string) []byte  { return tagged(0x82, []byte(s)) }
func mail(s string) []byte { return tagged(0x81, []byte(s)) }

func directory(organization string) []byte {
	return tagged(0xa4, nameDER(pkix.Name{Country: []string{"CN"}, Organization: []string{organization}}))
}

func subName() []byte {
	return nameDER(pkix.Name{Country: []string{"CN"}, Organization: []string{"Forge"}, CommonName: "Sub"})
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFaults(t *testing.T) {
	if len(faults) < 60 {
		t.Errorf("only %d faults", len(faults))
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			c := newChain(t)
			f.plant(c)
			a := path.Validate(t.Context(), c.sign())
			if a.Valid {
				t.Fatal("a wrong valid")
			}
			if a.Reason.ID != f.want {
				t.Errorf("reason %v, want %s", a.Reason, f.want)
			}
		})
	}
	t.Logf("%d faults", len(faults))
}
