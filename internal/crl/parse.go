package crl

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// Limits of what is held in memory while reading. The list itself is bounded by
// whoever opens the reader.
const (
	maxField   = 64 << 10 // issuer, extensions, signature: each
	maxElement = 4 << 10  // one entry as strangers write them
)

// List is what Parse read beside the entries.
type List struct {
	Algorithm      []byte // DER of the signature's AlgorithmIdentifier
	Issuer         []byte // DER of the name
	AuthorityKeyID []byte
	ThisUpdate     time.Time
	NextUpdate     time.Time
	Number         *big.Int // nil if the list has none
	Base           *big.Int // nil for a full list
	Point          *Point
	Freshest       []string
	Entries        int
	Scope          []byte // DER of the issuingDistributionPoint; only Scan sets it

	open      bool // the caller judges the scope
	rsa       bool // else ECDSA
	hash      crypto.Hash
	sum       []byte // digest of the signed part
	signature []byte
}

// Parse reads one list to the end of r and calls each for every entry, whose
// Serial is valid only during the call; a nil each is allowed. An error of each
// ends the reading. Nothing of a list may be believed before CheckSignature
// returned nil, what each was given included.
func Parse(r io.Reader, each func(Entry) error) (*List, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 64<<10)}
	var l List
	if err := l.read(s, each); err != nil {
		return nil, fmt.Errorf("parsing CRL: %w", err)
	}
	return &l, nil
}

func (l *List) read(s *scanner, each func(Entry) error) error {
	end, err := s.enter(tagSequence, -1)
	if err != nil {
		return err
	}
	s.raw = make([]byte, 0, 512) // keeps the signed octets until the hash is known
	tbsEnd, err := s.enter(tagSequence, end)
	if err != nil {
		return err
	}
	if err := l.readHead(s, tbsEnd); err != nil {
		return err
	}
	if err := l.readEntries(s, tbsEnd, each); err != nil {
		return err
	}
	if s.pos < tbsEnd {
		extensions, err := s.element(byte(tagExplicit0), tbsEnd, maxField)
		if err != nil {
			return fmt.Errorf("reading extensions: %w", err)
		}
		if err := l.readExtensions(extensions); err != nil {
			return err
		}
	}
	if s.pos != tbsEnd {
		return errors.New("unexpected data at the end of the signed part")
	}
	l.sum, s.digest = s.digest.Sum(nil), nil
	return l.readTail(s, end)
}

