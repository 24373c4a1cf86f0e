// Package netns makes, enters and removes network namespaces.
//
// A namespace is a file below a directory of ours on which it is bind-mounted:
// the mount keeps it alive and the name finds it again after a restart.
//
// Traps: a thread that changed its namespace must never run other goroutines.
// Do therefore works on a thread that is thrown away; Visit, which is for short
// calls that cannot block, puts the thread back and throws it away only when
// that fails. Whoever holds a socket of a namespace keeps it alive.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Self opens the namespace of the calling thread.
func Self() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// Dir is a directory of namespaces.
type Dir struct{ Path string }

// Open makes the directory and a private mount of it, so that namespaces do
// not show up in, and are not kept alive by, other mount namespaces.
func Open(path string) (Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Dir{}, fmt.Errorf("make directory of namespaces: %w", err)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Dir{}, fmt.Errorf("find directory of namespaces: %w", err)
	}
	if !mounted(path) {
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return Dir{}, fmt.Errorf("mount %s on itself: %w", path, err)
		}
	}
	if err := unix.Mount("", path, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return Dir{}, fmt.Errorf("make mount %s private: %w", path, err)
	}
	return Dir{path}, Dir{path}.sweep()
}

// sweep removes files that no namespace is mounted on: their namespaces were being
// made or deleted when the last isled was killed.
func (d Dir) sweep() error {
	es, err := os.ReadDir(d.Path)
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	for _, e := range es {
		if e.Type().IsRegular() && !IsNS(d.File(e.Name())) {
			err = errors.Join(err, os.Remove(d.File(e.Name())))
		}
	}
	return err
}

func mounted(path string) bool {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(strings.Split(string(b), "\n"), func(l string) bool {
		f := strings.Fields(l)
		return len(f) > 4 && f[4] == path
	})
}

// File is where the namespace is mounted.
func (d Dir) File(name string) string { return filepath.Join(d.Path, name) }

// List names the namespaces that are there.
func (d Dir) List() ([]string, error) {
	es, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range es {
		if IsNS(d.File(e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// nsfs is the magic number of the file system of namespaces.
const nsfs = 0x6e736673

// IsNS reports whether a namespace is mounted on file.
func IsNS(file string) bool {
	var st unix.Statfs_t
	return unix.Statfs(file, &st) == nil && st.Type == nsfs
}

// OpenFile opens the namespace that is mounted on file. Where none is, it is not there:
// a namespace ends by losing its mount before its file, and who opens the file then
// has nothing to enter.
func OpenFile(file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err = unix.Fstatfs(int(f.Fd()), &st); err == nil && st.Type != nsfs {
		err = os.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "open namespace", Path: file, Err: err}, f.Close())
	}
	return f, nil
}

// Unnamed is a namespace that ends with its descriptor, and with us.
type Unnamed struct {
	Cookie uint64
	file   *os.File
}

// Make makes a namespace with its loopback device up.
func Make() (n Unnamed, err error) {
	err = there("that is new", func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		if n.Cookie, err = setUp(); err != nil {
			return err
		}
		n.file, err = Self()
		return err
	})
	if err != nil {
		return Unnamed{}, errors.Join(fmt.Errorf("make a namespace: %w", err), n.Close())
	}
	return n, nil
}

// Close lets go of it.
func (n Unnamed) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// New makes a namespace with its loopback device up. One that is there already
// is kept. It returns the namespace's cookie.
func (d Dir) New(name string) (cookie uint64, err error) { return d.Name(name, Make) }

// Name is New with what made gives, which is asked only when there is none.
func (d Dir) Name(name string, made func() (Unnamed, error)) (cookie uint64, err error) {
	if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') {
		return 0, fmt.Errorf("make namespace %q: not a file name", name)
	}
	file := d.File(name)
	if IsNS(file) {
		return d.Cookie(name)
	}
	n, err := made()
	if err != nil {
		return 0, fmt.Errorf("make namespace %s: %w", name, err)
	}
	defer n.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return 0, fmt.Errorf("make namespace %s: %w", name, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", n.file.Fd()), file, "", unix.MS_BIND, ""); err != nil {
		return 0, errors.Join(fmt.Errorf("make namespace %s: %w", name, err), os.Remove(file))
	}
	return n.Cookie, nil
}

// Hold keeps a namespace that somebody else made under a name. One that is held
// already stays so.
func (d Dir) Hold(name string, ns *os.File) error {
	if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') {
		return fmt.Errorf("hold namespace %q: not a file name", name)
	}
	file := d.File(name)
	if IsNS(file) {
		return nil
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("hold namespace %s: %w", name, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), file, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("hold namespace %s: %w", name, err), os.Remove(file))
	}
	return nil
}

// Same reports whether a namespace is the one at path.
func Same(ns *os.File, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(ns.Fd()), &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Cookie is the kernel's number of a namespace: never used twice until reboot.
func (d Dir) Cookie(name string) (cookie uint64, err error) {
	f, err := OpenFile(d.File(name))
	if err != nil {
		return 0, fmt.Errorf("open namespace: %w", err)
	}
	defer f.Close()
	err = Visit(f, func() (err error) { cookie, err = CookieHere(); return err })
	return cookie, err
}

// RaiseLo brings lo up in the namespace of the calling thread.
func RaiseLo() error {
	_, err := setUp()
	return err
}

// setUp brings lo up in the namespace of the calling thread.
func setUp() (cookie uint64, err error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return 0, err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return 0, fmt.Errorf("bring lo up: %w", err)
	}
	return cookieOf(s)
}

// CookieHere is the cookie of the calling thread's namespace.
func CookieHere() (uint64, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(s)
	return cookieOf(s)
}

func cookieOf(socket int) (uint64, error) {
	c, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	return c, nil
}

// Delete lets go of a namespace. The kernel removes it, and the links in it,
// once no process and no socket is in it: nobody waits for that.
func (d Dir) Delete(name string) error {
	file := d.File(name)
	if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount namespace %s: %w", name, err)
	}
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}

// throwAway runs fn on a thread that ends with it.
func throwAway(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- fn()
	}()
	return <-done
}

// Scratch runs fn in a new namespace that ends with it, on a thread that is
// thrown away. Its loopback device is down.
func Scratch(fn func() error) error {
	return throwAway(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a namespace for a trial: %w", err)
		}
		return fn()
	})
}

// Do runs fn in the namespace, on a thread that is thrown away.
func Do(ns *os.File, fn func() error) error {
	return throwAway(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", ns.Name(), err)
		}
		return fn()
	})
}

// Visit runs fn, which makes a few system calls and neither blocks nor starts
// goroutines, in the namespace, and puts the thread back.
func Visit(ns *os.File, fn func() error) error {
	return there(ns.Name(), func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }, fn)
}

// there runs fn in the namespace that enter brings the thread to, and puts the
// thread back.
func there(name string, enter, fn func() error) error {
	runtime.LockOSThread()
	home, err := Self()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", name, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// Still locked: the thread dies with its goroutine instead of
		// running others in a namespace that is not theirs.
		return errors.Join(err, fmt.Errorf("leave namespace %s: %w", name, back))
	}
	runtime.UnlockOSThread()
	return err
}
