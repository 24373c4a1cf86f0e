package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

// The fixed part of our table. table.nft is the same as text, in the words of
// nft, with the reasons; a test holds the two together.

type message = nlmsg.Message

type set struct {
	name     string
	key      []nftables.SetDatatype
	data     []nftables.SetDatatype // of a map
	interval bool
}

type chain struct {
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

var (
	ip4, ip6   = nftables.TypeIPAddr, nftables.TypeIP6Addr
	dev        = nftables.TypeIFName
	l4, number = nftables.TypeInetProto, nftables.TypeInetService
)

func types(t ...nftables.SetDatatype) []nftables.SetDatatype { return t }

func sets() []set {
	out := []set{
		{name: "links", key: types(dev)},
		{name: "internal", key: types(dev)},
		{name: "same", key: types(dev, dev)},
	}
	for i, ip := range []nftables.SetDatatype{ip4, ip6} {
		f := []string{"4", "6"}[i]
		out = append(out,
			set{name: "nets" + f, key: types(ip), interval: true},
			set{name: "segments" + f, key: types(ip, dev), interval: true},
			set{name: "masquerade" + f, key: types(ip), interval: true},
			set{name: "ports" + f, key: types(ip, l4, number), data: types(ip, number)},
			set{name: "anyports" + f, key: types(l4, number), data: types(ip, number)},
			set{name: "ranges" + f, key: types(ip, l4, number), data: types(ip), interval: true},
			set{name: "anyranges" + f, key: types(l4, number), data: types(ip), interval: true},
		)
	}
	return out
}

// Hook numbers and priorities of linux/netfilter.h and netfilter_ipv4.h.
const (
	prerouting, forward, output, postrouting = 0, 2, 3, 4
	mangle, dstnat, filter, srcnat           = -150, -100, 0, 100
)

func chains() []chain {
	return []chain{
		{"ingress", "filter", prerouting, mangle, ingress()},
		{"prerouting", "nat", prerouting, dstnat, []rule{
			{"CVE-2025-67499: only what is for this host", join(local(), jump("publish"))}}},
		{"output", "nat", output, dstnat, []rule{
			{"the host's own packets to its own addresses", join(local(), jump("publish"))}}},
		{"publish", "", 0, 0, publish()},
		{"forward", "filter", forward, filter, forwarded()},
		{"postrouting", "nat", postrouting, srcnat, masquerade()},
	}
}

func ingress() []rule {
	notLo := named(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo")
	outside := func(in4 bool, at field) []expr.Any {
		if in4 {
			return join(family(unix.NFPROTO_IPV4), at.masked([]byte{255, 0, 0, 0}, []byte{127, 0, 0, 0}), notLo, drop())
		}
		return join(family(unix.NFPROTO_IPV6), at.is(append(make([]byte, 15), 1)), notLo, drop())
	}
	return []rule{
		{"CVE-2020-8558: loopback addresses stay on lo", outside(true, daddr4)},
		{"nobody else has a loopback address", outside(true, saddr4)},
		{"CVE-2020-8558: loopback addresses stay on lo", outside(false, daddr6)},
		{"nobody else has a loopback address", outside(false, saddr6)},
		{"answers to what began inside", join(direction.is([]byte{1}), accept())},
		{"in by its own bridge only", join(family(unix.NFPROTO_IPV4), in("nets4", daddr4), notLo, notIn("segments4", daddr4, iif), drop())},
		{"in by its own bridge only", join(family(unix.NFPROTO_IPV6), in("nets6", daddr6), notLo, notIn("segments6", daddr6, iif), drop())},
	}
}

func publish() []rule {
	back := func(f uint32, m []expr.Any) []expr.Any { return join(family(f), m, goBack()) }
	ll, llMask := append([]byte{0xfe, 0x80}, make([]byte, 14)...), append([]byte{0xff, 0xc0}, make([]byte, 14)...)
	rules := []rule{
		{"loopback is redirected at connect", back(unix.NFPROTO_IPV4, daddr4.masked([]byte{255, 0, 0, 0}, []byte{127, 0, 0, 0}))},
		{"loopback is redirected at connect", back(unix.NFPROTO_IPV6, daddr6.is(append(make([]byte, 15), 1)))},
		{"a link-local client cannot be answered from another link", back(unix.NFPROTO_IPV6, daddr6.masked(llMask, ll))},
	}
	for _, f := range []struct {
		n  uint32
		s  string
		at field
	}{{unix.NFPROTO_IPV4, "4", daddr4}, {unix.NFPROTO_IPV6, "6", daddr6}} {
		rules = append(rules,
			rule{"a port of one address", join(family(f.n), dnat(f.n, true, "ports"+f.s, f.at, l4proto, dport))},
			rule{"a range of one address, numbers kept", join(family(f.n), dnat(f.n, false, "ranges"+f.s, f.at, l4proto, dport))},
			rule{"a port of every address", join(family(f.n), dnat(f.n, true, "anyports"+f.s, l4proto, dport))},
			rule{"a range of every address, numbers kept", join(family(f.n), dnat(f.n, false, "anyranges"+f.s, l4proto, dport))},
		)
	}
	return rules
}

func forwarded() []rule {
	return []rule{
		{"not ours: not decided here", join(notIn("links", iif), notIn("links", oif), accept())},
		{"within one network", join(in("same", iif, oif), accept())},
		{"nothing enters an internal network", join(in("internal", oif), drop())},
		{"nothing leaves an internal network", join(in("internal", iif), drop())},
		{"", join(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())},
		{"would leave with an inside address", join(ctState(expr.CtStateBitINVALID), drop())},
		{"a published port", join(in("links", oif), bits(expr.CtKeySTATUS, ctStatusDNAT), accept())},
		{"everything else that would enter", join(in("links", oif), drop())},
	}
}

func masquerade() []rule {
	var rules []rule
	for _, f := range []struct {
		n  uint32
		s  string
		at field
	}{{unix.NFPROTO_IPV4, "4", saddr4}, {unix.NFPROTO_IPV6, "6", saddr6}} {
		rules = append(rules,
			rule{"hairpin: answers must come back through us", join(family(f.n), in("segments"+f.s, f.at, oif), bits(expr.CtKeySTATUS, ctStatusDNAT), masq())},
			rule{"stays within its network", join(family(f.n), in("segments"+f.s, f.at, oif), accept())},
			rule{"leaves: with the address of this host", join(family(f.n), in("masquerade"+f.s, f.at), masq())},
		)
	}
	return rules
}

// What follows are words for expressions. Fields are loaded into 4-byte
// registers from reg on, one behind the other.

const reg = unix.NFT_REG32_00

const ctStatusDNAT = 1 << 5

type field struct {
	size int
	load func(reg uint32) expr.Any
}

func payload(base expr.PayloadBase, offset, size uint32) field {
	return field{int(size), func(r uint32) expr.Any {
		return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: r, Base: base, Offset: offset, Len: size}
	}}
}

func meta(k expr.MetaKey, size int) field {
	return field{size, func(r uint32) expr.Any { return &expr.Meta{Key: k, Register: r} }}
}

var (
	saddr4, daddr4 = payload(expr.PayloadBaseNetworkHeader, 12, 4), payload(expr.PayloadBaseNetworkHeader, 16, 4)
	saddr6, daddr6 = payload(expr.PayloadBaseNetworkHeader, 8, 16), payload(expr.PayloadBaseNetworkHeader, 24, 16)
	dport          = payload(expr.PayloadBaseTransportHeader, 2, 2)
	l4proto        = meta(expr.MetaKeyL4PROTO, 1)
	iif, oif       = meta(expr.MetaKeyIIFNAME, 16), meta(expr.MetaKeyOIFNAME, 16)
	direction      = field{1, func(r uint32) expr.Any { return &expr.Ct{Key: expr.CtKeyDIRECTION, Register: r} }}
)

func (f field) is(v []byte) []expr.Any {
	return []expr.Any{f.load(reg), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: v}}
}

