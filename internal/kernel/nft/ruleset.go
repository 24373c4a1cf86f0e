package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

// The fixed part of our two tables. table.nft is the same as text, in the words
// of nft, with the reasons; a test holds the two together.

type message = nlmsg.Message

type set struct {
	table    uint8 // NFPROTO_INET, NFPROTO_BRIDGE
	name     string
	key      []nftables.SetDatatype
	data     []nftables.SetDatatype // of a map
	interval bool
}

type chain struct {
	table    uint8
	name     string
	kind     string // "" of a chain that is only jumped to
	hook     uint32
	priority int32
	rules    []rule
}

type rule struct {
	comment string
	exprs   []expr.Any
}

const inet, bridge = unix.NFPROTO_INET, unix.NFPROTO_BRIDGE

var (
	ip4, ip6   = nftables.TypeIPAddr, nftables.TypeIP6Addr
	dev, ether = nftables.TypeIFName, nftables.TypeEtherAddr
	l4, number = nftables.TypeInetProto, nftables.TypeInetService
)

func types(t ...nftables.SetDatatype) []nftables.SetDatatype { return t }

func sets() []set {
	out := []set{
		{table: inet, name: "internal", key: types(dev)},
		{table: inet, name: "same", key: types(dev, dev)},
		{table: inet, name: "leaves", key: types(dev)},
	}
	for i, ip := range []nftables.SetDatatype{ip4, ip6} {
		out = append(out, routedSets([]string{"4", "6"}[i], ip)...)
	}
	out = append(out, tunnelSets()...)
	out = append(out, acrossSets()...)
	out = append(out,
		set{table: bridge, name: "guarded", key: types(dev)},
		set{table: bridge, name: "macs", key: types(dev, ether)})
	for i, ip := range []nftables.SetDatatype{ip4, ip6} {
		out = append(out, bridgedSets([]string{"4", "6"}[i], ip)...)
	}
	return out
}

func routedSets(f string, ip nftables.SetDatatype) []set {
	return []set{
		{table: inet, name: "nets" + f, key: types(ip), interval: true},
		{table: inet, name: "segments" + f, key: types(ip, dev), interval: true},
		{table: inet, name: "entrances" + f, key: types(ip, dev), interval: true},
		{table: inet, name: "open" + f, key: types(ip), interval: true},
		{table: inet, name: "direct" + f, key: types(ip), interval: true},
		{table: inet, name: "masquerade" + f, key: types(ip), interval: true},
		{table: inet, name: "ports" + f, key: types(ip, l4, number), data: types(ip, number)},
		{table: inet, name: "anyports" + f, key: types(l4, number), data: types(ip, number)},
		{table: inet, name: "ifports" + f, key: types(dev, l4, number), data: types(ip, number)},
		{table: inet, name: "ranges" + f, key: types(ip, l4, number), data: types(ip), interval: true},
		{table: inet, name: "anyranges" + f, key: types(l4, number), data: types(ip), interval: true},
		{table: inet, name: "ifranges" + f, key: types(dev, l4, number), data: types(ip), interval: true},
		{table: inet, name: "limited" + f, key: types(ip, l4, number), interval: true},
		{table: inet, name: "allowed" + f, key: types(ip, l4, number, ip), interval: true},
		{table: inet, name: "iflimited" + f, key: types(dev, l4, number), interval: true},
		{table: inet, name: "ifallowed" + f, key: types(dev, l4, number, ip), interval: true},
		{table: inet, name: "openports" + f, key: types(ip, l4, number)},
		{table: inet, name: "openranges" + f, key: types(ip, l4, number), interval: true},
		{table: inet, name: "openfrom" + f, key: types(ip, l4, number, ip), interval: true},
	}
}

func bridgedSets(f string, ip nftables.SetDatatype) []set {
	return []set{
		{table: bridge, name: "sources" + f, key: types(dev, ether, ip)},
		{table: bridge, name: "prefixes" + f, key: types(dev, ether, ip), interval: true},
		{table: bridge, name: "routers" + f, key: types(dev, ether)},
		{table: bridge, name: "subnets" + f, key: types(ip), interval: true},
	}
}

