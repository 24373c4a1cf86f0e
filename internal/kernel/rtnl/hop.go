package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// A route by a link that is not ours has no mark on it but its metric: other instances
// of isled write the same protocol number.

// Route is the route of a Hop.
func (m Mark) Route(h netspec.Hop) netspec.Route {
	return netspec.Route{Dst: netip.PrefixFrom(h.To, h.To.BitLen()), Via: h.Via, Dev: h.Dev, Metric: int(m.Group), OnLink: true}
}

// Hop is a route as a Hop, if it is one of ours; dev is its link's name.
func (m Mark) Hop(r RouteInfo, dev string) (h netspec.Hop, ok bool) {
	h = netspec.Hop{To: r.Dst.Addr(), Via: r.Via, Dev: dev}
	return h, r.Proto == Proto && r.Metric == int(m.Group) && r.Table == 0 && r.Dst.IsSingleIP() && r.Via.IsValid()
}

// HopIn is the key of a Hop of ours that a message about a route is about.
func (m Mark) HopIn(a nlmsg.Answer) (k netspec.Key, ok bool) {
	if a.Type != unix.RTM_NEWROUTE && a.Type != unix.RTM_DELROUTE {
		return k, false
	}
	r, ok := parseRoute(a.Data)
	if !ok {
		return k, false
	}
	h, ok := m.Hop(r, "")
	return h.Key(), ok
}

// NextTo reports whether packets to somewhere leave by a link and are there: nobody
// routes them on. Nothing is sent.
func (c *Conn) NextTo(index int32, dst netip.Addr) (bool, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(dst), uint8(dst.BitLen())
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETROUTE, Data: nlmsg.Header(h...).Put(unix.RTA_DST, dst.AsSlice()).Data()})
	if noWay(err) || err == nil && (len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the way to %s: %w", dst, err)
	}
	attrs := b[unix.SizeofRtMsg:]
	oif := nlmsg.Find(attrs, unix.RTA_OIF)
	routed := nlmsg.Find(attrs, unix.RTA_GATEWAY) != nil || nlmsg.Find(attrs, unix.RTA_VIA) != nil
	return len(oif) == 4 && int32(nlmsg.U32(oif)) == index && !routed, nil
}
