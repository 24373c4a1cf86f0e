package dhcp

import (
	"net/netip"
	"slices"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
)

// routes are those of option 121, or else the default one by the first router of
// option 3, which does not count beside 121 (RFC 3442).
func (p *parser4) routes(own netip.Prefix) {
	routers := p.addresses(v4.OptionRouter)
	b := p.Get(v4.OptionClasslessStaticRoute)
	if len(b) == 0 {
		p.defaultRoute(own, routers)
		return
	}
	p.l.Routers = routers
	all, ok := p.classless(b)
	if !ok {
		p.ignore("classless routes: malformed")
		p.defaultRoute(own, routers)
		return
	}
	for _, r := range all {
		p.route(own, r)
	}
}

func (p *parser4) defaultRoute(own netip.Prefix, routers []netip.Addr) {
	for _, r := range routers {
		if !own.Contains(r) && own.Bits() != 32 || r == own.Addr() {
			p.ignore("router %s is not in %s", r, own.Masked())
			continue
		}
		p.l.Routers = append(p.l.Routers, r)
	}
	if len(p.l.Routers) == 0 {
		return
	}
	first := p.l.Routers[0]
	if !own.Contains(first) {
		p.l.Routes = append(p.l.Routes, Route{Dest: netip.PrefixFrom(first, 32)})
	}
	p.l.Routes = append(p.l.Routes, Route{Dest: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: first})
}

// classless reads option 121, no more of it than counts.
func (p *parser4) classless(b []byte) (rs []Route, ok bool) {
	for len(b) > 0 {
		if len(rs) == mostRoute {
			p.ignore("more than %d routes", mostRoute)
			return rs, true
		}
		n := int(b[0])
		used := (n + 7) / 8
		if n > 32 || len(b) < 1+used+4 {
			return nil, false
		}
		var a [4]byte
		copy(a[:], b[1:1+used])
		dest := netip.PrefixFrom(netip.AddrFrom4(a), n).Masked()
		rs = append(rs, Route{Dest: dest, Via: netip.AddrFrom4([4]byte(b[1+used:]))})
		b = b[1+used+4:]
	}
	return rs, true
}

// route takes a route whose gateway can be reached: it is in the subnet, or on
// the link by an earlier route.
func (p *parser4) route(own netip.Prefix, r Route) {
	onLink := r.Via.IsUnspecified()
	switch {
	case r.Dest.Bits() > 0 && !unicast4(r.Dest.Addr()):
		p.ignore("route to %s", r.Dest)
	case !onLink && (!usable4(r.Via) || r.Via == own.Addr() || !p.reached(own, r.Via)):
		p.ignore("route to %s by %s, which is not on the link", r.Dest, r.Via)
	case slices.ContainsFunc(p.l.Routes, func(o Route) bool { return o.Dest == r.Dest }):
		p.ignore("a second route to %s", r.Dest)
	default:
		if onLink {
			r.Via = netip.Addr{}
		}
		p.l.Routes = append(p.l.Routes, r)
	}
}

func (p *parser4) reached(own netip.Prefix, a netip.Addr) bool {
	return own.Contains(a) || slices.ContainsFunc(p.l.Routes, func(r Route) bool { return !r.Via.IsValid() && r.Dest.Contains(a) })
}
