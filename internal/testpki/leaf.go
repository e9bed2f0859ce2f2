package testpki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	"hufu/internal/oid"
	"hufu/policy"
	"hufu/store"
)

// A Leaf is a certificate with its private key.
type Leaf struct {
	Certificate []byte   // DER
	Chain       [][]byte // issuers upward, root last
	Key         crypto.Signer
	Serial      store.Serial
	Record      store.Certificate // as the book would keep it, but for Requester, Line and Seq
}

// TLS is the leaf as TLS servers and clients take it, without the root.
func (l *Leaf) TLS() tls.Certificate {
	chain := append([][]byte{l.Certificate}, l.Chain[:len(l.Chain)-1]...)
	return tls.Certificate{Certificate: chain, PrivateKey: l.Key, Leaf: l.X509()}
}

// X509 is the parsed certificate.
func (l *Leaf) X509() *x509.Certificate { return Must(x509.ParseCertificate(l.Certificate)) }

// PEM is the certificate and the working CA's, as files for other programs hold
// them.
func (l *Leaf) PEM() []byte { return PEM("CERTIFICATE", l.Certificate, l.Chain[0]) }

// KeyPEM is the private key as PKCS#8.
func (l *Leaf) KeyPEM() []byte {
	return PEM("PRIVATE KEY", Must(x509.MarshalPKCS8PrivateKey(l.Key)))
}

// PEM writes blocks of one type.
func PEM(kind string, blocks ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range blocks {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return b.Bytes()
}

// A Reader is a reader's pair of certificates.
type Reader struct {
	Number, City  string
	Sign, Encrypt *Leaf
}

// Reader makes a reader's pair.
func (w *World) Reader(city, number string) (*Reader, error) {
	name := policy.Name{Reader: number, City: city}
	sign, err := w.CA(city).New("reader-sign", name)
	if err != nil {
		return nil, err
	}
	encrypt, err := w.CA(city).New("reader-encrypt", name)
	if err != nil {
		return nil, err
	}
	return &Reader{Number: number, City: city, Sign: sign, Encrypt: encrypt}, nil
}

// Device makes a device certificate.
func (w *World) Device(number string) (*Leaf, error) {
	return w.CA("device").New("device", policy.Name{Reader: number})
}

// CentreSigner makes the centre's signing certificate.
func (w *World) CentreSigner() (*Leaf, error) {
	return w.CA("device").New("centre-sign", policy.Name{})
}

// CitySigner makes a city's signing certificate.
func (w *World) CitySigner(city string) (*Leaf, error) {
	return w.CA(city).New("city-sign", policy.Name{City: city})
}

// Server makes a TLS server's certificate.
func (w *World) Server(dns ...string) (*Leaf, error) {
	return w.CA("services").New("server", policy.Name{DNS: dns})
}

// Client makes the certificate of a machine, of a city or ("") of the centre.
func (w *World) Client(name, city string) (*Leaf, error) {
	return w.CA("services").New("client", policy.Name{CommonName: name, City: city})
}

// Operator makes the certificate of a person, of a city or ("") of the centre.
func (w *World) Operator(person, city string) (*Leaf, error) {
	return w.CA("staff").New("operator", policy.Name{Person: person, City: city})
}

// Key makes a P-256 key in memory. It is an *ecdsa.PrivateKey.
func Key() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// CSR makes a PKCS#10 request of key, with the extensions given.
func CSR(key crypto.Signer, extensions ...pkix.Extension) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: extensions}, key)
}

// PairCSR makes the request of a reader's signing key that carries the public
// encryption key of the pair.
func PairCSR(sign crypto.Signer, encrypt crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(encrypt)
	if err != nil {
		return nil, fmt.Errorf("encoding the encryption key: %w", err)
	}
	return CSR(sign, pkix.Extension{Id: oid.EncryptionKey, Value: spki})
}

// TransportCSR makes the request of a reader's signing key that carries the public
// key to which its encryption key is to be sealed.
func TransportCSR(sign crypto.Signer, transport crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(transport)
	if err != nil {
		return nil, fmt.Errorf("encoding the transport key: %w", err)
	}
	return CSR(sign, pkix.Extension{Id: oid.TransportKey, Value: spki})
}
