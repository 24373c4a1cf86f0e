package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// metric6 is what the kernel makes of an IPv6 route without a metric.
const metric6 = 1024

func routeMessage(typ, flags uint16, index int32, r netspec.Route) nlmsg.Message {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(r.Dst.Addr()), uint8(r.Dst.Bits())
	h[4], h[5], h[6], h[7] = unix.RT_TABLE_MAIN, Proto, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		h[6] = unix.RT_SCOPE_LINK
	}
	a := nlmsg.Header(h...)
	if r.Dst.Bits() > 0 {
		a.Put(unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	if r.OnLink {
		binary.NativeEndian.PutUint32(h[8:], unix.RTNH_F_ONLINK)
	}
	if r.Via.IsValid() {
		a.Put(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	if r.Src.IsValid() {
		a.Put(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	if r.Metric != 0 {
		a.U32(unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if index != 0 {
		a.U32(unix.RTA_OIF, uint32(index))
	}
	if r.Table != 0 { // the header has room for small numbers only
		h[4] = unix.RT_TABLE_UNSPEC
		a.U32(unix.RTA_TABLE, uint32(r.Table))
	}
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

// AddRoute adds a route, or replaces the one of its table with the same
// destination and metric.
func AddRoute(index int32, r netspec.Route) nlmsg.Message {
	return routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, r)
}

// metricConnected6 is that of the routes which the kernel makes with IPv6 addresses.
const metricConnected6 = 256

// AddConnected adds the route that the kernel makes with an address, as it does:
// beside one of somebody else to the same subnet.
func AddConnected(index int32, p netip.Prefix) nlmsg.Message {
	r := netspec.Route{Dst: p.Masked(), Metric: metricConnected6}
	if p.Addr().Is4() {
		r.Src, r.Metric = p.Addr(), 0
	}
	m := routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, index, r)
	m.Data[5] = unix.RTPROT_KERNEL
	return m
}

// ConnectedTo is the link of a route that the kernel made with an address, if a
// message is about one.
func ConnectedTo(b []byte) (index int32, ok bool) {
	r, ok := parseRoute(b)
	return r.Index, ok && r.Proto == unix.RTPROT_KERNEL && r.Type == unix.RTN_UNICAST && !r.Dst.Addr().IsLinkLocalUnicast()
}

// DelRoute removes a route.
func DelRoute(index int32, r netspec.Route) nlmsg.Message {
	return routeMessage(unix.RTM_DELROUTE, 0, index, r)
}

// RouteInfo is a route as the kernel has it.
type RouteInfo struct {
	Table  int // 0: the main table
	Index  int32
	Proto  uint8
	Type   uint8
	Dst    netip.Prefix
	Via    netip.Addr
	Src    netip.Addr
	Metric int
	OnLink bool
}

// Routes reads one table of the namespace, both families. 0 is the main table.
func (c *Conn) Routes(table int) ([]RouteInfo, error) {
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	var out []RouteInfo
	for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := make([]byte, unix.SizeofRtMsg)
		h[0] = f
		bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETROUTE, Data: nlmsg.Header(h...).U32(unix.RTA_TABLE, uint32(table)).Data()})
		if Gone(err) != nil {
			return nil, err
		}
		for _, b := range bs {
			if r, ok := parseRoute(b); ok {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

func parseRoute(b []byte) (RouteInfo, bool) {
	if len(b) < unix.SizeofRtMsg || b[4] == unix.RT_TABLE_LOCAL {
		return RouteInfo{}, false
	}
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	r := RouteInfo{Table: int(b[4]), Proto: b[5], Type: b[7], OnLink: binary.NativeEndian.Uint32(b[8:])&unix.RTNH_F_ONLINK != 0}
	for t, d := range nlmsg.Each(b[unix.SizeofRtMsg:]) {
		switch t {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(d)
		case unix.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(d)
		case unix.RTA_PREFSRC:
			r.Src, _ = netip.AddrFromSlice(d)
		case unix.RTA_PRIORITY:
			r.Metric = int(nlmsg.U32(d))
		case unix.RTA_OIF:
			r.Index = int32(nlmsg.U32(d))
		case unix.RTA_TABLE:
			r.Table = int(nlmsg.U32(d))
		}
	}
	if r.Table == unix.RT_TABLE_MAIN {
		r.Table = 0
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	if dst.Is6() && r.Metric == metric6 {
		r.Metric = 0
	}
	return r, true
}

// OurRoute reports whether a message is about a route of ours.
func OurRoute(b []byte) bool {
	r, ok := parseRoute(b)
	return ok && r.Proto == Proto
}

// RouteLink is the number of the link that a message about a route is about. A
// route to one of the host's own addresses does not matter: the address does.
func RouteLink(b []byte) (index int32, matters bool) {
	if len(b) < unix.SizeofRtMsg {
		return 0, false
	}
	oif := nlmsg.Find(b[unix.SizeofRtMsg:], unix.RTA_OIF)
	if len(oif) == 4 {
		index = int32(nlmsg.U32(oif))
	}
	return index, b[4] != unix.RT_TABLE_LOCAL && b[7] != unix.RTN_MULTICAST
}

// Attributes of RTM_NEWNETCONF (linux/netconf.h).
const (
	netconfIndex      = 1
	netconfForwarding = 2
	netconfAll        = -1
)

// StopsForwarding reports whether a message says that the namespace forwards no
// packets any more.
func StopsForwarding(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	index, forwarding := nlmsg.Find(b[4:], netconfIndex), nlmsg.Find(b[4:], netconfForwarding)
	return len(index) == 4 && int32(nlmsg.U32(index)) == netconfAll && len(forwarding) == 4 && nlmsg.U32(forwarding) == 0
}

// Way is how packets to somewhere leave the namespace.
type Way struct {
	Links []int32 // several of a multipath route
	MTU   int     // of the route itself; 0: that of its link
}

// Attributes of a route that x/sys/unix lacks.
const (
	rtaMetrics = 8
	rtaxMTU    = 2
)

// WayTo asks the routing rules of the namespace, as the kernel does for a packet
// of the host's own. Nothing is sent. ok is false when there is no way.
func (c *Conn) WayTo(dst netip.Addr) (w Way, ok bool, err error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(dst), uint8(dst.BitLen())
	binary.NativeEndian.PutUint32(h[8:], unix.RTM_F_FIB_MATCH)
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETROUTE, Data: nlmsg.Header(h...).Put(unix.RTA_DST, dst.AsSlice()).Data()})
	if noWay(err) || err == nil && (len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST) {
		return w, false, nil
	}
	if err != nil {
		return w, false, fmt.Errorf("find the way to %s: %w", dst, err)
	}
	attrs := b[unix.SizeofRtMsg:]
	if m := nlmsg.Find(attrs, rtaMetrics, rtaxMTU); len(m) == 4 {
		w.MTU = int(nlmsg.U32(m))
	}
	if oif := nlmsg.Find(attrs, unix.RTA_OIF); len(oif) == 4 {
		w.Links = append(w.Links, int32(nlmsg.U32(oif)))
	}
	w.Links = append(w.Links, hops(nlmsg.Find(attrs, unix.RTA_MULTIPATH))...)
	return w, len(w.Links) > 0, nil
}

// noWay are the errors of a namespace without a route, and of a kernel without
// the family.
func noWay(err error) bool {
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return gone(err)
}

// hops are the links of a multipath route.
func hops(b []byte) (out []int32) {
	for _, hop := range eachHop(b) {
		out = append(out, int32(nlmsg.U32(hop[4:])))
	}
	return out
}
