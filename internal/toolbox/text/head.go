package text

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"isle/internal/toolbox/applet"
)

// poll is how often tail -f looks for more.
const poll = 200 * time.Millisecond

// Head prints the beginning.
func Head(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "head [-n LINES | -c BYTES] [FILE…]")
	n := fs.StringP("lines", "n", "10", "lines")
	c := fs.StringP("bytes", "c", "", "bytes")
	if err := applet.Parse(fs, s, applet.Legacy(args, "-n")); err != nil {
		return err
	}
	if *c != "" {
		size, err := applet.Size(*c)
		if err != nil {
			return err
		}
		return applet.Each(s, fs.Args(), func(_ string, r io.Reader) error {
			_, err := io.Copy(s.Out, io.LimitReader(r, size))
			return err
		})
	}
	limit, err := strconv.Atoi(*n)
	if err != nil {
		return fmt.Errorf("lines %q is not a number", *n)
	}
	return applet.Each(s, fs.Args(), func(_ string, r io.Reader) error { return head(s, r, limit) })
}

func head(s applet.IO, r io.Reader, limit int) error {
	if limit == 0 {
		return nil
	}
	n := 0
	return eachLine(r, func(line string) bool {
		fmt.Fprintln(s.Out, line)
		n++
		return n < limit
	})
}

// Tail prints the end, and with -f what comes after.
func Tail(ctx context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "tail [-f] [-n [+]LINES | -c BYTES] [FILE…]")
	n := fs.StringP("lines", "n", "10", "lines; +N starts at line N")
	c := fs.StringP("bytes", "c", "", "bytes")
	follow := fs.BoolP("follow", "f", false, "go on as the file grows")
	fs.BoolVarP(follow, "Follow", "F", false, "same")
	if err := applet.Parse(fs, s, applet.Legacy(args, "-n")); err != nil {
		return err
	}
	end, err := ending(*n, *c)
	if err != nil {
		return err
	}
	return applet.Each(s, fs.Args(), func(name string, r io.Reader) error {
		if err := end(s, r); err != nil || !*follow || name == "-" {
			return err
		}
		return grow(ctx, s, r.(*os.File))
	})
}

// ending is what prints the end that the options ask for.
func ending(lines, bytes string) (func(applet.IO, io.Reader) error, error) {
	if bytes != "" {
		size, err := applet.Size(strings.TrimPrefix(bytes, "-"))
		return func(s applet.IO, r io.Reader) error { return tailBytes(s, r, size) }, err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(lines, "-"))
	if err != nil {
		return nil, fmt.Errorf("lines %q is not a number", lines)
	}
	if strings.HasPrefix(lines, "+") {
		return func(s applet.IO, r io.Reader) error { return tailFrom(s, r, n) }, nil
	}
	return func(s applet.IO, r io.Reader) error { return tailLines(s, r, n) }, nil
}

func tailBytes(s applet.IO, r io.Reader, size int64) error {
	all, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, err = s.Out.Write(all[max(0, int64(len(all))-size):])
	return err
}

func tailFrom(s applet.IO, r io.Reader, from int) error {
	n := 0
	return eachLine(r, func(line string) bool {
		if n++; n >= from {
			fmt.Fprintln(s.Out, line)
		}
		return true
	})
}

func tailLines(s applet.IO, r io.Reader, limit int) error {
	var last []string
	err := eachLine(r, func(line string) bool {
		last = append(last, line)
		if len(last) > 2*limit+1024 {
			last = slices.Clone(last[len(last)-limit:])
		}
		return true
	})
	for _, line := range last[max(0, len(last)-limit):] {
		fmt.Fprintln(s.Out, line)
	}
	return err
}

// grow copies what is added to f until ctx ends. A shortened file starts again.
func grow(ctx context.Context, s applet.IO, f *os.File) error {
	for {
		if _, err := io.Copy(s.Out, f); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(poll):
		}
		at, err1 := f.Seek(0, io.SeekCurrent)
		fi, err2 := f.Stat()
		if err1 == nil && err2 == nil && fi.Size() < at {
			_, _ = f.Seek(0, io.SeekStart) // a pipe cannot, and never shrinks
		}
	}
}
