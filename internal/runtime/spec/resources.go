package spec

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/runtime/cgroup"
)

// cpuPeriod is what --cpus is a share of, in µs.
const cpuPeriod = 100_000

// Resources are the limits for the OCI runtime, without device rules: for
// Build, and for "update", which changes them in a running container. They
// are written as for v1; runtimes translate for v2.
func Resources(r api.Resources, h cgroup.Host, found Devices) (*specs.LinuxResources, error) {
	if err := cgroup.Check(r, h); err != nil {
		return nil, err
	}
	blkio, err := blockIO(r, found)
	if err != nil {
		return nil, err
	}
	return &specs.LinuxResources{Memory: memory(r, h), CPU: cpu(r), Pids: pids(r, h), BlockIO: blkio}, nil
}

func memory(r api.Resources, h cgroup.Host) *specs.LinuxMemory {
	var m specs.LinuxMemory
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	switch canSwap := h.HasFile("memory.memsw.limit_in_bytes", "memory.swap.max"); {
	case r.MemorySwap != 0 && (canSwap || r.MemorySwap != 2*r.Memory):
		m.Swap = &r.MemorySwap
	case r.Memory > 0 && r.MemorySwap == 0 && canSwap:
		twice := 2 * r.Memory // Docker's default: as much swap as memory
		m.Swap = &twice
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness = &v
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpu(r api.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	c.Shares, c.Period = positive(r.CPUShares), positive(r.CPUPeriod)
	c.RealtimePeriod = positive(r.CPURealtimePeriod)
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if r.NanoCPUs > 0 {
		quota, period := r.NanoCPUs*cpuPeriod/1e9, uint64(cpuPeriod)
		c.Quota, c.Period = &quota, &period
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func positive(v int64) *uint64 {
	if v <= 0 {
		return nil
	}
	u := uint64(v)
	return &u
}

// pids turns Docker's 0 and -1 into the runtime's -1, which also takes back an
// earlier limit.
func pids(r api.Resources, h cgroup.Host) *specs.LinuxPids {
	if r.PidsLimit == nil || !h.HasFile("pids.max") {
		return nil
	}
	limit := *r.PidsLimit
	if limit <= 0 {
		limit = -1
	}
	return &specs.LinuxPids{Limit: &limit}
}

func blockIO(r api.Resources, found Devices) (*specs.LinuxBlockIO, error) {
	var b specs.LinuxBlockIO
	if r.BlkioWeight > 0 {
		b.Weight = &r.BlkioWeight
	}
	any := r.BlkioWeight > 0
	for _, w := range r.BlkioWeightDevice {
		id, err := found.block(w.Path)
		if err != nil {
			return nil, err
		}
		weight := w.Weight
		b.WeightDevice = append(b.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: id, Weight: &weight})
		any = true
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			id, err := found.block(d.Path)
			if err != nil {
				return nil, err
			}
			*t.to = append(*t.to, specs.LinuxThrottleDevice{LinuxBlockIODevice: id, Rate: d.Rate})
			any = true
		}
	}
	if !any {
		return nil, nil
	}
	return &b, nil
}

func (d Devices) block(path string) (specs.LinuxBlockIODevice, error) {
	id, ok := d.Block[path]
	if !ok {
		return id, fmt.Errorf("block device %s was not looked up: %w", path, errdefs.ErrInternal)
	}
	return id, nil
}
