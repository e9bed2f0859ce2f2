package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/verify"
)

func TestLoadRequest(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	req := w.request(r)
	der := w.sign(t, r, req)
	for range 2 { // fresh, then known
		load, err := w.verifier.LoadRequest(t.Context(), der)
		if err != nil {
			t.Fatal(err)
		}
		if load.Transaction != req.Transaction || load.Amount != 5000 || load.Message.Hash != sha256.Sum256(der) {
			t.Errorf("read back %+v", load.LoadRequest)
		}
		if s := load.Message.Signer; s.Reader != "1001" || s.City != "330100" || s.Name != "r1001.330100.readers.card.example" || s.Serial != r.Sign.Serial {
			t.Errorf("signer %+v", s)
		}
		if !bytes.Equal(load.Encryption.DER, r.Encrypt.Certificate) {
			t.Error("another encryption certificate")
		}
		if e := load.Evidence; e.Seq != 7 || e.State != verify.Good || e.Source != "test" {
			t.Errorf("evidence %+v", e)
		}
	}
}

// misfit checks the kind of an error, its half, and that it says something.
func misfit[T verify.Misfit](t *testing.T, what string, half verify.Half, err error) {
	t.Helper()
	m, ok := errors.AsType[T](err)
	if !ok {
		t.Errorf("%s: %T %v, want %T", what, err, err, m)
		return
	}
	if m.Half() != half {
		t.Errorf("%s: the %s half, want the %s one", what, m.Half(), half)
	}
	if len(m.Error()) < 20 {
		t.Errorf("%s: says only %q", what, m)
	}
}

// Twelve readers that must not load, and why.
func TestWrongReaders(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t) // a twin hierarchy with the same names and other keys
	good := w.reader(t, "330100", "1001")
	city := w.CA("330100")
	verified := func(r *testpki.Reader) error {
		_, err := w.verifier.LoadRequest(t.Context(), w.sign(t, r, w.request(r)))
		return err
	}
	with := func(sign, encrypt *testpki.Leaf) *testpki.Reader {
		return &testpki.Reader{Number: "1001", City: "330100", Sign: sign, Encrypt: encrypt}
	}
	if err := verified(good); err != nil {
		t.Fatal(err)
	}
	forged := func(change func(*x509.Certificate)) error {
		leaf := forge(t, city, good.Sign, change)
		r := with(leaf, good.Encrypt)
		req := w.request(good)
		content := testpki.Must(req.Marshal())
		_, err := w.verifier.LoadRequest(t.Context(), w.signed(t, oid.ContentLoadRequest, content, r.Sign, r.Encrypt.Certificate))
		return err
	}

	// The forge itself makes readers that pass.
	if err := forged(nil); err != nil {
		t.Fatalf("forged without a change: %v", err)
	}

	misfit[*verify.ChainError](t, "another root's reader", verify.Presented, verified(other.reader(t, "330100", "1001")))
	misfit[*verify.ChainError](t, "self-signed twin", verify.Presented, verified(with(selfSigned(t, good.Sign), good.Encrypt)))

	revoked, held, unknown := w.reader(t, "330100", "2"), w.reader(t, "330100", "3"), w.reader(t, "330100", "4")
	w.set(revoked.Sign, verify.Revoked)
	w.set(held.Sign, verify.OnHold)
	w.set(unknown.Sign, verify.Unknown)
	misfit[*verify.RevokedError](t, "revoked", verify.Kept, verified(revoked))
	misfit[*verify.HeldError](t, "on hold", verify.Kept, verified(held))
	misfit[*verify.UnknownError](t, "never issued", verify.Kept, verified(unknown))
	sealed := w.reader(t, "330100", "5")
	w.set(sealed.Encrypt, verify.Revoked)
	misfit[*verify.RevokedError](t, "encryption certificate revoked", verify.Kept, verified(sealed))

	misfit[*verify.PurposeError](t, "signed with the encryption key", verify.Presented, verified(with(good.Encrypt, good.Encrypt)))
	misfit[*verify.PurposeError](t, "sealing to the signing key", verify.Presented, verified(with(good.Sign, good.Sign)))
	device := testpki.Must(w.Device("1001"))
	misfit[*verify.NameError](t, "first-stage identity", verify.Presented, func() error {
		_, err := w.verifier.Chain(device.Certificate, device.Chain, verify.ReaderSigning)
		return err
	}())

	misfit[*verify.NameError](t, "reader of another city", verify.Presented, forged(func(c *x509.Certificate) {
		c.DNSNames = []string{"r1001.330200.readers.card.example"}
	}))
	misfit[*verify.NameError](t, "without a dNSName", verify.Presented, forged(func(c *x509.Certificate) { c.DNSNames = nil }))
	misfit[*verify.NameError](t, "two dNSNames", verify.Presented, forged(func(c *x509.Certificate) {
		c.DNSNames = append(c.DNSNames, "r1002.330100.readers.card.example")
	}))
	misfit[*verify.NameError](t, "also an e-mail address", verify.Presented, forged(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com"} }))
	misfit[*verify.NameError](t, "also a URI", verify.Presented, forged(func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "https", Host: "example.com"}}
	}))
	misfit[*verify.NameError](t, "also an address", verify.Presented, forged(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }))
	misfit[*verify.NameError](t, "also a form that Go does not know", verify.Presented, forged(func(c *x509.Certificate) {
		name := asn1.RawValue{Class: 2, Tag: 2, Bytes: []byte(c.DNSNames[0])}
		registered := asn1.RawValue{Class: 2, Tag: 8, Bytes: []byte{42, 3}}
		value := testpki.Must(asn1.Marshal([]asn1.RawValue{name, registered}))
		c.DNSNames, c.ExtraExtensions = nil, []pkix.Extension{{Id: oid.ExtSubjectAltName, Value: value}}
	}))
	misfit[*verify.NameError](t, "common name of another", verify.Presented, forged(func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "r1.330200.readers.card.example"}
	}))
	misfit[*verify.NameError](t, "not a reader's name", verify.Presented, forged(func(c *x509.Certificate) {
		c.DNSNames = []string{"www.330100.readers.card.example"}
		c.Subject = pkix.Name{CommonName: c.DNSNames[0]}
	}))
	misfit[*verify.PolicyError](t, "a city's policy", verify.Presented, forged(func(c *x509.Certificate) { c.Policies = policies(oid.PolicyCity) }))
	misfit[*verify.PolicyError](t, "two policies", verify.Presented, forged(func(c *x509.Certificate) { c.Policies = policies(oid.PolicyReader, oid.PolicyCity) }))
	misfit[*verify.PurposeError](t, "without the transaction usage", verify.Presented, forged(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }))
	misfit[*verify.PurposeError](t, "a CA", verify.Presented, forged(func(c *x509.Certificate) { c.IsCA = true }))
	misfit[*verify.ValidityError](t, "ended", verify.Presented, forged(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	misfit[*verify.ValidityError](t, "not begun", verify.Presented, forged(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }))
}

