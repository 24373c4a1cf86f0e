package cluster

import (
	"net"
	"net/netip"
)

func netListen(a netip.Addr, port uint16) (net.Listener, error) {
	return net.Listen("tcp", netip.AddrPortFrom(a, port).String())
}
