package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"isle/internal/toolbox/applet"
)

// Whoami prints the user's name.
func Whoami(_ context.Context, s applet.IO, _ []string) error {
	fmt.Fprintln(s.Out, userName(os.Geteuid()))
	return nil
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// ID prints users and groups: id [-u|-g|-G] [-n].
func ID(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "id [-u | -g | -G] [-n]")
	u := fs.BoolP("user", "u", false, "only the user")
	g := fs.BoolP("group", "g", false, "only the group")
	all := fs.BoolP("groups", "G", false, "only the groups")
	names := fs.BoolP("name", "n", false, "names")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	if !slices.Contains(groups, os.Getegid()) {
		groups = append([]int{os.Getegid()}, groups...)
	}
	show := func(id int, name func(int) string) string {
		if *names {
			return name(id)
		}
		return strconv.Itoa(id)
	}
	switch {
	case *u:
		fmt.Fprintln(s.Out, show(os.Geteuid(), userName))
	case *g:
		fmt.Fprintln(s.Out, show(os.Getegid(), groupName))
	case *all:
		fmt.Fprintln(s.Out, list(groups, " ", func(id int) string { return show(id, groupName) }))
	default:
		fmt.Fprintf(s.Out, "uid=%s gid=%s groups=%s\n", both(os.Geteuid(), userName), both(os.Getegid(), groupName),
			list(groups, ",", func(id int) string { return both(id, groupName) }))
	}
	return nil
}

func both(id int, name func(int) string) string { return fmt.Sprintf("%d(%s)", id, name(id)) }

func list(ids []int, sep string, f func(int) string) string {
	var out []string
	for _, id := range ids {
		out = append(out, f(id))
	}
	return strings.Join(out, sep)
}

// Hostname prints the host's name, or sets it.
func Hostname(_ context.Context, s applet.IO, args []string) error {
	if len(args) == 1 && !strings.HasPrefix(args[0], "-") {
		return unix.Sethostname([]byte(args[0]))
	}
	name, err := os.Hostname()
	if len(args) == 1 && args[0] == "-s" {
		name, _, _ = strings.Cut(name, ".")
	}
	fmt.Fprintln(s.Out, name)
	return err
}

// Uname prints what the kernel is.
func Uname(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "uname [-asnrvmo]")
	all := fs.BoolP("all", "a", false, "all of it")
	letters := "snrvmo"
	on := map[rune]*bool{}
	for i, name := range []string{"kernel-name", "nodename", "kernel-release", "kernel-version", "machine", "operating-system"} {
		on[rune(letters[i])] = fs.BoolP(name, letters[i:i+1], false, name)
	}
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	values := map[rune]string{'s': text(u.Sysname[:]), 'n': text(u.Nodename[:]), 'r': text(u.Release[:]), 'v': text(u.Version[:]), 'm': text(u.Machine[:]), 'o': "GNU/Linux"}
	var out []string
	for _, l := range letters {
		if *all || *on[l] {
			out = append(out, values[l])
		}
	}
	if len(out) == 0 {
		out = []string{values['s']}
	}
	fmt.Fprintln(s.Out, strings.Join(out, " "))
	return nil
}

func text(b []byte) string { return unix.ByteSliceToString(b) }

// Nproc prints how many processors this process may use.
func Nproc(_ context.Context, s applet.IO, _ []string) error {
	fmt.Fprintln(s.Out, runtime.NumCPU())
	return nil
}

// TTY prints the terminal's name. Status 1 when standard input is none.
func TTY(_ context.Context, s applet.IO, _ []string) error {
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(s.Out, "not a tty")
		return applet.Exit(1)
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	fmt.Fprintln(s.Out, name)
	return err
}

// Stty shows the terminal, or sets it: size, rows N, cols N, raw, sane, echo, -echo.
func Stty(_ context.Context, s applet.IO, args []string) error {
	f, ok := s.In.(*os.File)
	if !ok {
		return unix.ENOTTY
	}
	fd := int(f.Fd())
	w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if len(args) == 0 || args[0] == "-a" {
		return showTerminal(s, fd, w)
	}
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "size":
			fmt.Fprintln(s.Out, w.Row, w.Col)
		case "rows", "cols", "columns":
			if i++; i == len(args) {
				return fmt.Errorf("%s needs a number", args[i-1])
			}
			n, err := strconv.ParseUint(args[i], 10, 16)
			if err != nil {
				return fmt.Errorf("%s %q: not a number", args[i-1], args[i])
			}
			if args[i-1] == "rows" {
				w.Row = uint16(n)
			} else {
				w.Col = uint16(n)
			}
			if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, w); err != nil {
				return err
			}
		default:
			if err := setMode(fd, args[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func showTerminal(s applet.IO, fd int, w *unix.Winsize) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	flag := func(on bool, name string) string {
		if on {
			return name
		}
		return "-" + name
	}
	fmt.Fprintf(s.Out, "rows %d; columns %d; %s %s %s\n", w.Row, w.Col,
		flag(t.Lflag&unix.ICANON != 0, "icanon"), flag(t.Lflag&unix.ECHO != 0, "echo"), flag(t.Lflag&unix.ISIG != 0, "isig"))
	return nil
}

func setMode(fd int, mode string) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	switch mode {
	case "echo":
		t.Lflag |= unix.ECHO
	case "-echo":
		t.Lflag &^= unix.ECHO
	case "raw":
		_, err := term.MakeRaw(fd)
		return err
	case "sane", "-raw", "cooked":
		t.Iflag |= unix.ICRNL | unix.IXON | unix.BRKINT
		t.Oflag |= unix.OPOST | unix.ONLCR
		t.Lflag |= unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ISIG | unix.IEXTEN
	default:
		return fmt.Errorf("setting %q is not known here", mode)
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// Which prints where programs are in PATH.
func Which(_ context.Context, s applet.IO, args []string) error {
	status := applet.Exit(0)
	for _, a := range args {
		path, err := exec.LookPath(a)
		if err != nil {
			status = 1
			continue
		}
		fmt.Fprintln(s.Out, path)
	}
	if status != 0 {
		return status
	}
	return nil
}
