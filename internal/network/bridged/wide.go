package bridged

import (
	"fmt"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/firewall"
)

// A bridge has 1,023 ports in the kernel. A network is one bridge, the root, with
// up to Room endpoints; those beyond are on leaf bridges, each joined to the
// root by a trunk, a veth with both its ends on the host:
//
//	        isle-3f2a… (root; the gateway's address)
//	islev…  islev…   islet7-1         islet7-2
//	                    ║                ║
//	                 isleu7-1         isleu7-2
//	                 isleb7-1         isleb7-2          (7: the network's index)
//	                 islev… islev…    islev…
//
// So it stays one Ethernet segment: broadcast, multicast, ARP, the guards on the
// ports. The root has 1,000 endpoints, 22 trunks and a port for a tunnel.
const (
	Room   = 1000
	Leaves = 22
)

// wide adds the leaves of a network. The host has no place on them: it is
// reached through the root, and must not answer ARP on them with their address.
func (p plan) wide(s netspec.State) {
	for i := 1; i <= p.Leaves; i++ {
		leaf := p.leaf(netspec.LeafBridge, i)
		s.Add(netspec.Link{Name: leaf, Kind: netspec.Bridge, MTU: p.mtu, MAC: network.GatewayMAC(fmt.Sprint(p.ID, "/", i))})
		s.Add(netspec.Link{
			Name: p.leaf("t", i), Kind: netspec.Veth, MTU: p.mtu, Master: p.link, Isolated: !p.o.ICC,
			Peer: p.leaf("u", i), PeerMaster: leaf,
		})
		s.Add(netspec.Sysctl{Name: "ipv4/conf/" + leaf + "/arp_ignore", Value: "8"})
		if p.host.IPv6 {
			s.Add(netspec.Sysctl{Name: "ipv6/conf/" + leaf + "/disable_ipv6", Value: "1"})
		}
		p.lan(s, netspec.Segment{Link: leaf, Leaf: true})
		for _, pool := range p.Pools { // br_netfilter shows the firewall what passes here
			policy := p.policy(pool)
			policy.Trusted = nil // the root's business: nothing is routed here
			policy.Leaf = true
			s.Add(firewall.Segment(leaf, pool.Subnet, policy)...)
		}
	}
}

// master is the bridge that an endpoint on leaf i is a port of.
func (p plan) master(i int) string {
	if i == 0 {
		return p.link
	}
	return p.leaf(netspec.LeafBridge, i)
}

// leaf names a device of leaf i: netspec.LeafBridge the bridge, "t" the trunk's end on the
// root, "u" its end on the leaf.
func (p plan) leaf(what string, i int) string {
	return fmt.Sprintf("%s%s%d-%d", p.host.LinkPrefix, what, p.Index, i)
}
