package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// copier copies a tree with owners, modes, times, attributes and links.
type copier struct {
	ctx   context.Context
	to    *os.File // the top of the copy
	links map[inode]string
}

// CopyOut copies what is in a directory of the container into the host's
// directory dst, if that is empty, and gives dst the directory's owner and mode.
// No such directory, or something else in its place, is nothing to copy.
func (v *View) CopyOut(ctx context.Context, name, dst string) error {
	src, err := v.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	fd, err := unix.Open(dst, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dst, Err: err}
	}
	to := os.NewFile(uintptr(fd), dst)
	defer to.Close()
	if names, err := to.Readdirnames(1); len(names) > 0 || err != nil && err != io.EOF {
		return ignoreEOF(err)
	}
	c := copier{ctx: ctx, to: to, links: map[inode]string{}}
	return c.directory(src, to, "")
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// directory copies what is in src, then src's own attributes: writing into the
// copy would change its times.
func (c *copier) directory(src, dst *os.File, rel string) error {
	st, err := fstat(src)
	if err != nil {
		return err
	}
	list, err := reopen(src, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := errors.Join(canceled(c.ctx), c.entry(list, dst, name, rel+name)); err != nil {
			return err
		}
	}
	return c.attributes(list, dst, st)
}

func (c *copier) entry(src, dst *os.File, name, rel string) error {
	fd, err := unix.Openat(int(src.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	from := os.NewFile(uintptr(fd), rel)
	defer from.Close()
	st, err := fstat(from)
	if err != nil {
		return err
	}
	id := inode{st.Dev, st.Ino}
	if first, ok := c.links[id]; ok {
		return os.NewSyscallError("link", unix.Linkat(int(c.to.Fd()), first, int(dst.Fd()), name, 0))
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		c.links[id] = rel
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil
	}
	if err := c.node(from, dst, name, st); err != nil {
		return fmt.Errorf("copy %s: %w", rel, err)
	}
	to, err := openNode(dst, name, header("", st, "").Typeflag)
	if err != nil {
		return err
	}
	defer to.Close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.directory(from, to, rel+"/")
	}
	return c.attributes(from, to, st)
}

// node makes the copy, without attributes.
func (c *copier) node(from, dst *os.File, name string, st unix.Stat_t) error {
	dir := int(dst.Fd())
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, name, 0o700)
	case unix.S_IFLNK:
		target, _ := readlinkat(int(from.Fd()), "")
		return unix.Symlinkat(target, dir, name)
	case unix.S_IFREG:
		r, err := reopen(from, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		defer r.Close()
		return writeFile(dst, name, &cancelReader{c.ctx, r})
	}
	return unix.Mknodat(dir, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
}

func (c *copier) attributes(from, to *os.File, st unix.Stat_t) error {
	hdr := header("", st, "")
	u := unpacker{}
	hdr.AccessTime = time.Unix(st.Atim.Unix())
	if hdr.Typeflag == tar.TypeReg || hdr.Typeflag == tar.TypeDir {
		hdr.PAXRecords = xattrs(from)
	}
	return u.attributes(to, hdr)
}

// xattrs are a file's attributes as a tar has them.
func xattrs(f *os.File) map[string]string {
	r, err := reopen(f, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	defer r.Close()
	m := map[string]string{}
	for _, name := range listxattr(r) {
		if v, ok := getxattr(r, name); ok {
			m[xattrRecord+name] = v
		}
	}
	return m
}
