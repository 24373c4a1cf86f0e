package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

const vethInfoPeer = 1

// Attributes of a bridge (linux/if_link.h).
const (
	brForwardDelay  = 1
	brSTPState      = 5
	brMcastSnooping = 23
)

// Attributes of a bridge's port (linux/if_link.h).
const (
	brportMode     = 4
	brportIsolated = 33
)

func linkHeader(index int32, flags uint32) *nlmsg.Attrs { return nlmsg.Header(ifinfo(index, flags)...) }

// ifinfo is struct ifinfomsg; flags that are given are the only ones changed.
func ifinfo(index int32, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags)
	return b
}

// NewLink makes l. A bridge is up. A veth's ends are still down, and in no bridge:
// see UpIn. Its peer is made in the namespace that peerNS is a descriptor of.
func NewLink(l netspec.Link, m Mark, peerNS int) nlmsg.Message {
	up := uint32(unix.IFF_UP)
	if l.Kind == netspec.Veth {
		up = 0
	}
	a := linkHeader(0, up).Str(unix.IFLA_IFNAME, l.Name).U32(unix.IFLA_GROUP, m.Group)
	common(a, l.MTU, l.MAC)
	a.Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) {
		a.Str(unix.IFLA_INFO_KIND, l.Kind)
		switch l.Kind {
		case netspec.Veth:
			a.Nest(unix.IFLA_INFO_DATA, func(a *nlmsg.Attrs) { a.Nest(vethInfoPeer, func(a *nlmsg.Attrs) { peer(a, l, peerNS) }) })
		case netspec.Bridge:
			a.Nest(unix.IFLA_INFO_DATA, bridge)
		}
	})
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Data: a.Data()}
}

// bridge are the settings of every bridge. It does not listen in on group
// memberships: where nobody asks for them (there is no querier), they are
// forgotten after minutes, and with them who wants the group's packets. Frames
// for bridges themselves teach it no addresses: no chain sees them.
func bridge(a *nlmsg.Attrs) {
	a.U32(brForwardDelay, 0).U32(brSTPState, 0).U8(brMcastSnooping, 0).Put(unix.IFLA_BR_MULTI_BOOLOPT, noLinkLocalLearn)
}

// noLinkLocalLearn is struct br_boolopt_multi: values, and which of them are meant.
var noLinkLocalLearn = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 1), 1)

func peer(a *nlmsg.Attrs, l netspec.Link, ns int) {
	a.Raw(ifinfo(0, 0)).Str(unix.IFLA_IFNAME, l.Peer)
	common(a, l.MTU, l.PeerMAC)
	a.U32(unix.IFLA_NET_NS_FD, uint32(ns))
}

func common(a *nlmsg.Attrs, mtu int, mac netspec.MAC) {
	if mtu != 0 {
		a.U32(unix.IFLA_MTU, uint32(mtu))
	}
	if mac != (netspec.MAC{}) {
		a.Put(unix.IFLA_ADDRESS, mac[:])
	}
}

