package ocsp_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	oracle "golang.org/x/crypto/ocsp"

	"hufu/internal/ocsp"
	"hufu/internal/oid"
)

// world is a CA, a certificate of it and a delegated responder.
type world struct {
	ca, leaf, responder *x509.Certificate
	caKey, responderKey *ecdsa.PrivateKey
	issuer              *ocsp.Issuer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{caKey: newKey(t), responderKey: newKey(t)}
	serial := new(big.Int).SetBytes(append([]byte{1}, bytes.Repeat([]byte{0xab}, 16)...))
	w.ca = certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Hufu"}, CommonName: "test CA"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, &w.caKey.PublicKey, w.caKey)
	w.leaf = certify(t, &x509.Certificate{SerialNumber: serial, DNSNames: []string{"r1.330100.readers.card.example"}}, w.ca, &newKey(t).PublicKey, w.caKey)
	w.responder = certify(t, responderTemplate(), w.ca, &w.responderKey.PublicKey, w.caKey)
	issuer, err := ocsp.NewIssuer(w.ca.Raw)
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = issuer
	return w
}

func responderTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "responder"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oid.OCSPNoCheck, Value: asn1.NullBytes}},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify signs a certificate that is valid for an hour; a nil parent is the
// certificate itself.
func certify(t testing.TB, template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var ecdsaSHA256, _ = asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: oid.SignatureECDSASHA256})

// respond signs d with key in the name of cert; certs travel along.
func respond(t testing.TB, d ocsp.ResponseData, cert *x509.Certificate, key *ecdsa.PrivateKey, certs ...*x509.Certificate) []byte {
	t.Helper()
	hash, err := ocsp.KeyHash(cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	d.Responder = hash
	tbs, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var raw [][]byte
	for _, c := range certs {
		raw = append(raw, c.Raw)
	}
	return ocsp.Assemble(tbs, ecdsaSHA256, sig, raw...)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

func (w *world) answers() []ocsp.SingleResponse {
	at := now()
	single := func(serial []byte, s ocsp.Status) ocsp.SingleResponse {
		return ocsp.SingleResponse{ID: w.issuer.CertID(crypto.SHA256, serial), Status: s, ThisUpdate: at, NextUpdate: at.Add(time.Hour)}
	}
	revoked := single([]byte{1, 2}, ocsp.Revoked)
	revoked.RevokedAt, revoked.Reason = at.Add(-time.Minute), 1
	unspecified := single([]byte{1, 3}, ocsp.Revoked)
	unspecified.RevokedAt = at.Add(-time.Minute)
	return []ocsp.SingleResponse{single(w.leaf.SerialNumber.Bytes(), ocsp.Good), revoked, unspecified, single([]byte{1, 4}, ocsp.Unknown)}
}

func TestRequestRoundTrip(t *testing.T) {
	w := newWorld(t)
	for _, nonce := range [][]byte{nil, {1}, make([]byte, 16), make([]byte, 32), make([]byte, ocsp.MaxNonce)} {
		var ids []ocsp.CertID
		for i := range byte(ocsp.MaxSerials) {
			hash := crypto.SHA256
			if i%2 == 1 {
				hash = crypto.SHA1
			}
			ids = append(ids, w.issuer.CertID(hash, []byte{1, i}))
		}
		der, err := ocsp.MakeRequest(nonce, ids...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Nonce, nonce) || (r.Nonce == nil) != (nonce == nil) || len(r.IDs) != len(ids) {
			t.Fatalf("nonce %x, %d serials came back", r.Nonce, len(r.IDs))
		}
		for i := range ids {
			if got := &r.IDs[i]; !w.issuer.Issued(got) || got.Hash != ids[i].Hash || !bytes.Equal(got.Serial, ids[i].Serial) {
				t.Errorf("serial %d came back as %+v", i, got)
			}
		}
	}
}

func TestRequestRefused(t *testing.T) {
	w := newWorld(t)
	id := w.issuer.CertID(crypto.SHA1, []byte{5})
	good, err := ocsp.MakeRequest(nil, id)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]ocsp.CertID, ocsp.MaxSerials+1)
	for i := range many {
		many[i] = id
	}
	tooMany, err := ocsp.MakeRequest(nil, many...)
	if err != nil {
		t.Fatal(err)
	}
	extension := func(critical bool, id asn1.ObjectIdentifier, value []byte) []byte {
		type tbs struct {
			List []asn1.RawValue
			Ext  []pkix.Extension `asn1:"explicit,tag:2"`
		}
		var parsed struct {
			TBS struct{ List []asn1.RawValue }
		}
		if _, err := asn1.Unmarshal(good, &parsed); err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(struct{ TBS tbs }{tbs{parsed.TBS.List, []pkix.Extension{{Id: id, Critical: critical, Value: value}}}})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	nonce := func(n int) []byte {
		value, _ := asn1.Marshal(make([]byte, n))
		return extension(false, oid.OCSPNonce, value)
	}
	for name, der := range map[string][]byte{
		"empty":              {},
		"rubbish":            []byte("GET / HTTP/1.1"),
		"cut":                good[:len(good)-1],
		"tail":               append(bytes.Clone(good), 0),
		"no certificate":     {0x30, 4, 0x30, 2, 0x30, 0},
		"too large":          make([]byte, ocsp.MaxRequest+1),
		"too many":           tooMany,
		"nonce of 0":         nonce(0),
		"nonce of 129":       nonce(129),
		"nonce unwrapped":    extension(false, oid.OCSPNonce, []byte("0123456789abcdef")),
		"critical extension": extension(true, asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0}),
		"short hash":         bytes.Replace(good, []byte{4, 20}, []byte{4, 19}, 1),
		"long serial form":   bytes.Replace(good, []byte{2, 1, 5}, []byte{2, 0}, 1),
	} {
		if r, err := ocsp.ParseRequest(der); err == nil {
			t.Errorf("%s: accepted as %+v", name, r)
		}
	}
	for name, der := range map[string][]byte{
		"nonce of 128":           nonce(128),
		"extension not critical": extension(false, asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0}),
	} {
		if _, err := ocsp.ParseRequest(der); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ocsp.MakeRequest([]byte{}, id); err == nil {
		t.Error("an empty nonce was encoded")
	}
	if _, err := ocsp.MakeRequest(nil); err == nil {
		t.Error("a request for nothing was encoded")
	}
}

