package text

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"isle/internal/toolbox/applet"
)

// Sed edits lines: s, y, p, d, q, =, a, i, c, n and { } with addresses N, $, /RE/ and ranges.
func Sed(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "sed [-nEi] [-e SCRIPT | SCRIPT] [FILE…]")
	quiet := fs.BoolP("quiet", "n", false, "print only what p prints")
	extended := fs.BoolP("regexp-extended", "E", false, "extended syntax")
	fs.BoolVarP(extended, "regexp-extended-r", "r", false, "same")
	inPlace := fs.BoolP("in-place", "i", false, "edit the files")
	scripts := fs.StringArrayP("expression", "e", nil, "commands; may be repeated")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	files := fs.Args()
	if len(*scripts) == 0 {
		if err := applet.Need(fs, 1); err != nil {
			return err
		}
		*scripts, files = files[:1], files[1:]
	}
	prog, err := parseSed(strings.Join(*scripts, "\n"), *extended)
	if err != nil {
		return err
	}
	if *inPlace {
		return editFiles(prog, *quiet, files)
	}
	in, errs := input(s, files)
	e := editor{prog: prog, quiet: *quiet, out: bufio.NewWriter(s.Out), active: map[*edit]bool{}}
	return errors.Join(errs, e.run(in))
}

// input is all the files one after the other; those that cannot be read are errors.
func input(s applet.IO, files []string) (io.Reader, error) {
	var all bytes.Buffer
	if len(files) == 0 {
		return s.In, nil
	}
	err := applet.Each(s, files, func(_ string, r io.Reader) error {
		_, err := all.ReadFrom(r)
		return err
	})
	return &all, err
}

func editFiles(prog []*edit, quiet bool, files []string) error {
	for _, name := range files {
		old, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		e := editor{prog: prog, quiet: quiet, out: bufio.NewWriter(&out), active: map[*edit]bool{}}
		if err := e.run(bytes.NewReader(old)); err != nil {
			return err
		}
		if err := os.WriteFile(name, out.Bytes(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

type editor struct {
	prog  []*edit
	quiet bool
	out   *bufio.Writer

	lines   *bufio.Scanner
	line    string
	n       int
	last    bool
	next    *string
	after   []string
	deleted bool
	quit    bool
	active  map[*edit]bool // ranges that have begun
}

func (e *editor) run(in io.Reader) error {
	e.lines = bufio.NewScanner(in)
	e.lines.Buffer(nil, longest)
	e.lines.Split(keepCR)
	for !e.quit && e.advance() {
		e.deleted = false
		e.apply(e.prog)
		e.finish()
	}
	return errors.Join(e.lines.Err(), e.out.Flush())
}

// advance reads one line ahead, to know the last one.
func (e *editor) advance() bool {
	if e.next == nil {
		if e.n > 0 || !e.lines.Scan() {
			return false
		}
		first := e.lines.Text()
		e.next = &first
	}
	e.line, e.next = *e.next, nil
	e.n++
	if e.lines.Scan() {
		text := e.lines.Text()
		e.next = &text
	}
	e.last = e.next == nil
	return true
}

func (e *editor) finish() {
	if !e.quiet && !e.deleted {
		fmt.Fprintln(e.out, e.line)
	}
	for _, text := range e.after {
		fmt.Fprintln(e.out, text)
	}
	e.after = nil
}

func (e *editor) apply(prog []*edit) {
	for _, c := range prog {
		if e.deleted || e.quit {
			return
		}
		if e.selected(c) != c.negate {
			c.do(e)
		}
	}
}

func (e *editor) selected(c *edit) bool {
	switch {
	case c.from == nil:
		return true
	case c.to == nil:
		return c.from.matches(e)
	case e.active[c]:
		e.active[c] = !c.to.ends(e)
		return true
	case c.from.matches(e):
		e.active[c] = !(c.to.line > 0 && c.to.line <= e.n) && !(c.to.last && e.last)
		return true
	}
	return false
}
