package engine

import (
	"context"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
)

// ContainerPause freezes every process of the container.
func (e *Engine) ContainerPause(ctx context.Context, ref string) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.snapshot()
	switch rec.State.Status {
	case apitypes.StatePaused:
		return conflict("Container %s is already paused", rec.Name)
	case apitypes.StateRestarting:
		return conflict("Container %s is restarting, wait until the container is running", rec.Name)
	case apitypes.StateRunning:
	default:
		return notRunning(rec)
	}
	if err := e.Runtime.Pause(ctx, rec.ID); err != nil {
		return about(rec, "pause", err)
	}
	return e.frozen(ctx, c, apitypes.StatePaused, events.ActionPause)
}

// ContainerUnpause lets them go on.
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.snapshot()
	if rec.State.Status != apitypes.StatePaused {
		return conflict("Container %s is not paused", rec.Name)
	}
	if err := e.Runtime.Resume(ctx, rec.ID); err != nil {
		return about(rec, "unpause", err)
	}
	return e.frozen(ctx, c, apitypes.StateRunning, events.ActionUnPause)
}

// frozen records that a container was frozen or thawed. It may have been
// killed meanwhile: then there is nothing to record.
func (e *Engine) frozen(ctx context.Context, c *entry, to apitypes.ContainerState, action events.Action) error {
	err := e.update(ctx, c, func(rec *container.Record) error {
		if !rec.State.Alive() {
			return notRunning(*rec)
		}
		return rec.State.To(to)
	})
	if err == nil {
		e.emit(c.snapshot(), action)
	}
	return err
}
