package verify_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"sync"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// world is a hierarchy, a relying party and what it is told of status.
type world struct {
	*testpki.World
	verifier *verify.Verifier

	mu     sync.Mutex
	clock  time.Time
	states map[store.Serial]string // good where it is not there
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{World: testpki.Must(testpki.New(testpki.Config{})), clock: time.Now(), states: map[store.Serial]string{}}
	w.verifier = &verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Status: w.status, Now: w.now}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) set(leaf *testpki.Leaf, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[leaf.Serial] = state
}

func (w *world) status(_ context.Context, c *verify.Cert) (verify.Evidence, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := verify.Evidence{Source: "test", Epoch: 1, Seq: 7, Time: w.clock, State: w.states[c.Serial]}
	if e.State == "" {
		e.State = verify.Good
	}
	return e, nil
}

func (w *world) reader(t testing.TB, city, number string) *testpki.Reader {
	t.Helper()
	return testpki.Must(w.Reader(city, number))
}

// request is a load request as reader would make it.
func (w *world) request(r *testpki.Reader) *verify.LoadRequest {
	id := make([]byte, 16)
	rand.Read(id)
	return &verify.LoadRequest{
		Transaction: hex.EncodeToString(id), CardCity: r.City, ReaderCity: r.City,
		Reader: r.Sign.X509().DNSNames[0], Card: "9901000000012345", Counter: 7,
		Random: []byte{0xA1, 0xB2, 0xC3, 0xD4}, Amount: 5000, Balance: 10000, Type: 2, KeyIndex: 1, KeyVersion: 1,
		MAC1: []byte{0xD6, 0xD1, 0x73, 0x38}, Terminal: []byte{0x99, 1, 0, 0, 0, 0x42}, Expiry: w.now().Add(5 * time.Minute).UTC().Truncate(time.Second),
		EncryptionHash: sha256.Sum256(r.Encrypt.Certificate),
	}
}

// sign signs a request with the reader's signing key; both certificates travel.
func (w *world) sign(t testing.TB, r *testpki.Reader, req *verify.LoadRequest) []byte {
	t.Helper()
	content, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return w.signed(t, oid.ContentLoadRequest, content, r.Sign, r.Encrypt.Certificate)
}

func (w *world) signed(t testing.TB, kind []int, content []byte, signer *testpki.Leaf, more ...[]byte) []byte {
	t.Helper()
	chain := append(append([][]byte{}, signer.Chain[:1]...), more...)
	der, err := cms.Sign(kind, content, signer.Certificate, chain, signer.Key, w.now())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// forge signs a certificate with a CA's key behind issuance's back: what a CA gone
// wrong could make.
func forge(t testing.TB, ca *testpki.CA, like *testpki.Leaf, change func(*x509.Certificate)) *testpki.Leaf {
	t.Helper()
	template := like.X509()
	serial := make([]byte, 17)
	rand.Read(serial[1:])
	serial[0] = 1
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.ExtraExtensions = nil
	template.RawSubject = nil
	template.Subject = pkix.Name{CommonName: template.Subject.CommonName}
	if change != nil {
		change(template)
	}
	key := testpki.Must(testpki.Key())
	parent := testpki.Must(x509.ParseCertificate(ca.Record.Certificate))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.Signer.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &testpki.Leaf{Certificate: der, Chain: like.Chain, Key: key, Serial: testpki.Must(store.SerialFrom(template.SerialNumber))}
}

func requestFor(profile, number string) issuance.Request {
	return issuance.Request{Profile: profile, Name: policy.Name{Reader: number}}
}
