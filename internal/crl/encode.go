package crl

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// Encode writes a whole list to w and returns the number of its entries. digest is
// a fresh hash of the signature algorithm; sign is called once, with its sum, after
// the last entry was read. entries is iterated once, and of an Entry nothing is
// kept. Nothing is written to w before the signature was made.
func Encode(w io.Writer, t *Template, entries iter.Seq2[Entry, error], digest hash.Hash, sign func(digest []byte) ([]byte, error)) (int, error) {
	if err := t.check(); err != nil {
		return 0, fmt.Errorf("encoding CRL: %w", err)
	}
	extensions, err := t.extensions()
	if err != nil {
		return 0, fmt.Errorf("encoding CRL: %w", err)
	}
	var s spool
	defer s.close()
	n, err := encodeEntries(&s, entries, t.Delta)
	if err != nil {
		return 0, fmt.Errorf("encoding CRL: %w", err)
	}

	// What stands before and after the entries. An empty list has no
	// revokedCertificates at all (RFC 5280, Section 5.1.2.6).
	head := append([]byte{2, 1, 1}, t.Algorithm...) // version v2
	head = append(head, t.Issuer...)
	head = appendTime(head, t.ThisUpdate)
	head = appendTime(head, t.NextUpdate)
	if n > 0 {
		head = appendHeader(head, tagSequence, s.size)
	}
	head = append(appendHeader(nil, tagSequence, int64(len(head))+s.size+int64(len(extensions))), head...)

	digest.Write(head)
	if err := s.copyTo(digest); err != nil {
		return 0, fmt.Errorf("encoding CRL: %w", err)
	}
	digest.Write(extensions)
	signature, err := sign(digest.Sum(nil))
	if err != nil {
		return 0, fmt.Errorf("signing CRL: %w", err)
	}
	tail := append(extensions, t.Algorithm...)
	tail = appendHeader(tail, tagBitString, int64(len(signature))+1)
	tail = append(append(tail, 0), signature...)

	outer := appendHeader(nil, tagSequence, int64(len(head))+s.size+int64(len(tail)))
	if _, err := w.Write(append(outer, head...)); err != nil {
		return 0, fmt.Errorf("writing CRL: %w", err)
	}
	if err := s.copyTo(w); err != nil {
		return 0, fmt.Errorf("writing CRL: %w", err)
	}
	if _, err := w.Write(tail); err != nil {
		return 0, fmt.Errorf("writing CRL: %w", err)
	}
	return n, nil
}

// check holds the template to what RFC 5280 demands.
func (t *Template) check() error {
	switch {
	case len(t.Algorithm) == 0 || len(t.Issuer) == 0:
		return errors.New("signature algorithm or issuer is missing")
	case len(t.AuthorityKeyID) == 0: // RFC 5280, Section 5.2.1
		return errors.New("authority key identifier is missing")
	case t.ThisUpdate.IsZero() || !t.NextUpdate.After(t.ThisUpdate): // RFC 5280, Section 5.1.2.5
		return errors.New("nextUpdate is not after thisUpdate")
	case t.Number == 0: // RFC 5280, Section 5.2.3
		return errors.New("CRL number is missing")
	case t.Delta && t.Base >= t.Number: // RFC 5280, Section 5.2.4
		return fmt.Errorf("delta CRL %d is not newer than its base %d", t.Number, t.Base)
	case t.Delta && len(t.Freshest) > 0: // RFC 5280, Section 5.2.6
		return errors.New("a delta CRL cannot point to a fresher one")
	case t.Point != nil && t.Point.OnlyUsers && t.Point.OnlyCAs: // RFC 5280, Section 5.2.5
		return errors.New("a list for users only and CAs only is for nobody")
	case t.Point != nil && len(t.Point.URIs) == 0 && !t.Point.OnlyUsers && !t.Point.OnlyCAs:
		return errors.New("the issuing distribution point is empty")
	}
	return nil
}

// extensions encodes crlExtensions with its explicit tag.
func (t *Template) extensions() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, derAuthorityKeyID, false, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(t.AuthorityKeyID) })
				})
			})
			addExtension(b, derCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(new(big.Int).SetUint64(t.Number)) })
			if t.Delta { // critical: RFC 5280, Section 5.2.4
				addExtension(b, derDeltaCRLIndicator, true, func(b *cryptobyte.Builder) { b.AddASN1BigInt(new(big.Int).SetUint64(t.Base)) })
			}
			if t.Point != nil { // critical: RFC 5280, Section 5.2.5
				addExtension(b, derIssuingDistributionPoint, true, t.Point.add)
			}
			if len(t.Freshest) > 0 {
				addExtension(b, derFreshestCRL, false, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // CRLDistributionPoints
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addPointName(b, t.Freshest) })
					})
				})
			}
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding extensions: %w", err)
	}
	return der, nil
}

func addExtension(b *cryptobyte.Builder, id []byte, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(id) })
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

func (p *Point) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if len(p.URIs) > 0 {
			addPointName(b, p.URIs)
		}
		if p.OnlyUsers {
			b.AddASN1(tagOnlyUsers, func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		}
		if p.OnlyCAs {
			b.AddASN1(tagOnlyCAs, func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		}
	})
}

// addPointName writes a DistributionPointName, fullName, in its explicit tag.
func addPointName(b *cryptobyte.Builder, uris []string) {
	b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { // IMPLICIT GeneralNames
			for _, uri := range uris {
				b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			}
		})
	})
}

