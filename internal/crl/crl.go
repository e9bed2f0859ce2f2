// Package crl writes and reads certificate revocation lists as streams (RFC 5280,
// Section 5).
//
// A list of a million entries is written and read in constant memory: the writer
// spools the encoded entries (in memory while they are few, in an unlinked
// temporary file beyond that) until their length and the signature are known, the
// reader hands out one entry after the other.
//
// The package holds no key and decides nothing: it encodes what it is given and
// has a function sign a digest. It refuses to write what RFC 5280 forbids (no
// number, no nextUpdate, an unknown reason, a serial number of more than 20
// octets), and to read indirect lists, lists for some reasons only and critical
// extensions that it does not know.
package crl

import "time"

// Entry is one revoked certificate.
type Entry struct {
	Serial         []byte // content octets of the INTEGER, big-endian
	RevokedAt      time.Time
	Reason         int       // RFC 5280, Section 5.3.1; 0 (unspecified) is left out
	InvalidityDate time.Time // zero = left out
	Issuer         []byte    // DER of the certificateIssuer's GeneralNames, as Scan read it; never written
}

// Reasons (RFC 5280, Section 5.3.1) that the package itself must know.
const (
	reasonUnused        = 7
	reasonRemoveFromCRL = 8
	reasonLast          = 10
)

// Template is what a list says beside its entries.
type Template struct {
	Algorithm      []byte // DER of the signature's AlgorithmIdentifier
	Issuer         []byte // DER of the CA's subject, byte for byte
	AuthorityKeyID []byte // the CA's subject key identifier
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Number         uint64
	Delta          bool // the list is a delta to the full list Base
	Base           uint64
	Point          *Point   // issuing distribution point; nil = left out
	Freshest       []string // where the delta list is, for a full list
}

// Point is the issuingDistributionPoint (RFC 5280, Section 5.2.5).
type Point struct {
	URIs      []string
	OnlyUsers bool
	OnlyCAs   bool
}

// maxSerial is the longest serial number (RFC 5280, Section 4.1.2.2).
const maxSerial = 20

// minimalInteger holds the contents of an INTEGER to X.690, Section 8.3.2.
func minimalInteger(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	return !(b[0] == 0 && b[1] < 0x80) && !(b[0] == 0xff && b[1] >= 0x80)
}
