package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// The way from a container to one of another host that is no tunnel: its bridge hands
// the frame to the host, that one routes it to the other host, and there it enters the
// network. Frames of a network pass no connection tracking, so neither do these: flows
// may change from one way to the other, and each direction may have its own.

func acrossSets() (out []set) {
	for i, ip := range []nftables.SetDatatype{ip4, ip6} {
		f := []string{"4", "6"}[i]
		out = append(out,
			set{table: inet, name: "across" + f, key: types(ip, dev)},
			set{table: bridge, name: "shortcuts" + f, key: types(ether, ip), data: types(ether)})
	}
	return out
}

func across(m marks) (rules []rule) {
	for _, f := range families {
		rules = append(rules,
			rule{"to a container of another host", join(m.from(), family(f.n), in("across"+f.s, f.daddr, iif), notrack())},
			rule{"from a container of another host", join(m.notFrom(), family(f.n), in("across"+f.s, f.saddr, iif), notrack())})
	}
	return rules
}

// arrivedAcross does not let them at the host itself: it is not what they asked for.
func arrivedAcross(m marks, f ipFamily) rule {
	return rule{"by the way of its host", join(m.notFrom(), family(f.n), in("across"+f.s, f.saddr, iif), notLocal(), accept())}
}

// enteringAcross asks for both: that it came by that way, and into which network.
func enteringAcross(f ipFamily) rule {
	return rule{"from a container of another host", join(family(f.n), in("across"+f.s, f.saddr, iif), in("across"+f.s, f.saddr, oif), goTo("passed"))}
}

// The hops that packets may have left which two hosts can take one of; with the most that
// there are a receiver knows that nobody did, and some insist on that.
const fewestHops, mostHops = 3, 254

// shortcut sends frames to the host. Who is asked for its MAC address is asked by the
// network, and what must not be routed is not.
func shortcut() (rules []rule) {
	for _, f := range families {
		rules = append(rules, rule{"to a container of another host", join(f.frame, f.ttl.between(fewestHops, mostHops), toGateway("shortcuts"+f.s, etherDaddr, f.daddr))})
	}
	return rules
}

// toGateway gives a frame the MAC address that a map has for it. Its receiver was settled
// when it came in, so that has to be said too.
func toGateway(name string, fields ...field) []expr.Any {
	out := lookup(false, name, fields...)
	l := out[len(out)-1].(*expr.Lookup)
	l.DestRegister, l.IsDestRegSet = reg, true
	return append(out,
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseLLHeader, Len: 6},
		&expr.Immediate{Register: reg, Data: []byte{unix.PACKET_HOST}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: reg})
}

// acrossElements are that it may come by its way, which says to where, and into which
// network.
func acrossElements(a netspec.Across) []element {
	set := "across" + suffix(a.Addr)
	return []element{{set: set, key: addr(a.Addr) + ifname(a.Link), comment: a.Way}, {set: set, key: addr(a.Addr) + ifname(a.Way)}}
}

func shortcutElement(s netspec.Shortcut) element {
	return element{set: "shortcuts" + suffix(s.Addr), key: mac(s.MAC) + addr(s.Addr), data: string(s.Gateway[:]), comment: s.Link}
}

func acrossOf(_ elements, e element, f string) (netspec.Object, bool) {
	k := e.key
	a := addrOf(cut(&k, addrLen(f)))
	return netspec.Across{Link: nameOf(k), Addr: a, Way: e.comment}, e.comment != ""
}

func shortcutOf(_ elements, e element, _ string) (netspec.Object, bool) {
	k := e.key
	s := netspec.Shortcut{Link: e.comment}
	copy(s.MAC[:], cut(&k, 8))
	copy(s.Gateway[:], e.data)
	s.Addr = addrOf(k)
	return s, s.Addr != netip.Addr{}
}
