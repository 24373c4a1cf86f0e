package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Words for expressions. Fields are loaded into 4-byte registers from reg on,
// one behind the other.

const reg = unix.NFT_REG32_00

const ctStatusAssured, ctStatusSNAT, ctStatusDNAT = 1 << 2, 1 << 4, 1 << 5

var loopback6 = append(make([]byte, 15), 1)

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
	tcpFlags       = payload(expr.PayloadBaseTransportHeader, 13, 1)
	icmpType       = payload(expr.PayloadBaseTransportHeader, 0, 1)
	nextHeader6    = payload(expr.PayloadBaseNetworkHeader, 6, 1)
	arpSHA, arpSPA = payload(expr.PayloadBaseNetworkHeader, 8, 6), payload(expr.PayloadBaseNetworkHeader, 14, 4)
	etherSaddr     = payload(expr.PayloadBaseLLHeader, 6, 6)
	etherDaddr     = payload(expr.PayloadBaseLLHeader, 0, 6)
	ttl4, ttl6     = payload(expr.PayloadBaseNetworkHeader, 8, 1), payload(expr.PayloadBaseNetworkHeader, 7, 1)
	l4proto        = meta(expr.MetaKeyL4PROTO, 1)
	protocol       = meta(expr.MetaKeyPROTOCOL, 2)
	iifGroup       = meta(expr.MetaKeyIIFGROUP, 4)
	oifGroup       = meta(expr.MetaKeyOIFGROUP, 4)
	iif, oif       = meta(expr.MetaKeyIIFNAME, 16), meta(expr.MetaKeyOIFNAME, 16)
)

// fragmentOf is what a fragment's header says is next.
var fragmentOf = field{1, func(r uint32) expr.Any {
	return &expr.Exthdr{DestRegister: r, Type: unix.IPPROTO_FRAGMENT, Len: 1, Op: expr.ExthdrOpIpv6}
}}

func (f field) is(v []byte) []expr.Any {
	return []expr.Any{f.load(reg), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: v}}
}

func (f field) not(v []byte) []expr.Any {
	return []expr.Any{f.load(reg), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: v}}
}

func (f field) between(least, most byte) []expr.Any {
	return []expr.Any{f.load(reg), &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{least}, ToData: []byte{most}}}
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

// beginning matches names that begin so.
func beginning(k expr.MetaKey, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: k, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(prefix)}}
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

// local is for an address of this host, localHere for one of the interface that
// the packet came in by.
func local() []expr.Any     { return fib(false, expr.CmpOpEq) }
func notLocal() []expr.Any  { return fib(false, expr.CmpOpNeq) }
func localHere() []expr.Any { return fib(true, expr.CmpOpEq) }

func fib(here bool, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, FlagIIF: here, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: reg, Data: native(unix.RTN_LOCAL)}}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// bits matches when one of mask is set.
func bits(k expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: k, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: native(0)}}
}

// translatedTwice matches connections of which both ends are translated: those
// of a container to a port that its own network publishes.
func translatedTwice() []expr.Any {
	both := native(ctStatusSNAT | ctStatusDNAT)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: both, Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: both}}
}

func ctState(mask uint32) []expr.Any { return bits(expr.CtKeySTATE, mask) }

// setMark sets the bits of mark and leaves the others.
func setMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(^mark), Xor: native(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg}}
}

// mssOfRoute writes the largest segment of the route into a SYN; the kernel
// never makes it larger than it was.
func mssOfRoute() []expr.Any {
	const maxseg = 2
	return []expr.Any{
		&expr.Rt{Register: reg, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: reg, Type: maxseg, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
func accept() []expr.Any                    { return verdict(expr.VerdictAccept) }
func drop() []expr.Any                      { return verdict(expr.VerdictDrop) }
func goBack() []expr.Any                    { return verdict(expr.VerdictReturn) }
func masq() []expr.Any                      { return []expr.Any{&expr.Masq{}} }
func notrack() []expr.Any                   { return []expr.Any{&expr.Notrack{}} }
func jump(to string) []expr.Any             { return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}} }
func goTo(to string) []expr.Any             { return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: to}} }
