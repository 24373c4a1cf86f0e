package kernel

import (
	"strings"
	"testing"

	"isle/internal/kernel/probe"
	"isle/internal/netspec"
)

// newLeaf is a policy whose first network has a leaf with a container on it, on
// a host where br_netfilter shows our chains what passes there: without it they
// decide nothing on a leaf.
func newLeaf(t testing.TB) *policy {
	p := newPolicy(t)
	if _, err := p.host.Try("sysctl", "-n", "net/bridge/bridge-nf-call-iptables"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "br_netfilter"})
	}
	bridgesCall(p.host, "1")
	c, ns := container(natNet, 9)
	for k, o := range c {
		if l, ok := o.(netspec.Link); ok {
			l.Master = "isleaf"
			c[k] = l
		}
	}
	c.Add(
		netspec.Link{Name: "isleaf", Kind: netspec.Bridge, MTU: 1500, MAC: netspec.MAC{2, 9}},
		netspec.Link{Name: "istrunk", Kind: netspec.Veth, MTU: 1500, Master: "isbr1", Peer: "ispeer", PeerMaster: "isleaf"},
		netspec.Sysctl{Name: "ipv4/conf/isleaf/arp_ignore", Value: "8"},
		netspec.Segment{Link: "isleaf", Subnet: pfx("10.1.0.0/24"), Masquerade: true, Leaf: true},
		netspec.Segment{Link: "isleaf", Subnet: pfx("fd00:1::/64"), Masquerade: true, Leaf: true},
	)
	p.apply(c)
	p.want = merge(p.want, c)
	p.ns[string(ns)] = p.in(ns)
	for f := range 2 {
		out := call{from: string(ns), network: "tcp", to: lanAt.url(f, 80)}
		p.calls("a container on a leaf goes out", out, answer("lan", 80, hostAt[f]), "leaf leaves isleaf")
	}
	return p
}

// TestLeaf: what passes on a leaf is decided on the network's first bridge.
func TestLeaf(t *testing.T) {
	p := newLeaf(t)
	for name, got := range settled(p.questions) {
		t.Errorf("%s: %q", name, got)
	}
}

// ofLeaves reports whether only leaves need what m takes away.
func ofLeaves(m mutation) bool {
	return strings.HasPrefix(m.name, "rule leaf ") || strings.HasPrefix(m.name, "element leaves ")
}