// readHead reads all that stands before the entries.
func (l *List) readHead(s *scanner, end int64) error {
	version, err := s.element(tagInteger, end, maxElement)
	if err != nil {
		return fmt.Errorf("reading version: %w", err)
	}
	if !bytes.Equal(version, []byte{tagInteger, 1, 1}) { // RFC 5280, Section 5.1.2.1
		return errors.New("reading version: only v2 is known")
	}
	algorithm, err := s.element(tagSequence, end, maxElement)
	if err != nil {
		return fmt.Errorf("reading signature algorithm: %w", err)
	}
	l.Algorithm = bytes.Clone(algorithm)
	if l.rsa, l.hash, err = signatureAlgorithm(l.Algorithm); err != nil {
		return err
	}
	s.hashWith(l.hash.New())
	issuer, err := s.element(tagSequence, end, maxField)
	if err != nil {
		return fmt.Errorf("reading issuer: %w", err)
	}
	l.Issuer = bytes.Clone(issuer)
	for _, t := range []*time.Time{&l.ThisUpdate, &l.NextUpdate} {
		// RFC 5280, Section 5.1.2.5: nextUpdate is not optional here.
		text, err := s.element(0, end, maxElement)
		if err != nil {
			return fmt.Errorf("reading time: %w", err)
		}
		if *t, err = parseTime(text); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) readEntries(s *scanner, end int64, each func(Entry) error) error {
	if tag, err := s.peek(end); err != nil || tag != tagSequence {
		return err
	}
	listEnd, err := s.enter(tagSequence, end)
	if err != nil {
		return err
	}
	for s.pos < listEnd {
		der, err := s.element(tagSequence, listEnd, maxElement)
		if err != nil {
			return fmt.Errorf("reading entry %d: %w", l.Entries, err)
		}
		e, err := parseEntry(der, l.open)
		if err != nil {
			return fmt.Errorf("reading entry %d: %w", l.Entries, err)
		}
		l.Entries++
		if each == nil {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if l.Entries == 0 { // RFC 5280, Section 5.1.2.6
		return errors.New("revokedCertificates is there but empty")
	}
	return nil
}

// readTail reads what follows the signed part.
func (l *List) readTail(s *scanner, end int64) error {
	algorithm, err := s.element(tagSequence, end, maxElement)
	if err != nil {
		return fmt.Errorf("reading signature algorithm: %w", err)
	}
	if !bytes.Equal(algorithm, l.Algorithm) { // RFC 5280, Section 5.1.1.2
		return errors.New("the signature algorithm within the list and beside it differ")
	}
	bits, err := s.element(tagBitString, end, maxField)
	if err != nil {
		return fmt.Errorf("reading signature: %w", err)
	}
	if !bits.ReadASN1BitStringAsBytes(&l.signature) || s.pos != end {
		return errors.New("reading signature: not a BIT STRING at the end")
	}
	l.signature = bytes.Clone(l.signature)
	if _, err := s.r.ReadByte(); err != io.EOF {
		return errors.New("unexpected data after the list")
	}
	return nil
}

// parseEntry reads one entry of revokedCertificates.
func parseEntry(der cryptobyte.String, open bool) (Entry, error) {
	var e Entry
	var seq, serial, text, extensions cryptobyte.String
	var tag cbasn1.Tag
	if !der.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&serial, cbasn1.INTEGER) || !minimalInteger(serial) || !seq.ReadAnyASN1Element(&text, &tag) {
		return e, errors.New("not an entry")
	}
	e.Serial = serial
	var err error
	if e.RevokedAt, err = parseTime(text); err != nil || seq.Empty() {
		return e, err
	}
	if !seq.ReadASN1(&extensions, cbasn1.SEQUENCE) || !seq.Empty() || extensions.Empty() {
		return e, errors.New("not a list of entry extensions")
	}
	for !extensions.Empty() {
		id, critical, value, ok := readExtension(&extensions)
		switch {
		case !ok:
			return e, errors.New("not an entry extension")
		case bytes.Equal(id, derCRLReason):
			if !value.ReadASN1Enum(&e.Reason) || !value.Empty() || e.Reason < 0 || e.Reason == reasonUnused || e.Reason > reasonLast {
				return e, errors.New("not a CRLReason")
			}
		case bytes.Equal(id, derInvalidityDate):
			if len(value) == 0 || value[0] != tagGeneralizedTime {
				return e, errors.New("the invalidity date is not a GeneralizedTime")
			}
			if e.InvalidityDate, err = parseTime(value); err != nil {
				return e, err
			}
		case open && bytes.Equal(id, derCertificateIssuer):
			e.Issuer = value
		case critical: // RFC 5280, Section 5.3: such a list must not be used
			return e, fmt.Errorf("critical entry extension %x is not known here", []byte(id))
		}
	}
	return e, nil
}

func readExtension(list *cryptobyte.String) (id cryptobyte.String, critical bool, value cryptobyte.String, ok bool) {
	var ext cryptobyte.String
	if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
		return nil, false, nil, false
	}
	if ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
		return nil, false, nil, false
	}
	ok = ext.ReadASN1(&value, cbasn1.OCTET_STRING) && ext.Empty()
	return id, critical, value, ok
}

// readExtensions reads crlExtensions in its explicit tag.
func (l *List) readExtensions(der cryptobyte.String) error {
	var explicit, list cryptobyte.String
	if !der.ReadASN1(&explicit, tagExplicit0) || !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() || list.Empty() {
		return errors.New("reading extensions: not a list of extensions")
	}
	for !list.Empty() {
		id, critical, value, ok := readExtension(&list)
		if !ok {
			return errors.New("reading extensions: not an extension")
		}
		switch {
		case bytes.Equal(id, derAuthorityKeyID):
			ok = l.readAuthorityKeyID(value)
		case bytes.Equal(id, derCRLNumber):
			l.Number, ok = readNumber(value)
		case bytes.Equal(id, derDeltaCRLIndicator):
			l.Base, ok = readNumber(value)
		case bytes.Equal(id, derIssuingDistributionPoint) && l.open:
			ok = l.Scope == nil && len(value) > 0
			l.Scope = bytes.Clone(value)
		case bytes.Equal(id, derIssuingDistributionPoint):
			l.Point, ok = readPoint(value)
		case bytes.Equal(id, derFreshestCRL):
			l.Freshest, ok = readFreshest(value)
		case critical: // RFC 5280, Section 5.2: such a list must not be used
			ok = false
		}
		if !ok {
			return fmt.Errorf("reading extensions: %x is malformed, or critical and not known here", []byte(id))
		}
	}
	return nil
}

func (l *List) readAuthorityKeyID(value cryptobyte.String) bool {
	var seq, id cryptobyte.String
	var present bool
	if !value.ReadASN1(&seq, cbasn1.SEQUENCE) || !value.Empty() || !seq.ReadOptionalASN1(&id, &present, cbasn1.Tag(0).ContextSpecific()) {
		return false
	}
	if present {
		l.AuthorityKeyID = bytes.Clone(id)
	}
	return true
}

func readNumber(value cryptobyte.String) (*big.Int, bool) {
	n := new(big.Int)
	return n, value.ReadASN1Integer(n) && value.Empty() && n.Sign() >= 0
}

