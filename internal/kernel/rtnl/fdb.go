package rtnl

import (
	"encoding/binary"
	"net/netip"

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
	ndaMaster = 9
)

func fdbMessage(typ, flags uint16, index int32, tables uint8, mac netspec.MAC, dst netip.Addr) nlmsg.Message {
	h := fdbHeader(index)
	binary.NativeEndian.PutUint16(h[neighState:], noARP|reachable)
	h[ndmFlags] = tables
	a := nlmsg.Header(h...).Put(ndaLLAddr, mac[:])
	if dst.IsValid() {
		a.Put(ndaDst, dst.AsSlice())
	}
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

func fdbHeader(index int32) []byte {
	h := make([]byte, neighHeader)
	h[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(h[neighIfindex:], uint32(index))
	return h
}

// AddFDB says behind which end of the tunnel a station is, or is now.
func AddFDB(index int32, f netspec.FDB) nlmsg.Message {
	tables := uint8(ntfSelf | ntfMaster)
	if f.Alone {
		tables = ntfSelf
	}
	return fdbMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, tables, f.MAC, f.Dst)
}

// DelFDB forgets a station, wherever it is said to be. It may be in one of the tables
// only, and one message for both would stop at the first.
func DelFDB(index int32, f netspec.FDB) []nlmsg.Message {
	own := fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfSelf, f.MAC, netip.Addr{})
	if f.Alone {
		return []nlmsg.Message{own}
	}
	return []nlmsg.Message{own, fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfMaster, f.MAC, netip.Addr{})}
}

// AddFlood adds an end that gets copies. It may be there.
func AddFlood(index int32, f netspec.Flood) nlmsg.Message {
	return fdbMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, index, ntfSelf, netspec.MAC{}, f.Dst)
}

// DelFlood takes it away.
func DelFlood(index int32, f netspec.Flood) nlmsg.Message {
	return fdbMessage(unix.RTM_DELNEIGH, 0, index, ntfSelf, netspec.MAC{}, f.Dst)
}

// Stations reads all entries of a tunnel; alone: it is in no bridge. An FDB that is in one
// of the tables only has no Dst then: it is not as anybody wants it.
func (c *Conn) Stations(index int32, link string, alone bool) (out []netspec.Object, err error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETNEIGH, Data: fdbHeader(index)})
	if err != nil {
		return nil, err
	}
	at := map[netspec.MAC]halves{}
	for _, b := range bs {
		mac, dst, master, ok := station(b)
		switch {
		case !ok:
		case mac == (netspec.MAC{}):
			out = append(out, netspec.Flood{Link: link, Dst: dst})
		default:
			at[mac] = at[mac].with(dst, master)
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
	dst    netip.Addr
}

func (h halves) with(dst netip.Addr, master bool) halves {
	if master {
		h.master = true
	} else {
		h.dst = dst
	}
	return h
}

func (h halves) fdb(link string, mac netspec.MAC, alone bool) netspec.FDB {
	f := netspec.FDB{Link: link, MAC: mac, Alone: alone}
	if h.master != alone {
		f.Dst = h.dst
	}
	return f
}

// Lost is the key of a station, copy or neighbour of ours that a message says is gone, on
// the link with a number. What bridges have learned, and what the host has, is not ours.
func Lost(b []byte, name func(index int32) string) (k netspec.Key, ok bool) {
	if len(b) < neighHeader {
		return k, false
	}
	link := name(int32(nlmsg.U32(b[neighIfindex:])))
	mac, dst, _, ok := station(b)
	static := binary.NativeEndian.Uint16(b[neighState:])&(noARP|permanent) != 0
	switch {
	case !ok || link == "":
		return k, false
	case b[0] != unix.AF_BRIDGE:
		proto := nlmsg.Find(b[neighHeader:], ndaProtocol)
		return netspec.Neigh{Link: link, Addr: dst}.Key(), len(proto) == 1 && proto[0] == Proto
	case mac == (netspec.MAC{}):
		return netspec.Flood{Link: link, Dst: dst}.Key(), static
	}
	return netspec.FDB{Link: link, MAC: mac}.Key(), static
}

// station reads an entry. Those of the bridge about its own port are none.
func station(b []byte) (mac netspec.MAC, dst netip.Addr, master, ok bool) {
	if len(b) < neighHeader {
		return mac, dst, false, false
	}
	copy(mac[:], nlmsg.Find(b[neighHeader:], ndaLLAddr))
	dst, _ = netip.AddrFromSlice(nlmsg.Find(b[neighHeader:], ndaDst))
	master = nlmsg.Find(b[neighHeader:], ndaMaster) != nil
	return mac, dst, master, binary.NativeEndian.Uint16(b[neighState:])&permanent == 0 || !master
}
