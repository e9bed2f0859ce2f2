package hsm_test

import (
	"reflect"
	"testing"

	"hufu/hsm"
)

func TestParseURI(t *testing.T) {
	for _, test := range []struct {
		in   string
		want hsm.URI
		out  string // "" is in
	}{
		{"pkcs11:", hsm.URI{}, ""},
		{"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0",
			hsm.URI{Token: "The Software PKCS#11 Softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0"}, ""},
		{"pkcs11:object=my-pubkey;type=public", hsm.URI{Object: "my-pubkey", Type: "public"}, ""},
		// id is percent-encoded octets: %65%63%31 is "ec1", not the hexadecimal 656331.
		{"pkcs11:id=%65%63%31", hsm.URI{ID: []byte("ec1")}, ""},
		{"pkcs11:id=ec1", hsm.URI{ID: []byte("ec1")}, "pkcs11:id=%65%63%31"},
		{"pkcs11:id=%00%FF", hsm.URI{ID: []byte{0, 255}}, ""},
		{"PKCS11:token=a%3Bb%3fc", hsm.URI{Token: "a;b?c"}, "pkcs11:token=a%3Bb%3Fc"},
		{"pkcs11:token=%E8%99%8E%E7%AC%A6?module-path=/usr/lib/x.so",
			hsm.URI{Token: "虎符", ModulePath: "/usr/lib/x.so"}, "pkcs11:token=%E8%99%8E%E7%AC%A6?module-path=%2Fusr%2Flib%2Fx.so"},
		{"pkcs11:serial=1;token=t?pin-source=file:%2Fp&module-name=m",
			hsm.URI{Token: "t", Serial: "1", PINSource: "file:/p", ModuleName: "m"}, "pkcs11:token=t;serial=1?pin-source=file:%2Fp&module-name=m"},
	} {
		u, err := hsm.ParseURI(test.in)
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		if !reflect.DeepEqual(*u, test.want) {
			t.Errorf("%s: got %+v", test.in, *u)
		}
		want := test.out
		if want == "" {
			want = test.in
		}
		if got := u.String(); got != want {
			t.Errorf("%s: written as %s", test.in, got)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for in, word := range map[string]string{
		"":                               "pkcs11:",
		"http://x":                       "pkcs11:",
		"pkcs11:token":                   "no value",
		"pkcs11:token=a;token=b":         "twice",
		"pkcs11:token=%4":                "percent",
		"pkcs11:token=%zz":               "percent",
		"pkcs11:token=%ff":               "UTF-8",
		"pkcs11:x-vendor=1":              "x-vendor",
		"pkcs11:token=a;module-path=/x":  "module-path",
		"pkcs11:token=a?token=b":         "token",
		"pkcs11:token=a?pin-value=1234":  "pin-value",
		"pkcs11:token=a;pin-value=12345": "pin-value",
		"pkcs11:token=a;;serial=1":       "no value",
	} {
		_, err := hsm.ParseURI(in)
		if err == nil {
			t.Errorf("%s: accepted", in)
			continue
		}
		wantError(t, err, nil, word)
	}
}

// What is written parses to the same.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=a;serial=%31;id=%00%01?module-path=/x")
	f.Add("pkcs11:object=%E8%99%8E;type=private;slot-id=3?module-name=m&pin-source=x")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := hsm.ParseURI(s)
		if err != nil {
			return
		}
		again, err := hsm.ParseURI(u.String())
		if err != nil {
			t.Fatalf("%q is written as %q, which does not parse: %v", s, u, err)
		}
		if !reflect.DeepEqual(u, again) {
			t.Fatalf("%q: %+v became %+v", s, u, again)
		}
	})
}
