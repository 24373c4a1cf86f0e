package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/network"
)

// This file is about how long a network namespace lives. It is made when its
// owner starts, and goes when its last user has ended: the owner may stop and
// start as often as it likes while others are in it (--network container:NAME),
// and finds its endpoints, addresses and ports again.
//
// Who uses a namespace is kept in its owner's entry (net, users), and follows
// from the records: restore finds it out anew.

// useLocked counts a container among the users of this one's namespace. net is held.
func (c *entry) useLocked(id string) {
	if c.users == nil {
		c.users = map[string]struct{}{}
	}
	c.users[id] = struct{}{}
}

// ownerOf is the container whose namespace rec is in, or will be: itself, or
// through others the one that it names. Nil: the namespace is not Isle's, or its
// owner is gone.
func (e *Engine) ownerOf(rec container.Record) *entry {
	c, err := e.find(e.filesOf(rec))
	if err != nil || !ownSandbox(c.snapshot()) {
		return nil
	}
	return c
}

// enterOwn opens the container's own namespace, or goes back into it when others
// kept it alive.
func (e *Engine) enterOwn(ctx context.Context, c *entry, req network.OpenRequest) (opened network.Opened, err error) {
	c.net.Lock()
	defer c.net.Unlock()
	if _, _, perr := e.Networks.Published(req.ID); perr == nil {
		opened, err = e.Networks.Reopen(ctx, req)
	} else {
		opened, err = e.Networks.Open(ctx, req)
	}
	if err == nil {
		c.useLocked(req.ID)
	}
	return opened, err
}

// enterOther counts rec among the users of another container's namespace, writes
// down whose, and gives its path. That container need not run, if somebody else
// does who is in it.
func (e *Engine) enterOther(rec *container.Record) (string, error) {
	target, err := e.find(rec.Host.NetworkMode.ConnectedContainer())
	if err != nil {
		return "", err
	}
	owner := e.ownerOf(target.snapshot())
	if owner == nil { // the host's, or one that is not Isle's: found through the process
		other, err := e.sharer("network", rec.Host.NetworkMode.ConnectedContainer())
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("/proc/%d/ns/net", other.State.Pid), nil
	}
	owner.net.Lock()
	defer owner.net.Unlock()
	if len(owner.users) == 0 {
		if _, err := e.sharer("network", rec.Host.NetworkMode.ConnectedContainer()); err != nil {
			return "", err
		}
		return "", conflict("cannot join network namespace of a non running container: %s", owner.snapshot().Name)
	}
	path, err := e.Networks.Path(owner.snapshot().ID)
	if err != nil {
		return "", fmt.Errorf("the network namespace of container %s: %w", owner.snapshot().Name, err)
	}
	owner.useLocked(rec.ID)
	rec.NetOwner = owner.snapshot().ID
	return path, nil
}

// awaitsOwner: the namespace that rec is to be in is not there, and may come.
func (e *Engine) awaitsOwner(rec container.Record) bool {
	target, err := e.find(rec.Host.NetworkMode.ConnectedContainer())
	if !rec.Host.NetworkMode.IsContainer() || err != nil {
		return false
	}
	if owner := e.ownerOf(target.snapshot()); owner != nil {
		return !e.isOpen(owner.snapshot())
	}
	return !target.snapshot().State.Alive()
}

// isShared: the namespace that rec is in is Isle's, and there. After a boot none is.
func (e *Engine) isShared(rec container.Record) bool {
	owner := e.ownerOf(rec)
	return owner != nil && e.isOpen(owner.snapshot())
}

// leave takes rec from the users of its namespace. The last one closes it.
func (e *Engine) leave(ctx context.Context, rec container.Record) error {
	owner := e.ownerOf(rec)
	if owner == nil {
		return nil
	}
	owner.net.Lock()
	defer owner.net.Unlock()
	if delete(owner.users, rec.ID); len(owner.users) > 0 {
		return nil
	}
	if err := e.Networks.Close(ctx, owner.snapshot().ID); err != nil {
		return fmt.Errorf("close networks: %w", err)
	}
	return nil
}

