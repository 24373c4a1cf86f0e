package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/network"
	"isle/internal/runtime"
	"isle/internal/store"
)

// found is what is on the machine when isled starts.
type found struct {
	live      map[string]runtime.Status // containers that the shim has
	sandboxes map[string]bool           // false: of a namespace that is not ours
	missed    map[*entry]runtime.Exit   // ends that the records do not have
}

// Restore brings the records and the machine together after a start of isled,
// whatever became of the last one: containers that run go on, ends that were
// missed are made up for, what was half made or half removed is cleared. It
// comes before Run; ctx ends nothing but Restore itself.
func (e *Engine) Restore(ctx context.Context) error {
	e.prepare(ctx)
	if err := e.load(ctx); err != nil {
		return err
	}
	m, err := e.lookAround(ctx)
	if err != nil {
		return err
	}
	e.countUsers()
	var errs []error
	for _, c := range e.all() {
		errs = append(errs, e.restoreOne(ctx, c, m))
	}
	errs = append(errs, e.restoreGuests(ctx))
	errs = append(errs, e.sweep(ctx, m)) // it spares what runs, so also what is still to be torn down
	e.recordMissed(ctx, m)
	if err := errors.Join(errs...); err != nil { // each is about one thing: the others are served
		e.Log.Error("some of what isled found could not be restored or cleared", "error", err)
	}
	return nil
}

// load fills the index. A record that cannot be read is reported and left
// alone: it is not a reason to serve nobody.
func (e *Engine) load(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byID, e.byName = map[string]*entry{}, map[string]string{}
	return e.Store.View(ctx, func(tx store.Tx) error {
		for rec, err := range containers.All(tx) {
			if err == nil && (rec.ID == "" || rec.Config == nil || rec.Host == nil) {
				err = fmt.Errorf("record of container %q is incomplete", rec.ID)
			}
			if err != nil {
				e.Log.Error("a container is not served", "error", err)
				continue
			}
			e.byID[rec.ID] = &entry{rec: rec}
			e.byName[rec.Name] = rec.ID
		}
		return nil
	})
}

