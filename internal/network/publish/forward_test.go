package publish

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what would otherwise never come.
const patience = 20 * time.Second

// scripted is a listener that gives one connection and is closed at once.
type scripted struct {
	net.Listener
	conns []net.Conn
}

func (l *scripted) Accept() (net.Conn, error) {
	if len(l.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	return c, nil
}

func (*scripted) set(bool) error { return nil }

// unused is an address of a port that nobody has.
func unused(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestClosedWhileItConnects: a connection that came just before its port was
// taken back ends with it, whoever keeps it open.
func TestClosedWhileItConnects(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 20 {
		mine, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		h := &tcpHeld{l: &scripted{conns: []net.Conn{theirs}}, log: slog.New(slog.DiscardHandler)}
		h.Forward(Way{To: l.Addr().(*net.TCPAddr).AddrPort()})
		done := make(chan struct{})
		go func() { h.serve(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("the connection lives on, and who closes the port waits for it")
		}
		mine.Close()
	}
}

// TestConnectionsFollow: a connection goes on when its port moves, and ends when
// nobody has the port any more.
func TestConnectionsFollow(t *testing.T) {
	blue, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer blue.Close()
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	held, err := s.Hold("tcp", unused(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer held.Close()
	held.Forward(Way{To: blue.Addr().(*net.TCPAddr).AddrPort()})
	c, err := net.Dial("tcp4", held.(*known).Held.(*tcpHeld).l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	inside, err := blue.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	go func() { _, _ = io.Copy(inside, inside) }()
	held.Forward(Way{To: netip.MustParseAddrPort("127.0.0.1:9")})
	if is := ask(t, c); is != "who?" {
		t.Errorf("after the port moved: %q", is)
	}
	held.Forward(Way{})
	if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the port is nobody's, and the connection goes on: %v", err)
	}
}

// answering is a container that answers every datagram with its own name.
func answering(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(name), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func heldUDP(t *testing.T, at string) *udpHeld {
	t.Helper()
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	held, err := s.Hold("udp", netip.MustParseAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close(); s.Close() })
	return held.(*known).Held.(*udpHeld)
}

func ask(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestDatagramsFollow: a client that goes on sending reaches the container that
// has the port now, and nobody's when it has become nobody's.
func TestDatagramsFollow(t *testing.T) {
	blue, green := answering(t, "blue"), answering(t, "green")
	h := heldUDP(t, "127.0.0.1:0")
	c, err := net.Dial("udp4", h.c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, to := range map[string]netip.AddrPort{"blue": blue, "green": green} {
		h.Forward(Way{To: to})
		for range 3 {
			if is := ask(t, c); is != name {
				t.Errorf("%s answers, the port is %s's", is, name)
			}
		}
	}
	if h.Forward(Way{}); h.open() != 0 {
		t.Error("the port leads nowhere, and the flow is kept")
	}
}

func (h *udpHeld) open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.flows)
}

// TestAnswersFromWhereAsked: of several addresses of the host the client is
// answered by the one that it sent to.
func TestAnswersFromWhereAsked(t *testing.T) {
	h := heldUDP(t, "0.0.0.0:0")
	h.Forward(Way{To: answering(t, "me")})
	port := h.c.LocalAddr().(*net.UDPAddr).Port
	for _, at := range []string{"127.0.0.1", "127.0.0.9", "127.1.2.3"} {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.ParseIP(at), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		if is := ask(t, c); is != "me" {
			t.Errorf("%s: %q", at, is)
		}
		c.Close()
	}
}

// TestAnswersFromWhereAsked6: the same of IPv6, as the kernel says and is told it.
func TestAnswersFromWhereAsked6(t *testing.T) {
	h := heldUDP(t, "[::]:0")
	h.Forward(Way{To: answering(t, "me")})
	c, err := net.Dial("udp6", netip.AddrPortFrom(netip.IPv6Loopback(), uint16(h.c.LocalAddr().(*net.UDPAddr).Port)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if is := ask(t, c); is != "me" {
		t.Errorf("%q", is)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	one, nowhere := string(netip.IPv6Loopback().AsSlice()), strings.Repeat("\x00", 4)
	for p := range h.flows {
		if !strings.Contains(p.as, one+nowhere) {
			t.Errorf("told of the answer: %x", p.as)
		}
	}
}
