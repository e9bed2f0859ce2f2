package api_test

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hufu/api"
	"hufu/policy"
)

type document struct {
	OpenAPI    string
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		Responses       map[string]response
		SecuritySchemes map[string]struct{ Type string }
	}
	Security []map[string][]string
}

type operation struct {
	OperationID string
	Summary     string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   schema
	}
	RequestBody *struct {
		Required bool
		Content  map[string]struct {
			Schema  schema
			Example json.RawMessage
		}
	}
	Responses map[string]response
	Right     string `json:"x-hufu-operation"`
	City      string `json:"x-hufu-city"`
}

type response struct {
	Ref         string `json:"$ref"`
	Description string
	Content     map[string]struct{ Schema schema }
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Description          string
	Properties           map[string]schema
	Required             []string
	Items                *schema
	AdditionalProperties *schema
}

func read(t *testing.T) *document {
	t.Helper()
	var d document
	if err := json.Unmarshal(api.Document("test"), &d); err != nil {
		t.Fatalf("the document is not JSON: %v", err)
	}
	return &d
}

func TestDocumentHasEveryRouteAndNoOther(t *testing.T) {
	d := read(t)
	if d.OpenAPI != "3.1.0" || d.Info.Title == "" || d.Info.Version == "" {
		t.Errorf("the head of the document is not complete: %q, %+v", d.OpenAPI, d.Info)
	}
	if len(d.Security) != 1 || d.Components.SecuritySchemes["mutualTLS"].Type != "mutualTLS" {
		t.Errorf("the document does not ask for mutual TLS")
	}
	ids := map[string]bool{}
	n := 0
	for _, item := range d.Paths {
		n += len(item)
	}
	if n != len(api.Routes) {
		t.Errorf("the document has %d operations, the table %d routes", n, len(api.Routes))
	}
	for _, rt := range api.Routes {
		op, ok := d.Paths[rt.Path][strings.ToLower(rt.Method)]
		if !ok {
			t.Errorf("%s %s is not in the document", rt.Method, rt.Path)
			continue
		}
		if op.OperationID == "" || ids[op.OperationID] {
			t.Errorf("%s %s: the operationId %q is empty or used twice", rt.Method, rt.Path, op.OperationID)
		}
		ids[op.OperationID] = true
		if op.Summary == "" || op.City == "" {
			t.Errorf("%s: nothing says what it does, or whose city it concerns", op.OperationID)
		}
		if op.Right != string(rt.Operation) || (rt.Operation == "") != (rt.Access != 0) {
			t.Errorf("%s: the right is %q; access %d", op.OperationID, op.Right, rt.Access)
		}
		if rt.Operation != "" && !slices.Contains(policy.Operations(), rt.Operation) {
			t.Errorf("%s: policy knows no operation %q", op.OperationID, rt.Operation)
		}
		if rt.Write && rt.Method == "GET" || !rt.Write && rt.Method != "GET" && rt.ID != "verifyLoad" && rt.ID != "verifyCertificate" && rt.ID != "checkManifest" {
			t.Errorf("%s: a %s that is a write: %v", op.OperationID, rt.Method, rt.Write)
		}
		checkParameters(t, rt, op)
		checkResponses(t, rt, op)
	}
}

func checkParameters(t *testing.T, rt api.Route, op operation) {
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(rt.Path, -1) {
		want[m[1]] = "path"
	}
	for _, p := range rt.Query {
		want[p.Name] = "query"
	}
	if rt.Write {
		want["Idempotency-Key"] = "header"
	}
	for _, p := range op.Parameters {
		if want[p.Name] != p.In || p.Schema.Type == "" || p.Required != (p.In != "query") {
			t.Errorf("%s: the parameter %+v does not fit the table", op.OperationID, p)
		}
		delete(want, p.Name)
	}
	if len(want) > 0 {
		t.Errorf("%s: the document lacks the parameters %v", op.OperationID, want)
	}
}

func checkResponses(t *testing.T, rt api.Route, op operation) {
	ok, there := op.Responses[strconv.Itoa(rt.Status)]
	if !there || ok.Description == "" || len(ok.Content) == 0 {
		t.Errorf("%s: nothing says what comes with status %d", op.OperationID, rt.Status)
	}
	if op.Responses["default"].Ref != "#/components/responses/Problem" {
		t.Errorf("%s: the document does not say what a refusal looks like", op.OperationID)
	}
	if (op.RequestBody == nil) != (rt.Body == nil) {
		t.Errorf("%s: the body of the table and that of the document differ", op.OperationID)
	}
}

