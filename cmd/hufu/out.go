package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/width"
)

// table is what a list command shows; headings are English phrases that the
// dictionary knows.
type table struct {
	heads []string
	rows  [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// show writes v in the form asked for: the table, or the same value that the
// API gave as JSON or YAML.
func (g *globals) show(cmd *cobra.Command, v any, t *table) error {
	w := cmd.OutOrStdout()
	switch g.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		return writeYAML(w, v)
	}
	t.write(w, g)
	return nil
}

// writeYAML goes through JSON, so that both forms have the same field names.
func writeYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return err
	}
	blockStyle(&node)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return err
	}
	return e.Close()
}

func blockStyle(n *yaml.Node) {
	n.Style = 0 // quotes come back where a string would read as something else
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// write aligns by columns on screen, where a Chinese character takes two.
func (t *table) write(w io.Writer, g *globals) {
	heads := make([]string, len(t.heads))
	for i, h := range t.heads {
		heads[i] = strings.ToUpper(g.say(h))
	}
	wide := make([]int, len(heads))
	for _, row := range append([][]string{heads}, t.rows...) {
		for i, cell := range row {
			wide[i] = max(wide[i], columns(cell))
		}
	}
	line := func(row []string) {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", wide[i]-columns(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(heads)
	for _, row := range t.rows {
		line(row)
	}
}

// columns counts the terminal columns of s.
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// field is one line of a single object's view.
type field struct{ name, value string }

// showFields writes one object, a line for each field.
func (g *globals) showFields(cmd *cobra.Command, v any, fields []field) error {
	if g.output != "table" {
		return g.show(cmd, v, nil)
	}
	wide := 0
	for _, f := range fields {
		wide = max(wide, columns(g.say(f.name)))
	}
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		name := g.say(f.name)
		fmt.Fprintf(cmd.OutOrStdout(), "%s%s  %s\n", name, strings.Repeat(" ", wide-columns(name)), f.value)
	}
	return nil
}
