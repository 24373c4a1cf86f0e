package volume_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	isle "isle/internal/container"
	"isle/internal/ids"
	"isle/internal/volume"
)

// show is a mount in one line.
func show(w volume.Wanted) string {
	s := fmt.Sprintf("%s %s at %s", w.Type, w.Source+w.Name, w.Destination)
	if w.Anonymous {
		if !ids.Valid(w.Name) || w.Volume.Labels[volume.Anonymous] != "" {
			return "an anonymous volume with a strange name: " + w.Name
		}
		s = fmt.Sprintf("anonymous volume at %s", w.Destination)
	}
	for _, f := range []struct {
		on   bool
		text string
	}{
		{!w.RW, "ro"}, {w.NoCopy, "nocopy"}, {w.MayCreate, "create"}, {w.Propagation != "", string(w.Propagation)}, {w.Mode != "", "mode=" + w.Mode},
		{w.Subpath != "", "subpath=" + w.Subpath}, {len(w.TmpfsOpts) > 0, strings.Join(w.TmpfsOpts, "+")}, {w.NonRecursive, "nonrecursive"},
		{w.ReadOnlyNonRecursive, "ro-nonrecursive"}, {w.ReadOnlyForceRecursive, "ro-force"},
		{w.Volume != nil && w.Volume.Driver != "", "driver"}, {w.Volume != nil && len(w.Volume.DriverOpts) > 0, "opts"},
	} {
		if f.on {
			s += " " + f.text
		}
	}
	return s
}

