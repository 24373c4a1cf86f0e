package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// Basename prints the last part of a path, without a suffix.
func Basename(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "basename PATH [SUFFIX]")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	base := filepath.Base(fs.Arg(0))
	if cut := strings.TrimSuffix(base, fs.Arg(1)); cut != "" {
		base = cut
	}
	fmt.Fprintln(s.Out, base)
	return nil
}

// Dirname prints a path without its last part.
func Dirname(_ context.Context, s applet.IO, args []string) error {
	for _, a := range args {
		fmt.Fprintln(s.Out, filepath.Dir(a))
	}
	return nil
}

// Readlink prints where a link leads.
func Readlink(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "readlink [-fn] PATH…")
	follow := fs.BoolP("canonicalize", "f", false, "the absolute path without links")
	bare := fs.BoolP("no-newline", "n", false, "without line feed")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	for _, name := range fs.Args() {
		to, err := os.Readlink(name)
		if *follow {
			to, err = canonical(name)
		}
		if err != nil {
			return applet.Exit(1)
		}
		fmt.Fprint(s.Out, to)
		if !*bare {
			fmt.Fprintln(s.Out)
		}
	}
	return nil
}

// canonical follows links; the last part need not exist.
func canonical(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if to, err := filepath.EvalSymlinks(abs); err == nil {
		return to, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(dir, filepath.Base(abs)), err
}

// Ln makes links.
func Ln(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "ln [-sfn] TARGET… NAME")
	symbolic := fs.BoolP("symbolic", "s", false, "symbolic")
	force := fs.BoolP("force", "f", false, "replace NAME")
	fs.BoolP("no-dereference", "n", false, "always so with -f")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 2); err != nil {
		return err
	}
	link := os.Link
	if *symbolic {
		link = os.Symlink
	}
	return into(fs.Args(), func(target, name string) error {
		if *force {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return link(target, name)
	})
}

// into calls f with each source and where it goes: the last argument, or below
// it when that is a directory.
func into(args []string, f func(from, to string) error) error {
	to, from := args[len(args)-1], args[:len(args)-1]
	fi, err := os.Stat(to)
	isDir := err == nil && fi.IsDir()
	if len(from) > 1 && !isDir {
		return fmt.Errorf("%s is not a directory", to)
	}
	var errs []error
	for _, name := range from {
		dest := to
		if isDir {
			dest = filepath.Join(to, filepath.Base(name))
		}
		errs = append(errs, f(name, dest))
	}
	return errors.Join(errs...)
}

// Mkfifo makes named pipes.
func Mkfifo(_ context.Context, s applet.IO, args []string) error {
	return each(s, "mkfifo NAME…", args, func(name string) error { return unix.Mkfifo(name, 0o666) })
}

// Rmdir removes empty directories.
func Rmdir(_ context.Context, s applet.IO, args []string) error {
	return each(s, "rmdir NAME…", args, func(name string) error { return unix.Rmdir(name) })
}

// Sync writes what the kernel has not written yet.
func Sync(context.Context, applet.IO, []string) error {
	unix.Sync()
	return nil
}

func each(s applet.IO, usage string, args []string, f func(name string) error) error {
	fs := applet.Flags(s, usage)
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	var errs []error
	for _, name := range fs.Args() {
		if err := f(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