// encodeEntries writes all entries to s and counts them.
func encodeEntries(s *spool, entries iter.Seq2[Entry, error], delta bool) (int, error) {
	n := 0
	for e, err := range entries {
		if err != nil {
			return 0, fmt.Errorf("reading entries: %w", err)
		}
		if err := e.check(delta); err != nil {
			return 0, err
		}
		if err := s.room(maxEntry); err != nil {
			return 0, err
		}
		s.buf = e.append(s.buf)
		n++
	}
	return n, s.flushed()
}

func (e *Entry) check(delta bool) error {
	switch {
	case len(e.Serial) > maxSerial || !minimalInteger(e.Serial):
		return fmt.Errorf("serial number %x is not 1 to %d octets of a DER INTEGER", e.Serial, maxSerial)
	case e.Reason < 0 || e.Reason == reasonUnused || e.Reason > reasonLast:
		return fmt.Errorf("serial number %x: there is no reason %d", e.Serial, e.Reason)
	case e.Reason == reasonRemoveFromCRL && !delta: // RFC 5280, Section 5.3.1
		return fmt.Errorf("serial number %x: removeFromCRL stands only in a delta CRL", e.Serial)
	case e.RevokedAt.IsZero():
		return fmt.Errorf("serial number %x: the time of revocation is missing", e.Serial)
	}
	return nil
}

// maxEntry bounds the encoding of an entry: serial 22, time 17, extensions 2 + 12
// + 26 and the header 2. All lengths in it fit one octet.
const maxEntry = 81

// append encodes the entry. It is written by hand: a million entries go through
// here while the list is awaited.
func (e *Entry) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, tagSequence, 0, tagInteger, byte(len(e.Serial)))
	dst = append(dst, e.Serial...)
	dst = appendTime(dst, e.RevokedAt)
	if e.Reason != 0 || !e.InvalidityDate.IsZero() {
		list := len(dst)
		dst = append(dst, tagSequence, 0)
		if e.Reason != 0 {
			dst = append(dst, tagSequence, 10, tagOID, 3)
			dst = append(dst, derCRLReason...)
			dst = append(dst, tagOctetString, 3, tagEnumerated, 1, byte(e.Reason))
		}
		if !e.InvalidityDate.IsZero() {
			dst = append(dst, tagSequence, 24, tagOID, 3)
			dst = append(dst, derInvalidityDate...)
			dst = append(dst, tagOctetString, 17)
			dst = appendGeneralizedTime(dst, e.InvalidityDate) // RFC 5280, Section 5.3.2: in every year
		}
		dst[list+1] = byte(len(dst) - list - 2)
	}
	dst[start+1] = byte(len(dst) - start - 2)
	return dst
}

// appendTime writes UTCTime up to 2049 and GeneralizedTime from 2050 on
// (RFC 5280, Section 5.1.2.4 and Section 5.1.2.6).
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year := t.Year()
	if year < 1950 || year > 2049 {
		return appendGeneralizedTime(dst, t)
	}
	dst = append(dst, tagUTCTime, 13)
	return appendClock(appendTwo(dst, year%100), t)
}

func appendGeneralizedTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year := t.Year()
	dst = append(dst, tagGeneralizedTime, 15)
	return appendClock(appendTwo(appendTwo(dst, year/100), year%100), t)
}

func appendClock(dst []byte, t time.Time) []byte {
	_, month, day := t.Date()
	hour, minute, second := t.Clock()
	for _, n := range [...]int{int(month), day, hour, minute, second} {
		dst = appendTwo(dst, n)
	}
	return append(dst, 'Z')
}

func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendHeader writes a tag and a definite length.
func appendHeader(dst []byte, tag byte, length int64) []byte {
	if length < 0x80 {
		return append(dst, tag, byte(length))
	}
	n := 1
	for length>>(8*n) > 0 {
		n++
	}
	dst = append(dst, tag, 0x80|byte(n))
	for n--; n >= 0; n-- {
		dst = append(dst, byte(length>>(8*n)))
	}
	return dst
}

// Tags that are written and compared as single octets.
const (
	tagInteger         = 0x02
	tagBitString       = 0x03
	tagOctetString     = 0x04
	tagOID             = 0x06
	tagEnumerated      = 0x0a
	tagUTCTime         = 0x17
	tagGeneralizedTime = 0x18
	tagSequence        = 0x30
)

var (
	tagExplicit0 = cbasn1.Tag(0).Constructed().ContextSpecific()
	tagOnlyUsers = cbasn1.Tag(1).ContextSpecific()
	tagOnlyCAs   = cbasn1.Tag(2).ContextSpecific()
	tagURI       = cbasn1.Tag(6).ContextSpecific() // uniformResourceIdentifier in a GeneralName
)

// Contents of the object identifiers below id-ce, which all have three octets.
var (
	derAuthorityKeyID           = arc(oid.ExtAuthorityKeyID)
	derCRLNumber                = arc(oid.ExtCRLNumber)
	derCRLReason                = arc(oid.ExtCRLReason)
	derInvalidityDate           = arc(oid.ExtInvalidityDate)
	derDeltaCRLIndicator        = arc(oid.ExtDeltaCRLIndicator)
	derIssuingDistributionPoint = arc(oid.ExtIssuingDistributionPoint)
	derFreshestCRL              = arc(oid.ExtFreshestCRL)
	derCertificateIssuer        = arc(oid.ExtCertificateIssuer)
)

// arc encodes {2 5 29 n}.
func arc(id []int) []byte { return []byte{2*40 + 5, byte(id[2]), byte(id[3])} }
