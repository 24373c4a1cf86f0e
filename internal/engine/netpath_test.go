package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"isle/internal/container"
	"isle/internal/runtime"
)

func runtimeProc(id string) runtime.Proc { return runtime.Proc{ID: id} }

// TestOpenPath: what can be joined, and the class of the error for what cannot.
func TestOpenPath(t *testing.T) {
	dir := t.TempDir()
	file, pipe, link := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil { // opening it would wait for a writer
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/ns/net", link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/proc/self/ns/net", link} {
		f, err := openPath(apitypes.NetworkMode("ns:" + p))
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		// What was opened is joined, whatever the path becomes.
		var opened, own unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &opened); err != nil {
			t.Error(err)
		}
		if err := unix.Stat("/proc/self/ns/net", &own); err != nil || opened.Ino != own.Ino {
			t.Errorf("%s: another namespace: %v", p, err)
		}
		f.Close()
	}
	for p, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		file:                       "not a network namespace",
		pipe:                       "not a network namespace",
		dir:                        "not a network namespace",
		"/dev/zero":                "not a network namespace",
		"/proc/self/ns/mnt":        "not one of networks",
		"/proc/self/status":        "not a network namespace",
	} {
		if f, err := openPath(apitypes.NetworkMode("ns:" + p)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", p, f, err, want)
		}
	}
}

// TestNamespaceByPath: what can be said of one that is not Isle's.
func TestNamespaceByPath(t *testing.T) {
	w := newWorld(t)
	mode := "ns:/proc/self/ns/net"
	w.create("one", in(mode), func(o *container.CreateOptions) { // as the docker CLI sends it
		o.Networking = &networktypes.NetworkingConfig{EndpointsConfig: map[string]*networktypes.EndpointSettings{mode: {}}}
	})
	w.start("one")
	if w.networks.left() != 0 {
		t.Error("a namespace was made for it")
	}
	if err := w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{Container: "one"}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("connected: %v", err)
	}
	w.create("two", in("container:one"))
	w.start("two")
	for what, change := range map[string]func(*container.CreateOptions){
		"a relative path": func(o *container.CreateOptions) { o.Host.NetworkMode = "ns:netns/x" },
		"dots":            func(o *container.CreateOptions) { o.Host.NetworkMode = "ns:/run/../etc" },
		"no path":         func(o *container.CreateOptions) { o.Host.NetworkMode = "ns:" },
		"ports": func(o *container.CreateOptions) {
			o.Host.PortBindings = networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostPort: "80"}}}
		},
		"ports of an interface": func(o *container.CreateOptions) {
			o.Host.Annotations = map[string]string{AnnotationPublish: "if=eth0:80:80"}
		},
		"a sysctl": func(o *container.CreateOptions) { o.Host.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} },
		"another network": func(o *container.CreateOptions) {
			o.Networking = &networktypes.NetworkingConfig{EndpointsConfig: map[string]*networktypes.EndpointSettings{"app": {}}}
		},
		"an alias": func(o *container.CreateOptions) {
			o.Networking = &networktypes.NetworkingConfig{EndpointsConfig: map[string]*networktypes.EndpointSettings{mode: {Aliases: []string{"a"}}}}
		},
	} {
		opts := container.CreateOptions{Name: "x", Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{NetworkMode: apitypes.NetworkMode(mode)}}
		change(&opts)
		if _, err := w.ContainerCreate(t.Context(), opts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNetDev: counters in the kernel's words.
func TestNetDev(t *testing.T) {
	got, err := parseNetDev(strings.NewReader(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    5      1    0    0    0     0          0         0        5       1    0    0    0     0       0          0
  eth0: 1001     12    3    4    0     0          0         0     2002      21    5    6    0     0       0          0
`))
	want := apitypes.NetworkStats{RxBytes: 1001, RxPackets: 12, RxErrors: 3, RxDropped: 4, TxBytes: 2002, TxPackets: 21, TxErrors: 5, TxDropped: 6}
	if err != nil || len(got) != 1 || got["eth0"] != want {
		t.Errorf("%+v, %v", got, err)
	}
}
