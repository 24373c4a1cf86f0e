package nettools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"isle/internal/toolbox/applet"
)

type netcat struct {
	listen, udp, zero, keep, verbose bool

	wait   time.Duration
	port   string
	family string
	source string
	s      applet.IO
}

// Netcat joins standard input and output to a connection: nc [-l] [-u] [-z] [-v] [-k] [-w SECONDS] [-p PORT] HOST PORT[-PORT].
func Netcat(ctx context.Context, s applet.IO, args []string) error {
	n := netcat{s: s}
	fs := applet.Flags(s, "nc [-46ulzvk] [-w SECONDS] [-s ADDR] [-p PORT] [HOST] PORT[-PORT]")
	fs.BoolVarP(&n.listen, "listen", "l", false, "wait for a connection")
	fs.BoolVarP(&n.udp, "udp", "u", false, "UDP")
	fs.BoolVarP(&n.zero, "zero", "z", false, "only try")
	fs.BoolVarP(&n.verbose, "verbose", "v", false, "say what happens")
	fs.BoolVarP(&n.keep, "keep", "k", false, "listen again afterwards")
	fs.BoolP("numeric", "n", false, "always so")
	fs.StringVarP(&n.port, "port", "p", "", "our port")
	fs.StringVarP(&n.source, "source", "s", "", "our address")
	wait := fs.Float64P("wait", "w", 0, "seconds to wait for connecting and for silence; 0 forever")
	four := fs.BoolP("ipv4", "4", false, "IPv4 only")
	six := fs.BoolP("ipv6", "6", false, "IPv6 only")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	n.wait, n.family = seconds(*wait), family(*four, *six)
	if n.listen {
		return n.server(ctx, fs.Args())
	}
	if err := applet.Need(fs, 2); err != nil {
		return err
	}
	return n.client(ctx, fs.Arg(0), fs.Arg(1))
}

func (n netcat) network() string {
	if n.udp {
		return "udp" + n.family
	}
	return "tcp" + n.family
}

// client tries every port of the range and talks to the last one.
func (n netcat) client(ctx context.Context, host, ports string) error {
	from, to, err := portRange(ports)
	if err != nil {
		return err
	}
	var errs []error
	for port := from; port <= to; port++ {
		errs = append(errs, n.one(ctx, net.JoinHostPort(host, strconv.Itoa(port))))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(n.s.Err, err)
		return applet.Exit(1)
	}
	return nil
}

func portRange(text string) (from, to int, err error) {
	a, b, isRange := strings.Cut(text, "-")
	if !isRange {
		b = a
	}
	first, err1 := strconv.ParseUint(a, 10, 16)
	last, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || last < first {
		return 0, 0, fmt.Errorf("port %q is not valid", text)
	}
	return int(first), int(last), nil
}

func (n netcat) one(ctx context.Context, addr string) error {
	d := net.Dialer{Timeout: n.wait}
	var err error
	if d.LocalAddr, err = n.local(); err != nil {
		return err
	}
	c, err := d.DialContext(ctx, n.network(), addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if n.verbose {
		fmt.Fprintf(n.s.Err, "connected to %s\n", c.RemoteAddr())
	}
	if n.zero {
		return n.try(c)
	}
	return n.join(c)
}

func (n netcat) local() (net.Addr, error) {
	if n.source == "" && n.port == "" {
		return nil, nil
	}
	addr := net.JoinHostPort(n.source, n.port)
	if n.udp {
		return net.ResolveUDPAddr(n.network(), addr)
	}
	return net.ResolveTCPAddr(n.network(), addr)
}

// try is enough for TCP. A UDP port that is closed says so after a packet.
func (n netcat) try(c net.Conn) error {
	if !n.udp {
		return nil
	}
	if _, err := c.Write([]byte{'\n'}); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(max(n.wait, 300*time.Millisecond))) // else the read waits too long
	_, err := c.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil
	}
	return err
}

// join copies both ways until the other end has finished, or for UDP and with -w
// until silence.
func (n netcat) join(c net.Conn) error {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(c, n.s.In) // an error shows in the other direction
		if t, ok := c.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}()
	_, err := io.Copy(n.s.Out, &patient{c, n.wait})
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		<-sent
		return nil
	}
	return err
}

// patient is a connection that ends after some silence.
type patient struct {
	net.Conn
	wait time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	if p.wait > 0 {
		if err := p.SetReadDeadline(time.Now().Add(p.wait)); err != nil {
			return 0, err
		}
	}
	return p.Conn.Read(b)
}

// server takes "nc -l 80", "nc -l -p 80" and "nc -l ADDR 80".
func (n netcat) server(ctx context.Context, args []string) error {
	host, port := n.source, n.port
	if len(args) > 0 {
		port = args[len(args)-1]
	}
	if len(args) > 1 {
		host = args[0]
	}
	addr := net.JoinHostPort(host, port)
	if n.udp {
		return n.serveUDP(ctx, addr)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, n.network(), addr)
	if err != nil {
		return err
	}
	defer l.Close()
	if n.verbose {
		fmt.Fprintf(n.s.Err, "listening on %s\n", l.Addr())
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if n.verbose {
			fmt.Fprintf(n.s.Err, "connection from %s\n", c.RemoteAddr())
		}
		err = errors.Join(n.join(c), c.Close())
		if !n.keep {
			return err
		}
	}
}

// serveUDP talks to whoever sends the first packet.
func (n netcat) serveUDP(ctx context.Context, addr string) error {
	p, err := (&net.ListenConfig{}).ListenPacket(ctx, n.network(), addr)
	if err != nil {
		return err
	}
	defer p.Close()
	buf := make([]byte, 65535)
	k, from, err := p.ReadFrom(buf)
	if err != nil {
		return err
	}
	if n.verbose {
		fmt.Fprintf(n.s.Err, "packet from %s\n", from)
	}
	if _, err := n.s.Out.Write(buf[:k]); err != nil {
		return err
	}
	return n.join(&peerConn{p.(*net.UDPConn), from})
}

// peerConn is an unconnected UDP socket as a connection to one peer.
type peerConn struct {
	*net.UDPConn
	peer net.Addr
}

func (p *peerConn) Write(b []byte) (int, error) { return p.WriteTo(b, p.peer) }

func (p *peerConn) Read(b []byte) (int, error) {
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil || from.String() == p.peer.String() {
			return n, err
		}
	}
}
