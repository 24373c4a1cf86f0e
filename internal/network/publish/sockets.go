package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// Sockets is the Holder of a real machine: it listens on TCP ports while they lead
// somewhere, and binds UDP and SCTP ports. What arrives at the first two is
// forwarded; Close ends that and waits for it.
type Sockets struct {
	Log *slog.Logger // required
	// InUse are the addresses at which sockets of this host receive, of TCP or
	// UDP. Nil: rows of ports are not looked for among them.
	InUse func(proto string) ([]netip.AddrPort, error)

	wg  sync.WaitGroup
	own sync.Map // socketAt → nothing: what is held, and so is no other program's
}

type socketAt struct {
	proto string
	at    netip.AddrPort
}

// known is a Held that is one of own.
type known struct {
	Held
	forget func()
}

// Close implements Held.
func (k *known) Close() error {
	k.forget()
	return k.Held.Close()
}

var _ Holder = (*Sockets)(nil)

// Hold implements Holder.
func (s *Sockets) Hold(proto string, ap netip.AddrPort) (Held, error) {
	h, err := s.hold(proto, ap)
	if h == nil || err != nil {
		return nil, err
	}
	key := socketAt{proto, ap}
	s.own.Store(key, nil)
	return &known{h, func() { s.own.Delete(key) }}, nil
}

func (s *Sockets) hold(proto string, ap netip.AddrPort) (Held, error) {
	family := "4"
	if ap.Addr().Is6() {
		family = "6" // the "6" networks of package net are IPv6 only
	}
	switch proto {
	case "tcp":
		g, err := newGate(family, ap)
		if err != nil {
			return nil, refused(err)
		}
		h := &tcpHeld{l: g, log: s.Log}
		s.wg.Go(h.serve)
		return h, nil
	case "udp":
		c, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(ap))
		if err != nil {
			return nil, refused(err)
		}
		h := &udpHeld{c: c, flows: map[peer]*net.UDPConn{}}
		if err := tellDestination(c, family); err != nil {
			c.Close()
			return nil, fmt.Errorf("hold %s/udp: %w", ap, err)
		}
		s.wg.Go(h.serve)
		return h, nil
	}
	return bind(syscall.IPPROTO_SCTP, ap)
}

// bound is a port that is held and does not receive anything.
type bound struct{ f *os.File }

// bind holds a port of a protocol that the standard library does not know. It
// does not listen: what arrives would be answered by nobody. A kernel without
// the protocol has nobody to hold a port against: that is no Held and no error.
func bind(proto int, ap netip.AddrPort) (Held, error) {
	domain, addr := sockaddr(ap)
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, proto)
	if errors.Is(err, syscall.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, refused(os.NewSyscallError("socket", err))
	}
	b := bound{os.NewFile(uintptr(fd), ap.String())}
	if domain == syscall.AF_INET6 { // the IPv4 port is another one
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
	}
	if err = cmp.Or(err, syscall.Bind(fd, addr)); err != nil {
		b.f.Close()
		return nil, refused(os.NewSyscallError("bind", err))
	}
	return b, nil
}

func sockaddr(ap netip.AddrPort) (domain int, addr syscall.Sockaddr) {
	if ap.Addr().Is4() {
		return syscall.AF_INET, &syscall.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

// Forward implements Held: nothing arrives.
func (bound) Forward(Way) {}

// Close implements Held.
func (b bound) Close() error { return b.f.Close() }

// Check implements Holder.
func (s *Sockets) Check(m Mapping) error {
	if s.InUse == nil || m.Proto == "sctp" {
		return nil
	}
	all, err := s.InUse(m.Proto)
	if err != nil { // the kernel has been asked in vain: that is no reason to refuse
		s.Log.Warn("cannot tell whether another program has a port", "port", m.where(), "err", err)
		return nil
	}
	on := addrsOf(m.Iface)
	for _, a := range all {
		other := Mapping{Proto: m.Proto, HostIP: a.Addr(), HostPort: a.Port(), Count: 1}
		_, _, ok := m.overlap(a.Port(), a.Port())
		if ok && (collide(other, m) || slices.Contains(on, a.Addr()) && a.Addr().Is4() == m.HostIP.Is4() && !s.holds(m.Proto, a)) {
			return fmt.Errorf("port is already allocated: another program of this host has %s: %w", a, errdefs.ErrConflict)
		}
	}
	return nil
}

// holds: that socket is one of ours. A port of an address and one of the interface
// that has it can be had both.
func (s *Sockets) holds(proto string, at netip.AddrPort) bool {
	_, ours := s.own.Load(socketAt{proto, at})
	return ours
}

// addrsOf are the addresses on which ports of an interface are published, if it
// is there. What comes to link-local ones is not redirected.
func addrsOf(iface string) (out []netip.Addr) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return nil
	}
	all, _ := link.Addrs() // gone meanwhile: it has none
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// Close implements Holder.
func (s *Sockets) Close() { s.wg.Wait() }

func refused(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port is already allocated: another program of this host has it: %w: %w", err, errdefs.ErrConflict)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w (hint: no interface of this host has that address; if=NAME publishes on one, whichever it has): %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EAFNOSUPPORT): // a link-local address; no IPv6
		return fmt.Errorf("%w (hint: this host cannot bind that address): %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// target is where to forward to; it may change at any time.
type target struct {
	p atomic.Pointer[Way]
}

func (t *target) Forward(w Way) { t.p.Store(&w) }

// get is where what comes from peer goes.
func (t *target) get(peer netip.Addr) (netip.AddrPort, bool) {
	w := t.p.Load()
	if w == nil || !w.To.Addr().IsValid() || !w.lets(peer) {
		return netip.AddrPort{}, false
	}
	return w.To, true
}

type tcpHeld struct {
	target
	l     listener
	log   *slog.Logger
	conns sync.WaitGroup
	open  sync.Map // net.Conn → nothing: to be closed with the port
}

// Forward implements Held. Connections go on with the container that they began
// with, but not of who may not have the port any more, or when nobody has it.
func (h *tcpHeld) Forward(w Way) {
	h.target.Forward(w)
	if err := h.l.set(w.To.Addr().IsValid()); err != nil {
		h.log.Warn("listen on a published port", "addr", h.l.Addr(), "err", err)
	}
	h.open.Range(func(c, _ any) bool {
		if _, ok := h.get(client(c.(net.Conn))); !ok {
			c.(net.Conn).Close()
		}
		return true
	})
}

func client(c net.Conn) netip.Addr { return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr() }

func (h *tcpHeld) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
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
		h.open.Store(c, nil) // before anybody may ask for what is open
		h.conns.Go(func() { h.relay(ctx, c) })
	}
	cancel() // who is still dialling
	h.open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	h.conns.Wait()
}

func (h *tcpHeld) relay(ctx context.Context, c net.Conn) {
	defer h.open.Delete(c)
	defer c.Close()
	to, ok := h.get(client(c))
	if !ok {
		return
	}
	d, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		h.log.Debug("forward to a container", "to", to, "err", err)
		return
	}
	splice(c.(*net.TCPConn), d.(*net.TCPConn))
}

// Close implements Held. The port is free when it returns.
func (h *tcpHeld) Close() error { return h.l.Close() }
