package policy

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// MaxCertificate is the largest certificate that Parse reads.
const MaxCertificate = 16 << 10

// A Subject is a certificate as the rules see it: its bytes taken apart, and
// what is known beside them. Its slices lie in the bytes that were parsed.
type Subject struct {
	// What the certificate is judged by.
	Profile *Profile
	Issuer  *Issuer
	Kind    *Kind  // of the working CA that is certified; else nil
	City    string // of the city CA that is certified

	DER []byte
	TBS []byte

	Version        int64 // as encoded: 2 stands for v3
	Serial         []byte
	InnerAlgorithm []byte // DER of the AlgorithmIdentifier within the TBS
	OuterAlgorithm []byte // and of the one beside the signature
	RawIssuer      []byte
	NotBefore      Time
	NotAfter       Time
	RawSubject     []byte
	Attributes     []TypedAttribute
	SPKI           []byte
	Key            KeyKind // "" when the key was not understood
	KeyBits        []byte
	UniqueIDs      bool
	Extensions     []Extension

	// Read from the extensions. Zero where an extension is absent.
	AuthorityKeyID []byte
	SubjectKeyID   []byte
	KeyUsage       x509.KeyUsage
	EKU            []asn1.ObjectIdentifier
	CA             bool
	PathLen        int64 // -1 = none
	PermittedDNS   []string
	ExcludedIP     [][]byte
	OtherSubtrees  bool // nameConstraints hold something else too
	Policies       []asn1.ObjectIdentifier
	Qualifiers     bool // a policy has qualifiers
	DNS            []string
	OtherNames     bool     // subjectAltName holds something else too
	CRLs           []string // addresses of distribution points
	Deltas         []string // addresses of delta CRLs
	OCSP           []string
	Issuers        []string
}

// Issuer is what the rules know of the CA that signs.
type Issuer struct {
	Context
	Name         []byte // DER of the subject in the CA's own certificate
	KeyID        []byte // its subjectKeyIdentifier
	NotBefore    time.Time
	NotAfter     time.Time
	PermittedDNS string // the CA's own constraint, "" when it has none
	Algorithm    []byte // DER of the AlgorithmIdentifier that the CA signs with
}

// Time is a moment with the form that it was written in.
type Time struct {
	time.Time
	Tag  cbasn1.Tag
	Text []byte
}

// A TypedAttribute is an attribute with the string type that it was written in.
type TypedAttribute struct {
	Attribute
	Tag cbasn1.Tag
}

// An Extension is one extension as it stands there.
type Extension struct {
	ID       asn1.ObjectIdentifier
	Critical bool
	Value    []byte

	explicitFalse bool // critical FALSE is written out
}

// Parse takes a completed certificate apart. It fails where the bytes are not a
// certificate; everything else is left to the rules.
func Parse(der []byte, p *Profile, issuer *Issuer) (*Subject, error) {
	if len(der) > MaxCertificate {
		return nil, fmt.Errorf("a certificate of %d octets is larger than %d", len(der), MaxCertificate)
	}
	s := &Subject{Profile: p, Issuer: issuer, DER: der, PathLen: -1, Extensions: make([]Extension, 0, 12)}
	in := cryptobyte.String(der)
	var outer, tbs, algorithm cryptobyte.String
	var signature []byte
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !in.Empty() || !outer.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !outer.ReadASN1BitStringAsBytes(&signature) || !outer.Empty() {
		return nil, errors.New("the bytes are not a certificate in DER")
	}
	s.TBS, s.OuterAlgorithm = tbs, algorithm
	if err := s.parseTBS(tbs); err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	for i := range s.Extensions {
		e := &s.Extensions[i]
		if !s.parseExtension(e) {
			return nil, fmt.Errorf("reading a certificate: extension %s is malformed", e.ID)
		}
	}
	return s, nil
}

func (s *Subject) parseTBS(in cryptobyte.String) error {
	var tbs, version, algorithm, issuer, validity, subject, spki, extensions cryptobyte.String
	var present bool
	if !in.ReadASN1(&tbs, cbasn1.SEQUENCE) || !tbs.ReadOptionalASN1(&version, &present, cbasn1.Tag(0).Constructed().ContextSpecific()) {
		return errors.New("the version is malformed")
	}
	if present && (!version.ReadASN1Integer(&s.Version) || !version.Empty()) {
		return errors.New("the version is malformed")
	}
	var serial cryptobyte.String
	if !tbs.ReadASN1(&serial, cbasn1.INTEGER) || !tbs.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !tbs.ReadASN1(&validity, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return errors.New("a field is missing or malformed")
	}
	s.Serial, s.InnerAlgorithm, s.RawIssuer, s.RawSubject, s.SPKI = serial, algorithm, issuer, subject, spki
	if !readTime(&validity, &s.NotBefore) || !readTime(&validity, &s.NotAfter) || !validity.Empty() {
		return errors.New("the validity is malformed")
	}
	if !s.parseName(subject) {
		return errors.New("the subject is malformed")
	}
	if k, err := parseKey(spki); err == nil {
		s.Key, s.KeyBits = k.kind, k.bits
	}
	for _, tag := range []cbasn1.Tag{1, 2} {
		var unique cryptobyte.String
		if !tbs.ReadOptionalASN1(&unique, &present, tag.ContextSpecific()) {
			return errors.New("a unique identifier is malformed")
		}
		s.UniqueIDs = s.UniqueIDs || present
	}
	if !tbs.ReadOptionalASN1(&extensions, &present, cbasn1.Tag(3).Constructed().ContextSpecific()) || !tbs.Empty() {
		return errors.New("something stands where the extensions should")
	}
	if present && !s.parseExtensions(extensions) {
		return errors.New("the list of extensions is malformed")
	}
	return nil
}