func (f field) masked(mask, v []byte) []expr.Any {
	return []expr.Any{f.load(reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(f.size), Mask: mask, Xor: make([]byte, f.size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: v}}
}

func join(parts ...[]expr.Any) (out []expr.Any) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func family(f uint32) []expr.Any { return meta(expr.MetaKeyNFPROTO, 1).is([]byte{byte(f)}) }

func named(k expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: k, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: []byte(ifname(name))}}
}

func lookup(invert bool, name string, fields ...field) []expr.Any {
	var out []expr.Any
	r := uint32(reg)
	for _, f := range fields {
		out = append(out, f.load(r))
		r += uint32(f.size+3) / 4
	}
	return append(out, &expr.Lookup{SourceRegister: reg, SetName: name, Invert: invert})
}

func in(name string, fields ...field) []expr.Any    { return lookup(false, name, fields...) }
func notIn(name string, fields ...field) []expr.Any { return lookup(true, name, fields...) }

// dnat sends to what a map holds for fields: an address, or an address and a port.
func dnat(f uint32, withPort bool, name string, fields ...field) []expr.Any {
	out := lookup(false, name, fields...)
	l := out[len(out)-1].(*expr.Lookup)
	l.DestRegister, l.IsDestRegSet = reg, true
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: f, RegAddrMin: reg}
	if withPort {
		nat.RegProtoMin = reg + 1
		if f == unix.NFPROTO_IPV6 {
			nat.RegProtoMin = reg + 4
		}
	}
	return append(out, nat)
}

func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: native(unix.RTN_LOCAL)}}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// bits matches when one of mask is set.
func bits(k expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: k, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: native(0)}}
}

func ctState(mask uint32) []expr.Any { return bits(expr.CtKeySTATE, mask) }

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
func accept() []expr.Any                    { return verdict(expr.VerdictAccept) }
func drop() []expr.Any                      { return verdict(expr.VerdictDrop) }
func goBack() []expr.Any                    { return verdict(expr.VerdictReturn) }
func masq() []expr.Any                      { return []expr.Any{&expr.Masq{}} }
func jump(to string) []expr.Any             { return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}} }