// SetLink changes a link of ours that is there into l, except for what cannot be
// changed: its kind and the namespace of its peer. It leaves out the group, which it
// has: to set it makes the kernel tell all that listen of a new state of the link.
func SetLink(l netspec.Link, master int32) nlmsg.Message {
	a := linkHeader(0, unix.IFF_UP).Str(unix.IFLA_IFNAME, l.Name)
	common(a, l.MTU, l.MAC)
	a.U32(unix.IFLA_MASTER, uint32(master))
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

// SetPort gives a port of a bridge its flags. The message that makes a link cannot
// carry them, and one that changes it makes the kernel tell all that listen of a new
// state of the link: IPv6 then looks at every route that there is.
func SetPort(index int32, l netspec.Link) nlmsg.Message {
	h := ifinfo(index, 0)
	h[0] = unix.AF_BRIDGE
	a := nlmsg.Header(h...).Nest(unix.IFLA_PROTINFO, func(a *nlmsg.Attrs) { portFlags(a, l) })
	return nlmsg.Message{Type: unix.RTM_SETLINK, Data: a.Data()}
}

// disabled is BR_STATE_DISABLED.
const disabled = 0

// ClosePort has a port of a bridge take nothing and give nothing any more, and the bridge
// forget who was behind it.
func ClosePort(index int32) nlmsg.Message {
	h := ifinfo(index, 0)
	h[0] = unix.AF_BRIDGE
	a := nlmsg.Header(h...).Nest(unix.IFLA_PROTINFO, func(a *nlmsg.Attrs) { a.U8(unix.IFLA_BRPORT_STATE, disabled).Put(unix.IFLA_BRPORT_FLUSH, nil) })
	return nlmsg.Message{Type: unix.RTM_SETLINK, Data: a.Data()}
}

func portFlags(a *nlmsg.Attrs, l netspec.Link) {
	a.U8(brportMode, b2u(l.Hairpin)).U8(brportIsolated, b2u(l.Isolated))
}

func b2u(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// genNone is IN6_ADDR_GEN_MODE_NONE.
const genNone = 1

// NoLinkLocal keeps a link that is still down from getting an IPv6 address by itself.
// That of a port of a bridge nobody can reach, and it costs routes, which the next
// link has to pass, and questions that go to the container.
func NoLinkLocal(index int32) nlmsg.Message {
	a := linkHeader(index, 0).Nest(unix.IFLA_AF_SPEC, func(a *nlmsg.Attrs) {
		a.Nest(unix.AF_INET6, func(a *nlmsg.Attrs) { a.U8(unix.IFLA_INET6_ADDR_GEN_MODE, genNone) })
	})
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

// UpIn brings a link up, as a port of a bridge where master is one.
func UpIn(index, master int32) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: up(index, master).Data()}
}

// UpPeer is UpIn for the peer of l, with what it may have lost.
func UpPeer(index, master int32, l netspec.Link) nlmsg.Message {
	a := up(index, master)
	common(a, l.MTU, l.PeerMAC)
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

func up(index, master int32) *nlmsg.Attrs {
	a := linkHeader(index, unix.IFF_UP)
	if master != 0 {
		a.U32(unix.IFLA_MASTER, uint32(master))
	}
	return a
}

// Set gives a link our owner mark.
func (m Mark) Set(index int32) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: linkHeader(index, 0).U32(unix.IFLA_GROUP, m.Group).Data()}
}

// Rename gives a link another name.
func Rename(index int32, name string) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: linkHeader(index, 0).Str(unix.IFLA_IFNAME, name).Data()}
}

// DownLink takes a link down.
func DownLink(index int32) nlmsg.Message {
	h := ifinfo(index, 0)
	binary.NativeEndian.PutUint32(h[12:], unix.IFF_UP)
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: h}
}

// DelLink removes a link, and with a veth its peer.
func DelLink(name string) nlmsg.Message {
	return nlmsg.Message{Type: unix.RTM_DELLINK, Data: linkHeader(0, 0).Str(unix.IFLA_IFNAME, name).Data()}
}

// Info is a link as the kernel has it.
type Info struct {
	Index, Master, Peer int32
	PeerNS              int32 // -1: the link's own namespace
	Name, Kind, Alias   string
	Group, MTU          uint32
	MAC                 netspec.MAC
	Up                  bool
	Loopback            bool
	Isolated, Hairpin   bool
	Carrier             bool
	VLAN                uint16 // what a link of that kind has, as Mode and Flag
	Mode, Flag          string
	VXLAN               VXLANInfo
	RxBytes, TxBytes, RxPackets, TxPackets, RxErrors,
	TxErrors, RxDropped, TxDropped uint64
}

