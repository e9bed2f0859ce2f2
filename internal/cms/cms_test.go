package cms_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hufu/internal/cms"
)

// identity is a certificate below a throw-away root, with its key.
type identity struct {
	cert []byte
	root []byte
	key  crypto.Signer
}

// soak asks for every change of every octet instead of a few.
func soak() bool { return os.Getenv("HUFU_SOAK") != "" }

var now = time.Now().Truncate(time.Second).UTC()

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue makes a certificate for key below a root of its own.
func issue(t testing.TB, key crypto.Signer, usage x509.KeyUsage) identity {
	t.Helper()
	id := certify(t, key.Public(), usage)
	id.key = key
	return id
}

func certify(t testing.TB, public crypto.PublicKey, usage x509.KeyUsage) identity {
	t.Helper()
	rootKey := ecKey(t, elliptic.P256())
	rootTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test root"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, rootTemplate, rootTemplate, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Test leaf"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: usage, SubjectKeyId: []byte("leaf"),
	}, rootTemplate, public, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return identity{cert: cert, root: root}
}

// write puts an identity into files for openssl.
func (i identity) write(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key)
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", i.cert)
	writePEM(t, filepath.Join(dir, "root.pem"), "CERTIFICATE", i.root)
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openssl runs in dir and reports whether it exited with 0; what it printed is
// for the log only.
func openssl(t testing.TB, dir string, args ...string) bool {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("openssl %v: %v\n%s", args, err, out)
	}
	return err == nil
}

func opener(i identity) *cms.Opener {
	o := &cms.Opener{Certificate: i.cert}
	switch key := i.key.(type) {
	case *rsa.PrivateKey:
		o.RSA = key
	case *ecdsa.PrivateKey:
		k, err := key.ECDH()
		if err != nil {
			panic(err)
		}
		o.ECDH = k
	}
	return o
}
