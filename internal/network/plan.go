package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
)

// planner turns records into kernel state, one unit at a time. A unit is a
// network alone, or a sandbox with its endpoints; the state of the machine is
// the union of all units. It is pure.
type planner struct {
	drivers drivers
	host    Host
}

// drivers are those that are built in, and those that are found when they are asked for.
type drivers struct {
	builtin map[string]Driver
	outside func(name string) (Driver, bool)
}

func (ds drivers) find(name string) (Driver, bool) {
	d, ok := ds.builtin[name]
	if !ok && ds.outside != nil {
		return ds.outside(name)
	}
	return d, ok
}

// network is what n needs when nobody is on it.
func (p planner) network(n Network) (netspec.State, error) {
	s := netspec.State{}
	if n.ConfigOnly || n.Idle {
		return s, nil
	}
	d, err := p.driver(n)
	if err != nil {
		return nil, err
	}
	return s, inNetwork(n, d.Plan(s, n, nil, p.host))
}

// machine is what all networks need together: packets must be passed on at
// all. It is a unit of its own, so that the last network of many does not take
// it from the others.
func (p planner) machine(v6 bool) netspec.State {
	s := netspec.State{}
	s.Add(netspec.Sysctl{Name: "ipv4/ip_forward", Value: "1"})
	if v6 && p.host.IPv6 {
		s.Add(netspec.Sysctl{Name: "ipv6/conf/all/forwarding", Value: "1"})
		// Else the host would lose its own addresses and its default route.
		for link := range strings.FieldsFuncSeq(p.host.Advertised, func(r rune) bool { return r == '/' }) {
			s.Add(netspec.Sysctl{Name: "ipv6/conf/" + link + "/accept_ra", Value: "2"})
		}
	}
	return s
}

// place is an endpoint and the network it is on.
type place struct {
	Endpoint
	net *Network
}

// sandbox is what sb needs besides its networks. places must be in order (see sorted).
func (p planner) sandbox(sb Sandbox, places []place) (netspec.State, error) {
	s := netspec.State{}
	if sb.NS == "" {
		return s, nil // the host's own
	}
	s.Add(netspec.Namespace{NS: sb.NS})
	for _, pl := range places {
		pl.Router = sb.Router
		if err := p.endpoint(s, pl); err != nil {
			return nil, inNetwork(*pl.net, err)
		}
	}
	routes, err := p.routes(sb, places)
	if err != nil {
		return nil, err
	}
	err = merge(s, routes)
	maps.Copy(s, sysctls(sb)) // the user's, before those of the drivers
	p.learned(s, places)
	if p.resolves(places) {
		s.Add(netspec.DNSRedirect{NS: sb.NS, Port: sb.DNSPort})
	}
	return s, err
}

func (p planner) endpoint(s netspec.State, pl place) error {
	d, err := p.driver(*pl.net)
	if err != nil {
		return err
	}
	n := *pl.net
	n.Leaves = 0 // they are the network's; what an endpoint costs does not grow with them
	alone, both := netspec.State{}, netspec.State{}
	if err := d.Plan(alone, n, nil, p.host); err != nil {
		return err
	}
	if err := d.Plan(both, n, []Endpoint{pl.Endpoint}, p.host); err != nil {
		return err
	}
	own := both.Without(alone)
	if err := shape(own, pl.Endpoint); err != nil {
		return err
	}
	return merge(s, own)
}

// routes are the default routes: for each family by the endpoint of the
// highest priority, then of the first network by name; and the ways of replies.
func (p planner) routes(sb Sandbox, places []place) (netspec.State, error) {
	s := netspec.State{}
	for _, all := range []netip.Prefix{allV4, allV6} {
		pl, gw, err := p.gateway(places, all.Addr().Is4())
		if err != nil {
			return nil, err
		}
		if gw.IsValid() && !(pl.Result != nil && pl.Result.Routed) {
			s.Add(netspec.Route{NS: sb.NS, Dst: all, Via: pl.net.via(gw), Dev: pl.Interface, OnLink: pl.beyond(gw)})
		}
	}
	replies, err := p.replies(sb, places)
	s.Add(replies...)
	return s, err
}

