package client

import (
	"context"
	"net/http"
	"time"
)

// CA is one generation of the root or of a working CA.
type CA struct {
	ID          string    `json:"id" doc:"ID of the generation, such as 330100 or 330100.2"`
	Line        string    `json:"line" doc:"the CA whose generation this is"`
	Generation  int       `json:"generation" doc:"1, 2, …"`
	Kind        string    `json:"kind" doc:"root, device, city, services or staff"`
	City        string    `json:"city,omitempty" doc:"city code of a city CA"`
	Suite       string    `json:"suite" doc:"the suite of algorithms"`
	State       string    `json:"state" doc:"active, retiring or retired"`
	Subject     string    `json:"subject" doc:"subject in the form of RFC 4514"`
	SPKI        string    `json:"spki" doc:"SHA-256 of the SubjectPublicKeyInfo, hexadecimal"`
	NotBefore   time.Time `json:"notBefore" doc:"start of validity"`
	NotAfter    time.Time `json:"notAfter" doc:"end of validity"`
	Certificate []byte    `json:"certificate" doc:"the certificate in DER"`
	Chain       [][]byte  `json:"chain,omitempty" doc:"the issuers upward in DER, the root last"`
	CRL         *CRL      `json:"crl,omitempty" doc:"the newest full CRL; not in lists"`
	Seq         uint64    `json:"seq" doc:"the journal event of the last change"`
}

// CRL is the record of a CRL; its bytes are for everyone at the responder.
type CRL struct {
	CA         string    `json:"ca" doc:"ID of the CA"`
	Number     uint64    `json:"number" doc:"CRL number"`
	ThisUpdate time.Time `json:"thisUpdate" doc:"when it was signed"`
	NextUpdate time.Time `json:"nextUpdate" doc:"when it ends"`
	Entries    int       `json:"entries" doc:"certificates on it"`
	Size       int64     `json:"size" doc:"its length in octets"`
	Sum        string    `json:"sha256" doc:"SHA-256 of the CRL, hexadecimal"`
	Seq        uint64    `json:"seq" doc:"the journal event that recorded it"`
}

// Directory is how far a directory has followed the journal.
type Directory struct {
	Name       string    `json:"name" doc:"name in the node's configuration"`
	URL        string    `json:"url" doc:"where it is"`
	State      string    `json:"state" doc:"how it is, in words"`
	Epoch      uint64    `json:"epoch" doc:"epoch of its watermark"`
	Watermark  uint64    `json:"watermark" doc:"every change up to this journal event is in the directory"`
	Time       time.Time `json:"time,omitzero" doc:"time of its last statement"`
	Entries    int64     `json:"entries" doc:"entries that the statement covers; -1 while the directory is being filled"`
	From       uint64    `json:"from" doc:"where the worker's connection began"`
	Head       uint64    `json:"head" doc:"the newest journal event"`
	LagChanges uint64    `json:"lagChanges" doc:"journal events that it does not show yet"`
	LagSeconds float64   `json:"lagSeconds" doc:"age of the oldest of them"`
	Unknown    int64     `json:"unknown,omitempty" doc:"entries from before a restore that nobody brought back; they are left alone"`
	Repairs    int64     `json:"repairs" doc:"entries that were not as they should have been and were put right"`
	LastError  string    `json:"lastError,omitempty" doc:"what went wrong last"`
	ErrorTime  time.Time `json:"errorTime,omitzero" doc:"when it did"`
}

// CAs lists the CAs of the book.
func (c *Client) CAs(ctx context.Context) ([]CA, error) {
	return everything[CA](ctx, c, "/v1/cas")
}

// CA returns one CA by ID.
func (c *Client) CA(ctx context.Context, id string) (*CA, error) {
	return call[CA](ctx, c, http.MethodGet, "/v1/cas/"+id, nil, nil)
}

// PublishCRL signs and records a new CRL of a CA.
func (c *Client) PublishCRL(ctx context.Context, id string) (*CRL, error) {
	return call[CRL](ctx, c, http.MethodPost, "/v1/cas/"+id+"/crl", nil, nil)
}

// Directories lists how far the directories have followed.
func (c *Client) Directories(ctx context.Context) ([]Directory, error) {
	return everything[Directory](ctx, c, "/v1/directories")
}

// everything reads a short list whole.
func everything[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var list []T
	for v, err := range all[T](ctx, c, path, nil) {
		if err != nil {
			return nil, err
		}
		list = append(list, *v)
	}
	return list, nil
}