// TestDocumentSchemas follows every reference, and asks that each field says
// what it is.
func TestDocumentSchemas(t *testing.T) {
	d := read(t)
	used := map[string]bool{}
	var follow func(where string, s schema)
	follow = func(where string, s schema) {
		if s.Ref != "" {
			name := strings.TrimPrefix(s.Ref, "#/components/schemas/")
			target, ok := d.Components.Schemas[name]
			if !ok {
				t.Errorf("%s refers to %s, which is not there", where, s.Ref)
			}
			if used[name] {
				return
			}
			used[name] = true
			if target.Type != "object" || len(target.Properties) == 0 {
				t.Errorf("schema %s is not an object with properties", name)
			}
			for _, field := range target.Required {
				if _, ok := target.Properties[field]; !ok {
					t.Errorf("schema %s demands %s, which it does not have", name, field)
				}
			}
			for field, p := range target.Properties {
				if p.Description == "" {
					t.Errorf("%s.%s: nothing says what it is", name, field)
				}
				follow(name+"."+field, p)
			}
		}
		if s.Items != nil {
			follow(where, *s.Items)
		}
		if s.AdditionalProperties != nil {
			follow(where, *s.AdditionalProperties)
		}
	}
	for path, item := range d.Paths {
		for method, op := range item {
			where := method + " " + path
			for _, r := range op.Responses {
				for _, c := range r.Content {
					follow(where, c.Schema)
				}
			}
			if op.RequestBody != nil {
				for _, c := range op.RequestBody.Content {
					follow(where, c.Schema)
				}
			}
		}
	}
	follow("problem", d.Components.Responses["Problem"].Content["application/problem+json"].Schema)
	for name := range d.Components.Schemas {
		if !used[name] {
			t.Errorf("schema %s is used nowhere", name)
		}
	}
}

// TestDocumentExamples decodes each example as the route would, and finds
// nothing lost.
func TestDocumentExamples(t *testing.T) {
	d := read(t)
	for _, rt := range api.Routes {
		if rt.Body == nil {
			continue
		}
		example := d.Paths[rt.Path][strings.ToLower(rt.Method)].RequestBody.Content["application/json"].Example
		v := reflect.New(reflect.TypeOf(rt.Body))
		if err := api.Decode(example, v.Interface()); err != nil {
			t.Errorf("%s: the example is refused: %v", rt.ID, err)
		}
		if !reflect.DeepEqual(v.Elem().Interface(), rt.Body) {
			t.Errorf("%s: the example comes back as %+v, want %+v", rt.ID, v.Elem().Interface(), rt.Body)
		}
	}
}

func TestProblemKindsAreStable(t *testing.T) {
	// Programs tell problems apart by these names: one may be added, none may go.
	want := []string{
		"already-initialised", "approval", "bad-request", "ca-unavailable", "caller-refused", "certificate-on-hold", "certificate-required", "certificate-revoked", "city-cannot-sign",
		"exists", "forbidden", "idempotency-key-missing", "idempotency-key-reused", "internal", "key-taken", "list-refused", "load-conflict", "malformed", "manifest-faulty", "media-type",
		"message-expired", "message-malformed", "method-not-allowed", "misfit", "no-centre", "no-route", "not-found", "not-on-ticket", "officer-refused", "plan-refused", "proof-failed", "quota-spent", "reader-pair", "recovery-refused", "session-unknown", "stage1-refused", "status-stale",
		"ticket-expired", "ticket-not-ready", "ticket-revoked", "too-large", "too-many-requests", "unavailable", "unknown-profile", "violation", "wrong-city", "wrong-state",
	}
	var have []string
	for _, k := range api.Kinds {
		have = append(have, k.Name)
		if k.Status < 400 || k.Title == "" || k.Remedy == "" {
			t.Errorf("the kind %+v lacks something", k)
		}
	}
	for _, name := range want {
		if !slices.Contains(have, name) {
			t.Errorf("the kind of problem %s is gone", name)
		}
	}
	slices.Sort(have)
	if len(slices.Compact(have)) != len(want) {
		t.Errorf("the kinds are %v; add new ones to this list", have)
	}
}
