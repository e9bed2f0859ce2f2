package path_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"

	"math/big"

	"net/url"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/ocsp"
	"hufu/verify/path"
)

// chain is a root, two CAs below it and a server's certificate, that a test may
// spoil before anything is signed, or after.
type chain struct {
	t    *testing.T
	now  time.Time
	part [4]*part // root, inter, sub, leaf
	also [][]byte // further certificates given as intermediates
	list [3]*listForge
	more []*listForge
	ocsp [][]byte
	req  path.Request

	late []func() // run when everything is signed
}

const (
	root = iota
	inter
	sub
	leaf
)

// part is one certificate to be.
type part struct {
	x      *x509.Certificate
	key    crypto.Signer
	signer crypto.Signer // nil: the key of the one above
	der    []byte
}

var forgedKeys [4]*ecdsa.PrivateKey

func newChain(t *testing.T) *chain {
	c := &chain{t: t, now: time.Now().UTC().Truncate(time.Second)}
	names := []string{"Root", "Inter", "Sub", "Leaf"}
	for i, name := range names {
		if forgedKeys[i] == nil {
			forgedKeys[i] = newKey(t)
		}
		x := &x509.Certificate{
			SerialNumber: big.NewInt(int64(1000 + i)), Subject: pkix.Name{Country: []string{"CN"}, Organization: []string{"Forge"}, CommonName: name},
			NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(24 * time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		id := sha1.Sum([]byte(name))
		x.SubjectKeyId = id[:]
		c.part[i] = &part{x: x, key: forgedKeys[i]}
	}
	l := c.part[leaf].x
	l.IsCA, l.KeyUsage, l.DNSNames = false, x509.KeyUsageDigitalSignature, []string{"www.forge.example"}
	l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for i := range c.list {
		c.list[i] = &listForge{ca: i, number: 10, this: c.now.Add(-time.Minute), next: c.now.Add(time.Hour)}
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes the certificates and the lists, and the request about them.
func (c *chain) sign() *path.Request {
	c.t.Helper()
	for i, p := range c.part {
		above := c.part[max(i-1, 0)]
		signer := p.signer
		if signer == nil {
			signer = above.key
		}
		var err error
		if p.der, err = x509.CreateCertificate(rand.Reader, p.x, parentOf(above.x, signer), p.key.Public(), signer); err != nil {
			c.t.Fatalf("forging certificate %d: %v", i, err)
		}
	}
	for _, f := range c.late {
		f()
	}
	r := &c.req
	r.Certificate, r.Time = c.part[leaf].der, c.now
	r.Anchors = append(r.Anchors, c.part[root].der)
	r.Intermediates = append(append(r.Intermediates, c.part[sub].der, c.part[inter].der), c.also...)
	for _, der := range c.lists() {
		r.CRLs = append(r.CRLs, bytes.NewReader(der))
	}
	r.OCSP = c.ocsp
	return r
}

func (c *chain) lists() [][]byte {
	var all [][]byte
	for _, l := range append(c.list[:], c.more...) {
		if l != nil {
			all = append(all, l.der(c))
		}
	}
	return all
}

// parentOf keeps CreateCertificate from comparing a spoilt parent with its signer.
func parentOf(x *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	p := *x
	p.PublicKey = signer.Public()
	return &p
}

// issue makes one more certificate below one of the chain.
func (c *chain) issue(ca int, x *x509.Certificate, key crypto.Signer) []byte {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, x, parentOf(c.part[ca].x, c.part[ca].key), key.Public(), c.part[ca].key)
	if err != nil {
		c.t.Fatal(err)
	}
	return der
}

// resign changes the signed part, keeping its length, and signs it again.
func (c *chain) resign(i int, change func(tbs []byte)) {
	c.t.Helper()
	var parts struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.part[i].der, &parts); err != nil {
		c.t.Fatal(err)
	}
	tbs := bytes.Clone(parts.TBS.FullBytes)
	change(tbs)
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, c.part[max(i-1, 0)].key.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	c.part[i].der = wrap(tbs, parts.Algorithm.FullBytes, signature)
}

func wrap(tbs, algorithm, signature []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic()
}

// rsaDigest makes the leaf be signed by an RSA key with another digest. last is the
// last octet of the algorithm's object identifier.
func (c *chain) rsaDigest(hash crypto.Hash, last byte) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		c.t.Fatal(err)
	}
	c.part[sub].key = key
	c.late = append(c.late, func() {
		der := bytes.ReplaceAll(c.part[leaf].der, []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), append([]byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01"), last))
		var parts struct {
			TBS       asn1.RawValue
			Algorithm asn1.RawValue
			Signature asn1.BitString
		}
		if _, err := asn1.Unmarshal(der, &parts); err != nil {
			c.t.Fatal(err)
		}
		h := hash.New()
		h.Write(parts.TBS.FullBytes)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, hash, h.Sum(nil))
		if err != nil {
			c.t.Fatal(err)
		}
		c.part[leaf].der = wrap(parts.TBS.FullBytes, parts.Algorithm.FullBytes, signature)
	})
}

// listForge is one list to be.
type listForge struct {
	ca         int
	issuer     []byte        // DER; nil: the CA's subject
	signer     crypto.Signer // nil: the CA's
	this, next time.Time
	number     int64
	base       int64
	scope      []byte
	critical   asn1.ObjectIdentifier // one more extension
	freshest   bool                  // says where its delta is
	entries    []entryForge
	spoil      bool
}

type entryForge struct {
	serial   int64
	reason   int
	issuer   []byte // DER of a Name
	critical bool   // one more extension that nobody knows
}

