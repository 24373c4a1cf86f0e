package spec_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	api "github.com/moby/moby/api/types/container"

	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
)

func plain() given {
	return given{Machine: "v2", HostConfig: api.HostConfig{NetworkMode: "bridge"}, Config: api.Config{Hostname: "box"}, Namespaces: spec.Namespaces{Net: "/n"}}
}

// What an image may say of itself cannot change how it is held.
func TestCVE_2026_94603(t *testing.T) {
	g := plain()
	want, err := spec.Build(g.input(t))
	if err != nil {
		t.Fatal(err)
	}
	evil := map[string]string{}
	for _, k := range []string{
		"io.podman.annotations.privileged", "io.podman.annotations.seccomp", "run.oci.keep_original_groups", "run.oci.systemd.force_cgroup_v1",
		"org.systemd.property.DeviceAllow", "io.kubernetes.cri-o.userns-mode", "run.oci.handler", "com.docker.security.privileged", "module.wasm.image/variant",
	} {
		evil[k] = "TRUE"
	}
	g.Config.Labels = evil
	g.Config.OnBuild = []string{"RUN x"}
	g.Config.Shell = []string{"/evil"}
	g.Config.Volumes = map[string]struct{}{"/dev": {}, "/proc": {}}
	got, err := spec.Build(g.input(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels of an image changed the configuration (-want +got):\n%s", diff)
	}
}

// No capability is inheritable or ambient, whoever the user is.
func TestCVE_2022_24769(t *testing.T) {
	for _, uid := range []uint32{0, 1000} {
		for _, privileged := range []bool{false, true} {
			g := plain()
			g.User.UID, g.HostConfig.Privileged = uid, privileged
			s, err := spec.Build(g.input(t))
			if err != nil {
				t.Fatal(err)
			}
			if c := s.Process.Capabilities; len(c.Inheritable)+len(c.Ambient) != 0 {
				t.Errorf("uid %d, privileged %v: %+v", uid, privileged, c)
			}
		}
	}
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/bin:\nweb:x:33:34::/srv/web:\n"
	group  = "root:x:0:\nbin:x:1:root,web\nweb:x:34:\naudio:x:63:web\nvideo:x:44:\n"
)

func TestResolveUser(t *testing.T) {
	image := fstest.MapFS{"etc/passwd": {Data: []byte(passwd)}, "etc/group": {Data: []byte(group)}}
	for _, tc := range []struct {
		name   string
		groups []string
		root   fs.FS
		want   spec.User
		err    string
	}{
		{name: "", want: spec.User{Groups: []uint32{0, 1}, Home: "/root"}},
		{name: "web", want: spec.User{UID: 33, GID: 34, Groups: []uint32{34, 1, 63}, Home: "/srv/web"}},
		{name: "33", want: spec.User{UID: 33, GID: 34, Groups: []uint32{34, 1, 63}, Home: "/srv/web"}},
		{name: "web:video", want: spec.User{UID: 33, GID: 44, Groups: []uint32{44}, Home: "/srv/web"}},
		{name: "1234:5678", want: spec.User{UID: 1234, GID: 5678, Groups: []uint32{5678}, Home: "/"}},
		{name: "1234", groups: []string{"video", "99"}, want: spec.User{UID: 1234, Groups: []uint32{0, 44, 99}, Home: "/"}},
		{name: "5:6", root: fstest.MapFS{}, want: spec.User{UID: 5, GID: 6, Groups: []uint32{6}, Home: "/"}},
		{name: "nobody", err: "unable to find user nobody: no matching entries in passwd file"},
		{name: "web:none", err: "unable to find group none: no matching entries in group file"},
		{name: "0", groups: []string{"none"}, err: "unable to find group none"},
		{name: "0", root: fstest.MapFS{"etc/passwd": {Mode: fs.ModeDir}}, err: "/etc/passwd is not a file"},
		{name: "0", root: fstest.MapFS{"etc/group": {Data: make([]byte, 5<<20)}}, err: "/etc/group is larger than"},
	} {
		if tc.root == nil {
			tc.root = image
		}
		got, err := spec.ResolveUser(tc.root, tc.name, tc.groups)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q %v: got %v, want %q", tc.name, tc.groups, err, tc.err)
			}
			continue
		}
		sortGroups(got.Groups)
		sortGroups(tc.want.Groups)
		if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
			t.Errorf("%q %v: %v (-want +got):\n%s", tc.name, tc.groups, err, diff)
		}
	}
}

