package engine

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/runtime"
)

const (
	defaultStopTimeout = 10 * time.Second
	killTimeout        = 10 * time.Second // for SIGKILL to do its work
)

// ContainerStop asks the container's process to end, and after a while makes it.
func (e *Engine) ContainerStop(ctx context.Context, ref string, opts container.StopOptions) error {
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
	// Also when the client goes: what it asked for was that the container stops.
	return e.stopLocked(context.WithoutCancel(ctx), c, opts)
}

// stopLocked stops a container; op is held.
func (e *Engine) stopLocked(ctx context.Context, c *entry, opts container.StopOptions) error {
	c.dropRetry()
	rec := c.snapshot()
	if rec.State.Status == apitypes.StateRestarting {
		c.byHand()
		return e.stopRestarting(ctx, c)
	}
	over := c.over()
	if over == nil {
		return notModified("container %s is already stopped", rec.Name)
	}
	c.byHand()
	failpoint.Here(failpoint.StopBeforeSignal)
	if err := e.finish(ctx, rec, over, opts); err != nil {
		return about(rec, "stop", err)
	}
	e.emit(c.snapshot(), events.ActionStop)
	return nil
}

// stopRestarting stops a container that is between two runs.
func (e *Engine) stopRestarting(ctx context.Context, c *entry) error {
	err := e.update(ctx, c, func(rec *container.Record) error {
		rec.ManuallyStopped = true
		return rec.State.To(apitypes.StateExited)
	})
	if err != nil {
		return err
	}
	e.vacate(ctx, c)
	rec := c.snapshot()
	c.tell(container.WaitResult{ExitCode: rec.State.ExitCode})
	e.emit(rec, events.ActionStop)
	return nil
}

// finish signals the process, waits, and kills it. over is closed at its end.
func (e *Engine) finish(ctx context.Context, rec container.Record, over <-chan struct{}, opts container.StopOptions) error {
	if err := e.signal(ctx, rec, stopSignal(rec, opts.Signal)); err != nil {
		return err
	}
	failpoint.Here(failpoint.StopAfterSignal)
	if d := stopTimeout(rec, opts.Timeout); d >= 0 {
		soft, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		if until(soft, over) == nil {
			return nil
		}
	} else if err := until(ctx, over); err == nil {
		return nil
	}
	return e.killAndWait(ctx, rec, over)
}

// killAndWait kills every process of the container and waits for its end.
func (e *Engine) killAndWait(ctx context.Context, rec container.Record, over <-chan struct{}) error {
	if err := e.signal(ctx, rec, syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if until(ctx, over) != nil {
		return fmt.Errorf("tried to kill container, but did not receive an exit event: %w", errdefs.ErrInternal)
	}
	return nil
}

// signal signals the container's process. A paused one gets it when it is
// resumed, so it is, once the signal waits for it. A process that has ended is
// no error.
func (e *Engine) signal(ctx context.Context, rec container.Record, sig syscall.Signal) error {
	err := e.Runtime.Kill(ctx, runtime.Proc{ID: rec.ID}, int(sig), false)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	if rec.State.Status == apitypes.StatePaused {
		if err := e.Runtime.Resume(ctx, rec.ID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func stopSignal(rec container.Record, asked string) syscall.Signal {
	for _, s := range []string{asked, rec.Config.StopSignal} {
		if sig, err := parseSignal(s); err == nil {
			return sig
		}
	}
	return syscall.SIGTERM
}

func parseSignal(s string) (syscall.Signal, error) {
	sig, err := signal.ParseSignal(s)
	if err != nil {
		return 0, invalid("invalid signal: %s", s)
	}
	return sig, nil
}

// stopTimeout is negative for "wait for ever".
func stopTimeout(rec container.Record, asked *int) time.Duration {
	for _, t := range []*int{asked, rec.Config.StopTimeout} {
		if t != nil {
			return time.Duration(*t) * time.Second
		}
	}
	return defaultStopTimeout
}
