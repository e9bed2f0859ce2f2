// Package oid names the object identifiers that Hufu writes and reads.
//
// It holds values and nothing else: no parsing, no look-up by name. Standard
// identifiers stand beside the document that assigns them. Hufu's own lie below
// the enterprise number that RFC 5612 sets aside for documentation, until an
// operator registers a number of its own.
package oid

import "encoding/asn1"

// Hufu's private arc and its branches.
var (
	Hufu = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}

	// Certificate policies.
	PolicyDevice  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 1}
	PolicyReader  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 2}
	PolicyCity    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 3}
	PolicyService = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 4}
	PolicyStaff   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 5}
	PolicyCA      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 6}
	PolicyCentre  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 7}

	// Extended key usages.
	EKUTransactionSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 2, 1}
	EKUScriptEncryption   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 2, 2}
	EKUCitySigning        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 2, 3}
	EKUCentreSigning      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 2, 4}

	// CMS content types.
	ContentLoadRequest    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 1}
	ContentLoadPermission = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 2}
	ContentLoadResult     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 3}
	ContentApproval       = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 4}
	ContentSealedScript   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 5}
	ContentTicket         = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 6}
	ContentEnrolment      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 7}
	ContentReceipt        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 8}
	ContentPrivateKey     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 3, 10} // PrivateKeyInfo, RFC 5208, as a token wraps it

	// Extensions in certificate requests. EncryptionKey carries the
	// SubjectPublicKeyInfo of the pair's encryption key, vouched for by the
	// signature of the signing key's request. TransportKey carries that of a
	// one-time key instead, to which the pair's encryption key is to be sealed.
	EncryptionKey = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 4, 1}
	TransportKey  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 4, 2}
)

// Dotted strings, where LDAP schema wants them. Attribute types and object
// classes are numbered below these two by the schema file itself.
const (
	HufuString           = "1.3.6.1.4.1.32473.1"
	LDAPAttributesString = "1.3.6.1.4.1.32473.1.5.1"
	LDAPClassesString    = "1.3.6.1.4.1.32473.1.5.2"
)

// LDAP schema arcs.
var (
	LDAPAttributes = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 5, 1}
	LDAPClasses    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 5, 2}
)

// Certificate and CRL extensions (RFC 5280, Section 4.2 and Section 5.2).
var (
	ExtSubjectDirectoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9}
	ExtSubjectKeyID               = asn1.ObjectIdentifier{2, 5, 29, 14}
	ExtKeyUsage                   = asn1.ObjectIdentifier{2, 5, 29, 15}
	ExtSubjectAltName             = asn1.ObjectIdentifier{2, 5, 29, 17}
	ExtIssuerAltName              = asn1.ObjectIdentifier{2, 5, 29, 18}
	ExtBasicConstraints           = asn1.ObjectIdentifier{2, 5, 29, 19}
	ExtCRLNumber                  = asn1.ObjectIdentifier{2, 5, 29, 20}
	ExtCRLReason                  = asn1.ObjectIdentifier{2, 5, 29, 21}
	ExtInvalidityDate             = asn1.ObjectIdentifier{2, 5, 29, 24}
	ExtDeltaCRLIndicator          = asn1.ObjectIdentifier{2, 5, 29, 27}
	ExtIssuingDistributionPoint   = asn1.ObjectIdentifier{2, 5, 29, 28}
	ExtCertificateIssuer          = asn1.ObjectIdentifier{2, 5, 29, 29}
	ExtNameConstraints            = asn1.ObjectIdentifier{2, 5, 29, 30}
	ExtCRLDistributionPoints      = asn1.ObjectIdentifier{2, 5, 29, 31}
	ExtCertificatePolicies        = asn1.ObjectIdentifier{2, 5, 29, 32}
	ExtAuthorityKeyID             = asn1.ObjectIdentifier{2, 5, 29, 35}
	ExtExtendedKeyUsage           = asn1.ObjectIdentifier{2, 5, 29, 37}
	ExtFreshestCRL                = asn1.ObjectIdentifier{2, 5, 29, 46}
	ExtAuthorityInfoAccess        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	ExtensionRequest              = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14} // RFC 2985, Section 5.4.2
)

