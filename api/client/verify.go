package client

import (
	"context"
	"net/http"
	"time"
)

// VerifyRequest asks whether a certificate, of whatever CA, may be relied on. All
// octets are DER.
type VerifyRequest struct {
	Certificate    []byte    `json:"certificate" doc:"the certificate in question, DER"`
	Anchors        [][]byte  `json:"anchors" doc:"certificates that the caller trusts, DER; at least one"`
	Intermediates  [][]byte  `json:"intermediates,omitempty" doc:"certificates that may stand between, DER, in any order; nobody trusts them"`
	CRLs           [][]byte  `json:"crls,omitempty" doc:"revocation lists, DER: full, delta, indirect"`
	OCSP           [][]byte  `json:"ocsp,omitempty" doc:"OCSP answers, DER"`
	Time           time.Time `json:"time,omitzero" doc:"as of when; absent means now"`
	Purpose        string    `json:"purpose,omitempty" doc:"server, client, code, email, timestamp, ocsp, or a dotted extended key usage; absent means any"`
	Name           string    `json:"name,omitempty" doc:"DNS name, IP address or mailbox that the certificate must bear; absent means any"`
	Policies       []string  `json:"policies,omitempty" doc:"dotted certificate policies that are acceptable; one of them is demanded"`
	ExplicitPolicy bool      `json:"explicitPolicy,omitempty" doc:"demand a policy, whichever"`
	InhibitMapping bool      `json:"inhibitMapping,omitempty" doc:"let no CA map policies"`
	InhibitAny     bool      `json:"inhibitAnyPolicy,omitempty" doc:"let anyPolicy stand for none"`
	NoStatus       bool      `json:"noStatus,omitempty" doc:"do not ask whether anything is revoked"`
	MaxAge         int64     `json:"maxAge,omitempty" doc:"refuse lists and OCSP answers older than so many seconds; absent means until their nextUpdate"`
	SHA1           bool      `json:"sha1,omitempty" doc:"accept certificates that were signed with SHA-1"`
}

// Verdict is valid, or says why not.
type Verdict struct {
	Valid    bool          `json:"valid" doc:"the certificate may be relied on"`
	Time     time.Time     `json:"time" doc:"as of when"`
	Reason   *VerifyReason `json:"reason,omitempty" doc:"why not; there exactly when it is not valid"`
	Path     []VerifyLink  `json:"path,omitempty" doc:"the certificate first, the anchor last; where it is not valid, the path that came nearest"`
	Policies []string      `json:"policies,omitempty" doc:"policies that hold for the path; 2.5.29.32.0 is any"`
}

// VerifyReason is why a certificate is not valid.
type VerifyReason struct {
	ID          string `json:"id" doc:"stable identifier, such as expired; docs/verify.md lists them"`
	Detail      string `json:"detail" doc:"the same for people"`
	RFC         string `json:"rfc" doc:"the clause"`
	Certificate string `json:"certificate,omitempty" doc:"subject of the certificate that it is about"`
	Serial      string `json:"serial,omitempty" doc:"its serial number, hexadecimal"`
	SHA256      string `json:"sha256,omitempty" doc:"hash of the whole certificate, hexadecimal"`
}

// VerifyLink is one certificate of a path.
type VerifyLink struct {
	Subject string    `json:"subject" doc:"subject"`
	Serial  string    `json:"serial" doc:"serial number, hexadecimal"`
	SHA256  string    `json:"sha256" doc:"hash of the whole certificate, hexadecimal"`
	Source  string    `json:"source,omitempty" doc:"crl or ocsp, where its status was found good, or anchor"`
	AsOf    time.Time `json:"asOf,omitzero" doc:"of that status"`
}

// Verify asks the node to judge a certificate. That it is not valid is an answer,
// no error.
func (c *Client) Verify(ctx context.Context, r VerifyRequest) (*Verdict, error) {
	return call[Verdict](ctx, c, http.MethodPost, "/v1/verify", nil, r)
}
