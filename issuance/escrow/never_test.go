package escrow_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hufu/issuance/escrow"
)

// The tests here hold that signing keys are never escrowed: no function takes a key in,
// and nobody but this package makes, wraps or passes on what is kept. (api and cmd/hufu
// hold the same for the routes and the commands; ca for the profiles.)

// TestNobodyBringsAKey: the exported functions are these, and none takes a key from
// outside: what they take is public keys, certificates, names and transactions.
func TestNobodyBringsAKey(t *testing.T) {
	want := []string{"Check", "Claim", "Claimed", "Deliver", "Fill", "InUse", "List", "Officers", "Prepare", "Recover", "Refuse", "Release", "Retire", "Run", "Status"}
	var have []string
	centre := reflect.TypeFor[*escrow.Escrow]()
	for m := range centre.Methods() {
		have = append(have, m.Name)
	}
	if !slices.Equal(have, want) {
		t.Errorf("the centre can do %v; read what is new, and say here that it takes no key in", have)
	}
	for _, s := range sources(t, "issuance/escrow") {
		ast.Inspect(s.file, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() {
				return true
			}
			for _, p := range f.Type.Params.List {
				for _, name := range p.Names {
					lower := strings.ToLower(name.Name)
					for _, bad := range []string{"blob", "private", "pkcs8", "secret", "plain"} {
						if strings.Contains(lower, bad) {
							t.Errorf("%s: %s takes %s", s.path, f.Name.Name, name.Name)
						}
					}
				}
			}
			return true
		})
	}
}

// TestOnlyEscrowKeeps: who finds the wrapping key, makes a key under it, passes one on, or
// seals one. A key that can be wrapped is made nowhere else.
func TestOnlyEscrowKeeps(t *testing.T) {
	only := []string{"WrappingKey", "GenerateWrappingKey", "MakeWrapped", "Rewrap", "SealKey"}
	seen := map[string]bool{}
	kept := 0
	for _, s := range sources(t, "") {
		if s.pkg == "hsm" || s.pkg == "internal/cms" {
			continue // where these are made
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if slices.Contains(only, n.Sel.Name) {
					seen[n.Sel.Name] = true
					if s.pkg != "issuance/escrow" {
						t.Errorf("%s uses %s: that is for issuance/escrow alone", s.path, n.Sel.Name)
					}
				}
			case *ast.KeyValueExpr:
				key, ok := n.Key.(*ast.Ident)
				if !ok {
					return true
				}
				if key.Name == "Extractable" {
					t.Errorf("%s makes a key extractable", s.path)
				}
				// The record of a kept key is made in one place.
				if key.Name == "Blob" && s.pkg == "issuance/escrow" {
					kept++
				}
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					sel, ok := left.(*ast.SelectorExpr)
					// Reading the row of a kept key is not keeping one, and what a recall
					// from directories has kept is no key.
					if !ok || sel.Sel.Name == "Blob" && s.path == "issuance/escrow/key.go" || sel.Sel.Name == "Kept" && s.pkg == "ldapsync" {
						continue
					}
					if sel.Sel.Name == "Extractable" || sel.Sel.Name == "Kept" || sel.Sel.Name == "Blob" {
						t.Errorf("%s sets %s", s.path, sel.Sel.Name)
					}
				}
			case *ast.CompositeLit:
				keptRequest(t, s, n)
			}
			return true
		})
	}
	for _, name := range only {
		if !seen[name] {
			t.Errorf("nobody uses %s: the test looks in the wrong place", name)
		}
	}
	if kept != 1 {
		t.Errorf("the record of a kept key is made in %d places, not where the token made the key alone", kept)
	}
}

// keptRequest demands that a request for a kept key names the one profile.
func keptRequest(t *testing.T, s source, lit *ast.CompositeLit) {
	named, ok := "", false
	for _, e := range lit.Elts {
		kv, is := e.(*ast.KeyValueExpr)
		if !is {
			continue
		}
		key, _ := kv.Key.(*ast.Ident)
		switch {
		case key == nil:
		case key.Name == "Kept":
			ok = true
		case key.Name == "Profile":
			if b, is := kv.Value.(*ast.BasicLit); is {
				named = b.Value
			}
		}
	}
	if ok && named != `"reader-encrypt"` {
		t.Errorf("%s asks for a certificate of a kept key with profile %s", s.path, named)
	}
}

type source struct {
	pkg, path string
	file      *ast.File
}

// sources parses the sources of the module, without tests, below a folder.
func sources(t *testing.T, below string) (all []source) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(filepath.Join(root, below), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && rel != "." || d.Name() == "testdata" || d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && rel != "." && d.Name() != ".." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			all = append(all, source{filepath.ToSlash(filepath.Dir(rel)), rel, f})
		}
		return err
	})
	if err != nil || len(all) < 5 {
		t.Fatalf("%d sources: %v", len(all), err)
	}
	return all
}
