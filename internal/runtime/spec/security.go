package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	unconfined      = "unconfined"
	builtin         = "builtin"
	appArmorDefault = "docker-default"
)

// security is HostConfig.SecurityOpt, parsed.
type security struct {
	noNewPrivileges bool
	seccomp         string // "", unconfined, builtin, or a profile
	appArmor        string // "": the default
	writableCgroups bool
}

// parseSecurity reads "key", "key=value" and the old "key:value". SELinux
// labels are taken and have no effect, as in Docker on a host without SELinux.
func parseSecurity(opts []string) (security, error) {
	var s security
	for _, opt := range opts {
		k, v, ok := strings.Cut(opt, "=")
		if !ok {
			k, v, ok = strings.Cut(opt, ":")
		}
		var err error
		switch k {
		case "no-new-privileges":
			s.noNewPrivileges, err = flag(v, ok)
		case "writable-cgroups":
			s.writableCgroups, err = flag(v, ok)
		case "seccomp":
			s.seccomp = v
		case "apparmor":
			s.appArmor = v
		case "label", "disable":
		default:
			err = fmt.Errorf("unknown option")
		}
		if err != nil || (!ok && k != "no-new-privileges" && k != "writable-cgroups" && k != "disable") {
			return s, fmt.Errorf("invalid --security-opt 2: %q: %w", opt, errdefs.ErrInvalidArgument)
		}
	}
	return s, nil
}

func flag(v string, given bool) (bool, error) {
	if !given {
		return true, nil
	}
	return strconv.ParseBool(v)
}

// seccompProfile is the filter of a container whose capabilities are in s
// already. Nil is no filter.
func seccompProfile(h Host, want string, privileged bool, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	explicit := want != "" && want != unconfined
	switch {
	case want == unconfined, privileged && !explicit, !h.Seccomp && !explicit:
		return nil, nil
	case !h.Seccomp:
		return nil, fmt.Errorf("seccomp is not enabled in your kernel, cannot run a custom seccomp profile: %w", errdefs.ErrInvalidArgument)
	case want == "", want == builtin:
		return seccomp.GetDefaultProfile(s)
	}
	p, err := seccomp.LoadProfile(want, s)
	if err != nil {
		return nil, fmt.Errorf("invalid seccomp profile: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// appArmorProfile is Docker's choice. The default profile is used where it is
// loaded; Isle does not load it, for that takes a program of AppArmor's.
func appArmorProfile(h Host, want string, privileged bool) (string, error) {
	switch {
	case !h.AppArmor && (want == "" || want == unconfined):
		return "", nil
	case !h.AppArmor:
		return "", fmt.Errorf("apparmor=%s: AppArmor is not enabled on this machine: %w", want, errdefs.ErrInvalidArgument)
	case want == "" && privileged:
		return unconfined, nil
	case want == "" && slices.Contains(h.AppArmorProfiles, appArmorDefault):
		return appArmorDefault, nil
	case want == "" || want == unconfined || slices.Contains(h.AppArmorProfiles, want):
		return want, nil
	}
	return "", fmt.Errorf("apparmor=%s: no such profile is loaded on this machine: %w", want, errdefs.ErrInvalidArgument)
}

// MaskedPaths are the paths that are hidden from a container by default.
func MaskedPaths(h Host) []string {
	return append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}, h.ThermalThrottle...)
}

// ReadonlyPaths are the paths that a container cannot write to by default.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// paths are the masked and the read-only paths; a list given by the user, even
// an empty one, replaces the default.
func paths(h Host, hc *api.HostConfig) (masked, readonly []string) {
	if !hc.Privileged {
		masked, readonly = MaskedPaths(h), ReadonlyPaths()
	}
	if hc.MaskedPaths != nil {
		masked = hc.MaskedPaths
	}
	if hc.ReadonlyPaths != nil {
		readonly = hc.ReadonlyPaths
	}
	return masked, readonly
}
