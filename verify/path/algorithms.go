package path

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
)

// Sizes of RSA keys in bits.
const (
	minRSA = 2048
	maxRSA = 8192
)

// algorithmFault refuses signature algorithms before anything is computed. DSA, MD2
// and MD5 are never accepted.
func algorithmFault(c *cert, sha1 bool) *Fault {
	switch c.x.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return nil
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		if sha1 {
			return nil
		}
		return fault(Algorithm, c, "it was signed with %v; SHA-1 is accepted only where that is asked for", c.x.SignatureAlgorithm)
	case x509.UnknownSignatureAlgorithm:
		return fault(Algorithm, c, "it was signed with an algorithm that is not known here")
	}
	return fault(Algorithm, c, "it was signed with %v, which is not accepted", c.x.SignatureAlgorithm)
}

// keyFault refuses keys by kind and size.
func keyFault(c *cert) *Fault {
	switch key := c.x.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA || n > maxRSA {
			return fault(Key, c, "its RSA key has %d bits, not %d to %d", n, minRSA, maxRSA)
		}
		if key.E < 3 || key.E%2 == 0 || key.N.Bit(0) == 0 {
			return fault(Key, c, "its RSA key has an even modulus, or an exponent that is even or below 3")
		}
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fault(Key, c, "its curve %s is not accepted", key.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fault(Key, c, "its public key algorithm %v is not accepted", c.x.PublicKeyAlgorithm)
}
