package spec

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/container"
)

const defaultShm = 64 << 20

// mounts are all mounts on top of the root file system, in the order in which
// they are made: parents first, and a mount of the user's instead of ours at
// the same place.
func mounts(in Input, sec security) ([]specs.Mount, error) {
	own := systemMounts(in, sec)
	user, err := userMounts(in)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range user {
		taken[m.Destination] = true
	}
	files := slices.DeleteFunc(fileMounts(in), func(m specs.Mount) bool { return taken[m.Destination] })
	own = slices.DeleteFunc(own, func(m specs.Mount) bool {
		return taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/")
	})
	user = append(user, files...)
	slices.SortStableFunc(user, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return append(own, user...), nil
}

func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(path.Clean(p), "/")
}

// systemMounts are those that every container has.
func systemMounts(in Input, sec security) []specs.Mount {
	hc := in.Record.Host
	sysfs := []string{"nosuid", "noexec", "nodev", "ro"}
	cgroups := []string{"ro", "nosuid", "noexec", "nodev"}
	if hc.Privileged {
		sysfs[3] = "rw"
	}
	if hc.Privileged || sec.writableCgroups {
		cgroups[0] = "rw"
	}
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sysfs},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroups},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if !hc.IpcMode.IsNone() {
		ms = append(ms, shm(in))
	}
	return ms
}

func shm(in Input) specs.Mount {
	switch {
	case in.Shm != "":
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm, Options: []string{"rbind", "rprivate"}}
	case in.Record.Host.IpcMode.IsHost():
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}
	}
	size := in.Record.Host.ShmSize
	if size <= 0 {
		size = defaultShm
	}
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}}
}

func fileMounts(in Input) []specs.Mount {
	var ms []specs.Mount
	for _, f := range []struct{ source, target string }{
		{in.Files.ResolvConf, "/etc/resolv.conf"}, {in.Files.Hostname, "/etc/hostname"}, {in.Files.Hosts, "/etc/hosts"},
	} {
		if f.source == "" {
			continue
		}
		mode := "rw"
		if in.Record.Host.ReadonlyRootfs {
			mode = "ro"
		}
		ms = append(ms, specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate", mode}})
	}
	if wantsInit(in) {
		ms = append(ms, specs.Mount{Destination: initTarget, Type: "bind", Source: in.Init, Options: []string{"bind", "ro"}})
	}
	return ms
}

func userMounts(in Input) ([]specs.Mount, error) {
	if wantsInit(in) && in.Init == "" {
		return nil, fmt.Errorf("--init: there is no init program on this machine: %w", errdefs.ErrInvalidArgument)
	}
	ms := tmpfsFlags(in.Record.Host.Tmpfs)
	for _, m := range in.Mounts {
		switch m.Type {
		case mount.TypeTmpfs:
			ms = append(ms, tmpfs(m))
		case mount.TypeBind, mount.TypeVolume, mount.TypeImage:
			b, err := bind(in.Host, m)
			if err != nil {
				return nil, err
			}
			ms = append(ms, b)
		default:
			return nil, fmt.Errorf("mount %s: type %q is not supported: %w", m.Destination, m.Type, errdefs.ErrInvalidArgument)
		}
	}
	return ms, nil
}

// tmpfsFlags are the mounts of --tmpfs, which are no part of the record's.
func tmpfsFlags(flags map[string]string) []specs.Mount {
	var ms []specs.Mount
	for _, target := range slices.Sorted(maps.Keys(flags)) {
		m := container.Mount{TmpfsOpts: strings.FieldsFunc(flags[target], func(r rune) bool { return r == ',' })}
		m.Destination, m.RW = path.Clean(target), true
		ms = append(ms, tmpfs(m))
	}
	return ms
}

// tmpfs has Docker's options unless the user's say the contrary.
func tmpfs(m container.Mount) specs.Mount {
	opts := []string{"noexec", "nosuid", "nodev"}
	if !m.RW {
		opts = append(opts, "ro")
	}
	for _, o := range m.TmpfsOpts {
		opts = slices.DeleteFunc(opts, func(have string) bool { return have == contrary[o] || have == o })
		opts = append(opts, o)
	}
	return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: opts}
}

var contrary = map[string]string{
	"exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev", "ro": "rw", "rw": "ro",
}

func bind(h Host, m container.Mount) (specs.Mount, error) {
	opts := []string{"rbind"}
	if m.NonRecursive {
		opts[0] = "bind"
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	opts = append(opts, string(propagation))
	switch {
	case m.RW:
		opts = append(opts, "rw")
	case m.ReadOnlyNonRecursive || m.NonRecursive || isFile(m.Source):
		opts = append(opts, "ro")
	case h.RecursiveReadOnly:
		opts = append(opts, "ro", "rro")
	case m.ReadOnlyForceRecursive:
		return specs.Mount{}, fmt.Errorf("mount %s: this machine's kernel cannot make a mount recursively read-only: %w", m.Destination, errdefs.ErrInvalidArgument)
	default:
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: opts}, nil
}

// isFile tells that nothing can be mounted below source: there is no recursion
// to ask for, and crun 1.8 cannot do it to what is no directory.
func isFile(source string) bool {
	info, err := os.Stat(source)
	return err == nil && !info.IsDir()
}

// rootPropagation is that of the root file system: what the most open bind needs.
func rootPropagation(ms []container.Mount) string {
	p := "rprivate"
	for _, m := range ms {
		switch m.Propagation {
		case mount.PropagationShared, mount.PropagationRShared:
			return "shared"
		case mount.PropagationSlave, mount.PropagationRSlave:
			p = "slave"
		}
	}
	return p
}

// KeepShared reports whether some mount made in the container is to be seen on
// the host, which the shim's own mount namespace must then let through.
func KeepShared(ms []container.Mount) bool { return rootPropagation(ms) == "shared" }
