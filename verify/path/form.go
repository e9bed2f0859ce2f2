package path

import (
	"bytes"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// outline is a certificate by its elements, with the place of one extension.
type outline struct {
	tbs         []byte
	pointsID    cryptobyte.String // of cRLDistributionPoints: contents of the object identifier
	pointsValue cryptobyte.String
}

var errOutline = errors.New("not a certificate of the form that RFC 5280, Section 4.1 gives it")

// readOutline holds a certificate to RFC 5280, Section 4.1. crypto/x509 reads what it
// looks for and passes over what stands behind it, and over the extensions of
// versions that have none: what was signed there would be believed unread.
func readOutline(der []byte) (*outline, error) {
	input := cryptobyte.String(der)
	var all, tbs, signed, version, validity, spki cryptobyte.String
	var o outline
	var bits []byte
	if !input.ReadASN1(&all, asn1.SEQUENCE) || !input.Empty() || !all.ReadASN1Element(&signed, asn1.SEQUENCE) ||
		!all.SkipASN1(asn1.SEQUENCE) || !all.ReadASN1BitStringAsBytes(&bits) || !all.Empty() {
		return nil, errOutline
	}
	o.tbs = signed
	if !signed.ReadASN1(&tbs, asn1.SEQUENCE) {
		return nil, errOutline
	}
	n := 1
	if tag := asn1.Tag(0).Constructed().ContextSpecific(); tbs.PeekASN1Tag(tag) {
		if !tbs.ReadASN1(&version, tag) || !version.ReadASN1Integer(&n) || !version.Empty() || n != 1 && n != 2 {
			return nil, errors.New("its version is none")
		}
		n++
	}
	if !tbs.SkipASN1(asn1.INTEGER) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.ReadASN1(&validity, asn1.SEQUENCE) ||
		!tbs.SkipASN1(asn1.SEQUENCE) || !tbs.ReadASN1(&spki, asn1.SEQUENCE) {
		return nil, errOutline
	}
	if !skipTime(&validity) || !skipTime(&validity) || !validity.Empty() {
		return nil, errors.New("its time is not of the form that RFC 5280, Section 4.1.2.5 gives it")
	}
	if !spki.SkipASN1(asn1.SEQUENCE) || !spki.SkipASN1(asn1.BIT_STRING) || !spki.Empty() {
		return nil, errOutline
	}
	if n > 1 && (!tbs.SkipOptionalASN1(asn1.Tag(1).ContextSpecific()) || !tbs.SkipOptionalASN1(asn1.Tag(2).ContextSpecific())) {
		return nil, errOutline
	}
	if n == 3 {
		if err := o.readExtensions(&tbs); err != nil {
			return nil, err
		}
	}
	if !tbs.Empty() {
		return nil, errors.New("it has more than a certificate of its version has")
	}
	return &o, nil
}

// skipTime reads a time in UTC, with seconds and without a fraction.
func skipTime(s *cryptobyte.String) bool {
	var text cryptobyte.String
	var tag asn1.Tag
	if !s.ReadAnyASN1(&text, &tag) || len(text) == 0 || text[len(text)-1] != 'Z' {
		return false
	}
	return tag == asn1.UTCTime && len(text) == len("060102150405Z") || tag == asn1.GeneralizedTime && len(text) == len("20060102150405Z")
}

func (o *outline) readExtensions(tbs *cryptobyte.String) error {
	var explicit, list cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&explicit, &present, asn1.Tag(3).Constructed().ContextSpecific()) ||
		present && (!explicit.ReadASN1(&list, asn1.SEQUENCE) || !explicit.Empty() || list.Empty()) {
		return errOutline
	}
	for !list.Empty() {
		var e, id, value cryptobyte.String
		var critical bool
		if !list.ReadASN1(&e, asn1.SEQUENCE) || !e.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) ||
			e.PeekASN1Tag(asn1.BOOLEAN) && !e.ReadASN1Boolean(&critical) || !e.ReadASN1(&value, asn1.OCTET_STRING) || !e.Empty() {
			return errOutline
		}
		if string(id) == pointsContents {
			o.pointsID, o.pointsValue = id, value
		}
	}
	return nil
}

// The contents of 2.5.29.31, and an identifier of the same length that is nobody's.
const (
	pointsContents = "\x55\x1d\x1f"
	veiledContents = "\x55\x1d\x7f"
)

var extVeiled = stdasn1.ObjectIdentifier{2, 5, 29, 127}

// readX509 parses a certificate. crypto/x509 refuses a whole certificate for a
// distribution point that is named relative to its issuer, so that this one
// extension is kept from it.
func readX509(der []byte) (*x509.Certificate, error) {
	o, err := readOutline(der)
	if err != nil {
		return nil, err
	}
	points, err := readPoints(o.pointsValue)
	if err != nil || !slices.ContainsFunc(points, func(p point) bool { return p.place.relative != nil }) {
		return x509.ParseCertificate(der)
	}
	veiled := bytes.Clone(der)
	v, err := readOutline(veiled)
	if err != nil {
		return nil, err
	}
	copy(v.pointsID, veiledContents)
	x, err := x509.ParseCertificate(veiled)
	if err != nil {
		return nil, err
	}
	x.Raw, x.RawTBSCertificate = der, o.tbs
	for i := range x.Extensions {
		if x.Extensions[i].Id.Equal(extVeiled) {
			x.Extensions[i].Id = oid.ExtCRLDistributionPoints
		}
	}
	return x, nil
}