// readPoint reads issuingDistributionPoint. A list that is indirect, for some
// reasons only or for attribute certificates does not fit in Point, so that
// nobody takes it for complete.
func readPoint(value cryptobyte.String) (*Point, bool) {
	var seq, name cryptobyte.String
	var present bool
	if !value.ReadASN1(&seq, cbasn1.SEQUENCE) || !value.Empty() || !seq.ReadOptionalASN1(&name, &present, tagExplicit0) {
		return nil, false
	}
	var p Point
	if present {
		var ok bool
		// A place without any URI would look like none, and the list like the whole CA's.
		if p.URIs, ok = readPointName(name); !ok || p.URIs == nil {
			return nil, false
		}
	}
	for _, flag := range []struct {
		tag cbasn1.Tag
		set *bool
	}{{tagOnlyUsers, &p.OnlyUsers}, {tagOnlyCAs, &p.OnlyCAs}} {
		var octet cryptobyte.String
		if !seq.ReadOptionalASN1(&octet, &present, flag.tag) || present && (len(octet) != 1 || octet[0] != 0 && octet[0] != 0xff) {
			return nil, false
		}
		*flag.set = present && octet[0] != 0
	}
	return &p, seq.Empty()
}

// readPointName reads the contents of an explicitly tagged DistributionPointName
// and returns the URIs in it.
func readPointName(name cryptobyte.String) ([]string, bool) {
	var names cryptobyte.String
	if !name.ReadASN1(&names, tagExplicit0) || !name.Empty() {
		return nil, false
	}
	var uris []string
	for !names.Empty() {
		var one cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&one, &tag) {
			return nil, false
		}
		if tag == tagURI {
			uris = append(uris, string(one))
		}
	}
	return uris, true
}

func readFreshest(value cryptobyte.String) ([]string, bool) {
	var points cryptobyte.String
	if !value.ReadASN1(&points, cbasn1.SEQUENCE) || !value.Empty() {
		return nil, false
	}
	var all []string
	for !points.Empty() {
		var point, name cryptobyte.String
		var present bool
		if !points.ReadASN1(&point, cbasn1.SEQUENCE) || !point.ReadOptionalASN1(&name, &present, tagExplicit0) {
			return nil, false
		}
		if !present {
			continue
		}
		uris, ok := readPointName(name)
		if !ok {
			return nil, false
		}
		all = append(all, uris...)
	}
	return all, true
}

// parseTime reads a whole UTCTime or GeneralizedTime element, with seconds, Z and
// no fraction (RFC 5280, Section 5.1.2.4). It is written by hand, since a long
// list has a million of them.
func parseTime(der []byte) (time.Time, error) {
	digits, century := der[min(2, len(der)):], 0
	switch {
	case len(der) == 15 && der[0] == tagUTCTime:
	case len(der) == 17 && der[0] == tagGeneralizedTime:
		if century = twoDigits(digits) * 100; century < 0 {
			return time.Time{}, errBadTime
		}
		digits = digits[2:]
	default:
		return time.Time{}, errBadTime
	}
	var n [6]int
	for i := range n {
		if n[i] = twoDigits(digits[2*i:]); n[i] < 0 {
			return time.Time{}, errBadTime
		}
	}
	year := century + n[0]
	if der[0] == tagUTCTime {
		if year += 1900; n[0] < 50 { // RFC 5280, Section 4.1.2.5.1
			year += 100
		}
	}
	t := time.Date(year, time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	// time.Date carries the 31st of February over into March.
	if digits[12] != 'Z' || n[1] < 1 || n[1] > 12 || t.Day() != n[2] || n[3] > 23 || n[4] > 59 || n[5] > 59 {
		return time.Time{}, errBadTime
	}
	return t, nil
}

var errBadTime = errors.New("not a time of the form that RFC 5280 allows")

// twoDigits is negative when b does not begin with two digits.
func twoDigits(b []byte) int {
	if b[0] < '0' || b[0] > '9' || b[1] < '0' || b[1] > '9' {
		return -1
	}
	return int(b[0]-'0')*10 + int(b[1]-'0')
}

// signatureAlgorithm names what a list may be signed with; SHA-1 is not among it.
func signatureAlgorithm(der []byte) (isRSA bool, h crypto.Hash, err error) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	if !input.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) {
		return false, 0, errors.New("reading signature algorithm: not an AlgorithmIdentifier")
	}
	for _, a := range []struct {
		id    asn1.ObjectIdentifier
		isRSA bool
		hash  crypto.Hash
	}{
		{oid.SignatureECDSASHA256, false, crypto.SHA256},
		{oid.SignatureECDSASHA384, false, crypto.SHA384},
		{oid.SignatureECDSASHA512, false, crypto.SHA512},
		{oid.SignatureRSASHA256, true, crypto.SHA256},
		{oid.SignatureRSASHA384, true, crypto.SHA384},
		{oid.SignatureRSASHA512, true, crypto.SHA512},
	} {
		if id.Equal(a.id) {
			return a.isRSA, a.hash, nil
		}
	}
	return false, 0, fmt.Errorf("signature algorithm %v is not accepted", id)
}
