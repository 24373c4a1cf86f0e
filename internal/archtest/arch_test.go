package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pkg is what "go list -json" says of a package.
type pkg struct {
	Dir, ImportPath, Name, Doc string
	Imports, Deps              []string
	GoFiles                    []string
	Module                     *struct{ Path string }
}

func (p pkg) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "isle/"), "internal/")
}

// list is "go list" at the root of the module.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=Dir,ImportPath,Name,Doc,Imports,Deps,GoFiles,Module"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("go list: %v: %s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

var (
	once sync.Once
	ours []pkg
)

// packages are those of this module.
func packages(t *testing.T) []pkg {
	t.Helper()
	once.Do(func() { ours = list(t, "./...") })
	if len(ours) == 0 {
		t.Fatal("no packages")
	}
	return ours
}

func under(name, prefix string) bool { return name == prefix || strings.HasPrefix(name, prefix+"/") }

// layer is the longest prefix of name in the table.
func layer(name string) (best string, allowed []string, found bool) {
	for prefix, a := range layers {
		if under(name, prefix) && (!found || len(prefix) > len(best)) {
			best, allowed, found = prefix, strings.Fields(a), true
		}
	}
	return best, append(allowed, strings.Fields(small)...), found
}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		own, allowed, found := layer(p.name())
		if !found {
			t.Errorf("%s is not in the layer table (internal/archtest/layers.go)", p.name())
			continue
		}
		for _, path := range p.Imports {
			imp, isOurs := strings.CutPrefix(path, "isle/")
			imp = strings.TrimPrefix(imp, "internal/")
			if !isOurs || under(imp, own) && !strings.HasPrefix(imp, drivers) {
				continue
			}
			if own == "cmd/isled" && slices.ContainsFunc(allowed, func(a string) bool { return under(imp, a) }) {
				continue
			}
			if own == "network/driver/builtin" && strings.HasPrefix(imp, drivers) {
				continue
			}
			if own == "test" || own == "server/servertest" {
				continue // only tests import these
			}
			if !slices.Contains(allowed, imp) {
				t.Errorf("%s imports %s; layer %q may import %q only", p.name(), imp, own, allowed)
			}
		}
	}
}

func TestTableNamesPackages(t *testing.T) {
	t.Parallel()
	all := packages(t)
	for prefix := range layers {
		if !slices.ContainsFunc(all, func(p pkg) bool { return under(p.name(), prefix) }) {
			t.Errorf("the layer table names %s, which does not exist", prefix)
		}
	}
}

func TestOutsideImports(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.name() == "deps" || under(p.name(), "test") {
			continue
		}
		for _, imp := range p.Imports {
			for _, f := range forbidden {
				match := imp == f.imports || strings.HasSuffix(f.imports, "/") && strings.HasPrefix(imp+"/", f.imports)
				if match && !slices.ContainsFunc(f.only, func(o string) bool { return under(p.name(), o) }) {
					t.Errorf("%s imports %s, allowed only below %q: %s", p.name(), imp, f.only, f.why)
				}
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: the package comment does not begin with %q but %q", p.name(), want, p.Doc)
		}
	}
}

func TestPackageNames(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "misc", "manager", "base"}, p.Name) {
			t.Errorf("%s: the name says nothing", p.name())
		}
	}
}

// deps are all packages that a program links.
func deps(t *testing.T, program string) []pkg {
	t.Helper()
	return list(t, "-deps", "./"+program)
}

func TestCLILinksNoEngine(t *testing.T) {
	t.Parallel()
	for _, p := range deps(t, "cmd/isle") {
		if strings.HasPrefix(p.ImportPath, "github.com/containerd/containerd/") || strings.HasPrefix(p.ImportPath, "isle/") &&
			!slices.ContainsFunc([]string{"api", "cmd/isle", "cli", "sentence", "version"}, func(o string) bool { return under(p.name(), o) }) {
			t.Errorf("isle links %s", p.ImportPath)
		}
	}
}

func TestShimIsSmall(t *testing.T) {
	t.Parallel()
	for _, p := range deps(t, "cmd/isle-shim") {
		if p.Module != nil && p.Module.Path != "isle" && !slices.Contains(shimModules, p.Module.Path) {
			t.Errorf("isle-shim links %s of %s", p.ImportPath, p.Module.Path)
		}
		if p.ImportPath == "net/http" {
			t.Error("isle-shim links net/http")
		}
	}
}

// TestPluginIsSmall : isle-cni starts for every container of other runtimes.
func TestPluginIsSmall(t *testing.T) {
	t.Parallel()
	for _, p := range deps(t, "cmd/isle-cni") {
		if p.Module != nil && p.Module.Path != "isle" || p.ImportPath == "net" || p.ImportPath == "net/http" {
			t.Errorf("isle-cni links %s", p.ImportPath)
		}
	}
}

func TestToolboxLinksNoEngine(t *testing.T) {
	t.Parallel()
	for _, p := range deps(t, "cmd/isle-toolbox") {
		if strings.HasPrefix(p.ImportPath, "isle/") && !slices.ContainsFunc([]string{"cmd/isle-toolbox", "toolbox", "version"}, func(o string) bool { return under(p.name(), o) }) {
			t.Errorf("isle-toolbox links %s", p.ImportPath)
		}
	}
}
