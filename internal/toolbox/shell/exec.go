package shell

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"isle/internal/toolbox/applet"
)

// reexec runs the command of this program that is called args[0].
func reexec(h interp.HandlerContext, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Cmd{Path: self, Args: args, Env: environ(h.Env), Dir: h.Dir, Stdin: h.Stdin, Stdout: h.Stdout, Stderr: h.Stderr}
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return interp.ExitStatus(128 + int(ws.Signal()))
		}
		return interp.ExitStatus(e.ExitCode())
	}
	return err
}

func environ(e expand.Environ) []string {
	var list []string
	for name, v := range e.Each {
		if v.Exported && v.Kind == expand.String {
			list = append(list, name+"="+v.String())
		}
	}
	return list
}

// Builtin is a command that the shell has built in, on its own.
func Builtin(name string) applet.Func {
	return func(ctx context.Context, s applet.IO, args []string) error {
		words := []string{name}
		for _, a := range args {
			q, err := syntax.Quote(a, syntax.LangBash)
			if err != nil {
				return err
			}
			words = append(words, q)
		}
		r, err := newRunner(s)
		if err != nil {
			return err
		}
		return status(s, script(ctx, r, strings.NewReader(strings.Join(words, " ")), name))
	}
}