// closeNetworks is the end of a run, as far as networks are concerned. kept: the
// next run is to be in the same namespace of another container.
func (e *Engine) closeNetworks(ctx context.Context, rec container.Record, kept bool) error {
	if !kept || !e.isShared(rec) {
		if err := e.leave(ctx, rec); err != nil {
			return err
		}
	}
	e.announceNetworks(ctx, rec, events.ActionDisconnect)
	return nil
}

// keepsPlace reports whether rec stays among the users of another container's
// namespace: it is between two runs, and it may be all that keeps it alive. held:
// "restart" is at work.
func keepsPlace(rec container.Record, held bool) bool {
	return rec.Host.NetworkMode.IsContainer() && (held || rec.State.Status == apitypes.StateRestarting)
}

// atRestLocked is rec without what its run made of it, but for where its next
// run is to be.
func (c *entry) atRestLocked(rec container.Record) container.Record {
	out := clearedNetworks(rec)
	if keepsPlace(rec, c.held) {
		out.NetOwner = rec.NetOwner
	}
	return out
}

// vacate lets go of a place that was kept for a run that does not come.
func (e *Engine) vacate(ctx context.Context, c *entry) {
	rec := c.snapshot()
	if rec.State.Alive() || rec.State.Status == apitypes.StateRestarting || !rec.Host.NetworkMode.IsContainer() {
		return
	}
	if err := e.leave(ctx, rec); err != nil {
		e.Log.Warn("a network namespace is left open", "container", rec.ID, "error", err)
	}
	c.inMemory(func(rec *container.Record) { rec.NetOwner = "" })
}

// countUsers finds out who is in which namespace, at a start of isled, or has a
// place kept in one that is there.
func (e *Engine) countUsers() {
	for _, c := range e.all() {
		rec, owner := c.snapshot(), e.ownerOf(c.snapshot())
		if owner == nil || !rec.State.Alive() && !(keepsPlace(rec, false) && e.isShared(rec)) {
			continue
		}
		owner.net.Lock()
		owner.useLocked(rec.ID)
		owner.net.Unlock()
	}
}

// mayPrune refuses the removal of a container whose namespace others are in. Who
// has ended is on its way out of it, and is waited for.
func (e *Engine) mayPrune(ctx context.Context, c *entry) error {
	for _, id := range c.others() {
		if other, err := e.find(id); err == nil {
			if err := other.settled(ctx); err != nil {
				return err
			}
		}
	}
	if left := c.others(); len(left) > 0 {
		return conflict("container %s is in its network", e.nameOf(left[0]))
	}
	return nil
}

// others are those in the container's namespace, but itself.
func (c *entry) others() []string {
	c.net.Lock()
	defer c.net.Unlock()
	own := c.snapshot().ID
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.users)), func(id string) bool { return id == own })
}

// cutOff closes the namespace of a container that is removed, whoever is in it:
// with Docker they had lost it when the container stopped, and its clients, as
// compose when it makes a container anew, count on its ports and addresses.
func (e *Engine) cutOff(ctx context.Context, c *entry) error {
	rec := c.snapshot()
	for _, id := range c.others() {
		if other, err := e.find(id); err == nil && other.snapshot().State.Alive() {
			e.Log.Warn("a container has lost its network, whose owner is removed", "container", id, "owner", rec.Name)
		}
	}
	c.net.Lock()
	defer c.net.Unlock()
	if c.users = nil; !e.isOpen(rec) {
		return nil
	}
	if err := e.unplug(ctx, rec); err != nil {
		return err
	}
	return e.Networks.Close(ctx, rec.ID)
}

// kept reports whether somebody is in the container's namespace.
func (c *entry) kept() bool {
	c.net.Lock()
	defer c.net.Unlock()
	return len(c.users) > 0
}

// hasNetwork: the container's namespace is there, because it runs or others do.
func (e *Engine) hasNetwork(c *entry) bool {
	rec := c.snapshot()
	return rec.State.Status != apitypes.StateRemoving && (rec.State.Alive() || ownSandbox(rec) && c.kept())
}
