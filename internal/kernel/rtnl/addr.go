package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

// ifaProto is IFA_PROTO (linux/if_addr.h): who made an address. Kernels before
// 5.18 ignore it.
const ifaProto = 11

func addrMessage(typ, flags uint16, index int32, p netip.Prefix) nlmsg.Message {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(p.Addr()), uint8(p.Bits())
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	ip := p.Addr().AsSlice()
	a := nlmsg.Header(h...).Put(unix.IFA_LOCAL, ip).Put(unix.IFA_ADDRESS, ip).U8(ifaProto, Proto)
	// Nobody else can have the address, and an address that is not usable for
	// a second breaks programs that bind to it at once.
	a.U32(unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT)
	if p.Addr().Is4() && p.Bits() < 31 {
		a.Put(unix.IFA_BROADCAST, broadcast(p))
	}
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

func broadcast(p netip.Prefix) []byte {
	ip := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(ip[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, n)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddr gives a link an address, without duplicate address detection.
func AddAddr(index int32, p netip.Prefix) nlmsg.Message {
	return addrMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
}

// DelAddr takes an address away.
func DelAddr(index int32, p netip.Prefix) nlmsg.Message {
	return addrMessage(unix.RTM_DELADDR, 0, index, p)
}

// AddrInfo is an address as the kernel has it.
type AddrInfo struct {
	Index  int32
	Prefix netip.Prefix
	Proto  uint8
}

// Addrs reads all addresses of the namespace.
func (c *Conn) Addrs() ([]AddrInfo, error) { return c.AddrsOf(0) }

// AddrsOf reads the addresses of one link; 0 stands for all.
func (c *Conn) AddrsOf(index int32) ([]AddrInfo, error) {
	h := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETADDR, Data: h})
	var out []AddrInfo
	for _, b := range bs {
		if len(b) >= unix.SizeofIfAddrmsg {
			out = append(out, parseAddr(b))
		}
	}
	return out, err
}

func parseAddr(b []byte) AddrInfo {
	i := AddrInfo{Index: int32(nlmsg.U32(b[4:]))}
	local := nlmsg.Find(b[unix.SizeofIfAddrmsg:], unix.IFA_LOCAL)
	if local == nil {
		local = nlmsg.Find(b[unix.SizeofIfAddrmsg:], unix.IFA_ADDRESS)
	}
	if ip, ok := netip.AddrFromSlice(local); ok {
		i.Prefix = netip.PrefixFrom(ip, int(b[1]))
	}
	if p := nlmsg.Find(b[unix.SizeofIfAddrmsg:], ifaProto); len(p) > 0 {
		i.Proto = p[0]
	}
	return i
}

// OurAddr reports whether a message is about an address of ours.
func OurAddr(b []byte) bool {
	return len(b) >= unix.SizeofIfAddrmsg && parseAddr(b).Proto == Proto
}

// LinkOf is the number of the link that a message about an address, or about a
// queue or a filter of tc, is about: both have it at one place.
func LinkOf(b []byte) int32 {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0
	}
	return int32(nlmsg.U32(b[4:]))
}
