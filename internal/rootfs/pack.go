package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inode tells whether two names are one file.
type inode struct{ dev, ino uint64 }

// packer writes a tree as tar. Everything is opened relative to the directory
// it is in and never through a link.
type packer struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[inode]string // files with several names: the first one
	cross bool             // go into what is mounted below
}

// Pack writes what is at a path as tar, under the last part of its name. A link
// is packed as such unless the path ends in "/".
func (v *View) Pack(ctx context.Context, name string, w io.Writer) error {
	abs := Absolute(name)
	p := packer{ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}, cross: true}
	f, err := v.open(abs, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.start(v, f, abs, rename(abs)); err != nil {
		return err
	}
	return p.tw.Close()
}

// start packs the top. What is not a directory is looked up again in its
// parent, for it is read from there.
func (p *packer) start(v *View, f *os.File, abs, as string) error {
	st, err := fstat(f)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return p.directory(f, as, st)
	}
	parent, err := v.open(path.Dir(abs), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	return p.entry(parent, path.Base(abs), as, 0)
}

// rename is what the top of an archive is called: the last part of the path;
// "." for "dir/.", and nothing for "/".
func rename(abs string) string {
	if strings.HasSuffix(abs, "/.") {
		return "."
	}
	return path.Base(abs)
}

// Export writes the whole root file system as tar, with directories that
// something is mounted on as they are when nothing is.
func (v *View) Export(ctx context.Context, w io.Writer) error {
	p := packer{ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}}
	f, err := v.open("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.children(f, ""); err != nil {
		return err
	}
	return p.tw.Close()
}

// directory packs a directory and what is in it.
func (p *packer) directory(dir *os.File, as string, st unix.Stat_t) error {
	hdr := header(as, st, "")
	hdr.Name = strings.TrimSuffix(as, "/") + "/"
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return p.children(dir, strings.TrimSuffix(as, "/")+"/")
}

func (p *packer) children(dir *os.File, prefix string) error {
	list, err := reopen(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	slices.Sort(names)
	st, err := fstat(list)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := errors.Join(canceled(p.ctx), p.entry(list, name, prefix+name, st.Dev)); err != nil {
			return err
		}
	}
	return nil
}

// entry packs one name of a directory. A name that has gone meanwhile is left out.
func (p *packer) entry(dir *os.File, name, as string, parentDev uint64) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: as, Err: err}
	}
	f := os.NewFile(uintptr(fd), as)
	defer f.Close()
	st, err := fstat(f)
	if err != nil {
		return &fs.PathError{Op: "stat", Path: as, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil // an archive has none
	case unix.S_IFDIR:
		if st.Dev != parentDev && parentDev != 0 && !p.enters(f) {
			return p.tw.WriteHeader(directoryHeader(as, st))
		}
		return p.directory(f, as, st)
	}
	return p.file(f, as, st)
}

func directoryHeader(as string, st unix.Stat_t) *tar.Header {
	hdr := header(as, st, "")
	hdr.Name = as + "/"
	return hdr
}

// pseudo are the file systems whose files are the kernel's, not the container's.
var pseudo = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, 0x19800202, // mqueue
}

// enters reports whether to go into a directory that is another file system.
// A tmpfs with devices is /dev.
func (p *packer) enters(dir *os.File) bool {
	var st unix.Statfs_t
	if !p.cross || unix.Fstatfs(int(dir.Fd()), &st) != nil || slices.Contains(pseudo, int64(st.Type)) {
		return false
	}
	var dev unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), "ptmx", &dev, unix.AT_SYMLINK_NOFOLLOW)
	return err != nil
}

// file packs what is not a directory.
func (p *packer) file(f *os.File, as string, st unix.Stat_t) error {
	link := ""
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		link, _ = readlinkat(int(f.Fd()), "")
	}
	hdr := header(as, st, link)
	id := inode{st.Dev, st.Ino}
	if first, ok := p.links[id]; ok && st.Nlink > 1 {
		hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
		return p.tw.WriteHeader(hdr)
	}
	if st.Nlink > 1 {
		p.links[id] = as
	}
	if hdr.Typeflag != tar.TypeReg {
		return p.tw.WriteHeader(hdr)
	}
	return p.content(f, hdr)
}

// content packs a regular file; the archive has as many bytes as the header
// says, whatever happens to the file meanwhile.
func (p *packer) content(f *os.File, hdr *tar.Header) error {
	r, err := reopen(f, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer r.Close()
	if v, ok := getxattr(r, capabilityXattr); ok {
		hdr.PAXRecords = map[string]string{xattrRecord + capabilityXattr: v}
	}
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(p.tw, io.LimitReader(&cancelReader{p.ctx, r}, hdr.Size))
	if err == nil && n < hdr.Size {
		_, err = io.CopyN(p.tw, zeros{}, hdr.Size-n)
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", hdr.Name, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// cancelReader ends with the context's error.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(b []byte) (int, error) {
	if err := canceled(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// header describes a file; no name of a user or a group is looked up.
func header(name string, st unix.Stat_t, link string) *tar.Header {
	h := &tar.Header{
		Name: name, Linkname: link, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	}
	return h
}
