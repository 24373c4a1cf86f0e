package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	apivolume "github.com/moby/moby/api/types/volume"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"isle/internal/ids"
	"isle/internal/runtime"
	"isle/internal/store/bolt"
	"isle/internal/volume"
)

func open(t *testing.T, dir string) *volume.Service {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "isle.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := volume.Open(volume.Config{Dir: dir, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := t.Context()
	v, err := s.Create(ctx, apivolume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || v.Name != "data" || v.Driver != "local" || v.Scope != "local" || v.Labels["a"] != "b" || v.CreatedAt == "" || v.Mountpoint != dir+"/volumes/data/_data" {
		t.Fatalf("got %+v, %v", v, err)
	}
	if again, err := s.Create(ctx, apivolume.CreateRequest{Name: "data", Driver: "local"}); err != nil || again.CreatedAt != v.CreatedAt {
		t.Errorf("again: %+v, %v", again, err)
	}
	anon, err := s.Create(ctx, apivolume.CreateRequest{})
	if _, marked := anon.Labels[volume.Anonymous]; err != nil || !ids.Valid(anon.Name) || !marked {
		t.Errorf("without a name: %+v, %v", anon, err)
	}
	for _, tc := range []struct {
		req  apivolume.CreateRequest
		want string
		is   func(error) bool
	}{
		{apivolume.CreateRequest{Name: "x1", Driver: "nfs"}, `error looking up volume plugin nfs: plugin "nfs" not found`, errdefs.IsNotFound},
		{apivolume.CreateRequest{Name: "x"}, "create x: volume name is too short", errdefs.IsInvalidArgument},
		{apivolume.CreateRequest{Name: "../x"}, "create ../x: \"../x\" includes invalid characters for a local volume name", errdefs.IsInvalidArgument},
		{apivolume.CreateRequest{Name: strings.Repeat("x", 300)}, "create x", errdefs.IsInvalidArgument},
		{apivolume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"foo": "1"}}, `create xx: invalid option: "foo"`, errdefs.IsInvalidArgument},
		{apivolume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"type": "tmpfs"}}, `create xx: missing required option: "device"`, errdefs.IsInvalidArgument},
		{apivolume.CreateRequest{Name: "data", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}}, "create data: conflict: volume name must be unique", errdefs.IsConflict},
		{apivolume.CreateRequest{Name: "xx", ClusterVolumeSpec: &apivolume.ClusterVolumeSpec{}}, "volume xx: cluster volumes need a swarm", errdefs.IsUnavailable},
	} {
		if _, err := s.Create(ctx, tc.req); !tc.is(err) || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.req, err, tc.want)
		}
	}
	all, err := s.List(ctx)
	if err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestRemove(t *testing.T) {
	s := open(t, t.TempDir())
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(v.Mountpoint+"/f", []byte("12345"), 0o644)
	os.Link(v.Mountpoint+"/f", v.Mountpoint+"/g")
	if n, err := s.Usage(t.Context(), "data"); n != 5 || err != nil {
		t.Errorf("size: %d, %v", n, err)
	}
	if err := s.Remove(t.Context(), "data", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(v.Mountpoint)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
	if _, err := s.Find(t.Context(), "data"); !errdefs.IsNotFound(err) || err.Error() != "get data: no such volume: not found" {
		t.Errorf("got %v", err)
	}
	if err := s.Remove(t.Context(), "data", false); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if err := s.Remove(t.Context(), "data", true); err != nil {
		t.Errorf("with force: %v", err)
	}
}

// A volume with options is mounted for its first user and unmounted for the
// last, also when isled was started anew in between.
func TestMountOptions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700,noexec"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(v.Mountpoint, unix.MNT_DETACH) })
	for _, user := range []string{"a", "b", "a"} {
		if p, err := s.Mount(t.Context(), "ram", user); err != nil || p != v.Mountpoint {
			t.Fatalf("%s: %s, %v", user, p, err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.Mountpoint, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NOEXEC == 0 || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("got %+v, %v", st, err)
	}
	if n, err := s.Usage(t.Context(), "ram"); n != -1 || err != nil {
		t.Errorf("size: %d, %v", n, err)
	}
	for i, user := range []string{"a", "nobody", "b"} {
		if err := s.Unmount(t.Context(), "ram", user); err != nil {
			t.Fatal(err)
		}
		if on, _ := mountinfo.Mounted(v.Mountpoint); on != (i < 2) {
			t.Errorf("after %s left: mounted %v", user, on)
		}
	}
}

func TestMountBind(t *testing.T) {
	s, src := open(t, t.TempDir()), t.TempDir()
	os.WriteFile(src+"/f", nil, 0o644)
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "device": src, "o": "bind,ro"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(v.Mountpoint, unix.MNT_DETACH) })
	if _, err := s.Mount(t.Context(), "bound", "a"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Mountpoint+"/g", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	// Removal takes the mount away first and leaves what is behind it alone.
	if err := s.Remove(t.Context(), "bound", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(src + "/f"); err != nil {
		t.Errorf("the files behind the mount were deleted: %v", err)
	}
}

func TestMountFails(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "bad", DriverOpts: map[string]string{"type": "none", "device": "/none/such", "o": "bind"}}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Mount(t.Context(), "bad", "a")
	if !errors.Is(err, unix.ENOENT) || !strings.HasPrefix(err.Error(), "error while mounting volume '") || !strings.Contains(err.Error(), "failed to mount local volume: mount /none/such:") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Mount(t.Context(), "none", "a"); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestFill(t *testing.T) {
	s, root := open(t, t.TempDir()), t.TempDir()
	if err := errors.Join(os.MkdirAll(root+"/srv/data/sub", 0o750), os.WriteFile(root+"/srv/data/f", []byte("image"), 0o640), os.Chown(root+"/srv/data", 7, 8), os.Symlink("/srv", root+"/link")); err != nil {
		t.Fatal(err)
	}
	rootfs := []runtime.Mount{{Type: "bind", Source: root, Options: []string{"rbind", "ro"}}}
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), "data", rootfs, "/link/data"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	b, err := os.ReadFile(v.Mountpoint + "/f")
	if unix.Stat(v.Mountpoint, &st); err != nil || string(b) != "image" || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("got %q, %v, owner %d:%d", b, err, st.Uid, st.Gid)
	}
	os.WriteFile(v.Mountpoint+"/f", []byte("mine"), 0o640)
	if err := s.Fill(t.Context(), "data", rootfs, "/srv/data"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(v.Mountpoint + "/f"); string(b) != "mine" {
		t.Errorf("a volume that was not empty was filled: %q", b)
	}
}

// What is filled is what the containers will see, not what lies below it.
func TestFillMounted(t *testing.T) {
	s, src, root := open(t, t.TempDir()), t.TempDir(), t.TempDir()
	os.WriteFile(root+"/f", []byte("image"), 0o644)
	v, err := s.Create(t.Context(), apivolume.CreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "device": src, "o": "bind"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(v.Mountpoint, unix.MNT_DETACH) })
	if err := s.Fill(t.Context(), "bound", []runtime.Mount{{Type: "bind", Source: root, Options: []string{"rbind"}}}, "/"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(src + "/f"); string(b) != "image" {
		t.Errorf("got %q, %v", b, err)
	}
	if on, _ := mountinfo.Mounted(v.Mountpoint); on {
		t.Error("it stayed mounted")
	}
}

func TestConcurrent(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprintf("v%d", i%4)
			_, err := s.Create(t.Context(), apivolume.CreateRequest{Name: name})
			errs <- err
			errs <- s.Remove(t.Context(), name, true)
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left %v, %v", all, err)
	}
}
