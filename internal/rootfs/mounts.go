package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	isle "isle/internal/runtime"
)

// Overlay is a volume or a bind that a container sees on top of its root file
// system. Missing mount points are made, as a start of the container would.
type Overlay struct {
	Source, Target string
	ReadOnly       bool
	NonRecursive   bool
}

// Options say how a container's mounts are to be seen.
type Options struct {
	Overlays []Overlay // parents before children
	ReadOnly bool      // the root file system may not be written to
}

// Mounted is the file system that mounts make up, as runtime.Create has them.
// A nil opts is no overlay.
func Mounted(mounts []isle.Mount, opts *Options) (*View, error) {
	if opts == nil {
		opts = &Options{}
	}
	if len(mounts) == 0 {
		return nil, errors.New("open a container's file system: it has no mounts")
	}
	if len(mounts) == 1 && len(opts.Overlays) == 0 {
		if fd, err := detached(mounts[0], opts.ReadOnly); err == nil {
			return newView(fd), nil
		} // an older kernel: the long way works as well
	}
	fd := -1
	err := onThread(func() (err error) {
		fd, err = assemble(mounts, *opts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a container's file system: %w", err)
	}
	return newView(fd), nil
}

// detached makes one mount that is attached nowhere: no namespace is needed.
func detached(m isle.Mount, ro bool) (fd int, err error) {
	flags, data := parseOptions(m.Options)
	switch {
	case m.Type == "overlay":
		fd, err = overlayfs(data)
	case flags&unix.MS_BIND != 0:
		fd, err = openTree(m.Source, flags&unix.MS_REC != 0)
	default:
		err = unix.ENOTSUP
	}
	if err != nil || !ro && flags&unix.MS_RDONLY == 0 {
		return fd, err
	}
	if err := readOnly(fd, "", unix.AT_EMPTY_PATH); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Base is the root file system of a running container without what is mounted
// on it.
func Base(pid int) (*View, error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("open the mount namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	fd := -1
	err = onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns", err)
		}
		fd, err = openTree("/", false)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the root file system of process %d: %w", pid, err)
	}
	return newView(fd), nil
}

// onThread runs fn on an operating system thread that nothing else runs on,
// before or after. The process's first thread is spared: /proc/self is it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// assemble makes the mounts in a namespace of this thread's own and returns
// them as a detached tree, which outlives both.
func assemble(mounts []isle.Mount, opts Options) (int, error) {
	trees, err := cloneSources(opts.Overlays)
	defer closeAll(trees)
	if err != nil {
		return -1, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("make mounts private", err)
	}
	at, err := os.MkdirTemp("", "isle-view-")
	if err != nil {
		return -1, err
	}
	defer leave(at)
	for _, m := range mounts {
		if err := mountOne(m, at); err != nil {
			return -1, err
		}
	}
	if err := attach(at, opts.Overlays, trees); err != nil {
		return -1, err
	}
	if opts.ReadOnly {
		if err := readOnly(unix.AT_FDCWD, at, 0); err != nil {
			return -1, err
		}
	}
	return openTree(at, true)
}

// leave takes the mounts off a directory and removes it: while something is
// mounted on it here, it cannot be.
func leave(at string) {
	for unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
	os.Remove(at)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// cloneSources copies the overlays' mounts before anything of ours hides them.
func cloneSources(overlays []Overlay) (trees []int, err error) {
	for _, o := range overlays {
		fd, err := openTree(o.Source, !o.NonRecursive)
		if err != nil {
			return trees, err
		}
		trees = append(trees, fd)
		attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return trees, fmt.Errorf("make %s private: %w", o.Source, err)
		}
		if !o.ReadOnly {
			continue
		}
		if err := readOnly(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE); err != nil {
			return trees, err
		}
	}
	return trees, nil
}

func readOnly(fd int, name string, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, name, flags, &attr); err != nil {
		return fmt.Errorf("make a mount read-only: %w", err)
	}
	return nil
}

func openTree(source string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return -1, fmt.Errorf("clone mount %s: %w", source, err)
	}
	return fd, nil
}

func attach(at string, overlays []Overlay, trees []int) error {
	if len(overlays) == 0 {
		return nil
	}
	fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	v := newView(fd)
	defer v.Close()
	for i, o := range overlays {
		if err := v.attach(o, trees[i]); err != nil {
			return fmt.Errorf("mount %s at %s: %w", o.Source, o.Target, err)
		}
	}
	return nil
}

// attach puts a tree onto its mount point, both held by descriptors
// (CVE-2026-42306).
func (v *View) attach(o Overlay, tree int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(tree, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	target, err := v.mountPoint(o.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer target.Close()
	return unix.MoveMount(tree, "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mountPoint opens a mount point, and makes it when it is missing.
func (v *View) mountPoint(target string, dir bool) (*os.File, error) {
	if f, err := v.open(target, unix.O_PATH); err == nil || !IsNotFound(err) {
		return f, err
	}
	if dir {
		return v.mkdirAll(target)
	}
	parent, err := v.mkdirAll(path.Dir(target))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), path.Base(target), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	unix.Close(fd)
	return v.open(target, unix.O_PATH)
}

// mountOne is mount(2) for one of the container's mounts; binds take their
// flags in a second call.
func mountOne(m isle.Mount, at string) error {
	flags, data := parseOptions(m.Options)
	first := flags
	if flags&unix.MS_BIND != 0 {
		first = flags & (unix.MS_BIND | unix.MS_REC)
	}
	joined := strings.Join(data, ",")
	var err error
	if m.Type == "overlay" && len(joined) >= os.Getpagesize()-1 {
		err = mountLong(data, flags, at)
	} else {
		err = unix.Mount(m.Source, at, m.Type, first, joined)
	}
	if err == nil && first != flags {
		err = unix.Mount("", at, "", unix.MS_REMOUNT|flags, "")
	}
	if err != nil {
		return fmt.Errorf("mount %s of %s: %w", m.Type, m.Source, err)
	}
	return nil
}

// mountLong mounts an overlay with more lower layers than fit into mount(2)'s page.
func mountLong(data []string, flags uintptr, at string) error {
	mnt, err := overlayfs(data)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	if flags&unix.MS_RDONLY != 0 {
		if err := readOnly(mnt, "", unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(mnt, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// overlayfs makes an overlay that is attached nowhere, one option and one
// layer at a time (kernels since 6.7).
func overlayfs(data []string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for _, o := range data {
		k, v, _ := strings.Cut(o, "=")
		values := []string{v}
		if k == "lowerdir" {
			k, values = "lowerdir+", strings.Split(v, ":")
		}
		for _, v := range values {
			if err := setOption(fs, k, v); err != nil {
				return -1, fmt.Errorf("option %s: %w", k, err)
			}
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	return mnt, os.NewSyscallError("fsmount", err)
}

func setOption(fs int, k, v string) error {
	if v == "" {
		return unix.FsconfigSetFlag(fs, k)
	}
	return unix.FsconfigSetString(fs, k, v)
}

var optionFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "rw": 0, "defaults": 0,
}

func parseOptions(opts []string) (flags uintptr, data []string) {
	for _, o := range opts {
		if f, ok := optionFlags[o]; ok {
			flags |= f
			continue
		}
		data = append(data, o)
	}
	return flags, data
}
