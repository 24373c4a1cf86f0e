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

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Owner is who unpacked files belong to instead of whom the archive says.
type Owner struct{ UID, GID int }

// UnpackOptions is how to unpack.
type UnpackOptions struct {
	// NoOverwriteDirNonDir refuses to replace a directory by something else
	// and the other way round.
	NoOverwriteDirNonDir bool
	Owner                *Owner
}

// Errors for a destination that may not be written to, in Docker's words.
var (
	ErrReadOnlyRootfs = fmt.Errorf("container rootfs is marked read-only: %w", errdefs.ErrPermissionDenied)
	ErrReadOnlyVolume = fmt.Errorf("mounted volume is marked read-only: %w", errdefs.ErrPermissionDenied)
)

// unpacker writes the entries of an archive below dest.
type unpacker struct {
	v    *View
	dest *os.File // O_PATH
	name string   // dest's path
	opts UnpackOptions
	dirs []*tar.Header // to be given their times when all is written
}

// Unpack reads a tar, which may be compressed, into a directory. Links in the
// container's tree are followed as the container would.
func (v *View) Unpack(ctx context.Context, name string, r io.Reader, opts UnpackOptions) error {
	dest, err := v.open(Absolute(name)+"/", unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("extraction point is not a directory: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	defer dest.Close()
	if err := v.checkWritable(dest); err != nil {
		return err
	}
	plain, done, err := decompress(&cancelReader{ctx, r})
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	defer done()
	u := unpacker{v: v, dest: dest, name: path.Join("/", name), opts: opts}
	return u.all(tar.NewReader(plain))
}

// checkWritable says why nothing can be written to a directory.
func (v *View) checkWritable(dest *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dest.Fd()), &st); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	if mountID(dest) == mountID(v.root) {
		return ErrReadOnlyRootfs
	}
	return ErrReadOnlyVolume
}

func mountID(f *os.File) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0
	}
	return st.Mnt_id
}

func (u *unpacker) all(tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("unpack %s: %w", hdr.Name, err)
		}
	}
}

// local is an archive's name as a path below the destination.
func local(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("%q is outside of the destination: %w", name, errdefs.ErrInvalidArgument)
	}
	return clean, nil
}

func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	name, err := local(hdr.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("the destination cannot be replaced: %w", errdefs.ErrInvalidArgument)
		}
		hdr.Name = "."
		u.dirs = append(u.dirs, hdr)
		return u.attributes(u.dest, hdr)
	}
	parent, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	merge, err := u.clear(parent, base, hdr)
	if err != nil {
		return err
	}
	if err := u.make(parent, base, hdr, content, merge); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		return nil // it has the attributes of the file that it is a name of
	}
	f, err := openNode(parent, base, hdr.Typeflag)
	if err != nil {
		return err
	}
	defer f.Close()
	if hdr.Typeflag == tar.TypeDir {
		hdr.Name = name
		u.dirs = append(u.dirs, hdr)
	}
	return u.attributes(f, hdr)
}

// parent opens the directory that an entry goes into, and makes it when it is
// missing. A path that leads out of the destination by a link goes on from the
// container's root.
func (u *unpacker) parent(rel string) (*os.File, error) {
	fd, err := openat2(int(u.dest.Fd()), rel, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_BENEATH)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), rel), nil
	case errors.Is(err, unix.EXDEV):
		return u.v.mkdirAll(path.Join(u.name, rel))
	case !errors.Is(err, unix.ENOENT):
		return nil, &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	up, err := u.parent(path.Dir(rel))
	if err != nil {
		return nil, err
	}
	defer up.Close()
	return mkdir(up, path.Base(rel))
}

// mkdirAll opens a directory in the container and makes what is missing of it.
func (v *View) mkdirAll(name string) (*os.File, error) {
	f, err := v.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) || path.Clean(name) == "/" {
		return f, err
	}
	parent, err := v.mkdirAll(path.Dir(path.Clean(name)))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return mkdir(parent, path.Base(name))
}

func mkdir(parent *os.File, base string) (*os.File, error) {
	if err := unix.Mkdirat(int(parent.Fd()), base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, &fs.PathError{Op: "mkdir", Path: base, Err: err}
	}
	return openNode(parent, base, tar.TypeDir)
}

