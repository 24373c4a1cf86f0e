package cgroup

import (
	"strings"

	"github.com/moby/moby/api/types/container"
)

func (r *reader) v2(dir string, s *Stats) {
	cpu := r.keyed(dir, "cpu.stat")
	s.CPU.CPUUsage = container.CPUUsage{
		TotalUsage:        cpu["usage_usec"] * 1000,
		UsageInKernelmode: cpu["system_usec"] * 1000,
		UsageInUsermode:   cpu["user_usec"] * 1000,
	}
	s.CPU.ThrottlingData = container.ThrottlingData{
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000,
	}
	s.Memory = container.MemoryStats{
		Usage:   r.num(dir, "memory.current"),
		Stats:   r.keyed(dir, "memory.stat"),
		Failcnt: r.keyed(dir, "memory.events")["oom"],
		Limit:   r.num(dir, "memory.max"),
	}
	s.Pids = container.PidsStats{Current: r.num(dir, "pids.current"), Limit: r.num(dir, "pids.max")}
	r.ioV2(dir, &s.Blkio)
}

// ioV2 reads lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func (r *reader) ioV2(dir string, s *container.BlkioStats) {
	for line := range strings.Lines(r.text(dir, "io.stat")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := strings.Cut(f[0], ":")
		if !ok {
			continue
		}
		e := container.BlkioStatEntry{Major: r.parse("io.stat", major), Minor: r.parse("io.stat", minor)}
		for _, kv := range f[1:] {
			r.ioEntry(e, kv, s)
		}
	}
}

func (r *reader) ioEntry(e container.BlkioStatEntry, kv string, s *container.BlkioStats) {
	k, v, _ := strings.Cut(kv, "=")
	to, ok := map[string]struct {
		list *[]container.BlkioStatEntry
		op   string
	}{
		"rbytes": {&s.IoServiceBytesRecursive, "read"}, "wbytes": {&s.IoServiceBytesRecursive, "write"},
		"rios": {&s.IoServicedRecursive, "read"}, "wios": {&s.IoServicedRecursive, "write"},
	}[k]
	if !ok {
		return
	}
	e.Op, e.Value = to.op, r.parse("io.stat", v)
	*to.list = append(*to.list, e)
}
