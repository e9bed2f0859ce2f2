package api_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"hufu/api"
	"hufu/api/client"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
)

// question is one bad request and the kind of problem that it must get.
type question struct {
	what, method, path, media, body, kind string
	header                                []string
}

// TestBadInputAtEveryDoor sends what is wrong in form to every route, as
// somebody who may use it. Each gets a named problem with a remedy, and nothing
// changes.
func TestBadInputAtEveryDoor(t *testing.T) {
	w := newWorld(t)
	person, machine := w.hire("Everyone", "", policy.CAAdmin, policy.CAOperator, policy.Auditor), w.hire("Gateway", "", policy.TopUp)
	head := w.head()
	for _, rt := range api.Routes {
		who := person
		if strings.HasPrefix(string(rt.Operation), "topup.") && rt.Operation != policy.OpTopUpRead {
			who = machine
		}
		for _, q := range badForms(rt) {
			w.refused(who, rt.ID, q)
		}
	}
	if kinds := w.since(head); len(kinds) > 0 {
		t.Errorf("bad input was journalled as %v", kinds)
	}
}

// badForms is every way in which a request to a route can be wrong in form.
func badForms(rt api.Route) (all []question) {
	path := strings.NewReplacer("{serial}", "01", "{number}", "1", "{id}", "x", "{fingerprint}", "00", "{name}", "x").Replace(rt.Path)
	add := func(what, kind string, q question) {
		if q.method == "" {
			q.method = rt.Method
		}
		if q.path == "" {
			q.path = path
		}
		if q.header == nil && rt.Write {
			q.header = []string{client.HeaderIdempotencyKey, "k"}
		}
		q.what, q.kind = what, kind
		all = append(all, q)
	}
	add("a method that no route has", "method-not-allowed", question{method: http.MethodPatch})
	add("a parameter that nobody knows", "malformed", question{path: path + "?colour=red"})
	add("a query that cannot be read", "malformed", question{path: path + "?%zz"})
	if len(rt.Query) > 0 {
		name := rt.Query[0].Name
		add("a parameter twice", "malformed", question{path: path + "?" + name + "=1&" + name + "=2"})
	}
	if rt.Write {
		add("a write without a key", "idempotency-key-missing", question{header: []string{}})
		add("a key that is too long", "idempotency-key-missing", question{header: []string{client.HeaderIdempotencyKey, strings.Repeat("k", 129)}})
		add("a key with a blank", "idempotency-key-missing", question{header: []string{client.HeaderIdempotencyKey, "a b"}})
	}
	limit := int(rt.MaxBody)
	if limit == 0 {
		limit = 64 << 10
	}
	if limit < 1<<20 {
		add("a body that is too large", "too-large", question{media: client.MediaJSON, body: strings.Repeat(" ", limit+1)})
	}
	if rt.Body == nil {
		add("a body where none belongs", "malformed", question{media: client.MediaJSON, body: "{}"})
		return all
	}
	add("rubbish for JSON", "malformed", question{media: client.MediaJSON, body: "\x00\xff{{"})
	add("half a JSON value", "malformed", question{media: client.MediaJSON, body: `{"`})
	add("JSON of another kind", "malformed", question{media: client.MediaJSON, body: `["x"]`})
	add("a field that nobody knows", "malformed", question{media: client.MediaJSON, body: `{"isCA":true}`})
	add("two JSON values", "malformed", question{media: client.MediaJSON, body: "{}{}"})
	add("another content type", "media-type", question{media: "text/xml", body: "{}"})
	add("no content type", "media-type", question{body: "{}"})
	if !rt.Optional {
		add("no body", "malformed", question{media: client.MediaJSON})
	}
	return all
}

// refused asks and checks the problem that comes back.
func (w *world) refused(p *person, route string, q question) {
	w.t.Helper()
	status, header, body := p.ask(w, q.method, q.path, q.media, q.body, q.header...)
	var problem client.Problem
	if err := json.Unmarshal(body, &problem); err != nil || header.Get("Content-Type") != client.MediaProblem {
		w.t.Errorf("%s, %s: the answer is %d %s, not a problem (%v)", route, q.what, status, body, err)
		return
	}
	if problem.Type != "/problems/"+q.kind || problem.Status != status || problem.Title == "" || problem.Remedy == "" || problem.Instance == "" {
		w.t.Errorf("%s, %s: the problem is %d %+v, want %s", route, q.what, status, problem, q.kind)
	}
	if q.kind == "method-not-allowed" && header.Get("Allow") == "" {
		w.t.Errorf("%s: nothing says which method is allowed", route)
	}
}

