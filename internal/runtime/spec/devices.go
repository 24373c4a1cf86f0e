package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Devices are the host's devices that a container is about.
type Devices struct {
	Nodes []Device                            // to be made in the container
	Block map[string]specs.LinuxBlockIODevice // numbers of the devices with I/O limits, by path
}

// Device is a node and what may be done with it.
type Device struct {
	specs.LinuxDevice
	Access string
}

// FindDevices looks up the devices that hc names; with --privileged those are
// all of the host's.
func FindDevices(hc *api.HostConfig) (Devices, error) {
	d := Devices{Block: map[string]specs.LinuxBlockIODevice{}}
	if hc.Privileged {
		nodes, err := walkDevices("/dev", "/dev", "rwm")
		if err != nil {
			return d, err
		}
		d.Nodes = nodes
	}
	for _, m := range hc.Devices {
		nodes, err := findMapping(m)
		if err != nil {
			return d, fmt.Errorf("error gathering device information while adding custom device %q: %w: %w", m.PathOnHost, err, errdefs.ErrInvalidArgument)
		}
		for _, n := range nodes {
			d.Nodes = slices.DeleteFunc(d.Nodes, func(o Device) bool { return o.Path == n.Path })
			d.Nodes = append(d.Nodes, n)
		}
	}
	if len(hc.DeviceRequests) > 0 {
		return d, fmt.Errorf("could not select device driver %q with capabilities: %v: %w", hc.DeviceRequests[0].Driver, hc.DeviceRequests[0].Capabilities, errdefs.ErrInvalidArgument)
	}
	return d, d.FindBlock(hc.Resources)
}

// FindBlock looks up the devices with I/O limits.
func (d *Devices) FindBlock(r api.Resources) error {
	if d.Block == nil {
		d.Block = map[string]specs.LinuxBlockIODevice{}
	}
	var paths []string
	for _, w := range r.BlkioWeightDevice {
		paths = append(paths, w.Path)
	}
	for _, list := range [][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps} {
		for _, t := range list {
			paths = append(paths, t.Path)
		}
	}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return fmt.Errorf("find device %s: %w: %w", p, err, errdefs.ErrInvalidArgument)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return fmt.Errorf("%s is not a block device: %w", p, errdefs.ErrInvalidArgument)
		}
		d.Block[p] = specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	}
	return nil
}

var access = regexp.MustCompile(`^[rwm]{1,3}$`)

// findMapping is one --device: a device, or a directory with devices.
func findMapping(m api.DeviceMapping) ([]Device, error) {
	perm := m.CgroupPermissions
	if perm == "" {
		perm = "rwm"
	}
	if !access.MatchString(perm) {
		return nil, fmt.Errorf("bad mode specified: %s", perm)
	}
	to := m.PathInContainer
	if to == "" {
		to = m.PathOnHost
	}
	if !filepath.IsAbs(to) {
		return nil, fmt.Errorf("%s is not an absolute path", to)
	}
	from, err := filepath.EvalSymlinks(m.PathOnHost)
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		dev, err := node(from, filepath.Clean(to), perm)
		return []Device{dev}, err
	}
	nodes, err := walkDevices(from, to, perm)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no devices found")
	}
	return nodes, err
}

var errNotDevice = errors.New("not a device node")

// skipDirs hold what a container has of its own, or what has none.
var skipDirs = []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}

// walkDevices are the devices below dir, to be found below to.
func walkDevices(dir, to, perm string) ([]Device, error) {
	var out []Device
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone while we walk
		case err != nil:
			return err
		case e.IsDir() && p != dir && slices.Contains(skipDirs, e.Name()):
			return fs.SkipDir
		case e.IsDir() || e.Type()&fs.ModeDevice == 0 || p == "/dev/console":
			return nil
		}
		d, err := node(p, filepath.Join(to, strings.TrimPrefix(p, dir)), perm)
		if errors.Is(err, errNotDevice) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		out = append(out, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return out, nil
}

func node(path, to, perm string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Device{}, err
	}
	typ := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		typ = "b"
	case unix.S_IFCHR:
		typ = "c"
	default:
		return Device{}, errNotDevice
	}
	mode := os.FileMode(st.Mode & 0o7777)
	uid, gid := st.Uid, st.Gid
	return Device{Access: perm, LinuxDevice: specs.LinuxDevice{
		Path: to, Type: typ, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode, UID: &uid, GID: &gid,
	}}, nil
}

// defaultRules let a container make any node and use those that each has:
// null, zero, full, random, urandom, tty, console, ptmx and ptys.
var defaultRules = []struct {
	typ          string
	major, minor int64
	access       string
}{
	{"c", -1, -1, "m"}, {"b", -1, -1, "m"},
	{"c", 1, 3, "rwm"}, {"c", 1, 5, "rwm"}, {"c", 1, 7, "rwm"}, {"c", 1, 8, "rwm"}, {"c", 1, 9, "rwm"},
	{"c", 5, 0, "rwm"}, {"c", 5, 1, "rwm"}, {"c", 5, 2, "rwm"}, {"c", 136, -1, "rwm"},
}

// devices are the nodes to make besides those every container has, and what
// may be done with which.
func devices(in Input) (nodes []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, err error) {
	hc := in.Record.Host
	for _, d := range in.Devices.Nodes {
		nodes = append(nodes, d.LinuxDevice)
	}
	if hc.Privileged {
		return nodes, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, nil
	}
	rules = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, r := range defaultRules {
		rules = append(rules, rule(r.typ, r.major, r.minor, r.access))
	}
	for _, d := range in.Devices.Nodes {
		rules = append(rules, rule(d.Type, d.Major, d.Minor, d.Access))
	}
	for _, s := range hc.DeviceCgroupRules {
		r, err := parseRule(s)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, r)
	}
	return nodes, rules, nil
}

// rule allows; -1 is any number.
func rule(typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: typ, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

var ruleSyntax = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

func parseRule(s string) (specs.LinuxDeviceCgroup, error) {
	m := ruleSyntax.FindStringSubmatch(s)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, fmt.Errorf("invalid device cgroup rule format: '%s': %w", s, errdefs.ErrInvalidArgument)
	}
	number := [2]int64{-1, -1}
	for i, t := range m[2:4] {
		if t == "*" {
			continue
		}
		v, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return specs.LinuxDeviceCgroup{}, fmt.Errorf("invalid device cgroup rule format: '%s': %w", s, errdefs.ErrInvalidArgument)
		}
		number[i] = v
	}
	return rule(m[1], number[0], number[1], m[4]), nil
}
