package device_test

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"hufu/examples/reader/device"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/readers/apdu"
	"hufu/verify"
)

const city = "330100"

// host is a city's bench with a node behind it.
type host struct {
	t       testing.TB
	pki     *testpki.World
	verify  *verify.Verifier
	dir     string
	rack    *device.Rack
	address string

	encryption map[string][]byte // PKCS #8 by transport key: made by the centre
	session    byte
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, pki: testpki.Must(testpki.New(testpki.Config{})), dir: t.TempDir(), encryption: map[string][]byte{}}
	h.verify = &verify.Verifier{Anchors: h.pki.Anchors(), Domain: testpki.Domain}
	for _, ca := range h.pki.CAs()[1:] {
		h.verify.Intermediates = append(h.verify.Intermediates, ca.Record.Certificate)
	}
	h.rack = testpki.Must(device.OpenRack(h.dir))
	t.Cleanup(h.rack.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.rack.Bench(func(err error) { t.Error(err) }).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	h.address = l.Addr().String()
	return h
}

var maker = device.Spec{Model: "XF-100", Firmware: "1.2.0", Approval: "A-2026-1"}

// blank puts a reader into the rack that has not even a device key.
func (h *host) blank(number string, token bool) {
	h.t.Helper()
	s := maker
	s.Number, s.Token = number, token
	r := testpki.Must(h.rack.New(s))
	defer r.Close()
	if err := r.Forget(); err != nil { // writes the flash
		h.t.Fatal(err)
	}
}

// power powers a reader without the bench, once the last host has gone.
func (h *host) power(number string) *device.Reader {
	h.t.Helper()
	for late := time.Now().Add(10 * time.Second); ; {
		r, err := h.rack.Reader(number)
		if err == nil {
			return r
		}
		if time.Now().After(late) {
			h.t.Fatal(err)
		}
	}
}

// do runs a command of a reader, once.
func (h *host) do(number string, ins, p1 byte, e apdu.Elements) ([]byte, error) {
	h.t.Helper()
	r, err := apdu.Open(h.t.Context(), h.address, number)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	return r.Do(ins, p1, e)
}

// must runs a command again and again until the reader's power holds.
func (h *host) must(number string, ins, p1 byte, e apdu.Elements) []byte {
	h.t.Helper()
	for range 50 {
		b, err := h.do(number, ins, p1, e)
		var refused *apdu.StatusError
		if errors.As(err, &refused) {
			h.t.Fatalf("reader %s: %v", number, err)
		}
		if err == nil {
			return b
		}
	}
	h.t.Fatalf("the power of reader %s does not hold", number)
	return nil
}

// refuses demands that a command is refused with a status and with words.
func (h *host) refuses(number string, ins byte, e apdu.Elements, status uint16, words string) {
	h.t.Helper()
	_, err := h.do(number, ins, 0, e)
	var refused *apdu.StatusError
	if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(refused.Reason, words) || words == "" {
		h.t.Errorf("command %02X: %v; want %04X with %q", ins, err, status, words)
	}
}

// state is what the reader says of itself.
func (h *host) state(number string) (state byte, city string) {
	h.t.Helper()
	e := testpki.Must(apdu.ParseElements(h.must(number, apdu.Identify, 0, nil)))
	if string(e[apdu.Number]) != number || string(e[apdu.Model]) != maker.Model || string(e[apdu.Firmware]) != maker.Firmware {
		h.t.Errorf("reader %s says it is %q", number, e)
	}
	return e[apdu.State][0], string(e[apdu.City])
}

func (h *host) is(number string, want byte) {
	h.t.Helper()
	if state, _ := h.state(number); state != want {
		h.t.Errorf("reader %s is %s, want %s", number, device.StateName(state), device.StateName(want))
	}
}

// prepared brings a reader through stage 1.
func (h *host) prepared(number string) {
	h.t.Helper()
	csr := h.must(number, apdu.MakeDevice, 0, nil)
	h.must(number, apdu.PutDevice, 0, h.deviceElements(h.pki, number, csr))
}

func (h *host) deviceElements(pki *testpki.World, number string, csr []byte) apdu.Elements {
	h.t.Helper()
	request := testpki.Must(x509.ParseCertificateRequest(csr))
	if err := request.CheckSignature(); err != nil {
		h.t.Fatal(err)
	}
	c := h.certify(pki, "device", "device", policy.Name{Reader: number}, request.RawSubjectPublicKeyInfo)
	return apdu.Elements{apdu.Certificate: c, apdu.Issuer: pki.CA("device").Record.Certificate, apdu.Root: pki.Anchors()[0]}
}

// certify certifies a key of which only the public half is known here.
func (h *host) certify(pki *testpki.World, ca, profile string, name policy.Name, spki []byte) []byte {
	h.t.Helper()
	key := publicKey{testpki.Must(x509.ParsePKIXPublicKey(spki))}
	return testpki.Must(pki.CA(ca).Certify(key, issuance.Request{Profile: profile, Name: name})).Certificate
}

// ask are the elements of a new session.
func (h *host) ask(city string, by byte) apdu.Elements {
	h.session++
	session, challenge := make([]byte, 16), make([]byte, 32)
	session[0], challenge[0] = h.session, h.session
	return apdu.Elements{apdu.Session: session, apdu.Challenge: challenge, apdu.City: []byte(city), apdu.Encryption: {by}}
}

// wish is a verified enrolment, taken apart.
type wish struct {
	*verify.Enrolment
	signer             *verify.Cert
	sign               []byte // SPKI
	encrypt, transport []byte // one of them
}

