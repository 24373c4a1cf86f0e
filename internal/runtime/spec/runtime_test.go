package spec_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
)

// TestMain is also the OCI runtime's parent, and the program in the container:
// the test binary is static.
func TestMain(m *testing.M) {
	switch role := os.Getenv("ISLE_TEST_ROLE"); role {
	case "":
		os.Exit(m.Run())
	case "runtime":
		fmt.Fprintln(os.Stderr, beRuntime())
		os.Exit(125)
	default:
		if err := programs[role](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// beRuntime hides the v2 tree where crun would refuse it and becomes the runtime.
func beRuntime() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if u := os.Getenv("ISLE_TEST_HIDE"); u != "" {
		if err := unix.Unmount(u, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return unix.Exec(os.Args[1], os.Args[1:], []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// programs are what runs in the container.
var programs = map[string]func() error{
	"report": report,
	"memory": func() error {
		b := make([]byte, 256<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	},
	"burn": func() error {
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
		}
		return hold()
	},
	"fork":  fork,
	"write": write,
	"hold":  hold,
}

// hold says that the work is done and waits for the end of stdin.
func hold() error {
	fmt.Println("done")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func fork() error {
	for range 60 {
		cmd := exec.Command("/self")
		cmd.Env = []string{"ISLE_TEST_ROLE=hold", "GOMAXPROCS=1"}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		cmd.Stdin = r
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return hold()
		}
		defer w.Close()
	}
	return errors.New("60 processes were let be")
}

// write writes 2 MiB past the page cache, as the throttle counts them.
func write() error {
	f, err := os.OpenFile("/data/file", os.O_CREATE|os.O_WRONLY|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(-1, 0, 256<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return err
	}
	for range 8 {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return hold()
}

// facts are what a process in the container sees.
type facts struct {
	Status, Mountinfo, Cgroup, Limits string
	Hostname, Cwd                     string
	Env                               []string
	Uid, Gid                          int
	Groups                            []int
	Failed                            map[string]string // what was tried, and why it failed
	Read                              map[string]string
	Dev                               []string
}

func report() error {
	read := func(p string) string { b, _ := os.ReadFile(p); return string(b) }
	f := facts{
		Status: read("/proc/self/status"), Mountinfo: read("/proc/self/mountinfo"), Cgroup: read("/proc/self/cgroup"), Limits: read("/proc/self/limits"),
		Env: os.Environ(), Uid: os.Getuid(), Gid: os.Getgid(), Failed: map[string]string{}, Read: map[string]string{},
	}
	f.Hostname, _ = os.Hostname()
	f.Cwd, _ = os.Getwd()
	f.Groups, _ = os.Getgroups()
	dev, _ := os.ReadDir("/dev")
	for _, d := range dev {
		f.Dev = append(f.Dev, d.Name())
	}
	for name, try := range map[string]func() error{
		"write /":            func() error { return os.WriteFile("/new", nil, 0o600) },
		"write /ro":          func() error { return os.WriteFile("/ro/new", nil, 0o600) },
		"write /ro/sub":      func() error { return os.WriteFile("/ro/sub/new", nil, 0o600) },
		"write /run":         func() error { return os.WriteFile("/run/new", nil, 0o600) },
		"write sysctl":       func() error { return os.WriteFile("/proc/sys/vm/swappiness", []byte("60"), 0) },
		"write sysrq":        func() error { return os.WriteFile("/proc/sysrq-trigger", nil, 0) },
		"mount":              func() error { return unix.Mount("t", "/tmp", "tmpfs", 0, "") },
		"unshare user":       func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"open host's disk":   openDisk,
		"listen on port 80":  func() error { l, err := net.Listen("tcp", "127.0.0.1:80"); return closed(l, err) },
		"keyctl":             func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
		"write the cgroup":   func() error { return os.Mkdir(memoryGroup()+"/x", 0o700) },
		"write /dev/shm":     func() error { return os.WriteFile("/dev/shm/x", nil, 0o600) },
		"execute from tmpfs": func() error { return execFrom("/run/self") },
	} {
		if err := try(); err != nil {
			f.Failed[name] = err.Error()
		}
	}
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax", "/proc/self/oom_score_adj"} {
		b, err := head(p)
		f.Read[p] = strings.TrimSpace(string(b))
		if list, lerr := os.ReadDir(p); lerr == nil && err != nil {
			f.Read[p] = fmt.Sprint(len(list), " entries")
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// head reads the beginning of a file, whose size may be a lie (/proc/kcore).
func head(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64))
}

// memoryGroup is the container's group as the container sees it.
func memoryGroup() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/memory"
}

func closed(l io.Closer, err error) error {
	if err == nil {
		l.Close()
	}
	return err
}

// openDisk makes a node of a disk, which is allowed, and opens it, which is not.
func openDisk() error {
	if err := unix.Mknod("/run/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(253, 0))); err != nil {
		return err
	}
	f, err := os.Open("/run/disk")
	return closed(f, err)
}

func execFrom(path string) error {
	b, err := os.ReadFile("/self")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(path)
	cmd.Env = []string{"ISLE_TEST_ROLE=hold"}
	return cmd.Run()
}

// box is a container of the test's own.
type box struct {
	t       *testing.T
	host    spec.Host
	group   cgroup.Group
	in      spec.Input
	runtime string
	hide    string
	bundle  string
	id      string
}

func newBox(t *testing.T, runtime, role string) *box {
	t.Helper()
	path, err := exec.LookPath(runtime)
	if err != nil {
		t.Skipf("%s: %v", runtime, errors.Join(err, errdefs.ErrNotImplemented))
	}
	cg, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, runtime: path, bundle: t.TempDir(), id: ids.New()}
	if b.host, err = spec.DetectHost(cg); err != nil {
		t.Fatal(err)
	}
	if cg.HideUnified() {
		b.hide = cg.Unified
	}
	parent := "/isle-test-" + ids.Short(b.id)
	if err := cg.EnsureParent(cgroup.Cgroupfs, parent); err != nil {
		t.Fatal(err)
	}
	if b.group, err = cg.Group(cgroup.Cgroupfs, parent, b.id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range b.group.Dirs {
			os.Remove(d)
			if err := os.Remove(filepath.Dir(d)); err != nil {
				t.Errorf("left over: %v", err)
			}
		}
		if cg.Unified != "" { // runc makes its groups on the v2 tree of a hybrid layout too
			os.Remove(filepath.Join(cg.Unified, parent, b.id))
			if err := os.Remove(filepath.Join(cg.Unified, parent)); err != nil && !os.IsNotExist(err) {
				t.Errorf("left over: %v", err)
			}
		}
	})
	b.root(role)
	return b
}

func (b *box) root(role string) {
	b.t.Helper()
	root := filepath.Join(b.bundle, "rootfs")
	for _, d := range []string{"proc", "dev", "sys", "run", "tmp", "etc", "ro", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "self"), self, 0o755)
	}
	if f, err := elf.Open("/proc/self/exe"); err == nil {
		defer f.Close()
		if f.Section(".interp") != nil {
			b.t.Fatal("the test binary is the container's only file and must be static: run go test with CGO_ENABLED=0")
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := &api.Config{Hostname: "box", Env: []string{"ISLE_TEST_ROLE=" + role}}
	b.in = spec.Input{
		Record: container.Record{ID: b.id, Path: "/self", Config: cfg, Host: &api.HostConfig{NetworkMode: "none"}},
		Host:   b.host, Rootfs: "rootfs", Cgroup: b.group, User: spec.User{Home: "/root", Groups: []uint32{0}},
	}
}

// start runs the container in the foreground; stop waits for its end.
func (b *box) start() (out *bytes.Buffer, stop func() error) {
	b.t.Helper()
	found, err := spec.FindDevices(b.in.Record.Host)
	if err != nil {
		b.t.Fatal(err)
	}
	b.in.Devices = found
	s, err := spec.Build(b.in)
	if err != nil {
		b.t.Fatal(err)
	}
	config, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.bundle, "config.json"), config, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	out = &bytes.Buffer{}
	cmd := exec.Command("/proc/self/exe", b.runtime, "--root", filepath.Join(b.bundle, "state"), "run", "--bundle", b.bundle, b.id)
	cmd.Env = []string{"ISLE_TEST_ROLE=runtime", "ISLE_TEST_HIDE=" + b.hide}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, out
	go func() {
		defer close(done)
		line := make([]byte, 64<<10)
		n, _ := io.ReadAtLeast(r, line, 1)
		out.Write(line[:n])
		done <- struct{}{}
		io.Copy(out, r)
	}()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { err := cmd.Wait(); w.Close(); ended <- err }()
	<-done
	stop = func() error {
		in.Close()
		err := <-ended
		<-done
		return err
	}
	return out, stop
}

func (b *box) stats() cgroup.Stats {
	b.t.Helper()
	s, err := b.host.Cgroup.Stats(b.group)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// run is for programs that end by themselves with a report.
func (b *box) report() facts {
	b.t.Helper()
	out, stop := b.start()
	err := stop()
	var f facts
	if jerr := json.Unmarshal(out.Bytes(), &f); jerr != nil || err != nil {
		b.t.Fatalf("%v, %v: %s", err, jerr, out)
	}
	return f
}

func statusLine(f facts, key string) string {
	for line := range strings.Lines(f.Status) {
		if k, v, _ := strings.Cut(line, ":"); k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// What is written for a plain container holds in the kernel, with either runtime.
func TestIsolation(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			b := newBox(t, runtime, "report")
			ro := t.TempDir()
			if err := os.Mkdir(ro+"/sub", 0o755); err != nil {
				t.Fatal(err)
			}
			hc := b.in.Record.Host
			hc.Sysctls = map[string]string{"kernel.msgmax": "9000"}
			hc.SecurityOpt = []string{"no-new-privileges"}
			hc.Tmpfs = map[string]string{"/run": "size=64m"}
			hc.ReadonlyRootfs = true
			hc.Ulimits = []*api.Ulimit{{Name: "nproc", Soft: 1001, Hard: 2002}}
			b.in.Mounts = []container.Mount{{MountPoint: api.MountPoint{Type: mount.TypeBind, Source: ro, Destination: "/ro"}}}
			b.in.User.Groups = []uint32{0, 5}
			checkIsolation(t, b, b.report())
		})
	}
}

func checkIsolation(t *testing.T, b *box, f facts) {
	for _, tried := range []string{"write /", "write /ro", "write /ro/sub", "write sysctl", "write sysrq", "mount", "unshare user", "open host's disk", "keyctl", "write the cgroup", "execute from tmpfs"} {
		if f.Failed[tried] == "" {
			t.Errorf("the container could: %s", tried)
		}
	}
	for _, tried := range []string{"write /run", "listen on port 80", "write /dev/shm"} {
		if f.Failed[tried] != "" {
			t.Errorf("%s: %s", tried, f.Failed[tried])
		}
	}
	const defaults = "00000000a80425fb" // Docker's fourteen
	for key, want := range map[string]string{"CapEff": defaults, "CapBnd": defaults, "CapPrm": defaults, "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
		if got := statusLine(f, key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	for path, want := range map[string]string{
		"/proc/kcore": "", "/proc/keys": "", "/proc/timer_list": "", "/sys/firmware": "0 entries",
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0", "/proc/sys/kernel/msgmax": "9000", "/proc/self/oom_score_adj": strconv.Itoa(b.host.OOMScoreAdj),
	} {
		if got := f.Read[path]; got != want && !(path == "/sys/firmware" && got == "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if f.Hostname != "box" || f.Cwd != "/" || fmt.Sprint(f.Groups) != "[0 5]" || !strings.Contains(f.Limits, "Max processes             1001                 2002") {
		t.Errorf("host name %s, directory %s, groups %v, limits %s", f.Hostname, f.Cwd, f.Groups, f.Limits)
	}
	if strings.Contains(f.Cgroup, ids.Short(b.id)) {
		t.Errorf("the container sees its place among the host's cgroups: %s", f.Cgroup)
	}
	for _, d := range f.Dev {
		if strings.HasPrefix(d, "vd") || strings.HasPrefix(d, "sd") || d == "mem" || d == "kvm" {
			t.Errorf("the container has the host's device %s", d)
		}
	}
}

func TestPrivileged(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			b := newBox(t, runtime, "report")
			b.in.Record.Host.Privileged = true
			f := b.report()
			for _, tried := range []string{"mount", "write sysctl"} {
				if f.Failed[tried] != "" {
					t.Errorf("%s: %s", tried, f.Failed[tried])
				}
			}
			if got := statusLine(f, "Seccomp"); got != "0" {
				t.Errorf("Seccomp: %s", got)
			}
		})
	}
}

func TestMemoryLimitBites(t *testing.T) {
	b := newBox(t, "crun", "memory")
	b.in.Record.Host.Memory = 64 << 20
	out, stop := b.start()
	err := stop()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 137 {
		t.Fatalf("got %v: %s, want to be killed", err, out)
	}
}

func TestCPULimitBites(t *testing.T) {
	b := newBox(t, "crun", "burn")
	b.in.Record.Host.NanoCPUs = 2e8 // 0.2
	out, stop := b.start()
	s := b.stats()
	if err := stop(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	th := s.CPU.ThrottlingData
	if th.Periods == 0 || th.ThrottledPeriods == 0 || th.ThrottledTime == 0 || s.CPU.CPUUsage.TotalUsage == 0 || s.CPU.CPUUsage.TotalUsage > 2*20e6*(th.Periods+3) {
		t.Errorf("got %+v: it was to have 20 of every 100 ms", s.CPU)
	}
	if s.CPU.SystemUsage == 0 || int(s.CPU.OnlineCPUs) != b.host.Cgroup.NCPU {
		t.Errorf("machine: %+v", s.CPU)
	}
}

func TestPidsLimitBites(t *testing.T) {
	b := newBox(t, "crun", "fork")
	limit := int64(40)
	b.in.Record.Host.PidsLimit = &limit
	out, stop := b.start()
	s := b.stats()
	err := stop()
	if err != nil || !strings.Contains(out.String(), "resource temporarily unavailable") {
		t.Errorf("%v: %s", err, out)
	}
	if s.Pids.Limit != 40 || s.Pids.Current < 20 || s.Pids.Current > 40 {
		t.Errorf("got %+v", s.Pids)
	}
}

func TestMemoryStats(t *testing.T) {
	b := newBox(t, "crun", "hold")
	b.in.Record.Host.Memory = 100 << 20
	out, stop := b.start()
	s := b.stats()
	if err := stop(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key := "total_inactive_file"
	if b.host.Cgroup.Mode == cgroup.V2 {
		key = "inactive_file"
	}
	if _, ok := s.Memory.Stats[key]; !ok || s.Memory.Limit != 100<<20 || s.Memory.Usage == 0 {
		t.Errorf("got %+v, without %s", s.Memory, key)
	}
}

func TestBlockIOLimitBites(t *testing.T) {
	b := newBox(t, "crun", "write")
	data := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(data, &st); err != nil {
		t.Fatal(err)
	}
	disk := diskOf(t, st.Dev)
	b.in.Mounts = []container.Mount{{MountPoint: api.MountPoint{Type: mount.TypeBind, Source: data, Destination: "/data", RW: true}}}
	b.in.Record.Host.BlkioDeviceWriteBps = []*blkiodev.ThrottleDevice{{Path: disk, Rate: 2 << 20}}
	began := time.Now()
	out, stop := b.start()
	took := time.Since(began)
	s := b.stats()
	if err := stop(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if took < 700*time.Millisecond { // without a limit: a few ms
		t.Errorf("2 MiB at 2 MiB/s were written in %v", took)
	}
	var written uint64
	for _, e := range s.Blkio.IoServiceBytesRecursive {
		if strings.EqualFold(e.Op, "write") {
			written += e.Value
		}
	}
	if written < 2<<20 {
		t.Errorf("counted %d bytes: %+v", written, s.Blkio)
	}
}

// diskOf is a node for a file system's device. One that is on no disk skips.
func diskOf(t *testing.T, dev uint64) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		t.Skipf("the temporary directory is on no disk: %v", errors.Join(err, errdefs.ErrNotImplemented))
	}
	node := filepath.Join(t.TempDir(), filepath.Base(name))
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(dev)); err != nil {
		t.Fatal(err)
	}
	return node
}

// Every limit that is accepted stands in the kernel's files, with either runtime.
func TestLimitsAreWritten(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			b := newBox(t, runtime, "hold")
			r := &b.in.Record.Host.Resources
			want := limitsV1(r, b.host.Cgroup)
			if b.host.Cgroup.Mode == cgroup.V2 {
				want = limitsV2(r)
			}
			out, stop := b.start()
			for name, w := range want {
				if got := b.read(name); !strings.Contains(got, w) {
					t.Errorf("%s: %q, want %q", name, got, w)
				}
			}
			if err := stop(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// commonLimits are what every layout can give.
func commonLimits() api.Resources {
	pids := int64(33)
	return api.Resources{
		Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: 96 << 20, PidsLimit: &pids,
		CPUShares: 512, CPUPeriod: 50000, CPUQuota: 20000, CpusetCpus: "0", CpusetMems: "0",
	}
}

// limitsV1 asks for limits and returns the files that are to say so.
func limitsV1(r *api.Resources, h cgroup.Host) map[string]string {
	yes, swappiness := true, int64(7)
	*r = commonLimits()
	r.MemorySwappiness, r.OomKillDisable = &swappiness, &yes
	want := map[string]string{
		"memory.limit_in_bytes": "67108864", "memory.soft_limit_in_bytes": "33554432", "memory.memsw.limit_in_bytes": "100663296",
		"memory.swappiness": "7", "memory.oom_control": "oom_kill_disable 1", "cpu.shares": "512", "cpu.cfs_period_us": "50000",
		"cpu.cfs_quota_us": "20000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "33",
	}
	if h.HasFile("blkio.weight") {
		r.BlkioWeight = 300
		want["blkio.weight"] = "300"
	}
	return want
}

// limitsV2 is limitsV1 for v2, where swap is counted apart from memory. What
// shares are as a weight, the runtimes do not agree about.
func limitsV2(r *api.Resources) map[string]string {
	*r = commonLimits()
	r.CPUShares = 0
	return map[string]string{
		"memory.max": "67108864", "memory.low": "33554432", "memory.swap.max": "33554432", "cpu.max": "20000 50000",
		"cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "33",
	}
}

// read is a file of the container's group.
func (b *box) read(name string) string {
	controller, _, _ := strings.Cut(name, ".")
	text, err := os.ReadFile(filepath.Join(b.group.Dir(controller), name))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
