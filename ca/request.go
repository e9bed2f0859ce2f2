package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"hufu/internal/oid"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// Bounds of an order: how many certificates it may ask for, and how long what
// it calls itself and others may be.
const (
	maxRequests = 16
	maxWord     = 255
)

// signing are the key usages whose keys can prove their possession by a
// signature.
const signing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageCertSign | x509.KeyUsageCRLSign

// keptProfile is the only one whose keys the key management centre makes.
const keptProfile = "reader-encrypt"

// prepare does steps 1 to 3 for one order. It reads and writes no book.
func (a *Authority) prepare(u *underway) error {
	if u.Requester == "" || len(u.Requests) == 0 || len(u.Requests) > maxRequests {
		return &RequestError{Problem: "request-order", Detail: fmt.Sprintf("%d certificates for requester %q", len(u.Requests), u.Requester),
			Remedy: fmt.Sprintf("name the requester and ask for 1 to %d certificates", maxRequests)}
	}
	if len(u.Requester) > maxWord || len(u.IdempotencyKey) > maxWord {
		return &RequestError{Problem: "request-order", Detail: "the requester's name or the idempotency key is too long", Remedy: fmt.Sprintf("use at most %d octets", maxWord)}
	}
	csrs := make([]*issuance.CSR, len(u.Requests))
	for i := range u.Requests {
		if r := &u.Requests[i]; r.CSR != nil {
			// Nothing of a CSR is used but its key and the key that it vouches
			// for; one that asks to be a CA is refused.
			var err error
			if csrs[i], err = issuance.ParseCSR(r.CSR); err != nil {
				return err
			}
		}
	}
	// One moment for the whole order, so that a pair begins and ends together.
	now := a.Now()
	u.items = make([]item, len(u.Requests))
	for i := range u.Requests {
		if err := a.prepareOne(u, i, csrs, now); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) prepareOne(u *underway, i int, csrs []*issuance.CSR, now time.Time) error {
	r, it := &u.Requests[i], &u.items[i]
	var err error
	if it.issuer, err = a.issuer(r.CA); err != nil {
		return err
	}
	profile, err := policy.Find(r.Profile)
	if err != nil {
		return &RequestError{Problem: "request-profile", Detail: err.Error(), Remedy: "name a profile that the CA issues"}
	}
	if len(r.Line) > maxWord {
		return &RequestError{Problem: "request-line", Detail: "the name of the certificate line is too long", Remedy: "give the line of a certificate, or leave it out to begin a new one"}
	}
	spki, err := u.provenKey(i, profile, csrs)
	if err != nil {
		return err
	}
	serial, err := issuance.NewSerial(rand.Reader)
	if err != nil {
		return err
	}
	it.token, err = it.issuer.Prepare(issuance.Request{Profile: r.Profile, SPKI: spki, Name: r.Name, Serial: serial, Shard: it.issuer.Shard(serial),
		NotBefore: a.begin(it.issuer, now.Add(-profile.Backdate)), NotAfter: r.NotAfter})
	if err != nil {
		return fmt.Errorf("preparing a certificate of profile %s: %w", r.Profile, err)
	}
	rec := it.token.Record()
	rec.Requester, rec.Line, it.renewal = u.Requester, r.Line, r.Line != ""
	if !it.renewal {
		rec.Line = serial.String()
	}
	it.cert = &rec
	return nil
}

// vouchedProfile is the only one whose keys come on a maker's manifest.
const vouchedProfile = "device"

// provenKey returns the key of request i: that of its own CSR, or one that a CSR
// of the same order, for the same reader of the same CA, carries, or one that the key
// management centre keeps or a manifest brings.
func (u *underway) provenKey(i int, profile *policy.Profile, csrs []*issuance.CSR) ([]byte, error) {
	r := &u.Requests[i]
	if r.Kept && (profile.Name != keptProfile || (profile.KeyUsage|profile.KeyUsageRSA)&signing != 0) {
		return nil, &RequestError{Problem: "request-kept", Detail: fmt.Sprintf("a key of profile %s is never made by the key management centre", profile.Name),
			Remedy: "make the key where it is used, and send a PKCS#10 request made with it"}
	}
	if csrs[i] != nil {
		if r.SPKI != nil {
			return nil, &RequestError{Problem: "request-key", Detail: "the request brings a CSR and a bare key", Remedy: "send one of them"}
		}
		return csrs[i].SPKI, nil
	}
	if len(r.SPKI) == 0 {
		return nil, &RequestError{Problem: "request-key", Detail: "the request brings no key", Remedy: "send a PKCS#10 request made with the private key"}
	}
	if r.Vouched {
		if profile.Name != vouchedProfile || r.Kept {
			return nil, &RequestError{Problem: "request-vouched", Detail: fmt.Sprintf("no manifest vouches for a key of profile %s", profile.Name), Remedy: "send a PKCS#10 request made with the private key"}
		}
		return r.SPKI, nil
	}
	if profile.KeyUsage&signing != 0 {
		return nil, &RequestError{Problem: "request-key", Detail: fmt.Sprintf("a key of profile %s can sign and has not", profile.Name), Remedy: "send a PKCS#10 request made with the private key"}
	}
	if r.Kept {
		return r.SPKI, nil
	}
	for j, csr := range csrs {
		if csr == nil || u.Requests[j].CA != r.CA || u.Requests[j].Name.Reader != r.Name.Reader || u.Requests[j].Name.City != r.Name.City {
			continue
		}
		if bytes.Equal(carried(csr), r.SPKI) {
			return r.SPKI, nil
		}
	}
	return nil, &RequestError{Problem: "request-key", Detail: "nobody vouches for the encryption key", Remedy: "make the signing request carry it in extension " + oid.EncryptionKey.String()}
}

// carried is the encryption key that a CSR carries, or nil.
func carried(csr *issuance.CSR) []byte {
	for i := range csr.Extensions {
		if csr.Extensions[i].Id.Equal(oid.EncryptionKey) {
			return csr.Extensions[i].Value
		}
	}
	return nil
}

// EncryptionKeyOf returns the encryption key that a signing CSR carries for
// the pair, or nil where it carries none. The CSR's signature covers it and was
// checked.
func EncryptionKeyOf(csr []byte) (spki []byte, err error) {
	parsed, err := issuance.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	return carried(parsed), nil
}

// sum is the hash of everything that the order asks for: what an idempotency
// key is bound to.
func (o *Order) sum() store.Hash {
	b, err := json.Marshal(struct {
		Requests []Request
		Hold     bool
	}{o.Requests, o.Hold})
	if err != nil {
		panic("ca: an order cannot be written as JSON: " + err.Error()) // plain values only
	}
	return store.Sum(b)
}
