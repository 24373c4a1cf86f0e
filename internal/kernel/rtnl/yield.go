package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// yielding is the metric of default routes that count after all of ours.
const yielding = 1 << 15

// Yield has the default routes of others over a link count after ours. Without it the
// kernel takes of two with the same metric the one that was added last (IPv4), or each
// in turn (IPv6).
func (c *Conn) Yield(index int32) error {
	routes, err := c.Routes(0)
	if err != nil {
		return err
	}
	shared, err := c.shared()
	if err != nil {
		return err
	}
	for _, r := range append(routes, shared...) {
		if r.Dst.Bits() > 0 || r.Index != index || r.Proto == Proto || r.Type != unix.RTN_UNICAST || r.Metric >= yielding {
			continue
		}
		if err := c.yield(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) yield(r RouteInfo) error {
	route := netspec.Route{Dst: r.Dst, Via: r.Via, Metric: r.Metric}
	del := DelRoute(r.Index, route)
	del.Data[5] = unix.RTPROT_UNSPEC // whoever's
	route.Src, route.OnLink, route.Metric = r.Src, r.OnLink, yielding
	add := AddRoute(r.Index, route)
	add.Data[5] = r.Proto
	if err := c.Do(del); err != nil {
		return err
	}
	return c.Do(add)
}

// shared are the hops of IPv6 routes that have several.
func (c *Conn) shared() (out []RouteInfo, err error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0] = unix.AF_INET6
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETROUTE, Data: nlmsg.Header(h...).U32(unix.RTA_TABLE, unix.RT_TABLE_MAIN).Data()})
	if Gone(err) != nil {
		return nil, err
	}
	for _, b := range bs {
		r, ok := parseRoute(b)
		if !ok || r.Index != 0 {
			continue
		}
		r.Proto = unix.RTPROT_BOOT // told of the first only
		for _, hop := range eachHop(nlmsg.Find(b[unix.SizeofRtMsg:], unix.RTA_MULTIPATH)) {
			r.Index = int32(nlmsg.U32(hop[4:]))
			r.Via, _ = netip.AddrFromSlice(nlmsg.Find(hop[unix.SizeofRtNexthop:], unix.RTA_GATEWAY))
			out = append(out, r)
		}
	}
	return out, nil
}

// eachHop takes struct rtnexthop, one behind the other, apart.
func eachHop(b []byte) (out [][]byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		out = append(out, b[:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}
