package client

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// Problem is a refusal (RFC 9457): what went wrong and what helps.
type Problem struct {
	Type     string `json:"type" doc:"a stable name of the kind of problem, a path below /problems/ that tells more"`
	Title    string `json:"title" doc:"the kind of problem in a few words"`
	Status   int    `json:"status" doc:"the HTTP status"`
	Detail   string `json:"detail,omitempty" doc:"what went wrong this time"`
	Remedy   string `json:"remedy,omitempty" doc:"what helps"`
	Instance string `json:"instance,omitempty" doc:"names the request in the node's log"`
	Rule     string `json:"rule,omitempty" doc:"the rule of policy that was broken"`
	Citation string `json:"citation,omitempty" doc:"the clause that the rule comes from"`
	Half     string `json:"half,omitempty" doc:"which half of the tally did not fit: presented or kept"`

	Manifest *Faults `json:"manifest,omitempty" doc:"what is wrong with a manifest"`
}

// Error says what went wrong; the remedy is left to the program that shows it.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

// Hint is the remedy.
func (p *Problem) Hint() string { return p.Remedy }

// problemOf reads the problem from an answer that is not 2xx.
func problemOf(resp *http.Response) error {
	var p Problem
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	m, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || m != MediaProblem || json.Unmarshal(body, &p) != nil {
		return fmt.Errorf("the node answered %s without a problem document; is it a Hufu node?", resp.Status)
	}
	return &p
}
