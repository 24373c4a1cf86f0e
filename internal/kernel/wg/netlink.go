package wg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

// Commands, attributes and flags of linux/wireguard.h.
const (
	cmdGet, cmdSet = 0, 1

	devIfname, devPrivate, devPublic, devFlags, devPort, devPeers         = 2, 3, 4, 5, 6, 8
	peerPublic, peerFlags, peerEndpoint, peerKeepalive, peerShaken        = 1, 3, 4, 5, 6
	peerAllowed                                                           = 9
	ipFamily, ipAddr, ipBits                                              = 1, 2, 3
	peerRemove                                                            = 1
	replacePeers                                                          = 1
	genlControl, getFamily, controlID, controlName                        = 0x10, 3, 1, 2
	genlHeader, version                                                   = 4, 1
	sockaddr4, sockaddr6, timespecLen                                     = 16, 28, 16
	sockaddrPort, sockaddr4Addr, sockaddr6Addr, sockaddrFamily, nestFirst = 2, 4, 8, 0, 0
)

// Conn is a socket to the kernel's WireGuard.
type Conn struct {
	nl     *nlmsg.Conn
	family uint16
}

// ErrNone is that the kernel has no WireGuard.
var ErrNone = errors.New("the kernel has no WireGuard")

// Open opens one in the calling thread's namespace.
func Open() (*Conn, error) {
	nl, err := nlmsg.Open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	b, err := nl.Get(nlmsg.Message{Type: genlControl, Data: nlmsg.Header(getFamily, version, 0, 0).Str(controlName, Kind).Data()})
	if err != nil {
		nl.Close()
		if errors.Is(err, unix.ENOENT) {
			err = ErrNone
		}
		return nil, fmt.Errorf("find WireGuard: %w", err)
	}
	id := nlmsg.Find(b[genlHeader:], controlID)
	if len(id) < 2 {
		nl.Close()
		return nil, ErrNone
	}
	return &Conn{nl, binary.NativeEndian.Uint16(id)}, nil
}

// Close frees it.
func (c *Conn) Close() error { return c.nl.Close() }

func (c *Conn) set(link string, fill func(*nlmsg.Attrs)) error {
	a := nlmsg.Header(cmdSet, version, 0, 0).Str(devIfname, link)
	fill(a)
	if err := c.nl.Do(nlmsg.Message{Type: c.family, Data: a.Data()}); err != nil {
		return fmt.Errorf("set up WireGuard link %s: %w", link, err)
	}
	return nil
}

// Configure gives a link its key and port. Its peers stay.
func (c *Conn) Configure(link string, private [KeyLen]byte, port uint16) error {
	return c.set(link, func(a *nlmsg.Attrs) {
		a.Put(devPrivate, private[:]).Put(devPort, binary.NativeEndian.AppendUint16(nil, port))
	})
}

// Add adds a peer, or changes one. Addresses that it had stay its own: to take one away,
// even for a moment, would cost frames.
func (c *Conn) Add(link string, p Peer) error {
	return c.set(link, func(a *nlmsg.Attrs) { one(a, func(a *nlmsg.Attrs) { add(a, p) }) })
}

func add(a *nlmsg.Attrs, p Peer) {
	a.Put(peerPublic, p.Key[:]).Put(peerEndpoint, sockaddr(p.At))
	a.Put(peerKeepalive, binary.NativeEndian.AppendUint16(nil, p.keepalive()))
	a.Nest(peerAllowed, func(a *nlmsg.Attrs) {
		a.Nest(nestFirst, func(a *nlmsg.Attrs) {
			family := uint16(unix.AF_INET6)
			if p.Allowed.Addr().Is4() {
				family = unix.AF_INET
			}
			a.Put(ipFamily, binary.NativeEndian.AppendUint16(nil, family)).Put(ipAddr, p.Allowed.Addr().AsSlice()).U8(ipBits, uint8(p.Allowed.Bits()))
		})
	})
}