func TestParse(t *testing.T) {
	other := []isle.Mount{
		{MountPoint: container.MountPoint{Type: mount.TypeVolume, Name: "theirs", Source: "/v/", Destination: "/data", RW: true}, Anonymous: false},
		{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: "/host", Destination: "/bind", RW: false, Propagation: mount.PropagationRPrivate}},
	}
	from := func(ref string) ([]isle.Mount, error) {
		if ref != "other" {
			return nil, errdefs.ErrNotFound
		}
		return other, nil
	}
	mnt := func(m mount.Mount) container.HostConfig { return container.HostConfig{Mounts: []mount.Mount{m}} }
	binds := func(b ...string) container.HostConfig { return container.HostConfig{Binds: b} }
	for _, tc := range []struct {
		host  container.HostConfig
		image []string
		want  []string
		err   string
	}{
		{host: binds("/src:/dst"), want: []string{"bind /src at /dst create rprivate"}},
		{host: binds("/src/:/dst/../x/:ro,z,rslave"), want: []string{"bind /src at /x ro create rslave mode=ro,z,rslave"}},
		{host: binds("name:/dst:nocopy"), want: []string{"volume name at /dst nocopy mode=nocopy"}},
		{host: binds("/dst"), want: []string{"anonymous volume at /dst"}},
		{host: container.HostConfig{Binds: []string{"name:/dst"}, VolumeDriver: "local"}, want: []string{"volume name at /dst driver"}},
		{host: binds("/a:/b:/c:/d"), err: "invalid volume specification: '/a:/b:/c:/d'"},
		{host: binds(":/b"), err: "invalid volume specification: ':/b'"},
		{host: binds("/b:ro"), err: "invalid volume specification: '/b:ro'"},
		{host: binds("/a:/b:rx"), err: "invalid volume specification: '/a:/b:rx': invalid mode: rx"},
		{host: binds("/a:/b:ro,rw"), err: "invalid volume specification: '/a:/b:ro,rw': invalid mode: ro,rw"},
		{host: binds("name:/b:rshared"), err: "invalid volume specification: 'name:/b:rshared': invalid mode"},
		{host: binds("/a:b"), err: "invalid volume specification: '/a:b': invalid mount path: 'b' mount path must be absolute"},
		{host: binds("/a:/"), err: "invalid volume specification: '/a:/': invalid specification: destination can't be '/'"},
		{host: binds("/a:/x/.."), err: "invalid volume specification: '/a:/x/..': invalid specification: destination can't be '/'"},
		{host: binds("./a:/x"), err: `invalid volume specification: './a:/x': "./a" includes invalid characters for a local volume name`},
		{host: binds("a:/x"), err: "invalid volume specification: 'a:/x': volume name is too short"},
		{host: binds("/a:/x", "/b:/x/"), err: "Duplicate mount point: /x"},
		{host: container.HostConfig{Binds: []string{"/a:/x"}, Tmpfs: map[string]string{"/x": ""}}, err: "Duplicate mount point: /x"},
		{host: container.HostConfig{Binds: []string{"/a:/x"}, Mounts: []mount.Mount{{Type: "tmpfs", Target: "/x"}}}, err: "Duplicate mount point: /x"},
		{host: container.HostConfig{Tmpfs: map[string]string{"/x": "size=1m,exec"}}, image: []string{"/x", "/y"}, want: []string{"anonymous volume at /y"}},
		{host: container.HostConfig{Tmpfs: map[string]string{"/x": "bogus"}}, err: `invalid tmpfs option ["bogus"]`},
		{host: container.HostConfig{Tmpfs: map[string]string{"x": ""}}, err: "invalid mount path: 'x' mount path must be absolute"},

		{host: binds("name:/data"), image: []string{"/data", "/log/"}, want: []string{"volume name at /data", "anonymous volume at /log"}},
		{host: container.HostConfig{VolumesFrom: []string{"other"}}, image: []string{"/data"}, want: []string{"volume /v/theirs at /data nocopy", "bind /host at /bind ro nocopy rprivate"}},
		{host: container.HostConfig{VolumesFrom: []string{"other:ro"}, Binds: []string{"/mine:/data"}}, want: []string{"bind /mine at /data create rprivate", "bind /host at /bind ro nocopy rprivate"}},
		{host: container.HostConfig{VolumesFrom: []string{"other:rshared"}}, err: "invalid mode: rshared"},
		{host: container.HostConfig{VolumesFrom: []string{":ro"}}, err: "invalid volumes-from spec: :ro"},

		{host: mnt(mount.Mount{Type: "bind", Source: "/etc", Target: "/x", ReadOnly: true, BindOptions: &mount.BindOptions{Propagation: "slave", NonRecursive: true}}), want: []string{"bind /etc at /x ro slave nonrecursive"}},
		{host: mnt(mount.Mount{Type: "bind", Source: "/etc", Target: "/x", ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}}), want: []string{"bind /etc at /x ro rprivate ro-force"}},
		{host: mnt(mount.Mount{Type: "bind", Source: "/none/x", Target: "/x"}), err: `invalid mount config for type "bind": bind source path does not exist: /none/x`},
		{host: mnt(mount.Mount{Type: "bind", Source: "/none/x", Target: "/x", BindOptions: &mount.BindOptions{CreateMountpoint: true}}), want: []string{"bind /none/x at /x create rprivate"}},
		{host: mnt(mount.Mount{Type: "bind", Source: "x", Target: "/x"}), err: `invalid mount config for type "bind": invalid mount path: 'x' mount path must be absolute`},
		{host: mnt(mount.Mount{Type: "bind", Target: "/x"}), err: `invalid mount config for type "bind": field Source must not be empty`},
		{host: mnt(mount.Mount{Type: "bind", Source: "/etc"}), err: `invalid mount config for type "bind": field Target must not be empty`},
		{host: mnt(mount.Mount{Type: "bind", Source: "/etc", Target: "/x", VolumeOptions: &mount.VolumeOptions{}}), err: `invalid mount config for type "bind": field VolumeOptions must not be specified`},
		{host: mnt(mount.Mount{Type: "bind", Source: "/etc", Target: "/x", BindOptions: &mount.BindOptions{Propagation: "odd"}}), err: `invalid mount config for type "bind": invalid propagation mode: odd`},
		{host: mnt(mount.Mount{Type: "bind", Source: "/etc", Target: "/x", BindOptions: &mount.BindOptions{ReadOnlyNonRecursive: true}}), err: `invalid mount config for type "bind": mount options conflict`},
		{host: mnt(mount.Mount{Type: "volume", Source: "name", Target: "/x", VolumeOptions: &mount.VolumeOptions{NoCopy: true, Subpath: "a/b", Labels: map[string]string{"k": "v"}, DriverConfig: &mount.Driver{Name: "local", Options: map[string]string{"type": "tmpfs"}}}}), want: []string{"volume name at /x nocopy subpath=a/b driver opts"}},
		{host: mnt(mount.Mount{Type: "volume", Target: "/x"}), want: []string{"anonymous volume at /x"}},
		{host: mnt(mount.Mount{Type: "volume", Target: "/x", ReadOnly: true}), err: `invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes`},
		{host: mnt(mount.Mount{Type: "volume", Source: "name", Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "../x"}}), err: `invalid mount config for type "volume": subpath must be a relative path within the volume`},
		{host: mnt(mount.Mount{Type: "tmpfs", Target: "/x", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 5, Mode: 0o1777, Options: [][]string{{"exec"}, {"uid", "3"}}}}), want: []string{"tmpfs  at /x mode=1777+size=5+exec+uid=3"}},
		{host: mnt(mount.Mount{Type: "tmpfs", Target: "/x", Source: "s"}), err: `invalid mount config for type "tmpfs": field Source must not be specified`},
		{host: mnt(mount.Mount{Type: "tmpfs", Target: "/x", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"a", "b", "c"}}}}), err: `invalid mount config for type "tmpfs": invalid option array length`},
		{host: mnt(mount.Mount{Type: "image", Source: "debian", Target: "/x"}), err: `invalid mount config for type "image": mounting an image is not supported`},
		{host: mnt(mount.Mount{Type: "npipe", Source: "x", Target: "/x"}), err: `invalid mount config for type "npipe": mount type unknown`},
	} {
		cfg := container.Config{Volumes: map[string]struct{}{}}
		for _, v := range tc.image {
			cfg.Volumes[v] = struct{}{}
		}
		got, err := volume.Parse(&cfg, &tc.host, from)
		if tc.err != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("%+v: got %v, want %q", tc.host.Binds, err, tc.err)
			}
			continue
		}
		var lines []string
		for _, w := range got {
			lines = append(lines, show(w))
		}
		if err != nil || strings.Join(lines, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%v %v: %v\n got %q\nwant %q", tc.host.Binds, tc.host.Mounts, err, lines, tc.want)
		}
	}
	if _, err := volume.Parse(&container.Config{}, &container.HostConfig{VolumesFrom: []string{"none"}}, from); !errdefs.IsNotFound(err) {
		t.Errorf("volumes from nobody: %v", err)
	}
}

