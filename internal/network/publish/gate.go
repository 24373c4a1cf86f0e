package publish

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// listener is what tcpHeld accepts from.
type listener interface {
	net.Listener
	// set opens it or shuts it. A shut one refuses connections and holds its port.
	set(open bool) error
}

// gate is the listener of a real machine. A port that leads nowhere must not
// look like one that does: nothing listens there.
type gate struct {
	*net.TCPListener
	mu           sync.Mutex
	turned       sync.Cond // open or closed has changed
	open, closed bool
}

// newGate is a gate that is shut.
func newGate(family string, at netip.AddrPort) (*gate, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false) // such a socket cannot be shut
	l, err := lc.Listen(context.Background(), "tcp"+family, at.String())
	if err != nil {
		return nil, err
	}
	g := &gate{TCPListener: l.(*net.TCPListener), open: true}
	g.turned.L = &g.mu
	if err := g.set(false); err != nil {
		l.Close()
		return nil, err
	}
	return g, nil
}

func (g *gate) set(open bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == open || g.closed {
		return nil
	}
	raw, err := g.SyscallConn()
	if err != nil {
		return err
	}
	turn := shut
	if open {
		turn = listen
	}
	var failed error
	if err := cmp.Or(raw.Control(func(fd uintptr) { failed = turn(int(fd)) }), failed); err != nil {
		return err
	}
	g.open = open
	g.turned.Broadcast()
	return nil
}

// listen: connections that linger from before must not keep the socket from it.
func listen(fd int) error {
	return cmp.Or(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Listen(fd, mostWaiting))
}

// mostWaiting is more than net.core.somaxconn, which the kernel makes of it.
const mostWaiting = 1 << 16

// shut: with SO_REUSEADDR others could have the port of a socket that does not listen.
func shut(fd int) error {
	return cmp.Or(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0), syscall.Shutdown(fd, syscall.SHUT_RD))
}

// Accept waits while the gate is shut.
func (g *gate) Accept() (net.Conn, error) {
	for g.opened() {
		c, err := g.TCPListener.Accept()
		if !errors.Is(err, syscall.EINVAL) { // else it has been shut meanwhile
			return c, err
		}
	}
	return nil, net.ErrClosed
}

// opened waits until the gate is open; false: it is closed for good.
func (g *gate) opened() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.open && !g.closed {
		g.turned.Wait()
	}
	return !g.closed
}

// Close ends Accept and gives the port back.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	g.turned.Broadcast()
	g.mu.Unlock()
	return g.TCPListener.Close()
}
