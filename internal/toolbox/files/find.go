package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"isle/internal/toolbox/applet"
)

type finder struct {
	tests    []func(path string, e fs.DirEntry) (bool, error)
	maxDepth int
	minDepth int
	acts     bool
	s        applet.IO
}

// Find walks trees: -name -iname -path -type -size -maxdepth -mindepth -newer -empty ! -print -print0 -delete -exec … ;
func Find(_ context.Context, s applet.IO, args []string) error {
	f := finder{maxDepth: 1 << 30, s: s}
	n := 0
	for n < len(args) && !strings.HasPrefix(args[n], "-") && args[n] != "!" {
		n++
	}
	roots := args[:n]
	if n == 0 {
		roots = []string{"."}
	}
	if err := f.parse(args[n:]); err != nil {
		return err
	}
	if !f.acts {
		f.tests = append(f.tests, f.print("\n"))
	}
	var errs []error
	for _, root := range roots {
		errs = append(errs, f.walk(root))
	}
	return errors.Join(errs...)
}

func (f *finder) walk(root string) error {
	var errs []error
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		depth := strings.Count(strings.Trim(strings.TrimPrefix(path, root), "/"), "/")
		if path != root {
			depth++
		}
		if depth >= f.minDepth {
			errs = append(errs, f.visit(path, e))
		}
		if e.IsDir() && depth >= f.maxDepth {
			return fs.SkipDir
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

func (f *finder) visit(path string, e fs.DirEntry) error {
	for _, test := range f.tests {
		if ok, err := test(path, e); err != nil || !ok {
			return err
		}
	}
	return nil
}

func (f *finder) print(end string) func(string, fs.DirEntry) (bool, error) {
	return func(path string, _ fs.DirEntry) (bool, error) {
		_, err := fmt.Fprint(f.s.Out, path, end)
		return true, err
	}
}

func (f *finder) parse(args []string) error {
	negate := false
	for len(args) > 0 {
		if args[0] == "!" || args[0] == "-not" {
			negate, args = true, args[1:]
			continue
		}
		if args[0] == "-a" || args[0] == "-and" {
			args = args[1:]
			continue
		}
		test, used, err := f.predicate(args)
		if err != nil {
			return err
		}
		if test != nil && negate {
			inner := test
			test = func(p string, e fs.DirEntry) (bool, error) { ok, err := inner(p, e); return !ok, err }
		}
		if test != nil {
			f.tests = append(f.tests, test)
		}
		negate, args = false, args[used:]
	}
	return nil
}

// predicate reads one with its arguments, and says how many words it took.
func (f *finder) predicate(args []string) (func(string, fs.DirEntry) (bool, error), int, error) {
	switch args[0] {
	case "-print":
		f.acts = true
		return f.print("\n"), 1, nil
	case "-print0":
		f.acts = true
		return f.print("\x00"), 1, nil
	case "-delete":
		f.acts = true
		return func(p string, _ fs.DirEntry) (bool, error) { return true, os.RemoveAll(p) }, 1, nil
	case "-empty":
		return isEmpty, 1, nil
	case "-exec":
		return f.exec(args)
	}
	if len(args) < 2 {
		return nil, 0, fmt.Errorf("%s is not known or needs a value", args[0])
	}
	test, err := f.valued(args[0], args[1])
	return test, 2, err
}

func (f *finder) valued(name, value string) (func(string, fs.DirEntry) (bool, error), error) {
	var err error
	switch name {
	case "-name":
		return func(p string, _ fs.DirEntry) (bool, error) { return filepath.Match(value, filepath.Base(p)) }, nil
	case "-iname":
		value = strings.ToLower(value)
		return func(p string, _ fs.DirEntry) (bool, error) {
			return filepath.Match(value, strings.ToLower(filepath.Base(p)))
		}, nil
	case "-path":
		return func(p string, _ fs.DirEntry) (bool, error) { return filepath.Match(value, p) }, nil
	case "-type":
		kinds := map[string]fs.FileMode{"f": 0, "d": fs.ModeDir, "l": fs.ModeSymlink, "p": fs.ModeNamedPipe, "s": fs.ModeSocket,
			"c": fs.ModeDevice | fs.ModeCharDevice, "b": fs.ModeDevice}
		kind, ok := kinds[value]
		if !ok {
			return nil, fmt.Errorf("-type %s is not known", value)
		}
		return func(_ string, e fs.DirEntry) (bool, error) { return e.Type() == kind, nil }, nil
	case "-maxdepth":
		f.maxDepth, err = strconv.Atoi(value)
		return nil, err
	case "-mindepth":
		f.minDepth, err = strconv.Atoi(value)
		return nil, err
	case "-size":
		return bySize(value)
	case "-newer":
		return newer(value)
	}
	return nil, fmt.Errorf("%s is not known here", name)
}

func isEmpty(path string, e fs.DirEntry) (bool, error) {
	if e.IsDir() {
		list, err := os.ReadDir(path)
		return len(list) == 0, err
	}
	fi, err := e.Info()
	return err == nil && e.Type().IsRegular() && fi.Size() == 0, err
}

// bySize reads +N, -N, N with c, k or M; without a letter in blocks of 512.
func bySize(value string) (func(string, fs.DirEntry) (bool, error), error) {
	number := strings.TrimLeft(value, "+-")
	unit := int64(512)
	if number != "" {
		if u, ok := map[byte]int64{'c': 1, 'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[number[len(number)-1]]; ok {
			unit, number = u, number[:len(number)-1]
		}
	}
	want, err := strconv.ParseInt(number, 10, 64)
	return func(_ string, e fs.DirEntry) (bool, error) {
		fi, err := e.Info()
		if err != nil {
			return false, err
		}
		n := (fi.Size() + unit - 1) / unit
		return value[0] == '+' && n > want || value[0] == '-' && n < want || n == want && value[0] != '+' && value[0] != '-', nil
	}, err
}

func newer(than string) (func(string, fs.DirEntry) (bool, error), error) {
	ref, err := os.Stat(than)
	return func(_ string, e fs.DirEntry) (bool, error) {
		fi, err := e.Info()
		return err == nil && fi.ModTime().After(ref.ModTime()), err
	}, err
}

// exec runs a command for every file; "+" is taken like ";".
func (f *finder) exec(args []string) (func(string, fs.DirEntry) (bool, error), int, error) {
	end := 1
	for end < len(args) && args[end] != ";" && args[end] != "+" {
		end++
	}
	if end == len(args) || end == 1 {
		return nil, 0, errors.New("-exec needs a command and ; at its end")
	}
	f.acts = true
	return func(path string, _ fs.DirEntry) (bool, error) {
		words := make([]string, end-1)
		for i, w := range args[1:end] {
			words[i] = strings.ReplaceAll(w, "{}", path)
		}
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = f.s.In, f.s.Out, f.s.Err
		err := cmd.Run()
		if _, ran := errors.AsType[*exec.ExitError](err); ran {
			return false, nil
		}
		return err == nil, err
	}, end + 1, nil
}
