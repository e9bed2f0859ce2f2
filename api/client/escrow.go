package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Escrow counts the encryption keys that the key management centre keeps.
type Escrow struct {
	Spare    uint64 `json:"spare" doc:"made, and nobody's yet"`
	Wanted   uint64 `json:"wanted" doc:"spare keys that the pool is filled to"`
	Claimed  uint64 `json:"claimed" doc:"a reader's, whose certificate is not there yet"`
	InUse    uint64 `json:"inUse" doc:"of a certificate"`
	History  uint64 `json:"history" doc:"their certificates have ended; they are kept for recovery"`
	Officers int    `json:"officers" doc:"key officers that a recovery needs"`
}

// EscrowKey is a kept key as far as it may be told.
type EscrowKey struct {
	SPKI    string    `json:"spki" doc:"SHA-256 of the SubjectPublicKeyInfo, hexadecimal"`
	State   string    `json:"state" doc:"spare, claimed, in-use or history"`
	Kind    string    `json:"kind" doc:"algorithm and size"`
	Reader  string    `json:"reader,omitempty" doc:"reader number"`
	City    string    `json:"city,omitempty" doc:"city code"`
	CA      string    `json:"ca,omitempty" doc:"ID of the CA of its certificate"`
	Serial  string    `json:"serial,omitempty" doc:"serial number of its certificate"`
	Made    time.Time `json:"made" doc:"when it was made"`
	Changed time.Time `json:"changed" doc:"when it came into its state"`
	Seq     uint64    `json:"seq" doc:"the journal event of the last change"`
}

// RecoveryRequest asks that a kept key be sealed for somebody.
type RecoveryRequest struct {
	Serial    string `json:"serial" doc:"serial number of the reader's encryption certificate"`
	Recipient []byte `json:"recipient" doc:"a good certificate of profile recipient, in DER: whom the key is sealed to"`
	Reason    string `json:"reason" doc:"why; officers read it before they sign"`
}

// Recovered is a kept key that was sealed for its recipient.
type Recovered struct {
	Approval    string `json:"approval" doc:"ID of the approval that was used up"`
	Reader      string `json:"reader" doc:"reader number"`
	Serial      string `json:"serial" doc:"serial number of the certificate whose key it is"`
	Certificate []byte `json:"certificate" doc:"that certificate in DER"`
	Envelope    []byte `json:"envelope" doc:"CMS EnvelopedData with the private key, in DER; only the recipient opens it"`
}

// Escrow counts the kept keys.
func (c *Client) Escrow(ctx context.Context) (*Escrow, error) {
	return call[Escrow](ctx, c, http.MethodGet, "/v1/escrow", nil, nil)
}

// EscrowKeys walks the kept keys of a reader; "" walks those of all readers.
func (c *Client) EscrowKeys(ctx context.Context, reader string) iter.Seq2[*EscrowKey, error] {
	return all[EscrowKey](ctx, c, "/v1/escrow/keys", values("reader", reader))
}

// RequestRecovery asks that a kept key be recovered. Nothing happens before enough key
// officers have approved.
func (c *Client) RequestRecovery(ctx context.Context, r RecoveryRequest) (*Approval, error) {
	return call[Approval](ctx, c, http.MethodPost, "/v1/escrow/recoveries", nil, r)
}

// Recover uses a granted approval up and returns the sealed key.
func (c *Client) Recover(ctx context.Context, approval string) (*Recovered, error) {
	return call[Recovered](ctx, c, http.MethodPost, "/v1/escrow/recoveries/"+approval+"/release", nil, nil)
}
