package files

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// Du prints how much space files take.
func Du(_ context.Context, s applet.IO, args []string) error {
	f := applet.Flags(s, "du [-shak] [FILE…]")
	sum := f.BoolP("summarize", "s", false, "only the sum")
	human := f.BoolP("human-readable", "h", false, "sizes like 1.5M")
	all := f.BoolP("all", "a", false, "files too")
	f.BoolP("kilobytes", "k", false, "always so")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	names := f.Args()
	if len(names) == 0 {
		names = []string{"."}
	}
	u := usage{human: *human, all: *all, sum: *sum, s: s, seen: map[[2]uint64]bool{}}
	var errs []error
	for _, name := range names {
		total, err := u.walk(name, true)
		u.print(total, name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type usage struct {
	human, all, sum bool
	s               applet.IO
	seen            map[[2]uint64]bool // a file with several names counts once
}

func (u usage) print(bytes int64, name string) {
	size := fmt.Sprint((bytes + 1023) / 1024)
	if u.human {
		size = applet.Human(bytes)
	}
	fmt.Fprintf(u.s.Out, "%s\t%s\n", size, name)
}

func (u usage) walk(path string, top bool) (int64, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	total := u.blocks(fi)
	if !fi.IsDir() {
		if u.all && !top {
			u.print(total, path)
		}
		return total, nil
	}
	list, err := os.ReadDir(path)
	errs := []error{err}
	for _, e := range list {
		n, err := u.walk(filepath.Join(path, e.Name()), false)
		total += n
		errs = append(errs, err)
	}
	if !top && !u.sum {
		u.print(total, path)
	}
	return total, errors.Join(errs...)
}

func (u usage) blocks(fi fs.FileInfo) int64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size()
	}
	id := [2]uint64{st.Dev, st.Ino}
	if u.seen[id] {
		return 0
	}
	u.seen[id] = true
	return st.Blocks * 512
}

// Df prints the room on file systems.
func Df(_ context.Context, s applet.IO, args []string) error {
	f := applet.Flags(s, "df [-h] [FILE…]")
	human := f.BoolP("human-readable", "h", false, "sizes like 1.5M")
	f.BoolP("kilobytes", "k", false, "always so")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	mounts, err := mountPoints()
	if f.NArg() > 0 {
		mounts = nil
		for _, name := range f.Args() {
			mounts = append(mounts, [2]string{"-", name})
		}
		err = nil
	}
	size := func(n uint64) string {
		if *human {
			return applet.Human(int64(n))
		}
		return fmt.Sprint(n / 1024)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "Filesystem\tSize\tUsed\tAvailable\tUse%\tMounted on")
	for _, m := range mounts {
		var st unix.Statfs_t
		if e := unix.Statfs(m[1], &st); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", m[1], e))
			continue
		}
		if st.Blocks == 0 && f.NArg() == 0 {
			continue
		}
		b := uint64(st.Bsize)
		used := st.Blocks - st.Bfree
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d%%\t%s\n", m[0], size(st.Blocks*b), size(used*b), size(st.Bavail*b), 100*used/max(1, used+st.Bavail), m[1])
	}
	return errors.Join(err, w.Flush())
}

// mountPoints are source and target of what is mounted.
func mountPoints() ([][2]string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out [][2]string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if w := strings.Fields(sc.Text()); len(w) > 2 {
			out = append(out, [2]string{w[0], strings.ReplaceAll(w[1], `\040`, " ")})
		}
	}
	return out, sc.Err()
}
