package overlay

import (
	"net/netip"

	"isle/internal/netspec"
	"isle/internal/network"
)

// PlanRemote implements network.Shared: behind which end of the tunnel the endpoint is,
// and the answer to whoever asks for its addresses.
func (Driver) PlanRemote(s netspec.State, n network.Network, r network.Remote, host network.Host) error {
	p, err := newPlan(n, host)
	if err != nil || !p.reaches(r) {
		return err
	}
	to := p.passage(r)
	s.Add(netspec.FDB{Link: p.name(), MAC: r.Endpoint.MAC, Dst: to.Addr, Via: to.Link})
	for _, a := range r.Endpoint.Addrs {
		if a.Addr().Is4() || p.IPv6 && host.IPv6 {
			s.Add(netspec.Neigh{Link: p.bridge().Link, Addr: a.Addr(), MAC: r.Endpoint.MAC})
			p.pass(s, r, a.Addr())
		}
	}
	return nil
}

// PlanPeer implements network.Shared: it gets a copy of what is for all.
func (Driver) PlanPeer(s netspec.State, n network.Network, r network.Remote, host network.Host) error {
	p, err := newPlan(n, host)
	if err != nil || !p.reaches(r) {
		return err
	}
	to := p.passage(r)
	s.Add(netspec.Flood{Link: p.name(), Dst: to.Addr, Via: to.Link})
	return nil
}

// reaches reports whether there is a tunnel to a host: its ends must be of one family,
// and both must encrypt where that is wanted.
func (p plan) reaches(r network.Remote) bool { return p.begins() && p.joins(r) }

// joins reports whether a tunnel of this way could be between the two.
func (p plan) joins(r network.Remote) bool {
	to := p.passage(r)
	return p.opens() && to.Addr.IsValid() && (p.o.Encrypted || to.Addr.Is4() == p.local().Is4())
}

// passage is that of the tunnel to a host.
func (p plan) passage(r network.Remote) network.Passage {
	if p.o.Encrypted {
		return r.Sealed
	}
	return network.Passage{Addr: r.Host.Addr}
}

// pass adds what leads to an address past the tunnel, and lets it come from there. It
// may come as soon as its host finds that out, whatever is known here; and only when it
// is known here that it gets there does anything go.
func (p plan) pass(s netspec.State, r network.Remote, a netip.Addr) {
	under := p.host.Tunnel
	if !p.o.Direct || !p.host.Sources || under.Link == "" || a.Is4() != under.Addr.Is4() {
		return
	}
	br := p.bridge().Link
	s.Add(netspec.Across{Link: br, Addr: a, Way: under.Link})
	if !under.NextTo(r.Host.Addr) {
		return
	}
	s.Add(netspec.Hop{To: a, Via: r.Host.Addr, Dev: under.Link})
	if r.Proven {
		s.Add(netspec.Shortcut{Link: br, Addr: a, MAC: r.Endpoint.MAC, Gateway: network.GatewayMAC(p.ID)})
	}
}
