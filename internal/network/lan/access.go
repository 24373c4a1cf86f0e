package lan

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"isle/internal/netspec"
	"isle/internal/network"
)

// The kernel passes nothing between an interface and the links on it. So the host
// gets a link of its own there, the shim, without an address, and a route through
// it to each container, with the host's own address as source:
//
//	container  eth0 ═╗                      ╔═ shim ── 10.0.0.7/32, 10.0.0.8/32
//	container  eth0 ═╬═ eth0, the parent ═══╣
//	                 ║                      ╚═ the host's own address
//	                LAN
//
// Nobody asks for the other by ARP or neighbour discovery: the LAN would hear the
// host's address at two places. Both have it in writing. In the modes of ipvlan
// that route nobody needs it.

// shim is the host's link on the parent, one for all networks there.
func (p plan) shim(s netspec.State) {
	name := p.shimName()
	l := p.link("", name, p.up.MTU)
	if l.Kind == netspec.Macvlan {
		l.MAC = p.shimMAC()
	}
	s.Add(l, netspec.Sysctl{Name: "ipv4/conf/" + name + "/arp_ignore", Value: "8"})
	if p.host.IPv6 {
		for setting, v := range map[string]string{"disable_ipv6": "0", "addr_gen_mode": "1", "accept_ra": "0"} {
			s.Add(netspec.Sysctl{Name: "ipv6/conf/" + name + "/" + setting, Value: v})
		}
	}
}

func (p plan) shimName() string {
	h := sha256.Sum256([]byte(p.o.Kind + " " + p.up.name))
	return p.host.LinkPrefix + "s" + hex.EncodeToString(h[:4])
}

// shimMAC is another one on each host: hosts of one LAN have parents of one name.
func (p plan) shimMAC() netspec.MAC {
	h := sha256.Sum256(append([]byte("shim "+p.up.name), p.up.MAC[:]...))
	m := netspec.MAC(h[:6])
	m[0] = 0x02
	return m
}

// access is the way from the host to ep and back.
func (p plan) access(s netspec.State, ep network.Endpoint) {
	for _, a := range ep.Addrs {
		if src := p.hostAddr(a.Addr()); src.IsValid() && (!ep.Leased() || near(a, src)) {
			p.to(s, ep, a.Addr(), src)
			p.back(s, ep, a, src)
		}
	}
}

// near reports whether an address that the LAN gave is where the host is. A server
// that gave the address of somebody far away would have the host's own packets to it.
func near(a netip.Prefix, host netip.Addr) bool {
	if a.Addr().Is4() {
		return a.Bits() >= 8 && a.Contains(host) && a.Addr() != host
	}
	return netip.PrefixFrom(a.Addr(), 64).Contains(host) && a.Addr() != host
}

// hostAddr is the host's own on the parent, of a's family.
func (p plan) hostAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return p.up.Addr4
	}
	return p.up.Addr6
}

// to is the host's way.
func (p plan) to(s netspec.State, ep network.Endpoint, a, src netip.Addr) {
	name := p.shimName()
	s.Add(netspec.Route{Dst: single(a), Dev: name, Src: src})
	switch {
	case p.o.routes():
	case p.o.Kind == netspec.Macvlan:
		s.Add(netspec.Neigh{Link: name, Addr: a, MAC: ep.MAC})
	default:
		s.Add(netspec.Neigh{Link: name, Addr: a, MAC: p.up.MAC})
	}
}

// back is the container's way, also to a host that has no address in its subnet.
func (p plan) back(s netspec.State, ep network.Endpoint, a netip.Prefix, src netip.Addr) {
	if p.o.routes() {
		return
	}
	mac := p.up.MAC
	if p.o.Kind == netspec.Macvlan {
		mac = p.shimMAC()
	}
	s.Add(netspec.Neigh{NS: ep.NS(), Link: ep.Interface, Addr: src, MAC: mac})
	if !a.Contains(src) {
		s.Add(netspec.Route{NS: ep.NS(), Dst: single(src), Dev: ep.Interface})
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
