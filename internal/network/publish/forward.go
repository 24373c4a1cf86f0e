package publish

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	udpIdle  = 90 * time.Second // of a flow, as docker-proxy's
	udpFlows = 1024             // of one port at a time
)

// splice copies both ways until both are done. A half that is closed is
// closed on the other side too.
func splice(a, b *net.TCPConn) {
	var wg sync.WaitGroup
	wg.Go(func() { half(a, b) })
	half(b, a)
	wg.Wait()
	b.Close()
}

func half(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close() // the peer must not take what it got for all there was
		src.Close()
		return
	}
	_ = dst.CloseWrite()
}

// udpHeld gives every client a socket of its own towards the container, so
// that answers find their way back.
type udpHeld struct {
	target
	c *net.UDPConn

	mu     sync.Mutex
	closed bool
	flows  map[peer]*net.UDPConn
	wg     sync.WaitGroup
}

// peer is a client, and what makes its answers come from the address that it
// sent to: others it would not take. A host has several of IPv6.
type peer struct {
	addr netip.AddrPort
	as   string // a control message
}

// Forward implements Held. Datagrams have no end to wait for: flows to where the
// port does not lead any more, and of who may not any more, are cut.
func (h *udpHeld) Forward(w Way) {
	h.target.Forward(w)
	h.mu.Lock()
	defer h.mu.Unlock()
	for p, f := range h.flows {
		if to, ok := h.get(p.addr.Addr()); !ok || f.RemoteAddr().(*net.UDPAddr).AddrPort() != to {
			delete(h.flows, p)
			f.Close()
		}
	}
}

func (h *udpHeld) serve() {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, oobn, _, from, err := h.c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if h.isClosed() {
				break
			}
			continue // an ICMP error of an earlier datagram
		}
		if n == len(buf) && cap(buf) < 1<<16 {
			buf = make([]byte, 1<<16) // large datagrams are about: this one is lost
			continue
		}
		if f := h.flow(peer{from, answerAs(oob[:oobn])}); f != nil {
			_, _ = f.Write(buf[:n]) // datagrams may be lost
		}
	}
	h.wg.Wait()
}

func (h *udpHeld) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

func (h *udpHeld) flow(from peer) *net.UDPConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.flows[from]; ok || h.closed || len(h.flows) >= udpFlows {
		return f
	}
	to, ok := h.get(from.addr.Addr())
	if !ok {
		return nil
	}
	f, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil
	}
	h.flows[from] = f
	h.wg.Go(func() { h.back(f, from) })
	return f
}

// back brings answers to the client until none has come for a while.
func (h *udpHeld) back(f *net.UDPConn, to peer) {
	defer h.end(f, to)
	buf := make([]byte, 1<<16)
	for {
		if err := f.SetReadDeadline(time.Now().Add(udpIdle)); err != nil {
			return
		}
		n, err := f.Read(buf)
		if err != nil {
			return // idle, refused by the container, or closed
		}
		if _, _, err := h.c.WriteMsgUDPAddrPort(buf[:n], []byte(to.as), to.addr); err != nil {
			return
		}
	}
}

func (h *udpHeld) end(f *net.UDPConn, of peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.flows[of] == f { // else there is a newer one
		delete(h.flows, of)
	}
	f.Close()
}

// Close implements Held.
func (h *udpHeld) Close() error {
	h.mu.Lock()
	h.closed = true
	for _, f := range h.flows {
		f.Close()
	}
	h.mu.Unlock()
	return h.c.Close()
}

// tellDestination makes the kernel say of every datagram where it was sent to.
func tellDestination(c *net.UDPConn, family string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, opt := syscall.IPPROTO_IP, syscall.IP_PKTINFO
	if family == "6" {
		level, opt = syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), level, opt, 1) })
	return errors.Join(err, set)
}

// answerAs makes of what the kernel said of a datagram what it is told of the
// answer: only the address (struct in_pktinfo, in6_pktinfo). The way is the
// routing table's to choose. "": it may choose the address too.
func answerAs(oob []byte) string {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return ""
	}
	switch m := msgs[0]; {
	case m.Header.Level == syscall.IPPROTO_IP && len(m.Data) >= 12:
		clear(m.Data[:4])
	case m.Header.Level == syscall.IPPROTO_IPV6 && len(m.Data) >= 20 && !netip.AddrFrom16([16]byte(m.Data)).IsMulticast():
		clear(m.Data[16:20])
	default:
		return ""
	}
	return string(oob)
}
