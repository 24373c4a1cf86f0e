package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"isle/internal/toolbox/applet"
)

var errInterrupted = errors.New("interrupted")

// interactive reads lines at a terminal and runs them. Ctrl-C drops the line or
// stops what runs, Ctrl-D on an empty line leaves.
func interactive(ctx context.Context, s applet.IO, in *os.File, r *interp.Runner) error {
	ignore := make(chan os.Signal, 1) // a program that we start is not told to ignore them, as it would be by signal.Ignore
	signal.Notify(ignore, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP)
	defer signal.Stop(ignore)
	lines := &lineReader{in: in, out: s.Out, dir: func() string { return r.Dir }}
	r.Reset()
	for {
		err := session(ctx, s, lines, r)
		if errors.Is(err, errInterrupted) {
			continue
		}
		if parseError := (syntax.ParseError{}); errors.As(err, &parseError) {
			fmt.Fprintf(s.Err, "sh: %v\n", err)
			continue
		}
		return err
	}
}

// session runs lines until one cannot be parsed, Ctrl-C, or the end.
func session(ctx context.Context, s applet.IO, lines *lineReader, r *interp.Runner) error {
	parser := syntax.NewParser()
	lines.incomplete = parser.Incomplete
	var last error
	for stmts, err := range parser.InteractiveSeq(lines) {
		if err != nil {
			return err
		}
		if parser.Incomplete() {
			continue
		}
		for _, stmt := range stmts {
			var leave bool
			if last, leave = statement(ctx, s, r, stmt); leave {
				return last
			}
		}
	}
	if lines.err != nil {
		return lines.err
	}
	return last
}

// statement runs one, until it ends or Ctrl-C, and says whether it was the last.
func statement(ctx context.Context, s applet.IO, r *interp.Runner, stmt *syntax.Stmt) (status error, leave bool) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT)
	defer stop()
	err := r.Run(ctx, stmt)
	if _, isStatus := errors.AsType[interp.ExitStatus](err); err != nil && !isStatus && ctx.Err() == nil {
		fmt.Fprintf(s.Err, "sh: %v\n", err)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(s.Err)
		return interp.ExitStatus(128 + int(syscall.SIGINT)), false // the interpreter takes it for an exit
	}
	return err, r.Exited()
}

// lineReader is a terminal with editing and history, line by line. The terminal
// is raw only while a line is read, so that programs find it as it was.
type lineReader struct {
	in         *os.File
	out        io.Writer
	dir        func() string
	incomplete func() bool
	terminal   *term.Terminal
	tap        *interruptTap
	rest       []byte
	err        error // why reading ended, if not because of the end
}

func (l *lineReader) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		line, err := l.line()
		if err != nil {
			return 0, err
		}
		l.rest = append([]byte(line), '\n')
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lineReader) line() (string, error) {
	l.err = nil
	if old, err := term.MakeRaw(int(l.in.Fd())); err == nil {
		defer term.Restore(int(l.in.Fd()), old)
	}
	l.prepare()
	line, err := l.terminal.ReadLine()
	if errors.Is(err, io.EOF) && l.tap.seen {
		fmt.Fprint(l.out, "^C\r\n")
		l.terminal, l.err = nil, errInterrupted // the dropped line is still in the old one
		return "", errInterrupted
	}
	if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
		fmt.Fprint(l.out, "\r\n")
		return line, err
	}
	return line, nil
}

func (l *lineReader) prepare() {
	if l.terminal == nil {
		var history term.History
		if l.tap != nil {
			history = l.tap.history
		}
		l.tap = &interruptTap{Reader: l.in, Writer: l.out}
		l.terminal = term.NewTerminal(l.tap, "")
		if history != nil {
			l.terminal.History = history
		}
		l.tap.history = l.terminal.History
	}
	l.tap.seen = false
	if w, h, err := term.GetSize(int(l.in.Fd())); err == nil && w > 0 {
		_ = l.terminal.SetSize(w, h) // an error means that it could not repaint
	}
	l.terminal.SetPrompt(l.prompt())
}

func (l *lineReader) prompt() string {
	switch {
	case l.incomplete():
		return "> "
	case os.Geteuid() == 0:
		return l.dir() + " # "
	}
	return l.dir() + " $ "
}

// interruptTap notices Ctrl-C, which the terminal reports like the end of input.
type interruptTap struct {
	io.Reader
	io.Writer
	seen    bool
	history term.History
}

func (t *interruptTap) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.seen = bytes.IndexByte(p[:n], 3) >= 0
	return n, err
}
