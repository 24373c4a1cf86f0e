package rootfs

import (
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Absolute is a path of the user's made absolute, with a "/" or "/." at its
// end kept: that says whether a link there is followed.
func Absolute(name string) string {
	clean := path.Join("/", name)
	switch {
	case clean == "/":
		return clean
	case strings.HasSuffix(name, "/."):
		return clean + "/."
	case strings.HasSuffix(name, "/"):
		return clean + "/"
	}
	return clean
}

// Stat describes what is at a path, a link itself included.
func (v *View) Stat(name string) (container.PathStat, error) {
	abs := Absolute(name)
	f, err := v.open(abs, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return container.PathStat{}, err
	}
	defer f.Close()
	st, err := fstat(f)
	if err != nil {
		return container.PathStat{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	out := container.PathStat{Name: path.Base(abs), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if strings.HasSuffix(abs, "/.") {
		out.Name = "."
	}
	if out.Mode&fs.ModeSymlink != 0 {
		out.LinkTarget = v.follow(abs)
	}
	return out, nil
}

// maxLinks is how many links follow goes through, as the kernel does.
const maxLinks = 40

// follow is where a path leads when all links are followed in the container's
// root, for people to read: nothing is opened by it. What does not exist is
// taken as it stands.
func (v *View) follow(name string) string {
	at, rest, links := "/", strings.Split(name, "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(at, part)
		target, ok := v.readlink(next)
		if !ok || links == maxLinks {
			at = next
			continue
		}
		links++
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at
}

func (v *View) readlink(name string) (string, bool) {
	f, err := v.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", false
	}
	defer f.Close()
	return readlinkat(int(f.Fd()), "")
}

func readlinkat(dir int, name string) (string, bool) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	return string(b[:max(n, 0)]), err == nil
}

// fileMode is a kernel mode in Go's bits.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	m |= map[uint32]fs.FileMode{
		unix.S_IFBLK: fs.ModeDevice, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice, unix.S_IFDIR: fs.ModeDir,
		unix.S_IFIFO: fs.ModeNamedPipe, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFSOCK: fs.ModeSocket,
	}[mode&unix.S_IFMT]
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISGID: fs.ModeSetgid, unix.S_ISUID: fs.ModeSetuid, unix.S_ISVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m
}
