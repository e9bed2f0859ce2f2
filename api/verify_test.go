package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/verify"
)

// TestVerifyCertificate: the node judges by the body alone; "not valid" is an
// answer, and a wrong question a problem.
func TestVerifyCertificate(t *testing.T) {
	w := newWorld(t)
	auditor := w.hire("Wang Wu", "", policy.Auditor)
	stranger := testpki.Must(testpki.New(testpki.Config{}))
	server := testpki.Must(stranger.Server("www.card.example"))
	r := client.VerifyRequest{
		Certificate: server.Certificate, Intermediates: server.Chain, Anchors: stranger.Anchors(),
		Purpose: "server", Name: "www.card.example", NoStatus: true,
	}
	v, err := auditor.client.Verify(t.Context(), r)
	w.must(err)
	if !v.Valid || v.Reason != nil || len(v.Path) != 3 || v.Path[2].Source != "anchor" {
		t.Errorf("%+v", v)
	}

	for want, change := range map[string]func(*client.VerifyRequest){
		"status-unknown": func(r *client.VerifyRequest) { r.NoStatus = false },
		"no-issuer":      func(r *client.VerifyRequest) { r.Intermediates = nil },
		"expired":        func(r *client.VerifyRequest) { r.Time = time.Now().AddDate(50, 0, 0) },
		"name-mismatch":  func(r *client.VerifyRequest) { r.Name = "elsewhere.example" },
		"policy":         func(r *client.VerifyRequest) { r.Policies = []string{"1.2.3"} },
		"unreadable":     func(r *client.VerifyRequest) { r.Certificate = []byte("rubbish") },
		"no-anchor":      func(r *client.VerifyRequest) { r.Anchors = nil },
	} {
		bad := r
		change(&bad)
		v, err := auditor.client.Verify(t.Context(), bad)
		w.must(err)
		if v.Valid || v.Reason == nil || v.Reason.ID != want || v.Reason.Detail == "" || !strings.HasPrefix(v.Reason.RFC, "RFC ") {
			t.Errorf("%s: %+v, %+v", want, v, v.Reason)
		}
	}

	for what, change := range map[string]func(*client.VerifyRequest){
		"no certificate": func(r *client.VerifyRequest) { r.Certificate = nil },
		"purpose":        func(r *client.VerifyRequest) { r.Purpose = "everything" },
		"policy":         func(r *client.VerifyRequest) { r.Policies = []string{"medium"} },
		"time": func(r *client.VerifyRequest) {
			r.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600))
		},
		"age": func(r *client.VerifyRequest) { r.MaxAge = -1 },
	} {
		bad := r
		change(&bad)
		_, err := auditor.client.Verify(t.Context(), bad)
		if p := refusedAs(t, err, "malformed"); p.Status != http.StatusBadRequest {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// TestVerdictIsTheAnswer: what hufu verify prints and what the route answers are
// the same JSON.
func TestVerdictIsTheAnswer(t *testing.T) {
	stranger := testpki.Must(testpki.New(testpki.Config{}))
	server := testpki.Must(stranger.Server("www.card.example"))
	for _, noStatus := range []bool{true, false} {
		a := verify.Path(t.Context(), &verify.PathRequest{Certificate: server.Certificate, Intermediates: server.Chain, Anchors: stranger.Anchors(), NoStatus: noStatus})
		want := testpki.Must(json.Marshal(a))
		var v client.Verdict
		if err := json.Unmarshal(want, &v); err != nil {
			t.Fatal(err)
		}
		if got := testpki.Must(json.Marshal(v)); string(got) != string(want) {
			t.Errorf("%s\nis not\n%s", got, want)
		}
	}
}

// TestVerifyManual: docs/verify.md tells every field of the question and of the
// answer, and its examples are of their form.
func TestVerifyManual(t *testing.T) {
	page := string(testpki.Must(os.ReadFile("../docs/verify.md")))
	for _, v := range []any{client.VerifyRequest{}, client.Verdict{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(page, "\n| `"+name+"` | ") {
				t.Errorf("no row of docs/verify.md tells of %s", name)
			}
		}
	}
	var seen int
	for block := range strings.SplitSeq(page, "```") {
		at := strings.Index(block, "{\n")
		if at < 0 {
			continue
		}
		var v any = &client.Verdict{}
		if strings.Contains(block, "POST ") {
			v = &client.VerifyRequest{}
		}
		d := json.NewDecoder(strings.NewReader(strings.ReplaceAll(block[at:], "MIIB...", "MIIB")))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Errorf("%v in the example %s", err, block)
		}
		seen++
	}
	if seen != 2 {
		t.Errorf("%d examples", seen)
	}
}
