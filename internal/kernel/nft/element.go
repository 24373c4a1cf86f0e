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

// elementsOf are the elements that o is made of. Those of one kind of object
// may share some.
func elementsOf(o netspec.Object) []element {
	switch o := o.(type) {
	case netspec.Segment:
		return segmentElements(o)
	case netspec.Entrance:
		return []element{entranceElement(o)}
	case netspec.Open:
		return []element{openElement(o)}
	case netspec.Publish:
		return publishElements(o)
	case netspec.Allow:
		return allowElements(o)
	case netspec.Source:
		return sourceElements(o)
	case netspec.Tunnel:
		return tunnelElements(o)
	case netspec.TunnelPeer:
		return []element{peerElement(o)}
	case netspec.Across:
		return acrossElements(o)
	case netspec.Shortcut:
		return []element{shortcutElement(o)}
	}
	return nil
}

// shares reports whether objects like o may have elements in common.
func shares(o netspec.Object) bool {
	switch o.(type) {
	case netspec.Segment, netspec.Allow, netspec.Source, netspec.Tunnel:
		return true
	}
	return false
}

// accessSets are where a segment's subnet is, by its access.
var accessSets = map[netspec.Access]string{netspec.AccessNone: "nets", netspec.AccessOpen: "open", netspec.AccessDirect: "direct"}

func segmentElements(s netspec.Segment) []element {
	l := ifname(s.Link)
	es := []element{{set: "same", key: l + l}}
	if s.Internal {
		es = append(es, element{set: "internal", key: l})
	}
	if s.Leaf {
		es = append(es, element{set: "leaves", key: l})
	}
	if s.Subnet.IsValid() {
		es = append(es, subnetElements(s, l)...)
	}
	return es
}

func subnetElements(s netspec.Segment, link string) []element {
	f := suffix(s.Subnet.Addr())
	es := append(interval(accessSets[s.Access]+f, s.Subnet),
		element{set: "segments" + f, key: addr(s.Subnet.Masked().Addr()) + link, end: addr(last(s.Subnet)) + link})
	es = append(es, interval("subnets"+f, s.Subnet)...)
	if s.Masquerade {
		es = append(es, interval("masquerade"+f, s.Subnet)...)
	}
	return es
}

func entranceElement(e netspec.Entrance) element {
	f, from := suffix(e.Subnet.Addr()), ifname(e.From)
	return element{set: "entrances" + f, key: addr(e.Subnet.Masked().Addr()) + from, end: addr(last(e.Subnet)) + from, comment: e.Link}
}

func openElement(o netspec.Open) element {
	a := addr(o.To) + proto(o.Proto)
	e := element{set: "openports" + suffix(o.To), key: a + port(o.Port), comment: o.Link}
	end := a + port(o.Port+max(o.Count, 1)-1)
	switch {
	case o.From.IsValid():
		e.set, e.key, e.end = "openfrom"+suffix(o.To), e.key+addr(o.From.Masked().Addr()), end+addr(last(o.From))
	case o.Count > 1:
		e.set, e.end = "openranges"+suffix(o.To), end
	}
	return e
}

// allowElements are that a port is limited, and one prefix that it is not for.
func allowElements(a netspec.Allow) []element {
	f := suffix(a.HostIP)
	first, end := proto(a.Proto)+port(a.HostPort), proto(a.Proto)+port(a.HostPort+max(a.Count, 1)-1)
	kind := ""
	if a.Iface != "" {
		kind, first, end = "if", ifname(a.Iface)+first, ifname(a.Iface)+end
	} else {
		lowest, highest := a.HostIP, a.HostIP
		if a.HostIP.IsUnspecified() {
			highest = last(netip.PrefixFrom(a.HostIP, 0))
		}
		first, end = addr(lowest)+first, addr(highest)+end
	}
	return []element{
		{set: kind + "limited" + f, key: first, end: end},
		{set: kind + "allowed" + f, key: first + addr(a.From.Masked().Addr()), end: end + addr(last(a.From))},
	}
}

// mac is an Ethernet address, padded to registers.
func mac(m netspec.MAC) string { return string(m[:]) + "\x00\x00" }

func sourceElements(s netspec.Source) []element {
	l, f := ifname(s.Link), suffix(s.Addr.Addr())
	es := []element{{set: "guarded", key: l}, {set: "macs", key: l + mac(s.MAC)}}
	k, a := l+mac(s.MAC), s.Addr.Masked().Addr()
	switch {
	case s.Addr.Bits() == 0:
		return append(es, element{set: "routers" + f, key: k})
	case s.Addr.IsSingleIP():
		return append(es, element{set: "sources" + f, key: k + addr(a)})
	}
	return append(es, element{set: "prefixes" + f, key: k + addr(a), end: k + addr(last(s.Addr))})
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
		e := single(p, p.HostPort+i)
		e.data, e.comment = addr(p.To)+port(p.ToPort+i), p.Link
		if n > 1 {
			e.comment = fmt.Sprintf("%s %d/%d", p.Link, i+1, n)
		}
		es[i] = e
	}
	return es
}

func single(p netspec.Publish, po uint16) element {
	f, k := suffix(p.HostIP), proto(p.Proto)+port(po)
	switch {
	case p.Iface != "":
		return element{set: "ifports" + f, key: ifname(p.Iface) + k}
	case p.HostIP.IsUnspecified():
		return element{set: "anyports" + f, key: k}
	}
	return element{set: "ports" + f, key: addr(p.HostIP) + k}
}

func portRange(p netspec.Publish) element {
	first, end := proto(p.Proto)+port(p.HostPort), proto(p.Proto)+port(p.HostPort+p.Count-1)
	e := element{set: "anyranges" + suffix(p.HostIP), key: first, end: end}
	if h := addr(p.HostIP); !p.HostIP.IsUnspecified() {
		e = element{set: "ranges" + suffix(p.HostIP), key: h + first, end: h + end}
	}
	if l := ifname(p.Iface); p.Iface != "" {
		e = element{set: "ifranges" + suffix(p.HostIP), key: l + first, end: l + end}
	}
	e.data, e.comment = addr(p.To), p.Link
	return e
}
