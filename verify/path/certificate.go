package path

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/dn"
	"hufu/internal/oid"
)

// none stands for a number that an extension leaves out.
const none = -1

// cert is one certificate with the extensions that decide about paths, read by
// this package's own code.
type cert struct {
	x               *x509.Certificate
	hash            [32]byte
	spki            [32]byte
	subject, issuer dn.Name
	subjectKey      string
	issuerKey       string
	selfIssued      bool
	serial          string // content octets

	keyID, authorityKeyID []byte

	basic, ca bool // the extension is there; it says cA
	pathLen   int
	usage     bool // the extension is there; x.KeyUsage holds it

	names       []generalName // subjectAltName
	issuerNames []generalName // issuerAltName
	emails      []string      // emailAddress attributes of the subject
	constraints *constraints

	hasPolicies     bool
	policies        []string // contents of the object identifiers
	mappings        []mapping
	requireExplicit int
	inhibitMapping  int
	inhibitAny      int

	hasEKU bool
	eku    []string

	points  []point // cRLDistributionPoints
	unknown string  // a critical extension that is not known here, dotted
	broken  error   // of an extension
}

type mapping struct{ issuer, subject string }

var errExtension = errors.New("not of the form that RFC 5280 gives it")

// Extensions of RFC 5280, Section 4.2 that only validation reads.
var (
	extPolicyMappings    = stdasn1.ObjectIdentifier{2, 5, 29, 33}
	extPolicyConstraints = stdasn1.ObjectIdentifier{2, 5, 29, 36}
	extInhibitAnyPolicy  = stdasn1.ObjectIdentifier{2, 5, 29, 54}
)

// extensions tells how each known extension is read.
var extensions = []struct {
	id   stdasn1.ObjectIdentifier
	read func(*cert, cryptobyte.String, bool) error
}{
	{oid.ExtSubjectKeyID, (*cert).readKeyID},
	{oid.ExtAuthorityKeyID, (*cert).readAuthorityKeyID},
	{oid.ExtKeyUsage, func(c *cert, _ cryptobyte.String, _ bool) error {
		if c.usage = true; c.x.KeyUsage == 0 {
			return errors.New("no usage is set, against RFC 5280, Section 4.2.1.3")
		}
		return nil
	}},
	{oid.ExtBasicConstraints, (*cert).readBasicConstraints},
	{oid.ExtSubjectAltName, func(c *cert, v cryptobyte.String, _ bool) (err error) {
		c.names, err = readNames(v)
		return err
	}},
	{oid.ExtIssuerAltName, func(c *cert, v cryptobyte.String, _ bool) (err error) {
		c.issuerNames, err = readNames(v)
		return err
	}},
	{oid.ExtNameConstraints, func(c *cert, v cryptobyte.String, _ bool) (err error) {
		c.constraints, err = readConstraints(v)
		return err
	}},
	{oid.ExtCertificatePolicies, (*cert).readPolicies},
	{extPolicyMappings, (*cert).readMappings},
	{extPolicyConstraints, (*cert).readPolicyConstraints},
	{extInhibitAnyPolicy, func(c *cert, v cryptobyte.String, _ bool) (err error) {
		c.inhibitAny, err = readSkip(&v, asn1.INTEGER)
		if err == nil && !v.Empty() {
			err = errExtension
		}
		return err
	}},
	{oid.ExtExtendedKeyUsage, (*cert).readEKU},
	{oid.ExtCRLDistributionPoints, func(c *cert, v cryptobyte.String, _ bool) (err error) {
		c.points, err = readPoints(v)
		return err
	}},
}

