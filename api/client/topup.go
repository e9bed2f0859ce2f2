package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// LoadMessage carries a message that a reader signed.
type LoadMessage struct {
	Message []byte `json:"message" doc:"the reader's CMS SignedData in DER"`
}

// Load is a load request that was verified: what the reader signed, for the
// city's card keys to judge.
type Load struct {
	Transaction string    `json:"transaction" doc:"the reader's ID of the transaction"`
	CardCity    string    `json:"cardCity" doc:"city code of the card"`
	ReaderCity  string    `json:"readerCity" doc:"city code of the reader"`
	Reader      string    `json:"reader" doc:"DNS name of the reader"`
	Card        string    `json:"card" doc:"application serial number of the card"`
	Counter     uint32    `json:"counter" doc:"the card's online transaction counter"`
	Random      []byte    `json:"random" doc:"the card's random of this load"`
	Amount      uint64    `json:"amount" doc:"amount in fen"`
	Balance     uint64    `json:"balance" doc:"balance before the load, in fen"`
	Type        byte      `json:"type" doc:"transaction type"`
	KeyIndex    byte      `json:"keyIndex" doc:"index of the load key"`
	KeyVersion  byte      `json:"keyVersion" doc:"version of the load key"`
	Algorithm   byte      `json:"algorithm" doc:"algorithm of the load key"`
	MAC1        []byte    `json:"mac1" doc:"the card's MAC1, for the city's card keys to check"`
	Terminal    []byte    `json:"terminal" doc:"terminal number"`
	Expiry      time.Time `json:"expiry" doc:"until when the request may be granted"`
	Agreement   bool      `json:"agreement,omitempty" doc:"the card is of another city, and an agreement of both stands"`
	Evidence    Evidence  `json:"evidence" doc:"the status that the answer relies on"`
}

// Evidence names the status that an answer relied on.
type Evidence struct {
	Source string    `json:"source" doc:"book, ocsp or crl, and where"`
	Epoch  uint64    `json:"epoch,omitempty" doc:"epoch of the book"`
	Seq    uint64    `json:"seq,omitempty" doc:"journal head when the status was read"`
	Time   time.Time `json:"time" doc:"when the status was read"`
	State  string    `json:"state" doc:"good"`
}

// Authorisation is a city's decision to load a card.
type Authorisation struct {
	Message       []byte `json:"message" doc:"the reader's CMS SignedData in DER"`
	CommandScript []byte `json:"commandScript" doc:"the card commands that the reader runs"`
	DataScript    []byte `json:"dataScript" doc:"the data that is sealed to the reader; kept nowhere"`
	MAC1Accepted  bool   `json:"mac1Accepted" doc:"the city's card keys have accepted the request's MAC1"`
}

// Permission is a city's signed permission to load.
type Permission struct {
	Message  []byte   `json:"message" doc:"the city's CMS SignedData in DER, with the script sealed to the reader"`
	Evidence Evidence `json:"evidence" doc:"the status that the answer relies on"`
}

// Confirmation is a reader's result and the city's judgement of its TAC.
type Confirmation struct {
	Message     []byte `json:"message" doc:"the reader's CMS SignedData in DER"`
	TACAccepted bool   `json:"tacAccepted" doc:"the city's card keys have accepted the TAC"`
}

// Transaction is one load in the ledger.
type Transaction struct {
	ID           string    `json:"id" doc:"ID"`
	City         string    `json:"city" doc:"city code of the card"`
	ReaderCity   string    `json:"readerCity" doc:"city code of the reader"`
	Reader       string    `json:"reader" doc:"DNS name of the reader"`
	Card         string    `json:"card" doc:"application serial number of the card"`
	Counter      uint32    `json:"counter" doc:"the card's online transaction counter before the load"`
	Amount       uint64    `json:"amount" doc:"amount in fen"`
	Balance      uint64    `json:"balance" doc:"balance before the load, in fen"`
	NewBalance   uint64    `json:"newBalance,omitempty" doc:"balance after the load, in fen"`
	State        string    `json:"state" doc:"authorised, torn, disputed, credited, failed or superseded"`
	Expiry       time.Time `json:"expiry" doc:"until when the card may be credited"`
	Authorised   time.Time `json:"authorised" doc:"when it was authorised"`
	Closed       time.Time `json:"closed,omitzero" doc:"when it was closed"`
	TAC          []byte    `json:"tac,omitempty" doc:"the card's TAC"`
	SupersededBy string    `json:"supersededBy,omitempty" doc:"the later request that proved that this one never credited"`
	Note         string    `json:"note,omitempty" doc:"a few words"`
	Caller       string    `json:"caller" doc:"who asked for it"`
	Evidence     Evidence  `json:"evidence" doc:"the status that it relies on"`
	Seq          uint64    `json:"seq" doc:"the journal event of the last change"`
}

