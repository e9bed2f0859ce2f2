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
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"hufu/internal/ocsp"
	"hufu/policy"
	"hufu/store"
)

// ErrSpent says that a token was used before, with or without success.
var ErrSpent = errors.New("the token was used before: prepare the certificate anew")

// ErrWrongIssuer says that a token was prepared by another issuer.
var ErrWrongIssuer = errors.New("the token was prepared by another issuer")

// Config is what an Issuer needs.
type Config struct {
	CA      store.CA
	Key     crypto.Signer // the key of the CA's certificate
	Domain  string        // names of readers and devices lie below it
	BaseURL string        // plain http address below which OCSP, CRLs and issuers are served
	Now     func() time.Time
	Blocked *policy.KeyList // keys never to certify; nil = none known

	Shards uint16 // new certificates are spread over so many CRLs; 0 = all stand on that of the whole CA
	Deltas bool   // the CA publishes delta CRLs, and its certificates and full CRLs say where
}

// An Issuer is one generation of one CA with its key. It is safe for
// concurrent use as far as its key is.
type Issuer struct {
	signer
	ca      store.CA
	facts   policy.Issuer
	stem    stem
	keyHash []byte // by which the CA names itself in OCSP responses
	baseURL string
	now     func() time.Time
	blocked *policy.KeyList
	shards  uint16
	deltas  bool
}

