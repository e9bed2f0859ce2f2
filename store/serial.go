package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
)

// Serial is a certificate serial number: the octet 01, so that the number is positive and always 17 octets long, and 16 random octets.
// The zero Serial stands for "none".
type Serial [17]byte

// ParseSerial reads the 34 hexadecimal digits that String writes; digits may be in either case.
func ParseSerial(s string) (Serial, error) {
	var n Serial
	if len(s) != 2*len(n) {
		return Serial{}, fmt.Errorf("serial number has %d characters; it has %d hexadecimal digits", len(s), 2*len(n))
	}
	if _, err := hex.Decode(n[:], []byte(s)); err != nil {
		return Serial{}, fmt.Errorf("reading serial number: %w", err)
	}
	if n[0] != 1 {
		return Serial{}, fmt.Errorf("serial number begins with %02x; those of this book begin with 01", n[0])
	}
	return n, nil
}

// SerialFrom turns the number of a certificate, a CRL entry or an OCSP request into a Serial. A number that this package would never
// have given is an error.
func SerialFrom(x *big.Int) (Serial, error) {
	var n Serial
	if x == nil || x.Sign() <= 0 || (x.BitLen()+7)/8 != len(n) {
		return Serial{}, fmt.Errorf("serial number is not one of this book: it does not have %d octets", len(n))
	}
	x.FillBytes(n[:])
	if n[0] != 1 {
		return Serial{}, fmt.Errorf("serial number begins with %02x; those of this book begin with 01", n[0])
	}
	return n, nil
}

// String returns 34 lower-case hexadecimal digits.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// BigInt returns the number.
func (s Serial) BigInt() *big.Int { return new(big.Int).SetBytes(s[:]) }

// IsZero reports whether s is no serial number at all.
func (s Serial) IsZero() bool { return s == Serial{} }

// MarshalText writes the hexadecimal digits, and nothing for the zero Serial.
func (s Serial) MarshalText() ([]byte, error) {
	if s.IsZero() {
		return []byte{}, nil
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (s *Serial) UnmarshalText(text []byte) (err error) {
	*s = Serial{}
	if len(text) > 0 {
		*s, err = ParseSerial(string(text))
	}
	return err
}

// Hash is a SHA-256 value. The zero Hash stands for "none".
type Hash [sha256.Size]byte

// Sum returns the SHA-256 value of b.
func Sum(b []byte) Hash { return sha256.Sum256(b) }

// ParseHash reads the 64 hexadecimal digits that String writes; digits may be in either case.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) {
		return Hash{}, fmt.Errorf("hash has %d characters; a SHA-256 value has %d hexadecimal digits", len(s), 2*len(h))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("reading hash: %w", err)
	}
	return h, nil
}

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is no hash at all.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes the hexadecimal digits, and nothing for the zero Hash.
func (h Hash) MarshalText() ([]byte, error) {
	if h.IsZero() {
		return []byte{}, nil
	}
	return []byte(h.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) (err error) {
	*h = Hash{}
	if len(text) > 0 {
		*h, err = ParseHash(string(text))
	}
	return err
}
