package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// DriverLAN is no driver: it stands for the one that an interface of the host allows.
const DriverLAN = "lan"

// DriverNames are what the driver of a new network may be, sorted.
func (m *Manager) DriverNames() []string {
	names := append(slices.Collect(maps.Keys(m.Drivers)), DriverLAN)
	slices.Sort(names)
	return names
}

// KnowsDriver reports whether there may be a driver of that name: of those that others
// are, it is known when a network is made.
func (m *Manager) KnowsDriver(name string) bool {
	_, ok := m.drivers().find(name)
	return ok || name == DriverLAN
}

// front turns a wish for "a network of the LAN" into one for a network of macvlan or
// ipvlan: its interface is the one that is given, or that the network is named after,
// or that the host's default route leads over.
func (m *Manager) front(ctx context.Context, req network.CreateRequest) (network.CreateRequest, error) {
	if req.Driver != DriverLAN {
		return req, nil
	}
	h, err := m.Machine.Host(ctx)
	if err != nil {
		return req, fmt.Errorf("look at this host's network: %w", err)
	}
	name, p, err := h.parentFor(req)
	if err != nil {
		return req, fmt.Errorf("network %s: %w", req.Name, err)
	}
	opts := maps.Clone(req.Options)
	if opts == nil {
		opts = map[string]string{}
	}
	opts[OptParent] = name
	opts[OptHostAccess] = cmp.Or(opts[OptHostAccess], fmt.Sprint(!req.Internal))
	req.Options, req.Driver, req.IPAM = opts, m.kindFor(name, p), leasedUnlessStatic(req.IPAM)
	return req, nil
}

// leasedUnlessStatic has the LAN give out the addresses when nobody says which ones
// containers may have.
func leasedUnlessStatic(c *network.IPAM) *network.IPAM {
	switch {
	case c == nil:
		return &network.IPAM{Driver: IPAMDHCP}
	case len(c.Config) > 0 || c.Driver != "" && c.Driver != "default":
		return c
	}
	return &network.IPAM{Driver: IPAMDHCP, Options: c.Options}
}

// parentFor is the interface that req means, and what of the host it is or is on.
func (h Host) parentFor(req network.CreateRequest) (string, Parent, error) {
	if name := req.Options[OptParent]; name != "" {
		p, ok := h.below(name)
		if !ok {
			return name, p, fmt.Errorf("parent interface %s is not there: %w", name, errdefs.ErrUnavailable)
		}
		return name, p, nil
	}
	if p, ok := h.below(req.Name); ok {
		return req.Name, p, nil
	}
	for line := range strings.Lines(h.Parents) {
		name, _, _ := strings.Cut(line, "\t")
		if p, ok := h.Parent(name); ok && p.Way {
			return name, p, nil
		}
	}
	return "", Parent{}, fmt.Errorf("this host has no default route, so the interface must be named (hint: -o parent=eth0): %w", errdefs.ErrInvalidArgument)
}

// below is the interface of that name, or that it would be a VLAN on.
func (h Host) below(name string) (Parent, bool) {
	for {
		if p, ok := h.Parent(name); ok {
			return p, true
		}
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			return Parent{}, false
		}
		name = name[:i]
	}
}

// kindFor is macvlan, or ipvlan where macvlan cannot be: a wireless network takes
// frames from one address only, and the kernel has one kind on an interface.
func (m *Manager) kindFor(name string, p Parent) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, n := range m.x.networks {
		if n.OnLAN() && n.Options[OptParent] == name {
			return n.Driver
		}
	}
	if p.Wireless {
		return DriverIPvlan
	}
	return DriverMacvlan
}
