package api

import (
	"bytes"
	"math"
	"net/http"
	"time"

	"hufu/api/client"
	"hufu/verify"
	"hufu/verify/path"
)

// maxVerify bounds a question about a certificate, lists and all.
const maxVerify = 16 << 20

var verifyRoutes = []route{
	{
		Method: http.MethodPost, Path: "/v1/verify", ID: "verifyCertificate",
		Doc:    "Judges any certificate by what the body holds alone (RFC 5280, Sections 6.1 and 6.3). The answer to a certificate that is not valid is 200 with the reason.",
		Access: anyPerson, City: noCity, MaxBody: maxVerify,
		Body:   client.VerifyRequest{Certificate: exampleDER, Anchors: [][]byte{exampleDER}, CRLs: [][]byte{exampleDER}, Purpose: "server", Name: "www.card.example"},
		Status: 200, Answer: client.Verdict{}, Handle: (*Server).verifyCertificate,
	},
}

func (s *Server) verifyCertificate(c *call) (*answer, error) {
	b := in[client.VerifyRequest](c)
	if b.MaxAge < 0 || b.MaxAge > math.MaxInt64/int64(time.Second) {
		return nil, problemf(kindMalformed, "maxAge is not a number of seconds")
	}
	r := verify.PathRequest{
		Certificate: b.Certificate, Intermediates: b.Intermediates, Anchors: b.Anchors, OCSP: b.OCSP, Time: b.Time, Purpose: b.Purpose, Name: b.Name,
		Policies: b.Policies, ExplicitPolicy: b.ExplicitPolicy || len(b.Policies) > 0, InhibitMapping: b.InhibitMapping, InhibitAny: b.InhibitAny,
		NoStatus: b.NoStatus, MaxAge: time.Duration(b.MaxAge) * time.Second, SHA1: b.SHA1,
	}
	for _, der := range b.CRLs {
		r.CRLs = append(r.CRLs, bytes.NewReader(der))
	}
	a := verify.Path(c.Context(), &r)
	if a.Reason != nil && a.Reason.ID == path.BadRequest {
		return nil, problemf(kindMalformed, "%s", a.Reason.Detail)
	}
	return reply(http.StatusOK, wireVerdict(&a))
}

func wireVerdict(a *verify.PathAnswer) client.Verdict {
	v := client.Verdict{Valid: a.Valid, Time: a.Time, Policies: a.Policies}
	if f := a.Reason; f != nil {
		v.Reason = &client.VerifyReason{ID: f.ID, Detail: f.Detail, RFC: f.RFC, Certificate: f.Certificate, Serial: f.Serial, SHA256: f.SHA256}
	}
	for _, l := range a.Path {
		v.Path = append(v.Path, client.VerifyLink{Subject: l.Subject, Serial: l.Serial, SHA256: l.SHA256, Source: l.Source, AsOf: l.AsOf})
	}
	return v
}
