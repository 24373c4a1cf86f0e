package text

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	"isle/internal/toolbox/applet"
)

// Seq prints numbers.
func Seq(_ context.Context, s applet.IO, args []string) error {
	sep := "\n"
	if len(args) > 1 && args[0] == "-s" { // a number may be negative: no option parser
		sep, args = args[1], args[2:]
	}
	n := [3]float64{1, 1, 1} // first, step, last
	place := map[int][]int{1: {2}, 2: {0, 2}, 3: {0, 1, 2}}[len(args)]
	if place == nil {
		fmt.Fprintln(s.Err, "usage: seq [-s SEPARATOR] [FIRST [STEP]] LAST")
		return applet.Usage
	}
	digits := 0
	for i, a := range args {
		v, err := strconv.ParseFloat(a, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", a)
		}
		n[place[i]] = v
		if _, frac, ok := strings.Cut(a, "."); ok {
			digits = max(digits, len(frac))
		}
	}
	if n[1] == 0 {
		return fmt.Errorf("the step is zero")
	}
	return count3(s, n, sep, digits)
}

func count3(s applet.IO, n [3]float64, sep string, digits int) error {
	out := bufio.NewWriter(s.Out)
	for i := 0; ; i++ {
		v := n[0] + float64(i)*n[1]
		if n[1] > 0 && v > n[2] || n[1] < 0 && v < n[2] {
			if i > 0 {
				fmt.Fprintln(out)
			}
			return out.Flush()
		}
		if i > 0 {
			fmt.Fprint(out, sep)
		}
		fmt.Fprint(out, strconv.FormatFloat(v, 'f', digits, 64))
	}
}

// Yes prints a line until it is stopped.
func Yes(_ context.Context, s applet.IO, args []string) error {
	line := "y"
	if len(args) > 0 {
		line = strings.Join(args, " ")
	}
	block := []byte(strings.Repeat(line+"\n", 1+4096/(len(line)+1)))
	for {
		if _, err := s.Out.Write(block); err != nil {
			return err
		}
	}
}
