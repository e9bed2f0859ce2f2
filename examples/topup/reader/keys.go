package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hufu/examples/topup/trust"
	"hufu/hsm"
	"hufu/internal/oid"
	"hufu/internal/softhsm"
)

// The labels of the two keys.
const (
	signLabel    = "sign"
	encryptLabel = "encrypt"
)

// reader is one reader and its folder.
type reader struct {
	dir   string
	trust trust.Config

	token   *hsm.Token
	pair    *pair
	sign    *hsm.Key
	encrypt *hsm.Key
}

func (r *reader) path(name string) string { return filepath.Join(r.dir, name) }

// open opens the reader's own token; its PIN lies in a file that only the
// reader can read, as a real reader's lies in its tamper-proof memory.
func (r *reader) open(ctx context.Context) error {
	home, err := softhsm.New(r.path("token"))
	if err != nil {
		return err
	}
	if err := home.Activate(); err != nil {
		return err
	}
	if _, err := os.Stat(r.path("pin")); errors.Is(err, os.ErrNotExist) {
		pin := []byte(rand.Text())
		if _, err := home.Init("reader", []byte(rand.Text()), pin); err != nil {
			return fmt.Errorf("making the reader's token: %w", err)
		}
		if err := os.WriteFile(r.path("pin"), pin, 0o600); err != nil {
			return err
		}
	}
	r.token, err = hsm.Open(ctx, hsm.Config{Module: home.Module(), URI: "pkcs11:token=reader",
		PIN: hsm.PINSource{File: r.path("pin")}.Func("the reader's token")})
	if err != nil {
		return fmt.Errorf("opening the reader's token: %w", err)
	}
	return nil
}

// make makes both keys and one request: the signing key's, which carries the
// encryption key in an extension, so that its signature covers both.
func (r *reader) make(ctx context.Context, number string) error {
	if number == "" {
		return errors.New("-number is missing")
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	defer r.token.Close()
	sign, err := r.token.Generate(ctx, hsm.KeySpec{Label: signLabel, Kind: hsm.P256, Use: hsm.Sign})
	if err != nil {
		return fmt.Errorf("making the signing key: %w", err)
	}
	encrypt, err := r.token.Generate(ctx, hsm.KeySpec{Label: encryptLabel, Kind: hsm.P256, Use: hsm.Derive})
	if err != nil {
		return fmt.Errorf("making the encryption key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(encrypt.Public())
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: "reader " + number},
		ExtraExtensions: []pkix.Extension{{Id: oid.EncryptionKey, Value: spki}},
	}, sign)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	err = os.WriteFile(r.path("reader.csr"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644)
	if err == nil {
		fmt.Printf("reader %s: two keys made inside the token; request: %s\n", number, r.path("reader.csr"))
	}
	return err
}

// pair is the reader's two certificates and the CA above them.
type pair struct {
	sign, encrypt *x509.Certificate
	above         [][]byte
}

// install reads the pair and finds both keys by their certificates.
func (r *reader) install(ctx context.Context) error {
	raw, err := os.ReadFile(r.path("pair.pem"))
	if err != nil {
		return fmt.Errorf("the reader has no certificates yet: %w", err)
	}
	r.pair = &pair{}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return fmt.Errorf("pair.pem: %w", err)
		case c.IsCA:
			r.pair.above = append(r.pair.above, c.Raw)
		case c.KeyUsage&x509.KeyUsageDigitalSignature != 0:
			r.pair.sign = c
		default:
			r.pair.encrypt = c
		}
	}
	if r.pair.sign == nil || r.pair.encrypt == nil {
		return errors.New("pair.pem does not hold a signing and an encryption certificate")
	}
	if r.sign, err = r.token.Key(ctx, r.pair.sign.PublicKey); err != nil {
		return fmt.Errorf("finding the signing key: %w", err)
	}
	if r.encrypt, err = r.token.Key(ctx, r.pair.encrypt.PublicKey); err != nil {
		return fmt.Errorf("finding the encryption key: %w", err)
	}
	if _, ok := r.pair.sign.PublicKey.(*ecdsa.PublicKey); !ok {
		return errors.New("this reader's keys are on P-256")
	}
	return nil
}

// name is the reader's DNS name, and city the city it belongs to.
func (p *pair) name() string { return p.sign.DNSNames[0] }

func (p *pair) city() string {
	_, rest, _ := strings.Cut(p.name(), ".")
	city, _, _ := strings.Cut(rest, ".")
	return city
}

func (p *pair) encryptionHash() [32]byte { return sha256.Sum256(p.encrypt.Raw) }

// travelling is what goes along with a message besides the signer's own
// certificate.
func (p *pair) travelling() [][]byte { return append([][]byte{p.encrypt.Raw}, p.above...) }
