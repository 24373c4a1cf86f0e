package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"isle/internal/netspec"
)

type elements map[element]struct{}

func (es elements) hold(want []element) bool {
	for _, w := range want {
		if _, ok := es[w]; !ok {
			return false
		}
	}
	return true
}

// decoders read the object that an element of a set stands for, from the rest
// of the set's name ("4", "6"; "s" where there is one for all) and the element.
var decoders = map[string]func(es elements, e element, f string) (netspec.Object, bool){
	"segments":   segmentOf,
	"entrances":  entranceOf,
	"openports":  openOf,
	"openranges": openOf,
	"openfrom":   openOf,
	"ports":      publishOf,
	"anyports":   publishOf,
	"ifports":    publishOf,
	"ranges":     publishOf,
	"anyranges":  publishOf,
	"ifranges":   publishOf,
	"allowed":    allowOf,
	"ifallowed":  allowOf,
	"sources":    sourceOf,
	"prefixes":   sourceOf,
	"routers":    sourceOf,
	"tunnel":     tunnelOf,
	"seal":       tunnelOf,
	"peers":      peerOf,
	"across":     acrossOf,
	"shortcuts":  shortcutOf,
}

// objects turns elements into what they were made from. An object of which an
// element is missing is not there. Elements that belong to none are stray.
func (t *Table) objects(es elements) (objs []netspec.Object, stray []element) {
	found := map[netspec.Object]struct{}{}
	for e := range es {
		kind, f := e.set[:len(e.set)-1], e.set[len(e.set)-1:]
		decode, ok := decoders[kind]
		if !ok || len(e.key) != keyLen[e.set] || e.end != "" && len(e.end) != len(e.key) {
			continue
		}
		if o, ok := decode(es, e, f); ok {
			found[o] = struct{}{}
		}
	}
	explained := elements{}
	explain := func(o netspec.Object) {
		if mine := t.elementsOf(o); es.hold(mine) {
			objs = append(objs, o)
			for _, e := range mine {
				explained[e] = struct{}{}
			}
		}
	}
	for o := range found {
		explain(o)
	}
	for e := range es { // a bridge that frames pass on, and no subnet of ours is behind it
		if _, ok := explained[e]; !ok && e.set == "same" {
			explain(lanOf(es, e))
		}
	}
	for e := range es {
		if _, ok := explained[e]; !ok {
			stray = append(stray, e)
		}
	}
	return objs, stray
}

func lanOf(es elements, e element) netspec.Object {
	k := e.key[:len(e.key)/2]
	s := netspec.Segment{Link: nameOf(k)}
	_, s.Internal = es[element{set: "internal", key: k}]
	_, s.Leaf = es[element{set: "leaves", key: k}]
	return s
}

func addrLen(f string) int {
	if f == "4" {
		return 4
	}
	return 16
}

// cut takes n bytes off the front of s.
func cut(s *string, n int) string {
	n = min(n, len(*s))
	head := (*s)[:n]
	*s = (*s)[n:]
	return head
}

func addrOf(s string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(s))
	return a
}

func nameOf(s string) string { return strings.TrimRight(s, "\x00") }

func segmentOf(es elements, e element, f string) (netspec.Object, bool) {
	n := addrLen(f)
	k := e.key
	first := cut(&k, n)
	s := netspec.Segment{Link: nameOf(k), Subnet: prefix(addrOf(first), e.end[:min(n, len(e.end))])}
	_, s.Masquerade = es[element{set: "masquerade" + f, key: first}]
	_, s.Internal = es[element{set: "internal", key: k}]
	_, s.Leaf = es[element{set: "leaves", key: k}]
	for access, set := range accessSets {
		if _, ok := es[element{set: set + f, key: first}]; ok {
			s.Access = access
		}
	}
	return s, true
}

func entranceOf(_ elements, e element, f string) (netspec.Object, bool) {
	n, k := addrLen(f), e.key
	first := cut(&k, n)
	return netspec.Entrance{Link: e.comment, Subnet: prefix(addrOf(first), e.end[:min(n, len(e.end))]), From: nameOf(k)}, true
}

