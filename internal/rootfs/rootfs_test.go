package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"isle/internal/rootfs"
	"isle/internal/runtime"
)

// TestMain is also the process of a container: see startContainer.
func TestMain(m *testing.M) {
	if root := os.Getenv("ISLE_TEST_ROOT"); root != "" {
		if err := beContainer(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beContainer makes root the root of this process's mount namespace, with a
// tmpfs in it, and waits.
func beContainer(root string) error {
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error { return os.Chdir(root) },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Mount("t", "/tmp", "tmpfs", 0, "") },
		func() error { return os.WriteFile("/tmp/inside", []byte("tmpfs"), 0o644) },
	}
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func startContainer(t *testing.T, root string) (pid int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"ISLE_TEST_ROOT=" + root}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line := make([]byte, 256)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "ready\n" {
		t.Fatalf("container: %s", got)
	}
	return cmd.Process.Pid
}

// tree makes files: "dir/", "link -> target", "hard = other", "file: content".
func tree(t *testing.T, root string, files ...string) {
	t.Helper()
	for _, f := range files {
		var err error
		at := func(s string) string { return filepath.Join(root, s) }
		if l, target, ok := strings.Cut(f, " -> "); ok {
			err = errors.Join(os.MkdirAll(filepath.Dir(at(l)), 0o755), os.Symlink(target, at(l)))
		} else if l, target, ok := strings.Cut(f, " = "); ok {
			err = os.Link(at(target), at(l))
		} else if name, content, ok := strings.Cut(f, ": "); ok {
			err = errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(content), 0o644))
		} else {
			err = os.MkdirAll(at(f), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func bindOf(dir string) []runtime.Mount {
	return []runtime.Mount{{Type: "bind", Source: dir, Options: []string{"rbind", "rw"}}}
}

func view(t *testing.T, dir string, opts *rootfs.Options) *rootfs.View {
	t.Helper()
	v, err := rootfs.Mounted(bindOf(dir), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func image(t *testing.T) string {
	dir := t.TempDir()
	tree(t, dir, "etc/passwd: root:x:0:0::/root:/bin/sh\n", "etc/group: root:x:0:\n", "run/", "var/run -> /run", "run/pid: 1",
		"up -> ../../../../../../etc/shadow", "loop -> loop", "tmp/", "dir/a: A", "dir/b = dir/a", "abs -> /etc", "rel -> etc/passwd", "proc/")
	return dir
}

func TestStat(t *testing.T) {
	v := view(t, image(t), nil)
	for _, tc := range []struct {
		path, name, target string
		mode               fs.FileMode
		missing            bool
	}{
		{path: "/", name: "/", mode: fs.ModeDir},
		{path: "", name: "/", mode: fs.ModeDir},
		{path: "etc", name: "etc", mode: fs.ModeDir},
		{path: "/etc/.", name: ".", mode: fs.ModeDir},
		{path: "/etc/passwd", name: "passwd"},
		{path: "/var/run/pid", name: "pid"},
		{path: "/var/run", name: "run", mode: fs.ModeSymlink, target: "/run"},
		{path: "/var/run/", name: "run", mode: fs.ModeDir},
		{path: "/abs/passwd", name: "passwd"},
		{path: "/rel", name: "rel", mode: fs.ModeSymlink, target: "/etc/passwd"},
		{path: "/up", name: "up", mode: fs.ModeSymlink, target: "/etc/shadow"},
		{path: "/up/", missing: true}, // the host has one, the container has not
		{path: "/loop/x", missing: true},
		{path: "/etc/passwd/x", missing: true},
		{path: "/none", missing: true},
		{path: "/../../../../etc/passwd", name: "passwd"},
	} {
		st, err := v.Stat(tc.path)
		if tc.missing {
			if !rootfs.IsNotFound(err) {
				t.Errorf("%s: got %+v, %v, want not found", tc.path, st, err)
			}
			continue
		}
		if err != nil || st.Name != tc.name || st.Mode.Type() != tc.mode || st.LinkTarget != tc.target {
			t.Errorf("%s: got %+v, %v, want %+v", tc.path, st, err, tc)
		}
	}
}

// names of a tar, as "name", "name -> link", "name = hard link".
func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: has names of users: %q %q", h.Name, h.Uname, h.Gname)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out = append(out, h.Name+" -> "+h.Linkname)
		case tar.TypeLink:
			out = append(out, h.Name+" = "+h.Linkname)
		default:
			out = append(out, h.Name)
		}
	}
}

func TestPack(t *testing.T) {
	v := view(t, image(t), nil)
	for path, want := range map[string][]string{
		"/dir":        {"dir/", "dir/a", "dir/b = dir/a"},
		"/dir/":       {"dir/", "dir/a", "dir/b = dir/a"},
		"/dir/.":      {"./", "./a", "./b = ./a"},
		"/etc/passwd": {"passwd"},
		"/rel":        {"rel -> etc/passwd"},
		"/abs":        {"abs -> /etc"},
		"/abs/":       {"abs/", "abs/group", "abs/passwd"},
		"/var/run/":   {"run/", "run/pid"},
		"/": {"/", "/abs -> /etc", "/dir/", "/dir/a", "/dir/b = /dir/a", "/etc/", "/etc/group", "/etc/passwd", "/loop -> loop", "/proc/",
			"/rel -> etc/passwd", "/run/", "/run/pid", "/tmp/", "/up -> ../../../../../../etc/shadow", "/var/", "/var/run -> /run"},
	} {
		var b bytes.Buffer
		if err := v.Pack(t.Context(), path, &b); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if diff := cmp.Diff(want, names(t, &b)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if err := v.Pack(t.Context(), "/none", io.Discard); !rootfs.IsNotFound(err) {
		t.Errorf("missing path: %v", err)
	}
}

func TestPackKeepsAttributes(t *testing.T) {
	dir := image(t)
	file := filepath.Join(dir, "dir/a")
	if err := errors.Join(os.Chown(file, 12, 34), os.Chmod(file, 0o4755|fs.ModeSetuid), os.Chtimes(file, time.Time{}, time.Unix(1e9, 5))); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := view(t, dir, nil).Pack(t.Context(), "/dir/a", &b); err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(&b).Next()
	if err != nil || h.Uid != 12 || h.Gid != 34 || h.Mode != 0o4755 || !h.ModTime.Equal(time.Unix(1e9, 5)) {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestRunning(t *testing.T) {
	dir := image(t)
	pid := startContainer(t, dir)
	whole, err := rootfs.Running(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.Stat("/tmp/inside"); err != nil {
		t.Errorf("the container's own mounts are to be seen: %v", err)
	}
	base, err := rootfs.Base(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	if _, err := base.Stat("/tmp/inside"); !rootfs.IsNotFound(err) {
		t.Errorf("an export sees a mount of the container: %v", err)
	}
	var b bytes.Buffer
	if err := base.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	got := names(t, &b)
	if !slices.Contains(got, "tmp/") || !slices.Contains(got, "etc/passwd") || slices.Contains(got, "tmp/inside") || slices.Contains(got, "/") {
		t.Errorf("export: %v", got)
	}
}

func TestRunningNoProcess(t *testing.T) {
	if _, err := rootfs.Running(1 << 22); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// visible are the mounts in the host's table that are at or of one of the
// directories. The machine's other mounts come and go.
func visible(t *testing.T, dirs ...string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.Contains(line, d) }) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestMountedOverlays(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	dir, vol, file := image(t), t.TempDir(), filepath.Join(t.TempDir(), "hosts")
	tree(t, vol, "data: V", "sub/")
	tree(t, filepath.Dir(file), "hosts: H")
	v := view(t, dir, &rootfs.Options{Overlays: []rootfs.Overlay{
		{Source: vol, Target: "/srv/new/vol"}, {Source: file, Target: "/etc/hosts", ReadOnly: true}, {Source: vol, Target: "/var/run", ReadOnly: true},
	}})
	for path, want := range map[string]string{"/srv/new/vol/data": "V", "/etc/hosts": "H", "/run/data": "V"} {
		b, err := fs.ReadFile(v, strings.TrimPrefix(path, "/"))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", path, b, err, want)
		}
	}
	if got := visible(t, tmp, dir, vol, filepath.Dir(file)); got != nil {
		t.Errorf("in the host's mount table: %v", got)
	}
	if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil {
		t.Errorf("left over: %v, %v", left, err)
	}
	for path, want := range map[string]error{"/srv/new/vol": nil, "/var/run": rootfs.ErrReadOnlyVolume, "/etc": nil} {
		if err := v.Unpack(t.Context(), path, archive(t, tar.Header{Name: "new"}), rootfs.UnpackOptions{}); !errors.Is(err, want) {
			t.Errorf("unpack into %s: %v, want %v", path, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(vol, "new")); err != nil {
		t.Errorf("the volume has nothing of what was unpacked into it: %v", err)
	}
}

func TestReadOnlyRootfs(t *testing.T) {
	vol := t.TempDir()
	v := view(t, image(t), &rootfs.Options{ReadOnly: true, Overlays: []rootfs.Overlay{{Source: vol, Target: "/tmp"}}})
	for path, want := range map[string]error{"/etc": rootfs.ErrReadOnlyRootfs, "/tmp": nil} {
		if err := v.Unpack(t.Context(), path, archive(t, tar.Header{Name: "new"}), rootfs.UnpackOptions{}); !errors.Is(err, want) {
			t.Errorf("unpack into %s: %v, want %v", path, err, want)
		}
	}
}

// overlay is a root file system of n lower layers.
func overlay(t *testing.T, n int) (mounts []runtime.Mount, upper string) {
	t.Helper()
	base := t.TempDir()
	var lower []string
	for i := range n {
		l := filepath.Join(base, fmt.Sprintf("a-directory-with-a-long-name-%d", i))
		tree(t, l, fmt.Sprintf("layer%d: %d", i, i))
		lower = append(lower, l)
	}
	tree(t, base, "upper/", "work/")
	return []runtime.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + base + "/work", "upperdir=" + base + "/upper", "lowerdir=" + strings.Join(lower, ":"),
	}}}, base + "/upper"
}

func TestMountedOverlayfs(t *testing.T) {
	for _, layers := range []int{1, 60} { // 60: more than a page of options
		for _, opts := range []*rootfs.Options{nil, {Overlays: []rootfs.Overlay{{Source: t.TempDir(), Target: "/vol"}}}} {
			checkOverlayfs(t, layers, opts)
		}
	}
}

func checkOverlayfs(t *testing.T, layers int, opts *rootfs.Options) {
	t.Helper()
	mounts, upper := overlay(t, layers)
	v, err := rootfs.Mounted(mounts, opts)
	if err != nil {
		t.Fatalf("%d layers: %v", layers, err)
	}
	if _, err := v.Stat(fmt.Sprintf("/layer%d", layers-1)); err != nil {
		t.Errorf("%d layers: %v", layers, err)
	}
	if err := v.Unpack(t.Context(), "/", archive(t, tar.Header{Name: "new"}), rootfs.UnpackOptions{}); err != nil {
		t.Errorf("%d layers: %v", layers, err)
	}
	if _, err := os.Stat(upper + "/new"); err != nil {
		t.Errorf("%d layers: not in the upper layer: %v", layers, err)
	}
	v.Close()
}

func TestCopyOut(t *testing.T) {
	dir := image(t)
	tree(t, dir, "src/sub/f: F", "src/hard = src/sub/f", "src/link -> /etc/passwd")
	if err := errors.Join(os.Chown(dir+"/src", 5, 6), os.Chmod(dir+"/src", 0o2750|fs.ModeSetgid), os.Chown(dir+"/src/sub/f", 7, 8),
		unix.Setxattr(dir+"/src/sub/f", "user.color", []byte("blue"), 0), unix.Mkfifo(dir+"/src/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	v, dst := view(t, dir, nil), t.TempDir()
	if err := v.CopyOut(t.Context(), "/src", dst); err != nil {
		t.Fatal(err)
	}
	var st, f, hard unix.Stat_t
	if err := errors.Join(unix.Stat(dst, &st), unix.Stat(dst+"/sub/f", &f), unix.Stat(dst+"/hard", &hard)); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 5 || st.Gid != 6 || st.Mode&0o7777 != 0o2750 || f.Uid != 7 || f.Gid != 8 || f.Ino != hard.Ino {
		t.Errorf("directory %+v, file %+v, hard link %+v", st, f, hard)
	}
	x := make([]byte, 10)
	if n, err := unix.Getxattr(dst+"/sub/f", "user.color", x); err != nil || string(x[:n]) != "blue" {
		t.Errorf("attribute: %q, %v", x[:max(n, 0)], err)
	}
	if l, err := os.Readlink(dst + "/link"); l != "/etc/passwd" {
		t.Errorf("link: %q, %v", l, err)
	}
	tree(t, dir, "src/later: L")
	if err := v.CopyOut(t.Context(), "/src", dst); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dst + "/later"); err == nil {
		t.Error("a directory with files was filled")
	}
	if err := v.CopyOut(t.Context(), "/none", t.TempDir()); err != nil {
		t.Errorf("nothing to copy: %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := image(t)
	tree(t, dir, "etc/shadow -> /etc/passwd", "etc/hosts -> /proc/self/root/etc/hosts")
	os.Remove(dir + "/etc/group")
	if err := unix.Mkfifo(dir+"/etc/group", 0o600); err != nil {
		t.Fatal(err)
	}
	files, done, err := rootfs.Files(t.Context(), bindOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if b, err := fs.ReadFile(files, "etc/shadow"); err != nil || !strings.HasPrefix(string(b), "root:x:0") {
		t.Errorf("an absolute link is the container's: %q, %v", b, err)
	}
	for _, name := range []string{"etc/group", "etc", "etc/hosts", "none"} { // a FIFO: it must not wait for a writer
		if f, err := files.Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := view(t, image(t), nil).Pack(ctx, "/", io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
