package overlay

import (
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
	to := p.way(r)
	s.Add(netspec.FDB{Link: p.name(), MAC: r.Endpoint.MAC, Dst: to.Addr, Via: to.Link})
	for _, a := range r.Endpoint.Addrs {
		if a.Addr().Is4() || p.IPv6 && host.IPv6 {
			s.Add(netspec.Neigh{Link: p.bridge().Link, Addr: a.Addr(), MAC: r.Endpoint.MAC})
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
	to := p.way(r)
	s.Add(netspec.Flood{Link: p.name(), Dst: to.Addr, Via: to.Link})
	return nil
}

// reaches reports whether there is a tunnel to a host: its ends must be of one family,
// and both must encrypt where that is wanted.
func (p plan) reaches(r network.Remote) bool {
	to := p.way(r)
	return p.begins() && to.Addr.IsValid() && (p.o.Encrypted || to.Addr.Is4() == p.local().Is4())
}

// way is that of the tunnel to a host.
func (p plan) way(r network.Remote) network.Way {
	if p.o.Encrypted {
		return r.Sealed
	}
	return network.Way{Addr: r.Host.Addr}
}
