// Package crl writes and reads certificate revocation lists as streams (RFC 5280,
// Section 5).
//
// A list of a million entries is written and read in constant memory. The package
// holds no key and decides nothing: it encodes what it is given and hands a digest
// to a function that signs. It refuses indirect lists and critical extensions that
// it does not know.
package crl

import (
	"errors"
	"hash"
	"io"
	"iter"
	"math/big"
	"time"
)

var errNotBuilt = errors.New("crl: not built yet")

// Entry is one revoked certificate.
type Entry struct {
	Serial         []byte // content octets of the INTEGER, big-endian
	RevokedAt      time.Time
	Reason         int       // RFC 5280, Section 5.3.1; 0 (unspecified) is left out
	InvalidityDate time.Time // zero = left out
}

// Template is what a list says beside its entries.
type Template struct {
	Algorithm      []byte // DER of the signature's AlgorithmIdentifier; issuance fills it in
	Issuer         []byte // DER of the CA's subject, byte for byte; issuance fills it in
	AuthorityKeyID []byte // the CA's subject key identifier; issuance fills it in
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Number         uint64
	Delta          bool // the list is a delta to the full list Base
	Base           uint64
	Point          *Point   // issuing distribution point, nil = left out
	Freshest       []string // URIs of the delta list, for a full list
}

// Point is the issuingDistributionPoint (RFC 5280, Section 5.2.5).
type Point struct {
	URIs      []string
	OnlyUsers bool
	OnlyCAs   bool
}

// Encode writes a whole list to w and returns the number of entries. digest is
// the fresh hash of the signature algorithm; sign is called once, with its sum,
// after the last entry was read. entries is iterated once, and Encode copies what
// it needs of an Entry before it asks for the next. Nothing is written to w before
// the signature was made.
func Encode(w io.Writer, t *Template, entries iter.Seq2[Entry, error], digest hash.Hash, sign func(digest []byte) ([]byte, error)) (int, error) {
	return 0, errNotBuilt
}

// List is what Parse read beside the entries.
type List struct {
	Algorithm      []byte
	Issuer         []byte
	AuthorityKeyID []byte
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Number         *big.Int
	Base           *big.Int // nil for a full list
	Point          *Point
	Freshest       []string
	Entries        int
}

// Parse reads a list and calls each for every entry, whose Serial is valid only
// during the call; nil is allowed. Nothing of it may be believed before
// CheckSignature returned nil. The caller bounds r.
func Parse(r io.Reader, each func(Entry) error) (*List, error) { return nil, errNotBuilt }

// CheckSignature checks that the CA whose certificate is given signed the list
// and may sign lists.
func (l *List) CheckSignature(issuer []byte) error { return errNotBuilt }
