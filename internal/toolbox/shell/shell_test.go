package shell_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"isle/internal/toolbox"
)

// The test program is the toolbox when it is called by another name.
func TestMain(m *testing.M) {
	if os.Getenv("TOOLBOX") != "" {
		os.Exit(toolbox.Main(os.Args))
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: args, Env: []string{"TOOLBOX=1", "PATH=/nowhere"}, Dir: t.TempDir()}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script, want string
		status             int
	}{
		{"pipe of commands that are in no PATH", "cat /etc/passwd | wc -l | grep -c '^[0-9]'", "1\n", 0},
		{"exit status", "exit 7", "", 7},
		{"status of the last command", "sh -c 'exit 3'; echo $?", "3\n", 0},
		{"not found", "no-such-command", "sh: no-such-command: not found\n", 127},
		{"not executable", "echo x > f; ./f", "permission denied", 126},
		{"loops and arithmetic", "n=0; while [ $n -lt 3 ]; do n=$((n+1)); done; echo $n", "3\n", 0},
		{"functions and positional parameters", "f() { echo \"$2-$#\"; }; f a b", "b-2\n", 0},
		{"set -e", "set -e; false; echo not reached", "", 1},
		{"redirections", "echo a > x; echo b >> x; sort -r < x", "b\na\n", 0},
		{"here document", "cat <<X\nline $((1+1))\nX", "line 2\n", 0},
		{"limits are inherited", "ulimit -n 64; sh -c 'ulimit -n'", "64\n", 0},
		{"mask", "umask 077; echo > f; stat -c %a f", "600\n", 0},
		{"killed by a signal", "sh -c 'kill -9 $$'; echo $?", "137\n", 0},
		{"syntax error", "if", "sh: ", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			cmd := command(t, "sh", "-c", c.script)
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run() // the status is looked at below
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d; printed %q", got, c.status, out.String())
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("printed %q, want %q", out.String(), c.want)
			}
		})
	}
}

func TestScriptFileAndArguments(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("echo $0 $1 $2 $#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sh", file, "a", "b"}, file + " a b 2\n"},
		{[]string{"sh", "-c", "echo $0 $1 $2 $#", "zero", "a", "b"}, "zero a b 2\n"},
		{[]string{"sh", "-ec", "echo $-"}, "e"},
	} {
		out, err := command(t, c.args...).Output()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: printed %q, %v; want %q", c.args[1:], out, err, c.want)
		}
	}
}

// session is a shell at a terminal.
type session struct {
	t   *testing.T
	tty *os.File
	got chan string
	buf string
}

func newSession(t *testing.T) (*session, *exec.Cmd) {
	cmd := command(t, "sh")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, tty: tty, got: make(chan string, 100)}
	t.Cleanup(func() { tty.Close() })
	go func() {
		defer close(s.got)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			s.got <- string(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return s, cmd
}

// expect waits until the terminal shows text, and forgets all up to it.
func (s *session) expect(text string) {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if _, after, ok := strings.Cut(s.buf, text); ok {
			s.buf = after
			return
		}
		select {
		case more, open := <-s.got:
			if !open {
				s.t.Fatalf("the shell ended; waiting for %q, have %q", text, s.buf)
			}
			s.buf += more
		case <-deadline:
			s.t.Fatalf("waiting for %q, have %q", text, s.buf)
		}
	}
}

func (s *session) send(text string) {
	s.t.Helper()
	if _, err := s.tty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// run types text, and waits for want and the next prompt.
func (s *session) run(text, want string) {
	s.t.Helper()
	s.send(text)
	s.expect(want)
	s.expect("# ")
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	s, cmd := newSession(t)
	s.expect("# ")
	s.run("echo one-$((1+1))\r", "one-2")
	s.send("if true\rthen\r")
	s.expect("> ")
	s.run("echo in-\"side\"; fi\r", "in-side")
	s.run("drop this line\x03", "^C")
	s.run("echo after-$((2+3))\r", "after-5")
	s.run("\x1b[A\x7f\x7f*2))\r", "after-8") // history: the line before, edited
	s.run("stty size\r", "24 100")
	s.send("sleep 60; echo not-\"reached\"\r")
	s.expect("reached")
	time.Sleep(300 * time.Millisecond) // until sleep has the terminal; too short only makes the test easier
	s.run("\x03", "^C")
	s.send("while true; do :; done\r")
	s.expect("done")
	time.Sleep(300 * time.Millisecond)
	s.run("\x03", "^C")
	s.run("echo )\r", "sh: ") // a mistake does not end the shell
	s.run("echo status-$((7*6))\r", "status-42")
	s.run("sh\r", "sh\r\n") // a shell in the shell
	s.run("echo inner\r", "inner\r\n")
	s.run("exit 4\r", "\r\n")
	s.run("echo was $?\r", "was 4")
	s.send("\x04")
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("Ctrl-D did not end the shell")
	}
}
