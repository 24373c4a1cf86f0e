package pulse

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"isle/internal/netspec"
)

// A frame is an IPv6 packet with one UDP datagram:
//
//	magic 4 · version 1 · kind 1 · flags 1 · 0 1 · fit 2 · 0 2 · nonce 8 · padding
//
// The padding follows from the nonce, so that it shows when it was changed on the way.
const (
	ethernetLen = 14
	ip6Len      = 40
	udpLen      = 8
	headLen     = 20
	port        = 4789 // nobody listens there: frames are for no address of a host

	// small is the size of a packet that fits everywhere; largest is that of any.
	small   = ip6Len + udpLen + headLen
	largest = 1<<16 - 1

	sumStart, sumOffset = ethernetLen + ip6Len, 6
)

const version = 1

var magic = []byte("isle")

var be = binary.BigEndian

// kind is what a frame is for.
type kind uint8

const (
	ask kind = 1 + iota
	answer
)

// message is what a host tells another one. Besides asking and answering it says what it
// knows of the way between the two, in both directions.
type message struct {
	kind   kind
	nonce  uint64
	spoilt bool   // what comes from you has wrong checksums
	fit    uint16 // of what I send to you no more arrives; 0: it does, or I do not know yet
}

// end is a host's place on the ways: both follow from its id.
type end struct {
	mac  netspec.MAC
	addr netip.Addr
}

func endOf(host string) (e end) {
	h := sha256.Sum256([]byte("pulse " + host))
	e.mac = MAC(host)
	b := [16]byte{0xfd, 0x69, 0x73, 0x6c, 0x65, 0x01} // a ULA that nobody routes: RFC 4193
	copy(b[6:], h[6:16])
	e.addr = netip.AddrFrom16(b)
	return e
}

// MAC is that of a host on a tunnel by which others find out whether it is there.
func MAC(host string) (m netspec.MAC) {
	h := sha256.Sum256([]byte("pulse " + host))
	copy(m[:], h[:])
	m[0] = m[0]&^1 | 2
	return m
}

// encode is a frame whose packet has that size, with the checksum begun: the rest is left
// to whoever sends it.
func (m message) encode(from, to end, size int) []byte {
	n := min(max(size, small), largest) - ip6Len
	b := make([]byte, 0, ethernetLen+ip6Len+n)
	b = append(append(b, to.mac[:]...), from.mac[:]...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
	b = append(be.AppendUint16(b, uint16(n)), udpProtocol, 64)
	b = append(append(b, from.addr.AsSlice()...), to.addr.AsSlice()...)
	b = be.AppendUint16(be.AppendUint16(b, port), port)
	b = be.AppendUint16(be.AppendUint16(b, uint16(n)), pseudo(from.addr, to.addr, n))
	b = append(append(b, magic...), version, byte(m.kind), m.flags(), 0)
	b = be.AppendUint16(be.AppendUint16(b, m.fit), 0)
	b = be.AppendUint64(b, m.nonce)
	return append(b, padding(m.nonce, n-udpLen-headLen)...)
}

const (
	udpProtocol = 17
	flagSpoilt  = 1
)

func (m message) flags() byte {
	if m.spoilt {
		return flagSpoilt
	}
	return 0
}

// padding changes from byte to byte, and from frame to frame.
func padding(nonce uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(nonce>>(8*(i&7))) + byte(i)
	}
	return b
}

// envelope is who a frame is from and for.
type envelope struct{ from, to end }

// open reads the outside of a frame of ours; false: it is none.
func open(b []byte) (e envelope, ok bool) {
	if len(b) < ethernetLen+small || be.Uint16(b[12:]) != 0x86dd || b[ethernetLen]>>4 != 6 || b[ethernetLen+6] != udpProtocol {
		return e, false
	}
	n := int(be.Uint16(b[ethernetLen+4:]))
	udp := b[ethernetLen+ip6Len:]
	if n != len(udp) || int(be.Uint16(udp[4:])) != n || be.Uint16(udp) != port || be.Uint16(udp[2:]) != port {
		return e, false
	}
	e.to.mac, e.from.mac = netspec.MAC(b[:6]), netspec.MAC(b[6:12])
	e.from.addr, e.to.addr = netip.AddrFrom16([16]byte(b[ethernetLen+8:])), netip.AddrFrom16([16]byte(b[ethernetLen+24:]))
	return e, true
}

// read reads what is inside of a frame that open took. summed: its checksum was computed.
// A frame that is not intact came otherwise than it was sent; what it says is not to be
// believed then. known is false for what a later isled says.
func read(b []byte, summed bool) (m message, known, intact bool) {
	udp := b[ethernetLen+ip6Len:]
	head := udp[udpLen:]
	m = message{kind: kind(head[5]), spoilt: head[6]&flagSpoilt != 0, fit: be.Uint16(head[8:]), nonce: be.Uint64(head[12:])}
	known = head[4] == version && (m.kind == ask || m.kind == answer)
	intact = !summed || right(b)
	if head[4] == version {
		intact = intact && bytes.Equal(head[:4], magic) && bytes.Equal(head[headLen:], padding(m.nonce, len(head)-headLen))
	}
	return m, known, intact
}

// right reports whether the checksum of a frame is.
func right(b []byte) bool {
	src, dst, udp := [16]byte(b[ethernetLen+8:]), [16]byte(b[ethernetLen+24:]), b[ethernetLen+ip6Len:]
	return sum(uint32(pseudo(netip.AddrFrom16(src), netip.AddrFrom16(dst), len(udp))), udp) == 0xffff
}

// pseudo is the sum of what UDP sums up besides itself (RFC 8200 section 8.1).
func pseudo(src, dst netip.Addr, n int) uint16 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	return sum(uint32(n)+udpProtocol, b)
}

// sum is the internet's sum of 16-bit words, not yet inverted (RFC 1071).
func sum(begin uint32, b []byte) uint16 {
	total := uint64(begin)
	for ; len(b) > 1; b = b[2:] {
		total += uint64(be.Uint16(b))
	}
	if len(b) > 0 {
		total += uint64(b[0]) << 8
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
