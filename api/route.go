package api

import (
	"net/http"

	"hufu/api/client"
	"hufu/policy"
)

// route is one door. The mux, the OpenAPI document and the test that walks every
// door read the same table of them.
type route struct {
	Method, Path string
	ID           string // operationId
	Doc          string

	Operation policy.Operation // "" where Access lets pass
	Access    access
	City      city
	Write     bool // needs an idempotency key

	Query    []param
	Body     any     // an example, whose type the body is decoded into; nil: no body
	Optional bool    // the body may be left out
	CMS      cmsBody // set where the body may be a bare CMS message instead
	MaxBody  int64   // 0: defaultMax

	Status   int // of success
	Also     int // another status of success, whose answer is an Approval
	Answer   any // of the answer's type; nil: none, or not JSON
	Media    string
	Location bool

	Handle func(*Server, *call) (*answer, error)
}

// access says who passes without a right of the table.
type access uint8

const (
	byRight   access = iota // the caller's roles decide
	anyPerson               // whoever the book knows
	anyPeer                 // whoever passed the TLS door
)

// city says whose city the gate is asked about.
type city struct {
	words string
	find  func(*Server, *call) (string, error) // nil: ""
	later bool                                 // the service finds the city in a signed message and asks itself
}

var (
	noCity  = city{words: "none"}
	ofQuery = city{words: "the parameter city, or else the caller's", find: func(_ *Server, c *call) (string, error) {
		if v := c.query("city"); v != "" {
			return v, nil
		}
		return c.caller.City, nil
	}}
	ofMessage = city{words: "the one that the signed message or the ledger names", later: true}
)

// byCity is the parameter of lists that go by city.
var byCity = param{"city", "string", "city code; absent means the caller's, or all for the centre"}

// noRoute answers whatever no route takes.
var noRoute = route{ID: "none", Path: "/", Access: anyPeer, Handle: func(s *Server, c *call) (*answer, error) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		r := c.Request.Clone(c.Context())
		r.Method = m
		if _, pattern := s.mux.Handler(r); pattern != "/" {
			allow = append(allow, m)
		}
	}
	if allow == nil {
		return nil, problemf(kindNoRoute, "no route is named %s", c.URL.Path)
	}
	for _, m := range allow {
		c.w.Header().Add("Allow", m)
	}
	return nil, problemf(kindMethod, "%s does not take %s", c.URL.Path, c.Method)
}}

// What the examples of the document have in common.
var (
	exampleDER   = []byte("\x30\x03\x02\x01\x00")
	exampleIssue = client.IssueRequest{CA: "services", Profile: "server", CSR: exampleDER, Name: client.Name{DNS: []string{"gateway.card.example"}}}
	examplePlan  = client.MassPlan{Hufu: "reader-mass", Book: "0123456789abcdef0123456789abcdef", Epoch: 1, Seq: 4711, Action: "suspend",
		Selection: client.MassSelection{City: "330100", Model: "CR-1"}, Count: 1, SHA256: "12ae32cb1ec02d01eda3581b127c1fee3b0dc53572ed6baf239721a03d82e126",
		Sample: []string{"1000001"}, States: map[string]int{"active": 1}}
	examplePair = client.PairRequest{Number: "1000001", City: "330100", Model: "CR-1", CSR: exampleDER}
)
