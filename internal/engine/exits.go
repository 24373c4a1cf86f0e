package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/runtime"
)

// Run handles the ends of processes until ctx is done, and then waits for all
// background work. Restore has been called before.
func (e *Engine) Run(ctx context.Context) error {
	for x := range e.Runtime.Exits(ctx) {
		e.spawn(func(ctx context.Context) { e.exited(context.WithoutCancel(ctx), x) })
	}
	e.end()
	e.work.Wait()
	return ctx.Err()
}

// exited deals with one exit. It never takes op: a stop that holds it waits for us.
func (e *Engine) exited(ctx context.Context, x runtime.Exit) {
	if x.Exec != "" {
		e.execExited(ctx, x)
		return
	}
	e.mu.RLock()
	c := e.byID[x.ID]
	e.mu.RUnlock()
	if c == nil {
		e.ack(ctx, x.Proc)
		return
	}
	c.atGate()
	e.runEnded(ctx, c, x)
}

// errStale is for an exit of a run that is not the present one.
var errStale = errors.New("the exit of another run")

// runEnded records an exit, tells who waits, and clears up behind them.
func (e *Engine) runEnded(ctx context.Context, c *entry, x runtime.Exit) {
	failpoint.Here(failpoint.ExitBeforeRecord)
	var next what
	var done, torn, freed chan struct{}
	err := e.update(ctx, c, func(rec *container.Record) error {
		if !rec.State.Alive() || x.At.Before(rec.State.StartedAt) {
			return errStale
		}
		next = c.afterLocked(rec, x)
		torn, freed = make(chan struct{}), make(chan struct{})
		c.torn, c.freed, done, c.up = torn, freed, c.ended, false
		return nil
	})
	if errors.Is(err, errStale) {
		e.ack(ctx, x.Proc)
		return
	}
	if err != nil { // the exit is not acknowledged: it comes again with the next start of isled
		e.Log.Error("an exit could not be recorded", "container", x.ID, "error", err)
		return
	}
	failpoint.Here(failpoint.ExitAfterRecord)
	rec := c.snapshot()
	e.announce(rec, x, next.ran)
	c.tell(container.WaitResult{ExitCode: rec.State.ExitCode})
	if done != nil {
		close(done)
	}
	e.spawn(func(context.Context) {
		defer close(freed)
		e.letGo(ctx, c, rec)
	})
	e.teardown(ctx, c, rec)
	close(torn)
	failpoint.Here(failpoint.ExitAfterTeardown)
	e.follow(c, next)
}

// announce emits what an exit means.
func (e *Engine) announce(rec container.Record, x runtime.Exit, ran time.Duration) {
	if x.OOMKilled {
		e.emitAt(x.At, rec, events.ActionOOM)
	}
	e.emitAt(x.At, rec, events.ActionDie, "exitCode", strconv.Itoa(x.Code), "execDuration", strconv.FormatInt(int64(ran.Seconds()), 10))
}

// what is what follows a run.
type what struct {
	restart, remove bool
	delay, ran      time.Duration
}

// afterLocked changes rec as the exit x demands and says what follows. mu is held.
func (c *entry) afterLocked(rec *container.Record, x runtime.Exit) what {
	w := what{ran: max(0, x.At.Sub(rec.State.StartedAt))}
	rec.ManuallyStopped = c.manual
	w.restart = !c.held && !c.removing.Load() && shouldRestart(*rec, x.Code)
	w.remove = !c.held && !w.restart && rec.Host.AutoRemove
	s := &rec.State
	s.Pid, s.ExitCode, s.OOMKilled, s.FinishedAt, s.Error = 0, x.Code, x.OOMKilled, x.At.UTC(), ""
	s.Health = stoppedHealth(s.Health)
	s.Status = apitypes.StateExited
	switch {
	case w.restart:
		w.delay = c.nextDelay(w.ran)
		s.Status = apitypes.StateRestarting
		rec.RestartCount++
	case w.remove:
		rec.RemoveVolumes = true
		s.Status = apitypes.StateRemoving // one write less: restore finishes what "removing" begins
	}
	return w
}

// teardown takes down what others may want when this container is gone: its
// addresses, ports and volumes. It goes as far as it can: what stays is
// reported, and cleared by the next start or by restore.
func (e *Engine) teardown(ctx context.Context, c *entry, rec container.Record) {
	e.endWatch(c)
	e.endExecs(c)
	err := e.closeNetworks(ctx, rec)
	failpoint.Here(failpoint.ExitAfterNetwork)
	err = errors.Join(err, e.unmountVolumes(ctx, rec), e.removeBundle(rec.ID))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = e.leftBehind(rec, err)
	c.rec = clearedNetworks(c.rec)
}

// letGo makes the shim and the runtime forget a run, which takes a program and
// the removal of a dozen cgroups. Only the container's own next start waits
// for it: no id is used twice.
func (e *Engine) letGo(ctx context.Context, c *entry, rec container.Record) {
	e.ack(ctx, runtime.Proc{ID: rec.ID})
	err := e.Runtime.Delete(ctx, rec.ID)
	failpoint.Here(failpoint.ExitAfterRuntime)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = e.leftBehind(rec, err)
}

func (e *Engine) leftBehind(rec container.Record, err error) bool {
	if err != nil {
		e.Log.Warn("something of a container is left after its exit", "container", rec.ID, "error", err)
	}
	return err != nil
}

func (e *Engine) ack(ctx context.Context, p runtime.Proc) {
	if err := e.Runtime.Ack(ctx, p); err != nil {
		e.Log.Debug("an exit could not be acknowledged", "container", p.ID, "exec", p.Exec, "error", err)
	}
}

// follow does what is to be done after a run, in the background.
func (e *Engine) follow(c *entry, w what) {
	switch {
	case w.restart:
		e.planRestart(c, w.delay)
	case w.remove:
		e.spawn(func(ctx context.Context) { e.autoRemove(context.WithoutCancel(ctx), c) })
	}
}

// autoRemove removes a container that was started with --rm.
func (e *Engine) autoRemove(ctx context.Context, c *entry) {
	if !c.removing.CompareAndSwap(false, true) {
		return // a person was faster
	}
	defer c.removing.Store(false)
	c.op.Lock()
	defer c.op.Unlock()
	if err := e.removeLocked(ctx, c, true); err != nil {
		e.Log.Error("automatic removal", "container", c.snapshot().ID, "error", fmt.Sprint(err))
	}
}
