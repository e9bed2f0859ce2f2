package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors lists, for every package, the Hufu packages that it may import.
// Imports go down only; a package that is not here may not exist. Test files
// may import anything, since they look at the house from outside.
var floors = map[string][]string{
	// The cellar: mechanisms that know nothing of the house.
	"internal/oid":      {},
	"internal/dn":       {},
	"internal/cms":      {"internal/oid"},
	"internal/ocsp":     {"internal/oid"},
	"internal/crl":      {"internal/oid"},
	"internal/crlcheck": {}, // judges the lists, so shares nothing with what makes them
	"internal/child":    {},
	"internal/leak":     {},
	"internal/ds389":    {"internal/child"},
	"internal/pcscd":    {"internal/child"},
	"internal/slapd":    {"internal/child"},
	"internal/softhsm":  {},
	"internal/testpki":  {"internal/oid", "issuance", "policy", "store"},

	// Floor 0.
	"policy":           {"internal/oid"},
	"hsm":              {},
	"readers/apdu":     {},
	"store":            {},
	"store/bolt":       {"store"},
	"store/enginetest": {"store"},

	// Floor 1.
	"verify/path": {"internal/crl", "internal/dn", "internal/ocsp", "internal/oid"},
	"issuance":    {"internal/crl", "internal/ocsp", "internal/oid", "policy", "store"},
	"verify":      {"internal/cms", "internal/crl", "internal/ocsp", "internal/oid", "policy", "store", "verify/path"},
	"jobs":        {"store"},

	// Floor 2.
	"ldapsync":     {"internal/crl", "internal/ocsp", "internal/oid", "store"},
	"ca/responder": {"internal/crl", "internal/ocsp", "internal/oid", "issuance", "store"},
	"officers":     {"internal/cms", "internal/oid", "policy", "store", "verify"},

	"issuance/escrow": {"hsm", "internal/cms", "store", "verify"},

	// Floor 3.
	"ca":          {"internal/crl", "internal/oid", "issuance", "policy", "store"},
	"ca/ceremony": {"hsm", "internal/crl", "internal/oid", "issuance", "policy", "store", "verify"},

	// Floor 4.
	"readers":        {"ca", "internal/oid", "policy", "store"},
	"readers/stage1": {"ca", "internal/cms", "internal/oid", "issuance", "jobs", "policy", "readers", "store", "verify"},
	"readers/stage2": {"ca", "internal/cms", "internal/oid", "issuance", "issuance/escrow", "policy", "readers", "readers/stage1", "store", "verify"},
	"topup":          {"internal/cms", "internal/oid", "policy", "store", "verify"},

	// Floor 5.
	"api": {"api/client", "ca", "ca/responder", "internal/cms", "internal/oid", "issuance", "issuance/escrow", "jobs", "ldapsync", "officers",
		"policy", "readers", "readers/stage1", "readers/stage2", "store", "topup", "verify", "verify/path"},
	"api/client": {},
	"ca/stepca":  {"ca", "internal/oid", "issuance", "policy", "store"},
}

// The roof wires everything together.
var roof = []string{"cmd/hufu"}

// exampleImports is what a program under examples may use: what a stranger's
// program could use, and the helpers that start real servers.
var exampleImports = []string{"api/client", "verify", "hsm", "internal/cms", "internal/oid", "internal/slapd", "internal/softhsm", "readers/apdu"}

// doors names the only packages that may import a module (by import path
// prefix). Test files are free.
var doors = map[string][]string{
	"github.com/miekg/pkcs11":         {"hsm"},
	"go.etcd.io/bbolt":                {"store/bolt"},
	"github.com/jackc/pgx":            {"store/postgres"},
	"github.com/go-ldap/ldap":         {"ldapsync"},
	"github.com/smallstep":            {"ca/stepca"},
	"go.step.sm":                      {"ca/stepca"},
	"github.com/go-chi/chi":           {"ca/stepca"},
	"github.com/ebfe/scard":           {"examples/reader/pcsc"},
	"github.com/spf13/cobra":          {"cmd/hufu"},
	"github.com/vbauerster/mpb":       {"cmd/hufu"},
	"github.com/zmap/zlint":           {"issuance"},
	"github.com/zmap/zcrypto":         {"issuance"},
	"golang.org/x/crypto/ocsp":        {},
	"github.com/prometheus":           {"api", "cmd/hufu"},
	"github.com/rogpeppe/go-internal": {},
	"pgregory.net/rapid":              {"store/enginetest"},
	"testing":                         {"store/enginetest"},
	"flag":                            {"examples", "cmd"},
}

// refusedNames are rooms without a noun.
var refusedNames = []string{"util", "utils", "common", "types", "helpers", "helper", "mock", "mocks", "models", "pkg"}

type source struct {
	pkg  string // folder below the module root
	path string
	test bool
	file *ast.File
}

// sources parses every Go file of the module.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			// A folder with its own go.mod is another house.
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && rel != "." {
				return filepath.SkipDir
			}
			if d.Name() == "testdata" || d.Name() == "build" || (strings.HasPrefix(d.Name(), ".") && rel != "." && d.Name() != "..") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			pkg:  filepath.ToSlash(filepath.Dir(rel)),
			path: filepath.ToSlash(rel),
			test: strings.HasSuffix(path, "_test.go"),
			file: f,
		})
		return nil
	})
	if err != nil {
		t.Fatalf("reading the sources: %v", err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d source files found: the walk is broken", len(all))
	}
	return fset, all
}

