package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// The ports at which tunnels between hosts end. Whoever can send to one puts frames
// into the networks there, so the other hosts may, and nobody else: not a stranger, not
// a container behind this host's address, not a program of this host.

func tunnelSets() []set {
	return []set{
		{table: inet, name: "tunnels", key: types(number)},
		{table: inet, name: "sealed", key: types(number)},
		{table: inet, name: "seals", key: types(dev, number)},
		{table: inet, name: "peers4", key: []nftables.SetDatatype{ip4}},
		{table: inet, name: "peers6", key: []nftables.SetDatatype{ip6}},
	}
}

// tunnelChains are there while there is a tunnel: all that comes in or goes out passes
// them. They come and go in the batch that brings the first one, or takes the last one.
func (t *Table) tunnelChains() []chain {
	all := []chain{
		{inet, "untracked", "filter", prerouting, raw, untracked(t.marks())},
		{inet, "untracked_out", "filter", output, raw, untrackedOut()},
		{inet, "arrived", "filter", input, filter, arrived()},
		{inet, "spoken", "filter", output, filter, spoken(t.marks())},
		{inet, "across", "filter", prerouting, raw, across(t.marks())},
		{bridge, "shortcut", "filter", prerouting, bridgeDstnat + 1, shortcut()},
	}
	return slices.DeleteFunc(all, func(c chain) bool { return !t.has(c.table) })
}

// isTunnel reports whether an element stands for a tunnel.
func (e element) isTunnel() bool { return e.set == "tunnels" || e.set == "sealed" }

// tunnelsAfter are the tunnels that there are when ops are done.
func (t *Table) tunnelsAfter(ops []op) elements {
	now := t.tunnels
	for _, o := range ops {
		if !o.e.isTunnel() {
			continue
		}
		if now = maps.Clone(now); now == nil {
			now = elements{}
		}
		if delete(now, o.e); !o.del {
			now[o.e] = struct{}{}
		}
	}
	return now
}

// guarding puts the chains into ops, before what they guard, or out of the table after it,
// where that is due.
func (t *Table) guarding(ops []op, due bool) []op {
	switch {
	case due && !t.guarded:
		return append(chainOps(t.chainMessages(t.tunnelChains())), ops...)
	case !due && t.guarded:
		return append(ops, chainOps(t.chainRemovals(t.tunnelChains()))...)
	}
	return ops
}

func chainOps(msgs []message) (ops []op) {
	for i := range msgs {
		ops = append(ops, op{chain: &msgs[i]})
	}
	return ops
}

// unguarded reports whether there are tunnels, and not the chains.
func (t *Table) unguarded() bool { return len(t.tunnels) > 0 && !t.guarded }

// Each connection within a tunnel has a port of its own outside, and one direction never
// answers the other. Tracked, each would be an entry of the host's table, that says
// nothing, and costs a sixth of the new connections per second (docs/benchmarks.md).

// untracked is for what hosts of the cluster send to a tunnel here.
func untracked(m marks) (rules []rule) {
	for _, f := range families {
		rules = append(rules, rule{"a tunnel from a host of the cluster", join(m.notFrom(), family(f.n), udpOnly(), in("tunnels", dport), in("peers"+f.s, f.saddr), notrack())})
	}
	return rules
}

// untrackedOut is for what is sent to tunnels elsewhere. Who speaks for them is seen in
// chain spoken, when the address is as it will be.
func untrackedOut() (rules []rule) {
	for _, f := range families {
		rules = append(rules, rule{"a tunnel to a host of the cluster", join(family(f.n), udpOnly(), in("tunnels", dport), in("peers"+f.s, f.daddr), notrack())})
	}
	return rules
}

// tunnelArrives leaves what is not tracked to chain arrived, and in case it is not for
// this host to chain forward.
func tunnelArrives(m marks) rule {
	return rule{"a tunnel: looked at where it ends", join(ctState(expr.CtStateBitUNTRACKED), m.notFrom(), udpOnly(), in("tunnels", dport), accept())}
}

// arrived looks at what is for this host.
func arrived() []rule {
	rules := []rule{onlyUDP(), {"a tunnel outside of what encrypts it", join(in("sealed", dport), notIn("seals", iif, dport), drop())}}
	for _, f := range families {
		rules = append(rules, rule{"a tunnel from no host of the cluster", join(family(f.n), in("tunnels", dport), notIn("peers"+f.s, f.saddr), drop())})
	}
	return rules
}

// spoken looks at what leaves this host. What the kernel puts into a tunnel is of no
// program here, even where a container's socket is behind it. isled's own socket, by which
// it finds out whether tunnels carry, is known by the mark: who may set one may also send
// past all chains.
func spoken(m marks) []rule {
	rules := []rule{onlyUDP(), {"isled tries a tunnel", join(meta(expr.MetaKeyMARK, 4).masked(native(m.bit), native(m.bit)), accept())}, {"a program speaks for a tunnel", join(in("seals", oif, dport), ofProgram(), drop())}}
	for _, f := range families {
		rules = append(rules, rule{"a program speaks for a tunnel", join(family(f.n), in("tunnels", dport), in("peers"+f.s, f.daddr), ofProgram(), drop())})
	}
	return rules
}

// routedTunnel is for a container that speaks for a tunnel: the host's own address
// would be put before it.
func routedTunnel(m marks, f ipFamily) rule {
	return rule{"a container speaks for a tunnel", join(m.from(), family(f.n), udpOnly(), in("tunnels", dport), in("peers"+f.s, f.daddr), drop())}
}

func onlyUDP() rule { return rule{"no tunnel", join(l4proto.not([]byte{unix.IPPROTO_UDP}), accept())} }

func udpOnly() []expr.Any { return l4proto.is([]byte{unix.IPPROTO_UDP}) }

// ofProgram matches what a socket of this namespace sends that a program has open: the
// last of all numbers is no user's.
func ofProgram() []expr.Any { return meta(expr.MetaKeySKUID, 4).not(native(1<<32 - 1)) }

func tunnelElements(t netspec.Tunnel) []element {
	if t.Via == "" {
		return []element{{set: "tunnels", key: port(t.Port)[:2]}}
	}
	return []element{{set: "sealed", key: port(t.Port)[:2]}, {set: "seals", key: ifname(t.Via) + port(t.Port)}}
}

func peerElement(p netspec.TunnelPeer) element {
	return element{set: "peers" + suffix(p.Addr), key: addr(p.Addr)}
}

func tunnelOf(_ elements, e element, _ string) (netspec.Object, bool) {
	k := e.key
	if e.set == "tunnels" {
		return netspec.Tunnel{Port: be(k)}, true
	}
	via := nameOf(cut(&k, 16))
	return netspec.Tunnel{Port: be(k), Via: via}, true
}

func peerOf(_ elements, e element, _ string) (netspec.Object, bool) {
	return netspec.TunnelPeer{Addr: addrOf(e.key)}, true
}
