package api_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"hufu/api"
	"hufu/api/client"
)

// FuzzDecode holds that whatever is taken as a body comes back the same when it
// is written and read again, so that the hash of a request and what is done for
// it cannot fall apart.
func FuzzDecode(f *testing.F) {
	for _, rt := range api.Routes {
		if rt.Body != nil {
			b, err := json.Marshal(rt.Body)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, v := range []any{&client.IssueRequest{}, &client.BatchRequest{}, &client.Authorisation{}, &client.AgreementRequest{}, &client.VerifyRequest{}} {
			if api.Decode(body, v) != nil {
				continue
			}
			written, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%s is taken as %+v, which cannot be written: %v", body, v, err)
			}
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := api.Decode(written, again); err != nil {
				t.Fatalf("%s is taken as %+v, and %s is not: %v", body, v, written, err)
			}
			rewritten, err := json.Marshal(again)
			if err != nil || string(rewritten) != string(written) {
				t.Fatalf("%s comes back as %s (%v)", written, rewritten, err)
			}
		}
	})
}
