package engine

import (
	"context"
	"errors"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/network/publish"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
)

// ContainerUpdate changes limits and published ports, of a running container at
// once, and the restart policy. What is not given stays.
func (e *Engine) ContainerUpdate(ctx context.Context, ref string, opts container.UpdateOptions) (apitypes.UpdateResponse, error) {
	c, err := e.find(ref)
	if err != nil {
		return apitypes.UpdateResponse{}, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	ctx = context.WithoutCancel(ctx) // half a change, or one that is not taken back, is of no use to anybody
	rec := c.snapshot()
	host, err := e.updated(rec, opts.UpdateConfig)
	if err != nil {
		return apitypes.UpdateResponse{}, err
	}
	if err := checkBindings(rec, opts.PortBindings); err != nil {
		return apitypes.UpdateResponse{}, err
	}
	if err := e.updateLimits(ctx, rec, host); err != nil {
		return apitypes.UpdateResponse{}, err
	}
	warnings, err := e.record(ctx, c, host, opts.PortBindings)
	if err != nil {
		return apitypes.UpdateResponse{}, errors.Join(err, e.updateLimits(ctx, rec, rec.Host))
	}
	e.emit(c.snapshot(), events.ActionUpdate)
	return apitypes.UpdateResponse{Warnings: warnings}, nil
}

func checkBindings(rec container.Record, want networktypes.PortMap) error {
	if want == nil {
		return nil
	}
	if _, err := publish.Parse(want, nil, publish.Defaults{}); err != nil {
		return err
	}
	if len(want) == 0 {
		return nil
	}
	return mayPublish(rec)
}

// record makes host the container's configuration, and want all that its
// PortBindings say; nil leaves the ports alone. Ports of the annotation stay:
// Docker's clients cannot know of them.
func (e *Engine) record(ctx context.Context, c *entry, host *apitypes.HostConfig, want networktypes.PortMap) (warnings []string, err error) {
	if want == nil {
		return []string{}, e.update(ctx, c, func(now *container.Record) error { now.Host = keepPorts(host, now.Host); return nil })
	}
	if err := c.settled(ctx); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // once begun, it is done or taken back
	rec := c.snapshot()
	rec.Host = onlyPorts(keepPorts(host, rec.Host), want)
	if !e.isOpen(rec) {
		err := asked(rec).Check(rec.Name) // else it could never start again
		if err == nil {
			err = e.putPorts(ctx, c, host, want)
		}
		return []string{}, err
	}
	ports, err := e.Networks.SetPorts(ctx, rec.ID, portRequest(rec))
	if err != nil {
		return nil, err
	}
	return append([]string{}, ports.Warnings...), e.putPorts(ctx, c, host, want)
}

// keepPorts is host with the ports of now.
func keepPorts(host, now *apitypes.HostConfig) *apitypes.HostConfig {
	h := *host
	h.PortBindings, h.PublishAllPorts, h.Annotations = now.PortBindings, now.PublishAllPorts, now.Annotations
	return &h
}

func onlyPorts(host *apitypes.HostConfig, want networktypes.PortMap) *apitypes.HostConfig {
	h := *host
	h.PortBindings, h.PublishAllPorts = want, false
	return &h
}

// putPorts records ports that were set, less those that another container has
// taken over since; when it cannot, the old ones are set again.
func (e *Engine) putPorts(ctx context.Context, c *entry, host *apitypes.HostConfig, want networktypes.PortMap) error {
	before := c.snapshot()
	err := e.update(ctx, c, func(rec *container.Record) error {
		rec.Host = onlyPorts(keepPorts(host, rec.Host), want)
		if !e.isOpen(*rec) {
			return nil
		}
		return e.adoptPorts(rec, nil)
	})
	if err == nil || !e.isOpen(before) {
		return err
	}
	_, serr := e.Networks.SetPorts(ctx, before.ID, portRequest(before))
	return errors.Join(err, serr)
}

// updateLimits changes the limits of a running container.
func (e *Engine) updateLimits(ctx context.Context, rec container.Record, host *apitypes.HostConfig) error {
	if !rec.State.Alive() {
		return nil
	}
	found, err := spec.FindDevices(host)
	if err != nil {
		return err
	}
	res, err := spec.Resources(host.Resources, e.Host.Cgroup, found)
	if err != nil {
		return trimmed(err)
	}
	if res.Pids != nil && *res.Pids.Limit < 0 {
		if err := e.liftPids(rec); err != nil {
			return about(rec, "update", err)
		}
		res.Pids = nil
	}
	if err := e.Runtime.Update(ctx, rec.ID, res); err != nil {
		return about(rec, "update", err)
	}
	return nil
}

func (e *Engine) liftPids(rec container.Record) error {
	g, err := e.groupOf(rec)
	if err != nil {
		return err
	}
	return g.LiftPids()
}

// updated is the container's configuration with the changes.
func (e *Engine) updated(rec container.Record, cfg apitypes.UpdateConfig) (*apitypes.HostConfig, error) {
	host := *rec.Host
	if cfg.RestartPolicy.Name != "" {
		if err := apitypes.ValidateRestartPolicy(cfg.RestartPolicy); err != nil {
			return nil, invalid("%s", err)
		}
		if host.AutoRemove && !cfg.RestartPolicy.IsNone() {
			return nil, conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		host.RestartPolicy = cfg.RestartPolicy
	}
	if rec.State.Status == apitypes.StateRemoving || rec.State.Status == apitypes.StateDead {
		return nil, conflict("container is marked for removal and cannot be \"update\"")
	}
	if err := mergeLimits(&host.Resources, cfg.Resources); err != nil {
		return nil, err
	}
	return &host, trimClass(cgroup.Check(host.Resources, e.Host.Cgroup))
}

// mergeLimits lays what is given over what there is, in Docker's terms.
func mergeLimits(r *apitypes.Resources, given apitypes.Resources) error {
	if given.NanoCPUs != 0 && (r.CPUPeriod != 0 || r.CPUQuota != 0) {
		return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period/CPU Quota has already been set")
	}
	if (given.CPUPeriod != 0 || given.CPUQuota != 0) && r.NanoCPUs != 0 {
		return conflict("Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set")
	}
	if given.Memory != 0 {
		if r.MemorySwap > 0 && given.Memory > r.MemorySwap && given.MemorySwap == 0 {
			return conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
		}
		r.Memory = given.Memory
	}
	r.BlkioWeight = orZero(given.BlkioWeight, r.BlkioWeight)
	r.CPUShares = orZero(given.CPUShares, r.CPUShares)
	r.NanoCPUs = orZero(given.NanoCPUs, r.NanoCPUs)
	r.CPUPeriod = orZero(given.CPUPeriod, r.CPUPeriod)
	r.CPUQuota = orZero(given.CPUQuota, r.CPUQuota)
	r.CPURealtimePeriod = orZero(given.CPURealtimePeriod, r.CPURealtimePeriod)
	r.CPURealtimeRuntime = orZero(given.CPURealtimeRuntime, r.CPURealtimeRuntime)
	r.CpusetCpus = or(given.CpusetCpus, r.CpusetCpus)
	r.CpusetMems = or(given.CpusetMems, r.CpusetMems)
	r.MemorySwap = orZero(given.MemorySwap, r.MemorySwap)
	r.MemoryReservation = orZero(given.MemoryReservation, r.MemoryReservation)
	if given.PidsLimit != nil {
		r.PidsLimit = given.PidsLimit
	}
	return nil
}
