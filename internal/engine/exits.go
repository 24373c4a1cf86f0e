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

// errRecorded and errStale are for an exit that changes nothing: of a run that is
// known to be over, and of a run before the present one.
var (
	errRecorded = errors.New("the exit is recorded")
	errStale    = errors.New("the exit of another run")
)

// end is a run that is over and recorded as such.
type end struct {
	rec               container.Record
	exit              runtime.Exit
	next              what
	done, torn, freed chan struct{}
}

// runEnded records an exit, tells who waits, and clears up behind them.
func (e *Engine) runEnded(ctx context.Context, c *entry, x runtime.Exit) {
	if over, ok := e.recordEnd(ctx, c, x); ok {
		e.afterEnd(ctx, c, over)
	}
}

// recordEnd commits that a run is over; false: nothing is to follow.
func (e *Engine) recordEnd(ctx context.Context, c *entry, x runtime.Exit) (end, bool) {
	failpoint.Here(failpoint.ExitBeforeRecord)
	over := end{exit: x, torn: make(chan struct{}), freed: make(chan struct{})}
	err := e.update(ctx, c, func(rec *container.Record) error {
		if !rec.State.Alive() {
			return errRecorded
		}
		if ofAnother(x, rec.State) {
			return errStale
		}
		over.next = c.afterLocked(rec, x)
		over.rec, over.done = *rec, c.ended
		c.torn, c.freed, c.up = over.torn, over.freed, false
		return nil
	})
	switch {
	case errors.Is(err, errRecorded):
		e.ack(ctx, x.Proc)
	case errors.Is(err, errStale): // to acknowledge it could lose the exit of the present run, which has its name
	case err != nil: // it is not acknowledged: it comes again with the next start of isled
		e.Log.Error("an exit could not be recorded", "container", x.ID, "error", err)
		c.notOver()
	}
	return over, err == nil
}

// ofAnother: the exit is of an earlier run. Times do not tell where the process does: the
// clock may have been set back since the start.
func ofAnother(x runtime.Exit, s container.State) bool {
	if x.Pid != 0 && s.Pid != 0 {
		return x.Pid != s.Pid
	}
	return x.At.Before(s.StartedAt)
}

// afterEnd is all that follows a recorded end.
func (e *Engine) afterEnd(ctx context.Context, c *entry, over end) {
	failpoint.Here(failpoint.ExitAfterRecord)
	e.announce(over.rec, over.exit, over.next.ran)
	c.tell(container.WaitResult{ExitCode: over.rec.State.ExitCode})
	if over.done != nil {
		close(over.done)
	}
	e.spawn(func(context.Context) {
		defer close(over.freed)
		e.letGo(ctx, c, over.rec)
	})
	e.teardown(ctx, c, over.rec)
	close(over.torn)
	failpoint.Here(failpoint.ExitAfterTeardown)
	e.follow(c, over.next)
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
	c.mu.Lock()
	kept := keepsPlace(rec, c.held)
	c.mu.Unlock()
	err := e.closeNetworks(ctx, rec, kept)
	failpoint.Here(failpoint.ExitAfterNetwork)
	err = errors.Join(err, e.unmountVolumes(ctx, rec), e.removeBundle(rec.ID))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = e.leftBehind(rec, err)
	c.rec = c.atRestLocked(c.rec)
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
