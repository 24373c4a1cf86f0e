package text

import (
	"context"
	"errors"
	"io"
	"os"

	"isle/internal/toolbox/applet"
)

// Tee copies its input to files and to its output.
func Tee(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "tee [-a] [FILE…]")
	add := fs.BoolP("append", "a", false, "add to the files")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	mode := os.O_TRUNC
	if *add {
		mode = os.O_APPEND
	}
	outs, errs := []io.Writer{s.Out}, []error(nil)
	for _, name := range fs.Args() {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|mode, 0o666)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer f.Close()
		outs = append(outs, f)
	}
	_, err := io.Copy(io.MultiWriter(outs...), s.In)
	return errors.Join(append(errs, err)...)
}
