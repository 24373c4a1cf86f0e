package rtnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// States and flags of entries (linux/neighbour.h). A station behind a tunnel is in two
// tables: in the bridge's ("master"), which says that the tunnel is its port, and in the
// tunnel's ("self"), which says where to send. One message writes both. To a bridge
// "permanent" means itself, so an entry for good is one that needs no ARP.
const (
	reachable = 0x02
	noARP     = 0x40
	ntfSelf   = 0x02
	ntfMaster = 0x04
	ndmFlags  = 10
	ndaVia    = 8 // NDA_IFINDEX
	ndaMaster = 9
)

func fdbMessage(typ, flags uint16, index int32, tables uint8, mac netspec.MAC, dst netip.Addr, via int32) nlmsg.Message {
	h := fdbHeader(index)
	binary.NativeEndian.PutUint16(h[neighState:], noARP|reachable)
	h[ndmFlags] = tables
	a := nlmsg.Header(h...).Put(ndaLLAddr, mac[:])
	if dst.IsValid() {
		a.Put(ndaDst, dst.AsSlice())
	}
	if via != 0 {
		a.U32(ndaVia, uint32(via))
	}
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

func fdbHeader(index int32) []byte {
	h := make([]byte, neighHeader)
	h[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(h[neighIfindex:], uint32(index))
	return h
}

// AddFDB says behind which end of the tunnel a station is, or is now; via is the number
// of the link that f names.
func AddFDB(index, via int32, f netspec.FDB) nlmsg.Message {
	tables := uint8(ntfSelf | ntfMaster)
	if f.Alone {
		tables = ntfSelf
	}
	return fdbMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, tables, f.MAC, f.Dst, via)
}

// DelFDB forgets a station, wherever it is said to be. It may be in one of the tables
// only, and one message for both would stop at the first.
func DelFDB(index int32, f netspec.FDB) []nlmsg.Message {
	own := fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfSelf, f.MAC, netip.Addr{}, 0)
	if f.Alone {
		return []nlmsg.Message{own}
	}
	return []nlmsg.Message{own, fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfMaster, f.MAC, netip.Addr{}, 0)}
}

// AddFlood adds an end that gets copies. It may be there.
func AddFlood(index, via int32, f netspec.Flood) nlmsg.Message {
	return fdbMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, index, ntfSelf, netspec.MAC{}, f.Dst, via)
}

// DelFlood takes it away.
func DelFlood(index, via int32, f netspec.Flood) nlmsg.Message {
	return fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfSelf, netspec.MAC{}, f.Dst, via)
}

// Stations reads all entries of a tunnel; alone: it is in no bridge. An FDB that is in one
// of the tables only has no Dst then: it is not as anybody wants it. A copy by a link that
// is gone goes nowhere, and the kernel does not delete it without the link: it is none.
// names are those of the links.
func (c *Conn) Stations(index int32, link string, alone bool, names map[int32]string) (out []netspec.Object, err error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETNEIGH, Data: fdbHeader(index)})
	if err != nil {
		return nil, err
	}
	at := map[netspec.MAC]halves{}
	for _, b := range bs {
		mac, to, master, ok := station(b, func(i int32) string { return names[i] })
		switch {
		case !ok, mac == netspec.MAC{} && strings.HasPrefix(to.via, gonePrefix):
		case mac == (netspec.MAC{}):
			out = append(out, netspec.Flood{Link: link, Dst: to.dst, Via: to.via})
		default:
			at[mac] = at[mac].with(to, master)
		}
	}
	for mac, h := range at {
		out = append(out, h.fdb(link, mac, alone))
	}
	return out, nil
}

// halves are what the two tables say of a station.
type halves struct {
	master bool
	end
}

// end is that of a tunnel, and the link on the way there.
type end struct {
	dst netip.Addr
	via string
}

func (h halves) with(to end, master bool) halves {
	if master {
		h.master = true
	} else {
		h.end = to
	}
	return h
}

func (h halves) fdb(link string, mac netspec.MAC, alone bool) netspec.FDB {
	f := netspec.FDB{Link: link, MAC: mac, Alone: alone}
	if h.master != alone {
		f.Dst, f.Via = h.dst, h.via
	}
	return f
}

// Lost is the key of a station, copy or neighbour of ours that a message says is gone, on
// the link with a number. What bridges have learned, and what the host has, is not ours.
// name is that of a link of ours which has such things, any that of any link.
func Lost(b []byte, name, any func(index int32) string) (k netspec.Key, ok bool) {
	if len(b) < neighHeader {
		return k, false
	}
	link := name(int32(nlmsg.U32(b[neighIfindex:])))
	mac, to, _, ok := station(b, any)
	static := binary.NativeEndian.Uint16(b[neighState:])&(noARP|permanent) != 0
	switch {
	case !ok || link == "":
		return k, false
	case b[0] != unix.AF_BRIDGE:
		proto := nlmsg.Find(b[neighHeader:], ndaProtocol)
		return netspec.Neigh{Link: link, Addr: to.dst}.Key(), len(proto) == 1 && proto[0] == Proto
	case mac == (netspec.MAC{}):
		return netspec.Flood{Link: link, Dst: to.dst, Via: to.via}.Key(), static
	}
	return netspec.FDB{Link: link, MAC: mac}.Key(), static
}

// station reads an entry. Those of the bridge about its own port are none.
func station(b []byte, name func(int32) string) (mac netspec.MAC, to end, master, ok bool) {
	if len(b) < neighHeader {
		return mac, to, false, false
	}
	copy(mac[:], nlmsg.Find(b[neighHeader:], ndaLLAddr))
	to.dst, _ = netip.AddrFromSlice(nlmsg.Find(b[neighHeader:], ndaDst))
	if via := nlmsg.Find(b[neighHeader:], ndaVia); len(via) == 4 {
		to.via = exitName(int32(nlmsg.U32(via)), name)
	}
	master = nlmsg.Find(b[neighHeader:], ndaMaster) != nil
	return mac, to, master, binary.NativeEndian.Uint16(b[neighState:])&permanent == 0 || !master
}

// gonePrefix begins what stands for the name of a link that is gone.
const gonePrefix = "#"

// exitName is the name of a link that frames leave by.
func exitName(index int32, name func(int32) string) string {
	if name := name(index); name != "" {
		return name
	}
	return fmt.Sprint(gonePrefix, index)
}

// Exit is the number of a link that frames leave by; 0 for none.
func (c *Conn) Exit(via string) (int32, error) {
	if via == "" {
		return 0, nil
	}
	return c.Index(via)
}