func openOf(_ elements, e element, f string) (netspec.Object, bool) {
	k, end, n := e.key, e.end, addrLen(f)
	o := netspec.Open{Link: e.comment, To: addrOf(cut(&k, n)), Count: 1}
	o.Proto, o.Port = protoName(cut(&k, 4)), be(cut(&k, 4))
	if cut(&end, n+4); end != "" {
		o.Count = be(cut(&end, 4)) - o.Port + 1
	}
	if k != "" {
		o.From = prefix(addrOf(k), end)
	}
	return o, true
}

// prefix is the subnet from first to last.
func prefix(first netip.Addr, last string) netip.Prefix {
	bits := first.BitLen()
	a := first.AsSlice()
	for i := 0; i < len(last) && i < len(a); i++ {
		if x := a[i] ^ last[i]; x != 0 {
			bits = i * 8
			for x&0x80 == 0 {
				x <<= 1
				bits++
			}
			break
		}
	}
	return netip.PrefixFrom(first, bits)
}

func unspecified(f string) netip.Addr {
	if f == "6" {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// publishOf is the published port, or row of ports, that e belongs to.
func publishOf(_ elements, e element, f string) (netspec.Object, bool) {
	k, n := e.key, addrLen(f)
	p := netspec.Publish{HostIP: unspecified(f), Count: 1}
	switch {
	case strings.HasPrefix(e.set, "if"):
		p.Iface = nameOf(cut(&k, 16))
	case !strings.HasPrefix(e.set, "any"):
		p.HostIP = addrOf(cut(&k, n))
	}
	if len(e.data) < n {
		return nil, false
	}
	p.Proto, p.HostPort = protoName(cut(&k, 4)), be(k)
	p.To = addrOf(e.data[:n])
	if e.end != "" {
		p.Link, p.ToPort, p.Count = e.comment, p.HostPort, lastPort(e.end)-p.HostPort+1
		return p, true
	}
	if len(e.data) < n+2 {
		return nil, false
	}
	p.ToPort = be(e.data[n:])
	return whole(p, e.comment), true
}

// whole gives the row of ports of which p is what the comment says.
func whole(p netspec.Publish, comment string) netspec.Publish {
	link, rest, row := strings.Cut(comment, " ")
	p.Link = link
	var i, n uint16
	if _, err := fmt.Sscanf(rest, "%d/%d", &i, &n); row && err == nil && i > 0 {
		p.HostPort, p.ToPort, p.Count = p.HostPort-(i-1), p.ToPort-(i-1), n
	}
	return p
}

func allowOf(_ elements, e element, f string) (netspec.Object, bool) {
	k, end, n := e.key, e.end, addrLen(f)
	a := netspec.Allow{HostIP: unspecified(f)}
	if strings.HasPrefix(e.set, "if") {
		a.Iface = nameOf(cut(&k, 16))
		cut(&end, 16)
	} else if first, last := addrOf(cut(&k, n)), addrOf(cut(&end, n)); first == last {
		a.HostIP = first
	}
	a.Proto = protoName(cut(&k, 4))
	a.HostPort = be(cut(&k, 4))
	cut(&end, 4)
	a.Count = be(cut(&end, 4)) - a.HostPort + 1
	a.From = prefix(addrOf(k), end)
	return a, true
}

func sourceOf(_ elements, e element, f string) (netspec.Object, bool) {
	k := e.key
	s := netspec.Source{Link: nameOf(cut(&k, 16)), MAC: netspec.MAC([]byte(cut(&k, 8))[:6])}
	switch {
	case k == "": // a router
		s.Addr = netip.PrefixFrom(unspecified(f), 0)
	case e.end == "":
		s.Addr = netip.PrefixFrom(addrOf(k), len(k)*8)
	default:
		s.Addr = prefix(addrOf(k), e.end[24:])
	}
	return s, true
}

func lastPort(end string) uint16 { return be(end[len(end)-4:]) }

// be is the number that s begins with; 0 when s is too short.
func be(s string) uint16 {
	if len(s) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16([]byte(s))
}
