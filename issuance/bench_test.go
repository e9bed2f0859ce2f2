package issuance_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
)

// BenchmarkPrepare is the cost of building and judging a reader's certificate,
// without the signature: it stands beside 80 µs of an HSM's.
func BenchmarkPrepare(b *testing.B) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	request := readerRequest()
	issuer := w.CA("330100").Issuer
	for b.Loop() {
		request.Serial = testpki.Must(issuance.NewSerial(rand.Reader))
		if _, err := issuer.Prepare(request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIssue is the signature and its check with a key in memory.
func BenchmarkIssue(b *testing.B) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	request := readerRequest()
	issuer := w.CA("330100").Issuer
	for b.Loop() {
		b.StopTimer()
		request.Serial = testpki.Must(issuance.NewSerial(rand.Reader))
		token := testpki.Must(issuer.Prepare(request))
		b.StartTimer()
		if _, err := issuer.Issue(context.Background(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func readerRequest() issuance.Request {
	key := testpki.Must(testpki.Key())
	return issuance.Request{
		Profile: "reader-sign", SPKI: testpki.Must(x509.MarshalPKIXPublicKey(key.Public())),
		Name: policy.Name{Reader: "33010000001", City: "330100"},
	}
}