func policies(ids ...asn1.ObjectIdentifier) (list []x509.OID) {
	for _, id := range ids {
		list = append(list, testpki.Must(x509.ParseOID(id.String())))
	}
	return list
}

// selfSigned copies every field of a certificate and signs it with its own key.
func selfSigned(t *testing.T, like *testpki.Leaf) *testpki.Leaf {
	t.Helper()
	template := like.X509()
	key := testpki.Must(testpki.Key())
	template.PublicKey = key.Public()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &testpki.Leaf{Certificate: der, Chain: like.Chain, Key: key, Serial: like.Serial}
}

func TestPairs(t *testing.T) {
	w := newWorld(t)
	good, other := w.reader(t, "330100", "1001"), w.reader(t, "330100", "1002")
	verified := func(r *testpki.Reader, req *verify.LoadRequest, more ...[]byte) error {
		der := w.signed(t, oid.ContentLoadRequest, testpki.Must(req.Marshal()), r.Sign, more...)
		_, err := w.verifier.LoadRequest(t.Context(), der)
		return err
	}
	req := w.request(good)
	misfit[*verify.PairError](t, "the encryption certificate stays at home", verify.Presented, verified(good, req))
	misfit[*verify.PairError](t, "another one travels", verify.Presented, verified(good, req, other.Encrypt.Certificate))
	req = w.request(good)
	req.EncryptionHash = sha256.Sum256(other.Encrypt.Certificate)
	misfit[*verify.PairError](t, "another reader's is named", verify.Presented, verified(good, req, other.Encrypt.Certificate))

	// The same reader's under another generation of the city's CA.
	next := testpki.Must(w.AddCA("330100.2", "city", "330100"))
	later := testpki.Must(next.New("reader-encrypt", policy.Name{Reader: "1001", City: "330100"}))
	req = w.request(good)
	req.EncryptionHash = sha256.Sum256(later.Certificate)
	misfit[*verify.PairError](t, "of another generation", verify.Presented, verified(good, req, later.Certificate, later.Chain[0]))

	// One key in both certificates.
	same := testpki.Must(w.CA("330100").Certify(good.Sign.Key, requestFor("reader-encrypt", "1001")))
	req = w.request(good)
	req.EncryptionHash = sha256.Sum256(same.Certificate)
	misfit[*verify.PairError](t, "one key", verify.Presented, verified(good, req, same.Certificate))

	req = w.request(good)
	req.Reader = other.Sign.X509().DNSNames[0]
	misfit[*verify.MismatchError](t, "in another reader's name", verify.Presented, verified(good, req, good.Encrypt.Certificate))
	req = w.request(good)
	req.ReaderCity = "330200"
	misfit[*verify.MismatchError](t, "in another city", verify.Presented, verified(good, req, good.Encrypt.Certificate))
	req = w.request(good)
	req.Expiry = w.now().Add(-time.Second)
	misfit[*verify.ExpiredError](t, "late", verify.Presented, verified(good, req, good.Encrypt.Certificate))
}

