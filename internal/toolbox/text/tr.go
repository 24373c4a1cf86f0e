package text

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"isle/internal/toolbox/applet"
)

var classes = map[string]string{
	"upper": "A-Z", "lower": "a-z", "digit": "0-9", "alpha": "A-Za-z", "alnum": "A-Za-z0-9", "space": " \t\n\v\f\r", "blank": " \t",
	"punct": "!-/:-@[-`{-~", "xdigit": "0-9A-Fa-f",
}

type translation struct {
	from, to                    []rune
	complement, remove, squeeze bool
}

// Tr translates, deletes or squeezes characters.
func Tr(_ context.Context, s applet.IO, args []string) error {
	var t translation
	fs := applet.Flags(s, "tr [-cds] SET1 [SET2]")
	fs.BoolVarP(&t.complement, "complement", "c", false, "all that is not in SET1")
	fs.BoolVarP(&t.remove, "delete", "d", false, "delete")
	fs.BoolVarP(&t.squeeze, "squeeze-repeats", "s", false, "one of repeated ones")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	t.from = set(fs.Arg(0))
	t.to = set(fs.Arg(1))
	if len(t.to) == 0 && !t.remove && !t.squeeze {
		return errors.New("a second set is needed unless -d or -s is given")
	}
	return t.run(s)
}

func (t translation) run(s applet.IO) error {
	in, out := bufio.NewReader(s.In), bufio.NewWriter(s.Out)
	last := rune(-1)
	for {
		r, _, err := in.ReadRune()
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		r, hit := t.one(r)
		if hit && t.remove || t.squeeze && r == last && t.squeezes(r, hit) {
			continue
		}
		last = r
		fmt.Fprint(out, string(r))
	}
}

func (t translation) squeezes(r rune, hit bool) bool {
	if len(t.to) > 0 {
		return slices.Contains(t.to, r)
	}
	return hit
}

func (t translation) one(r rune) (rune, bool) {
	i := slices.Index(t.from, r)
	if t.complement {
		if i >= 0 {
			return r, false
		}
		i = len(t.to) - 1
	} else if i < 0 {
		return r, false
	}
	if len(t.to) == 0 || t.remove {
		return r, true
	}
	return t.to[min(i, len(t.to)-1)], true
}

// set expands ranges, classes and escapes.
func set(text string) []rune {
	for name, members := range classes {
		text = strings.ReplaceAll(text, "[:"+name+":]", members)
	}
	in := []rune(unescape(text))
	var out []rune
	for i := 0; i < len(in); i++ {
		if i+2 < len(in) && in[i+1] == '-' && in[i] <= in[i+2] {
			for r := in[i]; r <= in[i+2]; r++ {
				out = append(out, r)
			}
			i += 2
			continue
		}
		out = append(out, in[i])
	}
	return out
}

func unescape(text string) string {
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\0`, "\x00", `\\`, `\`).Replace(text)
}
