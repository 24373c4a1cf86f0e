package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// States of neighbours, and the flag that has the kernel ask (linux/neighbour.h).
const (
	known  = reachable | 0x04 | 0x08 | 0x10 | permanent | noARP // stale, delay, probe
	sure   = reachable | permanent | noARP
	ntfUse = 0x01
)

// Station is the MAC address of a neighbour, as the kernel knows it. Where that is not
// sure the kernel asks, as if a packet were sent.
func (c *Conn) Station(index int32, a netip.Addr) (mac netspec.MAC, ok bool, err error) {
	b, err := c.Get(neighOf(unix.RTM_GETNEIGH, 0, index, 0, a))
	if Gone(err) != nil {
		return mac, false, err
	}
	state := uint16(0)
	if err == nil && len(b) >= neighHeader {
		state = binary.NativeEndian.Uint16(b[neighState:])
		copy(mac[:], nlmsg.Find(b[neighHeader:], ndaLLAddr))
	}
	if state&sure == 0 {
		var errs []error
		if errs, err = c.Execute(neighOf(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, index, ntfUse, a)); err == nil {
			err = errs[0]
		}
	}
	return mac, state&known != 0 && mac != netspec.MAC{}, err
}

func neighOf(typ, flags uint16, index int32, use uint8, a netip.Addr) nlmsg.Message {
	h := make([]byte, neighHeader)
	h[0], h[ndmFlags] = family(a), use
	binary.NativeEndian.PutUint32(h[neighIfindex:], uint32(index))
	return nlmsg.Message{Type: typ, Flags: flags, Data: nlmsg.Header(h...).Put(ndaDst, a.AsSlice()).Data()}
}
