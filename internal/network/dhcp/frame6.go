package dhcp

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// Kinds of ICMPv6.
const (
	routerSolicitation     = 133
	routerAdvertisement    = 134
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
	allServers = netip.MustParseAddr("ff02::1:2") // of DHCPv6, and relays
)

func multicastMAC(a netip.Addr) netspec.MAC {
	b := a.As16()
	return netspec.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// solicitedNode is the group that the owner of an address listens to.
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// ip6 is a frame to a group.
func ip6(from netspec.MAC, src, dst netip.Addr, protocol, hops byte, payload []byte) []byte {
	b := ethernet(multicastMAC(dst), from, unix.ETH_P_IPV6)
	b = be.AppendUint16(append(b, 0x60, 0, 0, 0), uint16(len(payload)))
	b = append(b, protocol, hops)
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

func udp6(from netspec.MAC, src netip.Addr, payload []byte) []byte {
	return ip6(from, src, allServers, unix.IPPROTO_UDP, 64, udp(src, allServers, client6, server6, payload))
}

func icmp6(from netspec.MAC, src, dst netip.Addr, kind byte, body []byte) []byte {
	b := append([]byte{kind, 0, 0, 0}, body...)
	be.PutUint16(b[2:], ^pseudo(src, dst, unix.IPPROTO_ICMPV6, b))
	return ip6(from, src, dst, unix.IPPROTO_ICMPV6, 255, b)
}

// solicitRouters asks routers to speak up, and tells them our MAC.
func solicitRouters(from netspec.MAC, src netip.Addr) []byte {
	return icmp6(from, src, allRouters, routerSolicitation, append([]byte{0, 0, 0, 0, 1, 1}, from[:]...))
}

// solicitOwner asks who has an address, from nobody (RFC 4862 5.4.2).
func solicitOwner(from netspec.MAC, a netip.Addr) []byte {
	return icmp6(from, netip.IPv6Unspecified(), solicitedNode(a), neighbourSolicitation, append([]byte{0, 0, 0, 0}, a.AsSlice()...))
}

// readIP6 is the content of a packet without extension headers.
func readIP6(f frame, protocol byte) (src, dst netip.Addr, hops byte, payload []byte, ok bool) {
	b := f.data
	if len(b) < ethernetLen+ip6Len || be.Uint16(b[12:]) != unix.ETH_P_IPV6 {
		return
	}
	h := b[ethernetLen:]
	n := int(be.Uint16(h[4:]))
	if h[0]>>4 != 6 || h[6] != protocol || ip6Len+n > len(h) {
		return
	}
	return netip.AddrFrom16([16]byte(h[8:])), netip.AddrFrom16([16]byte(h[24:])), h[7], h[ip6Len : ip6Len+n], true
}

func readUDP6(f frame) (d datagram, ok bool) {
	src, dst, _, b, ok := readIP6(f, unix.IPPROTO_UDP)
	if !ok {
		return d, false
	}
	return readUDP(f, src, dst, b, client6)
}

// readICMP6 is a message that no router has passed on.
func readICMP6(f frame) (src netip.Addr, kind byte, body []byte, ok bool) {
	src, dst, hops, b, ok := readIP6(f, unix.IPPROTO_ICMPV6)
	if !ok || len(b) < 8 || hops != 255 || b[1] != 0 || !f.partial && pseudo(src, dst, unix.IPPROTO_ICMPV6, b) != 0xffff {
		return src, 0, nil, false
	}
	return src, b[0], b[4:], true
}
