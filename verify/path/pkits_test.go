package path_test

import (
	"archive/zip"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"hufu/verify/path"
)

// pkits is NIST's Public Key Interoperability Test Suite: its certificates, and its
// expectations as the Go project wrote them down (testdata/pkits.zip; works of the
// United States Government, in the public domain). TestPKITSLists has the lists.
type pkits struct {
	Name                        string
	CertPath, CRLPath           []string
	ShouldValidate              bool
	InitialPolicySet            []string
	InitialPolicyMappingInhibit bool
	InitialExplicitPolicy       bool
	InitialAnyPolicyInhibit     bool
}

// pkitsByStatus names the tests, or sections, whose expected "invalid" rests on a
// revocation list.
var pkitsByStatus = []string{"4.4.", "4.5.2 ", "4.5.5 ", "4.5.7 ", "4.5.8 ", "4.7.4 ", "4.7.5 ", "4.14.", "4.15."}

// pkitsRefused names what is valid by RFC 5280 and refused here, each with why.
var pkitsRefused = map[string]string{
	"4.1.4 ": "DSA", "4.1.5 ": "DSA with inherited parameters",
}

func TestPKITS(t *testing.T) {
	files := readZip(t, "testdata/pkits.zip")
	var tests []pkits
	if err := json.Unmarshal(files["vectors.json"], &tests); err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, tc := range tests {
		t.Run(tc.Name, func(t *testing.T) {
			r := path.Request{
				NoStatus: true, ExplicitPolicy: tc.InitialExplicitPolicy, InhibitMapping: tc.InitialPolicyMappingInhibit,
				InhibitAny: tc.InitialAnyPolicyInhibit, Time: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
			}
			for i, name := range tc.CertPath {
				der := files["certs/"+name]
				switch {
				case der == nil:
					t.Fatalf("%s is not there", name)
				case i == 0:
					r.Anchors = [][]byte{der}
				case i == len(tc.CertPath)-1:
					r.Certificate = der
				default:
					r.Intermediates = append(r.Intermediates, der)
				}
			}
			for _, p := range tc.InitialPolicySet {
				n, numbered := strings.CutPrefix(p, "NIST-test-policy-")
				if numbered {
					r.Policies = append(r.Policies, "2.16.840.1.101.3.2.1.48."+n)
				} else if p != "anyPolicy" {
					t.Fatalf("policy %s", p)
				}
			}
			a := path.Validate(t.Context(), &r)
			if !a.Valid && a.Reason == nil || a.Valid && a.Reason != nil {
				t.Fatalf("an answer without a reason, or with one too many: %+v", a)
			}
			for prefix, why := range pkitsRefused {
				if strings.HasPrefix(tc.Name, prefix) {
					if a.Valid {
						t.Fatalf("valid, although %s", why)
					}
					return
				}
			}
			for _, prefix := range pkitsByStatus {
				if strings.HasPrefix(tc.Name, prefix) {
					return
				}
			}
			judged++
			if a.Valid != tc.ShouldValidate {
				t.Errorf("valid is %v, want %v: %v", a.Valid, tc.ShouldValidate, a.Reason)
			}
			if !a.Valid {
				t.Logf("%v", a.Reason)
			}
		})
	}
	t.Logf("%d tests judged", judged)
	if judged < 150 {
		t.Errorf("only %d tests were judged", judged)
	}
}

func readZip(t *testing.T, name string) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return files
}
