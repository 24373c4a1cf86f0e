package bridge

import (
	"crypto/sha256"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/firewall"
	"isle/internal/network/publish"
)

// Driver is the driver. The zero value is ready to use.
type Driver struct{}

var _ network.Driver = Driver{}

// Caps implements network.Driver.
func (Driver) Caps() network.Caps {
	return network.Caps{IPAM: true, Publish: true, Gateway: true, Room: room, Leaves: leaves}
}

// Validate implements network.Driver.
func (Driver) Validate(n network.Network) error {
	if _, err := parse(n.Options); err != nil {
		return err
	}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
			return fmt.Errorf("gateway %s is not in subnet %s: %w", p.Gateway, p.Subnet, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// plan is one network on one host.
type plan struct {
	network.Network
	host network.Host
	o    options
	link string // the bridge
	mtu  int
}

// Plan implements network.Driver.
func (Driver) Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	o, err := parse(n.Options)
	if err != nil {
		return err
	}
	p := plan{n, host, o, o.Name, o.MTU}
	if p.link == "" {
		p.link = bridgeName(host.LinkPrefix, n.ID)
	}
	if p.mtu == 0 {
		p.mtu = host.MTU
	}
	p.bridge(s)
	for _, ep := range eps {
		if err := p.endpoint(s, ep); err != nil {
			return err
		}
	}
	return nil
}

// bridgeName is the prefix, a dash and as much of the id as fits.
func bridgeName(prefix, id string) string {
	name := prefix + "-" + ids.Short(id)
	return name[:min(len(name), 15)]
}

func (p plan) bridge(s netspec.State) {
	s.Add(netspec.Link{Name: p.link, Kind: netspec.Bridge, MTU: p.mtu, MAC: mac(p.ID)})
	var subnets []netip.Prefix
	for _, pool := range p.Pools {
		subnets = append(subnets, pool.Subnet)
		if pool.Gateway.IsValid() && !(p.o.InhibitIPv4 && pool.Gateway.Is4()) {
			s.Add(netspec.Addr{Link: p.link, Prefix: netip.PrefixFrom(pool.Gateway, pool.Subnet.Bits())})
		}
	}
	policy := firewall.Policy{Masquerade: p.o.Masquerade, Internal: p.Internal}
	s.Add(firewall.Segments(p.link, subnets, policy)...)
	p.wide(s, policy, subnets)
	p.ipv6(s, "", p.link)
}

// ipv6 sets how an interface is to take IPv6: not at all on a network without
// it, else without believing advertisements.
func (p plan) ipv6(s netspec.State, ns netspec.NS, link string) {
	if !p.host.IPv6 {
		return
	}
	conf := func(name, v string) netspec.Sysctl {
		return netspec.Sysctl{NS: ns, Name: "ipv6/conf/" + link + "/" + name, Value: v}
	}
	if !p.IPv6 {
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
	if err := p.sysctls(s, ep); err != nil {
		return err
	}
	if p.Internal {
		return nil
	}
	t := publish.Target{V4: ep.Addr(true), V6: ep.Addr(false), Link: p.link}
	for _, m := range ep.Publish {
		s.Add(publish.Plan(publish.Mapping(m), t, p.host.SockAddr)...)
	}
	return nil
}

// sysctls are the interface's: the user's go before ours.
func (p plan) sysctls(s netspec.State, ep network.Endpoint) error {
	users, err := endpointSysctls(ep.Options[optSysctls], ep.Interface)
	if err != nil {
		return err
	}
	mine := netspec.State{}
	p.ipv6(mine, ep.NS(), ep.Interface)
	for name, v := range users {
		sc := netspec.Sysctl{NS: ep.NS(), Name: name, Value: v}
		mine[sc.Key()] = sc
	}
	for _, o := range mine {
		s.Add(o)
	}
	return nil
}

// mac is the same for a network as long as it lives.
func mac(networkID string) netspec.MAC {
	h := sha256.Sum256([]byte(networkID))
	m := netspec.MAC(h[:6])
	m[0] = 0x02
	return m
}
