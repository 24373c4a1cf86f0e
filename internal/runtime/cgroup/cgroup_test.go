package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/rogpeppe/go-internal/txtar"
)

// machine unpacks a recorded machine: the files of an archive below a root.
func machine(t *testing.T, name string) (root string) {
	t.Helper()
	ar, err := txtar.ParseFile("testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	for _, f := range ar.Files {
		p := filepath.Join(root, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, f.Data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var testID = strings.Repeat("ab", 32)

func TestDetect(t *testing.T) {
	for _, tc := range []struct {
		name, version, controllers string
		mode                       Mode
		hide                       bool
		has, hasNot                string
	}{
		{"v1", "1", "cpu cpuacct memory", V1, false, "memory.limit_in_bytes cpu.shares", "pids.max"},
		{"hybrid", "1", "blkio cpu cpuacct memory pids", Hybrid, true, "memory.limit_in_bytes pids.max blkio.throttle.read_bps_device", "blkio.weight"},
		{"v2", "2", "cpu io memory pids", V2, false, "memory.max cpu.max io.max pids.max", "memory.swappiness hugetlb.2MB.max"},
	} {
		h, err := detect(machine(t, tc.name))
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != tc.mode || h.Mode.String() != tc.name || h.Mode.Version() != tc.version || strings.Join(h.Controllers, " ") != tc.controllers || h.HideUnified() != tc.hide {
			t.Errorf("%s: got %+v", tc.name, h)
		}
		if h.NCPU != 4 || h.CPUs != "0-3" || h.Mems != "0" || h.MemTotal != 1<<30 {
			t.Errorf("%s: machine: %+v", tc.name, h)
		}
		for _, f := range strings.Fields(tc.has) {
			if !h.HasFile(f) {
				t.Errorf("%s: no %s", tc.name, f)
			}
		}
		for _, f := range strings.Fields(tc.hasNot) {
			if h.HasFile(f) {
				t.Errorf("%s: has %s", tc.name, f)
			}
		}
	}
}

func TestDetectNothing(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(root+"/proc/self", 0o755)
	os.WriteFile(root+"/proc/self/mountinfo", []byte("1 0 0:1 / / rw - ext4 /dev/x rw\n"), 0o644)
	if _, err := detect(root); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
}

// This machine, whatever it is, and nothing left on it.
func TestDetectHere(t *testing.T) {
	h, err := Detect()
	if errdefs.IsNotImplemented(err) {
		t.Skip(err)
	}
	if err != nil || h.NCPU == 0 || h.MemTotal == 0 || len(h.Controllers) == 0 {
		t.Fatalf("got %+v, %v", h, err)
	}
	for _, dir := range h.hierarchies() {
		left, _ := filepath.Glob(dir + "/isle-probe-*")
		if len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

func TestStats(t *testing.T) {
	entry := func(op string, v uint64) container.BlkioStatEntry {
		return container.BlkioStatEntry{Major: 8, Op: op, Value: v}
	}
	for name, want := range map[string]Stats{
		"hybrid": {
			CPU: container.CPUStats{
				CPUUsage:       container.CPUUsage{TotalUsage: 5e9, PercpuUsage: []uint64{2e9, 3e9}, UsageInUsermode: 3e9, UsageInKernelmode: 1e9},
				ThrottlingData: container.ThrottlingData{Periods: 10, ThrottledPeriods: 4, ThrottledTime: 777},
			},
			Memory: container.MemoryStats{Usage: 4096, MaxUsage: 8192, Failcnt: 2, Limit: 65536, Stats: map[string]uint64{"cache": 1, "total_inactive_file": 3}},
			Pids:   container.PidsStats{Current: 5, Limit: 50},
			Blkio: container.BlkioStats{
				IoServiceBytesRecursive: []container.BlkioStatEntry{entry("Read", 100), entry("Write", 200)},
				IoServicedRecursive:     []container.BlkioStatEntry{entry("Read", 1)},
			},
		},
		"v2": {
			CPU: container.CPUStats{
				CPUUsage:       container.CPUUsage{TotalUsage: 5e9, UsageInUsermode: 3e9, UsageInKernelmode: 2e9},
				ThrottlingData: container.ThrottlingData{Periods: 10, ThrottledPeriods: 4, ThrottledTime: 7000},
			},
			Memory: container.MemoryStats{Usage: 4096, Failcnt: 6, Limit: 1 << 30, Stats: map[string]uint64{"anon": 1, "inactive_file": 3}},
			Pids:   container.PidsStats{Current: 5},
			Blkio: container.BlkioStats{
				IoServiceBytesRecursive: []container.BlkioStatEntry{entry("read", 100), entry("write", 200)},
				IoServicedRecursive:     []container.BlkioStatEntry{entry("read", 3), entry("write", 4)},
			},
		},
	} {
		h, err := detect(machine(t, name))
		if err != nil {
			t.Fatal(err)
		}
		g, err := h.Group(Cgroupfs, "", testID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.Stats(g)
		if err != nil {
			t.Fatal(err)
		}
		if got.CPU.SystemUsage == 0 || got.CPU.OnlineCPUs != 4 {
			t.Errorf("%s: machine: %+v", name, got.CPU)
		}
		got.CPU.SystemUsage, got.CPU.OnlineCPUs = 0, 0
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		other, _ := h.Group(Cgroupfs, "", strings.Repeat("cd", 32))
		if _, err := h.Stats(other); !errdefs.IsNotFound(err) {
			t.Errorf("%s: no group: %v", name, err)
		}
	}
}

func TestStatsBroken(t *testing.T) {
	root := machine(t, "v2")
	h, _ := detect(root)
	g, _ := h.Group(Cgroupfs, "", testID)
	os.WriteFile(filepath.Join(g.Dirs[""], "memory.current"), []byte("nonsense"), 0o644)
	if _, err := h.Stats(g); err == nil {
		t.Error("nonsense was taken for a number")
	}
}

func TestSystemUsage(t *testing.T) {
	p := filepath.Join(t.TempDir(), "stat")
	os.WriteFile(p, []byte("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1\n"), 0o644)
	var r reader
	if got := r.system(p, 100); got != 28*1e7 || r.err != nil {
		t.Errorf("got %d, %v", got, r.err)
	}
}

func TestGroup(t *testing.T) {
	v2 := Host{Mode: V2, Unified: "/cg"}
	v1 := Host{Mode: V1, V1: map[string]string{"cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct", "pids": "/cg/pids"}}
	for _, tc := range []struct {
		h                              Host
		driver, parent, oci, path, dir string
		err                            string
	}{
		{h: v2, driver: Cgroupfs, oci: "/isle/x", path: "/isle/x", dir: "/cg/isle/x"},
		{h: v2, driver: Cgroupfs, parent: "a/../b", oci: "/b/x", path: "/b/x", dir: "/cg/b/x"},
		{h: v2, driver: Cgroupfs, parent: "../../b", oci: "/b/x", path: "/b/x", dir: "/cg/b/x"},
		{h: v1, driver: Cgroupfs, oci: "/isle/x", path: "/isle/x", dir: "/cg/pids/isle/x"},
		{h: v2, driver: Systemd, oci: "isle.slice:isle:x", path: "/isle.slice/isle-x.scope", dir: "/cg/isle.slice/isle-x.scope"},
		{h: v1, driver: Systemd, parent: "a-b.slice", oci: "a-b.slice:isle:x", path: "/a.slice/a-b.slice/isle-x.scope", dir: "/cg/pids/a.slice/a-b.slice/isle-x.scope"},
		{h: v2, driver: Systemd, parent: "-.slice", oci: "-.slice:isle:x", path: "/isle-x.scope", dir: "/cg/isle-x.scope"},
		{h: v2, driver: Systemd, parent: "/a", err: "should be a valid slice"},
		{h: v2, driver: Cgroupfs, parent: "a.slice", err: "needs the systemd cgroup driver"},
	} {
		g, err := tc.h.Group(tc.driver, tc.parent, "x")
		if tc.err != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s %s: %v", tc.driver, tc.parent, err)
			}
			continue
		}
		if err != nil || g.OCI != tc.oci || g.Path != tc.path || g.Dir("pids") != tc.dir {
			t.Errorf("%s %s: got %+v, %v", tc.driver, tc.parent, g, err)
		}
	}
}

func TestLeftovers(t *testing.T) {
	h, err := detect(machine(t, "hybrid"))
	if err != nil {
		t.Fatal(err)
	}
	// Files of a fake group cannot be removed by rmdir: only directories count here.
	const parent = "/left"
	if err := h.EnsureParent(Cgroupfs, parent); err != nil {
		t.Fatal(err)
	}
	kept, lost := strings.Repeat("12", 32), strings.Repeat("34", 32)
	for _, dir := range h.hierarchies() {
		for _, name := range []string{kept, lost + "/sub", "somebody-elses", "isle-" + lost + ".scope"} {
			if err := os.MkdirAll(filepath.Join(dir, parent, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	removed, err := h.RemoveLeftovers(Cgroupfs, parent, func(id string) bool { return id == kept })
	if err != nil || !slices.Equal(removed, []string{lost}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	for _, dir := range h.hierarchies() {
		entries, err := os.ReadDir(filepath.Join(dir, parent))
		if err != nil || len(entries) != 2 {
			t.Errorf("%s: left %v, %v", dir, entries, err)
		}
	}
	if _, err := h.RemoveLeftovers(Cgroupfs, "/none", func(string) bool { return false }); err != nil {
		t.Errorf("no parent: %v", err)
	}
}

// A real parent and a real group, here.
func TestEnsureParentHere(t *testing.T) {
	h, err := Detect()
	if errdefs.IsNotImplemented(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	parent := "/isle-cgroup-test/" + filepath.Base(t.TempDir())
	t.Cleanup(func() {
		for _, dir := range h.hierarchies() {
			if err := removeTree(dir + "/isle-cgroup-test"); err != nil {
				t.Error(err)
			}
		}
	})
	if err := errors.Join(h.EnsureParent(Cgroupfs, parent), h.EnsureParent(Cgroupfs, parent)); err != nil {
		t.Fatal(err)
	}
	if set := h.V1["cpuset"]; set != "" && readTrim(set+parent+"/cpuset.cpus") == "" {
		t.Error("the cpuset parent takes no process")
	}
	g, err := h.Group(Cgroupfs, parent, testID)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Stats(g); err != nil {
		t.Errorf("empty group: %v", err)
	}
	if err := errors.Join(g.Remove(), g.Remove()); err != nil || g.exists() {
		t.Errorf("remove: %v", err)
	}
}

func TestCheck(t *testing.T) {
	v1, err := detect(machine(t, "hybrid"))
	if err != nil {
		t.Fatal(err)
	}
	v2, err := detect(machine(t, "v2"))
	if err != nil {
		t.Fatal(err)
	}
	num := func(n int64) *int64 { return &n }
	yes, no := true, false
	dev := []*blkiodev.ThrottleDevice{{Path: "/dev/x", Rate: 1}}
	for _, tc := range []struct {
		r    container.Resources
		h    Host
		want string
	}{
		{h: v1}, {h: v2}, {h: Host{}},
		{r: container.Resources{Memory: 6 << 20, MemorySwap: 12 << 20}, h: v1},
		{r: container.Resources{Memory: 6<<20 - 1}, h: v1, want: "Minimum memory limit allowed is 6MB"},
		{r: container.Resources{Memory: -1}, h: v1, want: "Minimum memory limit allowed is 6MB"},
		{r: container.Resources{Memory: 8 << 20, MemorySwap: 7 << 20}, h: v1, want: "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{r: container.Resources{MemorySwap: 8 << 20}, h: v1, want: "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{r: container.Resources{MemorySwap: -1}, h: v1},
		{r: container.Resources{Memory: 8 << 20, MemorySwap: -2}, h: v1, want: "invalid value -2 for memory swap"},
		{r: container.Resources{Memory: 8 << 20, MemoryReservation: 9 << 20}, h: v1, want: "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{r: container.Resources{MemoryReservation: 1}, h: v1, want: "Minimum memory reservation allowed is 6MB"},
		{r: container.Resources{MemorySwappiness: num(101)}, h: v1, want: "Invalid value: 101, valid memory swappiness range is 0-100"},
		{r: container.Resources{MemorySwappiness: num(-1), OomKillDisable: &no, PidsLimit: num(0)}, h: Host{}},
		{r: container.Resources{MemorySwappiness: num(5)}, h: v2, want: "--memory-swappiness: "},
		{r: container.Resources{OomKillDisable: &yes}, h: v2, want: "--oom-kill-disable: "},
		{r: container.Resources{Memory: 8 << 20}, h: Host{}, want: "--memory: "},
		{r: container.Resources{NanoCPUs: 5e9}, h: v1, want: "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"},
		{r: container.Resources{NanoCPUs: 4e9}, h: v1},
		{r: container.Resources{NanoCPUs: 1}, h: v1, want: "range of CPUs is from 0.01"},
		{r: container.Resources{NanoCPUs: -1}, h: v1, want: "range of CPUs is from 0.01"},
		{r: container.Resources{NanoCPUs: 1e9, CPUPeriod: 10}, h: v1, want: "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{r: container.Resources{NanoCPUs: 1e9, CPUQuota: 10}, h: v1, want: "Conflicting options: Nano CPUs and CPU Quota cannot both be set"},
		{r: container.Resources{CPUPeriod: 999}, h: v1, want: "CPU cfs period can not be less than 1ms"},
		{r: container.Resources{CPUQuota: 999}, h: v1, want: "CPU cfs quota can not be less than 1ms"},
		{r: container.Resources{CPUQuota: -1}, h: v1},
		{r: container.Resources{CPUShares: 1}, h: v1, want: "the minimum allowed cpu-shares is 2"},
		{r: container.Resources{CPUShares: 1 << 20}, h: v1, want: "the maximum allowed cpu-shares is 262144"},
		{r: container.Resources{CPURealtimeRuntime: 5}, h: v2, want: "--cpu-rt-runtime: "},
		{r: container.Resources{CpusetCpus: "0-9"}, h: withSet(v1), want: "Requested CPUs are not available - requested 0-9, available: 0-3"},
		{r: container.Resources{CpusetMems: "1"}, h: withSet(v1), want: "Requested memory nodes are not available - requested 1, available: 0"},
		{r: container.Resources{CpusetCpus: "0-"}, h: withSet(v1), want: "Invalid value 0- for cpuset cpus"},
		{r: container.Resources{CpusetCpus: "0-4000000000"}, h: withSet(v1), want: "Invalid value"},
		{r: container.Resources{CpusetCpus: "0, 3"}, h: withSet(v1)},
		{r: container.Resources{CpusetCpus: "0"}, h: v1, want: "--cpuset-cpus: "},
		{r: container.Resources{PidsLimit: num(5)}, h: Host{}, want: "--pids-limit: "},
		{r: container.Resources{BlkioWeight: 9}, h: v1, want: "Range of blkio weight is from 10 to 1000"},
		{r: container.Resources{BlkioWeight: 10}, h: v1, want: "--blkio-weight: "},
		{r: container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/x", Weight: 10}}}, h: v1, want: "--blkio-weight-device: "},
		{r: container.Resources{BlkioDeviceReadBps: dev}, h: v1},
		{r: container.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{nil}}, h: v1, want: "--device-read-bps: a device has no path"},
		{r: container.Resources{BlkioDeviceWriteIOps: dev}, h: v2},
		{r: container.Resources{BlkioDeviceWriteIOps: dev}, h: Host{Mode: V1}, want: "--device-write-iops: "},
		{r: container.Resources{DeviceCgroupRules: []string{"c 1:1 r"}}, h: Host{Mode: V1}, want: "--device-cgroup-rule: "},
	} {
		err := Check(tc.r, tc.h)
		if tc.want == "" && err != nil || tc.want != "" && (!errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), tc.want)) {
			t.Errorf("%+v: got %v, want %q", tc.r, err, tc.want)
		}
	}
}

func withSet(h Host) Host {
	h.Files = map[string]bool{"cpuset.cpus": true, "cpuset.mems": true}
	return h
}
