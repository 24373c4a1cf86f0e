package network

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/netspec"
	"isle/internal/store"
)

// Remove takes a network away. It refuses while a container is on it.
func (m *Manager) Remove(ctx context.Context, ref string) (Network, error) {
	n, x, err := m.remove(ctx, ref)
	if err == nil && n.Global() {
		return n, m.removeGlobal(ctx, n)
	}
	if err == nil && x != nil {
		err = m.unmake(ctx, x, n)
	}
	if err != nil {
		return n, err
	}
	if err := m.repayPools(context.WithoutCancel(ctx), n); err != nil {
		m.Log.Error("give the addresses of a network back", "network", n.Name, "err", err)
	}
	return n, nil
}

// remove is Remove up to what others have to do; they are nil when there are none.
func (m *Manager) remove(ctx context.Context, ref string) (Network, External, error) {
	m.op.Lock()
	defer m.op.Unlock()
	n, err := m.x.find(ref)
	if err != nil {
		return Network{}, nil, err
	}
	if err := m.removable(n); err != nil {
		return *n, nil, err
	}
	if n.Global() {
		return *n, nil, nil
	}
	if x, ok := m.external(n); ok {
		now, err := m.mark(ctx, *n, true)
		return now, x, err
	}
	return *n, nil, m.drop(ctx, n)
}

// drop takes away a network that nobody is on. op is held.
func (m *Manager) drop(ctx context.Context, n *Network) error {
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		networks.Delete(tx, n.ID)
		v6 := m.x.ipv6 > 1 || (m.x.ipv6 == 1 && !n.IPv6)
		return map[string]netspec.State{networkUnit(n.ID): nil, machineUnit: m.planner().machine(v6)}, nil
	})
	if err != nil {
		return fmt.Errorf("error while removing network: %w", err)
	}
	m.forget(n)
	m.tell(events.ActionDestroy, *n, "")
	return nil
}

// moveDefault takes the default network away when the configuration gives it another
// subnet by now, so that it is made again. op is held.
func (m *Manager) moveDefault(ctx context.Context) error {
	n, ok := m.x.networks[m.x.names[NameBridge]]
	want := m.Config.Subnet
	if !ok || !want.IsValid() || slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.Subnet == want.Masked() }) {
		return nil
	}
	if users := m.x.active(n.ID); users != "" {
		m.Log.Warn("network.subnet is followed at the next start without containers on the default network", "subnet", want, "containers", users)
		return nil
	}
	return m.drop(ctx, n)
}

func (m *Manager) removable(n *Network) error {
	if Predefined(n.Name) {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("%s is a pre-defined network and cannot be removed", n.Name))
	}
	if m.underway[n.ID] {
		return fmt.Errorf("network %s is being made or removed: %w", n.Name, errdefs.ErrUnavailable)
	}
	if len(m.x.users[n.ID]) > 0 {
		return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("error while removing network: network %s has active endpoints (%s)", n.Name, m.x.active(n.ID)))
	}
	if !n.ConfigOnly {
		return nil
	}
	for _, other := range m.x.networks {
		if other.ConfigFrom == n.Name {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("configuration network %q is in use", n.Name))
		}
	}
	return nil
}

func (m *Manager) forget(n *Network) {
	s, _ := m.planner().network(*n) // it could be planned when it was made
	m.mu.Lock()
	m.x.dropNetwork(n, s)
	delete(m.x.users, n.ID)
	m.mu.Unlock()
	if !n.ConfigOnly {
		for _, p := range n.Pools {
			m.IPAM.Drop(p.Subnet)
		}
		m.openClosed()
	}
	if m.DNS != nil {
		m.DNS.DropZone(n.ID)
	}
}
