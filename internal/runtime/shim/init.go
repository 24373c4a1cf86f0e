package shim

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitName is what the program is called where it is a container's init.
const InitName = "docker-init"

// initMain is process 1 of containers that asked for an init: it starts the
// command, passes signals on, reaps what is orphaned, and ends as the command
// does.
func initMain(args []string, stderr io.Writer) int {
	for _, word := range []string{"init", "--"} {
		if len(args) > 0 && args[0] == word {
			args = args[1:]
		}
	}
	if len(args) == 0 {
		fmt.Fprintln(stderr, "docker-init: no command")
		return 2
	}
	sig := make(chan os.Signal, 64)
	signal.Notify(sig)
	pid, code := startCommand(args, stderr)
	if pid == 0 {
		return code
	}
	for {
		if code, ended := reapUntil(pid); ended {
			return code
		}
		pass(<-sig, pid)
	}
}

// startCommand starts the command in its own process group, in the
// foreground of the terminal when there is one.
func startCommand(args []string, stderr io.Writer) (pid, code int) {
	path, err := exec.LookPath(args[0])
	if err == nil {
		_, ttyErr := unix.IoctlGetTermios(0, unix.TCGETS)
		attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2},
			Sys: &syscall.SysProcAttr{Setpgid: ttyErr != nil, Foreground: ttyErr == nil, Ctty: 0}}
		if pid, err = syscall.ForkExec(path, args, attr); err == nil {
			return pid, 0
		}
	}
	fmt.Fprintf(stderr, "docker-init: %v\n", err)
	if os.IsPermission(err) {
		return 0, 126
	}
	return 0, 127
}

// reapUntil reaps what has ended. It reports the command's code if that has.
func reapUntil(command int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == command {
			code, ended = exitCode(ws), true
		}
	}
}

// pass gives a signal to the command. SIGCHLD is ours, and SIGURG is how the
// Go runtime interrupts its own threads.
func pass(s os.Signal, pid int) {
	if s, ok := s.(syscall.Signal); ok && s != unix.SIGCHLD && s != unix.SIGURG {
		unix.Kill(pid, s)
	}
}