func TestMessageForm(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	der := w.sign(t, r, w.request(r))
	check := func(b []byte) error {
		_, err := w.verifier.LoadRequest(t.Context(), b)
		return err
	}
	misfit[*verify.SizeError](t, "too long", verify.Presented, check(make([]byte, 1<<20)))
	misfit[*verify.FormError](t, "rubbish", verify.Presented, check([]byte("rubbish")))
	misfit[*verify.FormError](t, "cut", verify.Presented, check(der[:len(der)-1]))
	misfit[*verify.MismatchError](t, "another content type", verify.Presented, func() error {
		_, _, err := w.verifier.LoadResult(t.Context(), der)
		return err
	}())
	misfit[*verify.FormError](t, "rubbish, signed", verify.Presented, check(w.signed(t, oid.ContentLoadRequest, []byte("rubbish"), r.Sign, r.Encrypt.Certificate)))

	bad := bytes.Clone(der)
	bad[len(bad)-1] ^= 1
	misfit[*verify.SignatureError](t, "another signature", verify.Presented, check(bad))

	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 0x01
		if check(bad) == nil {
			t.Errorf("octet %d of %d changed is accepted", i, len(der))
		}
	}
}

func TestFailsClosed(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	der := w.sign(t, r, w.request(r))
	check := func(v *verify.Verifier) error {
		_, err := v.LoadRequest(t.Context(), der)
		return err
	}
	misfit[*verify.ChainError](t, "zero Verifier", verify.Presented, check(&verify.Verifier{}))
	misfit[*verify.NameError](t, "no domain", verify.Presented, check(&verify.Verifier{Anchors: w.Anchors()}))
	misfit[*verify.StaleError](t, "no status", verify.Kept, check(&verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain}))
	down := errors.New("the directory is on fire")
	failing := func(context.Context, *verify.Cert) (verify.Evidence, error) {
		return verify.Evidence{State: verify.Good}, down
	}
	err := check(&verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Status: failing})
	misfit[*verify.StaleError](t, "no answer", verify.Kept, err)
	if !errors.Is(err, down) {
		t.Errorf("the cause is lost: %v", err)
	}
	empty := func(context.Context, *verify.Cert) (verify.Evidence, error) { return verify.Evidence{}, nil }
	misfit[*verify.UnknownError](t, "empty answer", verify.Kept, check(&verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Status: empty}))
	misfit[*verify.ChainError](t, "bad anchor", verify.Presented, check(&verify.Verifier{Anchors: [][]byte{{1}}, Domain: testpki.Domain}))
}

// A working CA that was revoked takes what it signed with it.
func TestRevokedCA(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	der := w.sign(t, r, w.request(r))
	w.verifier.Status = func(ctx context.Context, c *verify.Cert) (verify.Evidence, error) {
		if c.X509.IsCA {
			return verify.Evidence{State: verify.Revoked}, nil
		}
		return w.status(ctx, c)
	}
	_, err := w.verifier.LoadRequest(t.Context(), der)
	misfit[*verify.RevokedError](t, "city CA revoked", verify.Kept, err)
}