var (
	allV4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	allV6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

func (p planner) gateway(places []place, v4 bool) (place, netip.Addr, error) {
	for _, pl := range places {
		d, err := p.driver(*pl.net)
		if err != nil {
			return pl, netip.Addr{}, err
		}
		if !d.Caps().Gateway || pl.net.Internal || pl.Options[OptDefaultRoute] == "false" || p.away(d, *pl.net) || unattached(d, pl.Endpoint) {
			continue
		}
		if gw := pl.Gateway(*pl.net, v4); gw.IsValid() {
			return pl, gw, nil
		}
	}
	return place{}, netip.Addr{}, nil
}

// away reports whether what n is on is not there: there are no links on it.
func (p planner) away(d Driver, n Network) bool { return errdefs.IsUnavailable(d.Ready(n, 0, p.host)) }

// unattached reports whether e has no interface yet: others are to make it.
func unattached(d Driver, e Endpoint) bool {
	_, others := d.(External)
	return others && e.Result == nil
}

// Gateway is the way out of n that e can use in a family; invalid: none.
func (e Endpoint) Gateway(n Network, v4 bool) netip.Addr {
	if e.Leased() {
		return e.router(v4)
	}
	if e.Result != nil {
		return e.Result.gateway(v4)
	}
	for _, a := range e.Addrs {
		for _, pool := range n.Pools {
			if gw := pool.wayOut(); a.Addr().Is4() == v4 && pool.Subnet.Contains(a.Addr()) && gw.IsValid() {
				return gw
			}
		}
	}
	return netip.Addr{}
}

// Names of aux-addresses, by "is IPv4", that are the containers' way out instead of
// the gateway: another router on the network. Docker's.
var auxGateway = map[bool]string{true: "DefaultGatewayIPv4", false: "DefaultGatewayIPv6"}

func (p Pool) wayOut() netip.Addr {
	if a, ok := p.Aux[auxGateway[p.Subnet.Addr().Is4()]]; ok {
		return a
	}
	return p.Gateway
}

// sorted puts places in the order in which they are asked to be the gateway.
func sorted(places []place) []place {
	return slices.SortedFunc(slices.Values(places), func(a, b place) int {
		return cmp.Or(cmp.Compare(b.GwPriority, a.GwPriority), strings.Compare(a.net.Name, b.net.Name))
	})
}

// assign gives each place the ports of the sandbox that it carries: for each
// family the gateway's, or without a gateway the first that can publish. The
// result is a new slice.
func (p planner) assign(ports []Publish, places []place) []place {
	places = slices.Clone(places)
	for i := range places {
		places[i].Publish, places[i].Open = nil, nil
	}
	v4, v6 := p.carrier(places, true), p.carrier(places, false)
	for _, m := range ports {
		i, other := v4, v6
		if m.HostIP.Is6() {
			i, other = v6, v4
		}
		if i < 0 { // the container lacks the family: the socket that holds the port forwards
			i = other
		}
		for k := range places {
			switch {
			case k == i:
				places[k].Publish = append(places[k].Publish, m)
			case places[k].net.routed(m.HostIP.Is4()):
				places[k].Open = append(places[k].Open, m)
			}
		}
	}
	return places
}

func (p planner) carrier(places []place, v4 bool) int {
	first := -1
	for i, pl := range places {
		d, ok := p.drivers.find(pl.net.Driver)
		if !ok || !caps(d, *pl.net).Publish || pl.net.Internal || pl.net.OnLAN() || !pl.has(v4) || pl.Result != nil && pl.Result.Portless {
			continue
		}
		if pl.Gateway(*pl.net, v4).IsValid() {
			return i
		}
		if first < 0 {
			first = i
		}
	}
	return first
}

// direct reports whether ports of a family of the host are open at the container's
// own address only, and whether any of places carries them.
func (p planner) direct(places []place, v4 bool) (direct, carried bool) {
	for _, v4 := range []bool{v4, !v4} {
		if i := p.carrier(places, v4); i >= 0 {
			return places[i].net.routed(v4), true
		}
	}
	return false, false
}

func (e Endpoint) has(v4 bool) bool { return e.Addr(v4).IsValid() }

// Addr is the endpoint's first address of a family.
func (e Endpoint) Addr(v4 bool) netip.Addr {
	for _, a := range e.Addrs {
		if a.Addr().Is4() == v4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// resolves reports whether a resolver runs for these places.
func (p planner) resolves(places []place) bool {
	return slices.ContainsFunc(places, func(pl place) bool {
		d, ok := p.drivers.find(pl.net.Driver)
		return ok && addressed(d)
	})
}

func sysctls(sb Sandbox) netspec.State {
	s := netspec.State{}
	for k, v := range sb.Sysctls {
		if name, ok := strings.CutPrefix(k, "net."); ok {
			s.Add(netspec.Sysctl{NS: sb.NS, Name: strings.ReplaceAll(name, ".", "/"), Value: v})
		}
	}
	return s
}

// merge adds the objects of src to dst. What two of the user's wishes claim
// differently is the user's mistake.
func merge(dst, src netspec.State) error {
	for k, o := range src {
		switch old, ok := dst[k]; {
		case !ok:
			dst[k] = o
		case old != o:
			return fmt.Errorf("%v is wanted twice, differently: %w", k, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func (p planner) driver(n Network) (Driver, error) {
	d, ok := p.drivers.find(n.Driver)
	if !ok {
		return nil, fmt.Errorf("could not find plugin %s in v1 plugin registry: plugin not found: %w", n.Driver, errdefs.ErrNotFound)
	}
	return d, nil
}

func inNetwork(n Network, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("network %s: %w", n.Name, err)
}
