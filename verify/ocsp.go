package verify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"hufu/internal/ocsp"
)

const (
	// clockSkew is how far the other side's clock may be ahead of ours.
	clockSkew = 5 * time.Minute

	fetchTimeout = 10 * time.Second
	maxResponse  = 64 << 10
	nonceSize    = 32 // RFC 9654, Section 2.1
)

// Source is where status of one CA's certificates is to be had. The address is
// ours: that of a certificate or a message is never used.
type Source struct {
	Issuer []byte // the CA's certificate, DER
	URL    string
}

// OCSP tells the status by asking responders (RFC 6960). Every question carries a
// nonce and the answer must repeat it (RFC 9654), so no old answer passes for a
// new one.
type OCSP struct {
	Responders []Source
	Client     *http.Client     // nil: one that waits 10 seconds
	Now        func() time.Time // nil: time.Now

	once    sync.Once
	issuers map[[32]byte]responder
	err     error
}

type responder struct {
	url    string
	issuer *ocsp.Issuer
}

func (o *OCSP) prepare() {
	o.issuers = make(map[[32]byte]responder)
	for _, s := range o.Responders {
		issuer, err := ocsp.NewIssuer(s.Issuer)
		if err != nil {
			o.err = fmt.Errorf("reading the CA of the OCSP responder %s: %w", s.URL, err)
			return
		}
		o.issuers[sha256.Sum256(s.Issuer)] = responder{s.URL, issuer}
	}
}

// Status is a StatusFunc.
func (o *OCSP) Status(ctx context.Context, c *Cert) (Evidence, error) {
	o.once.Do(o.prepare)
	if o.err != nil {
		return Evidence{}, o.err
	}
	r, ok := o.issuers[c.Issuer.Hash]
	if !ok {
		return Evidence{}, fmt.Errorf("no OCSP responder is configured for the CA %s", c.Issuer.Subject)
	}
	e := Evidence{Source: "ocsp " + r.url}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	id := r.issuer.CertID(crypto.SHA256, integer(c))
	request, err := ocsp.MakeRequest(nonce, id)
	if err != nil {
		return e, err
	}
	der, err := fetch(ctx, o.Client, http.MethodPost, r.url, request, maxResponse)
	if err != nil {
		return e, fmt.Errorf("asking the OCSP responder %s: %w", r.url, err)
	}
	answer, err := ocsp.ParseResponse(der, maxResponse)
	if err != nil {
		return e, fmt.Errorf("asking the OCSP responder %s: %w", r.url, err)
	}
	now := clock(o.Now)
	if err := answer.CheckSignature(c.Issuer.DER, now); err != nil {
		return e, fmt.Errorf("the answer of the OCSP responder %s: %w", r.url, err)
	}
	if !bytes.Equal(answer.Nonce, nonce) {
		return e, fmt.Errorf("the answer of the OCSP responder %s does not repeat our nonce: it may be an old one", r.url)
	}
	single := answer.Find(id)
	if single == nil {
		return e, fmt.Errorf("the OCSP responder %s answered for another certificate", r.url)
	}
	e.Time = single.ThisUpdate
	return e, e.fromOCSP(single, now)
}

// fromOCSP takes an answer over when it is fresh (RFC 6960, Section 4.2.2.1).
func (e *Evidence) fromOCSP(s *ocsp.SingleResponse, now time.Time) error {
	if err := fresh(s.ThisUpdate, s.NextUpdate, now); err != nil {
		return fmt.Errorf("the answer of %s: %w", e.Source, err)
	}
	switch s.Status {
	case ocsp.Good:
		e.State = Good
	case ocsp.Revoked:
		e.revoked(s.Reason, s.RevokedAt)
	default:
		e.State = Unknown
	}
	return nil
}

// certificateHold is the reason that can be lifted again (RFC 5280, Section 5.3.1).
const certificateHold = 6

func (e *Evidence) revoked(reason int, at time.Time) {
	e.State, e.Reason, e.Since = Revoked, reason, at
	if reason == certificateHold {
		e.State = OnHold
	}
}

func fresh(thisUpdate, nextUpdate, now time.Time) error {
	switch {
	case thisUpdate.After(now.Add(clockSkew)):
		return fmt.Errorf("it is from the future, %s: check the clocks", stamp(thisUpdate))
	case nextUpdate.IsZero():
		return errors.New("it does not say until when it holds")
	case now.After(nextUpdate):
		return fmt.Errorf("it was good until %s", stamp(nextUpdate))
	}
	return nil
}

// integer returns the content octets of the certificate's serial number.
func integer(c *Cert) []byte {
	b := c.X509.SerialNumber.Bytes()
	if len(b) == 0 || b[0] >= 0x80 {
		return append([]byte{0}, b...)
	}
	return b
}

func clock(now func() time.Time) time.Time {
	if now != nil {
		return now()
	}
	return time.Now()
}

var defaultClient = &http.Client{
	Timeout: fetchTimeout,
	// An address is configured; a redirect would be one that is not.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// fetch gets a body of at most max octets.
func fetch(ctx context.Context, client *http.Client, method, url string, body []byte, max int64) ([]byte, error) {
	if client == nil {
		client = defaultClient
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/ocsp-request")
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", response.Status)
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, max+1))
	if err == nil && int64(len(b)) > max {
		err = &SizeError{What: "the answer", Size: len(b), Max: int(max)}
	}
	return b, err
}
