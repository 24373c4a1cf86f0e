package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/core/chmod"

	"isle/internal/toolbox/applet"
)

// Chmod changes permissions.
func Chmod(ctx context.Context, s applet.IO, args []string) error {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "-R" {
			a = "--recursive"
		}
		out[i] = a
	}
	return uroot(ctx, s, chmod.New(), out)
}

// Chown changes owner and group.
func Chown(_ context.Context, s applet.IO, args []string) error {
	f := applet.Flags(s, "chown [-Rh] [USER][:GROUP] FILE…")
	recursive := f.BoolP("recursive", "R", false, "all below directories too")
	noFollow := f.BoolP("no-dereference", "h", false, "links themselves")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	if err := applet.Need(f, 2); err != nil {
		return err
	}
	uid, gid, err := owner(f.Arg(0))
	if err != nil {
		return err
	}
	change := os.Chown
	if *noFollow || *recursive {
		change = os.Lchown
	}
	var errs []error
	for _, name := range f.Args()[1:] {
		if !*recursive {
			errs = append(errs, change(name, uid, gid))
			continue
		}
		errs = append(errs, filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, change(path, uid, gid))
		}))
	}
	return errors.Join(errs...)
}

// owner reads USER:GROUP. -1 means unchanged.
func owner(text string) (uid, gid int, err error) {
	u, g, _ := strings.Cut(text, ":")
	uid, gid = -1, -1
	if u != "" {
		if uid, err = strconv.Atoi(u); err != nil {
			found, err := user.Lookup(u)
			if err != nil {
				return 0, 0, err
			}
			uid, _ = strconv.Atoi(found.Uid) // always a number on Linux
		}
	}
	if g != "" {
		if gid, err = strconv.Atoi(g); err != nil {
			found, err := user.LookupGroup(g)
			if err != nil {
				return 0, 0, fmt.Errorf("group %s: %w", g, err)
			}
			gid, _ = strconv.Atoi(found.Gid)
		}
	}
	return uid, gid, nil
}
