package network

import (
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/store"
)

// seat gives a place the first leaf of its network with room. When there is
// none the network grows by one, in the same transaction: its record, and in
// units what it needs in the kernel. It never shrinks, so that a container that
// comes back costs nothing.
func (m *Manager) seat(tx store.Tx, pl *place, units map[string]netspec.State) error {
	d, err := m.planner().driver(*pl.net)
	if err != nil {
		return err
	}
	caps, n := d.Caps(), *m.x.networks[pl.net.ID]
	pl.Leaf = m.x.leaf(n.ID, caps.Room)
	switch {
	case pl.Leaf <= n.Leaves:
		return nil
	case pl.Leaf > caps.Leaves:
		return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("network %s is full: it has %d containers", n.Name, len(m.x.users[n.ID])))
	}
	n.Leaves = pl.Leaf
	s, err := m.planner().network(n)
	if err != nil {
		return err
	}
	if err := m.x.clash(s, n.ID); err != nil {
		return inNetwork(n, err)
	}
	units[networkUnit(n.ID)] = s
	return n.records().Put(tx, n.ID, n)
}

// grown notes what sb's networks have on the host since it was seated.
func (m *Manager) grown(sb *sandbox, units map[string]netspec.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pl := range sb.places {
		m.x.occupy(pl.net.ID, units[networkUnit(pl.net.ID)])
	}
}