func imports(f *ast.File) []string {
	var paths []string
	for _, spec := range f.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

func TestImportsGoDownOnly(t *testing.T) {
	_, all := sources(t)
	seen := map[string]bool{}
	for _, s := range all {
		seen[s.pkg] = true
		if s.test {
			continue
		}
		for _, p := range imports(s.file) {
			inner, ours := strings.CutPrefix(p, "hufu/")
			if !ours {
				continue
			}
			switch {
			case strings.HasPrefix(s.pkg, "examples/"):
				if !slices.Contains(exampleImports, inner) && !strings.HasPrefix(inner, "examples/") {
					t.Errorf("%s imports hufu/%s: an example uses what a stranger's program could use: %v", s.path, inner, exampleImports)
				}
			case slices.Contains(roof, s.pkg):
				if strings.HasPrefix(inner, "examples/") || inner == "internal/testpki" {
					t.Errorf("%s imports hufu/%s: the roof does not stand on examples or test hierarchies", s.path, inner)
				}
			default:
				allowed, known := floors[s.pkg]
				if !known {
					t.Errorf("%s: package %s has no floor: give it one in house_test.go", s.path, s.pkg)
				} else if !slices.Contains(allowed, inner) {
					t.Errorf("%s imports hufu/%s, which is not below it (allowed: %v)", s.path, inner, allowed)
				}
			}
		}
	}
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("house_test.go gives %s a floor, but no such package stands", pkg)
		}
	}
}

func TestFloorsHaveNoCycle(t *testing.T) {
	var visit func(pkg string, path []string)
	visit = func(pkg string, path []string) {
		if slices.Contains(path, pkg) {
			t.Fatalf("the floors make a circle: %v", append(path, pkg))
		}
		for _, below := range floors[pkg] {
			visit(below, append(path, pkg))
		}
	}
	for pkg := range floors {
		visit(pkg, nil)
	}
}

func TestDoors(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if s.test {
			continue
		}
		for _, p := range imports(s.file) {
			for module, may := range doors {
				if p != module && !strings.HasPrefix(p, module+"/") {
					continue
				}
				if !slices.ContainsFunc(may, func(m string) bool {
					return s.pkg == m || strings.HasPrefix(s.pkg, m+"/") && m != "hsm" && m != "api" && m != "issuance"
				}) {
					t.Errorf("%s imports %s: that door is only in %v", s.path, p, may)
				}
			}
		}
	}
}

// TestOnlyIssuanceSigns: certificates, CRLs and OCSP answers are signed in
// issuance (and in the test hierarchy) and nowhere else, so no other package
// may call the standard library's makers of them.
func TestOnlyIssuanceSigns(t *testing.T) {
	_, all := sources(t)
	refused := []string{"x509.CreateCertificate", "x509.CreateRevocationList", "x509.CreateCRL", "ocsp.CreateResponse"}
	for _, s := range all {
		if s.test || s.pkg == "internal/testpki" {
			continue
		}
		for _, call := range selectors(s.file) {
			if slices.Contains(refused, call) {
				t.Errorf("%s calls %s: signing stands only in issuance", s.path, call)
			}
		}
	}
}

// TestRefusals holds what the house refuses in its own sources.
func TestRefusals(t *testing.T) {
	fset, all := sources(t)
	edge := func(pkg string) bool { return strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "examples/") }
	for _, s := range all {
		for _, part := range strings.Split(s.pkg, "/") {
			if slices.Contains(refusedNames, part) {
				t.Errorf("%s: %q is a room without a noun", s.path, part)
			}
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no func init()", fset.Position(f.Pos()))
			}
		}
		if s.test || edge(s.pkg) {
			continue
		}
		for _, call := range selectors(s.file) {
			switch {
			case call == "os.Exit", strings.HasPrefix(call, "log.Fatal"), strings.HasPrefix(call, "log.Panic"):
				t.Errorf("%s uses %s: only cmd and examples may", s.path, call)
			case call == "os.Getenv", call == "os.LookupEnv", call == "os.Environ", call == "os.Setenv":
				// A PKCS#11 module reads its own environment at C_Initialize,
				// and a private slapd is a child process.
				if s.pkg != "internal/softhsm" && s.pkg != "internal/slapd" {
					t.Errorf("%s uses %s: only cmd and examples read the environment", s.path, call)
				}
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs: one package comment each.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, all := sources(t)
	said := map[string]bool{}
	for _, s := range all {
		if s.test {
			continue
		}
		if _, ok := said[s.pkg]; !ok {
			said[s.pkg] = false
		}
		if s.file.Doc != nil && len(s.file.Doc.Text()) > 60 {
			said[s.pkg] = true
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment that says what it does and refuses", pkg)
		}
	}
}

// selectors lists every x.Y in a file as "x.Y".
func selectors(f *ast.File) []string {
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				names = append(names, x.Name+"."+sel.Sel.Name)
			}
		}
		return true
	})
	return names
}