// TestUnknownHash: a request with a hash that is not known here is well formed,
// but no issuer of ours fits it.
func TestUnknownHash(t *testing.T) {
	w := newWorld(t)
	der, err := oracle.CreateRequest(w.leaf, w.ca, &oracle.RequestOptions{Hash: crypto.SHA384})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ocsp.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if w.issuer.Issued(&r.IDs[0]) {
		t.Error("a SHA-384 CertID was taken for one of ours")
	}
}

func TestRequestsOfTheOracle(t *testing.T) {
	w := newWorld(t)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		der, err := oracle.CreateRequest(w.leaf, w.ca, &oracle.RequestOptions{Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if !w.issuer.Issued(&r.IDs[0]) || !bytes.Equal(r.IDs[0].Serial, w.leaf.SerialNumber.Bytes()) {
			t.Errorf("%v: read as %+v", hash, r.IDs[0])
		}
		ours, err := ocsp.MakeRequest(nil, w.issuer.CertID(hash, w.leaf.SerialNumber.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, der) {
			t.Errorf("%v: we encode\n%x, the oracle\n%x", hash, ours, der)
		}
	}
}

func TestResponsesReadByTheOracle(t *testing.T) {
	w := newWorld(t)
	for _, s := range w.answers() {
		d := ocsp.ResponseData{ProducedAt: now(), Responses: []ocsp.SingleResponse{s}, Nonce: make([]byte, 32)}
		der := respond(t, d, w.responder, w.responderKey, w.responder)
		r, err := oracle.ParseResponse(der, w.ca)
		if err != nil {
			t.Fatalf("%v: %v", s.Status, err)
		}
		if r.Status != int(s.Status) || !r.ThisUpdate.Equal(s.ThisUpdate) || !r.NextUpdate.Equal(s.NextUpdate) ||
			r.RevocationReason != s.Reason || !r.RevokedAt.Equal(s.RevokedAt) || !bytes.Equal(r.SerialNumber.Bytes(), s.ID.Serial) {
			t.Errorf("%v: the oracle reads %+v", s.Status, r)
		}
	}
	for _, s := range []ocsp.ResponseStatus{ocsp.MalformedRequest, ocsp.InternalError, ocsp.TryLater, ocsp.SigRequired, ocsp.Unauthorized} {
		_, err := oracle.ParseResponse(ocsp.ErrorResponse(s), nil)
		if re := (oracle.ResponseError{}); !errors.As(err, &re) || re.Status != oracle.ResponseStatus(s) {
			t.Errorf("%v: the oracle reads %v", s, err)
		}
		_, err = ocsp.ParseResponse(ocsp.ErrorResponse(s), 100)
		if re := (*ocsp.ResponseError)(nil); !errors.As(err, &re) || re.Status != s {
			t.Errorf("%v: we read %v", s, err)
		}
	}
}

func TestResponseRoundTrip(t *testing.T) {
	w := newWorld(t)
	d := ocsp.ResponseData{ProducedAt: now(), Responses: w.answers(), Nonce: []byte("0123456789abcdef")}
	for _, der := range [][]byte{
		respond(t, d, w.responder, w.responderKey, w.responder),
		respond(t, d, w.ca, w.caKey),
	} {
		r, err := ocsp.ParseResponse(der, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckSignature(w.ca.Raw, now()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Nonce, d.Nonce) || !r.ProducedAt.Equal(d.ProducedAt) {
			t.Errorf("read back as %+v", r)
		}
		for _, s := range d.Responses {
			got := r.Find(s.ID)
			if got == nil || got.Status != s.Status || got.Reason != s.Reason || !got.RevokedAt.Equal(s.RevokedAt) ||
				!got.ThisUpdate.Equal(s.ThisUpdate) || !got.NextUpdate.Equal(s.NextUpdate) {
				t.Errorf("%+v read back as %+v", s, got)
			}
		}
		if r.Find(w.issuer.CertID(crypto.SHA1, d.Responses[0].ID.Serial)) != nil {
			t.Error("an answer under SHA-256 was found under SHA-1")
		}
		if _, err := ocsp.ParseResponse(der, len(der)-1); err == nil {
			t.Error("a response over the limit was read")
		}
	}
}

// TestSignatureRefused: who may sign for a CA, and who may not.
func TestSignatureRefused(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	d := ocsp.ResponseData{ProducedAt: now(), Responses: w.answers()}
	variant := func(change func(*x509.Certificate)) []byte {
		template := responderTemplate()
		change(template)
		cert := certify(t, template, w.ca, &w.responderKey.PublicKey, w.caKey)
		return respond(t, d, cert, w.responderKey, cert)
	}
	if r, err := ocsp.ParseResponse(variant(func(*x509.Certificate) {}), 1<<16); err != nil || r.CheckSignature(w.ca.Raw, now()) != nil {
		t.Fatal("the unchanged variant does not pass")
	}
	leafKey := newKey(t)
	subCA := certify(t, &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "sub"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}, w.ca, &leafKey.PublicKey, w.caKey)
	indirect := certify(t, responderTemplate(), subCA, &w.responderKey.PublicKey, leafKey)
	changed := respond(t, d, w.responder, w.responderKey, w.responder)
	i := bytes.Index(changed, d.Responses[0].ID.Serial)
	changed[i] ^= 1
	for name, der := range map[string][]byte{
		"another CA":          respond(t, d, other.ca, other.caKey),
		"another CA's own":    respond(t, d, other.responder, other.responderKey, other.responder),
		"no certificate":      respond(t, d, w.responder, w.responderKey),
		"wrong key":           respond(t, d, w.responder, w.caKey, w.responder),
		"below a sub CA":      respond(t, d, indirect, w.responderKey, indirect, subCA),
		"without the EKU":     variant(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"anyExtendedKeyUsage": variant(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }),
		"without nocheck":     variant(func(c *x509.Certificate) { c.ExtraExtensions = nil }),
		"key for nothing": variant(func(c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid.ExtKeyUsage, Critical: true, Value: []byte{3, 1, 0}})
		}),
		"key for agreement":     variant(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }),
		"expired":               variant(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now().Add(-2*time.Hour), now().Add(-time.Hour) }),
		"not yet valid":         variant(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now().Add(time.Hour), now().Add(2*time.Hour) }),
		"one bit of the serial": changed,
	} {
		r, err := ocsp.ParseResponse(der, 1<<16)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := r.CheckSignature(w.ca.Raw, now()); err == nil {
			t.Errorf("%s: the signature was accepted", name)
		}
	}
}

