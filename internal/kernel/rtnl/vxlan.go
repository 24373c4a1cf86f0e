package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// Attributes of a VXLAN (linux/if_link.h).
const (
	vxlanID       = 1
	vxlanLink     = 3
	vxlanLocal    = 4
	vxlanLearning = 7
	vxlanPort     = 15
	vxlanLocal6   = 17
	vxlanDF       = 29
)

// Attributes of a bridge's port that matter where a tunnel is one.
const (
	brportLearning      = 8
	brportUnicastFlood  = 9
	brportNeighSuppress = 32
)

// VXLANInfo is what a link of that kind has of its own. It is zero of others.
type VXLANInfo struct {
	VNI   uint32
	Local netip.Addr
	Port  uint16
	Link  int32 // that its packets leave by
	Whole bool  // they are not cut into fragments
	// Learns is that it does what a tunnel of ours never does: it, or the bridge on it,
	// learns stations, or unknown ones are looked for everywhere.
	Learns bool
}

// NewWireGuard makes w, down.
func NewWireGuard(w netspec.WireGuard, m Mark) nlmsg.Message {
	return create(newOn(w.Name, m, 0).Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) { a.Str(unix.IFLA_INFO_KIND, "wireguard") }))
}

// SetMTU gives a link its MTU.
func SetMTU(index int32, mtu int) nlmsg.Message {
	a := linkHeader(index, 0)
	common(a, mtu, netspec.MAC{})
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

// NewVXLAN makes v, down; via is the number of the link that v names.
func NewVXLAN(v netspec.VXLAN, m Mark, via int32) nlmsg.Message {
	a := newOn(v.Name, m, 0)
	common(a, v.MTU, netspec.MAC{})
	return create(a.Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) {
		a.Str(unix.IFLA_INFO_KIND, netspec.KindVXLAN).Nest(unix.IFLA_INFO_DATA, func(a *nlmsg.Attrs) {
			tunnel(a, v, via)
			a.Put(vxlanPort, binary.BigEndian.AppendUint16(nil, v.Port))
		})
	}))
}

// tunnel is what of a VXLAN can be changed, and its number, which a change must name.
func tunnel(a *nlmsg.Attrs, v netspec.VXLAN, via int32) {
	a.U32(vxlanID, v.VNI).U8(vxlanLearning, 0).U8(vxlanDF, one(v.Whole))
	switch {
	case v.Local.Is4():
		a.Put(vxlanLocal, v.Local.AsSlice())
	case v.Local.Is6():
		a.Put(vxlanLocal6, v.Local.AsSlice())
	default:
		a.Put(vxlanLocal6, netip.IPv6Unspecified().AsSlice())
	}
	if via != 0 {
		a.U32(vxlanLink, uint32(via))
	}
}

func one(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// SetVXLAN changes a tunnel of ours that is there, and brings it up: first what it is
// as a port of its bridge, so that nothing passes before that is settled. Without master
// it is in none.
func SetVXLAN(index, master, via int32, v netspec.VXLAN) []nlmsg.Message {
	link := linkHeader(index, 0).U32(unix.IFLA_MASTER, uint32(master))
	common(link, v.MTU, netspec.MAC{})
	own := linkHeader(index, 0) // the kernel refuses an MTU beside it
	own.Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) {
		a.Str(unix.IFLA_INFO_KIND, netspec.KindVXLAN).Nest(unix.IFLA_INFO_DATA, func(a *nlmsg.Attrs) { tunnel(a, v, via) })
	})
	msgs := []nlmsg.Message{{Type: unix.RTM_NEWLINK, Data: link.Data()}, {Type: unix.RTM_NEWLINK, Data: own.Data()}}
	if master != 0 {
		msgs = append(msgs, tunnelPort(index))
	}
	return append(msgs, Up(index))
}

// tunnelPort settles what a tunnel does as a port of its bridge.
func tunnelPort(index int32) nlmsg.Message {
	h := ifinfo(index, 0)
	h[0] = unix.AF_BRIDGE
	port := nlmsg.Header(h...).Nest(unix.IFLA_PROTINFO, func(a *nlmsg.Attrs) {
		a.U8(brportLearning, 0).U8(brportUnicastFlood, 0).U8(brportNeighSuppress, 1)
		portFlags(a, netspec.Link{})
	})
	return nlmsg.Message{Type: unix.RTM_SETLINK, Data: port.Data()}
}

// vxlan reads what a link of that kind has of its own, and the flags of its port.
func (l *Info) vxlan(data, port []byte) {
	t := &l.VXLAN
	for typ, d := range nlmsg.Each(data) {
		switch typ {
		case vxlanID:
			t.VNI = nlmsg.U32(d)
		case vxlanLink:
			t.Link = int32(nlmsg.U32(d))
		case vxlanLocal, vxlanLocal6:
			t.Local, _ = netip.AddrFromSlice(d)
		case vxlanPort:
			if len(d) == 2 {
				t.Port = binary.BigEndian.Uint16(d)
			}
		case vxlanDF:
			t.Whole = flag(d)
		case vxlanLearning:
			t.Learns = t.Learns || flag(d)
		}
	}
	if port != nil {
		t.Learns = t.Learns || flag(nlmsg.Find(port, brportLearning)) || flag(nlmsg.Find(port, brportUnicastFlood)) || !flag(nlmsg.Find(port, brportNeighSuppress))
	}
}

// Tunnel is a link of kind vxlan as an object; names are those of the links.
func (l Info) Tunnel(names map[int32]string) netspec.VXLAN {
	return netspec.VXLAN{
		Name: l.Name, VNI: l.VXLAN.VNI, Local: l.VXLAN.Local, Port: l.VXLAN.Port, Via: names[l.VXLAN.Link],
		MTU: int(l.MTU), Master: names[l.Master], Whole: l.VXLAN.Whole,
	}
}
