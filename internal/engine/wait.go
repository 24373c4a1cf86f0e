package engine

import (
	"context"
	"slices"

	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
)

// waiter is one client of "wait". Its channel holds one result, so telling it
// never blocks.
type waiter struct {
	removed bool // wants the removal, not the exit
	ch      chan container.WaitResult
}

// ContainerWait registers before it returns.
func (e *Engine) ContainerWait(ctx context.Context, ref string, cond apitypes.WaitCondition) (<-chan container.WaitResult, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	switch cond {
	case "", apitypes.WaitConditionNotRunning, apitypes.WaitConditionNextExit, apitypes.WaitConditionRemoved:
	default:
		return nil, invalid("invalid condition: %q", string(cond))
	}
	w := &waiter{removed: cond == apitypes.WaitConditionRemoved, ch: make(chan container.WaitResult, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || (cond == "" || cond == apitypes.WaitConditionNotRunning) && !c.busy() {
		w.ch <- container.WaitResult{ExitCode: c.rec.State.ExitCode}
		return w.ch, nil
	}
	c.waiters = append(c.waiters, w)
	context.AfterFunc(ctx, func() { c.forget(w) })
	return w.ch, nil
}

// busy reports whether the container runs or is between two runs. mu is held.
func (c *entry) busy() bool {
	return c.rec.State.Alive() || c.rec.State.Status == apitypes.StateRestarting
}

func (c *entry) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(x *waiter) bool { return x == w })
}

// tell releases those who wait for the end of a run.
func (c *entry) tell(r container.WaitResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		if !w.removed {
			w.ch <- r
		}
		return !w.removed
	})
}

// tellRemoved releases everybody; gone when there will be nothing more to wait
// for, else (the removal failed) the container is still there.
func (c *entry) tellRemoved(gone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = gone
	for _, w := range c.waiters {
		w.ch <- container.WaitResult{ExitCode: c.rec.State.ExitCode, Err: err}
	}
	c.waiters = nil
}
