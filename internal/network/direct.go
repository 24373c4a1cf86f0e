package network

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// This file is about hosts to which containers need no tunnel. The tunnel is there all
// the same, and so is all that leads by it: it is the way as long as nobody knows better.
// That a host is near is a fact that the routes say. That what containers send gets there
// they do not: who owns the wire may drop what has an address that he did not give out.
// So it is tried, and tried again all the time.

// Scout finds out whether what has addresses of containers gets to other hosts.
type Scout interface {
	// Proven are the hosts that it got to when that was tried last, also by a process before.
	Proven() []string
	// Run tries what is wanted, again and again, until ctx ends, and tells what has changed.
	Run(ctx context.Context, want func() Errand, tell func(host string, gets bool))
}

// Errand is what a Scout is to find out.
type Errand struct {
	Known   bool       // the cluster was heard of; otherwise the rest is not complete
	Self    string     // this host
	Addr    netip.Addr // its own
	Link    string     // the interface that has it
	Targets []Target
}

// Target is a host that containers may need no tunnel to.
type Target struct {
	Host string
	Addr netip.Addr
	// From is the address of a container here, and To one that the other host itself has
	// on their network: the wire between knows neither. What comes from outside for the
	// latter every host drops, so that nobody else hears of it.
	From, To netip.Addr
}

func (m *Manager) provenBefore() map[string]bool {
	out := map[string]bool{}
	if m.Scout != nil {
		for _, h := range m.Scout.Proven() {
			out[h] = true
		}
	}
	return out
}

// near are the hosts next to this one.
func (m *Manager) near(ctx context.Context, t Tunnel) (string, error) {
	if t.Link == "" {
		return "", nil
	}
	var addrs []netip.Addr
	for id, h := range m.cluster.far.hosts {
		if id != m.cluster.far.self && usableHost(h) && h.Addr.Is4() == t.Addr.Is4() {
			addrs = append(addrs, h.Addr)
		}
	}
	list, err := m.Machine.NextTo(ctx, t.Link, addrs)
	if err != nil {
		return "", fmt.Errorf("look which hosts are next to this one: %w", err)
	}
	return Near(list), nil
}

// meet looks whether a host that is new, or has another address, is near.
func (m *Manager) meet(ctx context.Context, id string) {
	h, ok := m.cluster.far.hosts[id]
	t := &m.host.Tunnel
	if !ok || id == m.cluster.far.self || t.Link == "" || !usableHost(h) || h.Addr.Is4() != t.Addr.Is4() || t.NextTo(h.Addr) {
		return
	}
	list, err := m.Machine.NextTo(ctx, t.Link, []netip.Addr{h.Addr})
	if err != nil {
		m.Log.Warn("look whether a host is next to this one", "host", h.Name, "err", err)
		return
	}
	t.Near = Near(append(t.near(), list...))
}

// Errand is what is worth finding out now: for each host that is near one network that
// it shares with this one, whichever there are.
func (m *Manager) Errand(ctx context.Context) Errand {
	m.lookForBars(ctx)
	m.op.Lock()
	defer m.op.Unlock()
	f, t := &m.cluster.far, m.host.Tunnel
	e := Errand{Known: m.cluster.known, Self: f.self, Addr: t.Addr, Link: t.Link}
	if !m.host.Sources { // nothing could be handed to the host
		return e
	}
	found := map[string]bool{}
	for _, n := range m.directs() {
		if !m.unbarred(n.ID) {
			continue
		}
		from, to := m.someone(n.ID, t.Addr.Is4()), n.gateway(t.Addr.Is4())
		for id, h := range f.hosts {
			if id == f.self || found[id] || !from.IsValid() || !to.IsValid() || f.counts[seat{n.ID, id}] == 0 || !t.NextTo(h.Addr) {
				continue
			}
			if _, leads := f.leads(id); leads {
				found[id] = true
				e.Targets = append(e.Targets, Target{id, h.Addr, from, to})
			}
		}
	}
	return e
}

// someone is the address of a container here on a network.
func (m *Manager) someone(network string, v4 bool) netip.Addr {
	for _, pl := range m.x.users[network] {
		if a := pl.Addr(v4); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// directs are the networks here that need no tunnel to hosts that are near.
func (m *Manager) directs() (out []*Network) {
	for _, id := range slices.Sorted(maps.Keys(m.x.networks)) {
		n := m.x.networks[id]
		if !n.Global() || n.Idle {
			continue
		}
		if d, err := m.sharedDriver(*n); err == nil && d.Direct(*n) {
			out = append(out, n)
		}
	}
	return out
}

func (n Network) gateway(v4 bool) netip.Addr {
	for _, p := range n.Pools {
		if p.Gateway.IsValid() && p.Gateway.Is4() == v4 {
			return p.Gateway
		}
	}
	return netip.Addr{}
}

// Gets notes whether what containers send gets to a host, and has it go the way that
// follows. Run calls it.
func (m *Manager) Gets(ctx context.Context, host string, gets bool) {
	m.op.Lock()
	defer m.op.Unlock()
	if m.cluster.proven[host] == gets {
		return
	}
	delete(m.cluster.proven, host)
	if gets {
		m.cluster.proven[host] = true
	}
	way := "by tunnels"
	if gets {
		way = "directly"
	}
	m.Log.Info(fmt.Sprintf("networks that are direct reach a host %s now", way), "host", m.cluster.far.hosts[host].Name)
	touched := newNews()
	for _, n := range m.directs() {
		for _, id := range m.cluster.far.at(n.ID, host) {
			touched.endpoint(m.cluster.far.trace(id))
		}
	}
	m.replanFar(ctx, touched)
}

// scout runs the Scout, where there is one.
func (m *Manager) scout(ctx context.Context) {
	if m.Scout != nil && m.Fabric != nil {
		m.Scout.Run(ctx, func() Errand { return m.Errand(ctx) }, func(host string, gets bool) { m.Gets(ctx, host, gets) })
	}
}

// Ways of a network to another host.
const (
	WayDirect = "direct"
	WayTunnel = "tunnel"
)

// wayTo is how n reaches another host now.
func (m *Manager) wayTo(n Network, host string) string {
	m.op.Lock()
	defer m.op.Unlock()
	d, err := m.sharedDriver(n)
	h := m.cluster.far.hosts[host]
	if err == nil && d.Direct(n) && m.host.Sources && m.host.Tunnel.NextTo(h.Addr) && m.cluster.proven[host] {
		return WayDirect
	}
	return WayTunnel
}
