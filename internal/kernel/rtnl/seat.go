package rtnl

import (
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// Move is where a link goes and what it is there.
type Move struct {
	NS    int // a descriptor of the namespace
	Name  string
	Alias string // replaces the one that it has
}

// MoveLink moves a link into a namespace by one message: it is never there under a
// name that is not meant, and never without the alias that says whose it is. It is
// down afterwards, without its addresses and out of its bridge.
func MoveLink(index int32, m Move) nlmsg.Message {
	a := linkHeader(index, 0).U32(unix.IFLA_NET_NS_FD, uint32(m.NS)).Str(unix.IFLA_IFNAME, m.Name).Str(unix.IFLA_IFALIAS, m.Alias)
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}

// UpAs gives a link a MAC address, unless it is zero, and brings it up.
func UpAs(index int32, mac netspec.MAC) nlmsg.Message {
	a := linkHeader(index, unix.IFF_UP)
	common(a, 0, mac)
	return nlmsg.Message{Type: unix.RTM_NEWLINK, Data: a.Data()}
}
