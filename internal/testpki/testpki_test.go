package testpki_test

import (
	"crypto/x509"
	"testing"
	"time"

	"hufu/internal/testpki"
)

// TestWorld makes one of everything and lets crypto/x509 verify it.
func TestWorld(t *testing.T) {
	w := testpki.Must(testpki.New(testpki.Config{}))
	reader := testpki.Must(w.Reader("330100", "7"))
	leaves := map[string]*testpki.Leaf{
		"sign": reader.Sign, "encrypt": reader.Encrypt,
		"device":   testpki.Must(w.Device("7")),
		"city":     testpki.Must(w.CitySigner("330200")),
		"server":   testpki.Must(w.Server("localhost")),
		"client":   testpki.Must(w.Client("top-up", "330100")),
		"operator": testpki.Must(w.Operator("Wang Fang", "")),
	}
	for name, leaf := range leaves {
		pool := x509.NewCertPool()
		pool.AddCert(testpki.Must(x509.ParseCertificate(leaf.Chain[0])))
		if _, err := leaf.X509().Verify(x509.VerifyOptions{Roots: w.Pool(), Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, ca := range w.CAs()[1:] {
		if r, err := ca.Responder(); err != nil || r.NotAfter().Before(time.Now()) {
			t.Errorf("responder of %s: %v", ca.Record.ID, err)
		}
	}
}
