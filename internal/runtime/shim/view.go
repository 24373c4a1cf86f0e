package shim

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs fn on an operating system thread that nobody else will
// use: it ends with fn, so that fn may change what belongs to the thread.
//
// A goroutine that returns while locked to its thread takes the thread along.
// The process's first thread is the exception (it would be parked, with the
// namespaces that /proc/<pid>/ns shows), so it is never taken.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- fn()
			return // without unlocking
		}
		err := onOwnThread(fn) // runs elsewhere: we hold the first thread
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// inMountNamespace runs fn in a mount namespace of its own. What fn mounts is
// seen by what fn starts, and by nobody else.
func inMountNamespace(keepShared string, fn func() error) error {
	return onOwnThread(func() error {
		// CLONE_FS: the working directory and root become the thread's own,
		// without which a mount namespace cannot be.
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := contain(keepShared); err != nil {
			return err
		}
		if err := hideUnified(); err != nil {
			return err
		}
		return fn()
	})
}

// contain keeps mounts from going to the host, while the host's still come
// in: a file system unmounted there is not held busy here. With keepShared it
// does so only for the mount that this directory is on; the others stay
// peers of the host's for the container's shared binds.
func contain(keepShared string) error {
	if keepShared == "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("make mounts slaves: %w", err)
		}
		return nil
	}
	point, err := mountPoint("/proc/thread-self/mountinfo", keepShared)
	if err != nil {
		return err
	}
	if err := unix.Mount("", point, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mount %s private: %w", point, err)
	}
	return nil
}

const (
	cgroupRoot = "/sys/fs/cgroup"
	unified    = cgroupRoot + "/unified"
)

// hybridRefused tells the layout that crun refuses: cgroup v1, with a v2 tree
// beside it that holds a controller ("cgroups in hybrid mode not supported").
// The refusal is in create only; exec, update, pause, kill and delete were
// tried with the tree in view and work.
func hybridRefused() bool {
	var root, v2 unix.Statfs_t
	if unix.Statfs(cgroupRoot, &root) != nil || root.Type != unix.TMPFS_MAGIC {
		return false
	}
	if unix.Statfs(unified, &v2) != nil || v2.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	list, err := os.ReadFile(unified + "/cgroup.controllers")
	return err == nil && len(bytes.TrimSpace(list)) > 0
}

// hideUnified takes the v2 tree out of this namespace, if that is needed.
func hideUnified() error {
	if !hybridRefused() {
		return nil
	}
	if err := unix.Mount("", unified, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", unified, err)
	}
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hide %s: %w", unified, err)
	}
	return nil
}
