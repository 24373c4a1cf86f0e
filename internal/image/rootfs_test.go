package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"isle/internal/filters"
	"isle/internal/ids"
)

// layerOf builds a layer: "dir/", "file=body", "link->target", ".wh.x" as they are.
func layerOf(t *testing.T, entries ...string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := rootTar{tar.NewWriter(&b)}
	for _, e := range entries {
		var err error
		switch name, body, _ := strings.Cut(e, "="); {
		case strings.HasSuffix(name, "/"):
			err = w.dirs(0o755, name)
		case strings.Contains(e, "->"):
			name, target, _ := strings.Cut(e, "->")
			err = w.entry(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}, nil)
		default:
			err = w.file(name, 0o644, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := must(mutate.AppendLayers(empty.Image, layers...))
	cfg := must(img.ConfigFile()).DeepCopy()
	cfg.OS, cfg.Architecture = "linux", goruntime.GOARCH
	return must(mutate.ConfigFile(img, cfg))
}

func loaded(t *testing.T, s *Service, ref string, img v1.Image) Image {
	t.Helper()
	load(t, s, dockerArchive(t, map[string]v1.Image{ref: img}))
	return resolve(t, s, ref)
}

// mounted makes a container's root file system and mounts it.
func mounted(t *testing.T, s *Service, id string) string {
	t.Helper()
	ms, err := s.RootfsMounts(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, m := range ms {
		flags, data := uintptr(0), []string{}
		for _, o := range m.Options {
			switch o {
			case "rbind":
				flags |= unix.MS_BIND | unix.MS_REC
			case "bind":
				flags |= unix.MS_BIND
			case "rw":
			default:
				data = append(data, o)
			}
		}
		if err := unix.Mount(m.Source, dir, m.Type, flags, strings.Join(data, ",")); err != nil {
			t.Fatalf("mount %+v: %v", m, err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func drivers(t *testing.T, test func(t *testing.T, s *Service)) {
	for _, d := range []string{"overlay", "native"} {
		t.Run(d, func(t *testing.T) { test(t, open(t, Config{StorageDriver: d})) })
	}
}

var base = []string{"bin/", "bin/tool=tool", "etc/", "etc/conf=old", "etc/gone=x", "etc/dir/", "etc/dir/a=1", "etc/dir/b=2", "link->etc/conf"}

func TestRootfsAndChanges(t *testing.T) {
	drivers(t, func(t *testing.T, s *Service) {
		img := loaded(t, s, "base:v1", imageOf(t, layerOf(t, base...), layerOf(t, "opt/", "opt/x=y", "etc/.wh.gone=")))
		id := ids.New()
		for range 2 { // idempotent
			if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
				t.Fatal(err)
			}
		}
		root := mounted(t, s, id)
		if _, err := os.Stat(filepath.Join(root, "etc/gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that the second layer removes: %v", err)
		}
		if c, err := s.Changes(t.Context(), id); err != nil || len(c) != 0 {
			t.Errorf("fresh layer differs: %v %v", c, err)
		}
		in := func(p string) string { return filepath.Join(root, p) }
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(os.WriteFile(in("etc/conf"), []byte("new body"), 0o644))
		check(os.Remove(in("bin/tool")))
		check(os.WriteFile(in("new"), []byte("n"), 0o600))
		check(os.RemoveAll(in("etc/dir")))
		check(os.Mkdir(in("etc/dir"), 0o755)) // opaque
		check(os.WriteFile(in("etc/dir/b"), []byte("other"), 0o644))
		check(os.WriteFile(in("etc/hosts"), nil, 0o644)) // a mount point of the runtime
		check(os.Symlink("/nowhere", in("dangling")))

		got, err := s.Changes(t.Context(), id)
		check(err)
		var lines []string
		for _, c := range got {
			lines = append(lines, c.Kind.String()+" "+c.Path)
		}
		slices.Sort(lines)
		want := "A /dangling,A /new,C /bin,C /etc,C /etc/conf,C /etc/dir,C /etc/dir/b,D /bin/tool,D /etc/dir/a"
		if g := strings.Join(lines, ","); g != want {
			t.Errorf("changes\n%s, want\n%s", g, want)
		}
		rw, total, err := s.RootfsUsage(t.Context(), id)
		if err != nil || rw <= 0 && s.storage.overlay() || total <= rw {
			t.Errorf("usage %d of %d: %v", rw, total, err)
		}

		newID, err := s.Commit(t.Context(), CommitRequest{ContainerID: id, Ref: "committed", Author: "me", Message: "why", Parent: img,
			Config: &container.Config{Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}}})
		check(err)
		made := resolve(t, s, "committed")
		if made.ID != newID || made.Config.Author != "me" || asJSON(t, made.Config.Config.Cmd) != `["/bin/sh"]` || len(made.Config.RootFS.DiffIDs) != 3 {
			t.Errorf("committed %s", asJSON(t, made))
		}
		other := ids.New()
		check(s.PrepareRootfs(t.Context(), other, made))
		again := mounted(t, s, other)
		for p, want := range map[string]string{"etc/conf": "new body", "bin/tool": "", "new": "n", "etc/dir/a": "", "etc/dir/b": "other", "opt/x": "y", "etc/hosts": ""} {
			if b, _ := os.ReadFile(filepath.Join(again, p)); string(b) != want {
				t.Errorf("%s is %q, want %q", p, b, want)
			}
		}
		unix.Unmount(again, 0)
		unix.Unmount(root, 0)
		if list, err := s.Rootfses(t.Context()); err != nil || len(list) != 2 {
			t.Errorf("layers %v %v", list, err)
		}
		for _, c := range []string{id, other, other, ids.New()} {
			check(s.RemoveRootfs(t.Context(), c))
		}
		if _, err := s.RootfsMounts(t.Context(), id); !errdefs.IsNotFound(err) {
			t.Errorf("mounts of a removed layer: %v", err)
		}
		check(removeAll(t, s, "committed", "base:v1"))
		wantNothingLeft(t, s)
	})
}

func TestCommitWithoutChanges(t *testing.T) {
	s := open(t, Config{})
	img := loaded(t, s, "base:v1", imageOf(t, layerOf(t, base...)))
	id := ids.New()
	if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
		t.Fatal(err)
	}
	got, err := s.Commit(t.Context(), CommitRequest{ContainerID: id, Parent: img, Config: &container.Config{Cmd: []string{"x"}}})
	if err != nil {
		t.Fatal(err)
	}
	made := resolve(t, s, got)
	if made.ChainID != img.ChainID || made.Name != "" || !made.Config.History[len(made.Config.History)-1].EmptyLayer {
		t.Errorf("committed %+v", made)
	}
	if l, err := s.List(t.Context(), ListOptions{Filters: filters.Args{"dangling": {"true"}}}); err != nil || len(l) != 1 || l[0].ID != got {
		t.Errorf("dangling: %v %v", l, err)
	}
}

// An image that a container stands on can lose its name, not its files.
func TestCollectionSparesContainers(t *testing.T) {
	drivers(t, func(t *testing.T, s *Service) {
		img := loaded(t, s, "base:v1", imageOf(t, layerOf(t, base...), layerOf(t, "opt/", "opt/x=y")))
		loaded(t, s, "other:v1", imageOf(t, layerOf(t, "z=z")))
		id := ids.New()
		if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), "base:v1", RemoveOptions{Force: true, Use: Usage{img.ID: {id}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prune(t.Context(), filters.Args{"dangling": {"false"}}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve(t.Context(), "base:v1", nil); !errdefs.IsNotFound(err) {
			t.Errorf("removed image: %v", err)
		}
		// also after a restart
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, Config{Dir: s.cfg.Dir, StorageDriver: s.cfg.StorageDriver})
		root := mounted(t, again, id)
		for _, p := range []string{"bin/tool", "opt/x"} {
			if _, err := os.Stat(filepath.Join(root, p)); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "opt/new"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := again.Commit(t.Context(), CommitRequest{ContainerID: id, Ref: "kept", Parent: img}); err != nil {
			t.Errorf("commit of a container whose image was removed: %v", err)
		}
		unix.Unmount(root, 0)
		if err := errors.Join(removeAll(t, again, "kept"), again.RemoveRootfs(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		wantNothingLeft(t, again)
	})
}

// Whoever has got a layer has all the files below it, whatever else is being
// loaded, removed and collected at the same time.
func TestCollectionWhileCreating(t *testing.T) {
	s := open(t, Config{})
	shared := layerOf(t, "shared=s")
	var archives [][]byte
	for i := range 3 {
		archives = append(archives, dockerArchive(t, map[string]v1.Image{fmt.Sprintf("i%d:v1", i): imageOf(t, shared, layerOf(t, fmt.Sprintf("own=%d", i)))}))
	}
	use := func(i int) error {
		ref := fmt.Sprintf("i%d:v1", i)
		if err := s.Load(t.Context(), bytes.NewReader(archives[i]), LoadOptions{}); err != nil {
			return err
		}
		img, err := s.Resolve(t.Context(), ref, nil)
		if err != nil {
			return err
		}
		id := ids.New()
		if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
			return err
		}
		if _, err := s.Remove(t.Context(), ref, RemoveOptions{Force: true}); err != nil {
			return err
		}
		r, err := s.rootfs(id)
		if err != nil {
			return err
		}
		own, err1 := os.ReadFile(filepath.Join(r.Lower[0], "own"))
		_, err2 := os.Stat(filepath.Join(r.Lower[1], "shared"))
		if string(own) != fmt.Sprint(i) {
			err1 = fmt.Errorf("own file is %q: %w", own, err1)
		}
		return errors.Join(err1, err2, s.RemoveRootfs(t.Context(), id))
	}
	var wg sync.WaitGroup
	for i := range archives {
		wg.Go(func() {
			for range 8 {
				if err := use(i); err != nil {
					t.Errorf("image %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	wantNothingLeft(t, s)
}

func TestManyLayers(t *testing.T) {
	run, err := os.MkdirTemp("/tmp", "l") // as short as /run/isle
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	s := open(t, Config{RunDir: run})
	var ls []v1.Layer
	for i := range 100 {
		ls = append(ls, layerOf(t, fmt.Sprintf("f%d=%d", i, i)))
	}
	img := loaded(t, s, "deep:v1", imageOf(t, ls...))
	id := ids.New()
	if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, id)
	for _, i := range []int{0, 50, 99} {
		if b, err := os.ReadFile(filepath.Join(root, fmt.Sprintf("f%d", i))); err != nil || string(b) != fmt.Sprint(i) {
			t.Errorf("f%d: %q %v", i, b, err)
		}
	}
	unix.Unmount(root, 0)
	if err := os.RemoveAll(s.linkDir()); err != nil { // as a reboot does
		t.Fatal(err)
	}
	mounted(t, s, id)
}

func TestEmptyImage(t *testing.T) {
	drivers(t, func(t *testing.T, s *Service) {
		img := loaded(t, s, "scratch:v1", imageOf(t))
		id := ids.New()
		if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
			t.Fatal(err)
		}
		root := mounted(t, s, id)
		if err := os.WriteFile(filepath.Join(root, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := s.Changes(t.Context(), id); err != nil || asJSON(t, c) != `[{"Kind":1,"Path":"/x"}]` {
			t.Errorf("changes %v %v", c, err)
		}
	})
}

func TestBuiltin(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "isle-toolbox")
	write(t, tool, "first binary")
	s := open(t, Config{Toolbox: tool})
	for _, ref := range []string{"isle/toolbox", "isle/toolbox:latest", "docker.io/isle/toolbox"} {
		if err := s.EnsureBuiltin(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	first := resolve(t, s, "isle/toolbox")
	twin := open(t, Config{Toolbox: tool})
	if got := resolve(t, twin, "isle/toolbox"); got.ID != first.ID {
		t.Errorf("same binary made %s and %s", got.ID, first.ID)
	}
	r, err := s.Inspect(t.Context(), "isle/toolbox", InspectOptions{})
	unpacked := must(s.unpackedSize(s.context(t.Context()), first.ChainID))
	if err != nil || unpacked == 0 || r.Size <= unpacked {
		t.Errorf("size %d, unpacked alone %d: %v", r.Size, unpacked, err)
	}
	id := ids.New()
	if err := s.PrepareRootfs(t.Context(), id, first); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, id)
	if b, err := os.ReadFile(filepath.Join(root, "bin/sh")); err != nil || string(b) != "first binary" {
		t.Errorf("/bin/sh is %q: %v", b, err)
	}
	if fi, err := os.Stat(filepath.Join(root, "tmp")); err != nil || fi.Mode()&(fs.ModeSticky|0o777) != fs.ModeSticky|0o777 {
		t.Errorf("/tmp: %v %v", fi.Mode(), err)
	}
	write(t, tool, "second, other binary")
	if err := os.Chtimes(tool, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var out said
	if err := s.Pull(t.Context(), "isle/toolbox", PullOptions{Progress: out.hear}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Status: Downloaded newer image for isle/toolbox:latest") {
		t.Errorf("pull said:\n%s", &out)
	}
	if got := resolve(t, s, "isle/toolbox"); got.ID == first.ID {
		t.Error("a new binary made the same image")
	}
	if l, err := s.List(t.Context(), ListOptions{}); err != nil || len(l) != 2 {
		t.Errorf("the old image is not kept: %v %v", l, err)
	}
	none := open(t, Config{Toolbox: "/nonexistent"})
	if _, err := none.Resolve(t.Context(), "isle/toolbox", nil); err == nil || !strings.Contains(err.Error(), "hint") {
		t.Errorf("no binary: %v", err)
	}
	if err := none.EnsureBuiltin(t.Context(), "debian:12"); err != nil {
		t.Errorf("other image: %v", err)
	}
}

func TestStorageDriver(t *testing.T) {
	s := open(t, Config{})
	if name, warn := s.Driver(); name != "overlayfs" || len(warn) != 0 {
		t.Errorf("driver %s %v", name, warn)
	}
	dir := filepath.Join(t.TempDir(), "with:colon")
	n := open(t, Config{Dir: dir})
	if name, warn := n.Driver(); name != "native" || len(warn) != 1 || !strings.Contains(warn[0], dir) {
		t.Errorf("driver %s %v", name, warn)
	}
	_, err := Open(Config{Dir: dir, RunDir: t.TempDir(), StorageDriver: "overlay", Log: n.log})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("overlay where it does not work: %v", err)
	}
	if _, err := Open(Config{Dir: t.TempDir(), RunDir: t.TempDir(), StorageDriver: "zfs", Log: n.log}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown driver: %v", err)
	}
}

// After a change of the storage driver images are unpacked anew when needed.
func TestOtherDriver(t *testing.T) {
	s := open(t, Config{StorageDriver: "overlay"})
	loaded(t, s, "base:v1", imageOf(t, layerOf(t, base...)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n := open(t, Config{Dir: s.cfg.Dir, StorageDriver: "native"})
	id := ids.New()
	if err := n.PrepareRootfs(t.Context(), id, resolve(t, n, "base:v1")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(mounted(t, n, id), "bin/tool")); err != nil || string(b) != "tool" {
		t.Errorf("bin/tool is %q: %v", b, err)
	}
}

// A start must not pay for the store: preparing a layer writes no database.
func TestPrepareWritesNoDatabase(t *testing.T) {
	s := open(t, Config{})
	img := loaded(t, s, "base:v1", imageOf(t, layerOf(t, base...), layerOf(t, "a=1")))
	writes := func() int64 {
		st := s.bolt.Stats()
		return st.TxStats.GetWrite()
	}
	before := writes()
	for range 10 {
		id := ids.New()
		if err := s.PrepareRootfs(t.Context(), id, img); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveRootfs(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if n := writes() - before; n != 0 {
		t.Errorf("%d writes to the database", n)
	}
}

func BenchmarkPrepare(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir(), RunDir: b.TempDir(), Toolbox: "/proc/self/exe", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		img, err := s.Resolve(b.Context(), "isle/toolbox", nil)
		if err != nil {
			b.Fatal(err)
		}
		id := ids.New()
		if err := s.PrepareRootfs(b.Context(), id, img); err != nil {
			b.Fatal(err)
		}
		if _, err := s.RootfsMounts(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		if err := s.RemoveRootfs(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}
