package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// advisory finds CVE-2024-21626, GHSA-x86f-5xw2-fm2r and GO-2024-2521.
var advisory = regexp.MustCompile(`(?:CVE-\d{4}|GHSA-[0-9a-z]{4}-[0-9a-z]{4}|GO-\d{4})-[0-9a-z]{4,}`)

// squeeze makes TestCVE_2024_21626 and CVE-2024-21626 alike.
func squeeze(s string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if r == '-' || r == '_' {
			return -1
		}
		return r
	}, s))
}

// tests are the names of all test functions by the package that they are in,
// and the advisories that each file of tests has as the name of a row.
func tests(t *testing.T) (functions map[string][]string, rows map[string]bool) {
	t.Helper()
	functions, rows = map[string][]string{}, map[string]bool{}
	for _, p := range packages(t) {
		files, err := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Recv == nil && strings.HasPrefix(n.Name.Name, "Test") {
						functions[p.name()] = append(functions[p.name()], n.Name.Name)
					}
				case *ast.BasicLit:
					if s, ok := text(n); ok && advisory.MatchString(s) {
						rows[p.name()+" "+advisory.FindString(s)] = true
					}
				}
				return true
			})
		}
	}
	return functions, rows
}

// row is a line of the table of docs/security.md: ids | rule | `package.Test`.
var row = regexp.MustCompile(`(?m)^\| ([^|]*) \|[^|]*\| ([^|]*) \|$`)

var testName = regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9_]+)`")

// TestAdvisoriesHaveTests : every advisory that docs/security.md has a rule for
// has a test named after it, in the package that the page says; what it calls
// open has none.
func TestAdvisoriesHaveTests(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "\n## Rules and their tests\n")
	table, open, found2 := strings.Cut(table, "\n## Open\n")
	if !found || !found2 {
		t.Fatal("docs/security.md has not its sections \"Rules and their tests\" and \"Open\"")
	}
	functions, rows := tests(t)
	n := 0
	for _, r := range row.FindAllStringSubmatch(table, -1) {
		refs := testName.FindAllStringSubmatch(r[2], -1)
		for _, ref := range refs {
			if !slices.Contains(functions[ref[1]], ref[2]) {
				t.Errorf("docs/security.md: there is no test %s in %s", ref[2], ref[1])
			}
		}
		for _, id := range advisory.FindAllString(r[1], -1) {
			n++
			if !slices.ContainsFunc(refs, func(ref []string) bool {
				return strings.Contains(squeeze(ref[2]), squeeze(id)) || rows[ref[1]+" "+id]
			}) {
				t.Errorf("docs/security.md: no test of its row is named after %s", id)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d advisories were found in the table: has its form changed?", n)
	}
	for _, id := range advisory.FindAllString(open, -1) {
		for p, names := range functions {
			if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(squeeze(name), squeeze(id)) }) {
				t.Errorf("docs/security.md calls %s open, but %s has a test of it", id, p)
			}
		}
	}
}

// TestDocumentsNameTests : a test that any document calls upon exists.
func TestDocumentsNameTests(t *testing.T) {
	t.Parallel()
	functions, _ := tests(t)
	n := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range testName.FindAllStringSubmatch(string(b), -1) {
				if n++; !slices.Contains(functions[ref[1]], ref[2]) {
					t.Errorf("%s: there is no test %s in %s", path, ref[2], ref[1])
				}
			}
		}
	}
	if n == 0 {
		t.Error("no document names a test: has the form changed?")
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)\)`)

// TestLinksLead : relative links of documents lead to something.
func TestLinksLead(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no documents: %v", pattern, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range link.FindAllStringSubmatch(string(b), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(path), l[1])); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		}
	}
}

var (
	direct = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	named  = regexp.MustCompile("`([^`]+)`")
)

// TestDependenciesAreExplained : what go.mod requires directly has its row in
// docs/dependencies.md, and no row is of something else.
func TestDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	short := func(path string) string { return strings.TrimPrefix(path, "github.com/") }
	var want []string
	for _, m := range direct.FindAllStringSubmatch(string(mod), -1) {
		want = append(want, short(m[1]))
	}
	var have []string
	for _, line := range strings.Split(string(page), "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, m := range named.FindAllStringSubmatch(cells[1], -1) {
				have = append(have, m[1])
			}
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("docs/dependencies.md does not explain %s", w)
		}
	}
	programs := []string{"isle", "isled", "isle-cni", "isle-shim", "isle-toolbox"}
	for _, h := range have {
		if !slices.Contains(want, h) && !slices.Contains(programs, h) {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require directly", h)
		}
	}
}
