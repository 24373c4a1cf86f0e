package dhcp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// filter is what a socket lets pass: a frame for which all checks of one of the
// ways hold. The kernel sorts the rest out before isled wakes up.
type filter struct {
	protocol uint16
	ways     [][]check
	groups   []netspec.MAC // multicast addresses to be listened to
}

// check is what to load, and what it must be then.
type check struct {
	load []bpf.Instruction
	want uint32
}

// load is of n bytes at an offset of the frame.
func load(offset uint32, n int) []bpf.Instruction {
	return []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: n}}
}

// loadAfterIP is of n bytes at an offset from the end of the IPv4 header.
func loadAfterIP(offset uint32, n int) []bpf.Instruction {
	return []bpf.Instruction{bpf.LoadMemShift{Off: ethernetLen}, bpf.LoadIndirect{Off: ethernetLen + offset, Size: n}}
}

// ours lets through what is for this host or for a group: not what this host
// sends, what is for others, or what has the tag of a VLAN that is not here,
// which the kernel takes off and counts as for others.
var ours = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType}, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: unix.PACKET_OTHERHOST, SkipTrue: 1}, bpf.RetConstant{Val: 0},
}

func (f filter) assemble() (*unix.SockFprog, error) {
	raw, err := bpf.Assemble(f.program())
	if err != nil {
		return nil, err
	}
	p := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		p[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}, nil
}

func (f filter) program() []bpf.Instruction {
	p := append([]bpf.Instruction(nil), ours...)
	for _, way := range f.ways {
		p = append(p, compile(way)...)
	}
	return append(p, bpf.RetConstant{Val: 0})
}

// compile makes a program that accepts, or ends behind itself.
func compile(way []check) []bpf.Instruction {
	length := 1
	for _, c := range way {
		length += len(c.load) + 1
	}
	var p []bpf.Instruction
	for _, c := range way {
		p = append(p, c.load...)
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.want, SkipTrue: uint8(length - len(p) - 1)})
	}
	return append(p, bpf.RetConstant{Val: 1 << 16})
}

// answers4 are DHCPv4 answers to a MAC.
func answers4(mac netspec.MAC) filter {
	return filter{protocol: unix.ETH_P_IP, ways: [][]check{{
		{load(23, 1), unix.IPPROTO_UDP},
		{loadAfterIP(2, 2), client4},
		{loadAfterIP(8, 1), 2}, // a reply
		{loadAfterIP(8+28, 4), binary.BigEndian.Uint32(mac[:4])},
		{loadAfterIP(8+32, 2), uint32(binary.BigEndian.Uint16(mac[4:]))},
	}}}
}

// arpOf is ARP in which an address is the sender's or the one asked for.
func arpOf(a netip.Addr) filter {
	n := word(a, 0)
	return filter{protocol: unix.ETH_P_ARP, ways: [][]check{{{load(28, 4), n}}, {{load(38, 4), n}}}}
}

// answers6 are router advertisements, and DHCPv6 to a client.
func answers6() filter {
	return filter{
		protocol: unix.ETH_P_IPV6,
		groups:   []netspec.MAC{multicastMAC(allNodes)},
		ways: [][]check{
			{{load(20, 1), unix.IPPROTO_ICMPV6}, {load(54, 1), routerAdvertisement}},
			{{load(20, 1), unix.IPPROTO_UDP}, {load(56, 2), client6}},
		},
	}
}

// neighboursOf are solicitations and advertisements of an address.
func neighboursOf(a netip.Addr) filter {
	way := func(kind uint32) []check {
		w := []check{{load(20, 1), unix.IPPROTO_ICMPV6}, {load(54, 1), kind}}
		for i := range uint32(4) {
			w = append(w, check{load(62+4*i, 4), word(a, int(4*i))})
		}
		return w
	}
	return filter{
		protocol: unix.ETH_P_IPV6, groups: []netspec.MAC{multicastMAC(solicitedNode(a)), multicastMAC(allNodes)},
		ways: [][]check{way(neighbourSolicitation), way(neighbourAdvertisement)},
	}
}

func word(a netip.Addr, i int) uint32 { return binary.BigEndian.Uint32(a.AsSlice()[i:]) }
