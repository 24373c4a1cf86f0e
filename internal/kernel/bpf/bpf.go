// Package bpf redirects sockets at connect(2), sendmsg(2), recvmsg(2) and
// getpeername(2), by eBPF programs at the root of the cgroup v2 tree.
//
// Two things go that way. In a container, what is sent to 127.0.0.11:53 goes to
// the port of its resolver, so that nothing needs port 53 there. On the host,
// connections to a port published on a loopback address go to the container:
// no packet with a loopback address leaves lo, and there is no proxy.
//
// The programs see every process of the machine and act only on sockets whose
// network namespace has an entry: its cookie is part of each key, so that
// several hosts (and tests) share one machine. Programs and maps are pinned and
// go on without us; a later isled exchanges the programs in place and keeps the
// maps.
//
// Traps. An unconnected UDP socket of IPv6 cannot be sent to an IPv4 container
// (the kernel refuses such a rewrite): it is left to whoever holds the
// port. A socket bound to a loopback address has no way out of lo. Which
// address a socket meant is remembered by socket, not by container: the same
// container may be reached by two ports and by its own address.
package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/probe"
)

const (
	maxNamespaces = 1 << 16
	maxLoopback   = 1 << 17
	maxSockets    = 1 << 16 // the least recently used go first
)

// Redirects are the programs with their maps.
type Redirects struct {
	dns, lo, rows, sockets *ebpf.Map
	links                  []link.Link
}

// Open pins programs and maps below dir, on a bpf file system, and attaches the
// programs to the cgroup v2 tree mounted at cgroup ("" finds one). What is
// there already is taken over. What the kernel cannot do is a
// probe.NotSupportedError.
func Open(dir, cgroup string) (r *Redirects, err error) {
	r = &Redirects{}
	defer func() {
		if err != nil {
			r.Close()
			err = &probe.NotSupportedError{Feature: "redirecting sockets by cgroup eBPF", Since: "5.8", Err: err}
		}
	}()
	if err := mountBPF(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for eBPF pins: %w", err)
	}
	root, err := openCgroup(cgroup)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := r.maps(dir); err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if err := r.attach(dir, root, h); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Close lets go; what is pinned goes on.
func (r *Redirects) Close() error {
	var errs []error
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
	for _, m := range []*ebpf.Map{r.dns, r.lo, r.rows, r.sockets} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// Remove ends the redirects below dir: for "isle system reset" and for tests.
func Remove(dir string) error { return os.RemoveAll(dir) }

func (r *Redirects) maps(dir string) (err error) {
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&r.dns, ebpf.MapSpec{Name: "isle_dns", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: maxNamespaces}},
		{&r.lo, ebpf.MapSpec{Name: "isle_lo", Type: ebpf.Hash, KeySize: 32, ValueSize: 24, MaxEntries: maxLoopback}},
		{&r.rows, ebpf.MapSpec{Name: "isle_rows", Type: ebpf.LPMTrie, KeySize: 36, ValueSize: 40, MaxEntries: maxLoopback}},
		{&r.sockets, ebpf.MapSpec{Name: "isle_sockets", Type: ebpf.LRUHash, KeySize: 32, ValueSize: 24, MaxEntries: maxSockets}},
	} {
		m.spec.Pinning = ebpf.PinByName
		if m.spec.Type != ebpf.LRUHash {
			m.spec.Flags = unix.BPF_F_NO_PREALLOC // memory by what is in it
		}
		if *m.to, err = ebpf.NewMapWithOptions(&m.spec, ebpf.MapOptions{PinPath: dir}); err != nil {
			return fmt.Errorf("eBPF map %s: %w", m.spec.Name, err)
		}
	}
	return nil
}

// attach attaches the program of a hook, or puts it in the place of the one
// that is attached: there is no moment without one.
func (r *Redirects) attach(dir string, root *os.File, h hook) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "isle_" + h.name, Type: ebpf.CGroupSockAddr, AttachType: h.at, License: "GPL", Instructions: r.program(h),
	})
	if err != nil {
		return fmt.Errorf("load eBPF program %s: %w", h.name, err)
	}
	defer p.Close()
	pin := filepath.Join(dir, "link_"+h.name)
	l, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		r.links = append(r.links, l)
		if err = l.Update(p); err == nil {
			return nil
		}
		_ = l.Unpin() // of a tree that is gone
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open eBPF link %s: %w", h.name, err)
	}
	l, err = link.AttachCgroup(link.CgroupOptions{Path: fmt.Sprintf("/proc/self/fd/%d", root.Fd()), Attach: h.at, Program: p})
	if err != nil {
		return fmt.Errorf("attach eBPF program %s: %w", h.name, err)
	}
	r.links = append(r.links, l)
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin eBPF link %s: %w", h.name, err)
	}
	return nil
}

const bpfMagic = 0xcafe4a11

func mountBPF(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory for the bpf file system: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == bpfMagic {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount the bpf file system on %s: %w", dir, err)
	}
	return nil
}

// openCgroup opens the root of the v2 tree. When it is mounted nowhere, a mount
// of our own that has no place in the file system does as well.
func openCgroup(dir string) (*os.File, error) {
	if dir == "" {
		dir = findCgroup()
	}
	if dir != "" {
		return os.Open(dir)
	}
	f, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup v2 file system: %w", err)
	}
	defer unix.Close(f)
	if err := unix.FsconfigCreate(f); err != nil {
		return nil, fmt.Errorf("open the cgroup v2 file system: %w", err)
	}
	m, err := unix.Fsmount(f, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount the cgroup v2 file system: %w", err)
	}
	defer unix.Close(m)
	root, err := unix.Openat(m, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup v2 tree: %w", err)
	}
	return os.NewFile(uintptr(root), "cgroup2"), nil
}

func findCgroup() string {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return ""
	}
	for l := range bytes.Lines(b) {
		head, tail, _ := strings.Cut(string(l), " - ")
		f := strings.Fields(head)
		if strings.HasPrefix(tail, "cgroup2 ") && len(f) > 4 && f[3] == "/" {
			if p, err := strconv.Unquote(`"` + f[4] + `"`); err == nil {
				return p
			}
		}
	}
	return ""
}