// What is remembered is judged by today's clock and today's status.
func TestKnownReader(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	check := func() error {
		_, err := w.verifier.LoadRequest(t.Context(), w.sign(t, r, w.request(r)))
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	w.set(r.Sign, verify.Revoked)
	misfit[*verify.RevokedError](t, "revoked meanwhile", verify.Kept, check())
	w.set(r.Sign, verify.Good)
	w.wait(6 * 365 * 24 * time.Hour)
	misfit[*verify.ValidityError](t, "ended meanwhile", verify.Presented, check())
}

func TestCacheIsBounded(t *testing.T) {
	w := newWorld(t)
	w.verifier.CacheSize = 4
	var certs []*testpki.Leaf
	for i := range 12 {
		certs = append(certs, w.reader(t, "330100", fmt.Sprint(i+1)).Sign)
	}
	for range 3 {
		for _, c := range certs {
			if _, err := w.verifier.Chain(c.Certificate, c.Chain, verify.ReaderSigning); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Known or not, a certificate is judged for the purpose asked for.
	_, err := w.verifier.Chain(certs[11].Certificate, certs[11].Chain, verify.ReaderEncryption)
	misfit[*verify.PurposeError](t, "known for something else", verify.Presented, err)
}

func TestPurposes(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	leaves := map[string]*testpki.Leaf{
		"reader-sign": r.Sign, "reader-encrypt": r.Encrypt, "city-sign": testpki.Must(w.CitySigner("330100")),
		"device": testpki.Must(w.Device("1001")), "centre-sign": testpki.Must(w.CentreSigner()), "operator": testpki.Must(w.Operator("Li Lei", "330100")),
		"server": testpki.Must(w.Server("hufu.card.example")), "client": testpki.Must(w.Client("top-up", "330100")),
		"recipient": testpki.Must(w.CA("staff").New("recipient", policy.Name{Person: "Li Lei"})),
	}
	want := map[verify.Purpose][]string{
		verify.ReaderSigning: {"reader-sign"}, verify.ReaderEncryption: {"reader-encrypt"}, verify.ReaderClient: {"reader-sign"},
		verify.CitySigning: {"city-sign"}, verify.Device: {"device"}, verify.CentreSigning: {"centre-sign"}, verify.Staff: {"operator"},
		verify.Server: {"server"}, verify.Client: {"client"}, verify.Recipient: {"recipient"}, 99: nil, 0: nil,
	}
	for p, profiles := range want {
		for name, leaf := range leaves {
			_, err := w.verifier.Chain(leaf.Certificate, leaf.Chain, p)
			if fits := strings.Contains(strings.Join(profiles, " "), name); fits != (err == nil) {
				t.Errorf("%s to %v: %v", name, p, err)
			}
		}
	}
	if _, err := w.verifier.Chain(r.Sign.Certificate, r.Sign.Chain, verify.Staff, verify.Client, verify.ReaderClient); err != nil {
		t.Errorf("one of three: %v", err)
	}
	if _, err := w.verifier.Chain(r.Sign.Certificate, r.Sign.Chain); err == nil {
		t.Error("for no purpose")
	}
	for _, ca := range w.CAs() {
		for p := range want {
			if _, err := w.verifier.Chain(ca.Record.Certificate, nil, p); err == nil {
				t.Errorf("CA %s may %v", ca.Record.ID, p)
			}
		}
	}
}

// A city's permission is believed only for this city's cards and this request.
func TestLoadPermission(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001")
	signers := map[string]*testpki.Leaf{"330100": testpki.Must(w.CitySigner("330100")), "330200": testpki.Must(w.CitySigner("330200"))}
	req := w.request(r)
	request := w.sign(t, r, req)
	script := &verify.SealedScript{
		Transaction: req.Transaction, City: "330100", Reader: req.Reader, Expiry: req.Expiry, RequestHash: sha256.Sum256(request),
		CommandScript: []byte("command"), DataScript: []byte("data"),
	}
	sealed := testpki.Must(cms.Seal(testpki.Must(script.Marshal()), r.Encrypt.Certificate, nil))
	permission := func() *verify.LoadPermission {
		return &verify.LoadPermission{
			Transaction: req.Transaction, City: "330100", Reader: req.Reader, Expiry: req.Expiry,
			RequestHash: sha256.Sum256(request), CommandHash: sha256.Sum256([]byte("command")), Sealed: sealed,
		}
	}
	check := func(p *verify.LoadPermission, signer *testpki.Leaf) error {
		der := w.signed(t, oid.ContentLoadPermission, testpki.Must(p.Marshal()), signer)
		_, _, err := w.verifier.LoadPermission(t.Context(), der, request)
		return err
	}
	if err := check(permission(), signers["330100"]); err != nil {
		t.Fatal(err)
	}
	misfit[*verify.PurposeError](t, "signed by a reader", verify.Presented, func() error {
		leaf := forge(t, w.CA("330100"), signers["330100"], func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oid.EKUTransactionSigning} })
		return check(permission(), leaf)
	}())
	misfit[*verify.MismatchError](t, "signed by another city", verify.Presented, check(permission(), signers["330200"]))
	for what, change := range map[string]func(*verify.LoadPermission){
		"city":        func(p *verify.LoadPermission) { p.City = "330200" },
		"transaction": func(p *verify.LoadPermission) { p.Transaction = strings.Repeat("0", 32) },
		"reader":      func(p *verify.LoadPermission) { p.Reader = "r1.330100.readers.card.example" },
		"request":     func(p *verify.LoadPermission) { p.RequestHash[0] ^= 1 },
	} {
		p := permission()
		change(p)
		misfit[*verify.MismatchError](t, "another "+what, verify.Presented, check(p, signers["330100"]))
		if err := script.Check(p); err == nil {
			t.Errorf("the script fits a permission with another %s", what)
		}
	}
	late := permission()
	late.Expiry = w.now().Add(-time.Minute)
	misfit[*verify.ExpiredError](t, "late", verify.Presented, check(late, signers["330100"]))
	if err := script.Check(permission()); err != nil {
		t.Errorf("the script does not fit: %v", err)
	}
	swapped := *script
	swapped.CommandScript = []byte("other")
	if err := swapped.Check(permission()); err == nil {
		t.Error("another command script fits")
	}
}

// The door of a TLS server lets in by purpose and status.
func TestVerifyPeer(t *testing.T) {
	w := newWorld(t)
	server := testpki.Must(w.Server("localhost"))
	r := w.reader(t, "330100", "1001")
	held := w.reader(t, "330100", "1002")
	w.set(held.Sign, verify.OnHold)
	operator := testpki.Must(w.Operator("Li Lei", "330100"))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{server.TLS()}, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyPeerCertificate: w.verifier.VerifyPeer(verify.ReaderClient),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if c.(*tls.Conn).Handshake() == nil {
				c.Write([]byte("x"))
			}
			c.Close()
		}
	}()
	for name, c := range map[string]struct {
		leaf *testpki.Leaf
		fits bool
	}{"reader": {r.Sign, true}, "held reader": {held.Sign, false}, "operator": {operator, false}, "encryption": {r.Encrypt, false}} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: w.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{c.leaf.TLS()}})
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.verifier.Peer(t.Context(), nil, verify.ReaderClient); err == nil {
		t.Error("nobody is let in")
	}
}

