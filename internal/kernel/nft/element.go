package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"isle/internal/netspec"
)

// element is one element of a set or map, in the kernel's encoding. Values are
// comparable: two elements are the same when they are equal.
type element struct {
	set      string
	key, end string // end: of an interval of concatenated fields
	data     string
	closes   bool // the first address after an interval, of sets without concatenation
	comment  string
}

// id is what makes an element the same one with other data.
func (e element) id() element {
	return element{set: e.set, key: e.key, end: e.end, closes: e.closes}
}

// suffix chooses the set of a family.
func suffix(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// ifname is a link's name as the kernel compares it.
func ifname(s string) string { return s + strings.Repeat("\x00", 16-min(len(s), 16)) }

func addr(a netip.Addr) string { return string(a.AsSlice()) }

// port is a port, padded to a register.
func port(p uint16) string {
	return string(append(binary.BigEndian.AppendUint16(nil, p), 0, 0))
}

var protocols = map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}

func proto(p string) string { return string([]byte{protocols[p], 0, 0, 0}) }

func protoName(s string) string {
	for n, b := range protocols {
		if s[0] == b {
			return n
		}
	}
	return ""
}

// last is the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// interval is a subnet in a set of addresses: its first address, and the first
// behind it.
func interval(set string, p netip.Prefix) []element {
	es := []element{{set: set, key: addr(p.Masked().Addr())}}
	if next := last(p).Next(); next.IsValid() {
		es = append(es, element{set: set, key: addr(next), closes: true})
	}
	return es
}

// segmentElements are those of one segment. Segments share some of them.
func segmentElements(s netspec.Segment) []element {
	f := suffix(s.Subnet.Addr())
	l := ifname(s.Link)
	es := append(interval("nets"+f, s.Subnet),
		element{set: "segments" + f, key: addr(s.Subnet.Masked().Addr()) + l, end: addr(last(s.Subnet)) + l},
		element{set: "links", key: l},
		element{set: "same", key: l + l})
	if s.Masquerade {
		es = append(es, interval("masquerade"+f, s.Subnet)...)
	}
	if s.Internal {
		es = append(es, element{set: "internal", key: l})
	}
	return es
}

// publishElements are those of one published port: one, or one for each port
// when the numbers inside differ from those outside.
func publishElements(p netspec.Publish) []element {
	if p.Count > 1 && p.HostPort == p.ToPort {
		return []element{portRange(p)}
	}
	n := max(p.Count, 1)
	es := make([]element, n)
	for i := range n {
		e := single(p.HostIP, p.Proto, p.HostPort+i)
		e.data, e.comment = addr(p.To)+port(p.ToPort+i), p.Link
		if n > 1 {
			e.comment = fmt.Sprintf("%s %d/%d", p.Link, i+1, n)
		}
		es[i] = e
	}
	return es
}

func single(host netip.Addr, pr string, po uint16) element {
	if host.IsUnspecified() {
		return element{set: "anyports" + suffix(host), key: proto(pr) + port(po)}
	}
	return element{set: "ports" + suffix(host), key: addr(host) + proto(pr) + port(po)}
}

func portRange(p netspec.Publish) element {
	first, end := proto(p.Proto)+port(p.HostPort), proto(p.Proto)+port(p.HostPort+p.Count-1)
	e := element{set: "anyranges" + suffix(p.HostIP), key: first, end: end}
	if !p.HostIP.IsUnspecified() {
		h := addr(p.HostIP)
		e = element{set: "ranges" + suffix(p.HostIP), key: h + first, end: h + end}
	}
	e.data, e.comment = addr(p.To), p.Link
	return e
}
