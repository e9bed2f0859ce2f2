package issuance

import (
	"crypto/x509"
	"encoding/asn1"
	"math/bits"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
	"hufu/policy"
	"hufu/store"
)

// A tbs is everything that the part to be signed says, except what is the
// issuer's.
type tbs struct {
	profile   *policy.Profile
	kind      *policy.Kind // of a working CA that is certified
	city      string       // of a city CA that is certified
	serial    store.Serial
	notBefore time.Time
	notAfter  time.Time
	subject   []byte // DER of the Name
	spki      []byte
	dns       []string
	shard     uint16
}

// assemble completes a certificate.
func assemble(tbs, algorithm, signature []byte) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(algorithm)+len(signature)+16))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic()
}

// encode writes the TBSCertificate (RFC 5280, Section 4.1).
func (i *Issuer) encode(t *tbs) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(t.serial[:]) })
		b.AddBytes(i.algorithm.id)
		b.AddBytes(i.facts.Name)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.notBefore)
			addTime(b, t.notAfter)
		})
		b.AddBytes(t.subject)
		b.AddBytes(t.spki)
		b.AddASN1(cbasn1.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { i.addExtensions(b, t) })
		})
	})
	return b.Bytes()
}

// addTime writes UTCTime up to 2049 and GeneralizedTime afterwards (RFC 5280,
// Section 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Year() >= 2050 {
		b.AddASN1GeneralizedTime(t)
		return
	}
	b.AddASN1UTCTime(t)
}

// addExtensions writes the extensions in the order that policy wants.
func (i *Issuer) addExtensions(b *cryptobyte.Builder, t *tbs) {
	kind, bits, err := policy.KeyOf(t.spki)
	if err != nil {
		b.SetError(err)
		return
	}
	issued := t.profile.Form != policy.FormRoot
	if issued {
		addExtension(b, oid.ExtAuthorityKeyID, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.1
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addTagged(b, 0, i.facts.KeyID) })
		})
	}
	addExtension(b, oid.ExtSubjectKeyID, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.2
		id := policy.KeyID(bits)
		b.AddASN1OctetString(id[:])
	})
	addExtension(b, oid.ExtKeyUsage, true, func(b *cryptobyte.Builder) { addKeyUsage(b, t.profile.Usage(kind)) })
	if eku := t.eku(); len(eku) > 0 {
		addExtension(b, oid.ExtExtendedKeyUsage, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.12
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range eku {
					b.AddASN1ObjectIdentifier(id)
				}
			})
		})
	}
	addExtension(b, oid.ExtBasicConstraints, true, func(b *cryptobyte.Builder) { addBasicConstraints(b, t.profile) })
	if t.kind != nil && t.kind.Fenced {
		addExtension(b, oid.ExtNameConstraints, true, func(b *cryptobyte.Builder) {
			addNameConstraints(b, policy.CityDomain(t.city, i.facts.Domain))
		})
	}
	if policies := t.policies(); issued {
		addExtension(b, oid.ExtCertificatePolicies, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.4
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range policies {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) })
				}
			})
		})
	}
	if len(t.dns) > 0 {
		addExtension(b, oid.ExtSubjectAltName, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.6
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, name := range t.dns {
					addTagged(b, 2, []byte(name))
				}
			})
		})
	}
	if issued {
		i.addAddresses(b, t)
	}
	if t.profile.NoCheck {
		addExtension(b, oid.OCSPNoCheck, false, func(b *cryptobyte.Builder) { b.AddASN1NULL() }) // RFC 6960, Section 4.2.2.2.1
	}
}

func (t *tbs) eku() []asn1.ObjectIdentifier {
	if t.kind != nil {
		return t.kind.EKU
	}
	return t.profile.EKU
}

func (t *tbs) policies() []asn1.ObjectIdentifier {
	if t.kind != nil {
		return t.kind.Policies
	}
	return []asn1.ObjectIdentifier{t.profile.Policy}
}

func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

func addTagged(b *cryptobyte.Builder, tag cbasn1.Tag, value []byte) {
	b.AddASN1(tag.ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
}

// addKeyUsage writes a BIT STRING without trailing zeros (RFC 5280, Section
// 4.2.1.3). No profile has decipherOnly, the one bit of the second octet.
func addKeyUsage(b *cryptobyte.Builder, usage x509.KeyUsage) {
	octet := bits.Reverse8(uint8(usage))
	unused := uint8(bits.TrailingZeros8(octet))
	b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
		b.AddUint8(unused)
		b.AddUint8(octet)
	})
}

// addBasicConstraints writes an empty SEQUENCE where there is no CA, which says
// so to verifiers that take silence for consent (RFC 5280, Section 4.2.1.9).
func addBasicConstraints(b *cryptobyte.Builder, p *policy.Profile) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if !p.CA {
			return
		}
		b.AddASN1Boolean(true)
		if p.PathLen >= 0 {
			b.AddASN1Int64(int64(p.PathLen))
		}
	})
}

// addNameConstraints fences a CA to one domain and to no address at all
// (RFC 5280, Section 4.2.1.10).
func addNameConstraints(b *cryptobyte.Builder, domain string) {
	subtree := func(b *cryptobyte.Builder, tag cbasn1.Tag, base []byte) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addTagged(b, tag, base) })
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			subtree(b, 2, []byte(domain))
		})
		b.AddASN1(cbasn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			subtree(b, 7, make([]byte, 8))  // 0.0.0.0/0, address and mask
			subtree(b, 7, make([]byte, 32)) // ::/0
		})
	})
}

// addAddresses writes where status and issuer are to be had. The root is
// offline, so that no OCSP answers for the working CAs.
func (i *Issuer) addAddresses(b *cryptobyte.Builder, t *tbs) {
	addExtension(b, oid.ExtCRLDistributionPoints, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.1.13
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
						addTagged(b, 6, []byte(i.CRLAddress(t.shard)))
					})
				})
			})
		})
	})
	access := func(b *cryptobyte.Builder, method asn1.ObjectIdentifier, address string) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(method)
			addTagged(b, 6, []byte(address))
		})
	}
	addExtension(b, oid.ExtAuthorityInfoAccess, false, func(b *cryptobyte.Builder) { // RFC 5280, Section 4.2.2.1
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if !t.profile.CA {
				access(b, oid.AccessOCSP, i.OCSPAddress())
			}
			access(b, oid.AccessCAIssuers, i.baseURL+"/issuer/"+i.ca.ID+".cer")
		})
	})
}

// CRLAddress is where the CRL of a shard is served. Shard 0 is the list of a CA
// that has one.
func (i *Issuer) CRLAddress(shard uint16) string {
	name := i.ca.ID
	if shard > 0 {
		name += "-" + strconv.Itoa(int(shard))
	}
	return i.baseURL + "/crl/" + name + ".crl"
}

// OCSPAddress is where OCSP answers for this CA.
func (i *Issuer) OCSPAddress() string { return i.baseURL + "/ocsp/" + i.ca.ID }