// tableOf is the table that a set is in.
var tableOf = func() map[string]uint8 {
	m := map[string]uint8{}
	for _, s := range sets() {
		m[s.name] = s.table
	}
	return m
}()

// width is how long a key is, or what a map has for it: of one field as long as that,
// of several in registers.
func width(fields []nftables.SetDatatype) uint32 {
	if len(fields) == 1 {
		return fields[0].Bytes
	}
	return nftables.MustConcatSetType(fields...).Bytes
}

// keyLen is the width of keys by the set's name.
var keyLen = func() map[string]int {
	m := map[string]int{}
	for _, s := range sets() {
		m[s.name] = int(width(s.key))
	}
	return m
}()

// Hook numbers and priorities of linux/netfilter.h, netfilter_ipv4.h and
// netfilter_bridge.h.
const (
	prerouting, input, forward, output, postrouting = 0, 1, 2, 3, 4
	raw, mangle, dstnat, filter, srcnat             = -300, -150, -100, 0, 100
	bridgeDstnat                                    = -300
)

// marks are what our devices and packets are known by.
type marks struct {
	bit    uint32 // of a packet: tells the guards of our bridges that it was passed here
	group  uint32 // of our devices
	leaf   string // begins the names of leaf bridges
	tunnel string // begins the names of tunnels
}

// from and to are for packets from and to our devices. A bridge that lost its group
// is closed until it is repaired: to the addresses behind it by chain ingress, to
// the rest by its guard.
func (m marks) from() []expr.Any    { return iifGroup.is(native(m.group)) }
func (m marks) to() []expr.Any      { return oifGroup.is(native(m.group)) }
func (m marks) notFrom() []expr.Any { return iifGroup.not(native(m.group)) }
func (m marks) notTo() []expr.Any   { return oifGroup.not(native(m.group)) }

// chains are those that are always there. What every packet meets is asked first by what costs
// least: a look into a set costs ten times what comparing a number does.
func chains(m marks) []chain {
	return []chain{
		{inet, "leaf", "filter", prerouting, raw, []rule{
			{"seen again where it is routed", join(beginning(expr.MetaKeyIIFNAME, m.leaf), in("leaves", iif), notrack())}}},
		{inet, "ingress", "filter", prerouting, mangle, ingress(m)},
		{inet, "prerouting", "nat", prerouting, dstnat, arriving()},
		{inet, "output", "nat", output, dstnat, sent()},
		{inet, "publish_any", "", 0, 0, publishAny()},
		{inet, "publish_one", "", 0, 0, publishOne()},
		{inet, "forward", "filter", forward, filter, forwarded(m)},
		{inet, "mss", "", 0, 0, clamp(m)},
		{inet, "passed", "", 0, 0, passed(m)},
		{inet, "postrouting", "nat", postrouting, srcnat, masquerade(m)},
		{bridge, "source", "filter", prerouting, bridgeDstnat, source(m)},
		{bridge, "source_arp", "", 0, 0, sourceARP()},
		{bridge, "source_ip4", "", 0, 0, sourceIP4()},
		{bridge, "source_ip6", "", 0, 0, sourceIP6()},
	}
}

// ipFamily is what the rules of one family are written with.
type ipFamily struct {
	n            uint32
	s            string
	saddr, daddr field
	ttl          field
	frame        []expr.Any // on a bridge
}

var families = []ipFamily{
	{unix.NFPROTO_IPV4, "4", saddr4, daddr4, ttl4, ipv4},
	{unix.NFPROTO_IPV6, "6", saddr6, daddr6, ttl6, ipv6},
}