// openNode opens what was just made, and makes sure that it is of that type: a
// process of the container may have put something else there.
func openNode(parent *os.File, base string, typ byte) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: base, Err: err}
	}
	f := os.NewFile(uintptr(fd), base)
	st, err := fstat(f)
	if err == nil && st.Mode&unix.S_IFMT != nodeType(typ) {
		err = fmt.Errorf("%s was changed while it was written: %w", base, errdefs.ErrAborted)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func nodeType(typ byte) uint32 {
	switch typ {
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeSymlink:
		return unix.S_IFLNK
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	case tar.TypeFifo:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}

// clear makes room for an entry. merge: it is a directory that is there already.
func (u *unpacker) clear(parent *os.File, base string, hdr *tar.Header) (merge bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "stat", Path: base, Err: err}
	}
	wasDir, isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, hdr.Typeflag == tar.TypeDir
	if u.opts.NoOverwriteDirNonDir && wasDir != isDir {
		from, to := "non-directory", "directory"
		if wasDir {
			from, to = to, from
		}
		return false, fmt.Errorf("cannot overwrite %s %q with %s %q: %w", from, path.Join(u.name, base), to, u.name, errdefs.ErrInvalidArgument)
	}
	if wasDir && isDir {
		return true, nil
	}
	return false, removeAll(parent, base)
}

// removeAll removes a name and what is below it, through descriptors only.
func removeAll(parent *os.File, base string) error {
	err := unix.Unlinkat(int(parent.Fd()), base, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	dir := os.NewFile(uintptr(fd), base)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(dir, n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(int(parent.Fd()), base, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	return nil
}

func (u *unpacker) make(parent *os.File, base string, hdr *tar.Header, content io.Reader, merge bool) error {
	dir, dev := int(parent.Fd()), int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	var err error
	switch hdr.Typeflag {
	case tar.TypeDir:
		if !merge {
			err = unix.Mkdirat(dir, base, 0o700)
		}
	case tar.TypeReg:
		return writeFile(parent, base, content)
	case tar.TypeSymlink:
		err = unix.Symlinkat(hdr.Linkname, dir, base)
	case tar.TypeLink:
		return u.link(parent, base, hdr.Linkname)
	case tar.TypeFifo:
		err = unix.Mknodat(dir, base, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar:
		err = unix.Mknodat(dir, base, unix.S_IFCHR|0o600, dev)
	case tar.TypeBlock:
		err = unix.Mknodat(dir, base, unix.S_IFBLK|0o600, dev)
	default:
		return fmt.Errorf("entries of type %q cannot be unpacked: %w", hdr.Typeflag, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return &fs.PathError{Op: "make", Path: base, Err: err}
	}
	return nil
}

func writeFile(parent *os.File, base string, content io.Reader) error {
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: base, Err: err}
	}
	f := os.NewFile(uintptr(fd), base)
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// link makes another name for a file that was unpacked before.
func (u *unpacker) link(parent *os.File, base, target string) error {
	name, err := local(target)
	if err != nil {
		return err
	}
	from, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer from.Close()
	if err := unix.Linkat(int(from.Fd()), path.Base(name), int(parent.Fd()), base, 0); err != nil {
		return &os.LinkError{Op: "link", Old: target, New: base, Err: err}
	}
	return nil
}

// attributes gives a node its owner, mode, attributes and times, in the order
// in which one does not undo another.
func (u *unpacker) attributes(f *os.File, hdr *tar.Header) error {
	uid, gid := hdr.Uid, hdr.Gid
	if u.opts.Owner != nil {
		uid, gid = u.opts.Owner.UID, u.opts.Owner.GID
	}
	if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return os.NewSyscallError("chown", err)
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(procFD(f), uint32(hdr.Mode&0o7777)); err != nil {
			return os.NewSyscallError("chmod", err)
		}
		for k, v := range hdr.PAXRecords {
			if name, ok := strings.CutPrefix(k, xattrRecord); ok && copied(name) {
				if err := setxattr(f, name, v); err != nil {
					return err
				}
			}
		}
	}
	return setTimes(f, hdr.AccessTime, hdr.ModTime)
}

func setTimes(f *os.File, atime, mtime time.Time) error {
	if atime.Before(mtime) {
		atime = mtime // tar has none, or an absurd one
	}
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, procFD(f), ts, 0))
}

func timespec(t time.Time) unix.Timespec {
	if t.Unix() < 0 || t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// finish gives directories their times back, which writing into them changed:
// the deepest first.
func (u *unpacker) finish() error {
	for _, hdr := range slices.Backward(u.dirs) {
		f, err := u.parent(hdr.Name)
		if err != nil {
			return err
		}
		err = setTimes(f, hdr.AccessTime, hdr.ModTime)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
