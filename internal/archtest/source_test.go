package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// dockerTexts are messages that clients compare, or that begin with a name.
var dockerTexts = []string{
	"No such ", "This node is not a swarm manager", "Conflict. ", "Bad parameters", "Container ", "You cannot ", "Cannot ", "Requested ", "Bind for ", "Error response from daemon",
	"Get ", "OCI runtime ", "HEAD ", "PUT ", "Isle ", "HTTP ", "IPv4", "IPv6", "DNS ", "TCP", "UDP", "MTU", "VNI ", "CPU", "ICMP", "MAC ", "NUL ", "AppArmor", "SCTP", "JSON", "Docker", "CAP_", "OOM", "NanoCPUs",
	"OCI runtime", "An image does not exist locally", "Could not find the file", "You should always set", "Invalid value", "Conflicting options: ", "Range of blkio weight",
	"Duplicate mount point", "Minimum memory", "Status: ", "Digest: ", "PID", "PidsLimit", "ID ", "BPF", "YAML", "TOML", "UTF-8", "I/O", "O_", "POST", "GET", "Linux",
}

// source calls f with every file of every package that is part of the product.
func source(t *testing.T, f func(p pkg, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	fset := token.NewFileSet()
	for _, p := range packages(t) {
		if p.name() == "deps" || under(p.name(), "test") || p.name() == "bench" {
			continue
		}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			f(p, fset, file)
		}
	}
}

// calls calls f with each call of package.function in file.
func calls(file *ast.File, f func(name string, call *ast.CallExpr)) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				f(x.Name+"."+sel.Sel.Name, call)
			}
		}
		return true
	})
}

// text is the literal that e is, if it is one.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func TestMessages(t *testing.T) {
	t.Parallel()
	source(t, func(_ pkg, fset *token.FileSet, file *ast.File) {
		calls(file, func(name string, call *ast.CallExpr) {
			if name != "errors.New" && name != "fmt.Errorf" || len(call.Args) == 0 {
				return
			}
			msg, ok := text(call.Args[0])
			if ok && !goodMessage(msg) {
				t.Errorf("%s: message %q: begin in lower case, end without a full stop", fset.Position(call.Pos()), msg)
			}
		})
	})
}

func goodMessage(msg string) bool {
	if slices.ContainsFunc(dockerTexts, func(d string) bool { return strings.HasPrefix(msg, d) }) {
		return true
	}
	first, _ := utf8.DecodeRuneInString(msg)
	return !unicode.IsUpper(first) && !strings.HasSuffix(msg, ".") && !strings.HasSuffix(msg, "\n")
}

func TestGoodMessage(t *testing.T) {
	t.Parallel()
	for msg, want := range map[string]bool{"open it": true, "Open it": false, "open it.": false, "No such container: %s": true, "%s: no": true} {
		if goodMessage(msg) != want {
			t.Errorf("%q: want %v", msg, want)
		}
	}
}

func TestNoForeignPrograms(t *testing.T) {
	t.Parallel()
	source(t, func(p pkg, fset *token.FileSet, file *ast.File) {
		calls(file, func(name string, call *ast.CallExpr) {
			at := map[string]int{"exec.Command": 0, "exec.CommandContext": 1, "exec.LookPath": 0}
			i, ok := at[name]
			if !ok || i >= len(call.Args) || under(p.name(), "kernel/kerneltest") {
				return
			}
			if program, ok := text(call.Args[i]); ok && slices.Contains(executed, filepath.Base(program)) {
				t.Errorf("%s: executes %s", fset.Position(call.Pos()), program)
			}
		})
	})
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	source(t, func(_ pkg, fset *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function: what is there should be seen in main", fset.Position(f.Pos()))
			}
		}
	})
}

// longest is the hard ceiling of a function, in lines.
const longest = 70

func TestFunctionsAreShort(t *testing.T) {
	t.Parallel()
	source(t, func(_ pkg, fset *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line; n > longest {
				t.Errorf("%s: %s has %d lines; %d are the ceiling", fset.Position(f.Pos()), f.Name.Name, n, longest)
			}
		}
	})
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func TestNothingUnfinished(t *testing.T) {
	t.Parallel()
	source(t, func(_ pkg, fset *token.FileSet, file *ast.File) {
		for _, group := range file.Comments {
			for _, c := range group.List {
				if unfinished.MatchString(c.Text) {
					t.Errorf("%s: %s", fset.Position(c.Pos()), c.Text)
				}
			}
		}
	})
}
