// Package firewall says what may pass into and out of a bridge, as objects of
// netspec. The chains that act on them are fixed text in kernel/nft; README.md
// beside this file draws the way of a packet.
package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"isle/internal/netspec"
)

// Policy is what a network's owner decided about one of its subnets.
type Policy struct {
	Masquerade bool // what leaves gets the host's address
	Internal   bool // nothing leaves, nothing enters
	Access     netspec.Access
	Leaf       bool     // a further bridge of the network, on which nothing is routed
	Trusted    []string // interfaces of the host that open ports are reached from, whatever Access says
}

// Segment is a subnet behind a bridge. Whatever is in it can be reached through
// that bridge only, and from elsewhere only by a published port or by what the
// policy grants: that is what keeps networks from each other and from a
// neighbour who routes to us.
func Segment(link string, subnet netip.Prefix, p Policy) []netspec.Object {
	subnet = subnet.Masked()
	objs := []netspec.Object{netspec.Segment{
		Link: link, Subnet: subnet, Masquerade: p.Masquerade && !p.Internal, Internal: p.Internal, Access: p.Access, Leaf: p.Leaf,
	}}
	for _, from := range p.Trusted {
		objs = append(objs, netspec.Entrance{Link: link, Subnet: subnet, From: from})
	}
	return objs
}

// Ports are ports of a container in a row, at least one.
type Ports struct {
	To           netip.Addr
	Proto        string
	First, Count uint16
	From         netip.Prefix // who may; invalid: everybody
}

func (p Ports) end() int { return int(p.First) + int(max(p.Count, 1)) }

// Open lets the ports be reached at the container's own address. They may
// overlap: the objects do not.
func Open(link string, ports []Ports) (objs []netspec.Object) {
	for _, p := range merged(ports) {
		objs = append(objs, netspec.Open{Link: link, To: p.To, Proto: p.Proto, Port: p.First, Count: p.Count, From: p.From})
	}
	return objs
}

func merged(ports []Ports) (out []Ports) {
	ports = slices.SortedFunc(slices.Values(ports), func(a, b Ports) int {
		return cmp.Or(a.To.Compare(b.To), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.From.String(), b.From.String()), cmp.Compare(a.First, b.First))
	})
	for _, p := range ports {
		p.Count = max(p.Count, 1)
		if n := len(out); n > 0 && out[n-1].To == p.To && out[n-1].Proto == p.Proto && out[n-1].From == p.From && int(p.First) <= out[n-1].end() {
			out[n-1].Count = uint16(max(out[n-1].end(), p.end()) - int(out[n-1].First))
			continue
		}
		out = append(out, p)
	}
	return out
}
