package ruleset

import (
	"encoding/binary"
	"net/netip"
)

// Field is something of a packet that a rule looks at.
type Field struct {
	Of     Part
	Offset int // of NetworkHeader and TransportHeader
	Len    int
}

// Part is where a field is.
type Part int

// Parts.
const (
	Unknown Part = iota // nothing is known of it
	NetworkHeader
	TransportHeader
	InName
	OutName
	InIndex
	OutIndex
	NFProto   // family
	L4Proto   // protocol
	EtherType // "meta protocol"
	PacketMark
	PacketType
	CTState
	CTStatus
	CTDirection
	CTOriginalPort // of the destination
	CTOriginalDst
	DestType   // "fib daddr type"
	SourceType // "fib saddr type"
	RouteBack  // "fib saddr . iif oif"
)

type presence int

const (
	absent presence = iota // the rule does not match
	present
	unclear
)

// Bits of nftables' ct state and of the status of a connection.
const (
	ctNew      = 1 << 3
	statusDNAT = 1 << 5
)

var protocols = map[string]byte{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

func (f Field) of(r *run) ([]byte, presence) {
	p := r.packet
	switch f.Of {
	case InIndex:
		return r.rules.index(p.In)
	case OutIndex:
		return r.rules.index(p.Out)
	case NetworkHeader:
		return cut(p.network(), f)
	case TransportHeader:
		return cut(p.transport(), f)
	case InName:
		return name(p.In)
	case OutName:
		return name(p.Out)
	case NFProto:
		return known(p.pick(2, 10))
	case L4Proto:
		return known(protocols[p.Proto])
	case EtherType:
		return binary.BigEndian.AppendUint16(nil, p.etherType()), present
	case PacketMark:
		return make([]byte, 4), present
	case PacketType, CTDirection:
		return known(0)
	case CTState:
		return native(ctNew), present
	case CTStatus:
		return native(p.status()), present
	case CTOriginalPort:
		return binary.BigEndian.AppendUint16(nil, p.original().Port()), present
	case CTOriginalDst:
		return p.original().Addr().AsSlice(), present
	case DestType:
		return native(p.kind()), present
	case SourceType, RouteBack:
		return native(1), present // unicast; a link that is there
	}
	return nil, unclear
}

func known(b byte) ([]byte, presence) { return []byte{b}, present }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// name is an interface as the kernel loads it: where there is none, an empty name,
// which `oifname != "eth0"` is true of.
func name(s string) ([]byte, presence) {
	b := make([]byte, 16)
	copy(b, s)
	return b, present
}

// index is an interface's number, 0 where there is none.
func (r *Ruleset) index(link string) ([]byte, presence) {
	i, ok := r.Links[link]
	if !ok && link != "" {
		return nil, unclear
	}
	return native(i), present
}

func cut(header []byte, f Field) ([]byte, presence) {
	if f.Offset < 0 || f.Offset+f.Len > len(header) {
		return nil, absent
	}
	return header[f.Offset : f.Offset+f.Len], present
}

func (p Packet) pick(v4, v6 byte) byte {
	if p.Dst.Is4() {
		return v4
	}
	return v6
}

func (p Packet) etherType() uint16 {
	if p.Dst.Is4() {
		return 0x0800
	}
	return 0x86dd
}

func (p Packet) status() uint32 {
	if p.DNAT.IsValid() {
		return statusDNAT
	}
	return 0
}

func (p Packet) original() netip.AddrPort {
	if p.DNAT.IsValid() {
		return p.DNAT
	}
	return netip.AddrPortFrom(p.Dst, p.DstPort)
}

// kind is RTN_UNICAST or RTN_LOCAL.
func (p Packet) kind() uint32 {
	if p.Local {
		return 2
	}
	return 1
}

const ttl = 64

// network is the header of the packet as it is on a wire, without its checksum.
func (p Packet) network() []byte {
	src, dst := p.Src.AsSlice(), p.Dst.AsSlice()
	if p.Dst.Is4() {
		h := make([]byte, 12)
		h[0], h[3], h[8], h[9] = 0x45, 60, ttl, protocols[p.Proto]
		return append(append(h, src...), dst...)
	}
	h := make([]byte, 8)
	h[0], h[5], h[6], h[7] = 0x60, 40, protocols[p.Proto], ttl
	return append(append(h, src...), dst...)
}

// transport is the beginning of the header: ports, and of TCP the flag SYN.
func (p Packet) transport() []byte {
	h := binary.BigEndian.AppendUint16(nil, p.SrcPort)
	h = append(binary.BigEndian.AppendUint16(h, p.DstPort), make([]byte, 16)...)
	if p.Proto == "tcp" {
		h[12], h[13] = 0x50, 0x02
	}
	return h
}
