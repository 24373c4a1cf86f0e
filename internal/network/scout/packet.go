package scout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// What is sent is a packet of UDP that no host forwards, with a note: what it is, a
// number that the answer repeats, and which hosts it is from and for.

// port is nobody's: nothing listens there.
const port = 51870

const (
	ask    = 'a'
	answer = 'b'
)

var words = []byte("isle past tunnels")

type name [16]byte

func nameOf(host string) (n name) {
	h := sha256.Sum256([]byte("scout " + host))
	copy(n[:], h[:])
	return n
}

type note struct {
	kind     byte
	number   [8]byte
	from, to name
}

func (n note) bytes() []byte {
	b := append(append(bytes.Clone(words), n.kind), n.number[:]...)
	return append(append(b, n.from[:]...), n.to[:]...)
}

const (
	noteLen  = 17 + 1 + 8 + 16 + 16
	udpLen   = 8
	ip4Len   = 20
	ip6Len   = 40
	udp      = 17
	lastHop  = 1
	version4 = 0x45
	version6 = 0x60
)

// packet is a note from an address to another.
func packet(from, to netip.Addr, n note) []byte {
	u := binary.BigEndian.AppendUint16(nil, port)
	u = binary.BigEndian.AppendUint16(u, port)
	u = binary.BigEndian.AppendUint16(u, udpLen+noteLen)
	u = append(append(u, 0, 0), n.bytes()...)
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, udp)
	pseudo = append(binary.BigEndian.AppendUint16(pseudo, uint16(len(u))), u...)
	binary.BigEndian.PutUint16(u[6:], max(sum(pseudo), 1))
	return append(header(from, to, len(u)), u...)
}

func header(from, to netip.Addr, size int) []byte {
	if from.Is6() {
		b := binary.BigEndian.AppendUint16([]byte{version6, 0, 0, 0}, uint16(size))
		return append(append(append(b, udp, lastHop), from.AsSlice()...), to.AsSlice()...)
	}
	b := binary.BigEndian.AppendUint16([]byte{version4, 0}, uint16(ip4Len+size))
	b = append(append(append(b, 0, 0, 0x40, 0, lastHop, udp, 0, 0), from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return b
}

// sum is the internet checksum (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// parse reads the note of a packet.
func parse(b []byte) (n note, ok bool) {
	size := ip4Len
	if len(b) > 0 && b[0]>>4 == version6>>4 {
		size = ip6Len
	}
	if len(b) < size+udpLen+noteLen {
		return n, false
	}
	rest, ok := bytes.CutPrefix(b[size+udpLen:][:noteLen], words)
	if !ok {
		return n, false
	}
	n.kind = rest[0]
	copy(n.number[:], rest[1:])
	copy(n.from[:], rest[9:])
	copy(n.to[:], rest[25:])
	return n, true
}
