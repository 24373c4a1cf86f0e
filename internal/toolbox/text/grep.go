package text

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"isle/internal/toolbox/applet"
)

type grep struct {
	invert, count, quiet, names, numbers, only, withName bool

	re    *regexp.Regexp
	s     applet.IO
	found bool
}

// Grep prints the lines that match. Status 1 when there is none, 2 on an error.
func Grep(_ context.Context, s applet.IO, args []string) error {
	g := grep{s: s}
	f := applet.Flags(s, "grep [-EFivclnoqrwxHh] [-e PATTERN] PATTERN [FILE…]")
	extended := f.BoolP("extended-regexp", "E", false, "extended syntax")
	fixed := f.BoolP("fixed-strings", "F", false, "the pattern is plain text")
	ignoreCase := f.BoolP("ignore-case", "i", false, "letters in any case")
	whole := f.BoolP("line-regexp", "x", false, "the whole line")
	word := f.BoolP("word-regexp", "w", false, "whole words")
	recursive := f.BoolP("recursive", "r", false, "all files below directories")
	patterns := f.StringArrayP("regexp", "e", nil, "a pattern; may be repeated")
	noName := f.BoolP("no-filename", "h", false, "without file names")
	f.BoolVarP(&g.withName, "with-filename", "H", false, "with file names")
	f.BoolVarP(&g.invert, "invert-match", "v", false, "lines that do not match")
	f.BoolVarP(&g.count, "count", "c", false, "only how many")
	f.BoolVarP(&g.names, "files-with-matches", "l", false, "only names of files")
	f.BoolVarP(&g.numbers, "line-number", "n", false, "with line numbers")
	f.BoolVarP(&g.only, "only-matching", "o", false, "only what matches")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "only the status")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	files := f.Args()
	if len(*patterns) == 0 {
		if err := applet.Need(f, 1); err != nil {
			return err
		}
		*patterns, files = files[:1], files[1:]
	}
	var err error
	if g.re, err = grepPattern(*patterns, *extended, *fixed, *ignoreCase, *whole, *word); err != nil {
		fmt.Fprintln(s.Err, "grep:", err)
		return applet.Usage
	}
	if *recursive {
		files = below(files)
	}
	g.withName = (g.withName || len(files) > 1 || *recursive) && !*noName
	return g.run(files)
}

func (g *grep) run(files []string) error {
	if err := applet.Each(g.s, files, g.file); err != nil {
		fmt.Fprintln(g.s.Err, "grep:", err)
		return applet.Usage
	}
	if !g.found {
		return applet.Exit(1)
	}
	return nil
}

func grepPattern(patterns []string, extended, fixed, ignoreCase, whole, word bool) (*regexp.Regexp, error) {
	var alternatives []string
	for _, p := range patterns {
		for _, p := range strings.Split(p, "\n") {
			switch {
			case fixed:
				p = regexp.QuoteMeta(p)
			case !extended:
				p = fromBasic(p)
			}
			alternatives = append(alternatives, "(?:"+p+")")
		}
	}
	p := strings.Join(alternatives, "|")
	if word {
		p = `\b(?:` + p + `)\b`
	}
	if whole {
		p = `^(?:` + p + `)$`
	}
	return compile(p, true, ignoreCase)
}

func (g *grep) file(name string, r io.Reader) error {
	if name == "-" {
		name = "(standard input)"
	}
	n, matches := 0, 0
	err := eachLine(r, func(line string) bool {
		n++
		if g.re.MatchString(line) == g.invert {
			return true
		}
		matches++
		g.found = true
		g.print(name, n, line)
		return !g.quiet && !g.names
	})
	switch {
	case g.count:
		fmt.Fprintln(g.s.Out, g.prefix(name)+fmt.Sprint(matches))
	case g.names && matches > 0:
		fmt.Fprintln(g.s.Out, name)
	}
	return err
}

func (g *grep) prefix(name string) string {
	if g.withName {
		return name + ":"
	}
	return ""
}

func (g *grep) print(name string, n int, line string) {
	if g.count || g.names || g.quiet {
		return
	}
	prefix := g.prefix(name)
	if g.numbers {
		prefix += fmt.Sprint(n) + ":"
	}
	if !g.only {
		fmt.Fprintln(g.s.Out, prefix+line)
		return
	}
	for _, m := range g.re.FindAllString(line, -1) {
		fmt.Fprintln(g.s.Out, prefix+m)
	}
}

// below replaces directories by the files in them.
func below(names []string) []string {
	if len(names) == 0 {
		names = []string{"."}
	}
	var out []string
	for _, name := range names {
		_ = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error { // what cannot be read fails when it is opened
			if err != nil || d.Type().IsRegular() {
				out = append(out, path)
			}
			return nil
		})
	}
	return out
}
