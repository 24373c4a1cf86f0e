package rootfs_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"isle/internal/rootfs"
)

// archive makes a tar. A file's content is its name.
func archive(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(tw, h.Name)
		}
	}
	tw.Close()
	return &b
}

func TestUnpack(t *testing.T) {
	symlink := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
	file := func(name string) tar.Header { return tar.Header{Name: name} }
	for _, tc := range []struct {
		what, to string
		entries  []tar.Header
		opts     rootfs.UnpackOptions
		want     map[string]string // file → content
		err      string
	}{
		{what: "into a directory", to: "/tmp", entries: []tar.Header{dir("d"), file("d/f"), file("g")}, want: map[string]string{"tmp/d/f": "d/f", "tmp/g": "g"}},
		{what: "missing parents are made", to: "/tmp", entries: []tar.Header{file("x/y/z")}, want: map[string]string{"tmp/x/y/z": "x/y/z"}},
		{what: "destination is a link", to: "/var/run", entries: []tar.Header{file("f")}, want: map[string]string{"run/f": "f"}},
		{what: "an absolute link on the way stays inside", to: "/", entries: []tar.Header{file("var/run/f")}, want: map[string]string{"run/f": "var/run/f"}},
		{what: "a link in the archive is followed inside only", to: "/tmp", entries: []tar.Header{symlink("l", "/dir"), file("l/f")}, want: map[string]string{"dir/f": "l/f"}},
		{what: "names begin at the destination", to: "/tmp", entries: []tar.Header{file("/abs")}, want: map[string]string{"tmp/abs": "/abs"}},
		{what: "dots", to: "/tmp", entries: []tar.Header{dir("./"), file("./f")}, want: map[string]string{"tmp/f": "./f"}},
		{what: "no way up", to: "/tmp", entries: []tar.Header{file("../f")}, err: "outside of the destination"},
		{what: "no way up in the middle", to: "/tmp", entries: []tar.Header{file("a/../../f")}, err: "outside of the destination"},
		{what: "hard links", to: "/tmp", entries: []tar.Header{file("f"), hard("h", "f")}, want: map[string]string{"tmp/f": "f", "tmp/h": "f"}},
		{what: "hard link to the host", to: "/tmp", entries: []tar.Header{hard("h", "../../../../etc/passwd")}, err: "outside of the destination"},
		{what: "a file in the place of a file", to: "/dir", entries: []tar.Header{file("a")}, want: map[string]string{"dir/a": "a", "dir/b": "A"}},
		{what: "a file in the place of a link", to: "/", entries: []tar.Header{file("rel")}, want: map[string]string{"rel": "rel"}},
		{what: "a file in the place of a directory", to: "/", entries: []tar.Header{file("dir")}, want: map[string]string{"dir": "dir"}},
		{what: "refused", to: "/", entries: []tar.Header{file("dir")}, opts: rootfs.UnpackOptions{NoOverwriteDirNonDir: true}, err: "cannot overwrite directory"},
		{what: "refused the other way", to: "/dir", entries: []tar.Header{dir("a")}, opts: rootfs.UnpackOptions{NoOverwriteDirNonDir: true}, err: "cannot overwrite non-directory"},
		{what: "directories merge", to: "/", entries: []tar.Header{dir("dir"), file("dir/new")}, opts: rootfs.UnpackOptions{NoOverwriteDirNonDir: true}, want: map[string]string{"dir/a": "A", "dir/new": "dir/new"}},
		{what: "not a directory", to: "/etc/passwd", entries: []tar.Header{file("f")}, err: "extraction point is not a directory"},
		{what: "the destination itself", to: "/tmp", entries: []tar.Header{file(".")}, err: "cannot be replaced"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			root := image(t)
			v := view(t, root, nil)
			err := v.Unpack(t.Context(), tc.to, archive(t, tc.entries...), tc.opts)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || !errdefs.IsInvalidArgument(err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tc.want {
				if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v, want %q", name, b, err, want)
				}
			}
		})
	}
}