func (e *Engine) lookAround(ctx context.Context) (found, error) {
	m := found{live: map[string]runtime.Status{}, sandboxes: map[string]bool{}}
	list, err := e.Runtime.List(ctx)
	if err != nil {
		return m, fmt.Errorf("list what the shim has: %w", err)
	}
	for _, s := range list {
		if s.Exec == "" {
			m.live[s.ID] = s
		}
	}
	open, err := e.Networks.Sandboxes(ctx)
	if err != nil {
		return m, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, id := range open {
		m.sandboxes[id] = !network.IsLent(id)
	}
	m.missed = e.missedEnds(m.live)
	return m, nil
}

// missedEnds are the runs that are over, and their records do not say so. Of whose
// end nobody knows, it is now.
func (e *Engine) missedEnds(live map[string]runtime.Status) map[*entry]runtime.Exit {
	missed := map[*entry]runtime.Exit{}
	for _, c := range e.all() {
		rec := c.snapshot()
		if !rec.State.Alive() {
			continue
		}
		if s, ok := live[rec.ID]; !ok {
			missed[c] = runtime.Exit{Proc: runtime.Proc{ID: rec.ID}, Code: 255, At: time.Now(), Pid: rec.State.Pid}
		} else if s.Exit != nil {
			missed[c] = *s.Exit
		}
	}
	return missed
}

// recordMissed is done before anybody is served: no answer is to tell of a run
// that is over. What follows from an end is done beside.
func (e *Engine) recordMissed(ctx context.Context, m found) {
	for c, x := range m.missed {
		if over, ok := e.recordEnd(ctx, c, x); ok {
			e.spawn(func(ctx context.Context) { e.afterEnd(context.WithoutCancel(ctx), c, over) })
		}
	}
}

// restoreOne decides what becomes of one container.
//
//	record says          shim says        then
//	running, paused      it runs          it goes on
//	running, paused      it has ended     the exit is recorded (recordMissed)
//	running, paused      nothing          it ended unseen: exit code 255, likewise
//	anything else        anything         what a broken start or end left is cleared
//	restarting           –                the restart is planned again
//	removing, dead       –                the removal is finished
//	exited               –                started when its policy says so
func (e *Engine) restoreOne(ctx context.Context, c *entry, m found) error {
	rec := c.snapshot()
	if rec.State.Alive() {
		e.restoreAlive(ctx, c, m)
		return nil
	}
	c.inMemory(func(rec *container.Record) { *rec = c.atRestLocked(*rec) })
	if err := e.clearBroken(ctx, c, m); err != nil {
		return about(rec, "clear what is left of", err)
	}
	if c.kept() { // others are in its namespace, whose ports may have changed since
		if err := e.followPorts(ctx, c); err != nil {
			e.Log.Warn("the ports of a container could not be recorded", "container", rec.ID, "error", err)
		}
	}
	switch s := rec.State.Status; {
	case s == apitypes.StateRemoving || s == apitypes.StateDead:
		return e.finishRemoval(ctx, c)
	case s == apitypes.StateRestarting:
		e.planRestart(c, firstDelay)
	case s == apitypes.StateExited && rec.Host.AutoRemove:
		return e.finishRemoval(ctx, c)
	case s == apitypes.StateExited && comesBack(rec):
		e.planRestart(c, 0)
	}
	return nil
}

// comesBack: "always" brings back also what a person stopped.
func comesBack(rec container.Record) bool {
	p := rec.Host.RestartPolicy
	return p.IsAlways() || p.IsUnlessStopped() && !rec.ManuallyStopped
}

func (e *Engine) restoreAlive(ctx context.Context, c *entry, m found) {
	c.mu.Lock()
	c.beganLocked()
	c.up = true
	rec := c.rec
	c.mu.Unlock()
	if err := e.agree(ctx, c); err != nil {
		e.Log.Warn("the networks of a container could not be recorded", "container", rec.ID, "error", err)
	}
	if err := e.followPorts(ctx, c); err != nil {
		e.Log.Warn("the ports of a container could not be recorded", "container", rec.ID, "error", err)
	}
	if _, over := m.missed[c]; !over {
		e.readFreezer(c)
		e.beginWatch(c, rec)
	}
}

// readFreezer makes up for a pause or unpause whose record was lost. A kernel
// that does not tell leaves the record as it is.
func (e *Engine) readFreezer(c *entry) {
	rec := c.snapshot()
	g, err := e.groupOf(rec)
	if err != nil {
		return
	}
	frozen, err := g.Frozen()
	if err != nil || frozen == (rec.State.Status == apitypes.StatePaused) {
		return
	}
	to := apitypes.StateRunning
	if frozen {
		to = apitypes.StatePaused
	}
	e.Log.Info("a container was paused or resumed, and the record does not say so", "container", rec.ID, "state", to)
	c.inMemory(func(rec *container.Record) { _ = rec.State.To(to) })
}

// clearBroken clears what a start or an end that broke off has left.
func (e *Engine) clearBroken(ctx context.Context, c *entry, m found) error {
	rec := c.snapshot()
	_, live := m.live[rec.ID]
	_, err := os.Stat(e.bundle(rec.ID))
	if !live && !m.sandboxes[rec.ID] && err != nil {
		return nil
	}
	e.letGo(ctx, c, rec)
	e.teardown(ctx, c, rec)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty || c.stuck {
		return errors.New("see the log")
	}
	return nil
}

func (e *Engine) finishRemoval(ctx context.Context, c *entry) error {
	c.op.Lock()
	defer c.op.Unlock()
	e.letGo(ctx, c, c.snapshot())
	return e.removeLocked(ctx, c, c.snapshot().RemoveVolumes)
}

// sweep removes what belongs to no container that we know. Every step is taken
// whatever became of the others.
func (e *Engine) sweep(ctx context.Context, m found) error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(m.live)) {
		if !e.knows(id) {
			errs = append(errs, e.Runtime.Delete(ctx, id))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.sandboxes)) {
		if m.sandboxes[id] && !e.knows(id) {
			errs = append(errs, e.Networks.Close(ctx, id))
		}
	}
	errs = append(errs, e.sweepRootfs(ctx), e.sweepDir(filepath.Join(e.Config.RunDir, "bundles"), e.runs, os.RemoveAll),
		e.sweepDir(filepath.Join(e.Config.DataDir, "containers"), e.knows, os.RemoveAll),
		e.sweepDir(filepath.Join(e.Config.RunDir, "shm"), e.runs, func(dir string) error { return e.unmountShm(filepath.Base(dir)) }))
	if _, err := e.Host.Cgroup.RemoveLeftovers(e.cgroupDriver(), e.Config.CgroupParent, e.runs); err != nil {
		errs = append(errs, fmt.Errorf("left-over cgroups: %w", err))
	}
	return errors.Join(errs...)
}

func (e *Engine) knows(id string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byID[id] != nil
}

// runs reports whether the container runs or may begin to at any moment.
func (e *Engine) runs(id string) bool {
	e.mu.RLock()
	c := e.byID[id]
	e.mu.RUnlock()
	return c != nil && c.busyNow()
}

func (e *Engine) sweepRootfs(ctx context.Context) error {
	have, err := e.Images.Rootfses(ctx)
	if err != nil {
		return fmt.Errorf("list root file systems: %w", err)
	}
	errs := []error{}
	for _, id := range have {
		if !e.knows(id) {
			errs = append(errs, e.Images.RemoveRootfs(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// sweepDir removes the entries of dir that are named after a container and not kept.
func (e *Engine) sweepDir(dir string, keep func(id string) bool, remove func(string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	var errs []error
	for _, d := range entries {
		if ids.Valid(d.Name()) && !keep(d.Name()) {
			errs = append(errs, remove(filepath.Join(dir, d.Name())))
		}
	}
	return errors.Join(errs...)
}