// parse reads a certificate. What is wrong within an extension is kept in broken,
// so that the path can be named.
func parse(der []byte) (*cert, error) {
	if len(der) > MaxCertificate {
		return nil, fmt.Errorf("%d octets, at most %d are read", len(der), MaxCertificate)
	}
	x, err := readX509(der)
	if err != nil {
		return nil, err
	}
	c := &cert{
		x: x, hash: sha256.Sum256(der), spki: sha256.Sum256(x.RawSubjectPublicKeyInfo), serial: string(integer(x.SerialNumber.Bytes())),
		pathLen: none, requireExplicit: none, inhibitMapping: none, inhibitAny: none,
	}
	if c.subject, err = dn.Parse(x.RawSubject); err != nil {
		return nil, err
	}
	if c.issuer, err = dn.Parse(x.RawIssuer); err != nil {
		return nil, err
	}
	if c.emails, err = dn.Emails(x.RawSubject); err != nil {
		return nil, err
	}
	if len(c.issuer) == 0 {
		return nil, errors.New("it names no issuer, against RFC 5280, Section 4.1.2.4")
	}
	c.subjectKey, c.issuerKey, c.selfIssued = c.subject.Key(), c.issuer.Key(), c.subject.Equal(c.issuer)
	for _, e := range x.Extensions {
		if err := c.readExtension(e.Id, e.Value, e.Critical); err != nil {
			c.broken = fmt.Errorf("extension %v: %w", e.Id, err)
			break
		}
	}
	if c.broken == nil && len(c.subject) == 0 && len(c.names) == 0 {
		c.broken = errors.New("it names nobody, neither as its subject nor by an alternative name")
	}
	return c, nil
}

func (c *cert) readExtension(id stdasn1.ObjectIdentifier, value []byte, critical bool) error {
	for _, known := range extensions {
		if known.id.Equal(id) {
			return known.read(c, value, critical)
		}
	}
	if critical && c.unknown == "" {
		c.unknown = id.String()
	}
	return nil
}

// integer makes the content octets of an INTEGER of its magnitude.
func integer(b []byte) []byte {
	if len(b) == 0 || b[0] >= 0x80 {
		return append([]byte{0}, b...)
	}
	return b
}

func (c *cert) readKeyID(v cryptobyte.String, _ bool) error {
	var id cryptobyte.String
	if !v.ReadASN1(&id, asn1.OCTET_STRING) || !v.Empty() {
		return errExtension
	}
	c.keyID = id
	return nil
}

func (c *cert) readAuthorityKeyID(v cryptobyte.String, _ bool) error {
	var id cryptobyte.String
	var present bool
	seq, ok := sequence(v)
	if !ok || !seq.ReadOptionalASN1(&id, &present, asn1.Tag(0).ContextSpecific()) {
		return errExtension
	}
	c.authorityKeyID = id
	return nil
}

func (c *cert) readBasicConstraints(v cryptobyte.String, _ bool) error {
	seq, ok := sequence(v)
	if !ok {
		return errExtension
	}
	c.basic = true
	if seq.PeekASN1Tag(asn1.BOOLEAN) && !seq.ReadASN1Boolean(&c.ca) {
		return errExtension
	}
	if seq.Empty() {
		return nil
	}
	var err error
	if c.pathLen, err = readSkip(&seq, asn1.INTEGER); err != nil || !seq.Empty() || !c.ca {
		return errExtension // RFC 5280, Section 4.2.1.9: pathLen only with cA
	}
	return nil
}

// sequence returns the contents of the one SEQUENCE that a value is.
func sequence(v cryptobyte.String) (contents cryptobyte.String, ok bool) {
	ok = v.ReadASN1(&contents, asn1.SEQUENCE) && v.Empty()
	return contents, ok
}

// readSkip reads a number of certificates. Beyond any path, all are alike.
func readSkip(s *cryptobyte.String, tag asn1.Tag) (int, error) {
	var value cryptobyte.String
	if !s.ReadASN1(&value, tag) || len(value) == 0 || value[0] >= 0x80 || len(value) > 1 && value[0] == 0 && value[1] < 0x80 {
		return none, errExtension
	}
	n := 0
	for _, octet := range value {
		n = min(n<<8|int(octet), 1<<20)
	}
	return n, nil
}

func readNames(v cryptobyte.String) ([]generalName, error) {
	list, ok := sequence(v)
	if !ok {
		return nil, errExtension
	}
	return parseGeneralNames(list)
}

