package files

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mktemp"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/touch"

	"isle/internal/toolbox/applet"
)

func uroot(ctx context.Context, s applet.IO, c core.Command, args []string) error {
	c.SetIO(s.In, s.Out, s.Err)
	return c.RunContext(ctx, args...)
}

// Cat prints files.
func Cat(ctx context.Context, s applet.IO, args []string) error {
	return uroot(ctx, s, cat.New(), args)
}

// Cp copies files. -a and -p are taken for -RP: owners and times are not kept.
func Cp(ctx context.Context, s applet.IO, args []string) error {
	var out []string
	for _, a := range args {
		switch a {
		case "-a", "--archive":
			out = append(out, "-R", "-P")
		case "-p":
		default:
			out = append(out, a)
		}
	}
	return uroot(ctx, s, cp.New(), out)
}

// Mkdir makes directories. The library's prints what it could not make and
// returns no error.
func Mkdir(ctx context.Context, s applet.IO, args []string) error {
	told := &complaints{w: s.Err}
	s.Err = told
	if err := uroot(ctx, s, mkdir.New(), args); err != nil || !told.any {
		return err
	}
	return applet.Exit(1)
}

// complaints notes whether anything was said.
type complaints struct {
	w   io.Writer
	any bool
}

func (c *complaints) Write(p []byte) (int, error) {
	c.any = true
	return c.w.Write(p)
}

// Mktemp makes a file or directory of a new name, below /tmp, which it makes
// too: the image has none.
func Mktemp(ctx context.Context, s applet.IO, args []string) error {
	if err := os.MkdirAll(os.TempDir(), os.ModeSticky|0o777); err != nil {
		return fmt.Errorf("make %s: %w", os.TempDir(), err)
	}
	return uroot(ctx, s, mktemp.New(), args)
}

// Rm removes files.
func Rm(ctx context.Context, s applet.IO, args []string) error {
	return uroot(ctx, s, rm.New(), args)
}

// Touch sets times and makes empty files.
func Touch(ctx context.Context, s applet.IO, args []string) error {
	return uroot(ctx, s, touch.New(), args)
}
