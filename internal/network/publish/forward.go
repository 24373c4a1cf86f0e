package publish

import (
	"io"
	"net"
	"net/netip"
	"sync"
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
	flows  map[netip.AddrPort]*net.UDPConn
	wg     sync.WaitGroup
}

func (h *udpHeld) serve() {
	buf := make([]byte, 2048)
	for {
		n, from, err := h.c.ReadFromUDPAddrPort(buf)
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
		if f := h.flow(from); f != nil {
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

func (h *udpHeld) flow(from netip.AddrPort) *net.UDPConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.flows[from]; ok || h.closed || len(h.flows) >= udpFlows {
		return f
	}
	to, ok := h.get(from.Addr())
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
func (h *udpHeld) back(f *net.UDPConn, to netip.AddrPort) {
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.flows, to)
		f.Close()
	}()
	buf := make([]byte, 1<<16)
	for {
		if err := f.SetReadDeadline(time.Now().Add(udpIdle)); err != nil {
			return
		}
		n, err := f.Read(buf)
		if err != nil {
			return // idle, refused by the container, or closed
		}
		if _, err := h.c.WriteToUDPAddrPort(buf[:n], to); err != nil {
			return
		}
	}
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
