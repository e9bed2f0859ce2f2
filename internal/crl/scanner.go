package crl

import (
	"bufio"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// scanner reads DER elements one after the other and hashes what it reads.
type scanner struct {
	r      *bufio.Reader
	pos    int64     // octets read
	raw    []byte    // while not nil: what was read and not yet hashed
	digest hash.Hash // while not nil: takes what is read
	buf    []byte    // the element read last
}

// hashWith gives the octets read since raw was set, and all that follow, to h.
func (s *scanner) hashWith(h hash.Hash) {
	h.Write(s.raw)
	s.raw, s.digest = nil, h
}

func (s *scanner) took(b []byte) {
	s.pos += int64(len(b))
	switch {
	case s.digest != nil:
		s.digest.Write(b)
	case s.raw != nil:
		s.raw = append(s.raw, b...)
	}
}

// peek returns the tag of the next element, 0 at the end of what holds it.
func (s *scanner) peek(end int64) (byte, error) {
	if s.pos == end {
		return 0, nil
	}
	b, err := s.r.Peek(1)
	if err != nil {
		return 0, errCut
	}
	return b[0], nil
}

var errCut = errors.New("the data ends too early")

// header reads tag and length of an element that lies before end (-1 = no end) into
// buf. A tag of 0 stands for any.
func (s *scanner) header(tag byte, end int64) (length int64, err error) {
	b, err := s.r.Peek(2)
	if err != nil {
		return 0, errCut
	}
	if tag != 0 && b[0] != tag {
		return 0, fmt.Errorf("the tag is %#02x, not %#02x", b[0], tag)
	}
	n := 2
	length = int64(b[1])
	if length >= 0x80 {
		// X.690, Section 10.1: definite and as short as can be. Eight octets
		// would be a list longer than any disk.
		if n += int(length & 0x7f); n == 2 || n > 9 {
			return 0, errors.New("the length is not DER")
		}
		if b, err = s.r.Peek(n); err != nil {
			return 0, errCut
		}
		length = 0
		for _, octet := range b[2:] {
			length = length<<8 | int64(octet)
		}
		if length < 0x80 || b[2] == 0 {
			return 0, errors.New("the length is not DER")
		}
	}
	s.buf = append(s.buf[:0], b[:n]...)
	if _, err := s.r.Discard(n); err != nil {
		return 0, errCut
	}
	s.took(s.buf)
	if end >= 0 && length > end-s.pos {
		return 0, errors.New("an element is longer than what holds it")
	}
	return length, nil
}

// enter reads the header of an element and returns where it ends.
func (s *scanner) enter(tag byte, end int64) (int64, error) {
	length, err := s.header(tag, end)
	return s.pos + length, err
}

// element reads a whole element of at most max octets. What it returns is valid
// until the next one is read.
func (s *scanner) element(tag byte, end int64, max int) (cryptobyte.String, error) {
	length, err := s.header(tag, end)
	if err != nil {
		return nil, err
	}
	if length > int64(max) {
		return nil, fmt.Errorf("the element has %d octets, at most %d are read", length, max)
	}
	n := len(s.buf)
	s.buf = slices.Grow(s.buf, int(length))[:n+int(length)]
	if _, err := io.ReadFull(s.r, s.buf[n:]); err != nil {
		return nil, errCut
	}
	s.took(s.buf[n:])
	return s.buf, nil
}
