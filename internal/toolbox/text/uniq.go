package text

import (
	"context"
	"fmt"
	"io"

	"isle/internal/toolbox/applet"
)

// Uniq drops lines that repeat the one before.
func Uniq(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "uniq [-cdu] [FILE]")
	count := fs.BoolP("count", "c", false, "with how many there were")
	repeated := fs.BoolP("repeated", "d", false, "only those that repeat")
	single := fs.BoolP("unique", "u", false, "only those that do not")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	last, n := "", 0
	flush := func() {
		switch {
		case n == 0, *repeated && n == 1, *single && n > 1:
		case *count:
			fmt.Fprintf(s.Out, "%7d %s\n", n, last)
		default:
			fmt.Fprintln(s.Out, last)
		}
	}
	err := applet.Each(s, fs.Args(), func(_ string, r io.Reader) error {
		return eachLine(r, func(line string) bool {
			if line != last || n == 0 {
				flush()
				last, n = line, 0
			}
			n++
			return true
		})
	})
	flush()
	return err
}
