package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "rw": 0, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "remount": unix.MS_REMOUNT,
	"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"shared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "sync": unix.MS_SYNCHRONOUS,
}

// Mount mounts, or lists what is mounted.
func Mount(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "mount [-t TYPE] [-o OPTIONS] [SOURCE] TARGET")
	kind := fs.StringP("types", "t", "", "file system")
	options := fs.StringP("options", "o", "", "options, with commas")
	readOnly := fs.BoolP("read-only", "r", false, "like -o ro")
	bind := fs.Bool("bind", false, "like -o bind")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return listMounts(s)
	}
	flags, data := mountOptions(*options)
	if *readOnly {
		flags |= unix.MS_RDONLY
	}
	if *bind {
		flags |= unix.MS_BIND
	}
	source, target := fs.Arg(0), fs.Arg(fs.NArg()-1)
	if err := unix.Mount(source, target, *kind, flags, data); err != nil {
		return fmt.Errorf("%s on %s: %w", source, target, err)
	}
	return nil
}

func mountOptions(text string) (flags uintptr, data string) {
	var rest []string
	for _, o := range strings.Split(text, ",") {
		if f, ok := mountFlags[o]; ok {
			flags |= f
		} else if o != "" {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

func listMounts(s applet.IO) error {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	for _, line := range strings.Split(strings.TrimSpace(string(all)), "\n") {
		if w := strings.Fields(line); len(w) > 3 {
			fmt.Fprintf(s.Out, "%s on %s type %s (%s)\n", w[0], w[1], w[2], w[3])
		}
	}
	return err
}

// Umount unmounts.
func Umount(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "umount [-lf] TARGET…")
	lazy := fs.BoolP("lazy", "l", false, "when it is no longer used")
	force := fs.BoolP("force", "f", false, "even if a server does not answer")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	flags := 0
	if *lazy {
		flags |= unix.MNT_DETACH
	}
	if *force {
		flags |= unix.MNT_FORCE
	}
	var errs []error
	for _, target := range fs.Args() {
		if err := unix.Unmount(target, flags); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// Dmesg prints the kernel's messages.
func Dmesg(_ context.Context, s applet.IO, _ []string) error {
	const readAll, size = 3, 10
	n, err := unix.Klogctl(size, nil)
	if err != nil {
		return err
	}
	buf := make([]byte, n)
	if n, err = unix.Klogctl(readAll, buf); err != nil {
		return err
	}
	_, err = s.Out.Write(buf[:n])
	return err
}
