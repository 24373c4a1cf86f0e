package files_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/files"
)

// do runs f and returns what it printed.
func do(t *testing.T, f applet.Func, in string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := f(context.Background(), applet.IO{In: strings.NewReader(in), Out: &out, Err: &errs}, args)
	return out.String(), err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.txt", "hello")
	write(t, dir+"/sub/b.txt", "")
	write(t, dir+"/sub/c", strings.Repeat("x", 3000))
	for _, c := range []struct{ args, want string }{
		{"-name *.txt", "a.txt sub/b.txt"},
		{"-type d", ". sub"},
		{"-type f -size +4", "sub/c"},
		{"-type f -empty", "sub/b.txt"},
		{"-maxdepth 1 -type f", "a.txt"},
		{"-mindepth 2 ! -name c", "sub/b.txt"},
		{"-name c -exec echo {} ;", "sub/c"},
	} {
		out, err := do(t, files.Find, "", append([]string{dir}, strings.Fields(c.args)...)...)
		if c.args == "-name c -exec echo {} ;" && err == nil && out == "" {
			t.Errorf("%s: the command did not run", c.args)
		}
		var got []string
		for _, line := range strings.Fields(out) {
			rel, _ := filepath.Rel(dir, line)
			got = append(got, rel)
		}
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
	if _, err := do(t, files.Find, "", dir, "-no-such-test", "x"); err == nil {
		t.Error("an unknown test is accepted")
	}
}

func TestTarThereAndBack(t *testing.T) {
	t.Parallel()
	dir, dest := t.TempDir(), t.TempDir()
	write(t, dir+"/d/file", "content")
	if err := os.Symlink("file", dir+"/d/link"); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "a.tgz")
	if _, err := do(t, files.Tar, "", "czf", archive, "-C", dir, "d"); err != nil {
		t.Fatal(err)
	}
	out, err := do(t, files.Tar, "", "tf", archive)
	if err != nil || out != "d/\nd/file\nd/link\n" {
		t.Fatalf("listed %q, %v", out, err)
	}
	if _, err := do(t, files.Tar, "", "-x", "-f", archive, "-C", dest); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dest + "/d/link"); err != nil || string(got) != "content" {
		t.Errorf("unpacked %q, %v", got, err)
	}
}

// A tar file must not write outside of where it is unpacked.
func TestTarStaysInside(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dest := filepath.Join(parent, "dest")
	if err := os.Mkdir(dest, 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []tar.Header{
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."},
		{Name: "out/evil", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if _, err := do(t, files.Tar, archive.String(), "-x", "-C", dest); err == nil {
		t.Error("a name that leads outside is unpacked")
	}
	if _, err := do(t, files.Tar, tarOf(t, "../evil"), "-x", "-C", dest); err != nil {
		t.Errorf("a name with .. : %v", err)
	}
	if _, err := os.Lstat(filepath.Join(parent, "evil")); err == nil {
		t.Error("a file was made outside of the directory")
	}
}

func tarOf(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.String()
}

func TestFileCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/f", "abc")
	for _, c := range []struct {
		name string
		f    applet.Func
		args []string
		want string
	}{
		{"basename", files.Basename, []string{"/a/b.txt", ".txt"}, "b\n"},
		{"dirname", files.Dirname, []string{"/a/b"}, "/a\n"},
		{"stat", files.Stat, []string{"-c", "%s %a %F", dir + "/f"}, "3 644 regular file\n"},
		{"sha256sum", files.Sha256sum, []string{dir + "/f"}, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  " + dir + "/f\n"},
		{"cp", files.Cp, []string{"-a", dir + "/f", dir + "/g"}, ""},
		{"cat", files.Cat, []string{dir + "/g"}, "abc"},
		{"mv", files.Mv, []string{dir + "/g", dir + "/h"}, ""},
		{"chmod", files.Chmod, []string{"600", dir + "/h"}, ""},
		{"ln", files.Ln, []string{"-s", "h", dir + "/l"}, ""},
		{"readlink", files.Readlink, []string{dir + "/l"}, "h\n"},
		{"readlink -f", files.Readlink, []string{"-f", dir + "/l"}, dir + "/h\n"},
		{"ln -sf", files.Ln, []string{"-sf", "f", dir + "/l"}, ""},
		{"cat link", files.Cat, []string{dir + "/l"}, "abc"},
		{"ls", files.Ls, []string{"-1", dir}, "f\nh\nl\n"},
		{"ls -l link", files.Ls, []string{"-F", "-d", dir + "/l"}, dir + "/l@\n"},
		{"dd", files.Dd, []string{"if=" + dir + "/f", "bs=1", "skip=1", "count=1", "status=none"}, "b"},
		{"gzip", files.Gzip, []string{dir + "/h"}, ""},
		{"gzip -d", files.Gzip, []string{"-dc", dir + "/h.gz"}, "abc"},
		{"rm", files.Rm, []string{"-rf", dir + "/h.gz", dir + "/none"}, ""},
	} {
		if got, err := do(t, c.f, "", c.args...); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	if _, err := do(t, files.Cat, "", dir+"/none"); err == nil {
		t.Error("a file that does not exist can be read")
	}
}

func TestMkdirFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := do(t, files.Mkdir, "", filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	if _, err := do(t, files.Mkdir, "", dir, filepath.Join(dir, "other")); err == nil {
		t.Error("no error for a directory that is there")
	}
	if _, err := os.Stat(filepath.Join(dir, "other")); err != nil {
		t.Errorf("the others are made: %v", err)
	}
}
