package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"isle/internal/image"
	"isle/internal/runtime"
	"isle/internal/version"
)

// Info is what "info" shows, and what clients decide by.
func (e *Engine) Info(ctx context.Context) (system.Info, error) {
	h := e.Host.Cgroup
	driver, driverWarnings := e.Images.Driver()
	images, err := e.Images.List(ctx, image.ListOptions{})
	if err != nil {
		return system.Info{}, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return system.Info{}, fmt.Errorf("host name: %w", err)
	}
	i := system.Info{
		ID: machineID(), Images: len(images), Driver: driver, DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: e.Networks.DriverNames(), Log: []string{logJSON, logLocal, logNone},
		},
		MemoryLimit: h.HasFile("memory.limit_in_bytes", "memory.max"), SwapLimit: h.HasFile("memory.memsw.limit_in_bytes", "memory.swap.max"),
		CPUCfsPeriod: h.HasFile("cpu.cfs_period_us", "cpu.max"), CPUCfsQuota: h.HasFile("cpu.cfs_quota_us", "cpu.max"),
		CPUShares: h.HasFile("cpu.shares", "cpu.weight"), CPUSet: h.HasFile("cpuset.cpus"), PidsLimit: h.HasFile("pids.max"),
		OomKillDisable: h.HasFile("memory.oom_control"), IPv4Forwarding: enabled("/proc/sys/net/ipv4/ip_forward"),
		Debug: e.Config.LogLevel == "debug", NFd: descriptors(), NGoroutines: goruntime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: logJSON, CgroupDriver: e.cgroupDriver(), CgroupVersion: h.Mode.Version(), NEventsListener: e.Bus.Listeners(),
		KernelVersion: kernel(), OperatingSystem: osRelease("PRETTY_NAME"), OSVersion: osRelease("VERSION_ID"), OSType: "linux", Architecture: machineName(),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: e.registries(), NCPU: h.NCPU, MemTotal: int64(h.MemTotal),
		DockerRootDir: e.Config.DataDir, HTTPProxy: proxy("HTTP_PROXY"), HTTPSProxy: proxy("HTTPS_PROXY"), NoProxy: proxy("NO_PROXY"),
		Name: hostname, Labels: e.probeLabels(), ServerVersion: version.Version, Runtimes: map[string]system.RuntimeWithStatus{},
		Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, LiveRestoreEnabled: true, Isolation: apitypes.IsolationEmpty,
		InitBinary: "docker-init", InitCommit: system.Commit{ID: version.Commit}, SecurityOptions: e.securityOptions(), FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs: []string{}, Warnings: append(e.limitWarnings(), driverWarnings...),
	}
	for _, p := range e.Config.Network.Pools {
		i.DefaultAddressPools = append(i.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	e.countContainers(&i)
	return i, e.describeRuntimes(&i)
}

// probeLabels are what isled found out about this kernel, where every client
// shows them: labels of the daemon.
func (e *Engine) probeLabels() []string {
	labels := []string{}
	for name, found := range e.Probes {
		labels = append(labels, "isle.probe."+name+"="+found)
	}
	slices.Sort(labels)
	return labels
}

func (e *Engine) countContainers(i *system.Info) {
	for _, c := range e.all() {
		i.Containers++
		switch c.snapshot().State.Status {
		case apitypes.StateRunning, apitypes.StateRestarting:
			i.ContainersRunning++
		case apitypes.StatePaused:
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
}

func (e *Engine) describeRuntimes(i *system.Info) error {
	def, err := e.Runtime.Find("")
	if err != nil {
		i.Warnings = append(i.Warnings, "WARNING: no OCI runtime: "+err.Error())
	}
	i.DefaultRuntime = def.Name
	for name, r := range e.Runtime.Names() {
		i.Runtimes[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	return nil
}

func (e *Engine) securityOptions() []string {
	var out []string
	if e.Host.AppArmor {
		out = append(out, "name=apparmor")
	}
	if e.Host.Seccomp {
		out = append(out, "name=seccomp,profile=builtin")
	}
	if e.Host.CgroupNS {
		out = append(out, "name=cgroupns")
	}
	return out
}

// limitWarnings are Docker's, for what this machine's kernel cannot limit.
func (e *Engine) limitWarnings() []string {
	out := []string{}
	for _, w := range []struct {
		what  string
		files []string
	}{
		{"memory limit", []string{"memory.limit_in_bytes", "memory.max"}},
		{"swap limit", []string{"memory.memsw.limit_in_bytes", "memory.swap.max"}},
		{"cpu cfs period", []string{"cpu.cfs_period_us", "cpu.max"}},
		{"cpu cfs quota", []string{"cpu.cfs_quota_us", "cpu.max"}},
		{"cpu shares", []string{"cpu.shares", "cpu.weight"}},
		{"cpuset", []string{"cpuset.cpus"}},
		{"pids limit", []string{"pids.max"}},
		{"blkio throttle.read_bps_device", []string{"blkio.throttle.read_bps_device", "io.max"}},
	} {
		if !e.Host.Cgroup.HasFile(w.files...) {
			out = append(out, "WARNING: No "+w.what+" support")
		}
	}
	if !enabled("/proc/sys/net/ipv4/ip_forward") {
		out = append(out, "WARNING: IPv4 forwarding is disabled")
	}
	return out
}

// registries is the configuration of registries as Docker's clients read it.
func (e *Engine) registries() *registry.ServiceConfig {
	s := &registry.ServiceConfig{
		InsecureRegistryCIDRs: nil,
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               []string{},
	}
	for host, r := range e.Config.Registries {
		s.IndexConfigs[host] = &registry.IndexInfo{Name: host, Mirrors: append([]string{}, r.Mirrors...), Secure: !r.Insecure, Official: host == "docker.io"}
	}
	if hub, ok := e.Config.Registries["docker.io"]; ok {
		s.Mirrors = append(s.Mirrors, hub.Mirrors...)
	}
	return s
}

// Version says which Isle this is.
func (e *Engine) Version(ctx context.Context) (system.VersionResponse, error) {
	engine := system.ComponentVersion{Name: "Engine", Version: version.Version, Details: map[string]string{
		"Arch": goruntime.GOARCH, "BuildTime": version.Date, "Experimental": "false", "GitCommit": version.Commit,
		"GoVersion": goruntime.Version(), "KernelVersion": kernel(), "Os": goruntime.GOOS,
	}}
	v := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Isle"}, Version: version.Version, Os: goruntime.GOOS, Arch: goruntime.GOARCH,
		Components: []system.ComponentVersion{engine}, GitCommit: version.Commit, GoVersion: goruntime.Version(), KernelVersion: kernel(), BuildTime: version.Date,
	}
	if rt, err := e.Runtime.Find(""); err == nil {
		v.Components = append(v.Components, e.versions.of(ctx, rt))
	}
	return v, nil
}

// runtimeVersions remembers what OCI runtimes say of themselves.
type runtimeVersions struct {
	mu sync.Mutex
	m  map[string]system.ComponentVersion
}

func (v *runtimeVersions) of(ctx context.Context, rt runtime.Runtime) system.ComponentVersion {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c, ok := v.m[rt.Path]; ok {
		return c
	}
	c := system.ComponentVersion{Name: rt.Name, Version: "unknown", Details: map[string]string{"Path": rt.Path}}
	out, err := exec.CommandContext(ctx, rt.Path, "--version").Output()
	if err != nil {
		return c
	}
	for line := range bytes.Lines(out) {
		s := strings.TrimSpace(string(line))
		if f := strings.Fields(s); strings.Contains(s, "version") && c.Version == "unknown" {
			c.Version = f[len(f)-1]
		}
		if commit, ok := strings.CutPrefix(s, "commit: "); ok {
			c.Details["GitCommit"] = commit
		}
	}
	if v.m == nil {
		v.m = map[string]system.ComponentVersion{}
	}
	v.m[rt.Path] = c
	return c
}

func enabled(path string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

func uname(pick func(*unix.Utsname) []byte) string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return string(bytes.TrimRight(pick(&u), "\x00"))
}

func kernel() string      { return uname(func(u *unix.Utsname) []byte { return u.Release[:] }) }
func machineName() string { return uname(func(u *unix.Utsname) []byte { return u.Machine[:] }) }

// osRelease is a value of /etc/os-release.
func osRelease(key string) string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

func machineID() string {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func proxy(name string) string {
	for _, n := range []string{name, strings.ToLower(name)} {
		if v := os.Getenv(n); v != "" {
			return v
		}
	}
	return ""
}