// Qualifiers of policies (RFC 5280, Section 4.2.1.4), as contents.
var (
	qualifierCPS    = []byte("\x2b\x06\x01\x05\x05\x07\x02\x01")
	qualifierNotice = []byte("\x2b\x06\x01\x05\x05\x07\x02\x02")
)

func (c *cert) readPolicies(v cryptobyte.String, critical bool) error {
	list, ok := sequence(v)
	if !ok || list.Empty() {
		return errExtension
	}
	c.hasPolicies = true
	for !list.Empty() {
		var info, id, qualifiers cryptobyte.String
		if !list.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) || len(id) == 0 {
			return errExtension
		}
		if len(c.policies) == MaxPolicies {
			return fmt.Errorf("more than %d policies", MaxPolicies)
		}
		if slices.Contains(c.policies, string(id)) { // RFC 5280, Section 4.2.1.4
			return errors.New("a policy stands twice")
		}
		c.policies = append(c.policies, string(id))
		if info.Empty() {
			continue
		}
		if !info.ReadASN1(&qualifiers, asn1.SEQUENCE) || !info.Empty() || qualifiers.Empty() {
			return errExtension
		}
		for !qualifiers.Empty() {
			var q, kind cryptobyte.String
			if !qualifiers.ReadASN1(&q, asn1.SEQUENCE) || !q.ReadASN1(&kind, asn1.OBJECT_IDENTIFIER) {
				return errExtension
			}
			// RFC 5280, Section 4.2.1.4: critical means that qualifiers are understood.
			if critical && !bytes.Equal(kind, qualifierCPS) && !bytes.Equal(kind, qualifierNotice) {
				return errors.New("it is critical and has a qualifier that is not known here")
			}
		}
	}
	return nil
}

func (c *cert) readMappings(v cryptobyte.String, _ bool) error {
	list, ok := sequence(v)
	if !ok || list.Empty() {
		return errExtension
	}
	for !list.Empty() {
		var pair, issuer, subject cryptobyte.String
		if !list.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&issuer, asn1.OBJECT_IDENTIFIER) || len(issuer) == 0 ||
			!pair.ReadASN1(&subject, asn1.OBJECT_IDENTIFIER) || len(subject) == 0 || !pair.Empty() {
			return errExtension
		}
		if len(c.mappings) == MaxPolicies {
			return fmt.Errorf("more than %d mappings", MaxPolicies)
		}
		c.mappings = append(c.mappings, mapping{string(issuer), string(subject)})
	}
	return nil
}

func (c *cert) readPolicyConstraints(v cryptobyte.String, _ bool) (err error) {
	seq, ok := sequence(v)
	if !ok || seq.Empty() {
		return errExtension
	}
	for i, n := range []*int{&c.requireExplicit, &c.inhibitMapping} {
		if tag := asn1.Tag(i).ContextSpecific(); seq.PeekASN1Tag(tag) {
			if *n, err = readSkip(&seq, tag); err != nil {
				return err
			}
		}
	}
	if !seq.Empty() {
		return errExtension
	}
	return nil
}

func (c *cert) readEKU(v cryptobyte.String, _ bool) error {
	list, ok := sequence(v)
	if !ok || list.Empty() {
		return errExtension
	}
	c.hasEKU = true
	for !list.Empty() {
		var id cryptobyte.String
		if !list.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) || len(id) == 0 {
			return errExtension
		}
		c.eku = append(c.eku, string(id))
	}
	return nil
}

// dotted writes the contents of an object identifier for people.
func dotted(contents string) string {
	var id x509.OID
	if err := id.UnmarshalBinary([]byte(contents)); err != nil {
		return fmt.Sprintf("%x", contents)
	}
	return id.String()
}

// contents reads a dotted object identifier.
func contents(dotted string) (string, error) {
	id, err := x509.ParseOID(dotted)
	if err != nil {
		return "", fmt.Errorf("%q is not a dotted object identifier", dotted)
	}
	b, err := id.MarshalBinary()
	return string(b), err
}

// quote shortens what strangers wrote.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return strconv.Quote(s)
}
