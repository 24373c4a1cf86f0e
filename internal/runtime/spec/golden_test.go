package spec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"

	"isle/internal/container"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
)

var update = flag.Bool("update", false, "write what was got into testdata")

// given is what in.json of a golden file says. What it leaves out is that of a
// plain container of "sh" on a machine with everything.
type given struct {
	Machine    string // a key of machines
	Config     api.Config
	HostConfig api.HostConfig
	User       spec.User
	Mounts     []container.Mount
	Namespaces spec.Namespaces
	Files      spec.Files
	Shm, Init  string
	Ulimits    map[string]spec.Limit
	Devices    []spec.Device
	Block      map[string]specs.LinuxBlockIODevice
}

func names(s string) map[string]bool {
	m := map[string]bool{}
	for _, f := range strings.Fields(s) {
		m[f] = true
	}
	return m
}

var caps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE",
}

// machines: "v2" is a Debian host with systemd; "v1" lacks CAP_SYS_RESOURCE,
// AppArmor and some controllers, as the machine that Isle is developed on.
var machines = map[string]spec.Host{
	"v2": {
		Cgroup: cgroup.Host{Mode: cgroup.V2, Unified: "/sys/fs/cgroup", Controllers: strings.Fields("cpu cpuset io memory pids"), NCPU: 4, CPUs: "0-3", Mems: "0", MemTotal: 8 << 30,
			Files: names("cpu.max cpu.weight cpuset.cpus cpuset.mems io.max io.weight memory.max memory.low memory.swap.max pids.max")},
		Caps: append([]string{"CAP_SYS_RESOURCE"}, caps...), HardLimits: limits(1 << 20), Seccomp: true,
		AppArmor: true, AppArmorProfiles: []string{"docker-default", "mine"}, CgroupNS: true, RecursiveReadOnly: true,
		ThermalThrottle: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"},
	},
	"v1": {
		Cgroup: cgroup.Host{Mode: cgroup.Hybrid, V1: map[string]string{"memory": "/sys/fs/cgroup/memory"}, Controllers: strings.Fields("blkio cpu cpuset devices memory pids"), NCPU: 2, CPUs: "0-1", Mems: "0", MemTotal: 4 << 30,
			Files: names("cpu.shares cpu.cfs_quota_us cpu.cfs_period_us cpuset.cpus cpuset.mems memory.limit_in_bytes memory.soft_limit_in_bytes memory.memsw.limit_in_bytes memory.swappiness memory.oom_control pids.max " +
				"blkio.throttle.read_bps_device blkio.throttle.write_bps_device blkio.throttle.read_iops_device blkio.throttle.write_iops_device")},
		Caps: caps, HardLimits: limits(20000), Seccomp: true, CgroupNS: true,
	},
	"bare": {Cgroup: cgroup.Host{Mode: cgroup.V1, NCPU: 1, CPUs: "0", Mems: "0"}, Caps: caps, HardLimits: limits(1024), OOMScoreAdj: 100},
}

func limits(hard uint64) map[string]uint64 {
	m := map[string]uint64{}
	for _, n := range []string{"nofile", "nproc", "core", "memlock"} {
		m[n] = hard
	}
	return m
}

func (g given) input(t *testing.T) spec.Input {
	t.Helper()
	host, ok := machines[g.Machine]
	if !ok {
		t.Fatalf("no machine %q", g.Machine)
	}
	group, err := host.Cgroup.Group(cgroup.Cgroupfs, "", strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	return spec.Input{
		Record: container.Record{Path: "sh", Args: []string{"-c", "true"}, Config: &g.Config, Host: &g.HostConfig},
		Host:   host, Rootfs: "rootfs", User: g.User, Mounts: g.Mounts, Namespaces: g.Namespaces, Files: g.Files, Shm: g.Shm, Init: g.Init,
		Ulimits: g.Ulimits, Devices: spec.Devices{Nodes: g.Devices, Block: g.Block}, Cgroup: group,
	}
}

// TestGolden builds what in.json says and compares the parts of config.json
// that the other files of the archive name by their JSON pointer, or "error".
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) { golden(t, p) })
	}
}

func golden(t *testing.T, path string) {
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := given{Machine: "v2", HostConfig: api.HostConfig{NetworkMode: "bridge"}, Namespaces: spec.Namespaces{Net: "/run/isle/netns/x"}}
	g.Config.Hostname = "box"
	dec := json.NewDecoder(bytes.NewReader(ar.Files[0].Data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&g); err != nil {
		t.Fatalf("%s: %v", ar.Files[0].Name, err)
	}
	in := g.input(t)
	before := dump(t, in)
	s, err := spec.Build(in)
	if dump(t, in) != before {
		t.Error("Build changed its input")
	}
	for i := range ar.Files[1:] {
		f := &ar.Files[i+1]
		got := part(t, s, err, f.Name)
		if *update {
			f.Data = []byte(got)
		} else if want := string(f.Data); got != want {
			t.Errorf("%s:\n got: %swant: %s", f.Name, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func dump(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// part is one part of the outcome as text.
func part(t *testing.T, s *specs.Spec, err error, name string) string {
	if name == "error" {
		if err == nil {
			return "none\n"
		}
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("the error is not of class InvalidArgument: %v", err)
		}
		return strings.TrimSuffix(err.Error(), ": "+errdefs.ErrInvalidArgument.Error()) + "\n"
	}
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal([]byte(dump(t, s)), &v); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Split(strings.TrimPrefix(name, "/"), "/") {
		switch at := v.(type) {
		case map[string]any:
			v = at[key]
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i < len(at) {
				v = at[i]
			} else {
				v = pick(at, key)
			}
		default:
			v = nil
		}
	}
	return lines(t, v)
}

// pick takes from a list the element with that destination, path or type.
func pick(list []any, key string) any {
	key = strings.ReplaceAll(key, "~1", "/")
	for _, e := range list {
		m, _ := e.(map[string]any)
		for _, k := range []string{"destination", "path", "type"} {
			if m[k] == key {
				return m
			}
		}
	}
	return nil
}

// lines has each element of a list on a line of its own.
func lines(t *testing.T, v any) string {
	switch v := v.(type) {
	case []any:
		if len(v) > 0 {
			out := ""
			for _, e := range v {
				out += dump(t, e) + "\n"
			}
			return out
		}
	case map[string]any:
		out := ""
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out += k + ": " + dump(t, v[k]) + "\n"
		}
		return out
	}
	return dump(t, v) + "\n"
}
