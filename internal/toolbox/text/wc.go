package text

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"isle/internal/toolbox/applet"
)

type counts struct{ lines, words, bytes int64 }

// Wc counts lines, words and bytes.
func Wc(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "wc [-lwc] [FILE…]")
	l := fs.BoolP("lines", "l", false, "lines")
	w := fs.BoolP("words", "w", false, "words")
	c := fs.BoolP("bytes", "c", false, "bytes")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if !*l && !*w && !*c {
		*l, *w, *c = true, true, true
	}
	print := func(n counts, name string) {
		fmt.Fprintln(s.Out, n.format(*l, *w, *c, name))
	}
	var total counts
	err := applet.Each(s, fs.Args(), func(name string, r io.Reader) error {
		n, err := count(r)
		if name == "-" {
			name = ""
		}
		print(n, name)
		total = counts{total.lines + n.lines, total.words + n.words, total.bytes + n.bytes}
		return err
	})
	if fs.NArg() > 1 {
		print(total, "total")
	}
	return err
}

func (n counts) format(l, w, c bool, name string) string {
	var cols []string
	for _, col := range []struct {
		on bool
		n  int64
	}{{l, n.lines}, {w, n.words}, {c, n.bytes}} {
		if col.on {
			cols = append(cols, fmt.Sprint(col.n))
		}
	}
	if name != "" {
		cols = append(cols, name)
	}
	return strings.Join(cols, " ")
}

func count(r io.Reader) (counts, error) {
	var n counts
	buf, inWord := make([]byte, 64<<10), false
	for {
		k, err := r.Read(buf)
		n.bytes += int64(k)
		n.lines += int64(bytes.Count(buf[:k], []byte{'\n'}))
		for _, b := range buf[:k] {
			space := b == ' ' || b >= '\t' && b <= '\r'
			if !space && !inWord {
				n.words++
			}
			inWord = !space
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
