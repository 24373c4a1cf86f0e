package engine

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"

	"isle/internal/runtime/cgroup"
)

// hostDefaults fills in what a client leaves to us, as inspect shows it.
func (e *Engine) hostDefaults(h *apitypes.HostConfig) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = "bridge"
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = apitypes.RestartPolicyDisabled
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if h.IpcMode == "" {
		h.IpcMode = apitypes.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = apitypes.CgroupnsModePrivate
		if h.Privileged && e.Host.Cgroup.Mode != cgroup.V2 {
			h.CgroupnsMode = apitypes.CgroupnsModeHost
		}
	}
	if h.Memory > 0 && h.MemorySwap == 0 && e.Host.Cgroup.HasFile("memory.memsw.limit_in_bytes", "memory.swap.max") {
		h.MemorySwap = 2 * h.Memory
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
}

// checkOptions refuses combinations that cannot be meant, in Docker's words.
func (e *Engine) checkOptions(c apitypes.Config, h apitypes.HostConfig) error {
	for _, check := range []func(apitypes.Config, apitypes.HostConfig) error{
		checkModes, checkShared, checkHostNetwork, checkPath, checkPublish, checkPaths, checkPolicies, checkLog, checkExtraHosts, checkHealth,
	} {
		if err := check(c, h); err != nil {
			return err
		}
	}
	if err := cgroup.Check(h.Resources, e.Host.Cgroup); err != nil {
		return trimClass(err)
	}
	_, err := e.Host.Cgroup.Group(e.cgroupDriver(), or(h.CgroupParent, e.Config.CgroupParent), "check")
	return trimClass(err)
}

// trimClass leaves of an error its text before the name of its class.
func trimClass(err error) error {
	if err == nil {
		return nil
	}
	return invalid("%s", strings.TrimSuffix(err.Error(), ": "+errdefs.ErrInvalidArgument.Error()))
}

func checkModes(c apitypes.Config, h apitypes.HostConfig) error {
	switch {
	case !h.PidMode.Valid():
		return invalid("invalid PID mode: %s", h.PidMode)
	case !h.IpcMode.Valid():
		return invalid("invalid IPC mode: %s", h.IpcMode)
	case !h.UTSMode.Valid():
		return invalid("invalid UTS mode: %s", h.UTSMode)
	case !h.UsernsMode.Valid():
		return invalid("invalid user namespace mode: %s", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %s", h.CgroupnsMode)
	case !h.Isolation.IsDefault():
		return invalid("invalid isolation (%s): only 'default' is supported on this platform", h.Isolation)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	case h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() == "":
		return invalid("Invalid network mode: invalid container format container:<name|id>")
	case h.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case h.AutoRemove && !h.RestartPolicy.IsNone():
		return invalid("can't create 'AutoRemove' container with restart policy")
	case len(h.DeviceRequests) > 0:
		return invalid("could not select device driver %q with capabilities: %v", h.DeviceRequests[0].Driver, h.DeviceRequests[0].Capabilities)
	case len(h.StorageOpt) > 0:
		return invalid("--storage-opt is not supported by this storage driver")
	}
	return nil
}

// checkShared is about --network container:X, whose settings are X's.
func checkShared(c apitypes.Config, h apitypes.HostConfig) error {
	if !h.NetworkMode.IsContainer() {
		return nil
	}
	switch {
	case c.Hostname != "":
		return invalid("conflicting options: hostname and the network mode")
	case len(h.Links) > 0:
		return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case len(h.DNS) > 0:
		return invalid("conflicting options: dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return invalid("conflicting options: custom host-to-IP mapping and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return invalid("conflicting options: port publishing and the container type network mode")
	case len(c.ExposedPorts) > 0:
		return invalid("conflicting options: port exposing and the container type network mode")
	}
	for k := range netSysctls(h.Sysctls) {
		return invalid("conflicting options: sysctl %s and the container type network mode. Hint: set it on the container whose network it is", k)
	}
	return nil
}

func checkHostNetwork(c apitypes.Config, h apitypes.HostConfig) error {
	switch {
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case h.NetworkMode.IsHost() && len(netSysctls(h.Sysctls)) > 0:
		for k := range netSysctls(h.Sysctls) {
			return invalid("sysctl '%s' not allowed in host network namespace", k)
		}
	case h.NetworkMode.IsNone() && len(h.PortBindings) > 0:
		return invalid("conflicting options: port publishing and the network mode none: there is nothing to publish from. Hint: choose another --network")
	}
	for p, bs := range h.PortBindings {
		if p.Proto() != "tcp" && p.Proto() != "udp" && p.Proto() != "sctp" || p.Num() == 0 {
			return invalid("invalid port specification: %q", p.String())
		}
		for _, b := range bs {
			if err := checkHostPort(b.HostPort); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkHostPort takes "", "80" and "8000-8010".
func checkHostPort(s string) error {
	lo, hi, isRange := strings.Cut(s, "-")
	for i, part := range []string{lo, hi} {
		if i == 0 && s == "" || i == 1 && !isRange {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(part+"\n", "%d\n", &n); err != nil || n < 0 || n > 65535 {
			return invalid("invalid port specification: %q", s)
		}
	}
	return nil
}

func checkPaths(c apitypes.Config, h apitypes.HostConfig) error {
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	for dst := range h.Tmpfs {
		if !path.IsAbs(dst) || path.Clean(dst) == "/" {
			return invalid("invalid tmpfs mount destination: %q", dst)
		}
	}
	for v := range c.Volumes {
		if !path.IsAbs(v) || path.Clean(v) == "/" {
			return invalid("invalid volume specification: '%s': destination can't be '/' and must be absolute", v)
		}
	}
	for _, kv := range c.Env {
		if kv == "" || strings.HasPrefix(kv, "=") {
			return invalid("invalid environment variable: %s", kv)
		}
	}
	return nil
}

func checkPolicies(c apitypes.Config, h apitypes.HostConfig) error {
	if err := apitypes.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return invalid("%s", err)
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return invalid("invalid signal: %s", c.StopSignal)
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return invalid("invalid stop timeout: %d", *c.StopTimeout)
	}
	return nil
}

func checkExtraHosts(_ apitypes.Config, h apitypes.HostConfig) error {
	for _, s := range h.ExtraHosts {
		if _, _, err := splitExtraHost(s); err != nil {
			return err
		}
	}
	return nil
}

// checkHealth: durations below a millisecond are mistakes of unit.
func checkHealth(c apitypes.Config, _ apitypes.HostConfig) error {
	h := c.Healthcheck
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name string
		v    int64
	}{{"Interval", int64(h.Interval)}, {"Timeout", int64(h.Timeout)}, {"StartPeriod", int64(h.StartPeriod)}, {"StartInterval", int64(h.StartInterval)}} {
		if d.v != 0 && d.v < int64(apitypes.MinimumDuration) {
			return invalid("%s in Healthcheck cannot be less than %s", d.name, apitypes.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "NONE", "CMD", "CMD-SHELL":
		default:
			return invalid("Unknown healthcheck type '%s' (expected 'CMD')", h.Test[0])
		}
	}
	return nil
}

func (e *Engine) cgroupDriver() string {
	if e.Config.CgroupDriver != "" {
		return e.Config.CgroupDriver
	}
	return e.Host.Cgroup.DefaultDriver()
}