// Access methods of authorityInfoAccess (RFC 5280, Section 4.2.2.1).
var (
	AccessOCSP      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	AccessCAIssuers = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
)

// Extended key usages (RFC 5280, Section 4.2.1.12).
var (
	EKUAny             = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	EKUServerAuth      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	EKUClientAuth      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	EKUCodeSigning     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	EKUEmailProtection = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
	EKUTimeStamping    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	EKUOCSPSigning     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
)

// OCSP (RFC 6960, Section 4).
var (
	OCSPBasic              = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	OCSPNonce              = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	OCSPCRL                = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 3}
	OCSPNoCheck            = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	OCSPArchiveCutoff      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6}
	OCSPPreferredSignature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 8}
	OCSPExtendedRevoke     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 9}
)

// Attribute types of distinguished names (RFC 5280, Appendix A.1; RFC 4519).
var (
	AttributeCommonName         = asn1.ObjectIdentifier{2, 5, 4, 3}
	AttributeSerialNumber       = asn1.ObjectIdentifier{2, 5, 4, 5}
	AttributeCountry            = asn1.ObjectIdentifier{2, 5, 4, 6}
	AttributeLocality           = asn1.ObjectIdentifier{2, 5, 4, 7}
	AttributeOrganization       = asn1.ObjectIdentifier{2, 5, 4, 10}
	AttributeOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
)

// Public key algorithms (RFC 5480, RFC 8017).
var (
	KeyEC         = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	KeyRSA        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	KeyRSAPSS     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	KeyRSAOAEP    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	CurveP224     = asn1.ObjectIdentifier{1, 3, 132, 0, 33}
	CurveP256     = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	CurveP384     = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	CurveP521     = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	CurveK256     = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	CurveSM2      = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}
	PSpecified    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 9}
	MaskMGF1      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	KeyEd25519    = asn1.ObjectIdentifier{1, 3, 101, 112}
	ECDHPublicKey = asn1.ObjectIdentifier{1, 3, 132, 1, 12} // id-ecDH, RFC 5480, Section 2.1.2
)

// Signature algorithms (RFC 5758, RFC 8017).
var (
	SignatureECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	SignatureECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	SignatureECDSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
	SignatureRSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	SignatureRSASHA384   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	SignatureRSASHA512   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
)

// Digests (RFC 5754).
var (
	DigestSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	DigestSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	DigestSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	DigestSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
)

// CMS content types and attributes (RFC 5652, RFC 5083, RFC 5035).
var (
	CMSData                 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	CMSSignedData           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	CMSEnvelopedData        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	CMSAuthEnvelopedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 23}
	CMSContentType          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	CMSMessageDigest        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	CMSSigningTime          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	CMSSigningCertificate   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	CMSSigningCertificateV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
)

// Content encryption and key wrap (RFC 5084, RFC 3565, RFC 5649).
var (
	AES128GCM     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 6}
	AES192GCM     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 26}
	AES256GCM     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}
	AES128Wrap    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 5}
	AES192Wrap    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 25}
	AES256Wrap    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 45}
	AES256WrapPad = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 48}
)

// Key agreement: standard ECDH with the X9.63 KDF (RFC 5753, Section 7.1.4).
var (
	ECDHStandardSHA1   = asn1.ObjectIdentifier{1, 3, 133, 16, 840, 63, 0, 2}
	ECDHStandardSHA224 = asn1.ObjectIdentifier{1, 3, 132, 1, 11, 0}
	ECDHStandardSHA256 = asn1.ObjectIdentifier{1, 3, 132, 1, 11, 1}
	ECDHStandardSHA384 = asn1.ObjectIdentifier{1, 3, 132, 1, 11, 2}
	ECDHStandardSHA512 = asn1.ObjectIdentifier{1, 3, 132, 1, 11, 3}
	ECDHCofactorSHA256 = asn1.ObjectIdentifier{1, 3, 132, 1, 14, 1}
)
