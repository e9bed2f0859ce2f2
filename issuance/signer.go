package issuance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// An algorithm is how a CA signs. It is fixed by the CA's key.
type algorithm struct {
	id          []byte // DER of the AlgorithmIdentifier
	hash        crypto.Hash
	placeholder []byte // a signature of the right form that verifies nothing
}

// algorithmOf chooses the algorithm for a key. ECDSA has no parameters, RSA has
// NULL (RFC 5758, Section 3.2; RFC 4055, Section 5).
func algorithmOf(key crypto.PublicKey) (*algorithm, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return &algorithm{algorithmID(oid.SignatureECDSASHA256, false), crypto.SHA256, placeholderECDSA(32)}, nil
		case elliptic.P384():
			return &algorithm{algorithmID(oid.SignatureECDSASHA384, false), crypto.SHA384, placeholderECDSA(48)}, nil
		}
		return nil, fmt.Errorf("no signature algorithm for curve %s", k.Curve.Params().Name)
	case *rsa.PublicKey:
		return &algorithm{algorithmID(oid.SignatureRSASHA256, true), crypto.SHA256, bytes.Repeat([]byte{1}, k.Size())}, nil
	}
	return nil, fmt.Errorf("no signature algorithm for a key of type %T", key)
}

func algorithmID(id asn1.ObjectIdentifier, null bool) []byte {
	e := &encoder{}
	e.sequence(func() {
		e.oid(id)
		if null {
			e.null()
		}
	})
	return e.der
}

// placeholderECDSA is an ECDSA-Sig-Value with r = s = 0101…01, as long as real
// ones are (RFC 3279, Section 2.2.3).
func placeholderECDSA(size int) []byte {
	number := bytes.Repeat([]byte{1}, size)
	e := &encoder{}
	e.sequence(func() {
		e.value(cbasn1.INTEGER, number)
		e.value(cbasn1.INTEGER, number)
	})
	return e.der
}

func (a *algorithm) digest(message []byte) []byte {
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// A signer is a private key together with the public key that a certificate
// vouches for.
type signer struct {
	key       crypto.Signer
	public    crypto.PublicKey // from the certificate, not from the key
	algorithm *algorithm
}

func newSigner(key crypto.Signer, certified crypto.PublicKey) (*signer, error) {
	if key == nil {
		return nil, errors.New("there is no private key")
	}
	if k, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(certified) {
		return nil, errors.New("the private key is not the one of the certificate")
	}
	a, err := algorithmOf(certified)
	if err != nil {
		return nil, err
	}
	return &signer{key, certified, a}, nil
}

// sign makes a signature and checks it with the certified key: what a token
// signs with the wrong key, or wrongly, never leaves.
func (s *signer) sign(digest []byte) ([]byte, error) {
	signature, err := s.key.Sign(rand.Reader, digest, s.algorithm.hash)
	if err != nil {
		return nil, err
	}
	if !s.verifies(digest, signature) {
		return nil, errors.New("the signature that the key made does not verify with the certified key")
	}
	return signature, nil
}

func (s *signer) verifies(digest, signature []byte) bool {
	switch k := s.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, s.algorithm.hash, digest, signature) == nil
	}
	return false
}
