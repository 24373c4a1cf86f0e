// Package firewall says what may pass into and out of a bridge, as objects of
// netspec. The chains that act on them are fixed text in kernel/nft; README.md
// beside this file draws the way of a packet.
package firewall

import (
	"net/netip"

	"isle/internal/netspec"
)

// Policy is what a network's owner decided about it.
type Policy struct {
	Masquerade bool // what leaves gets the host's address
	Internal   bool // nothing leaves, nothing enters
}

// Segments are the subnets behind a bridge. Whatever is in one of them can be
// reached through that bridge only, and from elsewhere only by a published
// port: that is what keeps networks from each other and from a neighbour who
// routes to us.
func Segments(link string, subnets []netip.Prefix, p Policy) []netspec.Object {
	objs := make([]netspec.Object, 0, len(subnets))
	for _, s := range subnets {
		objs = append(objs, netspec.Segment{
			Link: link, Subnet: s.Masked(), Masquerade: p.Masquerade && !p.Internal, Internal: p.Internal,
		})
	}
	return objs
}
