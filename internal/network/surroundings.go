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
)

// Exposure lists what of the containers can be reached from outside of the host,
// as the packet filters of others let it.
func (m *Manager) Exposure(ctx context.Context) ([]exposure.Exposed, error) {
	h, err := m.surroundings(ctx)
	if err != nil {
		return nil, err
	}
	networks, containers := m.plans()
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
	for _, u := range m.Ports.Unheld() {
		h.Unheld = append(h.Unheld, doctor.Unheld{Container: m.x.containerName(u.Owner), Proto: u.Proto, Port: u.HostPort, Count: u.Count, Err: u.Err})
	}
	m.mu.RUnlock()
	networks, containers := m.plans()
	h.NeedForwarding = len(networks) > 0
	return doctor.Examine(h, networks, containers), nil
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
