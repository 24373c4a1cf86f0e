package engine

import (
	"context"
	"strconv"
	"syscall"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"isle/internal/container"
)

// ContainerKill sends a signal. It takes no turn among the verbs: a stop that
// waits can be hurried by it.
func (e *Engine) ContainerKill(ctx context.Context, ref, name string) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if name == "" {
		name = "KILL"
	}
	sig, err := parseSignal(name)
	if err != nil || !signal.ValidSignalForPlatform(sig) {
		return invalid("invalid signal: %s", name)
	}
	rec := c.snapshot()
	over := c.over()
	if over == nil {
		return e.killRestarting(ctx, c, rec)
	}
	if ends(rec, sig) {
		c.byHand()
	}
	if sig == syscall.SIGKILL {
		err = e.killAndWait(ctx, rec, over)
	} else {
		err = e.signalOnly(ctx, rec, sig)
	}
	if err != nil {
		return about(rec, "kill", err)
	}
	e.emit(rec, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	return nil
}

// signalOnly resumes a paused container only for the signal that stops it.
func (e *Engine) signalOnly(ctx context.Context, rec container.Record, sig syscall.Signal) error {
	if sig != stopSignal(rec, "") {
		rec.State.Status = apitypes.StateRunning
	}
	return e.signal(ctx, rec, sig)
}

// killRestarting ends a container that is between two runs.
func (e *Engine) killRestarting(ctx context.Context, c *entry, rec container.Record) error {
	if rec.State.Status != apitypes.StateRestarting {
		return conflict("cannot kill container: %s: container %s is not running", rec.Name, rec.Name)
	}
	c.op.Lock()
	defer c.op.Unlock()
	c.dropRetry()
	if c.snapshot().State.Status != apitypes.StateRestarting {
		return nil
	}
	return e.stopRestarting(ctx, c)
}

// ends reports whether the signal is one by which a person ends a container.
func ends(rec container.Record, sig syscall.Signal) bool {
	return sig == syscall.SIGKILL || sig == stopSignal(rec, "")
}
