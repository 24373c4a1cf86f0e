package shell

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"

	"isle/internal/toolbox/rlimit"
)

// self is the name under which this program's own commands are called where the
// interpreter has taken their name for a builtin that it does not have.
const self = "isle-toolbox"

// intercept supplies builtins that the interpreter knows by name only. Limits and
// the mask are the process's own, which is what programs inherit.
func intercept(ctx context.Context, args []string) ([]string, error) {
	h := interp.HandlerCtx(ctx)
	var text string
	var err error
	switch args[0] {
	case "kill":
		return append([]string{self}, args...), nil
	case "umask":
		text, err = umask(args[1:])
	case "ulimit":
		text, err = ulimit(args[1:])
	default:
		return args, nil
	}
	if err != nil {
		fmt.Fprintf(h.Stderr, "%s: %v\n", args[0], err)
		return []string{"false"}, nil
	}
	fmt.Fprint(h.Stdout, text)
	return []string{"true"}, nil
}

func umask(args []string) (string, error) {
	if len(args) == 0 {
		now := unix.Umask(0)
		unix.Umask(now)
		return fmt.Sprintf("%04o\n", now), nil
	}
	mask, err := strconv.ParseUint(args[0], 8, 9)
	if err != nil {
		return "", fmt.Errorf("%q is no octal number", args[0])
	}
	unix.Umask(int(mask))
	return "", nil
}

type limit struct {
	letter   string
	resource int
	unit     uint64
	name     string
}

var limits = []limit{
	{"c", unix.RLIMIT_CORE, 512, "core file size (blocks)"}, {"d", unix.RLIMIT_DATA, 1024, "data (kbytes)"},
	{"f", unix.RLIMIT_FSIZE, 512, "file size (blocks)"}, {"l", unix.RLIMIT_MEMLOCK, 1024, "locked memory (kbytes)"},
	{"m", unix.RLIMIT_RSS, 1024, "resident memory (kbytes)"}, {"n", unix.RLIMIT_NOFILE, 1, "open files"},
	{"s", unix.RLIMIT_STACK, 1024, "stack (kbytes)"}, {"t", unix.RLIMIT_CPU, 1, "cpu time (seconds)"},
	{"u", unix.RLIMIT_NPROC, 1, "processes"}, {"v", unix.RLIMIT_AS, 1024, "virtual memory (kbytes)"},
}

// ulimit is ulimit [-HS] [-a | -LETTER] [VALUE | unlimited].
func ulimit(args []string) (string, error) {
	hard, soft, letter := false, false, "f"
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		for _, l := range args[0][1:] {
			switch l {
			case 'H':
				hard = true
			case 'S':
				soft = true
			default:
				letter = string(l)
			}
		}
		args = args[1:]
	}
	if letter == "a" {
		return allLimits(hard)
	}
	for _, l := range limits {
		if l.letter != letter {
			continue
		}
		if len(args) > 0 {
			return "", l.set(args[0], hard || !soft, soft || !hard)
		}
		return l.get(hard)
	}
	return "", fmt.Errorf("-%s is not known", letter)
}

func allLimits(hard bool) (string, error) {
	var b strings.Builder
	for _, l := range limits {
		text, err := l.get(hard)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%-26s -%s %s", l.name, l.letter, text)
	}
	return b.String(), nil
}

func (l limit) read() (unix.Rlimit, error) {
	var r unix.Rlimit
	err := unix.Getrlimit(l.resource, &r)
	if soft, hard := rlimit.Files(); l.resource == unix.RLIMIT_NOFILE && r.Cur == r.Max && r.Max == hard {
		r.Cur = soft // Go's runtime has raised it, and takes that back for programs
	}
	return r, err
}

func (l limit) get(hard bool) (string, error) {
	r, err := l.read()
	v := r.Cur
	if hard {
		v = r.Max
	}
	if v == unix.RLIM_INFINITY {
		return "unlimited\n", err
	}
	return fmt.Sprintln(v / l.unit), err
}

func (l limit) set(text string, hard, soft bool) error {
	r, err := l.read()
	if err != nil {
		return err
	}
	v := uint64(unix.RLIM_INFINITY)
	if text != "unlimited" {
		if v, err = strconv.ParseUint(text, 10, 54); err != nil {
			return fmt.Errorf("%q is no number", text)
		}
		v *= l.unit
	}
	if hard {
		r.Max = v
	}
	if soft {
		r.Cur = v
	}
	return unix.Setrlimit(l.resource, &r)
}
