package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Fields of /proc/stat's first line that are no work: idle, iowait, steal, and
// guest and guest_nice, which are counted in user and nice as well.
var idleFields = map[int]bool{4: true, 5: true, 8: true, 9: true, 10: true}

// busyCPU is the time that all CPUs have worked since boot. A tick is 10 ms
// wherever Linux shows ticks to programs.
func busyCPU() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Scan()
	var ticks int64
	for i, field := range strings.Fields(in.Text()) {
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && !idleFields[i] {
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// ownCPU is the time that this process has worked. What it sends is carried as far as
// the other's socket in that time, on the CPU where both are.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
