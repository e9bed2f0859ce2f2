package device

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"

	"hufu/hsm"
)

// key is a private key of the reader: in its flash, or in its token.
type key struct {
	SPKI  []byte
	PKCS8 []byte `json:",omitempty"`
	Label string `json:",omitempty"` // in the token
}

// makeKey makes a key. Nothing of it lasts until the image that names it is saved:
// in the token, what no image names is removed.
func (r *Reader) makeKey(use hsm.Use) (*key, error) {
	k := &key{}
	var private crypto.Signer
	if r.flash.PIN == nil {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		if k.PKCS8, err = x509.MarshalPKCS8PrivateKey(made); err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		private = made
	} else {
		token, err := r.own()
		if err != nil {
			return nil, err
		}
		k.Label = rand.Text()
		made, err := token.Generate(context.Background(), hsm.KeySpec{Label: k.Label, Kind: hsm.P256, Use: use})
		if err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		private = made
	}
	var err error
	if k.SPKI, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return k, nil
}

// inToken finds a key of the reader's token.
func (r *Reader) inToken(k *key) (*hsm.Key, error) {
	token, err := r.own()
	if err != nil {
		return nil, err
	}
	return token.KeyByLabel(context.Background(), k.Label)
}

func (r *Reader) signer(k *key) (crypto.Signer, error) {
	if k.Label != "" {
		return r.inToken(k)
	}
	private, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return nil, errors.New("a key in the flash cannot be read") // a parser's words are no place for it
	}
	s, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("a key in the flash does not sign")
	}
	return s, nil
}

func (r *Reader) exchanger(k *key) (ecdh.KeyExchanger, error) {
	s, err := r.signer(k)
	if err != nil {
		return nil, err
	}
	switch s := s.(type) {
	case *hsm.Key:
		return s.ECDHKey()
	case *ecdsa.PrivateKey:
		return s.ECDH()
	}
	return nil, errors.New("a key in the flash is not on an elliptic curve")
}

// request is the PKCS #10 of a key, with the extensions given.
func (r *Reader) request(k *key, extensions ...pkix.Extension) ([]byte, error) {
	s, err := r.signer(k)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: extensions}, s)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	return csr, nil
}
