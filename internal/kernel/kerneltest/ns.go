package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
)

const privateEnv = "ISLE_TEST_PRIVATE"

// Main runs a package's tests in a mount and a network namespace of their own:
// whatever they leave behind ends with them, and nothing of the machine can be
// touched by mistake. Call it from TestMain.
func Main(m *testing.M) {
	if os.Getenv(privateEnv) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), privateEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	runtime.LockOSThread() // the death signal is tied to the thread that forks
	err := c.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in private namespaces:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// NS is a network namespace of a test.
type NS struct {
	File *os.File
	t    testing.TB
}

// NewNS makes a fresh network namespace with lo up; it ends with the test.
// Without root the test is skipped.
func NewNS(t testing.TB) NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(&probe.NotSupportedError{Feature: "making a network namespace without root"})
	}
	d := netns.Dir{Path: t.TempDir()}
	if _, err := d.New("ns"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(d.File("ns"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if err := d.Delete("ns"); err != nil {
			t.Error(err)
		}
	})
	return NS{f, t}
}

// Do runs fn in the namespace, on a thread of its own. fn must not call
// t.FailNow, which would end the wrong goroutine.
func (n NS) Do(fn func() error) {
	n.t.Helper()
	if err := netns.Do(n.File, fn); err != nil {
		n.t.Fatal(err)
	}
}

// Run executes a program, an independent witness, in the namespace and returns
// what it printed.
func (n NS) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Run that may fail.
func (n NS) Try(name string, args ...string) (string, error) {
	var out []byte
	err := netns.Do(n.File, func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// IP runs several "ip" commands, one a line.
func (n NS) IP(lines string) {
	n.t.Helper()
	for l := range strings.Lines(lines) {
		if f := strings.Fields(l); len(f) > 0 {
			n.Run("ip", f...)
		}
	}
}

// Close lets go of the namespace, which may end then. It may be called twice.
func (n NS) Close() { n.File.Close() }

// Wrap makes an NS of a namespace that somebody else made.
func Wrap(t testing.TB, f *os.File) NS { return NS{f, t} }
