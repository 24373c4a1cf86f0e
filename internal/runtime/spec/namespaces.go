package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// namespaces are those that the container's process is in; one that is not
// listed is the host's.
func namespaces(in Input) ([]specs.LinuxNamespace, error) {
	hc := in.Record.Host
	if err := checkModes(hc); err != nil {
		return nil, err
	}
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(t specs.LinuxNamespaceType, host bool, path string) {
		if !host {
			ns = append(ns, specs.LinuxNamespace{Type: t, Path: path})
		}
	}
	add(specs.NetworkNamespace, hc.NetworkMode.IsHost(), in.Namespaces.Net)
	add(specs.UTSNamespace, hc.UTSMode.IsHost(), "")
	add(specs.IPCNamespace, hc.IpcMode.IsHost(), in.Namespaces.IPC)
	add(specs.PIDNamespace, hc.PidMode.IsHost(), in.Namespaces.PID)
	private, err := cgroupNS(in.Host, hc)
	add(specs.CgroupNamespace, !private, "")
	for _, j := range []struct {
		flag   string
		joined bool
		path   string
	}{{"--pid", hc.PidMode.IsContainer(), in.Namespaces.PID}, {"--ipc", hc.IpcMode.IsContainer(), in.Namespaces.IPC}, {"--network", hc.NetworkMode.IsContainer(), in.Namespaces.Net}} {
		if j.joined && j.path == "" {
			return nil, fmt.Errorf("%s: the other container's namespace is not known: %w", j.flag, errdefs.ErrInternal)
		}
	}
	return ns, err
}

// cgroupNS reports whether the container has a cgroup namespace of its own:
// yes, unless the user says otherwise or the kernel has none.
func cgroupNS(h Host, hc *api.HostConfig) (bool, error) {
	if hc.CgroupnsMode.IsPrivate() && !h.CgroupNS {
		return false, fmt.Errorf("--cgroupns=private: this machine's kernel has no cgroup namespaces: %w", errdefs.ErrInvalidArgument)
	}
	return h.CgroupNS && !hc.CgroupnsMode.IsHost(), nil
}

func checkModes(hc *api.HostConfig) error {
	invalid := func(format string, mode string) error {
		return fmt.Errorf(format+": %w", mode, errdefs.ErrInvalidArgument)
	}
	switch {
	case !hc.PidMode.Valid():
		return invalid("invalid PID mode: %s", string(hc.PidMode))
	case !hc.IpcMode.Valid():
		return invalid("invalid IPC mode: %s", string(hc.IpcMode))
	case !hc.UTSMode.Valid():
		return invalid("invalid UTS mode: %s", string(hc.UTSMode))
	case !hc.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %s", string(hc.CgroupnsMode))
	case !hc.UsernsMode.Valid():
		return invalid("invalid USER mode: %s", string(hc.UsernsMode))
	}
	return nil
}

// ipcSysctls are those that an IPC namespace has of its own.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// sysctls are the user's, checked to be the container's own, and Docker's
// defaults, which let a process without capabilities use low ports and ping.
func sysctls(hc *api.HostConfig) (map[string]string, error) {
	out := map[string]string{}
	if hc.NetworkMode.IsPrivate() {
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for _, k := range slices.Sorted(maps.Keys(hc.Sysctls)) {
		name := strings.ReplaceAll(k, "/", ".")
		if err := checkSysctl(name, hc); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		out[name] = hc.Sysctls[k]
	}
	return out, nil
}

func checkSysctl(name string, hc *api.HostConfig) error {
	switch {
	case strings.HasPrefix(name, "net."):
		if hc.NetworkMode.IsHost() {
			return fmt.Errorf("sysctl %q is not allowed in the hosts network namespace", name)
		}
	case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
		if hc.IpcMode.IsHost() {
			return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", name)
		}
	case name == "kernel.domainname":
		if hc.UTSMode.IsHost() {
			return fmt.Errorf("sysctl %q is not allowed in the hosts UTS namespace", name)
		}
	case name == "kernel.hostname":
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", name, "hostname")
	default:
		return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
	}
	return nil
}