func (l *listForge) der(c *chain) []byte {
	issuer, signer := l.issuer, l.signer
	if issuer == nil {
		issuer = nameDER(c.part[l.ca].x.Subject)
	}
	if signer == nil {
		signer = c.part[l.ca].key
	}
	algorithm := []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")
	if _, ok := signer.(*rsa.PrivateKey); ok {
		algorithm = []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddBytes(algorithm)
		b.AddBytes(issuer)
		b.AddASN1UTCTime(l.this)
		b.AddASN1UTCTime(l.next)
		if l.entries != nil {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, e := range l.entries {
					e.add(b, l.this)
				}
			})
		}
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addExt(b, asn1.ObjectIdentifier{2, 5, 29, 20}, false, integerDER(l.number))
				if l.base != 0 {
					addExt(b, asn1.ObjectIdentifier{2, 5, 29, 27}, true, integerDER(l.base))
				}
				if l.scope != nil {
					addExt(b, asn1.ObjectIdentifier{2, 5, 29, 28}, true, l.scope)
				}
				if l.freshest {
					addExt(b, asn1.ObjectIdentifier{2, 5, 29, 46}, false, seq(seq(place("http://forge.example/delta.crl"))))
				}
				if l.critical != nil {
					addExt(b, l.critical, true, []byte{5, 0})
				}
			})
		})
	})
	tbs := b.BytesOrPanic()
	digest := sha256.Sum256(tbs)
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		c.t.Fatal(err)
	}
	if l.spoil {
		signature[len(signature)-1] ^= 1
	}
	return wrap(tbs, algorithm, signature)
}

func (e entryForge) add(b *cryptobyte.Builder, at time.Time) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(e.serial)
		b.AddASN1UTCTime(at)
		if e.reason == 0 && e.issuer == nil && !e.critical {
			return
		}
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if e.reason != 0 {
				addExt(b, asn1.ObjectIdentifier{2, 5, 29, 21}, false, []byte{10, 1, byte(e.reason)})
			}
			if e.issuer != nil {
				addExt(b, asn1.ObjectIdentifier{2, 5, 29, 29}, true, seq(tagged(0xa4, e.issuer)))
			}
			if e.critical {
				addExt(b, asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0})
			}
		})
	})
}

func addExt(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(value)
	})
}

func integerDER(n int64) []byte {
	der, _ := asn1.Marshal(n)
	return der
}

// tagged writes a short element by hand.
func tagged(tag byte, contents ...[]byte) []byte {
	all := bytes.Join(contents, nil)
	switch {
	case len(all) < 0x80:
		return append([]byte{tag, byte(len(all))}, all...)
	case len(all) < 0x100:
		return append([]byte{tag, 0x81, byte(len(all))}, all...)
	}
	return append([]byte{tag, 0x82, byte(len(all) >> 8), byte(len(all))}, all...)
}

func seq(contents ...[]byte) []byte { return tagged(0x30, contents...) }

func uri(s string) []byte { return tagged(0x86, []byte(s)) }

// place is a DistributionPointName with URIs.
func place(uris ...string) []byte {
	var names [][]byte
	for _, u := range uris {
		names = append(names, uri(u))
	}
	return tagged(0xa0, tagged(0xa0, names...))
}

func nameDER(n pkix.Name) []byte {
	der, _ := asn1.Marshal(n.ToRDNSequence())
	return der
}

func ext(critical bool, value []byte, id ...int) pkix.Extension {
	return pkix.Extension{Id: id, Critical: critical, Value: value}
}

// extend adds extensions to a certificate to be.
func (c *chain) extend(i int, extensions ...pkix.Extension) {
	c.part[i].x.ExtraExtensions = append(c.part[i].x.ExtraExtensions, extensions...)
}

// constrain gives a CA name constraints: the contents of GeneralNames, each whole.
func (c *chain) constrain(i int, permitted, excluded [][]byte) {
	var lists [][]byte
	for k, names := range [][][]byte{permitted, excluded} {
		var trees [][]byte
		for _, n := range names {
			trees = append(trees, seq(n))
		}
		if trees != nil {
			lists = append(lists, tagged(0xa0+byte(k), trees...))
		}
	}
	c.extend(i, ext(true, seq(lists...), 2, 5, 29, 30))
}

// named gives the leaf these alternative names.
func (c *chain) named(names ...[]byte) {
	c.part[leaf].x.DNSNames = nil
	c.extend(leaf, ext(false, seq(append([][]byte{tagged(0x82, []byte("www.forge.example"))}, names...)...), 2, 5, 29, 17))
}

func oids(ids ...string) []x509.OID {
	var all []x509.OID
	for _, id := range ids {
		o, err := x509.ParseOID(id)
		if err != nil {
			panic(err)
		}
		all = append(all, o)
	}
	return all
}

func oidDER(dotted string) []byte {
	b, _ := oids(dotted)[0].MarshalBinary()
	return tagged(6, b)
}

// policies gives the certificates from one on a policy.
func (c *chain) policies(of map[int][]string) {
	for i, ids := range of {
		c.part[i].x.Policies = oids(ids...)
	}
}

// answer makes an OCSP answer of a CA about a certificate of it.
func (c *chain) answer(ca int, serial int64, change func(*ocsp.ResponseData), signer *ecdsa.PrivateKey) {
	c.late = append(c.late, func() {
		key := signer
		if key == nil {
			key = c.part[ca].key.(*ecdsa.PrivateKey)
		}
		c.ocsp = append(c.ocsp, c.answered(ca, serial, change, key))
	})
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}
