package text_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/text"
)

func TestFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		f      applet.Func
		args   string // split at |
		in     string
		want   string
		status int
	}{
		{"cut fields", text.Cut, "-d|:|-f|1,3-", "a:b:c:d\nplain\n", "a:c:d\nplain\n", 0},
		{"cut only delimited", text.Cut, "-s|-d:|-f2", "a:b\nplain\n", "b\n", 0},
		{"cut characters", text.Cut, "-c2-3", "abcd\n", "bc\n", 0},
		{"cut bad list", text.Cut, "-f|0", "a\n", "", 1},
		{"grep", text.Grep, "b", "abc\nxyz\n", "abc\n", 0},
		{"grep nothing", text.Grep, "q", "abc\n", "", 1},
		{"grep bad pattern", text.Grep, "-E|(", "abc\n", "", 2},
		{"grep basic braces", text.Grep, `a\{2\}`, "aab\nab\na{2}\n", "aab\n", 0},
		{"grep plain plus", text.Grep, `a+`, "a+\naa\n", "a+\n", 0},
		{"grep -vn", text.Grep, "-vn|b", "a\nb\nc\n", "1:a\n3:c\n", 0},
		{"grep -o", text.Grep, "-oE|[0-9]+", "a1b22\n", "1\n22\n", 0},
		{"grep -F", text.Grep, "-F|a.b", "axb\na.b\n", "a.b\n", 0},
		{"grep -w -c", text.Grep, "-w|-c|ab", "ab\nabc\n", "1\n", 0},
		{"head", text.Head, "-n|2", "1\n2\n3\n", "1\n2\n", 0},
		{"head old form", text.Head, "-1", "1\n2\n", "1\n", 0},
		{"head bytes", text.Head, "-c|3", "12345", "123", 0},
		{"tail", text.Tail, "-n2", "1\n2\n3\n", "2\n3\n", 0},
		{"tail from", text.Tail, "-n|+2", "1\n2\n3\n", "2\n3\n", 0},
		{"tail bytes", text.Tail, "-c2", "12345", "45", 0},
		{"sort", text.Sort, "", "b\na\n", "a\nb\n", 0},
		{"sort numbers", text.Sort, "-n", "10\n9\n-1\n", "-1\n9\n10\n", 0},
		{"sort human", text.Sort, "-h", "1M\n2K\n3\n", "3\n2K\n1M\n", 0},
		{"sort versions", text.Sort, "-V", "a10\na9\n", "a9\na10\n", 0},
		{"sort key", text.Sort, "-t|:|-k|2n", "a:10\nb:9\n", "b:9\na:10\n", 0},
		{"sort unique reverse", text.Sort, "-ur", "a\nb\na\n", "b\na\n", 0},
		{"tr", text.Tr, "a-c|A-C", "abcd", "ABCd", 0},
		{"tr class", text.Tr, "[:lower:]|[:upper:]", "xY", "XY", 0},
		{"tr delete", text.Tr, "-d|0-9", "a1b2", "ab", 0},
		{"tr complement", text.Tr, "-cd|0-9", "a1b2", "12", 0},
		{"tr squeeze", text.Tr, "-s| ", "a   b", "a b", 0},
		{"uniq -c", text.Uniq, "-c", "a\na\nb\n", "      2 a\n      1 b\n", 0},
		{"uniq -d", text.Uniq, "-d", "a\na\nb\n", "a\n", 0},
		{"wc", text.Wc, "", "a b\nc\n", "2 3 6\n", 0},
		{"wc -l", text.Wc, "-l", "a\nb", "1\n", 0},
		{"seq", text.Seq, "3", "", "1\n2\n3\n", 0},
		{"seq down", text.Seq, "2|-1|0", "", "2\n1\n0\n", 0},
		{"seq fraction", text.Seq, "1|0.5|2", "", "1.0\n1.5\n2.0\n", 0},
		{"seq without step", text.Seq, "1|0|2", "", "", 1},
		{"sed s", text.Sed, "s/b/X/", "abb\n", "aXb\n", 0},
		{"sed s all", text.Sed, "s/b/X/g", "abb\n", "aXX\n", 0},
		{"sed s second", text.Sed, "s/b/X/2", "bbb\n", "bXb\n", 0},
		{"sed groups", text.Sed, `s/\(a\)\(b\)/\2\1&/`, "ab\n", "baab\n", 0},
		{"sed extended", text.Sed, `-E|s/(aa?b)+/<&>/`, "xaab\n", "x<aab>\n", 0},
		{"sed other separator", text.Sed, "s,/,-,g", "a/b\n", "a-b\n", 0},
		{"sed range", text.Sed, "-n|2,3p", "1\n2\n3\n4\n", "2\n3\n", 0},
		{"sed pattern range", text.Sed, "/b/,/c/d", "a\nb\nx\nc\nd\n", "a\nd\n", 0},
		{"sed last", text.Sed, "$d", "1\n2\n", "1\n", 0},
		{"sed not", text.Sed, "-n|/a/!p", "a\nb\n", "b\n", 0},
		{"sed quit", text.Sed, "2q", "1\n2\n3\n", "1\n2\n", 0},
		{"sed insert, append", text.Sed, "-e|1i before|-e|1a after", "x\n", "before\nx\nafter\n", 0},
		{"sed block", text.Sed, "-n|/a/{s/a/b/;p}", "a\nc\n", "b\n", 0},
		{"sed y", text.Sed, "y/abc/xyz/", "cab\n", "zxy\n", 0},
		{"sed mistake", text.Sed, "s/a", "a\n", "", 1},
		{"sed open range", text.Sed, "1,p", "a\n", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			var args []string
			if c.args != "" {
				args = strings.Split(c.args, "|")
			}
			err := c.f(context.Background(), applet.IO{In: strings.NewReader(c.in), Out: &out, Err: &errs}, args)
			if got := applet.Status(err); got != c.status {
				t.Errorf("status %d, want %d (%v, %s)", got, c.status, err, errs.String())
			}
			if out.String() != c.want {
				t.Errorf("printed %q, want %q", out.String(), c.want)
			}
		})
	}
}