// Too many certificates, and too large ones, are refused before they are tried.
func TestChainSizes(t *testing.T) {
	w := newWorld(t)
	r := w.reader(t, "330100", "1001").Sign
	_, err := w.verifier.Chain(make([]byte, cms.MaxCertificate+1), nil, verify.ReaderSigning)
	misfit[*verify.SizeError](t, "large", verify.Presented, err)
	_, err = w.verifier.Chain(r.Certificate, make([][]byte, 9), verify.ReaderSigning)
	misfit[*verify.SizeError](t, "many", verify.Presented, err)
	_, err = w.verifier.Chain(r.Certificate, [][]byte{make([]byte, cms.MaxCertificate+1)}, verify.ReaderSigning)
	misfit[*verify.SizeError](t, "a large one among them", verify.Presented, err)
	_, err = w.verifier.Chain(r.Certificate, [][]byte{{1, 2}}, verify.ReaderSigning)
	misfit[*verify.FormError](t, "rubbish among them", verify.Presented, err)
	_, err = w.verifier.Chain(r.Certificate, nil, verify.ReaderSigning)
	misfit[*verify.ChainError](t, "without its CA", verify.Presented, err)
	known := &verify.Verifier{Anchors: w.Anchors(), Intermediates: [][]byte{w.CA("330100").Record.Certificate}, Domain: testpki.Domain}
	if _, err = known.Chain(r.Certificate, nil, verify.ReaderSigning); err != nil {
		t.Errorf("with the CA known beforehand: %v", err)
	}
}

// A city CA as the anchor keeps its fence.
func TestCityAsAnchor(t *testing.T) {
	w := newWorld(t)
	good := w.reader(t, "330100", "1001").Sign
	v := &verify.Verifier{Anchors: [][]byte{w.CA("330100").Record.Certificate}, Domain: testpki.Domain}
	if _, err := v.Chain(good.Certificate, nil, verify.ReaderSigning); err != nil {
		t.Error(err)
	}
	elsewhere := forge(t, w.CA("330100"), good, func(c *x509.Certificate) {
		c.DNSNames = []string{"r1001.330200.readers.card.example"}
		c.Subject = pkix.Name{CommonName: c.DNSNames[0]}
	})
	_, err := v.Chain(elsewhere.Certificate, nil, verify.ReaderSigning)
	misfit[*verify.NameError](t, "another city's reader", verify.Presented, err)
	staff := forge(t, w.CA("330100"), good, func(c *x509.Certificate) { c.Policies = policies(oid.PolicyStaff) })
	_, err = v.Chain(staff.Certificate, nil, verify.Staff)
	misfit[*verify.PolicyError](t, "staff by a city CA", verify.Presented, err)
}
