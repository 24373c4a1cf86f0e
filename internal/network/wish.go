package network

import (
	"net/netip"
	"slices"

	"isle/internal/netspec"
)

// Wish is what the user asked of an endpoint that has its interface or its addresses
// from others. They may not be able to give it.
type Wish struct {
	Addrs  []netip.Addr `json:",omitempty"`
	MAC    netspec.MAC  // zero: any
	NoIPv6 bool         `json:",omitempty"`
	DNS    ResultDNS    // how the container resolves names; what is told of it are the servers
}

// Granted are addresses that an ExternalIPAM gave, each of the pool of its name.
type Granted struct {
	Pool string
	Addr netip.Prefix
}

// Later reports whether e has its addresses from others, after it was written down.
func (e Endpoint) Later() bool { return e.Leased() || e.Wish != nil }

// follow gives e the addresses that others gave it.
func (e *Endpoint) follow() {
	switch {
	case e.Leased():
		e.Addrs = nil
		for _, l := range e.held() {
			for _, a := range l.Addresses {
				e.Addrs = append(e.Addrs, a.Prefix)
			}
		}
	case e.Result != nil:
		e.Addrs, e.MAC = e.Result.Addrs, e.Result.MAC
	case len(e.Granted) > 0:
		e.Addrs = nil
		for _, g := range e.Granted {
			e.Addrs = append(e.Addrs, g.Addr)
		}
	}
}

// single are the wished addresses, each a subnet of its own.
func (w *Wish) single() (out []netip.Prefix) {
	if w == nil {
		return nil
	}
	for _, a := range w.Addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// anywhere stands for the addresses that are not known yet.
func (w *Wish) anywhere(n *Network) (out []netip.Prefix) {
	if n.IPv4 {
		out = append(out, allV4)
	}
	if n.IPv6 && (w == nil || !w.NoIPv6) {
		out = append(out, allV6)
	}
	return out
}

// of is the wished address of a family; invalid: any.
func (w *Wish) of(v6 bool) netip.Addr {
	if i := slices.IndexFunc(w.Addrs, func(a netip.Addr) bool { return a.Is6() == v6 }); i >= 0 {
		return w.Addrs[i]
	}
	return netip.Addr{}
}

// wish keeps what d asks of others. Their MAC address is theirs to choose too.
func (d *draft) wish() *Wish {
	w := &Wish{NoIPv6: d.noIPv6}
	for _, a := range []netip.Addr{d.want.IPv4Address, d.want.IPv6Address} {
		if a.IsValid() {
			w.Addrs = append(w.Addrs, a)
		}
	}
	return w
}

// addresses are those of the name servers that others can be told: they know no ports.
func (c DNSConfig) addresses() (out []netip.Addr) {
	for _, s := range c.Upstreams {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// given reports whether the addresses of n are others' to give out, but not the LAN's.
func (n Network) given() bool {
	return !slices.Contains([]string{"", "default", "null", IPAMDHCP}, n.IPAMDriver)
}
