package engine

import (
	"context"
	"time"

	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
)

// Docker's back-off between restarts.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	ownerDelay = time.Second      // until it is looked again whether the owner of its network runs
	goodRun    = 10 * time.Second // a run this long starts the back-off anew
)

// shouldRestart is what the policy says about a run that ended with code.
func shouldRestart(rec container.Record, code int) bool {
	p := rec.Host.RestartPolicy
	switch {
	case rec.ManuallyStopped:
		return false
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return code != 0 && (p.MaximumRetryCount == 0 || rec.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// nextDelay is the wait before the next restart after a run of that length. mu is held.
func (c *entry) nextDelay(ran time.Duration) time.Duration {
	if c.backoff == 0 || ran > goodRun {
		c.backoff = firstDelay
	} else {
		c.backoff = min(2*c.backoff, lastDelay)
	}
	return c.backoff
}

// retry is a restart that is planned.
type retry struct{ cancel context.CancelFunc }

// planRestart starts c after delay, unless somebody does otherwise before.
func (e *Engine) planRestart(c *entry, delay time.Duration) {
	ctx, cancel := context.WithCancel(e.life)
	r := &retry{cancel}
	c.mu.Lock()
	c.retry = r
	c.mu.Unlock()
	e.spawn(func(context.Context) {
		defer cancel()
		if sleep(ctx, delay) {
			e.restartByPolicy(ctx, c, r)
		}
	})
}

func (e *Engine) restartByPolicy(ctx context.Context, c *entry, r *retry) {
	c.op.Lock()
	defer c.op.Unlock()
	if !c.takeRetry(r) {
		return
	}
	if e.awaitsOwner(c.snapshot()) {
		e.planRestart(c, ownerDelay)
		return
	}
	ctx = context.WithoutCancel(ctx)
	err := e.startLocked(ctx, c, true)
	if err == nil {
		return
	}
	e.Log.Warn("restart by policy", "container", c.snapshot().ID, "error", err)
	rec := c.snapshot()
	if rec.State.Status != apitypes.StateRestarting {
		return
	}
	e.giveUp(ctx, c)
}

// giveUp ends a container that was between two runs.
func (e *Engine) giveUp(ctx context.Context, c *entry) {
	err := e.update(ctx, c, func(rec *container.Record) error { return rec.State.To(apitypes.StateExited) })
	if err != nil {
		e.Log.Error("a container that does not restart could not be recorded", "container", c.snapshot().ID, "error", err)
	}
	rec := c.snapshot()
	c.tell(container.WaitResult{ExitCode: rec.State.ExitCode})
	if rec.Host.AutoRemove {
		e.spawn(func(ctx context.Context) { e.autoRemove(context.WithoutCancel(ctx), c) })
	}
}

// takeRetry reports whether r is still what is planned, and unplans it.
func (c *entry) takeRetry(r *retry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r == nil || c.retry != r {
		return false
	}
	c.retry = nil
	return true
}

// dropRetry cancels a planned restart.
func (c *entry) dropRetry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retry != nil {
		c.retry.cancel()
		c.retry = nil
	}
}
