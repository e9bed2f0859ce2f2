package main_test

import (
	"os"
	"strings"
	"testing"
)

// TestEveryDependencyHasItsLine: a module that we import ourselves stands in
// docs/dependencies.md, and what stands there is in go.mod.
func TestEveryDependencyHasItsLine(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) == 2 && strings.HasPrefix(line, "\t") {
			direct[f[0]] = true
		}
	}
	if len(direct) < 10 {
		t.Fatalf("only %d direct dependencies found in go.mod", len(direct))
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.Contains(name, ".") {
			listed[name] = true
		}
	}
	for m := range direct {
		if !listed[m] {
			t.Errorf("docs/dependencies.md has no line for %s", m)
		}
	}
	for m := range listed {
		if !direct[m] {
			t.Errorf("docs/dependencies.md tells of %s, which go.mod does not require directly", m)
		}
	}
}
