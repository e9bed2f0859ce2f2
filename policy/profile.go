package policy

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"hufu/internal/oid"
)

// A KeyKind is an algorithm together with its size.
type KeyKind string

// The kinds of keys that Hufu certifies.
const (
	P256    KeyKind = "P-256"
	P384    KeyKind = "P-384"
	RSA2048 KeyKind = "RSA-2048"
	RSA3072 KeyKind = "RSA-3072"
	RSA4096 KeyKind = "RSA-4096"
)

// RSA reports whether the key is an RSA key.
func (k KeyKind) RSA() bool { return k == RSA2048 || k == RSA3072 || k == RSA4096 }

// The kinds of CAs.
const (
	KindRoot     = "root"
	KindDevice   = "device"
	KindCity     = "city"
	KindServices = "services"
	KindStaff    = "staff"
)

// A Kind says what a CA's own certificate is limited to. The lists hold
// everything that the certificates below may claim, since both extended key
// usages and policies narrow from the top to the bottom of a chain
// (RFC 5280, Section 6.1). OCSPSigning is never among them: a CA that carries it
// could answer for its issuer.
type Kind struct {
	Name     string
	EKU      []asn1.ObjectIdentifier
	Policies []asn1.ObjectIdentifier
	Fenced   bool // nameConstraints keep it below its city
}

// Kinds lists the working CAs.
var Kinds = []Kind{
	{
		Name:     KindDevice,
		EKU:      []asn1.ObjectIdentifier{oid.EKUClientAuth, oid.EKUCentreSigning},
		Policies: []asn1.ObjectIdentifier{oid.PolicyDevice, oid.PolicyCentre, oid.PolicyCA},
	},
	{
		Name:     KindCity,
		EKU:      []asn1.ObjectIdentifier{oid.EKUClientAuth, oid.EKUTransactionSigning, oid.EKUScriptEncryption, oid.EKUCitySigning},
		Policies: []asn1.ObjectIdentifier{oid.PolicyReader, oid.PolicyCity, oid.PolicyCA},
		Fenced:   true,
	},
	{
		Name:     KindServices,
		EKU:      []asn1.ObjectIdentifier{oid.EKUServerAuth, oid.EKUClientAuth},
		Policies: []asn1.ObjectIdentifier{oid.PolicyService, oid.PolicyCA},
	},
	{
		Name:     KindStaff,
		EKU:      []asn1.ObjectIdentifier{oid.EKUClientAuth, oid.EKUEmailProtection},
		Policies: []asn1.ObjectIdentifier{oid.PolicyStaff, oid.PolicyCA},
	},
}

// FindKind returns the kind of working CA of that name.
func FindKind(name string) (*Kind, error) {
	for i := range Kinds {
		if Kinds[i].Name == name {
			return &Kinds[i], nil
		}
	}
	return nil, fmt.Errorf("there is no kind of working CA named %q: use device, city, services or staff", name)
}

// A Profile is what one sort of certificate looks like and who may ask for it.
type Profile struct {
	Name        string
	KeyUsage    x509.KeyUsage
	KeyUsageRSA x509.KeyUsage // where an RSA key is used otherwise; 0 = as KeyUsage
	EKU         []asn1.ObjectIdentifier
	Policy      asn1.ObjectIdentifier // nil for the root; a working CA's come from its kind
	Validity    time.Duration
	Backdate    time.Duration // how far notBefore lies before the present, for clocks that are slow
	CA          bool
	PathLen     int // -1 = no limit, only in a CA
	Form        NameForm
	Keys        []KeyKind
	Kinds       []string // kinds of CAs that may issue it
	Ask         []Role   // who may ask for it
	Approvals   int      // how many others must approve
	NoCheck     bool     // carries id-pkix-ocsp-nocheck
}

const day = 24 * time.Hour

var (
	anyKey = []KeyKind{P256, P384, RSA2048, RSA3072, RSA4096}
	caKey  = []KeyKind{P256, P384, RSA3072, RSA4096}
)

