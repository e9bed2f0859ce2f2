package issuance

import (
	"crypto/x509"
	"encoding/asn1"
	"math/bits"
	"strconv"
	"time"

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
	e := &encoder{make([]byte, 0, len(tbs)+len(algorithm)+len(signature)+16)}
	e.sequence(func() {
		e.raw(tbs)
		e.raw(algorithm)
		e.bitString(signature)
	})
	return e.der
}

// encode writes the TBSCertificate (RFC 5280, Section 4.1).
func (i *Issuer) encode(t *tbs) ([]byte, error) {
	kind, key, err := policy.KeyOf(t.spki)
	if err != nil {
		return nil, err
	}
	e := &encoder{make([]byte, 0, 1024)}
	e.sequence(func() {
		e.explicit(0, func() { e.small(2) }) // v3
		e.value(cbasn1.INTEGER, t.serial[:])
		e.raw(i.algorithm.id)
		e.raw(i.facts.Name)
		e.sequence(func() {
			e.time(t.notBefore)
			e.time(t.notAfter)
		})
		e.raw(t.subject)
		e.raw(t.spki)
		e.explicit(3, func() {
			e.sequence(func() {
				i.addKeyExtensions(e, t, kind, key)
				i.addNameExtensions(e, t)
				if t.profile.Form != policy.FormRoot {
					i.addAddresses(e, t)
				}
				if t.profile.NoCheck {
					e.extension(oid.OCSPNoCheck, false, e.null) // RFC 6960, Section 4.2.2.2.1
				}
			})
		})
	})
	return e.der, nil
}

// extension writes an Extension (RFC 5280, Section 4.2). The order of the calls
// is the one that the policy wants.
func (e *encoder) extension(id asn1.ObjectIdentifier, critical bool, value func()) {
	e.sequence(func() {
		e.oid(id)
		if critical {
			e.yes()
		}
		e.element(cbasn1.OCTET_STRING, value)
	})
}

// addKeyExtensions writes whose key it is and what it may be used for.
func (i *Issuer) addKeyExtensions(e *encoder, t *tbs, kind policy.KeyKind, key []byte) {
	if t.profile.Form != policy.FormRoot {
		e.extension(oid.ExtAuthorityKeyID, false, func() { // RFC 5280, Section 4.2.1.1
			e.sequence(func() { e.value(cbasn1.Tag(0).ContextSpecific(), i.facts.KeyID) })
		})
	}
	e.extension(oid.ExtSubjectKeyID, false, func() { // RFC 5280, Section 4.2.1.2
		id := policy.KeyID(key)
		e.value(cbasn1.OCTET_STRING, id[:])
	})
	e.extension(oid.ExtKeyUsage, true, func() { e.keyUsage(t.profile.Usage(kind)) })
	usages := t.profile.EKU
	if t.kind != nil {
		usages = t.kind.EKU
	}
	if len(usages) > 0 {
		e.extension(oid.ExtExtendedKeyUsage, false, func() { // RFC 5280, Section 4.2.1.12
			e.sequence(func() {
				for _, id := range usages {
					e.oid(id)
				}
			})
		})
	}
	e.extension(oid.ExtBasicConstraints, true, func() { e.basicConstraints(t.profile) })
}

// keyUsage writes a BIT STRING without trailing zeros (RFC 5280, Section
// 4.2.1.3). No profile has decipherOnly, the one bit of the second octet.
func (e *encoder) keyUsage(usage x509.KeyUsage) {
	octet := bits.Reverse8(uint8(usage))
	e.value(cbasn1.BIT_STRING, []byte{uint8(bits.TrailingZeros8(octet)), octet})
}

// basicConstraints writes an empty SEQUENCE where there is no CA, which says so
// to verifiers that take silence for consent (RFC 5280, Section 4.2.1.9).
func (e *encoder) basicConstraints(p *policy.Profile) {
	e.sequence(func() {
		if p.CA {
			e.yes()
		}
		if p.CA && p.PathLen >= 0 {
			e.small(uint8(p.PathLen))
		}
	})
}

