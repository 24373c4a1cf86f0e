package script

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// pty FILE PROGRAM ARG… runs a program on a terminal of 40 rows and 120
// columns and follows FILE: lines "> text" are typed (with ^X for control
// characters and no newline added unless the line ends in $), "< regexp" are
// waited for, "size ROWS COLS" resizes, "exit N" expects the exit status.
func cmdPty(ts *testscript.TestScript, neg bool, args []string) {
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+ts.Getenv("DOCKER_HOST"), "HOME="+ts.Getenv("HOME"), "TERM=xterm", "DOCKER_CLI_HINTS=false")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 120})
	ts.Check(err)
	defer tty.Close()
	defer cmd.Process.Kill()
	screen := &screen{}
	go io.Copy(screen, tty)
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case ">":
			_, err := tty.WriteString(typed(rest))
			ts.Check(err)
		case "<":
			if !screen.await(rest) {
				ts.Fatalf("pty: %q did not appear on:\n%s\n%s", rest, screen.text(), daemon(ts).Tail())
			}
		case "size":
			rows, cols, _ := strings.Cut(rest, " ")
			r, _ := strconv.Atoi(rows)
			c, _ := strconv.Atoi(cols)
			ts.Check(pty.Setsize(tty, &pty.Winsize{Rows: uint16(r), Cols: uint16(c)}))
			cmd.Process.Signal(syscall.SIGWINCH)
		case "exit":
			awaitExit(ts, cmd, rest, screen)
		default:
			ts.Fatalf("pty: what is %q", line)
		}
	}
}

func awaitExit(ts *testscript.TestScript, cmd *exec.Cmd, want string, s *screen) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if strconv.Itoa(code) != want {
			ts.Fatalf("pty: exit status %d, want %s; screen:\n%s", code, want, s.text())
		}
	case <-time.After(20 * time.Second):
		ts.Fatalf("pty: the program does not end; screen:\n%s", s.text())
	}
}

func typed(s string) string {
	line, enter := strings.CutSuffix(s, "$")
	out := regexp.MustCompile(`\^[A-Z]`).ReplaceAllStringFunc(line, func(c string) string { return string(rune(c[1] - '@')) })
	if enter {
		out += "\r"
	}
	return out
}

// screen is what the terminal has shown; await consumes up to a match.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
	off int
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) await(expr string) bool {
	re := regexp.MustCompile(expr)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		m := re.FindIndex(s.buf.Bytes()[s.off:])
		if m != nil {
			s.off += m[1]
		}
		s.mu.Unlock()
		if m != nil {
			return true
		}
	}
	return false
}
