package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// Sockets is the Holder of a real machine: it listens on TCP ports and binds
// UDP ports. SCTP ports are not held. What arrives is forwarded; Close ends
// that and waits for it.
type Sockets struct {
	Log *slog.Logger // required

	wg sync.WaitGroup
}

var _ Holder = (*Sockets)(nil)

// Hold implements Holder.
func (s *Sockets) Hold(proto string, ap netip.AddrPort) (Held, error) {
	family := "4"
	if ap.Addr().Is6() {
		family = "6" // the "6" networks of package net are IPv6 only
	}
	switch proto {
	case "tcp":
		l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp"+family, ap.String())
		if err != nil {
			return nil, refused(err)
		}
		h := &tcpHeld{l: l, log: s.Log}
		s.wg.Go(h.serve)
		return h, nil
	case "udp":
		c, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(ap))
		if err != nil {
			return nil, refused(err)
		}
		h := &udpHeld{c: c, flows: map[netip.AddrPort]*net.UDPConn{}}
		s.wg.Go(h.serve)
		return h, nil
	}
	return nil, nil
}

// Close implements Holder.
func (s *Sockets) Close() { s.wg.Wait() }

func refused(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port is already allocated: another program of this host has it: %w: %w", err, errdefs.ErrConflict)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w (hint: no interface of this host has that address): %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// target is where to forward to; it may change at any time.
type target struct {
	p atomic.Pointer[netip.AddrPort]
}

func (t *target) Forward(to netip.AddrPort) { t.p.Store(&to) }

func (t *target) get() (netip.AddrPort, bool) {
	p := t.p.Load()
	if p == nil || !p.Addr().IsValid() {
		return netip.AddrPort{}, false
	}
	return *p, true
}

type tcpHeld struct {
	target
	l     net.Listener
	log   *slog.Logger
	conns sync.WaitGroup
	open  sync.Map // net.Conn → nothing: to be closed with the port
}

func (h *tcpHeld) serve() {
	for {
		c, err := h.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // out of file descriptors: they come back
			h.log.Warn("accept on a published port", "addr", h.l.Addr(), "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		h.conns.Go(func() { h.relay(c) })
	}
	h.open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	h.conns.Wait()
}

func (h *tcpHeld) relay(c net.Conn) {
	h.open.Store(c, nil)
	defer h.open.Delete(c)
	defer c.Close()
	to, ok := h.get()
	if !ok {
		return
	}
	d, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
	if err != nil {
		h.log.Debug("forward to a container", "to", to, "err", err)
		return
	}
	h.open.Store(d, nil)
	defer h.open.Delete(d)
	splice(c.(*net.TCPConn), d.(*net.TCPConn))
}

// Close implements Held. The port is free when it returns.
func (h *tcpHeld) Close() error { return h.l.Close() }
