package shim

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// codeUnknown is reported for a process whose end nobody could see.
const codeUnknown = 255

// openPidfd opens a process for signals and for waiting.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// signalPidfd signals the very process, whatever has its number now.
func signalPidfd(f *os.File, sig unix.Signal) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return sent
}

// waitPidfd waits for the end of a process that is not our child. The kernel
// tells its code to holders of a pidfd since 6.15; before, it is codeUnknown.
func waitPidfd(f *os.File) int {
	raw, err := f.SyscallConn()
	if err != nil {
		return codeUnknown
	}
	raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		return n > 0
	})
	code, more := codeUnknown, true
	for end := time.Now().Add(reapLimit); more && time.Now().Before(end); {
		if raw.Control(func(fd uintptr) { code, more = exitInfo(int(fd)) }) != nil {
			break
		}
		if more {
			time.Sleep(2 * time.Millisecond)
		}
	}
	return code
}

// reapLimit is how long process 1 may take to reap what it was left.
const reapLimit = 3 * time.Second

// exitInfo asks the kernel for the code. It is told once the process was
// reaped: until then there may be more.
func exitInfo(fd int) (code int, more bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(fd, &info) != nil {
		return codeUnknown, false
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return codeUnknown, true
	}
	return exitCode(unix.WaitStatus(info.Exit_code)), false
}

// startTime distinguishes a process from a later one with the same pid. 0: gone.
func startTime(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return n
}
