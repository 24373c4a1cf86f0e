package engine

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"isle/internal/container"
)

// agree finishes a connect or disconnect of a container that runs which broke off: both
// are done by the Manager first and recorded here after. So who is on a network no more
// is recorded so, and who is on one that is not recorded was never told that they are.
func (e *Engine) agree(ctx context.Context, c *entry) error {
	rec := c.snapshot()
	if !ownSandbox(rec) || rec.Config.NetworkDisabled {
		return nil
	}
	on := map[string]bool{}
	for _, s := range e.Networks.SeatsOf(rec.ID) {
		on[s.Network] = true
	}
	var errs []error
	for name, id := range e.recorded(ctx, rec) {
		if !on[id] {
			e.Log.Warn("a container was taken off a network, and the record does not say so", "container", rec.ID, "network", name)
			errs = append(errs, e.offNetwork(ctx, c, name))
		}
		delete(on, id)
	}
	for _, id := range slices.Sorted(maps.Keys(on)) {
		e.Log.Warn("a container was being put on a network when isled ended: it is taken off", "container", rec.ID, "network", id)
		if err := e.Networks.Disconnect(ctx, rec.ID, id); !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// recorded are the networks of a container of which the Manager has an endpoint, and
// their ids.
func (e *Engine) recorded(ctx context.Context, rec container.Record) map[string]string {
	all := map[string]string{}
	for name, s := range rec.Networks {
		if n, err := e.networkOf(ctx, name, s); err == nil && !isNone(n) {
			all[name] = n.ID
		} else if err != nil && s != nil && s.NetworkID != "" { // of a cluster that was not heard of yet
			all[name] = s.NetworkID
		}
	}
	return all
}
