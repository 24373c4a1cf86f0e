package lan

import (
	"cmp"
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// plan is one network on one host.
type plan struct {
	network.Network
	host network.Host
	o    Options
	up   uplink
}

// Plan adds to s what n and its endpoints need on host.
func Plan(kind string, s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	o, err := Parse(kind, n.Options)
	if err != nil {
		return err
	}
	up, missing := o.find(n, host)
	if missing != nil {
		return nil
	}
	p := plan{n, host, o, up}
	p.parent(s)
	if o.HostAccess {
		p.shim(s)
	}
	for _, ep := range eps {
		if err := p.endpoint(s, ep); err != nil {
			return err
		}
	}
	return nil
}

// parent adds what has to be made below the links.
func (p plan) parent(s netspec.State) {
	if p.up.dummy {
		s.Add(netspec.Dummy{Name: p.up.name})
	}
	for _, v := range p.up.vlans {
		s.Add(v)
	}
}

func (p plan) endpoint(s netspec.State, ep network.Endpoint) error {
	mtu, err := p.mtu(ep)
	if err != nil {
		return err
	}
	l := p.link(ep.NS(), ep.Interface, mtu)
	if l.Kind == netspec.Macvlan && l.Mode != "passthru" {
		l.MAC = ep.MAC
	}
	s.Add(l)
	for _, a := range append(ep.Addrs[:len(ep.Addrs):len(ep.Addrs)], ep.LinkLocal...) {
		s.Add(netspec.Addr{NS: ep.NS(), Link: ep.Interface, Prefix: a})
	}
	if !p.o.routes() { // else nobody asks
		s.Add(netspec.Announce{NS: ep.NS(), Link: ep.Interface, Times: 1, Every: 1000})
	}
	if p.o.HostAccess {
		p.access(s, ep)
	}
	return p.sysctls(s, ep)
}

// link is one on the network's parent.
func (p plan) link(ns netspec.NS, name string, mtu int) netspec.LAN {
	return netspec.LAN{NS: ns, Name: name, Kind: p.o.Kind, Parent: p.up.name, Mode: p.o.Mode, Flag: p.o.Flag, MTU: mtu}
}

// mtu is the network's, or less where the endpoint says so; never more than the
// parent has.
func (p plan) mtu(ep network.Endpoint) (int, error) {
	mtu := p.up.MTU
	for _, most := range []int{p.o.MTU, ep.LeaseMTU()} {
		if most != 0 {
			mtu = min(mtu, most)
		}
	}
	v := ep.Options[optEndpointMTU]
	if v == "" {
		return mtu, nil
	}
	least := 68
	if p.IPv6 {
		least = network.LeastIPv6MTU
	}
	n, err := number(v, least, cmp.Or(p.o.MTU, 65535))
	if err != nil {
		return 0, fmt.Errorf("option %s=%s: %w: %w", optEndpointMTU, v, err, errdefs.ErrInvalidArgument)
	}
	return min(n, mtu), nil
}

// sysctls are the interface's: the user's go before ours. Router advertisements of
// the LAN are ignored: the network says what the addresses and the router are.
func (p plan) sysctls(s netspec.State, ep network.Endpoint) error {
	users, err := ep.InterfaceSysctls()
	if err != nil {
		return err
	}
	mine := map[string]string{}
	if ep.Leased() { // else another address of the subnet goes with the one that it follows
		mine["ipv4/conf/"+ep.Interface+"/promote_secondaries"] = "1"
	}
	if p.host.IPv6 {
		conf := "ipv6/conf/" + ep.Interface + "/"
		if p.IPv6 && ep.HasIPv6() {
			mine[conf+"disable_ipv6"], mine[conf+"accept_ra"] = "0", "0"
		} else {
			mine[conf+"disable_ipv6"] = "1"
		}
	}
	for _, set := range []map[string]string{users, mine} {
		for name, v := range set {
			if _, ok := users[name]; ok {
				v = users[name]
			}
			s.Add(netspec.Sysctl{NS: ep.NS(), Name: name, Value: v})
		}
	}
	return nil
}