// sortGroups leaves the primary group where it is: the first.
func sortGroups(g []uint32) {
	if len(g) > 1 {
		slices.Sort(g[1:])
	}
}

func TestExec(t *testing.T) {
	g := plain()
	g.Config.Env, g.Config.WorkingDir, g.HostConfig.CapDrop = []string{"A=1"}, "/srv", []string{"ALL"}
	in := spec.ExecInput{Input: g.input(t), User: spec.User{UID: 0, Home: "/root"}}
	in.Request = api.ExecCreateRequest{Cmd: []string{"ls"}, Env: []string{"B=2", "A"}, Tty: true, ConsoleSize: &[2]uint{10, 20}}
	p, err := spec.Exec(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Capabilities.Effective) != 0 || p.Cwd != "/srv" || !p.Terminal || p.ConsoleSize.Width != 20 || p.Args[0] != "ls" {
		t.Errorf("got %+v", p)
	}
	want := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "TERM=xterm", "B=2", "HOME=/root"}
	if diff := cmp.Diff(want, p.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	in.Request.Privileged, in.Request.WorkingDir = true, "relative"
	if _, err := spec.Exec(in); !errdefs.IsInvalidArgument(err) {
		t.Errorf("relative directory: %v", err)
	}
	in.Request.WorkingDir = "/"
	if p, err = spec.Exec(in); err != nil || len(p.Capabilities.Effective) != len(in.Host.Caps) || p.Cwd != "/" {
		t.Errorf("privileged: %+v, %v", p, err)
	}
}

func TestFindDevices(t *testing.T) {
	found, err := spec.FindDevices(&api.HostConfig{Resources: api.Resources{Devices: []api.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nothing", CgroupPermissions: "r"}}}})
	if err != nil || len(found.Nodes) != 1 || found.Nodes[0].Path != "/dev/nothing" || found.Nodes[0].Major != 1 || found.Nodes[0].Minor != 3 || found.Nodes[0].Access != "r" {
		t.Errorf("got %+v, %v", found, err)
	}
	found, err = spec.FindDevices(&api.HostConfig{Privileged: true})
	if err != nil || len(found.Nodes) < 5 {
		t.Errorf("all devices: %d, %v", len(found.Nodes), err)
	}
	for _, d := range found.Nodes {
		if strings.HasPrefix(d.Path, "/dev/pts/") || d.Path == "/dev/console" {
			t.Errorf("%s is one that a container has of its own", d.Path)
		}
	}
	for what, m := range map[string]api.DeviceMapping{
		"missing": {PathOnHost: "/dev/none"}, "a file": {PathOnHost: "/etc/passwd"}, "mode": {PathOnHost: "/dev/null", CgroupPermissions: "x"}, "empty": {PathOnHost: t.TempDir()},
	} {
		if _, err := spec.FindDevices(&api.HostConfig{Resources: api.Resources{Devices: []api.DeviceMapping{m}}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDetectHost(t *testing.T) {
	cg, err := cgroup.Detect()
	if errors.Is(err, errdefs.ErrNotImplemented) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := spec.DetectHost(cg)
	if err != nil || len(h.Caps) == 0 || h.HardLimits["nofile"] == 0 || h.Cgroup.NCPU == 0 {
		t.Errorf("got %+v, %v", h, err)
	}
}
