package ocsp

import (
	"encoding/asn1"
	"fmt"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// back writes DER from its end to its beginning, so that each length is known when
// it is written. An answer with a nonce is encoded for every question; cryptobyte
// would take ten times as long.
type back struct {
	buf []byte
	at  int // what is written begins here
	err error
}

func newBack(size int) *back { return &back{buf: make([]byte, size), at: size} }

// bytes returns what was written.
func (w *back) bytes() ([]byte, error) { return w.buf[w.at:], w.err }

// end is the place that header wants of what is written from now on.
func (w *back) end() int { return len(w.buf) - w.at }

// room makes place for n octets before those that are written.
func (w *back) room(n int) []byte {
	if w.at < n {
		bigger := make([]byte, 2*len(w.buf)+n)
		w.at += len(bigger) - len(w.buf)
		copy(bigger[w.at:], w.buf[w.at-(len(bigger)-len(w.buf)):])
		w.buf = bigger
	}
	w.at -= n
	return w.buf[w.at : w.at+n]
}

func (w *back) raw(b []byte) { copy(w.room(len(b)), b) }

func (w *back) octet(b byte) { w.room(1)[0] = b }

// header writes tag and length of all that was written since end.
func (w *back) header(tag cbasn1.Tag, end int) {
	n := w.end() - end
	if n < 0x80 {
		w.octet(byte(n))
	} else {
		size := 0
		for ; n > 0; n >>= 8 {
			w.octet(byte(n))
			size++
		}
		w.octet(0x80 | byte(size))
	}
	w.octet(byte(tag))
}

// value writes one element with its contents.
func (w *back) value(tag cbasn1.Tag, contents []byte) {
	end := w.end()
	w.raw(contents)
	w.header(tag, end)
}

func (w *back) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// time writes GeneralizedTime in UTC without a fraction, whatever the year
// (RFC 6960, Section 4.2.2.1; RFC 5280, Section 4.1.2.5.2).
func (w *back) time(t time.Time) {
	t = t.UTC()
	if t.Year() < 1970 || t.Year() > 9999 {
		w.fail("encoding time: it is missing or not of this era: %v", t)
		return
	}
	end := w.end()
	t.AppendFormat(w.room(len(generalized))[:0], generalized)
	w.header(cbasn1.GeneralizedTime, end)
}

const generalized = "20060102150405Z"

// Elements that do not change.
var (
	algorithmSHA1, bareSHA1     = hashAlgorithm(oid.DigestSHA1)
	algorithmSHA256, bareSHA256 = hashAlgorithm(oid.DigestSHA256)
)

// hashAlgorithm is the AlgorithmIdentifier of a hash with NULL parameters, and without.
func hashAlgorithm(id asn1.ObjectIdentifier) (null, bare []byte) {
	w := newBack(32)
	w.value(cbasn1.OBJECT_IDENTIFIER, contents(id))
	w.header(cbasn1.SEQUENCE, 0)
	v := newBack(32)
	v.value(cbasn1.NULL, nil)
	v.value(cbasn1.OBJECT_IDENTIFIER, contents(id))
	v.header(cbasn1.SEQUENCE, 0)
	return v.buf[v.at:], w.buf[w.at:]
}
