// Package applet is what every command of isle-toolbox has in common: its
// signature, its exit status and its options. It knows none of them.
package applet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// IO is where a command reads and writes.
type IO struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Std is the process's own.
func Std() IO { return IO{os.Stdin, os.Stdout, os.Stderr} }

// Func is one command. args are those after its name.
type Func func(ctx context.Context, s IO, args []string) error

// Exit is an error that only carries an exit status: nothing is printed for it.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Usage is the status of a command that was called wrongly.
const Usage Exit = 2

// Status is the exit status that err means.
func Status(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[Exit](err); ok {
		return int(e)
	}
	return 1
}

// Flags is an empty set of options for the command that is used like usage:
// "head [-n LINES] [FILE…]".
func Flags(s IO, usage string) *pflag.FlagSet {
	name, _, _ := strings.Cut(usage, " ")
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetOutput(s.Err)
	fs.SortFlags = false
	fs.Usage = func() {
		fmt.Fprintf(s.Err, "usage: %s\n%s", usage, fs.FlagUsages())
	}
	return fs
}

// Parse parses args. Help and mistakes are printed here.
func Parse(fs *pflag.FlagSet, s IO, args []string) error {
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return Exit(0)
	}
	if err != nil {
		fmt.Fprintf(s.Err, "%s: %v\n", fs.Name(), err)
		fs.Usage()
		return Usage
	}
	return nil
}

// Need reports a call with fewer than n operands.
func Need(fs *pflag.FlagSet, n int) error {
	if fs.NArg() >= n {
		return nil
	}
	fs.Usage()
	return Usage
}

// Legacy turns the old form "-5" into "-n 5".
func Legacy(args []string, flag string) []string {
	var out []string
	for _, a := range args {
		if len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "0123456789") == "" {
			out = append(out, flag, a[1:])
			continue
		}
		out = append(out, a)
	}
	return out
}

// Each calls f with every named file, or with standard input for none or "-".
// It goes on after an error and reports all of them.
func Each(s IO, names []string, f func(name string, r io.Reader) error) error {
	if len(names) == 0 {
		names = []string{"-"}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, one(s, name, f))
	}
	return errors.Join(errs...)
}

func one(s IO, name string, f func(string, io.Reader) error) error {
	if name == "-" {
		return f(name, s.In)
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(name, file)
}
