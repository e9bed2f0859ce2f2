package policy

import (
	"crypto/x509"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// Tags of GeneralName (RFC 5280, Section 4.2.1.6).
const (
	tagDNS = cbasn1.Tag(2)
	tagURI = cbasn1.Tag(6)
	tagIP  = cbasn1.Tag(7)
)

// readList reads one SEQUENCE OF with at least one element.
func readList(in cryptobyte.String, element func(*cryptobyte.String) bool) bool {
	var list cryptobyte.String
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		if !element(&list) {
			return false
		}
	}
	return true
}

func (s *Subject) parseAuthorityKeyID(in cryptobyte.String) bool {
	var seq, id cryptobyte.String
	ok := in.ReadASN1(&seq, cbasn1.SEQUENCE) && in.Empty() && seq.ReadASN1(&id, cbasn1.Tag(0).ContextSpecific()) && seq.Empty()
	s.AuthorityKeyID = id
	return ok
}

func (s *Subject) parseKeyUsage(in cryptobyte.String) bool {
	var bits asn1.BitString
	if !in.ReadASN1BitString(&bits) || !in.Empty() || bits.BitLength > 9 {
		return false
	}
	for i := range bits.BitLength {
		s.KeyUsage |= x509.KeyUsage(bits.At(i)) << i
	}
	return true
}

func (s *Subject) parseBasicConstraints(in cryptobyte.String) bool {
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() {
		return false
	}
	if seq.PeekASN1Tag(cbasn1.BOOLEAN) && !seq.ReadASN1Boolean(&s.CA) {
		return false
	}
	if seq.PeekASN1Tag(cbasn1.INTEGER) && (!seq.ReadASN1Integer(&s.PathLen) || s.PathLen < 0) {
		return false
	}
	return seq.Empty()
}

// parseNameConstraints reads permitted dNSNames and excluded iPAddresses;
// whatever else stands there sets OtherSubtrees.
func (s *Subject) parseNameConstraints(in cryptobyte.String) bool {
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() {
		return false
	}
	for branch := range cbasn1.Tag(2) {
		var subtrees cryptobyte.String
		var present bool
		if !seq.ReadOptionalASN1(&subtrees, &present, branch.Constructed().ContextSpecific()) {
			return false
		}
		for !subtrees.Empty() {
			var subtree, base cryptobyte.String
			var tag cbasn1.Tag
			if !subtrees.ReadASN1(&subtree, cbasn1.SEQUENCE) || !subtree.ReadAnyASN1(&base, &tag) {
				return false
			}
			switch {
			case branch == 0 && tag == tagDNS.ContextSpecific():
				s.PermittedDNS = append(s.PermittedDNS, string(base))
			case branch == 1 && tag == tagIP.ContextSpecific():
				s.ExcludedIP = append(s.ExcludedIP, base)
			default:
				s.OtherSubtrees = true
			}
			s.OtherSubtrees = s.OtherSubtrees || !subtree.Empty() // minimum and maximum are not used
		}
	}
	return seq.Empty()
}

func (s *Subject) parsePolicy(list *cryptobyte.String) bool {
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	if !list.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) {
		return false
	}
	s.Policies = append(s.Policies, id)
	s.Qualifiers = s.Qualifiers || !seq.Empty()
	return true
}

func (s *Subject) parseAltName(list *cryptobyte.String) bool {
	var name cryptobyte.String
	var tag cbasn1.Tag
	if !list.ReadAnyASN1(&name, &tag) {
		return false
	}
	if tag != tagDNS.ContextSpecific() {
		s.OtherNames = true
		return true
	}
	s.DNS = append(s.DNS, string(name))
	return true
}

// parseDistributionPoint reads a point that has a full name and nothing else.
func parseDistributionPoint(list *cryptobyte.String, uris *[]string) bool {
	var point, name, full cryptobyte.String
	if !list.ReadASN1(&point, cbasn1.SEQUENCE) || !point.ReadASN1(&name, cbasn1.Tag(0).Constructed().ContextSpecific()) || !point.Empty() ||
		!name.ReadASN1(&full, cbasn1.Tag(0).Constructed().ContextSpecific()) || !name.Empty() {
		return false
	}
	for !full.Empty() {
		uri, ok := readURI(&full)
		if !ok {
			return false
		}
		*uris = append(*uris, uri)
	}
	return true
}

func (s *Subject) parseAccess(list *cryptobyte.String) bool {
	var seq cryptobyte.String
	var method asn1.ObjectIdentifier
	if !list.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&method) {
		return false
	}
	uri, ok := readURI(&seq)
	switch {
	case !ok || !seq.Empty():
		return false
	case method.Equal(oid.AccessOCSP):
		s.OCSP = append(s.OCSP, uri)
	case method.Equal(oid.AccessCAIssuers):
		s.Issuers = append(s.Issuers, uri)
	default:
		return false
	}
	return true
}

func readURI(in *cryptobyte.String) (string, bool) {
	var uri cryptobyte.String
	ok := in.ReadASN1(&uri, tagURI.ContextSpecific())
	return string(uri), ok
}
