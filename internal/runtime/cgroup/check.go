package cgroup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

const (
	minMemory  = 6 << 20 // a process needs about as much to start
	minPeriod  = 1000    // µs; the kernel's own bounds
	maxPeriod  = 1000000
	minQuota   = 1000
	minShares  = 2
	maxShares  = 262144
	minWeight  = 10
	maxWeight  = 1000
	nanoPerCPU = 1e9
)

// Check reports whether the limits make sense and this machine can give them.
// Errors are of class InvalidArgument, in Docker's words where it has any;
// what the kernel lacks is named by the flag.
func Check(r container.Resources, h Host) error {
	for _, check := range []func(container.Resources, Host) error{
		checkMemory, checkCPU, checkCPUSet, checkRealtime, checkPids, checkBlkio, checkDeviceRules,
	} {
		if err := check(r, h); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// need is an error unless a group has one of the files.
func (h Host) need(flag string, wanted bool, files ...string) error {
	if !wanted || h.HasFile(files...) {
		return nil
	}
	return fmt.Errorf("%s: this machine's kernel cannot give this limit: its control groups (%s) have no %s", flag, h.Mode, strings.Join(files, " or "))
}

func (h Host) needAll(needs []error) error {
	for _, err := range needs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkMemory(r container.Resources, h Host) error {
	swap := r.MemorySwap != 0
	swappiness := r.MemorySwappiness != nil && *r.MemorySwappiness != -1
	switch {
	case r.Memory < 0 || r.Memory != 0 && r.Memory < minMemory:
		return errors.New("Minimum memory limit allowed is 6MB")
	case r.MemorySwap < -1:
		return fmt.Errorf("invalid value %d for memory swap: it is a number of bytes, or -1 for unlimited", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errors.New("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return errors.New("You should always set the Memory limit when using Memoryswap limit, see usage")
	case swappiness && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return fmt.Errorf("Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation < 0 || r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return errors.New("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return errors.New("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	return h.needAll([]error{
		h.need("--memory", r.Memory > 0, "memory.limit_in_bytes", "memory.max"),
		h.need("--memory-swap", swap && r.Memory > 0 && r.MemorySwap != r.Memory*2, "memory.memsw.limit_in_bytes", "memory.swap.max"),
		h.need("--memory-reservation", r.MemoryReservation > 0, "memory.soft_limit_in_bytes", "memory.low"),
		h.need("--memory-swappiness", swappiness, "memory.swappiness"),
		h.need("--oom-kill-disable", r.OomKillDisable != nil && *r.OomKillDisable, "memory.oom_control"),
	})
}

func checkCPU(r container.Resources, h Host) error {
	switch {
	case r.NanoCPUs != 0 && r.CPUPeriod != 0:
		return errors.New("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs != 0 && r.CPUQuota != 0:
		return errors.New("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs != 0 && r.NanoCPUs < nanoPerCPU/100 || r.NanoCPUs > int64(h.NCPU)*nanoPerCPU:
		return fmt.Errorf("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", h.NCPU)
	case r.CPUShares < 0:
		return fmt.Errorf("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUShares > 0 && r.CPUShares < minShares:
		return fmt.Errorf("the minimum allowed cpu-shares is %d", minShares)
	case r.CPUShares > maxShares:
		return fmt.Errorf("the maximum allowed cpu-shares is %d", maxShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < minPeriod || r.CPUPeriod > maxPeriod):
		return errors.New("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < minQuota:
		return errors.New("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return h.needAll([]error{
		h.need("--cpus", r.NanoCPUs != 0, "cpu.cfs_quota_us", "cpu.max"),
		h.need("--cpu-period", r.CPUPeriod != 0, "cpu.cfs_period_us", "cpu.max"),
		h.need("--cpu-quota", r.CPUQuota > 0, "cpu.cfs_quota_us", "cpu.max"),
		h.need("--cpu-shares", r.CPUShares != 0, "cpu.shares", "cpu.weight"),
	})
}

func checkCPUSet(r container.Resources, h Host) error {
	for _, s := range []struct{ flag, want, have, what string }{
		{"--cpuset-cpus", r.CpusetCpus, h.CPUs, "CPUs"},
		{"--cpuset-mems", r.CpusetMems, h.Mems, "memory nodes"},
	} {
		name := strings.TrimPrefix(s.flag, "--cpuset-")
		want, err := parseSet(s.want)
		if err != nil {
			return fmt.Errorf("Invalid value %s for cpuset %s", s.want, name)
		}
		if err := h.need(s.flag, s.want != "", "cpuset."+name); err != nil {
			return err
		}
		have, err := parseSet(s.have)
		if err != nil {
			return fmt.Errorf("read what cpuset.%s may hold: %w", name, err)
		}
		if !subset(want, have) {
			return fmt.Errorf("Requested %s are not available - requested %s, available: %s", s.what, s.want, s.have)
		}
	}
	return nil
}

func checkRealtime(r container.Resources, h Host) error {
	switch {
	case r.CPURealtimePeriod < 0 || r.CPURealtimeRuntime < 0:
		return errors.New("cpu real-time period and runtime cannot be negative")
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return errors.New("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	return h.needAll([]error{
		h.need("--cpu-rt-period", r.CPURealtimePeriod != 0, "cpu.rt_period_us"),
		h.need("--cpu-rt-runtime", r.CPURealtimeRuntime != 0, "cpu.rt_runtime_us"),
	})
}

func checkPids(r container.Resources, h Host) error {
	return h.need("--pids-limit", r.PidsLimit != nil && *r.PidsLimit > 0, "pids.max")
}

func checkBlkio(r container.Resources, h Host) error {
	if r.BlkioWeight > 0 && (r.BlkioWeight < minWeight || r.BlkioWeight > maxWeight) {
		return errors.New("Range of blkio weight is from 10 to 1000")
	}
	for _, d := range r.BlkioWeightDevice {
		if d == nil || d.Path == "" || d.Weight > 0 && (d.Weight < minWeight || d.Weight > maxWeight) {
			return errors.New("Range of blkio weight is from 10 to 1000")
		}
	}
	// Where v1 has blkio.bfq.weight instead of blkio.weight, crun fails.
	needs := []error{
		h.need("--blkio-weight", r.BlkioWeight > 0, "blkio.weight", "io.bfq.weight", "io.weight"),
		h.need("--blkio-weight-device", len(r.BlkioWeightDevice) > 0, "blkio.weight_device", "io.bfq.weight", "io.weight"),
	}
	for _, t := range []struct {
		flag, file string
		devices    []*blkiodev.ThrottleDevice
	}{
		{"--device-read-bps", "blkio.throttle.read_bps_device", r.BlkioDeviceReadBps},
		{"--device-write-bps", "blkio.throttle.write_bps_device", r.BlkioDeviceWriteBps},
		{"--device-read-iops", "blkio.throttle.read_iops_device", r.BlkioDeviceReadIOps},
		{"--device-write-iops", "blkio.throttle.write_iops_device", r.BlkioDeviceWriteIOps},
	} {
		needs = append(needs, h.need(t.flag, len(t.devices) > 0, t.file, "io.max"), checkThrottle(t.flag, t.devices))
	}
	return h.needAll(needs)
}

func checkThrottle(flag string, devices []*blkiodev.ThrottleDevice) error {
	for _, d := range devices {
		if d == nil || d.Path == "" {
			return fmt.Errorf("%s: a device has no path", flag)
		}
	}
	return nil
}

// checkDeviceRules checks that the kernel has a say about devices at all; on
// v2 that is eBPF, which every kernel with v2 has.
func checkDeviceRules(r container.Resources, h Host) error {
	if len(r.DeviceCgroupRules) == 0 || h.Mode == V2 || h.Has("devices") {
		return nil
	}
	return errors.New("--device-cgroup-rule: this machine's kernel cannot give this limit: it has no devices controller")
}
