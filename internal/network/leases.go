package network

import (
	"maps"
	"net/netip"
	"slices"

	"isle/internal/netspec"
	"isle/internal/network/dhcp"
)

// IPAMDHCP is the IPAM driver of networks whose addresses others give out: the DHCP
// servers and routers of the LAN that they are on.
const IPAMDHCP = "dhcp"

// Family is a family of addresses that an endpoint asks its LAN for.
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// wishes are the leases that an endpoint of n is to have. None is there yet.
func (d draft) wishes() map[Family]*dhcp.Lease {
	if d.net.IPAMDriver != IPAMDHCP {
		return nil
	}
	out := map[Family]*dhcp.Lease{}
	if d.net.IPv4 {
		out[IPv4] = nil
	}
	if d.net.IPv6 && !d.noIPv6 {
		out[IPv6] = nil
	}
	return out
}

// Leased reports whether e has its addresses from the LAN.
func (e Endpoint) Leased() bool { return len(e.Leases) > 0 }

// held are e's leases in an order that is always the same.
func (e Endpoint) held() (out []*dhcp.Lease) {
	for _, f := range slices.Sorted(maps.Keys(e.Leases)) {
		if l := e.Leases[f]; l != nil {
			out = append(out, l)
		}
	}
	return out
}

// LeaseMTU is what the LAN says that its links take; 0: it does not.
func (e Endpoint) LeaseMTU() (mtu int) {
	for _, l := range e.held() {
		if l.MTU != 0 && (mtu == 0 || l.MTU < mtu) {
			mtu = l.MTU
		}
	}
	return mtu
}

// router is the way out that the LAN names.
func (e Endpoint) router(v4 bool) netip.Addr {
	for _, l := range e.held() {
		for _, r := range l.Routes {
			if r.Dest.Bits() == 0 && r.Dest.Addr().Is4() == v4 {
				return r.Via
			}
		}
	}
	return netip.Addr{}
}

// learned are the other routes that the LAN names, without those that the kernel
// makes with the addresses.
func (e Endpoint) learned() (out []netspec.Route) {
	for _, l := range e.held() {
		for _, r := range l.Routes {
			dst := r.Dest.Masked()
			made := slices.ContainsFunc(e.Addrs, func(a netip.Prefix) bool { return a.Masked() == dst && !a.IsSingleIP() })
			if dst.Bits() > 0 && !made {
				out = append(out, netspec.Route{NS: e.NS(), Dst: dst, Via: r.Via, Dev: e.Interface, OnLink: e.beyond(r.Via)})
			}
		}
	}
	return out
}

// beyond reports whether a router is in none of e's subnets: that it is on the link
// all the same is the word of those who named it.
func (e Endpoint) beyond(router netip.Addr) bool {
	return (e.Leased() || e.Result != nil) && router.IsValid() && !router.IsLinkLocalUnicast() &&
		!slices.ContainsFunc(e.Addrs, func(a netip.Prefix) bool { return a.Contains(router) })
}

// learned adds the routes of the LANs to s. They come from outside: what is there
// by the user's wish, or by another network's, stays.
func (p planner) learned(s netspec.State, places []place) {
	for _, pl := range places {
		if d, err := p.driver(*pl.net); err != nil || p.away(d, *pl.net) {
			continue
		}
		for _, r := range pl.learned() {
			if _, ok := s[r.Key()]; !ok {
				s.Add(r)
			}
		}
	}
}