// enrolled judges an enrolment as the node does.
func (h *host) enrolled(der []byte, asked apdu.Elements) *wish {
	h.t.Helper()
	v, m, err := h.verify.EnrolmentFile(der)
	if err != nil {
		h.t.Fatal(err)
	}
	if v.Session != hex.EncodeToString(asked[apdu.Session]) || string(v.Challenge) != string(asked[apdu.Challenge]) || v.City != string(asked[apdu.City]) || v.Firmware != maker.Firmware {
		h.t.Fatalf("the enrolment says %+v", v)
	}
	request := testpki.Must(x509.ParseCertificateRequest(v.CSR))
	if err := request.CheckSignature(); err != nil {
		h.t.Fatal(err)
	}
	w := &wish{Enrolment: v, signer: m.Signer, sign: request.RawSubjectPublicKeyInfo}
	for _, x := range request.Extensions {
		switch {
		case x.Id.Equal(oid.EncryptionKey):
			w.encrypt = x.Value
		case x.Id.Equal(oid.TransportKey):
			w.transport = x.Value
		}
	}
	if (w.encrypt == nil) == (w.transport == nil) || (w.encrypt == nil) != (asked[apdu.Encryption][0] == apdu.ByCentre) {
		h.t.Fatal("the request has not the key that was asked for")
	}
	return w
}

// pair makes what the city sends for an enrolment: the same pair for the same keys.
func (h *host) pair(w *wish) apdu.Elements {
	h.t.Helper()
	name := policy.Name{Reader: w.Number, City: w.City}
	e := apdu.Elements{apdu.Session: testpki.Must(hex.DecodeString(w.Session)), apdu.Issuer: h.pki.CA(w.City).Record.Certificate, apdu.Ticket: make([]byte, 16)}
	e[apdu.Certificate] = h.certify(h.pki, w.City, "reader-sign", name, w.sign)
	public := w.encrypt
	if public == nil {
		var pkcs8 []byte
		pkcs8, public = h.centreKey()
		e[apdu.SealedKey] = h.seal(w.transport, pkcs8)
	}
	e[apdu.Certificate2] = h.certify(h.pki, w.City, "reader-encrypt", name, public)
	return e
}

// centreKey is an encryption key that the centre makes.
func (h *host) centreKey() (pkcs8, spki []byte) {
	key := testpki.Must(testpki.Key())
	return testpki.Must(x509.MarshalPKCS8PrivateKey(key)), testpki.Must(x509.MarshalPKIXPublicKey(key.Public()))
}

func (h *host) seal(transport, pkcs8 []byte) []byte {
	h.t.Helper()
	return testpki.Must(cms.SealKey(cms.KeyRecipient{SPKI: transport}, func(content []byte) ([]byte, error) { return wrapPadded(content, pkcs8), nil }))
}

// wrapPadded is AES key wrap with padding (RFC 5649, Section 4.1) of more than eight
// octets, as a token does it.
func wrapPadded(kek, plain []byte) []byte {
	block := testpki.Must(aes.NewCipher(kek))
	a := binary.BigEndian.AppendUint32([]byte{0xA6, 0x59, 0x59, 0xA6}, uint32(len(plain)))
	r := append([]byte{}, plain...)
	for len(r)%8 != 0 {
		r = append(r, 0)
	}
	n := len(r) / 8
	for j := range 6 {
		for i := range n {
			b := append(append([]byte{}, a...), r[8*i:8*i+8]...)
			block.Encrypt(b, b)
			t := binary.BigEndian.Uint64(b) ^ uint64(n*j+i+1)
			a = binary.BigEndian.AppendUint64(nil, t)
			copy(r[8*i:], b[8:])
		}
	}
	return append(a, r...)
}

// receipted judges a receipt as the centre does, from the root alone.
func (h *host) receipted(der []byte, number string, installed apdu.Elements) {
	h.t.Helper()
	l := &verify.ReceiptLine{Number: number, Receipt: der, Sign: installed[apdu.Certificate], Encrypt: installed[apdu.Certificate2],
		Device: h.must(number, apdu.GetCertificate, apdu.DeviceCertificate, nil), Chain: [][]byte{h.pki.CA("device").Record.Certificate}}
	alone := &verify.Verifier{Anchors: h.pki.Anchors(), Domain: testpki.Domain}
	r, err := alone.ReceiptLine(l)
	if err != nil {
		h.t.Fatal(err)
	}
	if r.Session != hex.EncodeToString(installed[apdu.Session]) || r.Ticket != hex.EncodeToString(installed[apdu.Ticket]) ||
		r.Sign != sha256.Sum256(installed[apdu.Certificate]) || time.Since(r.Time) > time.Minute {
		h.t.Errorf("the receipt says %+v", r.Receipt)
	}
}

// life brings a prepared reader through stage 2.
func (h *host) life(number string, by byte) (installed apdu.Elements) {
	h.t.Helper()
	asked := h.ask(city, by)
	installed = h.pair(h.enrolled(h.must(number, apdu.Enrol, 0, asked), asked))
	h.receipted(h.must(number, apdu.Install, 0, installed), number, installed)
	h.must(number, apdu.Finish, 0, nil)
	return installed
}

// publicKey stands where a key is only certified.
type publicKey struct{ public crypto.PublicKey }

func (k publicKey) Public() crypto.PublicKey { return k.public }

func (k publicKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("only the reader has this key")
}
