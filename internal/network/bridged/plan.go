package bridged

import (
	"errors"
	"net/netip"
	"slices"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/firewall"
	"isle/internal/network/publish"
)

// plan is one network on one host.
type plan struct {
	network.Network
	host network.Host
	o    Options
	link string // the bridge
	mtu  int
}

// Plan adds to s what n and its endpoints need on host.
func Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host, o Options) error {
	p := plan{n, host, o, o.Link, mtu(n, o)}
	p.bridge(s)
	for _, ep := range eps {
		if err := p.endpoint(s, ep); err != nil {
			return err
		}
	}
	return nil
}

// mtu is the user's, else that of the way out. Where that is too narrow for IPv6
// the network keeps its IPv6: path MTU discovery does the rest.
func mtu(n network.Network, o Options) int {
	switch {
	case o.MTU != 0:
		return o.MTU
	case n.IPv6 && o.Way != 0:
		return max(o.Way, network.LeastIPv6MTU)
	}
	return o.Way
}

// Name is a bridge's: the prefix, a dash and as much of the id as fits.
func Name(prefix, id string) string {
	name := prefix + "-" + ids.Short(id)
	return name[:min(len(name), 15)]
}

func (p plan) bridge(s netspec.State) {
	s.Add(netspec.Link{Name: p.link, Kind: netspec.Bridge, MTU: p.mtu, MAC: network.GatewayMAC(p.ID)})
	if p.host.Guard {
		s.Add(netspec.Guard{Link: p.link, Internal: p.Internal})
	}
	for _, pool := range p.Pools {
		if p.hasAddress(pool) {
			s.Add(netspec.Addr{Link: p.link, Prefix: netip.PrefixFrom(pool.Gateway, pool.Subnet.Bits())})
		}
		s.Add(firewall.Segment(p.link, pool.Subnet, p.policy(pool))...)
	}
	p.lan(s, netspec.Segment{Link: p.link})
	p.wide(s)
	p.ipv6(s, "", p.link, p.IPv6)
}

// lan lets frames pass on a bridge whose subnet only the LAN knows: br_netfilter shows
// them to the firewall.
func (p plan) lan(s netspec.State, whole netspec.Segment) {
	if p.OnLAN() {
		s.Add(whole)
	}
}

// hasAddress reports whether the bridge has the pool's gateway for its own.
func (p plan) hasAddress(pool network.Pool) bool {
	v4 := pool.Gateway.Is4()
	return pool.Gateway.IsValid() && p.o.mode(v4) != Isolated && !(p.o.InhibitIPv4 && v4)
}

func (p plan) policy(pool network.Pool) firewall.Policy {
	m := p.o.mode(pool.Subnet.Addr().Is4())
	f := firewall.Policy{Masquerade: p.o.Masquerade && m != Routed, Internal: p.Internal}
	switch {
	case p.Internal:
	case m == Unprotected:
		f.Access = netspec.AccessDirect
	case m == Routed:
		f.Access = netspec.AccessOpen
	default:
		f.Trusted = p.o.Trusted
	}
	return f
}

// ipv6 sets how an interface is to take IPv6: not at all on a network without
// it, else without believing advertisements.
func (p plan) ipv6(s netspec.State, ns netspec.NS, link string, on bool) {
	if !p.host.IPv6 {
		return
	}
	conf := func(name, v string) netspec.Sysctl {
		return netspec.Sysctl{NS: ns, Name: "ipv6/conf/" + link + "/" + name, Value: v}
	}
	if !on {
		s.Add(conf("disable_ipv6", "1"))
		return
	}
	s.Add(conf("disable_ipv6", "0"), conf("accept_ra", "0"))
}

func (p plan) endpoint(s netspec.State, ep network.Endpoint) error {
	ns := ep.NS()
	mtu, err := p.endpointMTU(ep)
	if err != nil {
		return err
	}
	p.announce(s, ep)
	s.Add(netspec.Link{
		Name: ep.HostInterface, Kind: netspec.Veth, MTU: mtu, Master: p.master(ep.Leaf), Isolated: !p.o.ICC, Hairpin: true,
		PeerNS: ns, Peer: ep.Interface, PeerMAC: ep.MAC,
	})
	for _, a := range ep.Addrs {
		s.Add(netspec.Addr{NS: ns, Link: ep.Interface, Prefix: a})
	}
	for _, a := range ep.LinkLocal {
		s.Add(netspec.Addr{NS: ns, Link: ep.Interface, Prefix: a})
	}
	if err := errors.Join(p.sysctls(s, ep), p.sources(s, ep)); err != nil {
		return err
	}
	if !p.Internal {
		p.publish(s, ep)
	}
	return nil
}

// publish gives the endpoint its ports of the host, and opens its own where
// others are let in to them.
func (p plan) publish(s netspec.State, ep network.Endpoint) {
	t := publish.Target{V4: ep.Addr(true), V6: ep.Addr(false), Link: p.link}
	var open []firewall.Ports
	for _, m := range ep.Publish {
		if to := t.Any(m.HostIP); to.IsValid() && p.o.mode(to.Is4()) != Routed {
			s.Add(publish.Plan(publish.Mapping(m), t, p.host.SockAddr)...)
		}
	}
	for _, m := range slices.Concat(ep.Publish, ep.Open) {
		if to := t.For(m.HostIP); to.IsValid() && !m.HostIP.IsLoopback() && p.opens(to.Is4()) {
			open = append(open, ports(publish.Mapping(m), to)...)
		}
	}
	s.Add(firewall.Open(p.link, open)...)
}

// opens reports whether anybody is let in to the containers' own addresses.
func (p plan) opens(v4 bool) bool {
	m := p.o.mode(v4)
	return m == Routed || m == NAT && len(p.o.Trusted) > 0
}

// ports are those of m at the container's own address, for whom m is for.
func ports(m publish.Mapping, to netip.Addr) (out []firewall.Ports) {
	all := firewall.Ports{To: to, Proto: m.Proto, First: m.ContainerPort, Count: m.Count}
	from, limited := m.Sources()
	if !limited {
		return []firewall.Ports{all}
	}
	for _, all.From = range from {
		out = append(out, all)
	}
	return out
}

// sysctls are the interface's: the user's go before ours.
func (p plan) sysctls(s netspec.State, ep network.Endpoint) error {
	users, err := ep.InterfaceSysctls()
	if err != nil {
		return err
	}
	mine := netspec.State{}
	p.ipv6(mine, ep.NS(), ep.Interface, p.IPv6 && ep.HasIPv6())
	if p.Global() { // the cluster may give it another address: else that goes with the one that it follows
		mine.Add(netspec.Sysctl{NS: ep.NS(), Name: "ipv4/conf/" + ep.Interface + "/promote_secondaries", Value: "1"})
	}
	for name, v := range users {
		sc := netspec.Sysctl{NS: ep.NS(), Name: name, Value: v}
		mine[sc.Key()] = sc
	}
	for _, o := range mine {
		s.Add(o)
	}
	return nil
}
