package files

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"isle/internal/toolbox/applet"
)

// Gzip compresses files in place, or standard input to standard output.
func Gzip(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "gzip [-cdk123456789] [FILE…]")
	decompress := fs.BoolP("decompress", "d", false, "take apart")
	stdout := fs.BoolP("stdout", "c", false, "to standard output")
	keep := fs.BoolP("keep", "k", false, "keep the file")
	fs.BoolP("force", "f", false, "always so")
	level := gzip.DefaultCompression
	args, level = compressionLevel(args, level)
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	through := func(w io.Writer, r io.Reader) error { return pack(w, r, level) }
	if *decompress {
		through = unpack
	}
	return applet.Each(s, fs.Args(), func(name string, r io.Reader) error {
		if name == "-" || *stdout {
			return through(s.Out, r)
		}
		to := name + ".gz"
		if *decompress {
			if to = strings.TrimSuffix(name, ".gz"); to == name {
				return fmt.Errorf("%s: the name does not end in .gz", name)
			}
		}
		return gzipFile(name, to, *keep, func(w io.Writer) error { return through(w, r) })
	})
}

// compressionLevel takes -1 to -9 out of args.
func compressionLevel(args []string, level int) ([]string, int) {
	var rest []string
	for _, a := range args {
		if len(a) == 2 && a[0] == '-' && a[1] >= '1' && a[1] <= '9' {
			level = int(a[1] - '0')
			continue
		}
		rest = append(rest, a)
	}
	return rest, level
}

func pack(w io.Writer, r io.Reader, level int) error {
	z, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, r)
	return errors.Join(err, z.Close())
}

func unpack(w io.Writer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}

// gzipFile writes to and removes from, if all went well.
func gzipFile(from, to string, keep bool, write func(io.Writer) error) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	if keep {
		return nil
	}
	return os.Remove(from)
}
