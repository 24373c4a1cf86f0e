package dhcp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// The numbers of frames.
const (
	ethernetLen = 14
	ip4Len      = 20
	ip6Len      = 40
	udpLen      = 8

	client4, server4 = 68, 67
	client6, server6 = 546, 547
)

var everybody = netspec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

var be = binary.BigEndian

func ethernet(to, from netspec.MAC, kind uint16) []byte {
	return be.AppendUint16(append(append(make([]byte, 0, 640), to[:]...), from[:]...), kind)
}

// datagram is one of UDP, and where it came from.
type datagram struct {
	from    netspec.MAC
	src     netip.AddrPort
	payload []byte
}

// udp4 is a frame with a datagram from the client's port to the server's.
func udp4(to, from netspec.MAC, dst, src netip.Addr, payload []byte) []byte {
	b := ethernet(to, from, unix.ETH_P_IP)
	b = append(b, 0x45, 0xc0) // network control, as servers send it
	b = be.AppendUint16(b, uint16(ip4Len+udpLen+len(payload)))
	b = append(b, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0) // not to be split
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	be.PutUint16(b[ethernetLen+10:], ^sum(0, b[ethernetLen:]))
	return append(b, udp(src, dst, client4, server4, payload)...)
}

func udp(src, dst netip.Addr, from, to uint16, payload []byte) []byte {
	b := be.AppendUint16(be.AppendUint16(nil, from), to)
	b = append(be.AppendUint16(b, uint16(udpLen+len(payload))), 0, 0)
	b = append(b, payload...)
	if be.PutUint16(b[6:], ^pseudo(src, dst, unix.IPPROTO_UDP, b)); b[6] == 0 && b[7] == 0 {
		b[6], b[7] = 0xff, 0xff // zero means that there is none
	}
	return b
}

// readUDP4 is the datagram in a frame that answers4 let pass.
func readUDP4(f frame) (d datagram, ok bool) {
	b := f.data
	if len(b) < ethernetLen+ip4Len+udpLen || be.Uint16(b[12:]) != unix.ETH_P_IP {
		return d, false
	}
	ip := b[ethernetLen:]
	head, total := int(ip[0]&15)*4, int(be.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4, head < ip4Len, total > len(ip), total < head+udpLen:
		return d, false
	case be.Uint16(ip[6:])&0x3fff != 0: // a fragment
		return d, false
	case ip[9] != unix.IPPROTO_UDP, sum(0, ip[:head]) != 0xffff:
		return d, false
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	return readUDP(f, src, dst, ip[head:total], client4)
}

func readUDP(f frame, src, dst netip.Addr, u []byte, port uint16) (d datagram, ok bool) {
	if len(u) < udpLen {
		return d, false
	}
	n := int(be.Uint16(u[4:]))
	if be.Uint16(u[2:]) != port || n < udpLen || n > len(u) {
		return d, false
	}
	none := be.Uint16(u[6:]) == 0 && src.Is4()
	if !f.partial && !none && pseudo(src, dst, unix.IPPROTO_UDP, u[:n]) != 0xffff {
		return d, false
	}
	return datagram{netspec.MAC(f.data[6:12]), netip.AddrPortFrom(src, be.Uint16(u)), u[udpLen:n]}, true
}

// sum is the ones' complement sum of the internet protocols.
func sum(start uint32, b []byte) uint16 {
	s := start
	for ; len(b) > 1; b = b[2:] {
		s += uint32(be.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo is sum with the addresses, as UDP and ICMPv6 have it.
func pseudo(src, dst netip.Addr, protocol uint8, b []byte) uint16 {
	h := append(src.AsSlice(), dst.AsSlice()...)
	return sum(uint32(protocol)+uint32(len(b))+uint32(sum(0, h)), b)
}
