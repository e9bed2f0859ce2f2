package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
)

// CheckSignature checks that the CA whose certificate is given signed the list and
// may sign lists (RFC 5280, Section 6.3.3). It judges neither freshness nor scope.
func (l *List) CheckSignature(issuer []byte) error {
	ca, err := x509.ParseCertificate(issuer)
	if err != nil {
		return fmt.Errorf("checking CRL: parsing issuer certificate: %w", err)
	}
	switch {
	case !bytes.Equal(ca.RawSubject, l.Issuer):
		return errors.New("checking CRL: it is the list of another issuer")
	case len(l.AuthorityKeyID) > 0 && len(ca.SubjectKeyId) > 0 && !bytes.Equal(l.AuthorityKeyID, ca.SubjectKeyId):
		return errors.New("checking CRL: it was signed with another key of this issuer")
	case !ca.IsCA || ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("checking CRL: the issuer may not sign lists")
	}
	if !l.SignedBy(ca.PublicKey) {
		return errors.New("checking CRL: the signature does not fit")
	}
	return nil
}

// SignedBy reports whether the list was signed with the private half of an ECDSA
// or RSA key. It says nothing of whose key that is.
func (l *List) SignedBy(key crypto.PublicKey) bool {
	// Only the digest of the list is at hand, so x509.Certificate.CheckSignature,
	// which wants all of it, does not serve.
	switch pub := key.(type) {
	case *ecdsa.PublicKey:
		return !l.rsa && ecdsa.VerifyASN1(pub, l.sum, l.signature)
	case *rsa.PublicKey:
		return l.rsa && rsa.VerifyPKCS1v15(pub, l.hash, l.sum, l.signature) == nil
	}
	return false
}
