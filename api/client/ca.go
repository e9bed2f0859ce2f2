package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Shard      int       `json:"shard,omitempty" doc:"which of the CA's certificates stand on it; absent: all"`
	Delta      bool      `json:"delta,omitempty" doc:"whether it has only what changed since list base"`
	Base       uint64    `json:"base,omitempty" doc:"number of the full list that a delta goes out from"`
	Number     uint64    `json:"number" doc:"CRL number"`
	ThisUpdate time.Time `json:"thisUpdate" doc:"when it was signed"`
	NextUpdate time.Time `json:"nextUpdate" doc:"when it ends"`
	Entries    int       `json:"entries" doc:"certificates on it"`
	Size       int64     `json:"size" doc:"its length in octets"`
	Sum        string    `json:"sha256" doc:"SHA-256 of the CRL, hexadecimal"`
	Ending     bool      `json:"ending,omitempty" doc:"whether it runs out soon, or has: less than a quarter of its life is left, or less than 30 days"`
	Address    string    `json:"address,omitempty" doc:"where it is served"`
	AsOf       uint64    `json:"asOf,omitempty" doc:"the last journal event that it takes into account; absent for one that was made elsewhere"`
	Seq        uint64    `json:"seq" doc:"the journal event that recorded it"`
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

// CRLs lists the newest CRL of each kind: of every CA, of each of its shards, and
// the deltas to them.
func (c *Client) CRLs(ctx context.Context) ([]CRL, error) {
	return everything[CRL](ctx, c, "/v1/crls")
}

// CRLImport is a list that was signed elsewhere.
type CRLImport struct {
	CRL []byte `json:"crl" doc:"the CRL in DER"`
}

// ImportCRL records the CRL of a CA whose key the node does not hold, such as the
// root's.
func (c *Client) ImportCRL(ctx context.Context, id string, der []byte) (*CRL, error) {
	return call[CRL](ctx, c, http.MethodPost, "/v1/cas/"+id+"/crl/import", nil, CRLImport{der})
}

// Standing is what the book says of a serial number that a CRL has to speak of.
type Standing struct {
	Serial   string    `json:"serial" doc:"serial number, hexadecimal"`
	State    string    `json:"state" doc:"on-hold, revoked, or good: then it was on hold before"`
	Reason   int       `json:"reason,omitempty" doc:"CRLReason of RFC 5280, Section 5.3.1"`
	Time     time.Time `json:"time" doc:"since when"`
	NotAfter time.Time `json:"notAfter" doc:"until when the certificate is valid"`
	Shard    int       `json:"shard,omitempty" doc:"the shard that the certificate names"`
	Seq      uint64    `json:"seq" doc:"the journal event that made it so"`
}

// Standings reads what is held or revoked of one CA, and what was held and is good
// again, as one view of the book, and calls each for every one.
func (c *Client) Standings(ctx context.Context, id string, each func(*Standing) error) error {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/v1/cas/" + id + "/standings", accept: MediaLines})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var s Standing
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the standings of CA %s: %w", id, err)
		}
		if err := each(&s); err != nil {
			return err
		}
	}
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
