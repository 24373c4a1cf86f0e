package network

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network/dns"
	"isle/internal/store"
)

// awaken brings the networks of drafts to this host, as far as they are a cluster's and
// no container here is on them yet. The drafts that are returned are on them. op is held.
func (m *Manager) awaken(ctx context.Context, drafts []draft) ([]draft, error) {
	units, woken := map[string]netspec.State{}, map[string]*Network{}
	out := slices.Clone(drafts)
	for i, d := range out {
		if !d.net.Global() {
			continue
		}
		n := m.x.networks[d.net.ID]
		if err := m.wakeable(*n); err != nil {
			return nil, inNetwork(*n, err)
		}
		if n.Idle {
			now := *n
			now.Idle = false
			n, woken[n.ID] = &now, &now
		}
		out[i].net = n
	}
	if len(woken) == 0 {
		return out, nil
	}
	return out, m.wake(ctx, woken, units)
}

// wakeable reports why n cannot be on this host now.
func (m *Manager) wakeable(n Network) error {
	d, err := m.planner().driver(n)
	if err != nil {
		return err
	}
	if n.Removed {
		return fmt.Errorf("it was removed in the cluster, and stays here only until its last container is gone: %w", errdefs.ErrNotFound)
	}
	if err := m.reachable(); err != nil {
		return err
	}
	if err := d.Ready(n, len(m.x.users[n.ID]), m.host); err != nil {
		return err
	}
	if err := m.otherWay(n); err != nil {
		return err
	}
	for _, p := range n.Pools {
		if m.cluster.opened[p.Subnet] != n.ID {
			return fmt.Errorf("subnet %s of the cluster is that of another network on this host: %w: %w (hint: remove one of them)", p.Subnet, m.x.overlapBesides(p.Subnet, n.ID), errdefs.ErrConflict)
		}
	}
	return nil
}

func (m *Manager) wake(ctx context.Context, woken map[string]*Network, units map[string]netspec.State) error {
	before := map[string]*Network{}
	m.mu.Lock()
	for id, n := range woken {
		before[id], m.x.networks[id] = m.x.networks[id], n
	}
	m.mu.Unlock()
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		for id, n := range woken {
			s, err := m.planner().network(*n)
			if err == nil {
				err = m.x.clash(s, id)
			}
			if err == nil {
				err = footholds.Put(tx, id, *n)
			}
			if err != nil {
				return nil, inNetwork(*n, err)
			}
			units[networkUnit(id)] = s
		}
		return merged(merged(units, m.tunnelUnits()), m.sealUnits()), nil
	})
	if err != nil {
		m.mu.Lock()
		for id, n := range before {
			m.x.networks[id] = n
		}
		m.mu.Unlock()
		return err
	}
	m.mu.Lock()
	for id := range woken {
		m.x.occupy(id, m.units[networkUnit(id)])
	}
	m.mu.Unlock()
	for id := range woken {
		m.impose(ctx, m.farUnits(id))
	}
	m.impose(ctx, m.trialUnits())
	return nil
}

// doze takes networks of a cluster from this host on which no container here is any
// more. op is held.
func (m *Manager) doze(ctx context.Context, ids []string) {
	for _, id := range ids {
		n := m.x.networks[id]
		if n == nil || !n.Global() || n.Idle || len(m.x.users[id]) > 0 {
			continue
		}
		m.sleep(ctx, *n)
		if n.Removed {
			m.loseNetwork(ctx, id)
		}
	}
}

func (m *Manager) sleep(ctx context.Context, n Network) {
	units := map[string]netspec.State{networkUnit(n.ID): {}}
	var drop []dns.Host
	for unit := range m.cluster.units[n.ID] {
		units[unit] = nil
		if h, ok := m.cluster.named[unit]; ok {
			drop = append(drop, h)
			delete(m.cluster.named, unit)
		}
	}
	m.mu.Lock()
	m.x.vacate(m.units[networkUnit(n.ID)])
	n.Idle, n.Leaves = true, 0
	delete(m.x.leaves, n.ID)
	m.x.networks[n.ID] = &n
	m.mu.Unlock()
	m.impose(ctx, merged(merged(units, m.tunnelUnits()), merged(m.sealUnits(), m.trialUnits())))
	if err := m.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { footholds.Delete(tx, n.ID); return nil }); err != nil {
		m.Log.Error("forget how a network was here", "network", n.Name, "err", err)
	}
	if m.DNS != nil && len(drop) > 0 {
		m.DNS.Change(drop, nil)
	}
}

// vacate notes that the objects of s are no network's any more.
func (x *index) vacate(s netspec.State) {
	for k, o := range s {
		if !shared(o) {
			delete(x.devices, k)
		}
	}
}

func networksOf(drafts []draft) (ids []string) {
	for _, d := range drafts {
		ids = append(ids, d.net.ID)
	}
	return ids
}

// left are the networks that a sandbox is no more on.
func left(old, now *sandbox) (ids []string) {
	for _, pl := range old.places {
		if now == nil || !slices.ContainsFunc(now.places, func(o place) bool { return o.net.ID == pl.net.ID }) {
			ids = append(ids, pl.net.ID)
		}
	}
	return ids
}