// Remove removes a peer; one that is not there is no error.
func (c *Conn) Remove(link string, key [KeyLen]byte) error {
	return c.set(link, func(a *nlmsg.Attrs) {
		one(a, func(a *nlmsg.Attrs) { a.Put(peerPublic, key[:]).U32(peerFlags, peerRemove) })
	})
}

func one(a *nlmsg.Attrs, peer func(*nlmsg.Attrs)) {
	a.Nest(devPeers, func(a *nlmsg.Attrs) { a.Nest(nestFirst, peer) })
}

func sockaddr(at netip.AddrPort) []byte {
	if at.Addr().Is4() {
		b := make([]byte, sockaddr4)
		binary.NativeEndian.PutUint16(b[sockaddrFamily:], unix.AF_INET)
		binary.BigEndian.PutUint16(b[sockaddrPort:], at.Port())
		copy(b[sockaddr4Addr:], at.Addr().AsSlice())
		return b
	}
	b := make([]byte, sockaddr6)
	binary.NativeEndian.PutUint16(b[sockaddrFamily:], unix.AF_INET6)
	binary.BigEndian.PutUint16(b[sockaddrPort:], at.Port())
	copy(b[sockaddr6Addr:], at.Addr().AsSlice())
	return b
}

// Read reads a link. Many peers come in several messages.
func (c *Conn) Read(link string) (d Device, err error) {
	bs, err := c.nl.Dump(nlmsg.Message{Type: c.family, Data: nlmsg.Header(cmdGet, version, 0, 0).Str(devIfname, link).Data()})
	if err != nil {
		return d, fmt.Errorf("read WireGuard link %s: %w", link, err)
	}
	for _, b := range bs {
		if len(b) >= genlHeader {
			d.read(b[genlHeader:])
		}
	}
	return d, nil
}

func (d *Device) read(b []byte) {
	for typ, v := range nlmsg.Each(b) {
		switch typ {
		case devPublic:
			copy(d.Public[:], v)
		case devPort:
			if len(v) >= 2 {
				d.Port = binary.NativeEndian.Uint16(v)
			}
		case devPeers:
			for _, p := range nlmsg.Each(v) {
				d.peer(p)
			}
		}
	}
}

// peer reads one; one that goes on from the last message has only more addresses, and ours
// have one each.
func (d *Device) peer(b []byte) {
	var p Peer
	copy(p.Key[:], nlmsg.Find(b, peerPublic))
	p.At = addrPort(nlmsg.Find(b, peerEndpoint))
	interval := nlmsg.Find(b, peerKeepalive)
	p.Awake = len(interval) >= 2 && binary.NativeEndian.Uint16(interval) != 0
	p.Shaken = timespec(nlmsg.Find(b, peerShaken))
	for _, ip := range nlmsg.Each(nlmsg.Find(b, peerAllowed)) {
		if a, ok := netip.AddrFromSlice(nlmsg.Find(ip, ipAddr)); ok {
			if bits := nlmsg.Find(ip, ipBits); len(bits) > 0 {
				p.Allowed = netip.PrefixFrom(a, int(bits[0]))
			}
		}
	}
	d.Peers = append(d.Peers, p)
}

// timespec reads struct __kernel_timespec; zero is never.
func timespec(b []byte) time.Time {
	if len(b) < timespecLen {
		return time.Time{}
	}
	sec, nsec := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[timespecLen/2:])
	return unixTime(int64(sec), int64(nsec))
}

func addrPort(b []byte) netip.AddrPort {
	switch {
	case len(b) >= sockaddr6 && binary.NativeEndian.Uint16(b) == unix.AF_INET6:
		a, _ := netip.AddrFromSlice(b[sockaddr6Addr : sockaddr6Addr+16])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[sockaddrPort:]))
	case len(b) >= sockaddr4 && binary.NativeEndian.Uint16(b) == unix.AF_INET:
		a, _ := netip.AddrFromSlice(b[sockaddr4Addr : sockaddr4Addr+4])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[sockaddrPort:]))
	}
	return netip.AddrPort{}
}
