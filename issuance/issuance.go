// Package issuance makes certificates, CRLs and OCSP responses. It is the only
// package that signs them.
//
// A certificate is made in two steps. Prepare builds the part to be signed from
// our own record and a profile, completes it with a placeholder signature,
// reads the bytes back, judges them by package policy and returns a *Token.
// Issue signs exactly these bytes, once.
//
// The package refuses to sign a certificate that was not prepared, to sign with
// a token twice or with another issuer, to copy an extension out of a request,
// to certify beyond the issuer's own validity, and to hand out a signature that
// the CA's certificate does not verify.
//
// It follows RFC 5280 (certificates and CRLs), RFC 6960 (OCSP), RFC 2986
// (requests), RFC 5480, RFC 5758 and RFC 8017 (algorithms).
package issuance

import (
	"context"
	"crypto"
	"errors"
	"io"
	"iter"
	"time"

	"hufu/internal/crl"
	"hufu/internal/ocsp"
	"hufu/policy"
	"hufu/store"
)

var errNotBuilt = errors.New("not built")

// ErrSpent says that a token was used before, with or without success.
var ErrSpent = errors.New("the token was used before: prepare the certificate anew")

// ErrWrongIssuer says that a token was prepared by another issuer.
var ErrWrongIssuer = errors.New("the token was prepared by another issuer")

// Config is what an Issuer needs.
type Config struct {
	CA      store.CA
	Key     crypto.Signer // the key of the CA's certificate
	Domain  string        // names of readers and devices lie below it
	BaseURL string        // plain http address where OCSP, CRLs and issuers are served; "" = only for a CA that has none
	Now     func() time.Time
	Blocked *policy.KeyList // keys never to certify; nil = none known
}

// An Issuer is one generation of one CA with its key. It is safe for
// concurrent use as far as its key is.
type Issuer struct{}

// NewIssuer checks that the key is the one of the CA's certificate.
func NewIssuer(cfg Config) (*Issuer, error) { return nil, errNotBuilt }

// CA is the record that the issuer was made with.
func (i *Issuer) CA() store.CA { return store.CA{} }

// Certificate is the DER of the CA's certificate.
func (i *Issuer) Certificate() []byte { return nil }

// Domain is the domain that the issuer's names lie below.
func (i *Issuer) Domain() string { return "" }

// A Request is our record of what is to be certified.
type Request struct {
	Profile   string
	SPKI      []byte
	Name      policy.Name
	Serial    store.Serial
	NotBefore time.Time // zero = now, backdated by the profile
	NotAfter  time.Time // zero = by the profile, cut to the issuer's own end
	Shard     uint16    // which of the CA's CRLs the certificate would stand on
}

// Prepare builds and judges a certificate.
func (i *Issuer) Prepare(r Request) (*Token, error) { return nil, errNotBuilt }

// Issue signs what was prepared and returns the certificate.
func (i *Issuer) Issue(ctx context.Context, t *Token) ([]byte, error) { return nil, errNotBuilt }

// A CARequest is our record of a working CA that the root is to certify.
type CARequest struct {
	ID         string // "330100", "330100.2": its subject and its addresses are made from it
	Kind       string // policy.KindDevice and so on
	City       string // for a city CA
	CSR        []byte // PKCS#10, for the proof of possession; nothing else of it is used
	CommonName string // "" = made from the organisation and the ID
	Serial     store.Serial
	NotBefore  time.Time
	NotAfter   time.Time
}

// PrepareCA builds and judges the certificate of a working CA. Only a root can.
func (i *Issuer) PrepareCA(r CARequest) (*Token, error) { return nil, errNotBuilt }

// A RootRequest is our record of a root.
type RootRequest struct {
	Country      string // two letters
	Organisation string
	CommonName   string
	Serial       store.Serial
	NotBefore    time.Time
	NotAfter     time.Time // zero = by the profile
	Domain       string
}

// PrepareRoot builds and judges a self-signed certificate of key.
func PrepareRoot(key crypto.Signer, r RootRequest) (*Token, error) { return nil, errNotBuilt }

// SelfSign signs what PrepareRoot prepared and returns the certificate.
func SelfSign(ctx context.Context, t *Token) ([]byte, error) { return nil, errNotBuilt }

// A Token is a certificate that was judged and may be signed once.
type Token struct{}

// TBSHash is the SHA-256 of the bytes to be signed.
func (t *Token) TBSHash() store.Hash { return store.Hash{} }

// Serial is the certificate's serial number.
func (t *Token) Serial() store.Serial { return store.Serial{} }

// Record is the certificate's record as far as it is known: without DER,
// Requester, Line and Seq.
func (t *Token) Record() store.Certificate { return store.Certificate{} }

// NewSerial makes a serial number: octet 01 and 16 octets read from rand.
func NewSerial(rand io.Reader) (store.Serial, error) { return store.Serial{}, errNotBuilt }

// A CSR is a certification request whose proof of possession was checked.
type CSR struct {
	SPKI       []byte // DER of the SubjectPublicKeyInfo
	Extensions map[string][]byte
}

// ParseCSR reads a PKCS#10 request: size first, then the key's own size, then
// the signature.
func ParseCSR(der []byte) (*CSR, error) { return nil, errNotBuilt }

// SignCRL writes a list that the CA signs. The template's Algorithm, Issuer and
// AuthorityKeyID are filled in.
func (i *Issuer) SignCRL(ctx context.Context, t crl.Template, entries iter.Seq2[crl.Entry, error], w io.Writer) error {
	return errNotBuilt
}

// SignOCSP signs a response with the CA's own key.
func (i *Issuer) SignOCSP(ctx context.Context, d ocsp.ResponseData) ([]byte, error) {
	return nil, errNotBuilt
}

// A Responder signs OCSP responses with a key that the CA certified for it by
// profile "ocsp".
type Responder struct{}

// ResponderConfig is what a Responder needs.
type ResponderConfig struct {
	Issuer      []byte // DER of the CA's certificate
	Certificate []byte // DER of the responder's own
	Key         crypto.Signer
}

// NewResponder checks that the certificate is one of that CA, for that purpose
// and that key.
func NewResponder(cfg ResponderConfig) (*Responder, error) { return nil, errNotBuilt }

// Certificate is the DER of the responder's certificate.
func (r *Responder) Certificate() []byte { return nil }

// NotAfter is when the responder's certificate ends.
func (r *Responder) NotAfter() time.Time { return time.Time{} }

// SignOCSP signs a response; the responder's certificate travels with it.
func (r *Responder) SignOCSP(ctx context.Context, d ocsp.ResponseData) ([]byte, error) {
	return nil, errNotBuilt
}
