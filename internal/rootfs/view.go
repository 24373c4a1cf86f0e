package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/runtime"
)

// View is a container's file system. Close it.
type View struct {
	root *os.File // O_PATH
}

// Running is the file system of a running container as its process pid sees it.
func Running(pid int) (*View, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root of process %d: %w", pid, err)
	}
	return newView(fd), nil
}

// Files is Mounted for whoever only reads: done ends it.
func Files(_ context.Context, mounts []runtime.Mount) (files fs.FS, done func(), err error) {
	v, err := Mounted(mounts, nil)
	if err != nil {
		return nil, nil, err
	}
	return v, func() { v.Close() }, nil
}

func newView(fd int) *View { return &View{os.NewFile(uintptr(fd), "/")} }

// Close forgets the view; a tree of mounts made for it goes.
func (v *View) Close() error { return v.root.Close() }

// tries bounds how often a look-up is repeated that a rename disturbed.
const tries = 256

// openat2 opens name below dir as if dir were the root directory.
func openat2(dir int, name string, flags int, mode uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS}
	for range tries {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// open opens a path in the container.
func (v *View) open(name string, flags int) (*os.File, error) {
	fd, err := openat2(int(v.root.Fd()), path.Join("/", name)+trailing(name), flags, 0, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// trailing is what a path ends in that makes it follow a last link.
func trailing(name string) string {
	if len(name) > 1 && (name[len(name)-1] == '/' || path.Base(name) == "." && name[len(name)-1] == '.') && path.Join("/", name) != "/" {
		return "/"
	}
	return ""
}

// Open opens a regular file for reading; it makes a View an fs.FS. Names have
// no leading slash there, but may have one here.
func (v *View) Open(name string) (fs.File, error) {
	f, err := v.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := fstat(f); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.Join(err, fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument))}
	}
	return reopen(f, unix.O_RDONLY|unix.O_NONBLOCK)
}

// reopen opens what an O_PATH descriptor stands for.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(procFD(f), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// procFD names what a descriptor stands for, whatever became of its path.
func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func fstat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st, err
}

// NotFound is the error for a path that a container does not have; clients
// match its text.
func NotFound(name, container string) error {
	return fmt.Errorf("Could not find the file %s in container %s: %w", name, container, errdefs.ErrNotFound)
}

// IsNotFound reports whether an error of this package says that a path is not
// there.
func IsNotFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func canceled(ctx context.Context) error { return ctx.Err() }
