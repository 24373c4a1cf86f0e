// Package shell is the command sh: mvdan.cc/sh's interpreter with a prompt.
//
// It is no job control and no login shell. Programs are looked up in PATH; a
// command of the toolbox that is not there is run by starting this program anew,
// so that "sh -c" works in any image that holds nothing but it.
//
// Traps: the interpreter's own way to stop a program is to kill it two seconds
// after its context ends. At a terminal the kernel has told the program already,
// and it may have reasons to stay (a shell in the shell), so programs run without
// that context and only the interpreter itself is stopped. A job in the background
// is a goroutine: "wait" works on it, but $! is no process id.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/applets"
)

// defaultPath is for images that set no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type call struct {
	command     string // of -c
	hasCommand  bool
	interactive bool
	stdin       bool     // -s
	set         []string // options for "set"
	operands    []string
}

// Run is sh [-ceilsux] [-o OPTION] [FILE | -c COMMAND [NAME]] [ARG…].
func Run(ctx context.Context, s applet.IO, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", defaultPath)
	}
	params := c.operands
	if len(params) > 0 && !c.stdin { // the first is $0
		params = params[1:]
	}
	r, err := newRunner(s, append(append(c.set, "--"), params...)...)
	if err != nil {
		return err
	}
	return status(s, c.run(ctx, s, r))
}

func newRunner(s applet.IO, params ...string) (*interp.Runner, error) {
	return interp.New(interp.StdIO(s.In, s.Out, s.Err), interp.Params(params...), interp.CallHandler(intercept), interp.ExecHandlers(execute))
}

func (c call) run(ctx context.Context, s applet.IO, r *interp.Runner) error {
	switch {
	case c.hasCommand:
		name := "sh"
		if len(c.operands) > 0 {
			name = c.operands[0]
		}
		return script(ctx, r, strings.NewReader(c.command), name)
	case len(c.operands) > 0 && !c.stdin:
		return scriptFile(ctx, s, r, c.operands[0])
	}
	if f, ok := s.In.(*os.File); ok && (c.interactive || term.IsTerminal(int(f.Fd()))) {
		return interactive(ctx, s, f, r)
	}
	return statements(ctx, r, s.In)
}

func scriptFile(ctx context.Context, s applet.IO, r *interp.Runner, path string) error {
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintf(s.Err, "sh: %v\n", err)
		return applet.Exit(127)
	}
	defer f.Close()
	return script(ctx, r, f, path)
}

func script(ctx context.Context, r *interp.Runner, in io.Reader, name string) error {
	prog, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(in, name)
	if err != nil {
		return err
	}
	return r.Run(ctx, prog)
}

// statements runs what it reads line by line, so that "read" in it sees the rest.
func statements(ctx context.Context, r *interp.Runner, in io.Reader) error {
	var last error
	for stmt, err := range syntax.NewParser().StmtsSeq(in) {
		if err != nil {
			return err
		}
		if last = r.Run(ctx, stmt); r.Exited() {
			return last
		}
	}
	return last
}

// execute runs programs as the interpreter does, but without its time limit, and
// falls back to the commands in this program.
func execute(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		ctx = context.WithoutCancel(ctx)
		h := interp.HandlerCtx(ctx)
		_, err := interp.LookPathDir(h.Dir, h.Env, args[0])
		switch {
		case err == nil && args[0] != self:
			return next(ctx, args)
		case args[0] == self || isApplet(args[0]):
			return reexec(h, args)
		}
		return unknown(h, args[0])
	}
}

func isApplet(name string) bool { return slices.Contains(applets.Names, name) }

// unknown says why name cannot be run: 127 when there is no such file, else 126.
func unknown(h interp.HandlerContext, name string) error {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(h.Dir, name)
		}
		if _, err := os.Stat(name); err == nil {
			fmt.Fprintf(h.Stderr, "sh: %s: permission denied\n", name)
			return interp.ExitStatus(126)
		}
	}
	fmt.Fprintf(h.Stderr, "sh: %s: not found\n", name)
	return interp.ExitStatus(127)
}

// status is err as an exit status; what is no exit status is printed.
func status(s applet.IO, err error) error {
	var code interp.ExitStatus
	var quiet applet.Exit
	switch {
	case err == nil, errors.As(err, &quiet):
		return err
	case errors.As(err, &code):
		return applet.Exit(code)
	}
	fmt.Fprintf(s.Err, "sh: %v\n", err)
	return applet.Usage
}
