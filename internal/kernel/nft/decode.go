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

// objects turns elements into what they were made from. An object of which an
// element is missing is not there.
func objects(es elements) (segs []netspec.Segment, pubs []netspec.Publish) {
	parts := map[netspec.Publish]int{}
	for e := range es {
		kind, f := e.set[:len(e.set)-1], e.set[len(e.set)-1:]
		switch kind {
		case "segments":
			if s := segmentOf(es, e, f); es.hold(segmentElements(s)) {
				segs = append(segs, s)
			}
		case "ports", "anyports", "ranges", "anyranges":
			if p, ok := publishOf(e, kind, f); ok {
				parts[p]++
			}
		}
	}
	for p, n := range parts {
		if n == len(publishElements(p)) {
			pubs = append(pubs, p)
		}
	}
	return segs, pubs
}

func addrLen(f string) int {
	if f == "4" {
		return 4
	}
	return 16
}

func segmentOf(es elements, e element, f string) netspec.Segment {
	n := addrLen(f)
	first, _ := netip.AddrFromSlice([]byte(e.key[:n]))
	s := netspec.Segment{Link: strings.TrimRight(e.key[n:], "\x00"), Subnet: prefix(first, e.end[:min(n, len(e.end))])}
	_, s.Masquerade = es[element{set: "masquerade" + f, key: e.key[:n]}]
	_, s.Internal = es[element{set: "internal", key: e.key[n:]}]
	return s
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

// publishOf is the published port, or row of ports, that e belongs to.
func publishOf(e element, kind, f string) (p netspec.Publish, ok bool) {
	key, n := e.key, addrLen(f)
	p.HostIP = netip.IPv4Unspecified()
	if f == "6" {
		p.HostIP = netip.IPv6Unspecified()
	}
	if !strings.HasPrefix(kind, "any") {
		p.HostIP, _ = netip.AddrFromSlice([]byte(key[:n]))
		key = key[n:]
	}
	if len(key) < 6 || len(e.data) < n {
		return p, false
	}
	p.Proto, p.HostPort, p.Count = protoName(key), be(key[4:]), 1
	p.To, _ = netip.AddrFromSlice([]byte(e.data[:n]))
	if strings.HasSuffix(kind, "ranges") {
		p.Link, p.ToPort = e.comment, p.HostPort
		p.Count = be(e.end[len(e.end)-4:]) - p.HostPort + 1
		return p, true
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

func be(s string) uint16 { return binary.BigEndian.Uint16([]byte(s[:2])) }