// Resolution is what a card showed when it was read again.
type Resolution struct {
	Counter uint32 `json:"counter" doc:"the card's online transaction counter now"`
	Balance uint64 `json:"balance" doc:"the card's balance now, in fen"`
	TAC     []byte `json:"tac,omitempty" doc:"the TAC that the card proved, where it could"`
	Note    string `json:"note" doc:"why and by whom it was looked at"`
}

// Agreement lets readers of either of two cities load cards of the other.
type Agreement struct {
	A        string            `json:"a" doc:"the one city code"`
	B        string            `json:"b" doc:"the other city code"`
	Until    time.Time         `json:"until" doc:"end of the agreement"`
	Approved map[string]string `json:"approved" doc:"city code to who approved for it; it stands when both have"`
	Ended    bool              `json:"ended" doc:"whether it was ended early"`
	Seq      uint64            `json:"seq" doc:"the journal event of the last change"`
}

// AgreementRequest approves, or ends, an agreement on behalf of one city.
type AgreementRequest struct {
	City  string    `json:"city" doc:"the city that speaks"`
	Other string    `json:"other" doc:"the other city"`
	Until time.Time `json:"until,omitzero" doc:"end of the agreement; both cities name the same"`
	End   bool      `json:"end,omitempty" doc:"end the agreement now"`
}

// TransactionQuery selects transactions of one city, the caller's when empty.
type TransactionQuery struct {
	City, State string
	Limit       uint64
}

// VerifyLoad judges a reader's load request.
func (c *Client) VerifyLoad(ctx context.Context, message []byte) (*Load, error) {
	return call[Load](ctx, c, http.MethodPost, "/v1/topup/verify", nil, LoadMessage{Message: message})
}

// AuthoriseLoad asks for the city's signed permission.
func (c *Client) AuthoriseLoad(ctx context.Context, a Authorisation) (*Permission, error) {
	return call[Permission](ctx, c, http.MethodPost, "/v1/topup/authorise", nil, a)
}

// ConfirmLoad closes a transaction with the reader's result.
func (c *Client) ConfirmLoad(ctx context.Context, r Confirmation) (*Transaction, error) {
	return call[Transaction](ctx, c, http.MethodPost, "/v1/topup/confirm", nil, r)
}

// Transaction returns one load.
func (c *Client) Transaction(ctx context.Context, id string) (*Transaction, error) {
	return call[Transaction](ctx, c, http.MethodGet, "/v1/topup/transactions/"+id, nil, nil)
}

// Transactions walks the loads that a query selects.
func (c *Client) Transactions(ctx context.Context, q TransactionQuery) iter.Seq2[*Transaction, error] {
	return all[Transaction](ctx, c, "/v1/topup/transactions", values("city", q.City, "state", q.State, "limit", number(q.Limit)))
}

// ResolveTransaction closes a load whose result never came, by what the card
// shows.
func (c *Client) ResolveTransaction(ctx context.Context, id string, r Resolution) (*Transaction, error) {
	return call[Transaction](ctx, c, http.MethodPost, "/v1/topup/transactions/"+id+"/resolve", nil, r)
}

// Agreements walks the agreements of a city; "" walks those that the caller may
// read.
func (c *Client) Agreements(ctx context.Context, city string) iter.Seq2[*Agreement, error] {
	return all[Agreement](ctx, c, "/v1/agreements", values("city", city))
}

// PutAgreement approves, or ends, an agreement on behalf of one city.
func (c *Client) PutAgreement(ctx context.Context, r AgreementRequest) (*Agreement, error) {
	return call[Agreement](ctx, c, http.MethodPut, "/v1/agreements", nil, r)
}