// caID is what a CA's ID may look like: it stands in addresses and in names.
var caID = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,31}$`)

// NewIssuer checks that the configuration fits the CA's certificate.
func NewIssuer(cfg Config) (*Issuer, error) {
	wrap := func(err error) error { return fmt.Errorf("setting up the issuer of CA %q: %w", cfg.CA.ID, err) }
	if !caID.MatchString(cfg.CA.ID) {
		return nil, wrap(errors.New("an ID has 1 to 32 lower-case letters, digits, dots and hyphens"))
	}
	if strings.HasSuffix(cfg.CA.ID, ".delta") {
		return nil, wrap(errors.New("the address of its CRL would be that of another CA's delta: choose an ID that does not end with .delta"))
	}
	certificate, err := x509.ParseCertificate(cfg.CA.Certificate)
	if err != nil {
		return nil, wrap(err)
	}
	s, err := newSigner(cfg.Key, certificate.PublicKey)
	if err != nil {
		return nil, wrap(err)
	}
	subject, err := policy.Parse(cfg.CA.Certificate, nil, nil)
	if err != nil {
		return nil, wrap(err)
	}
	i := &Issuer{signer: *s, ca: cfg.CA, baseURL: cfg.BaseURL, now: cfg.Now, blocked: cfg.Blocked, shards: cfg.Shards, deltas: cfg.Deltas}
	if i.now == nil {
		i.now = time.Now
	}
	i.facts = policy.Issuer{
		Context: policy.Context{ID: cfg.CA.ID, Kind: cfg.CA.Kind, City: cfg.CA.City, Domain: cfg.Domain},
		Name:    subject.RawSubject, KeyID: subject.SubjectKeyID, Algorithm: s.algorithm.id,
		NotBefore: subject.NotBefore.Time, NotAfter: subject.NotAfter.Time,
	}
	if len(subject.PermittedDNS) == 1 {
		i.facts.PermittedDNS = subject.PermittedDNS[0]
	}
	i.stem = newStem(subject.Attributes)
	if i.keyHash, err = ocsp.KeyHash(cfg.CA.Certificate); err != nil {
		return nil, wrap(err)
	}
	if err := i.check(subject); err != nil {
		return nil, wrap(err)
	}
	return i, nil
}

// check holds the record and the configuration against the CA's certificate.
func (i *Issuer) check(subject *policy.Subject) error {
	if !subject.CA {
		return errors.New("the certificate is not a CA's")
	}
	if i.ca.SPKI != (store.Hash{}) && i.ca.SPKI != store.Sum(subject.SPKI) {
		return errors.New("the record names another key than the certificate")
	}
	if err := policy.ValidDomain(i.facts.Domain); err != nil {
		return err
	}
	if u, err := url.Parse(i.baseURL); err != nil || u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("base URL %q is not a plain http address", i.baseURL)
	}
	if want := policy.CityDomain(i.ca.City, i.facts.Domain); i.ca.Kind == policy.KindCity && i.facts.PermittedDNS != want {
		return fmt.Errorf("the certificate is fenced to %q, the configuration says %q: is the domain right?", i.facts.PermittedDNS, want)
	}
	return nil
}

// CA is the record that the issuer was made with.
func (i *Issuer) CA() store.CA { return i.ca }

// Certificate is the DER of the CA's certificate.
func (i *Issuer) Certificate() []byte { return i.ca.Certificate }

// Domain is the domain that the issuer's names lie below.
func (i *Issuer) Domain() string { return i.facts.Domain }

// Shards is how many shards new certificates are spread over.
func (i *Issuer) Shards() uint16 { return i.shards }

// Deltas says whether the CA publishes delta CRLs.
func (i *Issuer) Deltas() bool { return i.deltas }

// Shard is the shard that a new certificate with this serial number belongs to,
// and stays in however many shards there will be: 0 where there are none.
func (i *Issuer) Shard(serial store.Serial) uint16 {
	if i.shards == 0 {
		return 0
	}
	return 1 + uint16(binary.BigEndian.Uint32(serial[len(serial)-4:])%uint32(i.shards))
}

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

// Prepare builds and judges a certificate. What the policy refuses is a
// *policy.Violation.
func (i *Issuer) Prepare(r Request) (*Token, error) {
	profile, err := policy.Find(r.Profile)
	if err != nil {
		return nil, err
	}
	if profile.CA {
		return nil, &policy.Violation{Rule: "ca-profile", Citation: "RFC 5280, Section 4.2.1.9",
			Detail: fmt.Sprintf("profile %s makes CAs: only a root ceremony issues it", r.Profile)}
	}
	if err := policy.CheckKey(r.SPKI, profile, i.blocked); err != nil {
		return nil, err
	}
	attributes, dns, err := profile.Form.Names(r.Name, i.facts.Context)
	if err != nil {
		return nil, err
	}
	t := tbs{
		profile: profile, serial: r.Serial, spki: r.SPKI, dns: dns, shard: r.Shard,
		subject: i.stem.with(attributes),
	}
	t.notBefore, t.notAfter = i.validity(profile, r.NotBefore, r.NotAfter)
	token, err := i.finish(&t)
	if err != nil {
		return nil, err
	}
	token.record.Reader, token.record.City = r.Name.Reader, r.Name.City
	if i.ca.City != "" {
		token.record.City = i.ca.City
	}
	return token, nil
}

// validity fills in what the request leaves open. An end that the request names
// itself is not cut: the policy refuses it where it is too late.
func (i *Issuer) validity(p *policy.Profile, from, to time.Time) (notBefore, notAfter time.Time) {
	begin := from
	if from.IsZero() {
		begin = i.now()
		from = begin.Add(-p.Backdate)
		if from.Before(i.facts.NotBefore) {
			from = i.facts.NotBefore
		}
	}
	if to.IsZero() {
		to = begin.Add(p.Validity)
		if end := i.facts.NotAfter; !end.IsZero() && to.After(end) {
			to = end
		}
	}
	return from.UTC().Truncate(time.Second), to.UTC().Truncate(time.Second)
}

// finish encodes t, completes it with the placeholder, and judges the bytes that
// will exist. Only here tokens are made.
func (i *Issuer) finish(t *tbs) (*Token, error) {
	raw, err := i.encode(t)
	if err != nil {
		return nil, fmt.Errorf("encoding a certificate: %w", err)
	}
	der := assemble(raw, i.algorithm.id, i.algorithm.placeholder)
	subject, err := policy.Parse(der, t.profile, &i.facts)
	if err != nil {
		return nil, err
	}
	subject.Kind, subject.City = t.kind, t.city
	if err := policy.Judge(policy.Rules, subject); err != nil {
		return nil, err
	}
	// A second reader, written by others, has to agree that this is a certificate.
	if _, err := x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("reading a certificate back: %w", err)
	}
	return &Token{issuer: i, tbs: raw, hash: store.Sum(raw), record: store.Certificate{
		CA: i.ca.ID, Serial: t.serial, Profile: t.profile.Name, Subject: subjectText(subject.Attributes),
		Names: t.dns, SPKI: store.Sum(t.spki), NotBefore: t.notBefore, NotAfter: t.notAfter, Shard: t.shard,
	}}, nil
}

// Issue signs what was prepared and returns the certificate. Whatever comes of
// it, the token is spent: a signature that got lost may still exist.
func (i *Issuer) Issue(ctx context.Context, t *Token) ([]byte, error) {
	if t.issuer != i {
		return nil, ErrWrongIssuer
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !t.spent.CompareAndSwap(false, true) {
		return nil, ErrSpent
	}
	signature, err := i.sign(i.algorithm.digest(t.tbs))
	if err != nil {
		return nil, fmt.Errorf("signing certificate %s by CA %q: %w", t.record.Serial, i.ca.ID, err)
	}
	return assemble(t.tbs, i.algorithm.id, signature), nil
}

// A Token is a certificate that was judged and may be signed once.
type Token struct {
	issuer *Issuer
	tbs    []byte
	hash   store.Hash
	record store.Certificate
	self   bool // of a root: its own key signs
	spent  atomic.Bool
}

// TBSHash is the SHA-256 of the bytes to be signed.
func (t *Token) TBSHash() store.Hash { return t.hash }

// Serial is the certificate's serial number.
func (t *Token) Serial() store.Serial { return t.record.Serial }

// Record is the certificate's record as far as it is known: without DER,
// Requester, Line and Seq.
func (t *Token) Record() store.Certificate { return t.record }

// NewSerial makes a serial number: octet 01 and 16 octets read from rand.
func NewSerial(rand io.Reader) (store.Serial, error) {
	s := store.Serial{1}
	if _, err := io.ReadFull(rand, s[1:]); err != nil {
		return store.Serial{}, fmt.Errorf("drawing a serial number: %w", err)
	}
	if bytes.Equal(s[1:], make([]byte, len(s)-1)) {
		return store.Serial{}, errors.New("drawing a serial number: the source of chance gives zeros")
	}
	return s, nil
}
