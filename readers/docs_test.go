package readers_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"hufu/internal/testpki"
	"hufu/readers"
)

var update = flag.Bool("update", false, "write the table of docs/readers.md anew")

// TestDocumentedSteps holds the table of docs/readers.md against the one that the
// register goes by.
func TestDocumentedSteps(t *testing.T) {
	const file, begin, end = "../docs/readers.md", "<!-- steps -->\n", "<!-- end of steps -->\n"
	var table strings.Builder
	table.WriteString("| step | from | to | certificates | event |\n|---|---|---|---|---|\n")
	for _, s := range readers.Steps {
		from := make([]string, len(s.From))
		for i, state := range s.From {
			if from[i] = string(state); state == "" {
				from[i] = "not registered"
			}
		}
		if len(from) > len(readers.States) {
			from = []string{"any"}
		}
		to := string(s.To)
		if to == "" {
			to = "as it is"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | `%s` |\n", s.Name, strings.Join(from, ", "), to, s.Pair, s.Kind)
	}
	page := string(testpki.Must(os.ReadFile(file)))
	before, rest, found := strings.Cut(page, begin)
	have, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table of steps", file)
	}
	if *update {
		have = table.String()
		if err := os.WriteFile(file, []byte(before+begin+have+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have != table.String() {
		t.Errorf("the table of steps in %s is not the register's; it should be\n%s", file, table.String())
	}
}
