package stepca

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/certificates/acme"
)

// maxAnswer is the longest answer to a challenge: a token, a dot and a
// thumbprint (RFC 8555, Section 8.1) are some eighty octets.
const maxAnswer = 256

// fetcher asks the applicant's server for the answer to a challenge. A stranger
// chooses that server, so no more is read of it than an answer can be, and
// whatever is no answer is not passed on: smallstep puts what it got into its
// error, and the server may have sent us to a page that only this machine sees.
type fetcher struct {
	http   *http.Client
	dialer *net.Dialer
}

var _ acme.Client = (*fetcher)(nil)

func newFetcher(port int) *fetcher {
	d := &net.Dialer{Timeout: 10 * time.Second}
	return &fetcher{dialer: d, http: &http.Client{
		Timeout: 20 * time.Second,
		// No proxy: the answer must come from the name itself.
		Transport: &http.Transport{DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: 32 << 10, DisableKeepAlives: true,
			// A server that redirects to its own https has no certificate that
			// could be checked yet: that is what it asks for.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(q *http.Request, via []*http.Request) error {
			if len(via) > 5 {
				return errors.New("too many redirects")
			}
			// Web servers alone are asked, by name: not what else listens on
			// some port of some machine.
			p := q.URL.Port()
			if p != "" && p != "80" && p != "443" && p != strconv.Itoa(port) {
				return fmt.Errorf("a redirect to port %s is not followed", p)
			}
			if _, err := netip.ParseAddr(q.URL.Hostname()); err == nil {
				return errors.New("a redirect to an address is not followed")
			}
			return nil
		},
	}}
}

func (f *fetcher) Get(url string) (*http.Response, error) {
	a, err := f.http.Get(url)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	if err = errors.Join(err, a.Body.Close()); err != nil {
		return nil, err
	}
	if !isAnswer(body) {
		body = []byte("something that is no key authorization")
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	return a, nil
}

// isAnswer tells whether a body has the form of a key authorization: two words
// in base64url with a dot between them.
func isAnswer(body []byte) bool {
	token, thumbprint, ok := strings.Cut(strings.TrimSpace(string(body)), ".")
	const word = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return ok && len(body) <= maxAnswer && token != "" && len(thumbprint) == 43 && strings.Trim(token+thumbprint, word) == ""
}

func (f *fetcher) LookupTxt(string) ([]string, error) {
	return nil, errors.New("dns-01 is not offered")
}

func (f *fetcher) TLSDial(network, addr string, c *tls.Config) (*tls.Conn, error) {
	return tls.DialWithDialer(f.dialer, network, addr, c)
}
