package policy_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"hufu/internal/testpki"
	"hufu/policy"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// cases are the ways in which a caller's city and the operation's can stand to
// each other, and what each scope grants of them.
var cases = []struct{ home, city string }{
	{"", ""}, {"", "330100"}, {"330100", "330100"}, {"330100", "330200"}, {"330100", ""},
}

var scopes = map[[5]bool]string{
	{}:                             "-",
	{true, true, true}:             "own",
	{true, true}:                   "hub",
	{true, true, true, true, true}: "all",
}

// TestRights holds every cell of the table against testdata/rights.golden, which
// was read by people: change both, and say why.
func TestRights(t *testing.T) {
	lines := []string{
		"# What each role may do. own: in the caller's own city, for the centre everywhere; hub: the centre only; all: everywhere.",
		row("", func(r policy.Role) string { return string(r) }),
	}
	for _, op := range policy.Operations() {
		lines = append(lines, row(string(op), func(r policy.Role) string { return cell(t, r, op) }))
	}
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/rights.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(testpki.Must(os.ReadFile("testdata/rights.golden"))); got != want {
		t.Errorf("the table is not the one that was read by people:\n%s", got)
	}
}

func row(head string, cell func(policy.Role) string) string {
	line := fmt.Sprintf("%-20s", head)
	for _, role := range policy.Roles {
		line += fmt.Sprintf(" %-13s", cell(role))
	}
	return strings.TrimRight(line, " ")
}

func cell(t *testing.T, role policy.Role, op policy.Operation) string {
	var granted [5]bool
	for i, c := range cases {
		err := policy.Allowed(policy.Caller{Name: "x", Roles: []policy.Role{role}, City: c.home}, op, c.city)
		granted[i] = err == nil
		var denied *policy.Denied
		if err != nil && (!errors.As(err, &denied) || denied.Operation != op || denied.City != c.city) {
			t.Errorf("%s %s: %v", role, op, err)
		}
	}
	name, ok := scopes[granted]
	if !ok {
		t.Errorf("%s may do %s by no known scope: %v", role, op, granted)
	}
	return name
}

func TestRightsDenyByDefault(t *testing.T) {
	for name, err := range map[string]error{
		"no role":           policy.Allowed(policy.Caller{Name: "x"}, policy.OpCARead, ""),
		"unknown role":      policy.Allowed(policy.Caller{Name: "x", Roles: []policy.Role{"king"}}, policy.OpCARead, ""),
		"unknown operation": policy.Allowed(policy.Caller{Name: "x", Roles: policy.Roles}, "reader.destroy", ""),
		"no operation":      policy.Allowed(policy.Caller{Name: "x", Roles: policy.Roles}, "", ""),
	} {
		var denied *policy.Denied
		if !errors.As(err, &denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	both := policy.Caller{Name: "x", City: "330100", Roles: []policy.Role{policy.Counter, policy.Auditor}}
	if err := policy.Allowed(both, policy.OpReaderRead, "330200"); err != nil {
		t.Errorf("the wider of two roles does not count: %v", err)
	}
	err := policy.Allowed(policy.Caller{Name: "Wang", City: "330100", Roles: []policy.Role{policy.Counter}}, policy.OpReaderRevoke, "330200")
	if want := `"Wang" (counter) of city 330100 may not do reader.revoke in city 330200: ask somebody whose role allows it`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}
