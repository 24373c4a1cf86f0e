package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"isle/internal/container"
)

// isPath: "ns:PATH", a network namespace that somebody else made. Nothing in it
// is changed, and nothing of it is removed.
func isPath(mode apitypes.NetworkMode) bool { return strings.HasPrefix(string(mode), "ns:") }

func pathOf(mode apitypes.NetworkMode) string { return strings.TrimPrefix(string(mode), "ns:") }

// checkPath refuses what cannot be said of a namespace that is not Isle's.
func checkPath(_ apitypes.Config, h apitypes.HostConfig) error {
	if !isPath(h.NetworkMode) {
		return nil
	}
	switch p := pathOf(h.NetworkMode); {
	case !path.IsAbs(p) || path.Clean(p) != p:
		return invalid("invalid network mode %q: ns: must be followed by an absolute path without '.' and '..'", h.NetworkMode)
	case len(h.PortBindings) > 0 || h.PublishAllPorts || h.Annotations[AnnotationPublish] != "":
		return invalid("conflicting options: port publishing and a network namespace that is not Isle's: nothing is changed there. Hint: publish the port where the namespace is made")
	case len(h.Links) > 0:
		return invalid("conflicting options: links and a network namespace that is not Isle's")
	}
	for k := range netSysctls(h.Sysctls) {
		return invalid("sysctl '%s' not allowed in a network namespace that is not Isle's", k)
	}
	return nil
}

// pathAlone: a client may repeat the mode among the networks, without wishes.
func pathAlone(rec container.Record, given *networktypes.NetworkingConfig) error {
	if given == nil {
		return nil
	}
	for name, s := range given.EndpointsConfig {
		if name != string(rec.Host.NetworkMode) && name != "default" {
			return invalid("conflicting options: a container in a network namespace that is not Isle's cannot be on network %s", name)
		}
		if s != nil && (s.IPAMConfig != nil || len(s.MacAddress) > 0 || len(s.Aliases)+len(s.DriverOpts)+len(s.Links) > 0) {
			return invalid("conflicting options: addresses, aliases and options of a network namespace that is not Isle's cannot be chosen")
		}
	}
	return nil
}

// openPath opens a namespace and makes sure that it is one of networks. What was
// looked at is what is joined, whatever becomes of the path: the runtime is given
// the descriptor.
func openPath(mode apitypes.NetworkMode) (*os.File, error) {
	p := pathOf(mode)
	look, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0) // opening a device or a pipe would do something
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return nil, forbidden("network namespace %s: %s", p, err)
		}
		return nil, invalid("network namespace %s: %s", p, err)
	}
	defer unix.Close(look)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(look, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return nil, invalid("%s is not a network namespace: it is not a file of the kernel's namespaces", p)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", look))
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", p, err)
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, invalid("%s is a namespace, but not one of networks", p)
	}
	return f, nil
}

// counted are the interfaces that the process sees, but lo: of a namespace that
// the Manager does not know.
func counted(pid int) (map[string]apitypes.NetworkStats, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseNetDev(f)
}

// parseNetDev reads the table of proc_net_dev: 8 numbers of what was received,
// then 8 of what was sent; each begins with bytes, packets, errors and drops.
func parseNetDev(r io.Reader) (map[string]apitypes.NetworkStats, error) {
	out := map[string]apitypes.NetworkStats{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, numbers, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		f := strings.Fields(numbers)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		n := make([]uint64, len(f))
		for i, s := range f {
			n[i], _ = strconv.ParseUint(s, 10, 64)
		}
		out[name] = apitypes.NetworkStats{RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11]}
	}
	return out, lines.Err()
}
