package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"

	"hufu/internal/cms"
	"hufu/internal/oid"
)

// Load is a verified load request.
type Load struct {
	*LoadRequest
	Message    *Message
	Encryption *Cert    // scripts are sealed to it
	Evidence   Evidence // the older of the two certificates'
}

// LoadRequest verifies a reader's load request with both of its certificates: the
// one signs, and the other, which the request names by hash, only seals.
func (v *Verifier) LoadRequest(ctx context.Context, der []byte) (*Load, error) {
	m, err := v.Message(ctx, der, oid.ContentLoadRequest, ReaderSigning)
	if err != nil {
		return nil, err
	}
	r, err := ParseLoadRequest(m.Content)
	if err != nil {
		return nil, err
	}
	if err := firstMismatch([]comparison{
		{"reader of the request", m.Signer.Name, r.Reader},
		{"reader's city of the request", m.Signer.City, r.ReaderCity},
	}); err != nil {
		return nil, err
	}
	if now := v.now(); now.After(r.Expiry) {
		return nil, &ExpiredError{What: "the load request", Expiry: r.Expiry, Now: now}
	}
	encryption, err := v.pair(m, r.EncryptionHash)
	if err != nil {
		return nil, err
	}
	evidence, err := v.CheckStatus(ctx, encryption)
	if err != nil {
		return nil, err
	}
	if m.Evidence.Time.Before(evidence.Time) {
		evidence = m.Evidence
	}
	return &Load{LoadRequest: r, Message: m, Encryption: encryption, Evidence: evidence}, nil
}

// pair finds the encryption certificate that travels with a message and holds it
// against the signer's.
func (v *Verifier) pair(m *Message, want [32]byte) (*Cert, error) {
	for _, der := range m.Certificates {
		if sha256.Sum256(der) == want {
			return v.pairOf(m, der)
		}
	}
	return nil, &PairError{Subject: m.Signer.Subject, Detail: "the encryption certificate that the request names does not travel with it"}
}

// pairOf holds an encryption certificate against the signer of a message.
func (v *Verifier) pairOf(m *Message, der []byte) (*Cert, error) {
	wrong := func(detail string) error { return &PairError{Subject: m.Signer.Subject, Detail: detail} }
	c, err := v.Chain(der, m.Certificates, ReaderEncryption)
	switch {
	case err != nil:
		return nil, err
	case c.Issuer.Hash != m.Signer.Issuer.Hash:
		return nil, wrong("another CA signed its encryption certificate")
	case c.Name != m.Signer.Name:
		return nil, wrong("the encryption certificate is that of " + c.Name)
	case bytes.Equal(c.X509.RawSubjectPublicKeyInfo, m.Signer.X509.RawSubjectPublicKeyInfo):
		return nil, wrong("they have one key: a key that signs does not seal")
	}
	return c, nil
}

// LoadPermission verifies a city's permission and that it answers this request,
// which the reader itself has sent. Whether the envelope fits tells
// SealedScript.Check, after it was opened.
func (v *Verifier) LoadPermission(ctx context.Context, der, request []byte) (*LoadPermission, *Message, error) {
	s, err := cms.Parse(request, v.MaxMessage)
	if err != nil {
		return nil, nil, &FormError{What: "the load request", Err: err}
	}
	r, err := ParseLoadRequest(s.Content)
	if err != nil {
		return nil, nil, err
	}
	m, err := v.Message(ctx, der, oid.ContentLoadPermission, CitySigning)
	if err != nil {
		return nil, nil, err
	}
	p, err := ParseLoadPermission(m.Content)
	if err != nil {
		return nil, nil, err
	}
	hash := sha256.Sum256(request)
	if err := firstMismatch([]comparison{
		{"city that signed the permission", r.CardCity, m.Signer.City},
		{"city of the permission", r.CardCity, p.City},
		{"transaction of the permission", r.Transaction, p.Transaction},
		{"reader of the permission", r.Reader, p.Reader},
		{"request that the permission answers", hex.EncodeToString(hash[:]), hex.EncodeToString(p.RequestHash[:])},
	}); err != nil {
		return nil, nil, err
	}
	if now := v.now(); now.After(p.Expiry) {
		return nil, nil, &ExpiredError{What: "the load permission", Expiry: p.Expiry, Now: now}
	}
	return p, m, nil
}

// LoadResult verifies a reader's result. Whether it fits the transaction tells the
// ledger.
func (v *Verifier) LoadResult(ctx context.Context, der []byte) (*LoadResult, *Message, error) {
	m, err := v.Message(ctx, der, oid.ContentLoadResult, ReaderSigning)
	if err != nil {
		return nil, nil, err
	}
	r, err := ParseLoadResult(m.Content)
	if err != nil {
		return nil, nil, err
	}
	if err := firstMismatch([]comparison{{"reader of the result", m.Signer.Name, r.Reader}}); err != nil {
		return nil, nil, err
	}
	return r, m, nil
}
