package kernel

import (
	"net/netip"
	"os"
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
)

// A leaf of the first network, where br_netfilter shows our chains what bridges
// forward: frames of a container there pass them on the leaf, and again on the
// root.

const onLeaf = "c1-5"

func newLeaf(t testing.TB) *policy {
	t.Helper()
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "br_netfilter", Err: err})
	}
	p := newPolicy(t)
	p.leaf()
	p.markWitness()
	bridgesCall(p.host, "1")
	p.ask(false)
	for f, s := range []string{"4", "6"} {
		p.askLeaf(f, s)
	}
	return p
}

// leaf adds the bridge, its trunk and a container.
func (p *policy) leaf() {
	before := p.want
	c, ns := container(natNet, 5)
	link := c[netspec.Link{Name: "isv1-5"}.Key()].(netspec.Link)
	link.Master = "isbleaf"
	c[link.Key()] = link
	p.want = merge(before, c, state(
		netspec.Link{Name: "isbleaf", Kind: netspec.Bridge, MTU: 1500, MAC: netspec.MAC{2, 9}},
		netspec.Link{Name: "istrunk", Kind: netspec.Veth, MTU: 1500, MAC: netspec.MAC{2, 8}, Master: "isbr1",
			Peer: "ispeer", PeerMAC: netspec.MAC{2, 7}, PeerMaster: "isbleaf"},
		netspec.Sysctl{Name: "ipv4/conf/isbleaf/arp_ignore", Value: "8"},
		netspec.Sysctl{Name: "ipv6/conf/isbleaf/disable_ipv6", Value: "1"}))
	for f, a := range member(natNet, 5) {
		p.want.Add(netspec.Segment{Link: "isbleaf", Subnet: netip.PrefixFrom(ip(a), []int{24, 64}[f]).Masked(), Masquerade: true, Leaf: true})
		p.source(natNet, 5, ip(a))
	}
	p.source(natNet, 5, ownLinkLocal(macOf(natNet, 5)))
	p.change(before, p.want)
	p.ns[string(ns)] = kerneltest.NS{}
	p.start(string(ns))
}

func (p *policy) askLeaf(f int, s string) {
	own := member(natNet, 5)[f]
	p.calls("leaf: out", call{from: onLeaf, network: "tcp", to: lanAt.url(f, 80)}, answer("lan", 80, hostAt[f]), "leaf leaves")
	p.calls("leaf: to the root", call{from: onLeaf, network: "tcp", to: member(natNet, 1).url(f, 80)}, answer("c1-1", 80, own), "same segments"+s)
	p.calls("leaf: from the root", call{from: "c1-1", network: "tcp", to: member(natNet, 5).url(f, 80)}, answer(onLeaf, 80, member(natNet, 1)[f]), "same")
	p.calls("leaf: to the host", call{from: onLeaf, network: "tcp", to: gateway(natNet).url(f, 22)}, answer("host", 22, own), "segments"+s)
	p.calls("leaf: published", call{from: onLeaf, network: "tcp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, gateway(natNet)[f]), "leaf leaves")
	p.calls("leaf: from a sibling", call{from: "c2-1", network: "tcp", to: member(natNet, 5).url(f, 80)}, blocked, "nets"+s)
}
