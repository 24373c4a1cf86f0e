package spec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/cgroup"
)

// DetectHost looks at this machine and this process.
func DetectHost(cg cgroup.Host) (Host, error) {
	h := Host{Cgroup: cg}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, fmt.Errorf("read what this process may do: %w", err)
	}
	if h.Caps, h.Seccomp, err = parseStatus(string(status)); err != nil {
		return h, err
	}
	if h.HardLimits, err = hardLimits(); err != nil {
		return h, err
	}
	adj, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return h, fmt.Errorf("read what this process may do: %w", err)
	}
	if h.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(adj))); err != nil {
		return h, fmt.Errorf("read oom_score_adj: %w", err)
	}
	_, err = os.Stat("/proc/self/ns/cgroup")
	h.CgroupNS = err == nil
	h.AppArmor, h.AppArmorProfiles = appArmor()
	h.RecursiveReadOnly = !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
	h.ThermalThrottle, _ = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return h, nil
}

// parseStatus reads the capabilities that are both permitted and in the
// bounding set, and whether the kernel has seccomp.
func parseStatus(status string) (caps []string, seccomp bool, err error) {
	mask := Unlimited
	for line := range strings.Lines(status) {
		k, v, _ := strings.Cut(line, ":")
		switch k {
		case "CapPrm", "CapBnd":
			m, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return nil, false, fmt.Errorf("read %s: %w", k, err)
			}
			mask &= m
		case "Seccomp":
			seccomp = true
		}
	}
	for n, name := range capNames {
		if mask&(1<<n) != 0 {
			caps = append(caps, name)
		}
	}
	return caps, seccomp, nil
}

func hardLimits() (map[string]uint64, error) {
	m := map[string]uint64{}
	for name, number := range rlimits {
		var l unix.Rlimit
		if err := unix.Getrlimit(number, &l); err != nil {
			return nil, fmt.Errorf("read resource limit %s: %w", name, err)
		}
		m[name] = l.Max
	}
	return m, nil
}

func appArmor() (on bool, profiles []string) {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(b), "Y") {
		return false, nil
	}
	b, err = os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		return true, nil
	}
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, " (")
		profiles = append(profiles, strings.TrimSpace(name))
	}
	return true, profiles
}

func (h Host) may(capability string) bool { return slices.Contains(h.Caps, capability) }
