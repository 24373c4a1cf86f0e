package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName reports whether a volume may have this name.
func CheckName(name string) error {
	switch {
	case len(name) == 1:
		return errors.New("volume name is too short, names should be at least two alphanumeric characters")
	case !namePattern.MatchString(name):
		return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name)
	case len(name) > 255:
		return errors.New("volume name is too long, names should be at most 255 characters")
	}
	return nil
}

// checkOptions are the local driver's: type, o and device, the first and the
// last together. None at all is a plain directory.
func checkOptions(opts map[string]string) error {
	for k := range opts {
		if k != "type" && k != "o" && k != "device" {
			return fmt.Errorf("invalid option: %q", k)
		}
	}
	if len(opts) == 0 {
		return nil
	}
	for _, k := range []string{"device", "type"} {
		if opts[k] == "" {
			return fmt.Errorf("missing required option: %q", k)
		}
	}
	return nil
}

// mountFlags are the words of "o" that are flags; the others go to the file system.
var mountFlags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"defaults": {}, "ro": {flag: unix.MS_RDONLY}, "rw": {flag: unix.MS_RDONLY, clear: true},
	"suid": {flag: unix.MS_NOSUID, clear: true}, "nosuid": {flag: unix.MS_NOSUID},
	"dev": {flag: unix.MS_NODEV, clear: true}, "nodev": {flag: unix.MS_NODEV},
	"exec": {flag: unix.MS_NOEXEC, clear: true}, "noexec": {flag: unix.MS_NOEXEC},
	"sync": {flag: unix.MS_SYNCHRONOUS}, "async": {flag: unix.MS_SYNCHRONOUS, clear: true}, "dirsync": {flag: unix.MS_DIRSYNC},
	"atime": {flag: unix.MS_NOATIME, clear: true}, "noatime": {flag: unix.MS_NOATIME},
	"diratime": {flag: unix.MS_NODIRATIME, clear: true}, "nodiratime": {flag: unix.MS_NODIRATIME},
	"relatime": {flag: unix.MS_RELATIME}, "norelatime": {flag: unix.MS_RELATIME, clear: true},
	"strictatime": {flag: unix.MS_STRICTATIME}, "nostrictatime": {flag: unix.MS_STRICTATIME, clear: true},
	"bind": {flag: unix.MS_BIND}, "rbind": {flag: unix.MS_BIND | unix.MS_REC},
}

var propagationFlags = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
}

// optMount is one mount(2), parsed.
type optMount struct {
	fstype, device string
	flags          uintptr
	propagation    uintptr
	data           []string
}

func parseOptions(opts map[string]string) optMount {
	m := optMount{fstype: opts["type"], device: opts["device"]}
	for _, o := range strings.Split(opts["o"], ",") {
		f, isFlag := mountFlags[o]
		p, isPropagation := propagationFlags[o]
		switch {
		case o == "":
		case isFlag && f.clear:
			m.flags &^= f.flag
		case isFlag:
			m.flags |= f.flag
		case isPropagation:
			m.propagation = p
		default:
			m.data = append(m.data, o)
		}
	}
	return m
}

// resolve turns the server's name in "addr" into an address: the kernel's NFS
// and CIFS take nothing else.
func (m *optMount) resolve(ctx context.Context) error {
	if !strings.HasPrefix(m.fstype, "nfs") && m.fstype != "cifs" {
		return nil
	}
	for i, o := range m.data {
		name, ok := strings.CutPrefix(o, "addr=")
		if !ok || net.ParseIP(name) != nil {
			continue
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		if err != nil {
			return fmt.Errorf("error resolving passed in network volume address: %w", err)
		}
		m.data[i] = "addr=" + addrs[0].Unmap().String()
	}
	return nil
}

// mount makes the mount at target. A bind takes its flags and its propagation
// in calls of their own.
func (m *optMount) mount(target string) error {
	const keep = unix.MS_BIND | unix.MS_REC
	data, flags := strings.Join(m.data, ","), m.flags
	if flags&unix.MS_BIND != 0 {
		flags &= keep
	}
	if err := unix.Mount(m.device, target, m.fstype, flags, data); err != nil {
		return os.NewSyscallError("mount", err)
	}
	var err error
	if rest := m.flags &^ keep; flags&unix.MS_BIND != 0 && rest != 0 {
		err = unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|rest, "")
	}
	if err == nil && m.propagation != 0 {
		err = unix.Mount("", target, "", m.propagation, "")
	}
	if err != nil {
		return errors.Join(os.NewSyscallError("mount", err), unmount(target))
	}
	return nil
}

func unmount(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return os.NewSyscallError("umount", err)
	}
	return nil
}
