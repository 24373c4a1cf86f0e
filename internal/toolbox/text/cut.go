package text

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"isle/internal/toolbox/applet"
)

// span is a range of positions, from 1. to 0 means to the end.
type span struct{ from, to int }

// Cut prints parts of each line.
func Cut(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "cut (-f LIST [-d CHAR] [-s] | -c LIST | -b LIST) [FILE…]")
	fields := fs.StringP("fields", "f", "", "fields: 1,3-5,7-")
	chars := fs.StringP("characters", "c", "", "characters")
	bytes := fs.StringP("bytes", "b", "", "bytes")
	delim := fs.StringP("delimiter", "d", "\t", "what separates fields")
	only := fs.BoolP("only-delimited", "s", false, "leave out lines without the delimiter")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	list, err := spans(*fields + *chars + *bytes)
	if err != nil {
		return err
	}
	cut := func(line string) (string, bool) { return pick(strings.Split(line, ""), list, ""), true }
	if *fields != "" {
		cut = func(line string) (string, bool) {
			if !strings.Contains(line, *delim) {
				return line, !*only
			}
			return pick(strings.Split(line, *delim), list, *delim), true
		}
	}
	return applet.Each(s, fs.Args(), func(_ string, r io.Reader) error {
		return eachLine(r, func(line string) bool {
			if out, ok := cut(line); ok {
				fmt.Fprintln(s.Out, out)
			}
			return true
		})
	})
}

func spans(list string) ([]span, error) {
	var out []span
	for _, part := range strings.Split(list, ",") {
		a, b, isRange := strings.Cut(part, "-")
		from, err1 := number(a, 1)
		to, err2 := number(b, 0)
		if !isRange {
			to = from
		}
		if err1 != nil || err2 != nil || part == "" || from < 1 {
			return nil, fmt.Errorf("list %q is not like 1,3-5,7-", list)
		}
		out = append(out, span{from, to})
	}
	return out, nil
}

func number(text string, empty int) (int, error) {
	if text == "" {
		return empty, nil
	}
	return strconv.Atoi(text)
}

func pick(parts []string, list []span, sep string) string {
	var out []string
	for i, p := range parts {
		for _, s := range list {
			if i+1 >= s.from && (s.to == 0 || i+1 <= s.to) {
				out = append(out, p)
				break
			}
		}
	}
	return strings.Join(out, sep)
}
