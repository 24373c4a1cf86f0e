package shim

import (
	"os/exec"
	"testing"
)

// The end of a process that somebody else has reaped is seen by pidfd, and its
// code where the kernel tells it.
func TestWaitPidfd(t *testing.T) {
	for _, test := range []struct {
		script string
		want   int
	}{{"exit 7", 7}, {"kill -9 $$", 137}, {"exit 0", 0}} {
		cmd := exec.Command("/bin/sh", "-c", "read x; "+test.script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f, err := openPidfd(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := make(chan int)
		go func() { got <- waitPidfd(f) }()
		in.Close()
		cmd.Wait()
		if code := <-got; code != test.want && code != codeUnknown {
			t.Errorf("%s: code %d", test.script, code)
		} else {
			t.Logf("%s: code %d", test.script, code)
		}
	}
}
