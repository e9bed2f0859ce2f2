package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// SessionRequest asks for a session with a reader.
type SessionRequest struct {
	Number string `json:"number" doc:"the reader's number"`
	City   string `json:"city" doc:"the city that initialises it"`
	Ticket string `json:"ticket,omitempty" doc:"ID of the ticket that must name it; absent means whichever does"`
	Renew  bool   `json:"renew,omitempty" doc:"a new pair for an active reader, instead of a first one"`
}

// Session is what a reader answers with its enrolment.
type Session struct {
	ID         string    `json:"session" doc:"ID of the session, 32 hexadecimal digits"`
	Challenge  []byte    `json:"challenge" doc:"32 octets that the reader signs"`
	Number     string    `json:"number" doc:"the reader's number"`
	City       string    `json:"city" doc:"its city"`
	Ticket     string    `json:"ticket,omitempty" doc:"ID of the ticket that names it"`
	Encryption string    `json:"encryption" doc:"who makes the encryption key: centre or reader"`
	Expires    time.Time `json:"expires" doc:"until when the node remembers the session"`
}

// StageMessage carries what a reader signed.
type StageMessage struct {
	Message []byte `json:"message" doc:"the reader's CMS SignedData in DER"`
}

// Grant is a reader's pair, on hold until its receipt is there.
type Grant struct {
	Number    string   `json:"number" doc:"the reader's number"`
	Sign      []byte   `json:"sign" doc:"the signing certificate in DER"`
	Encrypt   []byte   `json:"encrypt" doc:"the encryption certificate in DER"`
	Chain     [][]byte `json:"chain" doc:"issuers upward, without the root, in DER"`
	SealedKey []byte   `json:"sealedKey,omitempty" doc:"the encryption key, sealed to the transport key: CMS EnvelopedData in DER"`
	Again     bool     `json:"again,omitempty" doc:"the same pair as before"`
}

// Receipt is what the centre needs of a reader that was initialised: a line of a
// receipts file.
type Receipt struct {
	Number  string   `json:"number" doc:"the reader's number"`
	Receipt []byte   `json:"receipt" doc:"the reader's CMS SignedData in DER"`
	Sign    []byte   `json:"sign" doc:"the signing certificate in DER"`
	Encrypt []byte   `json:"encrypt" doc:"the encryption certificate in DER"`
	Device  []byte   `json:"device,omitempty" doc:"the device certificate in DER"`
	Chain   [][]byte `json:"chain,omitempty" doc:"CAs of the device certificate, upward, without the root, in DER"`
}

// OpenSession begins to initialise, or to renew, a reader.
func (c *Client) OpenSession(ctx context.Context, r SessionRequest) (*Session, error) {
	return call[Session](ctx, c, http.MethodPost, "/v1/stage2/sessions", nil, r)
}

// Enrol sends a reader's enrolment and brings its pair back.
func (c *Client) Enrol(ctx context.Context, session string, message []byte) (*Grant, error) {
	return call[Grant](ctx, c, http.MethodPost, "/v1/stage2/sessions/"+session+"/enrolment", nil, StageMessage{Message: message})
}

// SendReceipt sends a reader's receipt, by which it becomes active.
func (c *Client) SendReceipt(ctx context.Context, session string, message []byte) (*Reader, error) {
	return call[Reader](ctx, c, http.MethodPost, "/v1/stage2/sessions/"+session+"/receipt", nil, StageMessage{Message: message})
}

// Receipts walks the receipts of a city, or of one of its tickets.
func (c *Client) Receipts(ctx context.Context, city, ticket string) iter.Seq2[*Receipt, error] {
	return all[Receipt](ctx, c, "/v1/stage2/receipts", values("city", city, "ticket", ticket))
}
