package api_test

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hufu/api"
	"hufu/api/client"
	"hufu/policy"
)

// private is what a field would be called that carries a private key.
var private = regexp.MustCompile(`(?i)private|secret|pkcs.?8|scalar|blob|plain`)

// TestNoDoorToEscrow: the doors of the key management centre are these four. None takes a
// key in, wherever it were from, and no door of the whole table takes or gives a field in
// which a private key would travel but the envelope of a recovery.
func TestNoDoorToEscrow(t *testing.T) {
	var doors []string
	for _, rt := range api.Routes {
		if strings.HasPrefix(string(rt.Operation), "escrow.") || strings.Contains(rt.Path, "escrow") {
			doors = append(doors, rt.Method+" "+rt.Path)
			if rt.Write && rt.Operation != policy.OpEscrowRecover {
				t.Errorf("%s writes with the right %s", rt.ID, rt.Operation)
			}
		}
		for _, v := range []any{rt.Body, rt.Answer} {
			for _, name := range fields(reflect.TypeOf(v), map[reflect.Type]bool{}) {
				if private.MatchString(name) {
					t.Errorf("%s carries a field %s", rt.ID, name)
				}
			}
		}
	}
	want := []string{"GET /v1/escrow", "GET /v1/escrow/keys", "POST /v1/escrow/recoveries", "POST /v1/escrow/recoveries/{approval}/release"}
	if !slices.Equal(doors, want) {
		t.Errorf("the doors are %v; read what is new, and say here that it takes no key in", doors)
	}
	if asks := fields(reflect.TypeFor[client.RecoveryRequest](), map[reflect.Type]bool{}); !slices.Equal(asks, []string{"Serial", "Recipient", "Reason"}) {
		t.Errorf("a recovery is asked for with %v", asks)
	}
}

// fields names every field of a type and of the types in it.
func fields(t reflect.Type, seen map[reflect.Type]bool) (names []string) {
	if t == nil || seen[t] {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return fields(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() {
				names = append(append(names, f.Name), fields(f.Type, seen)...)
			}
		}
	}
	return names
}
