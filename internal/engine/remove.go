package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/filters"
	"isle/internal/ids"
	"isle/internal/store"
)

// ContainerRemove removes a container, a running one only when forced.
func (e *Engine) ContainerRemove(ctx context.Context, ref string, opts container.RemoveOptions) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if opts.Link {
		return invalid("Isle has no links to remove: use networks")
	}
	return e.remove(context.WithoutCancel(ctx), c, opts)
}

// remove is one removal: a second one at the same time is refused.
func (e *Engine) remove(ctx context.Context, c *entry, opts container.RemoveOptions) error {
	if err := mayRemove(c.snapshot(), opts.Force); err != nil {
		return err
	}
	if !c.removing.CompareAndSwap(false, true) {
		return conflict("removal of container %s is already in progress", c.snapshot().ID)
	}
	defer c.removing.Store(false)
	if opts.Force {
		e.killNow(ctx, c) // ahead of our turn: a stop that waits ends by it
	}
	c.op.Lock()
	defer c.op.Unlock()
	if err := e.stopForRemoval(ctx, c, opts.Force); err != nil {
		return err
	}
	return e.removeLocked(ctx, c, opts.Volumes)
}

func mayRemove(rec container.Record, force bool) error {
	s := rec.State.Status
	if force || !rec.State.Alive() && s != apitypes.StateRestarting {
		return nil
	}
	if s == apitypes.StatePaused {
		return conflict("cannot remove container %q: container is paused and must be unpaused first", "/"+rec.Name)
	}
	return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+rec.Name, s)
}

func (e *Engine) killNow(ctx context.Context, c *entry) {
	if over := c.over(); over != nil {
		c.byHand()
		if err := e.killAndWait(ctx, c.snapshot(), over); err != nil {
			e.Log.Debug("kill for removal", "error", err) // our turn comes, and with it the error
		}
	}
}

// stopForRemoval makes sure that nothing runs, and asks again whether it may: others
// may have come before our turn. op is held.
func (e *Engine) stopForRemoval(ctx context.Context, c *entry, force bool) error {
	rec, over := c.snapshot(), c.over()
	if err := mayRemove(rec, force); err != nil {
		return err
	}
	c.dropRetry()
	if over == nil {
		return nil
	}
	c.byHand()
	if err := e.killAndWait(ctx, rec, over); err != nil {
		return fmt.Errorf("cannot remove container %q: could not kill: %w", "/"+rec.Name, err)
	}
	return nil
}

// removeLocked removes a container that does not run; op is held. When it
// fails the container stays, as "dead", and can be removed again.
func (e *Engine) removeLocked(ctx context.Context, c *entry, volumes bool) error {
	e.mu.RLock()
	known := e.byID[c.snapshot().ID] == c
	e.mu.RUnlock()
	if !known {
		return nil
	}
	err := e.dismantle(ctx, c, volumes)
	if err == nil {
		e.emit(c.snapshot(), events.ActionDestroy)
		c.disappoint(conflict("container %s is marked for removal and cannot be attached to", c.snapshot().ID))
		c.tellRemoved(true, nil)
		return nil
	}
	rec := c.snapshot()
	err = about(rec, "remove", err)
	upd := e.update(ctx, c, func(rec *container.Record) error {
		rec.State.Error = err.Error()
		return rec.State.To(apitypes.StateDead)
	})
	c.tellRemoved(false, err)
	return errors.Join(err, upd)
}

// dismantle takes everything of a container away, its record last: what fails
// can be tried again, also by restore.
func (e *Engine) dismantle(ctx context.Context, c *entry, volumes bool) error {
	err := e.mark(ctx, c, volumes)
	if err != nil {
		return err
	}
	failpoint.Here(failpoint.RemoveAfterMark)
	if err := e.clearedUp(ctx, c); err != nil {
		return err
	}
	e.vacate(ctx, c)
	if err := e.cutOff(ctx, c); err != nil {
		return err
	}
	failpoint.Here(failpoint.RemoveAfterNetwork)
	rec := c.snapshot()
	if err := e.Images.RemoveRootfs(ctx, rec.ID); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	failpoint.Here(failpoint.RemoveAfterRootfs)
	if err := os.RemoveAll(e.dir(rec.ID)); err != nil {
		return err
	}
	failpoint.Here(failpoint.RemoveAfterFiles)
	if rec.RemoveVolumes { // before the record, which knows them
		e.removeAnonymous(ctx, rec)
	}
	failpoint.Here(failpoint.RemoveAfterVolumes)
	if err := e.forget(ctx, rec); err != nil {
		return err
	}
	failpoint.Here(failpoint.RemoveAfterRecord)
	return nil
}

// mark commits that the container is being removed.
func (e *Engine) mark(ctx context.Context, c *entry, volumes bool) error {
	rec := c.snapshot()
	volumes = volumes || rec.Host.AutoRemove
	if rec.State.Status == apitypes.StateRemoving && rec.RemoveVolumes == volumes {
		return nil
	}
	return e.update(ctx, c, func(rec *container.Record) error {
		rec.RemoveVolumes = volumes
		return rec.State.To(apitypes.StateRemoving)
	})
}

// forget deletes the record and takes the container out of the index.
func (e *Engine) forget(ctx context.Context, rec container.Record) error {
	err := e.Store.Update(ctx, func(tx store.Tx) error { containers.Delete(tx, rec.ID); return nil })
	if err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byID, rec.ID)
	if e.byName[rec.Name] == rec.ID {
		delete(e.byName, rec.Name)
	}
	return nil
}

// ContainersPrune removes every container that does not run, and in whose network
// nobody is: whoever removes that knows its name.
func (e *Engine) ContainersPrune(ctx context.Context, f filters.Args) (apitypes.PruneReport, error) {
	var report apitypes.PruneReport
	if err := f.Validate("label", "label!", "until"); err != nil {
		return report, err
	}
	until, err := untilFilter(f)
	if err != nil {
		return report, err
	}
	for _, c := range e.all() {
		rec := c.snapshot()
		if c.busyNow() || !f.Labels("label", rec.Config.Labels) || !until.IsZero() && rec.Created.After(until) {
			continue
		}
		rw, _, err := e.Images.RootfsUsage(ctx, rec.ID)
		if err != nil {
			e.Log.Debug("size of a container", "container", rec.ID, "error", err)
		}
		if err := e.prune(ctx, c); err != nil {
			e.Log.Warn("failed to prune container", "container", ids.Short(rec.ID), "error", err)
			continue
		}
		report.ContainersDeleted = append(report.ContainersDeleted, rec.ID)
		report.SpaceReclaimed += uint64(max(0, rw))
	}
	return report, nil
}

func (e *Engine) prune(ctx context.Context, c *entry) error {
	if err := e.mayPrune(ctx, c); err != nil {
		return err
	}
	return e.remove(ctx, c, container.RemoveOptions{})
}

func (c *entry) busyNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy()
}
