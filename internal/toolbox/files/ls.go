package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"isle/internal/toolbox/applet"
)

type lister struct {
	all, almost, long, self, human, recurse, byTime, bySize, reverse, classify, inode, numeric bool

	s applet.IO
}

type entry struct {
	path, name string
	fs.FileInfo
}

// Ls lists files, one per line.
func Ls(_ context.Context, s applet.IO, args []string) error {
	l := lister{s: s}
	f := applet.Flags(s, "ls [-1aAldhRtSrFin] [FILE…]")
	f.BoolP("one", "1", false, "always so")
	f.BoolVarP(&l.all, "all", "a", false, "with . and hidden ones")
	f.BoolVarP(&l.almost, "almost-all", "A", false, "with hidden ones")
	f.BoolVarP(&l.long, "long", "l", false, "with mode, owner, size and time")
	f.BoolVarP(&l.self, "directory", "d", false, "directories themselves")
	f.BoolVarP(&l.human, "human-readable", "h", false, "sizes like 1.5M")
	f.BoolVarP(&l.recurse, "recursive", "R", false, "all below")
	f.BoolVarP(&l.byTime, "time", "t", false, "newest first")
	f.BoolVarP(&l.bySize, "size", "S", false, "largest first")
	f.BoolVarP(&l.reverse, "reverse", "r", false, "the other way round")
	f.BoolVarP(&l.classify, "classify", "F", false, "mark what is no plain file")
	f.BoolVarP(&l.inode, "inode", "i", false, "with inode numbers")
	f.BoolVarP(&l.numeric, "numeric-uid-gid", "n", false, "long, owners as numbers")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	l.long = l.long || l.numeric
	names := f.Args()
	if len(names) == 0 {
		names = []string{"."}
	}
	return l.list(names)
}

// list prints the files among names first, then each directory.
func (l lister) list(names []string) error {
	var files, dirs []entry
	var errs []error
	for _, name := range names {
		fi, err := l.stat(name)
		switch {
		case err != nil:
			errs = append(errs, err)
		case fi.IsDir() && !l.self:
			dirs = append(dirs, entry{name, name, fi})
		default:
			files = append(files, entry{name, name, fi})
		}
	}
	l.print(files)
	for _, d := range dirs {
		if len(names) > 1 || l.recurse {
			fmt.Fprintf(l.s.Out, "%s:\n", d.path)
		}
		errs = append(errs, l.directory(d))
	}
	return errors.Join(errs...)
}

// stat follows a link that is named, unless it is shown itself.
func (l lister) stat(name string) (fs.FileInfo, error) {
	if !l.long && !l.self {
		if fi, err := os.Stat(name); err == nil {
			return fi, nil
		}
	}
	return os.Lstat(name)
}

func (l lister) directory(d entry) error {
	list, err := os.ReadDir(d.path)
	var entries, below []entry
	if l.all {
		entries = append(entries, entry{d.path, ".", d.FileInfo})
		if up, err := os.Lstat(filepath.Join(d.path, "..")); err == nil {
			entries = append(entries, entry{filepath.Join(d.path, ".."), "..", up})
		}
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") && !l.all && !l.almost {
			continue
		}
		if fi, err := e.Info(); err == nil { // else it is gone
			one := entry{filepath.Join(d.path, e.Name()), e.Name(), fi}
			entries = append(entries, one)
			if fi.IsDir() {
				below = append(below, one)
			}
		}
	}
	l.print(entries)
	if !l.recurse {
		return err
	}
	errs := []error{err}
	for _, b := range below {
		fmt.Fprintf(l.s.Out, "\n%s:\n", b.path)
		errs = append(errs, l.directory(b))
	}
	return errors.Join(errs...)
}

func (l lister) print(entries []entry) {
	slices.SortStableFunc(entries, func(a, b entry) int {
		c := strings.Compare(a.name, b.name)
		switch {
		case l.byTime:
			c = b.ModTime().Compare(a.ModTime())
		case l.bySize:
			c = cmp.Compare(b.Size(), a.Size())
		}
		if l.reverse {
			return -c
		}
		return c
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 1, ' ', tabwriter.AlignRight|tabwriter.DiscardEmptyColumns)
	for _, e := range entries {
		fmt.Fprint(w, l.columns(e), l.label(e), "\n")
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		if l.long || l.inode {
			line = strings.TrimPrefix(line, " ") // what separates columns comes before the first one too
		}
		fmt.Fprint(l.s.Out, line)
	}
}

// columns are those before the name, each ended by a tab.
func (l lister) columns(e entry) string {
	st, _ := e.Sys().(*syscall.Stat_t)
	out := ""
	if l.inode && st != nil {
		out = fmt.Sprint(st.Ino, "\t")
	}
	if !l.long || st == nil {
		return out
	}
	size := strconv.FormatInt(e.Size(), 10)
	if l.human {
		size = applet.Human(e.Size())
	}
	if e.Mode()&fs.ModeDevice != 0 {
		size = fmt.Sprintf("%d,%d", st.Rdev>>8&0xfff, st.Rdev&0xff|st.Rdev>>12&^0xff)
	}
	return out + fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t ", modeText(e.Mode()), st.Nlink,
		l.who(st.Uid, userName), l.who(st.Gid, groupName), size, e.ModTime().Format("Jan _2 15:04 2006"))
}

func (l lister) who(id uint32, name func(string) string) string {
	text := strconv.FormatUint(uint64(id), 10)
	if l.numeric {
		return text
	}
	return name(text)
}

func userName(id string) string {
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(id string) string {
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// modeText is the mode as ls has always shown it: drwxr-sr-t.
func modeText(m fs.FileMode) string {
	kind := "-"
	for _, k := range []struct {
		bit  fs.FileMode
		char string
	}{{fs.ModeDir, "d"}, {fs.ModeSymlink, "l"}, {fs.ModeNamedPipe, "p"}, {fs.ModeSocket, "s"}, {fs.ModeCharDevice, "c"}, {fs.ModeDevice, "b"}} {
		if m&k.bit != 0 {
			kind = k.char
			break
		}
	}
	perm := []byte(m.Perm().String()[1:])
	special := func(bit fs.FileMode, at int, with, without byte) {
		if m&bit == 0 {
			return
		}
		if perm[at] == 'x' {
			perm[at] = with
		} else {
			perm[at] = without
		}
	}
	special(fs.ModeSetuid, 2, 's', 'S')
	special(fs.ModeSetgid, 5, 's', 'S')
	special(fs.ModeSticky, 8, 't', 'T')
	return kind + string(perm)
}

func (l lister) label(e entry) string {
	name := e.name
	if l.classify {
		switch {
		case e.IsDir():
			name += "/"
		case e.Mode()&fs.ModeSymlink != 0 && !l.long:
			name += "@"
		case e.Mode()&0o111 != 0:
			name += "*"
		}
	}
	if l.long && e.Mode()&fs.ModeSymlink != 0 {
		if to, err := os.Readlink(e.path); err == nil {
			name += " -> " + to
		}
	}
	return name
}
