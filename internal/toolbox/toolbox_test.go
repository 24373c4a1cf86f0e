package toolbox

import (
	"bufio"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isle/internal/toolbox/applets"
)

func TestListIsTable(t *testing.T) {
	list, table := slices.Sorted(slices.Values(applets.Names)), slices.Sorted(maps.Keys(commands()))
	if d := cmp.Diff(list, table); d != "" {
		t.Errorf("applets.Names and the dispatch table differ (-list +table):\n%s", d)
	}
}

// The test program is the toolbox when it is called by another name.
func TestMain(m *testing.M) {
	if os.Getenv("TOOLBOX") != "" {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// A container's first process gets no signal that it does not handle.
func TestFirstProcessStops(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		signal syscall.Signal
		status int
	}{
		{[]string{"serve", "tcp://127.0.0.1:0"}, syscall.SIGTERM, 0},
		{[]string{"tail", "-f", "/proc/self/status"}, syscall.SIGTERM, 143},
		{[]string{"tail", "-f", "/proc/self/status"}, syscall.SIGINT, 130},
		{[]string{"sh", "-c", "echo ready; sleep 60"}, syscall.SIGTERM, 143},
	} {
		cmd := &exec.Cmd{Path: self, Args: c.args, Env: []string{"TOOLBOX=1", "PATH="}, SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Skipf("no pid namespace to be had: %v", err)
		}
		w.Close()
		if _, err := bufio.NewReader(r).ReadString('\n'); err != nil { // it has begun
			t.Errorf("%q: %v", c.args, err)
		}
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		giveUp := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // the status says it
		giveUp.Stop()
		r.Close()
		if got := cmd.ProcessState.ExitCode(); got != c.status {
			t.Errorf("%s after %s: status %d, want %d", strings.Join(c.args, " "), c.signal, got, c.status)
		}
	}
}