func (s *Subject) parseName(name cryptobyte.String) bool {
	var rdns cryptobyte.String
	if !name.ReadASN1(&rdns, cbasn1.SEQUENCE) {
		return false
	}
	s.Attributes = make([]TypedAttribute, 0, 6)
	for !rdns.Empty() {
		var set, seq, value cryptobyte.String
		var a TypedAttribute
		// One attribute an RDN: the rules know no other.
		if !rdns.ReadASN1(&set, cbasn1.SET) || !set.ReadASN1(&seq, cbasn1.SEQUENCE) || !set.Empty() ||
			!seq.ReadASN1ObjectIdentifier(&a.Type) || !seq.ReadAnyASN1(&value, &a.Tag) || !seq.Empty() {
			return false
		}
		a.Value = string(value)
		s.Attributes = append(s.Attributes, a)
	}
	return true
}

func readTime(in *cryptobyte.String, t *Time) bool {
	var text cryptobyte.String
	if !in.ReadAnyASN1(&text, &t.Tag) {
		return false
	}
	t.Text = text
	century := ""
	switch t.Tag {
	case cbasn1.UTCTime:
		// RFC 5280, Section 4.1.2.5.1: years from 50 on are of the last century.
		if century = "20"; len(text) > 0 && text[0] >= '5' {
			century = "19"
		}
	case cbasn1.GeneralizedTime:
	default:
		return false
	}
	// time.Parse lets fractions pass that its layout does not have.
	const layout = "20060102150405Z"
	full := century + string(text)
	parsed, err := time.Parse(layout, full)
	t.Time = parsed
	return err == nil && len(full) == len(layout)
}

func (s *Subject) parseExtensions(in cryptobyte.String) bool {
	var list cryptobyte.String
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() {
		return false
	}
	for !list.Empty() {
		var seq, value cryptobyte.String
		var e Extension
		if !list.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&e.ID) {
			return false
		}
		if seq.PeekASN1Tag(cbasn1.BOOLEAN) {
			if !seq.ReadASN1Boolean(&e.Critical) {
				return false
			}
			e.explicitFalse = !e.Critical
		}
		if !seq.ReadASN1(&value, cbasn1.OCTET_STRING) || !seq.Empty() {
			return false
		}
		e.Value = value
		s.Extensions = append(s.Extensions, e)
	}
	return true
}

// parseExtension reads the extensions that rules look into. One that is not
// known is left alone here and refused by a rule.
func (s *Subject) parseExtension(e *Extension) bool {
	in := cryptobyte.String(e.Value)
	switch {
	case e.ID.Equal(oid.ExtAuthorityKeyID):
		return s.parseAuthorityKeyID(in)
	case e.ID.Equal(oid.ExtSubjectKeyID):
		var id cryptobyte.String
		ok := in.ReadASN1(&id, cbasn1.OCTET_STRING) && in.Empty()
		s.SubjectKeyID = id
		return ok
	case e.ID.Equal(oid.ExtKeyUsage):
		return s.parseKeyUsage(in)
	case e.ID.Equal(oid.ExtExtendedKeyUsage):
		return readList(in, func(list *cryptobyte.String) bool {
			var id asn1.ObjectIdentifier
			ok := list.ReadASN1ObjectIdentifier(&id)
			s.EKU = append(s.EKU, id)
			return ok
		})
	case e.ID.Equal(oid.ExtBasicConstraints):
		return s.parseBasicConstraints(in)
	case e.ID.Equal(oid.ExtNameConstraints):
		return s.parseNameConstraints(in)
	case e.ID.Equal(oid.ExtCertificatePolicies):
		return readList(in, s.parsePolicy)
	case e.ID.Equal(oid.ExtSubjectAltName):
		return readList(in, s.parseAltName)
	case e.ID.Equal(oid.ExtCRLDistributionPoints):
		return readList(in, func(list *cryptobyte.String) bool { return parseDistributionPoint(list, &s.CRLs) })
	case e.ID.Equal(oid.ExtFreshestCRL): // RFC 5280, Section 4.2.1.15: of the same form
		return readList(in, func(list *cryptobyte.String) bool { return parseDistributionPoint(list, &s.Deltas) })
	case e.ID.Equal(oid.ExtAuthorityInfoAccess):
		return readList(in, s.parseAccess)
	}
	return true
}
