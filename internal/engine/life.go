package engine

import (
	"context"
	"time"

	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
)

// This file holds what a run of a container leaves in its entry: the gate that
// an exit waits at while a start is being recorded, the end that a stop waits
// for, and the teardown that the next start waits for.

// shut begins a start: exits of this container wait until open.
func (c *entry) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate = make(chan struct{})
}

func (c *entry) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate != nil {
		close(c.gate)
		c.gate = nil
	}
}

// atGate waits until no start is in flight.
func (c *entry) atGate() {
	for {
		c.mu.Lock()
		gate := c.gate
		c.mu.Unlock()
		if gate == nil {
			return
		}
		<-gate
	}
}

// settled waits until what the last run left is gone.
func (c *entry) settled(ctx context.Context) error {
	c.mu.Lock()
	torn := c.torn
	c.mu.Unlock()
	return until(ctx, torn)
}

// over is closed when the present run's exit has been recorded; it is nil when
// there is no run.
func (c *entry) over() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rec.State.Alive() {
		return nil
	}
	return c.ended
}

// until waits for done; a nil channel means that there is nothing to wait for.
func until(ctx context.Context, done <-chan struct{}) error {
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// byHand marks the run as ended by a person.
func (c *entry) byHand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.manual = true
}

func (c *entry) hold(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = on
}

// began prepares the entry for a run that is being recorded. mu is held.
func (c *entry) beganLocked() {
	c.ended = make(chan struct{})
	c.torn, c.freed = nil, nil
	c.manual = false
}

// notOver takes an end back that could not be recorded: nobody is to wait for its
// teardown.
func (c *entry) notOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.torn, c.freed = nil, nil
}

// inMemory changes a record without writing it: for what may be lost.
func (c *entry) inMemory(fn func(*container.Record)) container.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(&c.rec)
	return c.rec
}

// mayStart says why a container cannot be started now.
func (c *entry) mayStart() error {
	rec := c.snapshot()
	switch rec.State.Status {
	case apitypes.StatePaused:
		return conflict("cannot start a paused container, try unpause instead")
	case apitypes.StateRunning:
		return notModified("container %s is already running", rec.Name)
	case apitypes.StateRemoving, apitypes.StateDead:
		return conflict("container is marked for removal and cannot be started")
	}
	if c.removing.Load() {
		return conflict("container is marked for removal and cannot be started")
	}
	return nil
}

// background work of the engine: all of it ends before Run returns.

// open makes the context that background work lives in.
func (e *Engine) prepare(ctx context.Context) {
	e.life, e.end = context.WithCancel(context.WithoutCancel(ctx))
}

func (e *Engine) spawn(fn func(ctx context.Context)) {
	e.work.Go(func() { fn(e.life) })
}

// pause waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