// Profiles lists every sort of certificate that Hufu issues.
var Profiles = []Profile{
	{
		Name: "root", KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Validity: 7300 * day,
		CA: true, PathLen: -1, Form: FormRoot, Keys: caKey, Kinds: []string{KindRoot},
		Ask: []Role{RootOfficer}, Approvals: 1,
	},
	{
		Name: "working-ca", KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Validity: 3650 * day,
		CA: true, Form: FormCA, Keys: caKey, Kinds: []string{KindRoot},
		Ask: []Role{RootOfficer}, Approvals: 1,
	},
	{
		Name: "device", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUClientAuth},
		Policy: oid.PolicyDevice, Validity: 3650 * day, Backdate: 5 * time.Minute,
		Form: FormDevice, Keys: anyKey, Kinds: []string{KindDevice}, Ask: []Role{CAOperator},
	},
	{
		Name: "centre-sign", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUCentreSigning},
		Policy: oid.PolicyCentre, Validity: 730 * day, Backdate: 5 * time.Minute,
		Form: FormCentre, Keys: anyKey, Kinds: []string{KindDevice}, Ask: []Role{CAOperator}, Approvals: 1,
	},
	{
		Name: "reader-sign", KeyUsage: x509.KeyUsageDigitalSignature,
		EKU:    []asn1.ObjectIdentifier{oid.EKUClientAuth, oid.EKUTransactionSigning},
		Policy: oid.PolicyReader, Validity: 1825 * day, Backdate: 5 * time.Minute,
		Form: FormReader, Keys: anyKey, Kinds: []string{KindCity}, Ask: []Role{CAOperator, CityOperator},
	},
	{
		// RFC 8813, Section 3: an EC key that agrees on keys does not encipher them.
		Name: "reader-encrypt", KeyUsage: x509.KeyUsageKeyAgreement, KeyUsageRSA: x509.KeyUsageKeyEncipherment,
		EKU:    []asn1.ObjectIdentifier{oid.EKUScriptEncryption},
		Policy: oid.PolicyReader, Validity: 1825 * day, Backdate: 5 * time.Minute,
		Form: FormReader, Keys: anyKey, Kinds: []string{KindCity}, Ask: []Role{CAOperator, CityOperator},
	},
	{
		Name: "city-sign", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUCitySigning},
		Policy: oid.PolicyCity, Validity: 730 * day, Backdate: 5 * time.Minute,
		Form: FormCity, Keys: anyKey, Kinds: []string{KindCity}, Ask: []Role{CAOperator, CityOperator}, Approvals: 1,
	},
	{
		// RSA key transport is not offered in TLS 1.3, so an RSA key signs too.
		Name: "server", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUServerAuth},
		Policy: oid.PolicyService, Validity: 90 * day, Backdate: 5 * time.Minute,
		Form: FormServer, Keys: anyKey, Kinds: []string{KindServices}, Ask: []Role{CAAdmin, CAOperator},
	},
	{
		Name: "client", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUClientAuth},
		Policy: oid.PolicyService, Validity: 365 * day, Backdate: 5 * time.Minute,
		Form: FormClient, Keys: anyKey, Kinds: []string{KindServices}, Ask: []Role{CAAdmin, CAOperator},
	},
	{
		// emailProtection lets stock CMS tools check an approval's signature.
		Name: "operator", KeyUsage: x509.KeyUsageDigitalSignature,
		EKU:    []asn1.ObjectIdentifier{oid.EKUClientAuth, oid.EKUEmailProtection},
		Policy: oid.PolicyStaff, Validity: 365 * day, Backdate: 5 * time.Minute,
		Form: FormPerson, Keys: anyKey, Kinds: []string{KindStaff}, Ask: []Role{CAAdmin},
	},
	{
		// Whom a recovered key is sealed to. It signs nothing and opens no door.
		Name: "recipient", KeyUsage: x509.KeyUsageKeyAgreement, KeyUsageRSA: x509.KeyUsageKeyEncipherment,
		EKU:    []asn1.ObjectIdentifier{oid.EKUEmailProtection},
		Policy: oid.PolicyStaff, Validity: 365 * day, Backdate: 5 * time.Minute,
		Form: FormPerson, Keys: anyKey, Kinds: []string{KindStaff}, Ask: []Role{CAAdmin}, Approvals: 1,
	},
	{
		Name: "ocsp", KeyUsage: x509.KeyUsageDigitalSignature, EKU: []asn1.ObjectIdentifier{oid.EKUOCSPSigning},
		Policy: oid.PolicyCA, Validity: 7 * day, Backdate: 5 * time.Minute,
		Form: FormResponder, Keys: anyKey, Kinds: []string{KindDevice, KindCity, KindServices, KindStaff},
		Ask: []Role{CAOperator}, NoCheck: true,
	},
}

// Find returns the profile of that name.
func Find(name string) (*Profile, error) {
	for i := range Profiles {
		if Profiles[i].Name == name {
			return &Profiles[i], nil
		}
	}
	return nil, fmt.Errorf("there is no profile named %q", name)
}

// Usage is the key usage of a certificate of this profile over a key of that kind.
func (p *Profile) Usage(k KeyKind) x509.KeyUsage {
	if k.RSA() && p.KeyUsageRSA != 0 {
		return p.KeyUsageRSA
	}
	return p.KeyUsage
}