// TestBadContent sends what is right in form and wrong in what it says.
func TestBadContent(t *testing.T) {
	w := newWorld(t)
	op := w.hire("Everyone", "", policy.CAAdmin, policy.CAOperator)
	head := w.head()
	good := testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))
	isCA := testpki.Must(testpki.CSR(testpki.Must(testpki.Key()), pkix.Extension{
		Id: oid.ExtBasicConstraints, Critical: true, Value: testpki.Must(asn1.Marshal(struct{ CA bool }{true})),
	}))
	broken := append([]byte{}, good...)
	broken[len(broken)-1] ^= 1
	issue := func(f func(*client.IssueRequest)) string {
		r := client.IssueRequest{CA: "services", Profile: "server", CSR: good, Name: client.Name{DNS: []string{"a.card.example"}}}
		f(&r)
		return string(testpki.Must(json.Marshal(r)))
	}
	pair := func(f func(*client.PairRequest)) string {
		r := client.PairRequest{Number: "1", City: "330100", CSR: pairCSR()}
		f(&r)
		return string(testpki.Must(json.Marshal(r)))
	}
	absent := strings.Repeat("0", 64)
	for i, q := range []question{
		{what: "rubbish for a CSR", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CSR = []byte("rubbish") }), kind: "bad-request"},
		{what: "a CSR with a broken signature", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CSR = broken }), kind: "bad-request"},
		{what: "CA:TRUE in a CSR", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CSR = isCA }), kind: "bad-request"},
		{what: "no CSR", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CSR = nil }), kind: "bad-request"},
		{what: "an unknown profile", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.Profile = "emperor" }), kind: "unknown-profile"},
		{what: "a CA certificate", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.Profile = "working-ca" }), kind: "forbidden"},
		{what: "a profile of another CA", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CA = "staff" }), kind: "violation"},
		{what: "half a pair", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.Profile = "reader-sign" }), kind: "reader-pair"},
		{what: "an unknown CA", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CA = "moon" }), kind: "not-found"},
		{what: "the root", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.CA = "root" }), kind: "ca-unavailable"},
		{what: "a wildcard", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.Name.DNS = []string{"*.card.example"} }), kind: "violation"},
		{what: "a reader's name for a server", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) { r.Name.DNS = []string{"r1.330100.readers.card.example"} }), kind: "violation"},
		{what: "an approval that is not there", path: "/v1/certificates", body: issue(func(r *client.IssueRequest) {
			r.CA, r.Profile, r.Approval, r.Name = "330100", "city-sign", "none", client.Name{City: "330100"}
		}), kind: "not-found"},
		{what: "rubbish for a serial number", path: "/v1/certificates/01/revoke", kind: "malformed"},
		{what: "a serial number that is not there", path: "/v1/certificates/01" + absent[:32] + "/revoke", kind: "not-found"},
		{what: "a reader number with a dot", path: "/v1/readers", body: pair(func(r *client.PairRequest) { r.Number = "1.x" }), kind: "bad-request"},
		{what: "a pair without its second key", path: "/v1/readers", body: pair(func(r *client.PairRequest) { r.CSR = good }), kind: "bad-request"},
		{what: "a reader that is not there", path: "/v1/readers/9/suspend", kind: "not-found"},
		{what: "an empty batch", path: "/v1/readers/batch", body: `{"city":"330100","readers":[]}`, kind: "malformed"},
		{what: "a CRL of no CA", path: "/v1/cas/moon/crl", kind: "not-found"},
		{what: "a job that is not there", path: "/v1/jobs/9/cancel", kind: "not-found"},
		{what: "an officer without a certificate", path: "/v1/officers", body: `{"name":"x","roles":["auditor"],"certificate":"AAAA"}`, kind: "malformed"},
		{what: "an officer who is not there", method: "DELETE", path: "/v1/officers/" + absent, kind: "not-found"},
		{what: "rubbish for a fingerprint", method: "DELETE", path: "/v1/officers/12", kind: "malformed"},
		{what: "a consent to nothing", path: "/v1/approvals/9", body: `{"cms":"AAAA"}`, kind: "not-found"},
		{what: "an agreement without an end", method: "PUT", path: "/v1/agreements", body: `{"city":"330100","other":"330200"}`, kind: "malformed"},
		{what: "a load that is not there", method: "GET", path: "/v1/topup/transactions/9", kind: "not-found"},
		{what: "a route that is not there", path: "/v1/throne", kind: "no-route"},
		{what: "a limit of nothing", method: "GET", path: "/v1/readers?limit=0", kind: "malformed"},
		{what: "a limit beyond the limit", method: "GET", path: "/v1/readers?limit=1001", kind: "malformed"},
		{what: "a place that no page gave", method: "GET", path: "/v1/readers?after=AAAA", kind: "malformed"},
		{what: "an unknown state", method: "GET", path: "/v1/certificates?state=fine", kind: "malformed"},
		{what: "a time of another form", method: "GET", path: "/v1/certificates?expires-before=soon", kind: "malformed"},
		{what: "a wait of a day", method: "GET", path: "/v1/journal?wait=24h", kind: "malformed"},
		{what: "a negative place", method: "GET", path: "/v1/journal?after=-1", kind: "malformed"},
		{what: "two proofs at once", method: "GET", path: "/v1/journal/proof?seq=1&from=1", kind: "malformed"},
	} {
		if q.method == "" {
			q.method = "POST"
		}
		q.header = []string{client.HeaderIdempotencyKey, fmt.Sprint("k", i)}
		if q.body != "" {
			q.media = client.MediaJSON
		}
		w.refused(op, q.path, q)
	}
	if kinds := w.since(head); len(kinds) > 0 {
		t.Errorf("bad input was journalled as %v", kinds)
	}
}
