package files

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

type tarball struct {
	verbose, gzip bool
	strip         int
	s             applet.IO
	dir           *os.Root // nothing outside of it is ever read or written
}

// Tar packs, lists and unpacks archives.
func Tar(_ context.Context, s applet.IO, args []string) error {
	t := tarball{s: s}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = append([]string{"-" + args[0]}, args[1:]...)
	}
	f := applet.Flags(s, "tar (-c | -x | -t) [-vz] [-f FILE] [-C DIR] [NAME…]")
	create := f.BoolP("create", "c", false, "pack")
	extract := f.BoolP("extract", "x", false, "unpack")
	list := f.BoolP("list", "t", false, "list")
	file := f.StringP("file", "f", "-", "the archive; - is standard input or output")
	dir := f.StringP("directory", "C", ".", "where the files are")
	f.BoolVarP(&t.verbose, "verbose", "v", false, "say what is done")
	f.BoolVarP(&t.gzip, "gzip", "z", false, "compressed (unpacking notices by itself)")
	f.IntVar(&t.strip, "strip-components", 0, "leave out so many leading parts of names")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	var err error
	if t.dir, err = os.OpenRoot(*dir); err != nil {
		return err
	}
	defer t.dir.Close()
	switch {
	case *create:
		return t.create(*file, f.Args())
	case *extract || *list:
		return t.read(*file, f.Args(), *list)
	}
	f.Usage()
	return applet.Usage
}

func (t tarball) create(file string, names []string) error {
	out := t.s.Out
	if file != "-" {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	closers := []io.Closer{}
	if t.gzip {
		z := gzip.NewWriter(out)
		out, closers = z, append(closers, z)
	}
	w := tar.NewWriter(out)
	var errs []error
	for _, name := range names {
		errs = append(errs, fs.WalkDir(t.dir.FS(), filepath.Clean(name), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return t.add(w, path)
		}))
	}
	errs = append(errs, w.Close())
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (t tarball) add(w *tar.Writer, path string) error {
	fi, err := t.dir.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSocket != 0 {
		return err
	}
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		if link, err = t.dir.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name = path
	if fi.IsDir() {
		h.Name += "/"
	}
	if t.verbose {
		fmt.Fprintln(t.s.Err, h.Name)
	}
	if err := w.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := t.dir.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

func (t tarball) read(file string, names []string, list bool) error {
	in := t.s.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	buffered := bufio.NewReader(in)
	in = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return err
		}
		in = z
	}
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !wanted(h.Name, names) {
			continue
		}
		if list || t.verbose {
			fmt.Fprintln(t.s.Out, h.Name)
		}
		if !list {
			if err := t.extract(r, h); err != nil {
				return fmt.Errorf("unpack %s: %w", h.Name, err)
			}
		}
	}
}

func wanted(name string, names []string) bool {
	for _, n := range names {
		n = strings.TrimSuffix(n, "/")
		if name == n || strings.HasPrefix(name, n+"/") {
			return true
		}
	}
	return len(names) == 0
}

// extract makes one file. os.Root refuses every way out of the directory.
func (t tarball) extract(r io.Reader, h *tar.Header) error {
	name := strings.TrimPrefix(filepath.Clean("/"+h.Name), "/")
	for range t.strip {
		_, name, _ = strings.Cut(name, "/")
	}
	if name == "" {
		return nil
	}
	if err := t.dir.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	switch h.Typeflag {
	case tar.TypeDir:
		if err := t.dir.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg:
		if err := t.write(r, name, mode); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return t.replace(name, func() error { return t.dir.Symlink(h.Linkname, name) })
	case tar.TypeLink:
		return t.replace(name, func() error { return t.dir.Link(strings.TrimPrefix(filepath.Clean("/"+h.Linkname), "/"), name) })
	default:
		return fmt.Errorf("entries of type %q are not unpacked: %w", h.Typeflag, unix.ENOTSUP)
	}
	if os.Geteuid() == 0 {
		if err := t.dir.Lchown(name, h.Uid, h.Gid); err != nil && !errors.Is(err, syscall.EPERM) {
			return err
		}
	}
	return errors.Join(t.dir.Chmod(name, mode), t.dir.Chtimes(name, h.ModTime, h.ModTime))
}

func (t tarball) replace(name string, make func() error) error {
	if err := t.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return make()
}

func (t tarball) write(r io.Reader, name string, mode fs.FileMode) error {
	return t.replace(name, func() error {
		f, err := t.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	})
}
