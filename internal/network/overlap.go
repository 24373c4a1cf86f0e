package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"isle/internal/network/ipam"
)

// Overlaps are the networks, by id, whose subnets something else on this machine
// uses by now, with what that is: a VPN whose routes came later, a LAN that the
// machine was taken to. Containers of such a network do not reach the others who
// have those addresses, or the host does not.
func (m *Manager) Overlaps(ctx context.Context) (map[string][]ipam.Foreign, error) {
	others, err := m.Machine.Foreign(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at what others use on this host: %w", err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := map[string][]ipam.Foreign{}
	for id, n := range m.x.networks {
		if n.OnLAN() { // its addresses are the LAN's
			continue
		}
		list := slices.DeleteFunc(n.overlaps(others), func(f ipam.Foreign) bool { return f.What == ipam.NameServer && m.x.lives(n, f.Prefix.Addr()) })
		if len(list) > 0 {
			out[id] = list
		}
	}
	return out, nil
}

// halfOfAll is the length of the routes that VPNs cut a default route into:
// everything overlaps with those.
const halfOfAll = 1

func (n *Network) overlaps(others []ipam.Foreign) (list []ipam.Foreign) {
	if n.ConfigOnly {
		return nil
	}
	for _, f := range others {
		if f.Prefix.Bits() > halfOfAll && slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.Subnet.Overlaps(f.Prefix) }) {
			list = append(list, f)
		}
	}
	return list
}

// lives reports whether the host, or a container, has an address on n: the name
// server of the host may be one of those.
func (x *index) lives(n *Network, a netip.Addr) bool {
	for _, pl := range x.users[n.ID] {
		if pl.Addr(a.Is4()) == a {
			return true
		}
	}
	return slices.ContainsFunc(n.Pools, func(pool Pool) bool { return pool.Gateway == a })
}

// warnOverlaps logs each overlap once, when it comes up.
func (m *Manager) warnOverlaps(ctx context.Context) error {
	all, err := m.Overlaps(ctx)
	if err != nil {
		return err
	}
	now := map[string]bool{}
	for id, list := range all {
		for _, f := range list {
			key := id + " " + f.String()
			if now[key] = true; !m.overlapping[key] {
				m.Log.Warn("a network's subnet is used by something else on this host", "network", m.networkName(id), "by", f.String(),
					"hint", "isle network doctor says how it gets another subnet")
			}
		}
	}
	m.overlapping = now
	return nil
}
