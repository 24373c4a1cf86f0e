package engine

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
)

// ContainerRestart stops and starts. Neither the restart policy nor --rm act
// on the stop in the middle.
func (e *Engine) ContainerRestart(ctx context.Context, ref string, opts container.StopOptions) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if opts.Signal != "" {
		if _, err := parseSignal(opts.Signal); err != nil {
			return err
		}
	}
	c.op.Lock()
	defer c.op.Unlock()
	c.hold(true)
	defer c.hold(false)
	ctx = context.WithoutCancel(ctx)
	if err := e.stopLocked(ctx, c, opts); err != nil && !errdefs.IsNotModified(err) {
		return err
	}
	if err := e.startLocked(ctx, c, false); err != nil {
		return err
	}
	e.emit(c.snapshot(), events.ActionRestart)
	return nil
}
