package rtnl

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// Attributes of linux/if_link.h, with their modes and flags: their places are
// the kernel's numbers.
const (
	vlanID      = 1
	macvlanMode = 1
	ipvlanMode  = 1
	ipvlanFlags = 2
)

var (
	macvlanModes = map[uint32]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru"}
	ipvlanModes  = []string{"l2", "l3", "l3s"}
	ipvlanKinds  = []string{"bridge", "private", "vepa"}
)

// Kinds of links that netspec has no Link for.
const (
	kindVLAN  = "vlan"
	kindDummy = "dummy"
)

// Parental reports whether a link is of a kind that is made for others to be on. Such
// a link has a name that the user knows it by, not one of ours.
func (l Info) Parental() bool { return l.Kind == kindVLAN || l.Kind == kindDummy }

// OnLAN reports whether a link is of a kind of netspec.LAN.
func (l Info) OnLAN() bool { return l.Kind == netspec.Macvlan || l.Kind == netspec.IPvlan }

func newOn(name string, m Mark, parent int32) *nlmsg.Attrs {
	a := linkHeader(0, 0).Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_GROUP, m.Group)
	if parent != 0 {
		a.U32(unix.IFLA_LINK, uint32(parent))
	}
	return a
}

func create(a *nlmsg.Attrs) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Data: a.Data()}
}

// NewVLAN makes v, down: it cannot be up while its parent is down.
func NewVLAN(v netspec.VLAN, m Mark, parent int32) nlmsg.Message {
	return create(newOn(v.Name, m, parent).Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) {
		a.Str(unix.IFLA_INFO_KIND, kindVLAN).Nest(unix.IFLA_INFO_DATA, func(a *nlmsg.Attrs) {
			a.Put(vlanID, binary.NativeEndian.AppendUint16(nil, v.ID))
		})
	}))
}

// NewDummy makes d, down.
func NewDummy(d netspec.Dummy, m Mark) nlmsg.Message {
	return create(newOn(d.Name, m, 0).Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) { a.Str(unix.IFLA_INFO_KIND, kindDummy) }))
}

// NewLAN makes l in the namespace that ns is a descriptor of, down.
func NewLAN(l netspec.LAN, m Mark, parent int32, ns int) nlmsg.Message {
	a := newOn(l.Name, m, parent).U32(unix.IFLA_NET_NS_FD, uint32(ns))
	common(a, l.MTU, l.MAC)
	return create(a.Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) {
		a.Str(unix.IFLA_INFO_KIND, l.Kind).Nest(unix.IFLA_INFO_DATA, func(a *nlmsg.Attrs) { lanMode(a, l) })
	}))
}

func lanMode(a *nlmsg.Attrs, l netspec.LAN) {
	if l.Kind == netspec.Macvlan {
		for number, mode := range macvlanModes {
			if mode == l.Mode {
				a.U32(macvlanMode, number)
			}
		}
		return
	}
	a.Put(ipvlanMode, binary.NativeEndian.AppendUint16(nil, place(ipvlanModes, l.Mode)))
	a.Put(ipvlanFlags, binary.NativeEndian.AppendUint16(nil, place(ipvlanKinds, l.Flag)))
}

// place is where s is in list; the first when it is not.
func place(list []string, s string) uint16 { return uint16(max(slices.Index(list, s), 0)) }

// UpLAN finishes l in its namespace.
func UpLAN(index int32, l netspec.LAN) nlmsg.Message {
	a := linkHeader(index, unix.IFF_UP)
	common(a, l.MTU, l.MAC)
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

// Up brings a link up.
func Up(index int32) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: linkHeader(index, unix.IFF_UP).Data()}
}

// kindData reads what links of the kinds of this file have of their own.
func (l *Info) kindData(d []byte) {
	number := func(attr uint16) uint32 {
		switch b := nlmsg.Find(d, attr); len(b) {
		case 2:
			return uint32(binary.NativeEndian.Uint16(b))
		case 4:
			return nlmsg.U32(b)
		}
		return 0
	}
	at := func(list []string, i uint32) string {
		if int(i) < len(list) {
			return list[i]
		}
		return ""
	}
	switch l.Kind {
	case kindVLAN:
		l.VLAN = uint16(number(vlanID))
	case netspec.Macvlan:
		l.Mode = macvlanModes[number(macvlanMode)]
	case netspec.IPvlan:
		l.Mode, l.Flag = at(ipvlanModes, number(ipvlanMode)), at(ipvlanKinds, number(ipvlanFlags))
	}
}

// LAN is a link of such a kind as an object. Its MAC is left out where it is the
// parent's.
func (l Info) LAN(ns netspec.NS, parent string) netspec.LAN {
	o := netspec.LAN{NS: ns, Name: l.Name, Kind: l.Kind, Parent: parent, Mode: l.Mode, Flag: l.Flag, MTU: int(l.MTU)}
	if l.Kind == netspec.Macvlan && l.Mode != "passthru" {
		o.MAC = l.MAC
	}
	return o
}

// Parent is a link of a Parental kind as an object.
func (l Info) Parent(on string) netspec.Object {
	if l.Kind == kindDummy {
		return netspec.Dummy{Name: l.Name}
	}
	return netspec.VLAN{Name: l.Name, Parent: on, ID: l.VLAN}
}

// Of struct ndmsg and its attributes (linux/neighbour.h).
const (
	neighHeader  = 12
	neighState   = 8
	permanent    = 0x80
	ndaDst       = 1
	ndaLLAddr    = 2
	ndaProtocol  = 12
	neighIfindex = 4
)

func neighMessage(typ, flags uint16, index int32, n netspec.Neigh) nlmsg.Message {
	h := make([]byte, neighHeader)
	h[0] = family(n.Addr)
	binary.NativeEndian.PutUint32(h[neighIfindex:], uint32(index))
	binary.NativeEndian.PutUint16(h[neighState:], permanent)
	a := nlmsg.Header(h...).Put(ndaDst, n.Addr.AsSlice()).Put(ndaLLAddr, n.MAC[:]).U8(ndaProtocol, Proto)
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

// AddNeigh says where an address is, or where it is now.
func AddNeigh(index int32, n netspec.Neigh) nlmsg.Message {
	return neighMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, n)
}

// DelNeigh forgets it.
func DelNeigh(index int32, n netspec.Neigh) nlmsg.Message {
	return neighMessage(unix.RTM_DELNEIGH, 0, index, n)
}

// NeighInfo is a neighbour of ours as the kernel has it.
type NeighInfo struct {
	Index int32
	Addr  netip.Addr
	MAC   netspec.MAC
}

// Neighs reads those that we have said.
func (c *Conn) Neighs() ([]NeighInfo, error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETNEIGH, Data: make([]byte, neighHeader)})
	var out []NeighInfo
	for _, b := range bs {
		if len(b) < neighHeader || binary.NativeEndian.Uint16(b[neighState:]) != permanent {
			continue
		}
		proto := nlmsg.Find(b[neighHeader:], ndaProtocol)
		if len(proto) == 0 || proto[0] != Proto {
			continue
		}
		n := NeighInfo{Index: int32(nlmsg.U32(b[neighIfindex:]))}
		n.Addr, _ = netip.AddrFromSlice(nlmsg.Find(b[neighHeader:], ndaDst))
		copy(n.MAC[:], nlmsg.Find(b[neighHeader:], ndaLLAddr))
		out = append(out, n)
	}
	return out, err
}
