package remote

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// mostRoutes is far more than plugins have for one endpoint.
const mostRoutes = 256

// given is what an endpoint has, from Isle and from the plugin.
type given struct {
	addrs []netip.Prefix
	mac   netspec.MAC
}

// endpoint adds what a plugin answered to what it was sent. It may fill in what was
// left to it, and change nothing; Docker's words.
func (g given) endpoint(in *iface) (given, error) {
	if in == nil {
		return g, nil
	}
	if in.MacAddress != "" {
		mac, err := parseMAC(in.MacAddress)
		if err != nil {
			return g, err
		}
		if g.mac != (netspec.MAC{}) && g.mac != mac {
			return g, fmt.Errorf("driver modified interface MAC address: endpoint interface MAC address present (%s). Cannot be modified with %s", net.HardwareAddr(g.mac[:]), plain(in.MacAddress))
		}
		g.mac = mac
	}
	for _, f := range []struct {
		text string
		v4   bool
	}{{in.Address, true}, {in.AddressIPv6, false}} {
		if f.text == "" {
			continue
		}
		if err := g.address(f.text, f.v4); err != nil {
			return g, err
		}
	}
	return g, nil
}

func (g *given) address(text string, v4 bool) error {
	p, err := parsePrefix(text, v4)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(g.addrs, func(a netip.Prefix) bool { return a.Addr().Is4() == v4 }); i >= 0 {
		if g.addrs[i] == p {
			return nil
		}
		return fmt.Errorf("driver modified interface address: endpoint interface IP present (%s). Cannot be modified with %s", g.addrs[i], p)
	}
	g.addrs = append(slices.Clone(g.addrs), p)
	return nil
}

func parseMAC(s string) (mac netspec.MAC, err error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(mac) || hw[0]&1 != 0 || netspec.MAC(hw) == (netspec.MAC{}) {
		return mac, fmt.Errorf("invalid MAC address %q: it must be 6 bytes and not a group address", plain(s))
	}
	return netspec.MAC(hw), nil
}

// parsePrefix reads an address that an interface can have.
func parsePrefix(s string, v4 bool) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("invalid CIDR address: %s", plain(s))
	}
	if a := p.Addr(); a.Is4() != v4 || a.Is4In6() || !host(a) || p.Bits() == 0 {
		return p, fmt.Errorf("invalid address %s: not one that an interface can have for %s", p, familyName(v4))
	}
	return p, nil
}

func familyName(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// host reports whether a is a host's, not a group's, nobody's, or one's own.
func host(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// ways are how an endpoint reaches others, from the answer to Join.
type ways struct {
	gateways []netip.Addr
	routes   []network.ResultRoute
}

// parseWays checks what a plugin says of gateways and routes; addrs are the endpoint's.
func parseWays(j joinedWords, addrs []netip.Prefix) (w ways, err error) {
	for _, g := range []struct {
		what, text string
		v4         bool
	}{{"Gateway", j.Gateway, true}, {"GatewayIPv6", j.GatewayIPv6, false}} {
		if g.text == "" {
			continue
		}
		a, err := netip.ParseAddr(g.text)
		if a = a.Unmap(); err != nil || a.Is4() != g.v4 || !host(a) {
			return w, fmt.Errorf("unable to parse %s %q", g.what, plain(g.text))
		}
		w.gateways = append(w.gateways, a)
	}
	if len(j.StaticRoutes) > mostRoutes {
		return w, fmt.Errorf("%d static routes for one endpoint: %d are the most: %w", len(j.StaticRoutes), mostRoutes, errdefs.ErrInvalidArgument)
	}
	for _, r := range j.StaticRoutes {
		if err := w.add(r, addrs); err != nil {
			return w, fmt.Errorf("static route to %q: %w", plain(r.Destination), err)
		}
	}
	return w, nil
}

func (w *ways) add(r staticRoute, addrs []netip.Prefix) error {
	dst, err := netip.ParsePrefix(r.Destination)
	if err != nil {
		return fmt.Errorf("invalid CIDR address: %s", plain(r.Destination))
	}
	if dst = dst.Masked(); dst.Addr().IsMulticast() || dst.Addr().IsLoopback() || dst.Addr().Is4In6() {
		return fmt.Errorf("no packets are routed there")
	}
	via, err := r.via(dst)
	switch {
	case err != nil:
		return err
	case dst.Bits() == 0:
		return w.byDefault(via, dst.Addr().Is4())
	case !via.IsValid() && slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Masked() == dst }):
		return nil // the kernel makes it with the address
	}
	if i := slices.IndexFunc(w.routes, func(o network.ResultRoute) bool { return o.Dst == dst }); i >= 0 {
		if w.routes[i].Via != via {
			return fmt.Errorf("it is there twice, by %v and by %v", w.routes[i].Via, via)
		}
		return nil
	}
	w.routes = append(w.routes, network.ResultRoute{Dst: dst, Via: via})
	return nil
}

// via is the next hop; invalid for a connected route.
func (r staticRoute) via(dst netip.Prefix) (netip.Addr, error) {
	switch {
	case r.RouteType == routeConnected && r.NextHop == "":
		return netip.Addr{}, nil
	case r.RouteType != routeNextHop && r.RouteType != routeConnected:
		return netip.Addr{}, fmt.Errorf("unknown RouteType %d", r.RouteType)
	}
	a, err := netip.ParseAddr(r.NextHop)
	if a = a.Unmap(); err != nil || !host(a) || a.Is4() != dst.Addr().Is4() {
		return a, fmt.Errorf("failed to parse nexthop IP %s", plain(r.NextHop))
	}
	return a, nil
}

// byDefault takes a default route for what it is: a gateway. Which of a container's
// networks is its way out is Isle's to say.
func (w *ways) byDefault(via netip.Addr, v4 bool) error {
	if !via.IsValid() {
		return fmt.Errorf("a default route without a next hop is not supported (hint: the plugin should answer with a Gateway)")
	}
	if i := slices.IndexFunc(w.gateways, func(a netip.Addr) bool { return a.Is4() == v4 }); i >= 0 {
		if w.gateways[i] != via {
			return fmt.Errorf("the gateway is %s and %s", w.gateways[i], via)
		}
		return nil
	}
	w.gateways = append(w.gateways, via)
	return nil
}