func TestPrepareBinds(t *testing.T) {
	dir := t.TempDir()
	bind := func(source string, may bool) []isle.Mount {
		return []isle.Mount{{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: source, Destination: "/x"}, MayCreate: may}}
	}
	made := bind(dir+"/a/b", true)
	if err := volume.PrepareBinds(made); err != nil || !made[0].Created {
		t.Errorf("got %+v, %v", made, err)
	}
	if fi, err := os.Stat(dir + "/a/b"); err != nil || !fi.IsDir() {
		t.Error(err)
	}
	again := bind(dir+"/a/b", true)
	if err := volume.PrepareBinds(again); err != nil || again[0].Created {
		t.Errorf("got %+v, %v", again, err)
	}
	const want = `invalid mount config for type "bind": bind source path does not exist: `
	if err := volume.PrepareBinds(bind(dir+"/none", false)); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), want+dir+"/none") {
		t.Errorf("got %v", err)
	}
}

// On a private mount nothing can propagate.
func TestPropagation(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, tc := range []struct {
		kind uintptr
		ask  mount.Propagation
		want string
	}{
		{unix.MS_PRIVATE, mount.PropagationRPrivate, ""},
		{unix.MS_PRIVATE, mount.PropagationRShared, "but it is not a shared mount"},
		{unix.MS_PRIVATE, mount.PropagationSlave, "but it is not a shared or slave mount"},
		{unix.MS_SHARED, mount.PropagationRShared, ""},
		{unix.MS_SHARED, mount.PropagationRSlave, ""},
	} {
		if err := unix.Mount("", dir, "", tc.kind, ""); err != nil {
			t.Fatal(err)
		}
		err := volume.PrepareBinds([]isle.Mount{{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: dir, Propagation: tc.ask}}})
		if tc.want == "" && err != nil || tc.want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.ask, err, tc.want)
		}
	}
}

func TestSubpath(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.Symlink("/etc", dir+"/out"), os.Symlink("a/b", dir+"/in"), os.Symlink("../../../../../etc", dir+"/up")); err != nil {
		t.Fatal(err)
	}
	for sub, want := range map[string]string{"": dir, "a/b": dir + "/a/b", "in": dir + "/a/b", "out": "", "up": "", "none": "", "../x": ""} {
		got, err := volume.Subpath(dir, sub)
		if got != want || want == "" && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %q, %v, want %q", sub, got, err, want)
		}
	}
}
