package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capNames are the kernel's capabilities; the index is the number.
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// defaultCaps are Docker's.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

const allCaps = "ALL"

// capabilities is what a container may do: Docker's rules for --privileged,
// --cap-add and --cap-drop. A capability that was asked for by name and that
// this machine cannot give is an error.
func capabilities(h Host, privileged bool, add, drop []string) ([]string, error) {
	adds, err := normalizeCaps("CapAdd", add)
	if err != nil {
		return nil, err
	}
	drops, err := normalizeCaps("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	if privileged {
		return slices.Clone(h.Caps), nil
	}
	for _, c := range adds {
		if c != allCaps && !h.may(c) {
			return nil, fmt.Errorf("invalid CapAdd: %s: isled itself does not have this capability: %w", c, errdefs.ErrInvalidArgument)
		}
	}
	return slices.DeleteFunc(union(adds, drops), func(c string) bool { return !h.may(c) }), nil
}

func union(adds, drops []string) []string {
	var base []string
	switch {
	case slices.Contains(adds, allCaps):
		base = capNames
	case !slices.Contains(drops, allCaps):
		base = defaultCaps
	}
	var out []string
	for _, c := range base {
		if !slices.Contains(drops, c) {
			out = append(out, c)
		}
	}
	for _, c := range adds {
		if c != allCaps && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

func normalizeCaps(field string, names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		c := strings.ToUpper(strings.TrimSpace(n))
		if c != allCaps && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c != allCaps && !slices.Contains(capNames, c) {
			return nil, fmt.Errorf("invalid %s: unknown capability: %q: %w", field, n, errdefs.ErrInvalidArgument)
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// capabilitySets are a process's sets: a user that is not root loses effective
// and permitted ones as by execve.
func capabilitySets(caps []string, uid uint32) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		sets.Effective, sets.Permitted = caps, caps
	}
	return sets
}
