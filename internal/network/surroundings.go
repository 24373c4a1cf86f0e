package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network/doctor"
	"isle/internal/network/exposure"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
)

// Exposure lists what of the containers can be reached from outside of the host,
// as the packet filters of others let it.
func (m *Manager) Exposure(ctx context.Context) ([]exposure.Exposed, error) {
	h, err := m.surroundings(ctx)
	if err != nil {
		return nil, err
	}
	networks, containers := m.plans()
	if err := m.lost(ctx, containers); err != nil {
		return nil, err
	}
	return exposure.List(h.Host, networks, containers), nil
}

// Doctor finds what on this host keeps containers from being reached, or from
// reaching others.
func (m *Manager) Doctor(ctx context.Context) ([]doctor.Finding, error) {
	h, err := m.surroundings(ctx)
	if err != nil {
		return nil, err
	}
	overlaps, err := m.Overlaps(ctx)
	if err != nil {
		return nil, err
	}
	h.Overlaps = map[string][]string{}
	m.mu.RLock()
	for id, list := range overlaps {
		for _, f := range list {
			h.Overlaps[m.networkName(id)] = append(h.Overlaps[m.networkName(id)], f.String())
		}
	}
	h.Removed = m.x.removed()
	for _, u := range m.Ports.Unheld() {
		h.Unheld = append(h.Unheld, doctor.Unheld{Container: m.x.containerName(u.Owner), Proto: u.Proto, Port: u.HostPort, Count: u.Count, Err: u.Err})
	}
	m.mu.RUnlock()
	networks, containers := m.plans()
	if err := m.lost(ctx, containers); err != nil {
		return nil, err
	}
	h.NeedForwarding = len(networks) > 0
	return doctor.Examine(h, networks, containers), nil
}

// lost notes what of the containers' own namespaces is not as it was made. Nobody
// watches those: what is found is put right soon.
func (m *Manager) lost(ctx context.Context, containers []exposure.Container) error {
	m.op.Lock()
	defer m.op.Unlock()
	want, scope := netspec.State{}, reconcile.Scope{Host: true}
	for id, sb := range m.x.sandboxes {
		if sb.NS != "" {
			maps.Copy(want, m.units[sandboxUnit(id)])
			scope.Namespaces = append(scope.Namespaces, sb.NS)
		}
	}
	changes, err := reconcile.DiffSome(ctx, m.Kernel, scope, want)
	if err != nil {
		return fmt.Errorf("look into the containers' namespaces: %w", err)
	}
	for _, c := range changes {
		if i := slices.IndexFunc(containers, func(x exposure.Container) bool { return x.Has(c.New) }); i >= 0 {
			containers[i].Lost = append(containers[i].Lost, missing(c))
			m.resync()
		}
	}
	return nil
}

// missing is what a change would put right: an address that is there says what it
// lacks.
func missing(c reconcile.Change) netspec.Object {
	if a, ok := c.Old.(netspec.Addr); ok {
		return a
	}
	return c.New
}

func (m *Manager) surroundings(ctx context.Context) (doctor.Host, error) {
	if m.Surroundings == nil {
		return doctor.Host{}, fmt.Errorf("look at the firewalls of this host: %w", errdefs.ErrNotImplemented)
	}
	h, err := m.Surroundings(ctx)
	if err != nil {
		return h, fmt.Errorf("look at the firewalls of this host: %w", err)
	}
	return h, nil
}

// plans are what networks and containers are meant to be, in order.
func (m *Manager) plans() (networks []exposure.Network, containers []exposure.Container) {
	m.op.Lock()
	defer m.op.Unlock()
	for id, n := range m.x.networks {
		if s := m.units[networkUnit(id)]; len(s) > 0 {
			networks = append(networks, exposure.Network{Name: n.Name, State: maps.Clone(s)})
		}
	}
	for id, sb := range m.x.sandboxes {
		containers = append(containers, exposure.Container{
			Name: m.x.containerName(id), State: maps.Clone(m.units[sandboxUnit(id)]), Relayed: sb.relayed(), HostMode: sb.NS == "",
		})
	}
	slices.SortFunc(networks, func(a, b exposure.Network) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(containers, func(a, b exposure.Container) int { return cmp.Compare(a.Name, b.Name) })
	return networks, containers
}

// relayed are the ports that the socket which holds them passes on: those on an
// address of the host of a family that the container has not (see forward).
func (sb *sandbox) relayed() (out []exposure.Relay) {
	for _, pl := range sb.places {
		t := publish.Target{V4: pl.Addr(true), V6: pl.Addr(false)}
		for _, p := range pl.Publish {
			to := t.Any(p.HostIP)
			from, limited := publish.Mapping(p).Sources()
			if t.For(p.HostIP).IsValid() || !to.IsValid() || pl.net.routed(to.Is4()) || p.Proto == "sctp" || limited && len(from) == 0 {
				continue
			}
			out = append(out, exposure.Relay{From: from, Publish: netspec.Publish{
				Proto: p.Proto, HostIP: p.HostIP, Iface: p.Iface, HostPort: p.HostPort, Count: p.Count, To: to, ToPort: p.ContainerPort,
			}})
		}
	}
	return out
}
