package engine

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/network"
)

// ContainerStats gives one sample, or one a second. A container that does not
// run has empty ones, as Docker's.
func (e *Engine) ContainerStats(ctx context.Context, ref string, stream, oneShot bool, emit func(apitypes.StatsResponse) error) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	prev := apitypes.StatsResponse{}
	if !oneShot { // a share of CPU time needs two samples
		if prev, err = e.sample(ctx, c.snapshot()); err != nil {
			return err
		}
		if !sleep(ctx, time.Second) && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for {
		s, err := e.sample(ctx, c.snapshot())
		if err != nil {
			return err
		}
		s.PreRead, s.PreCPUStats = prev.Read, prev.CPUStats
		if err := emit(s); err != nil || !stream {
			return err
		}
		prev = s
		if !sleep(ctx, time.Second) || c.isGone() {
			return ctx.Err()
		}
	}
}

func (c *entry) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// sample reads what the kernel says now.
func (e *Engine) sample(ctx context.Context, rec container.Record) (apitypes.StatsResponse, error) {
	s := apitypes.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux"}
	if !rec.State.Alive() {
		return s, nil
	}
	s.Read = time.Now().UTC()
	g, err := e.groupOf(rec)
	if err != nil {
		return s, err
	}
	st, err := e.Host.Cgroup.Stats(g)
	if errdefs.IsNotFound(err) { // it ended a moment ago
		return s, nil
	}
	if err != nil {
		return s, about(rec, "stats of", err)
	}
	s.CPUStats, s.MemoryStats, s.PidsStats, s.BlkioStats = st.CPU, st.Memory, st.Pids, st.Blkio
	s.Networks, err = e.counters(ctx, rec)
	return s, err
}

// counters are those of the sandbox that the container is in, its own or
// another container's. The host's are not the container's.
func (e *Engine) counters(ctx context.Context, rec container.Record) (map[string]apitypes.NetworkStats, error) {
	owner, err := e.find(e.filesOf(rec))
	if err != nil { // it was removed, and the namespace with it
		return nil, nil
	}
	switch mode := owner.snapshot().Host.NetworkMode; {
	case mode.IsHost():
		return nil, nil
	case isPath(mode):
		return counted(rec.State.Pid)
	}
	counters, err := e.Networks.Counters(ctx, owner.snapshot().ID)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, about(rec, "stats of", err)
	}
	out := map[string]apitypes.NetworkStats{}
	for name, n := range counters {
		out[name] = networkStats(n)
	}
	return out, nil
}

func networkStats(n network.Counters) apitypes.NetworkStats {
	return apitypes.NetworkStats{
		RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
		TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped,
	}
}
