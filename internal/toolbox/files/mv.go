package files

import (
	"context"
	"errors"
	"os"

	"github.com/u-root/u-root/pkg/core/cp"
	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// Mv renames. What lies on another file system, or is a directory of a lower
// layer of an overlay, is copied and removed.
func Mv(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "mv [-fn] FROM… TO")
	fs.BoolP("force", "f", false, "always so")
	keep := fs.BoolP("no-clobber", "n", false, "do not replace")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 2); err != nil {
		return err
	}
	return into(fs.Args(), func(from, to string) error {
		if _, err := os.Lstat(to); err == nil && *keep {
			return nil
		}
		err := os.Rename(from, to)
		if errors.Is(err, unix.EXDEV) {
			return copyAway(from, to)
		}
		return err
	})
}

func copyAway(from, to string) error {
	if err := (cp.Options{NoFollowSymlinks: true}).CopyTree(from, to); err != nil {
		return err
	}
	return os.RemoveAll(from)
}
