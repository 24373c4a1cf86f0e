package shim

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper is the only one in the process that starts children and waits for
// them. The runtime's children become ours when it exits (we are a subreaper),
// and one of them may end before anybody knows its pid: while an operation is
// under way the statuses of strangers are therefore kept, to be claimed.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan<- int
	strange map[int]int // pid → code, kept while ops > 0
	ops     int
}

func newReaper() *reaper {
	return &reaper{waiting: map[int]chan<- int{}, strange: map[int]int{}}
}

// run reaps until stop is closed.
func (r *reaper) run(stop <-chan struct{}) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, unix.SIGCHLD)
	defer signal.Stop(sig)
	for {
		r.reap()
		select {
		case <-sig:
		case <-stop:
			return
		}
	}
}

func (r *reaper) reap() {
	for {
		// Under the lock: a child cannot be reaped before start has noted it.
		r.mu.Lock()
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			r.mu.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			r.mu.Unlock()
			return
		}
		r.endedLocked(pid, exitCode(ws))
		r.mu.Unlock()
	}
}

func (r *reaper) endedLocked(pid, code int) {
	if ch, ok := r.waiting[pid]; ok {
		delete(r.waiting, pid)
		ch <- code
	} else if r.ops > 0 {
		r.strange[pid] = code
	}
}

func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// start starts a program; its code is sent when it ends. The child inherits
// the calling thread's namespaces.
func (r *reaper) start(argv []string, attr *syscall.ProcAttr) (pid int, ended <-chan int, err error) {
	// CVE-2024-21626: whatever descriptor is open here, by mistake or by
	// inheritance, ends at the exec.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, nil, fmt.Errorf("close descriptors on exec: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err = syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	ch := make(chan int, 1)
	r.waiting[pid] = ch
	return pid, ch, nil
}

// begin keeps strangers' statuses until the returned function is called.
func (r *reaper) begin() (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ops--; r.ops == 0 {
			clear(r.strange)
		}
	}
}

// claim makes a child that the runtime left us known.
func (r *reaper) claim(pid int) <-chan int {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan int, 1)
	if code, ok := r.strange[pid]; ok {
		delete(r.strange, pid)
		ch <- code
		return ch
	}
	r.waiting[pid] = ch
	return ch
}