func TestResponsesOfTheOracle(t *testing.T) {
	w := newWorld(t)
	for _, status := range []int{oracle.Good, oracle.Revoked, oracle.Unknown} {
		for _, delegated := range []bool{false, true} {
			template := oracle.Response{Status: status, SerialNumber: w.leaf.SerialNumber, ThisUpdate: now(), NextUpdate: now().Add(time.Hour),
				RevokedAt: now(), RevocationReason: oracle.KeyCompromise, IssuerHash: crypto.SHA256}
			cert, key := w.ca, w.caKey
			if delegated {
				cert, key, template.Certificate = w.responder, w.responderKey, w.responder
			}
			der, err := oracle.CreateResponse(w.ca, cert, template, key)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ocsp.ParseResponse(der, 1<<16)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.CheckSignature(w.ca.Raw, now()); err != nil {
				t.Error(err)
			}
			s := r.Find(w.issuer.CertID(crypto.SHA256, w.leaf.SerialNumber.Bytes()))
			if s == nil || int(s.Status) != status || status == oracle.Revoked && s.Reason != oracle.KeyCompromise {
				t.Errorf("status %d is read as %+v", status, s)
			}
		}
	}
}

func TestEncodingRefused(t *testing.T) {
	w := newWorld(t)
	one := w.answers()[:1]
	noThisUpdate := w.answers()[:1]
	noThisUpdate[0].ThisUpdate = time.Time{}
	for name, d := range map[string]ocsp.ResponseData{
		"no responder":   {ProducedAt: now(), Responses: one},
		"no answers":     {ProducedAt: now(), Responder: make([]byte, 20)},
		"no time":        {Responder: make([]byte, 20), Responses: one},
		"no thisUpdate":  {ProducedAt: now(), Responder: make([]byte, 20), Responses: noThisUpdate},
		"nonce too long": {ProducedAt: now(), Responder: make([]byte, 20), Responses: one, Nonce: make([]byte, 129)},
	} {
		if _, err := d.Marshal(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// TestOpenSSL has openssl read our requests and responses, and the other way round.
func TestOpenSSL(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certPEM := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	write("ca.pem", certPEM(w.ca))
	write("leaf.pem", certPEM(w.leaf))
	write("responder.pem", certPEM(w.responder))
	key, err := x509.MarshalPKCS8PrivateKey(w.responderKey)
	if err != nil {
		t.Fatal(err)
	}
	write("responder.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	openssl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	// Its request, our response.
	for _, hash := range []string{"-sha1", "-sha256"} {
		openssl("ocsp", hash, "-issuer", "ca.pem", "-cert", "leaf.pem", "-serial", "0x0102", "-serial", "0x0104", "-reqout", "req.der")
		der, err := os.ReadFile(path("req.der"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.IDs) != 3 || len(r.Nonce) < 16 {
			t.Fatalf("openssl's request is read as %+v", r)
		}
		at := now()
		d := ocsp.ResponseData{ProducedAt: at, Nonce: r.Nonce}
		for i, status := range []ocsp.Status{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
			if !w.issuer.Issued(&r.IDs[i]) {
				t.Fatalf("%+v is not one of ours", r.IDs[i])
			}
			d.Responses = append(d.Responses, ocsp.SingleResponse{ID: r.IDs[i], Status: status, RevokedAt: at, Reason: 6, ThisUpdate: at, NextUpdate: at.Add(time.Hour)})
		}
		write("resp.der", respond(t, d, w.responder, w.responderKey, w.responder))
		if out := openssl("ocsp", "-reqin", "req.der", "-respin", "resp.der", "-CAfile", "ca.pem", "-resp_text"); !strings.Contains(out, "Response verify OK") || strings.Contains(out, "WARNING") {
			t.Errorf("openssl says of nonce or signature:\n%s", out)
		}
		out := openssl("ocsp", "-no_nonce", "-respin", "resp.der", "-issuer", "ca.pem", "-CAfile", "ca.pem", hash, "-cert", "leaf.pem", "-serial", "0x0102", "-serial", "0x0104")
		for _, want := range []string{"Response verify OK", "leaf.pem: good", "0x0102: revoked", "Reason: certificateHold", "0x0104: unknown"} {
			if !strings.Contains(out, want) {
				t.Errorf("openssl does not say %q:\n%s", want, out)
			}
		}
	}

	// Our request, its response.
	write("index.txt", []byte("V\t491231235959Z\t\t"+"01"+strings.Repeat("AB", 16)+"\tunknown\t/CN=leaf\n"+
		"R\t491231235959Z\t250101000000Z,keyCompromise\t0102\tunknown\t/CN=gone\n"))
	nonce := bytes.Repeat([]byte{7}, 32)
	ids := []ocsp.CertID{w.issuer.CertID(crypto.SHA256, w.leaf.SerialNumber.Bytes()), w.issuer.CertID(crypto.SHA1, []byte{1, 2}), w.issuer.CertID(crypto.SHA256, []byte{1, 4})}
	req, err := ocsp.MakeRequest(nonce, ids...)
	if err != nil {
		t.Fatal(err)
	}
	write("req.der", req)
	openssl("ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "responder.pem", "-rkey", "responder.key", "-rmd", "sha256", "-reqin", "req.der", "-respout", "resp.der", "-ndays", "1")
	der, err := os.ReadFile(path("resp.der"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ocsp.ParseResponse(der, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CheckSignature(w.ca.Raw, now()); err != nil {
		t.Fatal(err)
	}
	if r.ResponderName == nil || !bytes.Equal(r.Nonce, nonce) {
		t.Errorf("byName %x, nonce %x", r.ResponderName, r.Nonce)
	}
	for i, want := range []ocsp.Status{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
		if s := r.Find(ids[i]); s == nil || s.Status != want {
			t.Errorf("answer %d is %+v, want %v", i, s, want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	w := newWorld(f)
	for _, nonce := range [][]byte{nil, make([]byte, 16)} {
		der, err := ocsp.MakeRequest(nonce, w.issuer.CertID(crypto.SHA1, []byte{1, 2}), w.issuer.CertID(crypto.SHA256, []byte{1, 3}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	// What is read is encoded again to a request that says the same, and where
	// x/crypto reads it too, it reads the same.
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ocsp.ParseRequest(der)
		if err != nil {
			return
		}
		again, err := ocsp.MakeRequest(r.Nonce, r.IDs...)
		if err != nil {
			t.Fatalf("read, but not written: %v", err)
		}
		back, err := ocsp.ParseRequest(again)
		if err != nil {
			t.Fatalf("written, but not read: %v", err)
		}
		if !slices.EqualFunc(back.IDs, r.IDs, sameID) || !bytes.Equal(back.Nonce, r.Nonce) {
			t.Fatalf("%+v came back as %+v", r, back)
		}
		for i := range r.IDs {
			// Not only what was received is echoed: it is written anew.
			if r.IDs[i].Raw = nil; r.IDs[i].Hash == 0 {
				return
			}
		}
		anew, err := ocsp.MakeRequest(r.Nonce, r.IDs...)
		if err != nil {
			t.Fatalf("read, but not written anew: %v", err)
		}
		if back, err = ocsp.ParseRequest(anew); err != nil || !slices.EqualFunc(back.IDs, r.IDs, sameID) {
			t.Fatalf("%+v was written anew as %+v, %v", r, back, err)
		}
		theirs, err := oracle.ParseRequest(der)
		if err != nil {
			return // it refuses some that we read
		}
		first := &r.IDs[0]
		if theirs.HashAlgorithm != first.Hash || !bytes.Equal(theirs.IssuerNameHash, first.Name) || !bytes.Equal(theirs.IssuerKeyHash, first.Key) ||
			theirs.SerialNumber.Cmp(integer(first.Serial)) != 0 {
			t.Fatalf("we read %+v, x/crypto %+v", first, theirs)
		}
	})
}

func sameID(a, b ocsp.CertID) bool {
	return a.Hash == b.Hash && a.Bare == b.Bare && bytes.Equal(a.Name, b.Name) && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Serial, b.Serial)
}

// integer is the value of an INTEGER's contents.
func integer(contents []byte) *big.Int {
	n := new(big.Int)
	if _, err := asn1.Unmarshal(append([]byte{2, byte(len(contents))}, contents...), &n); err != nil {
		n.SetBytes(contents) // longer than the short form: not what x/crypto is asked for here
	}
	return n
}

func FuzzParseResponse(f *testing.F) {
	w := newWorld(f)
	d := ocsp.ResponseData{ProducedAt: now(), Responses: w.answers(), Nonce: make([]byte, 16)}
	var signed [][]byte
	for _, der := range [][]byte{respond(f, d, w.responder, w.responderKey, w.responder), respond(f, d, w.ca, w.caKey)} {
		r, err := ocsp.ParseResponse(der, 1<<16)
		if err != nil {
			f.Fatal(err)
		}
		signed = append(signed, r.TBS)
		f.Add(der)
	}
	f.Add(ocsp.ErrorResponse(ocsp.TryLater))
	// Nothing but what was signed is believed; what is read is written again to the
	// same; and where x/crypto reads it too, it reads the same.
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ocsp.ParseResponse(der, 1<<16)
		if err != nil {
			return
		}
		if r.CheckSignature(w.ca.Raw, now()) == nil && !slices.ContainsFunc(signed, func(tbs []byte) bool { return bytes.Equal(tbs, r.TBS) }) {
			t.Fatalf("believed without a signature: %x", r.TBS)
		}
		if tbs, err := r.Marshal(); err == nil {
			back, err := ocsp.ParseResponse(ocsp.Assemble(tbs, r.Algorithm, r.Signature, r.Certificates...), 1<<17)
			if err != nil {
				t.Fatalf("written, but not read: %v", err)
			}
			if !bytes.Equal(back.Responder, r.Responder) || !back.ProducedAt.Equal(r.ProducedAt) || !bytes.Equal(back.Nonce, r.Nonce) ||
				!slices.EqualFunc(back.Responses, r.Responses, sameAnswer) || !bytes.Equal(back.Signature, r.Signature) {
				t.Fatalf("%+v came back as %+v", r, back)
			}
		}
		theirs, err := oracle.ParseResponse(der, nil)
		if err != nil || len(r.Responses) != 1 {
			return // it refuses some that we read
		}
		ours := r.Responses[0]
		if theirs.Status != int(ours.Status) || !theirs.ThisUpdate.Equal(ours.ThisUpdate) || !theirs.NextUpdate.Equal(ours.NextUpdate) ||
			!theirs.RevokedAt.Equal(ours.RevokedAt) || theirs.RevocationReason != ours.Reason {
			t.Fatalf("we read %+v, x/crypto %+v", ours, theirs)
		}
	})
}

func sameAnswer(a, b ocsp.SingleResponse) bool {
	return sameID(a.ID, b.ID) && a.Status == b.Status && a.Reason == b.Reason && a.RevokedAt.Equal(b.RevokedAt) &&
		a.ThisUpdate.Equal(b.ThisUpdate) && a.NextUpdate.Equal(b.NextUpdate)
}

func BenchmarkParseRequest(b *testing.B) {
	w := newWorld(b)
	der, err := ocsp.MakeRequest(nil, w.issuer.CertID(crypto.SHA256, w.leaf.SerialNumber.Bytes()))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := ocsp.ParseRequest(der)
		if err != nil || !w.issuer.Issued(&r.IDs[0]) {
			b.Fatal(err)
		}
	}
}

// BenchmarkMarshal encodes what an answer with a nonce is, all but its signature.
func BenchmarkMarshal(b *testing.B) {
	w := newWorld(b)
	algorithm, signature, at := ecdsaSHA256, make([]byte, 71), now()
	d := ocsp.ResponseData{Responder: make([]byte, 20), ProducedAt: at, Responses: w.answers()[:1], Nonce: make([]byte, 32)}
	b.ReportAllocs()
	for b.Loop() {
		tbs, err := d.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		ocsp.Assemble(tbs, algorithm, signature, w.responder.Raw)
	}
}