func TestUnpackMissingDestination(t *testing.T) {
	err := view(t, image(t), nil).Unpack(t.Context(), "/none", archive(t), rootfs.UnpackOptions{})
	if !rootfs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestUnpackAttributes(t *testing.T) {
	when := time.Unix(1e9, 0)
	headers := []tar.Header{
		{Name: "d", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 3, Gid: 4, ModTime: when},
		{Name: "d/f", Mode: 0o4711, Uid: 1, Gid: 2, ModTime: when, PAXRecords: map[string]string{
			"SCHILY.xattr.user.a": "b", "SCHILY.xattr.trusted.overlay.opaque": "y",
		}},
		{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o640, ModTime: when},
		{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: when},
		{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "/nowhere", Uid: 9, ModTime: when},
	}
	root := image(t)
	if err := view(t, root, nil).Unpack(t.Context(), "/tmp", archive(t, headers...), rootfs.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, "tmp", h.Name), &st); err != nil {
			t.Fatal(err)
		}
		if int(st.Uid) != h.Uid || int(st.Gid) != h.Gid || st.Mtim.Sec != when.Unix() || h.Typeflag != tar.TypeSymlink && int64(st.Mode&0o7777) != h.Mode {
			t.Errorf("%s: got %+v", h.Name, st)
		}
	}
	b := make([]byte, 8)
	if n, err := unix.Getxattr(root+"/tmp/d/f", "user.a", b); err != nil || string(b[:n]) != "b" {
		t.Errorf("attribute: %q, %v", b[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(root+"/tmp/d/f", "trusted.overlay.opaque", b); err == nil {
		t.Error("an archive set an attribute of the overlay file system")
	}
	var st unix.Stat_t
	if err := view(t, root, nil).Unpack(t.Context(), "/tmp", archive(t, tar.Header{Name: "mine", Uid: 1}), rootfs.UnpackOptions{Owner: &rootfs.Owner{UID: 77, GID: 78}}); err != nil {
		t.Fatal(err)
	}
	if unix.Lstat(root+"/tmp/mine", &st); st.Uid != 77 || st.Gid != 78 {
		t.Errorf("owner: %d:%d", st.Uid, st.Gid)
	}
}

// bzipped is a tar with an empty file "f".
const bzipped = "QlpoOTFBWSZTWbih2CcAAGz7gMiAABBAAG0AAADhAB4AAAggAFRGpoBiB6giijEGRo3/lpFCNkROfe7HBWqCQEHUjMCYlLz1LCrQe30k2ACJ8XckU4UJC4odgnA="

func TestUnpackCompressed(t *testing.T) {
	plain, _ := io.ReadAll(archive(t, tar.Header{Name: "f"}))
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(plain)
	w.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(plain)
	z.Close()
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{"none": bytes.NewReader(plain), "bzip2": bytes.NewReader(bz), "gzip": &gz, "zstd": &zs, "empty": strings.NewReader("")} {
		root := image(t)
		if err := view(t, root, nil).Unpack(t.Context(), "/tmp", r, rootfs.UnpackOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(root + "/tmp/f"); err != nil && name != "empty" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]io.Reader{
		"xz": strings.NewReader("\xfd7zXZ\x00more"), "broken gzip": strings.NewReader("\x1f\x8bxxxxxxxxxxxxxx"), "no tar": strings.NewReader(strings.Repeat("x", 1024)),
	} {
		if err := view(t, image(t), nil).Unpack(t.Context(), "/tmp", r, rootfs.UnpackOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// swap exchanges two names for ever; stop it with the function that it returns.
func swap(a, b string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	}()
	return func() { close(quit); <-done }
}

// files are all below dir.
func files(t *testing.T, dir string) (out []string) {
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if p != dir {
			out = append(out, p)
		}
		return err
	})
	return out
}

// A process of the container swaps a directory for a link to the host while
// an archive is unpacked into it: no file may appear on the host.
func TestCVE_2026_41568(t *testing.T) {
	host := t.TempDir()
	for _, link := range []string{"/absolute", "/relative"} {
		root := image(t)
		tree(t, root, "race/", "absolute -> "+host, "relative -> ../../../../../../../../.."+host)
		stop := swap(root+"/race", root+link)
		v, done := view(t, root, nil), 0
		for range 300 { // each may fail: the tree changes under it
			if v.Unpack(t.Context(), "/", archive(t, tar.Header{Name: "race/f"}, tar.Header{Name: "race/d/", Typeflag: tar.TypeDir}), rootfs.UnpackOptions{}) == nil {
				done++
			}
			v.Unpack(t.Context(), "/race", archive(t, tar.Header{Name: "g"}), rootfs.UnpackOptions{})
			v.Pack(t.Context(), "/race/", io.Discard)
		}
		stop()
		if done == 0 {
			t.Errorf("%s: nothing was ever unpacked: the race was not run", link)
		}
	}
	if got := files(t, host); got != nil {
		t.Fatalf("files on the host: %v", got)
	}
}

// The same while volumes are mounted: none may land on the host.
func TestCVE_2026_42306(t *testing.T) {
	root, host, vol := image(t), t.TempDir(), t.TempDir()
	tree(t, root, "race/", "other -> "+host)
	stop, done := swap(root+"/race", root+"/other"), 0
	for range 50 {
		v, err := rootfs.Mounted(bindOf(root), &rootfs.Options{Overlays: []rootfs.Overlay{{Source: vol, Target: "/race/vol"}}})
		if err != nil {
			continue // it may fail: the tree changes under it
		}
		done++
		v.Unpack(t.Context(), "/race/vol", archive(t, tar.Header{Name: "f"}), rootfs.UnpackOptions{})
		v.Close()
	}
	stop()
	if done == 0 {
		t.Error("nothing was ever mounted: the race was not run")
	}
	if got := files(t, host); got != nil {
		t.Errorf("on the host: %v", got)
	}
	if got := visible(t, root, host, vol); got != nil {
		t.Errorf("in the host's mount table: %v", got)
	}
}

// No program of the container's is run, whatever the archive is compressed with.
func TestGHSA_x86f_5xw2_fm2r(t *testing.T) {
	root := image(t)
	marker := filepath.Join(t.TempDir(), "ran")
	for _, name := range []string{"xz", "unxz", "unpigz", "pigz", "gzip", "igzip", "bzip2", "zstd"} {
		tree(t, root, "bin/"+name+": #!/bin/sh\ntouch "+marker+"\n")
		os.Chmod(root+"/bin/"+name, 0o755)
	}
	t.Setenv("PATH", root+"/bin")
	v := view(t, root, nil)
	for _, magic := range []string{"\xfd7zXZ\x00more", "\x1f\x8b\x08\x00", "BZh9", "\x28\xb5\x2f\xfd"} {
		if err := v.Unpack(t.Context(), "/tmp", strings.NewReader(magic), rootfs.UnpackOptions{}); err == nil {
			t.Errorf("%q was unpacked", magic)
		}
	}
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a program of the container was run")
	}
}

// Modes and owners are never changed through a link, and a user's name is
// never looked up (which would load the container's libraries).
func TestGO_2024_2521(t *testing.T) {
	root, host := image(t), t.TempDir()
	tree(t, host, "secret: s")
	os.Chmod(host+"/secret", 0o600)
	v := view(t, root, nil)
	link := tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: host + "/secret", Mode: 0o777, Uid: 99}
	if err := v.Unpack(t.Context(), "/tmp", archive(t, link), rootfs.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	tree(t, root, "tmp/f: x", "tmp/s -> "+host+"/secret")
	stop := swap(root+"/tmp/f", root+"/tmp/s")
	for range 300 {
		v.Unpack(t.Context(), "/tmp", archive(t, tar.Header{Name: "f", Mode: 0o777, Uid: 99, Uname: "nobody"}), rootfs.UnpackOptions{})
		tree(t, root, "tmp/q -> "+host+"/secret")
		os.Rename(root+"/tmp/q", root+"/tmp/s")
	}
	stop()
	var st unix.Stat_t
	if err := unix.Stat(host+"/secret", &st); err != nil || st.Mode&0o7777 != 0o600 || st.Uid != 0 {
		t.Fatalf("the host's file was changed: %+v, %v", st, err)
	}
	if b, _ := os.ReadFile(host + "/secret"); string(b) != "s" {
		t.Fatalf("the host's file was written: %q", b)
	}
}
