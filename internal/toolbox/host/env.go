package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// Statuses of a program that could not be started.
const (
	cannotExecute applet.Exit = 126
	notFound      applet.Exit = 127
)

// Env prints the environment, or runs a program with another one.
func Env(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "env [-i0] [-u NAME] [NAME=VALUE]… [COMMAND [ARG…]]")
	fs.SetInterspersed(false)
	empty := fs.BoolP("ignore-environment", "i", false, "begin with an empty one")
	null := fs.BoolP("null", "0", false, "end lines with NUL")
	unset := fs.StringArrayP("unset", "u", nil, "without this one")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if *empty {
		os.Clearenv()
	}
	for _, name := range *unset {
		os.Unsetenv(name)
	}
	rest := fs.Args()
	for len(rest) > 0 && strings.Contains(rest[0], "=") {
		k, v, _ := strings.Cut(rest[0], "=")
		if err := os.Setenv(k, v); err != nil {
			return err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		status, reason := replaceProcess(rest)
		fmt.Fprintln(s.Err, "env:", reason)
		return status
	}
	end := "\n"
	if *null {
		end = "\x00"
	}
	for _, e := range os.Environ() {
		fmt.Fprint(s.Out, e, end)
	}
	return nil
}

// replaceProcess returns only when it fails.
func replaceProcess(args []string) (status applet.Exit, reason error) {
	environ := os.Environ()
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", "/usr/local/bin:/usr/bin:/bin") // only to look it up
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return notFound, fmt.Errorf("%s: not found", args[0])
	}
	return cannotExecute, fmt.Errorf("%s: %w", path, unix.Exec(path, args, environ))
}

// Xargs runs a program with words that it reads.
func Xargs(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "xargs [-0rt] [-n MAX] [-I TEXT] [COMMAND [ARG…]]")
	fs.SetInterspersed(false)
	null := fs.BoolP("null", "0", false, "words end with NUL")
	quiet := fs.BoolP("no-run-if-empty", "r", false, "nothing to do without words")
	trace := fs.BoolP("verbose", "t", false, "say what is run")
	most := fs.IntP("max-args", "n", 1000, "words per run")
	replace := fs.StringP("replace", "I", "", "one run per line, which goes where this text is")
	fs.IntP("max-procs", "P", 1, "runs one at a time whatever this says")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	command := fs.Args()
	if len(command) == 0 {
		command = []string{"echo"}
	}
	words, err := readWords(s.In, *null, *replace != "")
	if err != nil {
		return err
	}
	if *replace != "" {
		*most, *quiet = 1, true
	}
	x := xargs{s: s, trace: *trace}
	for first := true; len(words) > 0 || first && !*quiet; first = false {
		n := min(*most, len(words))
		x.run(fill(command, words[:n], *replace))
		words = words[n:]
	}
	if x.failed != 0 {
		return x.failed
	}
	return nil
}

func readWords(r io.Reader, null, lines bool) ([]string, error) {
	all, err := io.ReadAll(r)
	text := string(all)
	switch {
	case null:
		return strings.FieldsFunc(text, func(r rune) bool { return r == 0 }), err
	case lines:
		return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), err
	}
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Split(bufio.ScanWords)
	sc.Buffer(nil, len(all)+1)
	var words []string
	for sc.Scan() {
		words = append(words, strings.Trim(sc.Text(), `"'`))
	}
	return words, errors.Join(err, sc.Err())
}

func fill(command, words []string, replace string) []string {
	if replace == "" {
		return append(append([]string{}, command...), words...)
	}
	var out []string
	for _, w := range command {
		out = append(out, strings.ReplaceAll(w, replace, words[0]))
	}
	return out
}

type xargs struct {
	s      applet.IO
	trace  bool
	failed applet.Exit
}

func (x *xargs) run(words []string) {
	if x.trace {
		fmt.Fprintln(x.s.Err, strings.Join(words, " "))
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = x.s.Out, x.s.Err
	err := cmd.Run()
	switch _, ran := errors.AsType[*exec.ExitError](err); {
	case err == nil:
	case ran:
		x.failed = 123
	default:
		fmt.Fprintln(x.s.Err, "xargs:", err)
		x.failed = notFound
	}
}