func ingress(m marks) []rule {
	notLo := named(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo")
	outside := func(at field) []expr.Any {
		return join(family(unix.NFPROTO_IPV4), at.masked([]byte{255, 0, 0, 0}, []byte{127, 0, 0, 0}), notLo, drop())
	}
	rules := []rule{ // the kernel itself drops ::1 from outside, before any chain
		{"CVE-2020-8558: loopback addresses stay on lo", outside(daddr4)},
		{"nobody else has a loopback address", outside(saddr4)},
		{"br_netfilter: hairpin meets the guard before the forward chain", join(translatedTwice(), m.from(), setMark(m.bit))},
		{"settled by what came before", join(ctState(known), accept())},
		tunnelArrives(m),
		{"br_netfilter: what is translated meets the guard before the forward chain", join(m.from(), local(), setMark(m.bit))},
	}
	for _, f := range families {
		rules = append(rules,
			routedTunnel(m, f),
			rule{"a published port with an allow-list", join(family(f.n), in("limited"+f.s, f.daddr, l4proto, dport), local(),
				notIn("allowed"+f.s, f.daddr, l4proto, dport, f.saddr), notLo, drop())},
			rule{"a port of an interface with an allow-list", join(family(f.n), in("iflimited"+f.s, iif, l4proto, dport), localHere(),
				notIn("ifallowed"+f.s, iif, l4proto, dport, f.saddr), drop())},
			arrivedAcross(m, f),
			rule{"in by its own bridge, or by an interface that is trusted", join(family(f.n), in("nets"+f.s, f.daddr), notLo,
				notIn("segments"+f.s, f.daddr, iif), notIn("entrances"+f.s, f.daddr, iif), drop())},
		)
	}
	return rules
}

// known are the states of packets that belong to what was let through before.
const known = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED

// linkLocal6 goes back for addresses of fe80::/10.
func linkLocal6() rule {
	return rule{"a link-local client cannot be answered from another link", join(family(unix.NFPROTO_IPV6), isLinkLocal(daddr6), goBack())}
}

func isLinkLocal(at field) []expr.Any {
	return at.masked(append([]byte{0xff, 0xc0}, make([]byte, 14)...), append([]byte{0xfe, 0x80}, make([]byte, 14)...))
}

// arriving sends what comes in to containers. What only passes through is let go
// at once; an interface goes before an address that it has.
func arriving() []rule {
	rules := []rule{linkLocal6(), forOthers(), {"", jump("publish_any")}}
	for _, f := range families {
		rules = append(rules,
			rule{"a port of an interface's addresses", join(family(f.n), localHere(), dnat(f.n, true, "ifports"+f.s, iif, l4proto, dport))},
			rule{"a range of an interface's addresses, numbers kept", join(family(f.n), localHere(), dnat(f.n, false, "ifranges"+f.s, iif, l4proto, dport))},
		)
	}
	return append(rules, rule{"", jump("publish_one")})
}

// sent sends what programs of the host send to its own addresses to containers.
func sent() []rule {
	return []rule{
		forOthers(),
		{"loopback is redirected at connect", join(family(unix.NFPROTO_IPV4), daddr4.masked([]byte{255, 0, 0, 0}, []byte{127, 0, 0, 0}), goBack())},
		{"loopback is redirected at connect", join(family(unix.NFPROTO_IPV6), daddr6.is(loopback6), goBack())},
		linkLocal6(),
		{"", jump("publish_any")},
		{"", jump("publish_one")},
	}
}

func forOthers() rule {
	return rule{"CVE-2025-67499: only what is for this host", join(notLocal(), goBack())}
}

// publishAny comes first: a port of every address is nobody else's.
func publishAny() (rules []rule) {
	for _, f := range families {
		rules = append(rules,
			rule{"a port of every address", join(family(f.n), dnat(f.n, true, "anyports"+f.s, l4proto, dport))},
			rule{"a range of every address, numbers kept", join(family(f.n), dnat(f.n, false, "anyranges"+f.s, l4proto, dport))},
		)
	}
	return rules
}

func publishOne() (rules []rule) {
	for _, f := range families {
		rules = append(rules,
			rule{"a port of one address", join(family(f.n), dnat(f.n, true, "ports"+f.s, f.daddr, l4proto, dport))},
			rule{"a range of one address, numbers kept", join(family(f.n), dnat(f.n, false, "ranges"+f.s, f.daddr, l4proto, dport))},
		)
	}
	return rules
}

// clamp keeps the other end from filling packets that do not fit the way to the
// container. What the container sends needs no such care: what is too large for
// the way out this host itself tells it.
func clamp(m marks) []rule {
	return []rule{{"from a container: as large as the route allows", join(m.from(), mssOfRoute())}}
}

func forwarded(m marks) []rule {
	rules := []rule{
		{"a connection of which both ends were heard", join(bits(expr.CtKeySTATUS, ctStatusAssured), goTo("passed"))},
		{"the first packet of a connection says how large the others may be", join(l4proto.is([]byte{unix.IPPROTO_TCP}),
			tcpFlags.masked([]byte{synFlag | rstFlag}, []byte{synFlag}), jump("mss"))},
		{"settled by what came before", join(ctState(known), goTo("passed"))},
		{"not ours: not decided here", join(m.notFrom(), m.notTo(), accept())},
		{"within one network", join(m.from(), m.to(), in("same", iif, oif), goTo("passed"))},
		{"nothing enters an internal network", join(m.to(), in("internal", oif), drop())},
		{"nothing leaves an internal network", join(m.from(), in("internal", iif), drop())},
		{"would leave with an inside address", join(ctState(expr.CtStateBitINVALID), drop())},
		{"a published port", join(bits(expr.CtKeySTATUS, ctStatusDNAT), m.to(), goTo("passed"))},
	}
	for _, f := range families {
		ping := map[string]byte{"4": unix.IPPROTO_ICMP, "6": unix.IPPROTO_ICMPV6}[f.s]
		rules = append(rules,
			enteringAcross(f),
			rule{"a network that is open to everybody", join(family(f.n), m.to(), in("direct"+f.s, f.daddr), goTo("passed"))},
			rule{"a port that is open", join(family(f.n), in("openports"+f.s, f.daddr, l4proto, dport), goTo("passed"))},
			rule{"a row of ports that is open", join(family(f.n), in("openranges"+f.s, f.daddr, l4proto, dport), goTo("passed"))},
			rule{"a port that is open to the sender", join(family(f.n), in("openfrom"+f.s, f.daddr, l4proto, dport, f.saddr), goTo("passed"))},
			rule{"a network that is routed to", join(family(f.n), in("open"+f.s, f.daddr), l4proto.is([]byte{ping}), goTo("passed"))},
		)
	}
	return append(rules, rule{"everything else that would enter", join(m.to(), drop())})
}

func passed(m marks) []rule {
	return []rule{
		{"nobody asks for the mark elsewhere", join(m.notTo(), accept())},
		{"the guard of the bridge asks for it", join(setMark(m.bit), accept())},
	}
}

func masquerade(m marks) []rule {
	rules := []rule{{"does not leave", join(named(expr.MetaKeyOIFNAME, expr.CmpOpEq, "lo"), accept())}}
	for _, f := range families {
		rules = append(rules,
			rule{"hairpin: answers must come back through us", join(family(f.n), m.to(), bits(expr.CtKeySTATUS, ctStatusDNAT), in("segments"+f.s, f.saddr, oif), masq())},
			rule{"stays within its network", join(family(f.n), m.to(), in("segments"+f.s, f.saddr, oif), accept())},
			rule{"leaves: with the address of this host", join(family(f.n), in("masquerade"+f.s, f.saddr), masq())},
		)
	}
	return rules
}

// source looks at the frames of containers as they come out of their links,
// also those that stay within a bridge. What is as it should be is known by one
// look into a set, and goes first.
func source(m marks) []rule {
	return []rule{
		{"its own address", join(ipv4, in("sources4", iif, etherSaddr, saddr4), accept())},
		{"out of a tunnel: held to its address where it was sent", join(beginning(expr.MetaKeyIIFNAME, m.tunnel), accept())},
		ownAddress6(unix.IPPROTO_TCP), ownAddress6(unix.IPPROTO_UDP),
		{"not a container's, or one that may send anything", join(notIn("guarded", iif), accept())},
		{"another's MAC address", join(notIn("macs", iif, etherSaddr), drop())},
		{"nested tags: receivers take off all of VLAN 0", join(protocol.is([]byte{0x81, 0x00}), drop())},
		{"nested tags: receivers take off all of VLAN 0", join(protocol.is([]byte{0x88, 0xa8}), drop())},
		{"", join(arp, goTo("source_arp"))},
		{"", join(ipv4, goTo("source_ip4"))},
		{"", join(ipv6, goTo("source_ip6"))},
	}
}

// ownAddress6 asks for what is right behind the header: what only follows further
// on may be made to look like something else.
func ownAddress6(next byte) rule {
	return rule{"its own address", join(ipv6, nextHeader6.is([]byte{next}), in("sources6", iif, etherSaddr, saddr6), accept())}
}

// The protocols are said again in the chains of each, so that nft can print the
// rules in words.
var arp, ipv4, ipv6 = protocol.is([]byte{0x08, 0x06}), protocol.is([]byte{0x08, 0x00}), protocol.is([]byte{0x86, 0xdd})

func sourceARP() []rule {
	return []rule{
		{"speaks of another's MAC address", join(arp, notIn("macs", iif, arpSHA), drop())},
		{"its own address", join(arp, in("sources4", iif, arpSHA, arpSPA), accept())},
		{"one that it stands for", join(arp, in("prefixes4", iif, arpSHA, arpSPA), accept())},
		{"asks whether an address is free", join(arp, arpSPA.is(make([]byte, 4)), accept())},
		{"speaks of another's address", drop()},
	}
}

func sourceIP4() []rule {
	dhcp := join(ipv4, saddr4.is(make([]byte, 4)), l4proto.is([]byte{unix.IPPROTO_UDP}), dport.is([]byte{0, 67}))
	return append([]rule{{"a DHCP client", join(dhcp, accept())}}, beyond("4", ipv4, saddr4)...)
}

const (
	routerAdvert, neighborAdvert, redirect = 134, 136, 137
	synFlag, rstFlag                       = 2, 4
)

func sourceIP6() []rule {
	icmp := join(ipv6, l4proto.is([]byte{unix.IPPROTO_ICMPV6}))
	hidden := func(next byte) rule {
		return rule{"fragments that hide what they are", join(ipv6, fragmentOf.is([]byte{next}), drop())}
	}
	linkLocal := rule{"nobody routes for link-local addresses", join(ipv6, isLinkLocal(saddr6), drop())}
	return append([]rule{
		hidden(unix.IPPROTO_DSTOPTS), hidden(unix.IPPROTO_HOPOPTS), hidden(unix.IPPROTO_ROUTING), hidden(unix.IPPROTO_FRAGMENT),
		{"CVE-2020-13401: a container is no router", join(icmp, icmpType.is([]byte{routerAdvert}), drop())},
		{"nor does it know a better way", join(icmp, icmpType.is([]byte{redirect}), drop())},
		{"hides what it says: the guard of the port looks no further", join(nextHeader6.not([]byte{unix.IPPROTO_ICMPV6}), icmp, icmpType.is([]byte{neighborAdvert}), drop())},
		{"asks whether an address is free", join(icmp, saddr6.is(make([]byte, 16)), accept())},
		{"its own address", join(ipv6, in("sources6", iif, etherSaddr, saddr6), accept())},
	}, beyond("6", ipv6, saddr6, linkLocal)...)
}

// beyond are the addresses besides its own that a container may send with; never
// are those that it may not route for.
func beyond(f string, is []expr.Any, saddr field, never ...rule) []rule {
	rules := []rule{{"one that it stands for", join(is, in("prefixes"+f, iif, etherSaddr, saddr), accept())}}
	return append(append(rules, never...),
		rule{"routes, but for nobody here", join(is, in("routers"+f, iif, etherSaddr), notIn("subnets"+f, saddr), accept())},
		rule{"another's address", drop()})
}
