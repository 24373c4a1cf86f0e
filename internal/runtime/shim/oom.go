package shim

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// codeKilled is the code of a process that SIGKILL ended, which is what the
// kernel's want of memory sends.
const codeKilled = 128 + int(unix.SIGKILL)

// oomWatch remembers that a cgroup ran out of memory. It is for systemd's
// scopes, which systemd removes, counters and all, as soon as the last process
// has gone: perhaps before we have looked. Elsewhere we remove the group
// ourselves and the counters wait for us.
type oomWatch struct {
	inotify *os.File // nil: nothing to watch
	seen    atomic.Bool
}

// watchOOM begins to watch; a group without memory.events is never out of memory.
func watchOOM(dir string) *oomWatch {
	w := &oomWatch{}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	file := filepath.Join(dir, "memory.events")
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return w
	}
	w.inotify = os.NewFile(uintptr(fd), "inotify")
	go w.follow(file)
	return w
}

// follow ends when stop closes the inotify descriptor. The kernel tells the
// first event at once and holds back the next for 10 ms: that the limit was
// met ("oom") is seen in time, the kill that follows ("oom_kill") perhaps not.
func (w *oomWatch) follow(file string) {
	buf := make([]byte, 4096)
	for {
		if _, err := w.inotify.Read(buf); err != nil {
			return
		}
		if b, err := os.ReadFile(file); err == nil && (counter(b, "oom") > 0 || counter(b, "oom_kill") > 0) {
			w.seen.Store(true)
		}
	}
}

// stop ends the watch and reports whether a process that ended with code may
// have been killed for want of memory.
func (w *oomWatch) stop(code int) bool {
	if w == nil || w.inotify == nil {
		return false
	}
	w.inotify.Close()
	return w.seen.Load() && code == codeKilled
}

// counter reads "NAME N" from a file of counters.
func counter(b []byte, name string) int {
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			count, _ := strconv.Atoi(string(bytes.TrimSpace(n)))
			return count
		}
	}
	return 0
}
