package text

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// edit is one command of a sed script.
type edit struct {
	from, to *address
	negate   bool
	do       func(*editor)
}

type address struct {
	line int
	last bool
	re   *regexp.Regexp
}

func (a *address) matches(e *editor) bool {
	switch {
	case a.re != nil:
		return a.re.MatchString(e.line)
	case a.last:
		return e.last
	}
	return e.n == a.line
}

// ends reports whether a range that has begun ends here.
func (a *address) ends(e *editor) bool { return a.matches(e) || a.line > 0 && e.n >= a.line }

type sedParser struct {
	rest     string
	extended bool
}

func parseSed(script string, extended bool) ([]*edit, error) {
	p := &sedParser{script, extended}
	prog, err := p.block(false)
	if err != nil {
		return nil, fmt.Errorf("script %q: %w", script, err)
	}
	return prog, nil
}

func (p *sedParser) block(nested bool) ([]*edit, error) {
	var prog []*edit
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\n;")
		switch {
		case p.rest == "" && nested:
			return nil, fmt.Errorf("a } is missing")
		case p.rest == "":
			return prog, nil
		case p.rest[0] == '}' && nested:
			p.rest = p.rest[1:]
			return prog, nil
		}
		c, err := p.command()
		if err != nil {
			return nil, err
		}
		prog = append(prog, c)
	}
}

func (p *sedParser) command() (*edit, error) {
	c := &edit{}
	var err error
	if c.from, err = p.address(); err != nil {
		return nil, err
	}
	if c.from != nil && strings.HasPrefix(p.rest, ",") {
		p.rest = p.rest[1:]
		if c.to, err = p.address(); err != nil {
			return nil, err
		}
		if c.to == nil {
			return nil, fmt.Errorf("the second address of a range is missing")
		}
	}
	p.rest = strings.TrimLeft(p.rest, " \t")
	if strings.HasPrefix(p.rest, "!") {
		c.negate, p.rest = true, strings.TrimLeft(p.rest[1:], " ")
	}
	if p.rest == "" {
		return nil, fmt.Errorf("a command is missing")
	}
	name := p.rest[0]
	p.rest = p.rest[1:]
	c.do, err = p.action(name)
	return c, err
}

func (p *sedParser) address() (*address, error) {
	switch {
	case p.rest == "":
		return nil, nil
	case p.rest[0] == '$':
		p.rest = p.rest[1:]
		return &address{last: true}, nil
	case p.rest[0] == '/':
		p.rest = p.rest[1:]
		pattern, err := p.until('/')
		if err != nil {
			return nil, err
		}
		re, err := compile(pattern, p.extended, false)
		return &address{re: re}, err
	}
	digits := len(p.rest) - len(strings.TrimLeft(p.rest, "0123456789"))
	if digits == 0 {
		return nil, nil
	}
	n, err := strconv.Atoi(p.rest[:digits])
	p.rest = p.rest[digits:]
	return &address{line: n}, err
}

// until takes text up to sep. \sep stands for sep itself.
func (p *sedParser) until(sep byte) (string, error) {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == sep:
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			if p.rest[i] != sep {
				b.WriteByte('\\')
			}
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("a %q is missing", sep)
}

func (p *sedParser) action(name byte) (func(*editor), error) {
	switch name {
	case '{':
		prog, err := p.block(true)
		return func(e *editor) { e.apply(prog) }, err
	case 'p':
		return func(e *editor) { fmt.Fprintln(e.out, e.line) }, nil
	case 'd':
		return func(e *editor) { e.deleted = true }, nil
	case 'q':
		return func(e *editor) { e.quit = true }, nil
	case '=':
		return func(e *editor) { fmt.Fprintln(e.out, e.n) }, nil
	case 'n':
		return func(e *editor) { e.finish(); e.deleted = !e.advance() }, nil
	case 'a', 'i', 'c':
		return p.textAction(name), nil
	case 's':
		return p.substitute()
	case 'y':
		return p.transliterate()
	}
	return nil, fmt.Errorf("command %q is not known here", name)
}

// textAction takes the rest of the line.
func (p *sedParser) textAction(name byte) func(*editor) {
	text, rest, _ := strings.Cut(p.rest, "\n")
	p.rest = rest
	text = strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(text, " "), "\\"), " ")
	switch name {
	case 'a':
		return func(e *editor) { e.after = append(e.after, text) }
	case 'i':
		return func(e *editor) { fmt.Fprintln(e.out, text) }
	}
	return func(e *editor) { fmt.Fprintln(e.out, text); e.deleted = true }
}

func (p *sedParser) pair() (a, b string, err error) {
	if p.rest == "" {
		return "", "", fmt.Errorf("a separator is missing")
	}
	sep := p.rest[0]
	p.rest = p.rest[1:]
	if a, err = p.until(sep); err != nil {
		return "", "", err
	}
	b, err = p.until(sep)
	return a, b, err
}

func (p *sedParser) transliterate() (func(*editor), error) {
	a, b, err := p.pair()
	if err == nil && len([]rune(a)) != len([]rune(b)) {
		err = fmt.Errorf("y needs two sets of equal length")
	}
	t := translation{from: []rune(a), to: []rune(b)}
	return func(e *editor) {
		e.line = strings.Map(func(r rune) rune { r, _ = t.one(r); return r }, e.line)
	}, err
}

func (p *sedParser) substitute() (func(*editor), error) {
	pattern, with, err := p.pair()
	if err != nil {
		return nil, err
	}
	nth, global, print, fold := 1, false, false, false
	for ; p.rest != "" && !strings.ContainsRune(";}\n ", rune(p.rest[0])); p.rest = p.rest[1:] {
		switch f := p.rest[0]; {
		case f == 'g':
			global = true
		case f == 'p':
			print = true
		case f == 'i' || f == 'I':
			fold = true
		case f >= '1' && f <= '9':
			nth = int(f - '0')
		default:
			return nil, fmt.Errorf("flag %q of s is not known", f)
		}
	}
	re, err := compile(pattern, p.extended, fold)
	return func(e *editor) {
		line, changed := replace(re, e.line, with, nth, global)
		if e.line = line; changed && print {
			fmt.Fprintln(e.out, e.line)
		}
	}, err
}

// replace puts with in the place of the nth match, and with global of all after it.
func replace(re *regexp.Regexp, line, with string, nth int, global bool) (string, bool) {
	var b strings.Builder
	at, changed := 0, false
	for i, m := range re.FindAllStringSubmatchIndex(line, -1) {
		if i+1 < nth || i+1 > nth && !global {
			continue
		}
		b.WriteString(line[at:m[0]])
		expand(&b, with, line, m)
		at, changed = m[1], true
	}
	return b.String() + line[at:], changed
}

// expand writes with, where & is the match and \1 to \9 its groups.
func expand(b *strings.Builder, with, line string, m []int) {
	group := func(n int) {
		if 2*n+1 < len(m) && m[2*n] >= 0 {
			b.WriteString(line[m[2*n]:m[2*n+1]])
		}
	}
	for i := 0; i < len(with); i++ {
		switch c := with[i]; {
		case c == '&':
			group(0)
		case c != '\\' || i+1 == len(with):
			b.WriteByte(c)
		default:
			i++
			switch n := with[i]; {
			case n >= '0' && n <= '9':
				group(int(n - '0'))
			case n == 'n':
				b.WriteByte('\n')
			case n == 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(n)
			}
		}
	}
}
