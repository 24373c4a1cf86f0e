package shim

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// cgroupPids are the processes in a cgroup directory and below it.
func cgroupPids(dir string) (pids []int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for f := range bytes.FieldsSeq(b) {
			if pid, err := strconv.Atoi(string(f)); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	return pids, err
}

// ignoreGone: a cgroup may be removed while it is looked at.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// signalAll signals every process in a cgroup, again and again for SIGKILL
// until none is left that could have forked meanwhile.
func signalAll(dir string, sig unix.Signal) error {
	if sig == unix.SIGKILL && os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return nil
	}
	for range 10 {
		pids, err := cgroupPids(dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			signalMember(dir, pid, sig)
		}
		if sig != unix.SIGKILL || len(pids) == 0 {
			return nil
		}
	}
	return nil
}

// signalMember signals a process that is in the cgroup after it was opened: a
// number that was given to another process meanwhile is not signalled.
func signalMember(dir string, pid int, sig unix.Signal) {
	f, err := openPidfd(pid)
	if err != nil {
		return
	}
	defer f.Close()
	pids, _ := cgroupPids(dir)
	for _, p := range pids {
		if p == pid {
			signalPidfd(f, sig)
			return
		}
	}
}

// oomKills counts the processes that the kernel has killed for want of memory
// in a cgroup: v1's memory.oom_control or v2's memory.events.
func oomKills(dir string) int {
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		return counter(b, "oom_kill")
	}
	return 0
}
