package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hufu/verify/path"
)

// phrases finds every text that the sources show through the dictionary.
func phrases(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				found = append(found, s)
			}
		}
	}
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				switch {
				case ok && sel.Sel.Name == "say" && len(n.Args) > 0:
					add(n.Args[0])
				case ok && sel.Sel.Name == "tell" && len(n.Args) > 1:
					add(n.Args[1])
				}
			case *ast.KeyValueExpr:
				if k, ok := n.Key.(*ast.Ident); ok && k.Name == "heads" {
					if list, ok := n.Value.(*ast.CompositeLit); ok {
						for _, e := range list.Elts {
							add(e)
						}
					}
				}
			case *ast.CompositeLit:
				if a, ok := n.Type.(*ast.ArrayType); ok {
					if id, ok := a.Elt.(*ast.Ident); ok && id.Name == "field" {
						for _, e := range n.Elts {
							if one, ok := e.(*ast.CompositeLit); ok {
								add(one.Elts[0])
							}
						}
					}
				}
			}
			return true
		})
	}
	for _, r := range path.Reasons { // hufu verify says them
		found = append(found, r.Words)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// TestEveryPhraseHasChinese: what people read comes in both languages, with the
// same places for values.
func TestEveryPhraseHasChinese(t *testing.T) {
	all := phrases(t)
	if len(all) < 60 {
		t.Fatalf("only %d phrases found: the search is broken", len(all))
	}
	for _, p := range all {
		if strings.HasPrefix(strings.TrimSpace(p), "$ hufu") || strings.Trim(p, " %s") == "" || !strings.ContainsFunc(strings.ReplaceAll(p, "%", ""), func(r rune) bool { return r >= 'a' && r <= 'z' && r != 's' && r != 'd' }) {
			continue // a command, or nothing but values
		}
		z, ok := chinese[p]
		if !ok {
			t.Errorf("no Chinese for %q", p)
			continue
		}
		if strings.Count(p, "%") != strings.Count(z, "%") {
			t.Errorf("%q and %q take different values", p, z)
		}
	}
	spoken := sources(t)
	for p := range chinese {
		if !slices.Contains(all, p) && !indirect[p] && !strings.Contains(spoken, strconv.Quote(p)) {
			t.Errorf("the dictionary's %q is said nowhere", p)
		}
	}
}

// sources is what this command is made of, but for the dictionary: hints stand
// where their error is made, and are said in one place.
func sources(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		if name == "chinese.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(raw)
	}
	return all.String()
}

// indirect are phrases that reach the dictionary through a variable.
var indirect = map[string]bool{
	"root ceremony and working CAs": true, "book, first admins, first CRLs": true, "directories (slapd)": true, "node": true,
	"officers, each approved by a second admin": true, "reader pairs": true, "%s. Type %q to go on: ": true, "history": true, "CRL": true,
}

func TestTableAlignsChinese(t *testing.T) {
	var b strings.Builder
	g := &globals{lang: "zh", output: "table"}
	tab := &table{heads: []string{"number", "city"}}
	tab.add("一二", "x")
	tab.add("abcd", "y")
	tab.write(&b, g)
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for _, l := range lines[1:] {
		if at := columns(l[:strings.LastIndexAny(l, "xy")]); at != 6 {
			t.Errorf("second column of %q begins at %d, not 6", l, at)
		}
	}
}
