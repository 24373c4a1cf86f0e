package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// Kill sends a signal: kill [-s NAME | -NAME | -N] PID…, kill -l.
func Kill(_ context.Context, s applet.IO, args []string) error {
	sig := unix.SIGTERM
	if len(args) > 0 && args[0] == "-l" {
		for n := unix.Signal(1); n < 32; n++ {
			fmt.Fprintf(s.Out, "%d %s\n", int(n), strings.TrimPrefix(unix.SignalName(n), "SIG"))
		}
		return nil
	}
	if len(args) > 1 && strings.HasPrefix(args[0], "-") {
		name := args[0][1:]
		args = args[1:]
		if name == "s" {
			name, args = args[0], args[1:]
		}
		var err error
		if sig, err = signal(name); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		fmt.Fprintln(s.Err, "usage: kill [-SIGNAL] PID… | -l")
		return applet.Usage
	}
	var errs []error
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err == nil {
			err = unix.Kill(pid, sig)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

func signal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < 65 {
		return unix.Signal(n), nil
	}
	name = strings.ToUpper(name)
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("signal %q is not known", name)
}