// addNameExtensions writes what the subject is called, or may call others, and
// by which policy.
func (i *Issuer) addNameExtensions(e *encoder, t *tbs) {
	if t.kind != nil && t.kind.Fenced {
		e.extension(oid.ExtNameConstraints, true, func() { e.nameConstraints(policy.CityDomain(t.city, i.facts.Domain)) })
	}
	policies := []asn1.ObjectIdentifier{t.profile.Policy}
	if t.kind != nil {
		policies = t.kind.Policies
	}
	if t.profile.Form != policy.FormRoot {
		e.extension(oid.ExtCertificatePolicies, false, func() { // RFC 5280, Section 4.2.1.4
			e.sequence(func() {
				for _, id := range policies {
					e.sequence(func() { e.oid(id) })
				}
			})
		})
	}
	if len(t.dns) > 0 {
		e.extension(oid.ExtSubjectAltName, false, func() { // RFC 5280, Section 4.2.1.6
			e.sequence(func() {
				for _, name := range t.dns {
					e.implicit(2, name)
				}
			})
		})
	}
}

// nameConstraints fences a CA to one domain and to no address at all (RFC 5280,
// Section 4.2.1.10).
func (e *encoder) nameConstraints(domain string) {
	e.sequence(func() {
		e.explicit(0, func() {
			e.sequence(func() { e.implicit(2, domain) })
		})
		e.explicit(1, func() {
			e.sequence(func() { e.implicit(7, string(make([]byte, 8))) })  // 0.0.0.0/0, address and mask
			e.sequence(func() { e.implicit(7, string(make([]byte, 32))) }) // ::/0
		})
	})
}

// addAddresses writes where status and issuer are to be had. The root is
// offline, so that no OCSP answers for the working CAs.
func (i *Issuer) addAddresses(e *encoder, t *tbs) {
	e.extension(oid.ExtCRLDistributionPoints, false, func() { e.point(i.CRLAddress(t.shard)) }) // RFC 5280, Section 4.2.1.13
	if i.deltas && !t.profile.CA {
		e.extension(oid.ExtFreshestCRL, false, func() { e.point(i.DeltaAddress(t.shard)) }) // RFC 5280, Section 4.2.1.15
	}
	e.extension(oid.ExtAuthorityInfoAccess, false, func() { // RFC 5280, Section 4.2.2.1
		e.sequence(func() {
			if !t.profile.CA {
				e.access(oid.AccessOCSP, i.OCSPAddress())
			}
			e.access(oid.AccessCAIssuers, i.baseURL+"/issuer/"+i.ca.ID+".cer")
		})
	})
}

// point writes CRLDistributionPoints with one point that has one address.
func (e *encoder) point(address string) {
	e.sequence(func() {
		e.sequence(func() {
			e.explicit(0, func() {
				e.explicit(0, func() { e.implicit(6, address) })
			})
		})
	})
}

func (e *encoder) access(method asn1.ObjectIdentifier, address string) {
	e.sequence(func() {
		e.oid(method)
		e.implicit(6, address)
	})
}

// CRLAddress is where the CRL of a shard is served. Shard 0 is the list of the
// whole CA.
func (i *Issuer) CRLAddress(shard uint16) string { return i.ListAddress(i.ca.ID, shard, false) }

// DeltaAddress is where the delta CRL to that list is served.
func (i *Issuer) DeltaAddress(shard uint16) string { return i.ListAddress(i.ca.ID, shard, true) }

// ListAddress is where a list of any CA of the same book is served.
func (i *Issuer) ListAddress(caID string, shard uint16, delta bool) string {
	address := i.baseURL + "/crl/" + caID
	if shard > 0 {
		address += "/" + strconv.Itoa(int(shard))
	}
	if delta {
		address += ".delta"
	}
	return address + ".crl"
}

// OCSPAddress is where OCSP answers for this CA.
func (i *Issuer) OCSPAddress() string { return i.baseURL + "/ocsp/" + i.ca.ID }
