package cgroup

import (
	"strings"

	"github.com/moby/moby/api/types/container"
)

// unlimited is about what v1 says where there is no limit (2^63 rounded down
// to a page).
const unlimited = 1 << 62

func (r *reader) v1(h Host, g Group, s *Stats) {
	r.cpuV1(g.Dir("cpu"), g.Dir("cpuacct"), 1e9/h.ClockTick, &s.CPU)
	r.memoryV1(g.Dir("memory"), &s.Memory)
	pids := g.Dir("pids")
	s.Pids = container.PidsStats{Current: r.num(pids, "pids.current"), Limit: r.num(pids, "pids.max")}
	r.blkioV1(g.Dir("blkio"), &s.Blkio)
}

func (r *reader) cpuV1(cpu, acct string, tick uint64, s *container.CPUStats) {
	s.CPUUsage.TotalUsage = r.num(acct, "cpuacct.usage")
	for _, v := range strings.Fields(r.text(acct, "cpuacct.usage_percpu")) {
		s.CPUUsage.PercpuUsage = append(s.CPUUsage.PercpuUsage, r.parse("cpuacct.usage_percpu", v))
	}
	modes := r.keyed(acct, "cpuacct.stat")
	s.CPUUsage.UsageInUsermode = modes["user"] * tick
	s.CPUUsage.UsageInKernelmode = modes["system"] * tick
	st := r.keyed(cpu, "cpu.stat")
	s.ThrottlingData = container.ThrottlingData{
		Periods: st["nr_periods"], ThrottledPeriods: st["nr_throttled"], ThrottledTime: st["throttled_time"],
	}
}

func (r *reader) memoryV1(dir string, s *container.MemoryStats) {
	s.Usage = r.num(dir, "memory.usage_in_bytes")
	s.MaxUsage = r.num(dir, "memory.max_usage_in_bytes")
	s.Failcnt = r.num(dir, "memory.failcnt")
	s.Stats = r.keyed(dir, "memory.stat")
	if s.Limit = r.num(dir, "memory.limit_in_bytes"); s.Limit >= unlimited {
		s.Limit = 0
	}
}

// blkioV1 prefers the throttle layer's counters, which see every request; with
// the bfq scheduler on an old kernel only bfq's are kept.
func (r *reader) blkioV1(dir string, s *container.BlkioStats) {
	first := func(names ...string) []container.BlkioStatEntry {
		for _, n := range names {
			if e := r.entries(dir, n); len(e) > 0 {
				return e
			}
		}
		return nil
	}
	s.IoServiceBytesRecursive = first("blkio.throttle.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")
	s.IoServicedRecursive = first("blkio.throttle.io_serviced_recursive", "blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced")
	s.IoQueuedRecursive = first("blkio.bfq.io_queued_recursive")
	s.IoServiceTimeRecursive = first("blkio.bfq.io_service_time_recursive")
	s.IoWaitTimeRecursive = first("blkio.bfq.io_wait_time_recursive")
	s.IoMergedRecursive = first("blkio.bfq.io_merged_recursive")
	s.IoTimeRecursive = first("blkio.bfq.time_recursive")
	s.SectorsRecursive = first("blkio.bfq.sectors_recursive")
}

// entries reads lines "8:0 Read 123", "8:0 123" and leaves out the line "Total 123".
func (r *reader) entries(dir, name string) []container.BlkioStatEntry {
	var out []container.BlkioStatEntry
	for line := range strings.Lines(r.text(dir, name)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := strings.Cut(f[0], ":")
		if !ok {
			continue
		}
		e := container.BlkioStatEntry{Major: r.parse(name, major), Minor: r.parse(name, minor), Value: r.parse(name, f[len(f)-1])}
		if len(f) == 3 {
			e.Op = f[1]
		}
		out = append(out, e)
	}
	return out
}
