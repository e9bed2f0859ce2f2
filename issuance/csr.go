package issuance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
	"hufu/policy"
)

// MaxCSR is the largest request that ParseCSR reads.
const MaxCSR = 16 << 10

// A CSR is a certification request whose proof of possession was checked.
// Names and extensions in it are wishes: no certificate is made from them.
type CSR struct {
	SPKI       []byte // DER of the SubjectPublicKeyInfo
	Extensions []pkix.Extension
}

// ParseCSR reads a PKCS#10 request: its size first, then the size of its key,
// then its signature. It refuses one that asks to become a CA.
func ParseCSR(der []byte) (*CSR, error) { return parseCSR(der, false) }

func parseCSR(der []byte, mayBeCA bool) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, csrViolation("csr-size", "the request has %d octets, %d is the limit", len(der), MaxCSR)
	}
	spki := requestedKey(der)
	if spki == nil {
		return nil, csrViolation("csr-form", "the bytes are not a PKCS#10 request in DER")
	}
	// Before the signature: checking one by an oversized key is work.
	if _, _, err := policy.KeyOf(spki); err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, csrViolation("csr-form", "the request cannot be read: %v", err)
	}
	if !slices.Contains(csrAlgorithms, csr.SignatureAlgorithm) {
		return nil, csrViolation("csr-signature", "the request is signed with %s: sign it with SHA-256 or better", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, csrViolation("csr-signature", "the request is not signed by its own key: %v", err)
	}
	if !mayBeCA {
		if err := refuseCA(csr.Extensions); err != nil {
			return nil, err
		}
	}
	return &CSR{SPKI: spki, Extensions: csr.Extensions}, nil
}

// requestedKey finds the SubjectPublicKeyInfo of a request (RFC 2986, Section
// 4.1), nil where there is none.
func requestedKey(der []byte) []byte {
	var outer, info, spki cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !in.Empty() || !outer.ReadASN1(&info, cbasn1.SEQUENCE) ||
		!info.SkipASN1(cbasn1.INTEGER) || !info.SkipASN1(cbasn1.SEQUENCE) || !info.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return nil
	}
	return spki
}

var csrAlgorithms = []x509.SignatureAlgorithm{
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// refuseCA says no aloud, where leaving the wish aside would do: whoever asks for
// a CA should learn that there is none to be had here.
func refuseCA(extensions []pkix.Extension) error {
	for i := range extensions {
		e := &extensions[i]
		var constraints struct {
			CA      bool `asn1:"optional"`
			PathLen int  `asn1:"optional,default:-1"`
		}
		if !e.Id.Equal(oid.ExtBasicConstraints) {
			continue
		}
		if rest, err := asn1.Unmarshal(e.Value, &constraints); err != nil || len(rest) > 0 || constraints.CA {
			return &policy.Violation{Rule: "csr-ca", Citation: "RFC 5280, Section 4.2.1.9",
				Detail: "the request asks for a CA certificate: only a root ceremony makes those; leave basicConstraints out"}
		}
	}
	return nil
}

func csrViolation(rule, format string, args ...any) error {
	return &policy.Violation{Rule: rule, Citation: "RFC 2986, Section 4", Detail: fmt.Sprintf(format, args...)}
}