// ParseLink reads a message about a link.
func ParseLink(b []byte) Info {
	if len(b) < unix.SizeofIfInfomsg {
		return Info{}
	}
	flags := nlmsg.U32(b[8:])
	l := Info{Index: int32(nlmsg.U32(b[4:])), PeerNS: -1, Up: flags&unix.IFF_UP != 0, Loopback: flags&unix.IFF_LOOPBACK != 0, Carrier: flags&unix.IFF_LOWER_UP != 0}
	for t, d := range nlmsg.Each(b[unix.SizeofIfInfomsg:]) {
		switch t {
		case unix.IFLA_IFNAME:
			l.Name = nlmsg.Str(d)
		case unix.IFLA_IFALIAS:
			l.Alias = nlmsg.Str(d)
		case unix.IFLA_GROUP:
			l.Group = nlmsg.U32(d)
		case unix.IFLA_MTU:
			l.MTU = nlmsg.U32(d)
		case unix.IFLA_MASTER:
			l.Master = int32(nlmsg.U32(d))
		case unix.IFLA_LINK:
			l.Peer = int32(nlmsg.U32(d))
		case unix.IFLA_LINK_NETNSID:
			l.PeerNS = int32(nlmsg.U32(d))
		case unix.IFLA_ADDRESS:
			copy(l.MAC[:], d)
		case unix.IFLA_LINKINFO:
			l.Kind = nlmsg.Str(nlmsg.Find(d, unix.IFLA_INFO_KIND))
			l.kindData(nlmsg.Find(d, unix.IFLA_INFO_DATA))
			var port []byte
			if nlmsg.Str(nlmsg.Find(d, unix.IFLA_INFO_SLAVE_KIND)) == netspec.Bridge {
				port = nlmsg.Find(d, unix.IFLA_INFO_SLAVE_DATA)
				l.Hairpin, l.Isolated = flag(nlmsg.Find(port, brportMode)), flag(nlmsg.Find(port, brportIsolated))
			}
			if l.Kind == netspec.KindVXLAN {
				l.vxlan(nlmsg.Find(d, unix.IFLA_INFO_DATA), port)
			}
		case unix.IFLA_STATS64:
			l.stats(d)
		}
	}
	return l
}

// PortFlags reads a message about a bridge's port alone (AF_BRIDGE).
func PortFlags(b []byte) (index int32, hairpin, isolated, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_BRIDGE {
		return 0, false, false, false
	}
	port := nlmsg.Find(b[unix.SizeofIfInfomsg:], unix.IFLA_PROTINFO)
	return int32(nlmsg.U32(b[4:])), flag(nlmsg.Find(port, brportMode)), flag(nlmsg.Find(port, brportIsolated)), len(nlmsg.Find(port, brportIsolated)) > 0
}

func flag(b []byte) bool { return len(b) > 0 && b[0] != 0 }

func (l *Info) stats(d []byte) {
	for i, to := range []*uint64{
		&l.RxPackets, &l.TxPackets, &l.RxBytes, &l.TxBytes, &l.RxErrors, &l.TxErrors, &l.RxDropped, &l.TxDropped,
	} {
		if len(d) >= 8*(i+1) {
			*to = binary.NativeEndian.Uint64(d[8*i:])
		}
	}
}

// LinksOf reads the links of one kind, without counters.
func (c *Conn) LinksOf(kind string) ([]Info, error) {
	a := linkHeader(0, 0).U32(unix.IFLA_EXT_MASK, skipStats)
	return c.links(a.Nest(unix.IFLA_LINKINFO, func(a *nlmsg.Attrs) { a.Str(unix.IFLA_INFO_KIND, kind) }))
}

// Links reads all links of the namespace.
func (c *Conn) Links(stats bool) ([]Info, error) {
	a := linkHeader(0, 0)
	if !stats {
		a.U32(unix.IFLA_EXT_MASK, skipStats)
	}
	return c.links(a)
}

func (c *Conn) links(a *nlmsg.Attrs) ([]Info, error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETLINK, Data: a.Data()})
	out := make([]Info, len(bs))
	for i, b := range bs {
		out[i] = ParseLink(b)
	}
	return out, err
}

// Link reads one link by name.
func (c *Conn) Link(name string) (Info, error) {
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETLINK, Data: linkHeader(0, 0).
		Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_EXT_MASK, skipStats).Data()})
	return ParseLink(b), err
}

// LinkAt reads one link by number.
func (c *Conn) LinkAt(index int32) (Info, error) {
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETLINK, Data: linkHeader(index, 0).U32(unix.IFLA_EXT_MASK, skipStats).Data()})
	return ParseLink(b), err
}

// Attributes of RTM_GETNSID (linux/net_namespace.h).
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// NSID is the number by which the namespace of c knows the one that fd is a
// descriptor of; -1 when it has none.
func (c *Conn) NSID(fd int) (int32, error) {
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETNSID, Data: nlmsg.Header(0, 0, 0, 0).U32(netnsaFD, uint32(fd)).Data()})
	if err != nil {
		return -1, err
	}
	return int32(nlmsg.U32(nlmsg.Find(b[4:], netnsaNSID))), nil
}
