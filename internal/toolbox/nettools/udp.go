package nettools

import (
	"errors"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// packets is a UDP socket that answers from the address that was asked: a host
// may have several, and a client takes an answer from no other one.
type packets struct {
	local net.Addr
	read  func(p []byte) (n int, at net.IP, ifindex int, from net.Addr, err error)
	write func(p []byte, at net.IP, ifindex int, to net.Addr) error
}

// listenUDP opens one socket per address family: on one for both, the kernel
// reports addresses in a form of its own.
func listenUDP(addr string) ([]packets, error) {
	v4, err4 := net.ListenPacket("udp4", addr)
	v6, err6 := net.ListenPacket("udp6", addr)
	var out []packets
	if err4 == nil {
		p, err := packets4(v4)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if err6 == nil {
		p, err := packets6(v6)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errors.Join(err4, err6)
	}
	return out, nil
}

func packets4(c net.PacketConn) (packets, error) {
	p := ipv4.NewPacketConn(c)
	return packets{
		local: c.LocalAddr(),
		read: func(b []byte) (int, net.IP, int, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			if cm == nil {
				return n, nil, 0, from, err
			}
			return n, cm.Dst, cm.IfIndex, from, err
		},
		write: func(b []byte, at net.IP, _ int, to net.Addr) error {
			_, err := p.WriteTo(b, &ipv4.ControlMessage{Src: at}, to)
			return err
		},
	}, p.SetControlMessage(ipv4.FlagDst, true)
}

func packets6(c net.PacketConn) (packets, error) {
	p := ipv6.NewPacketConn(c)
	return packets{
		local: c.LocalAddr(),
		read: func(b []byte) (int, net.IP, int, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			if cm == nil {
				return n, nil, 0, from, err
			}
			return n, cm.Dst, cm.IfIndex, from, err
		},
		write: func(b []byte, at net.IP, ifindex int, to net.Addr) error {
			cm := &ipv6.ControlMessage{Src: at}
			if at.IsLinkLocalUnicast() {
				cm.IfIndex = ifindex
			}
			_, err := p.WriteTo(b, cm, to)
			return err
		},
	}, p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
}

// serveUDP answers every packet with a hello and the packet.
func (g greeter) serveUDP(p packets) error {
	buf := make([]byte, 65535)
	for {
		n, at, ifindex, from, err := p.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		g.log("udp", strconv.Itoa(n)+" bytes", from)
		answer := append([]byte(g.hello(p.at(at), from)), buf[:n]...)
		if err := p.write(answer[:min(len(answer), 65507)], at, ifindex, from); err != nil {
			g.log("udp", "cannot answer: "+err.Error(), from)
		}
	}
}

// at is our address as the client knows it.
func (p packets) at(ip net.IP) net.Addr {
	bound, err := netip.ParseAddrPort(p.local.String())
	addr, ok := netip.AddrFromSlice(ip)
	if err != nil || !ok {
		return p.local
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Unmap(), bound.Port()))
}
