package publish

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestLeadsNowhere: a port that leads nowhere refuses connections, and is held
// against others all the same; as soon as it leads somewhere it serves, again and
// again, also while connections from before linger.
func TestLeadsNowhere(t *testing.T) {
	inside, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	go func() {
		for {
			c, err := inside.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	at := unused(t)
	held, err := s.Hold("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []Way{{}, {To: inside.Addr().(*net.TCPAddr).AddrPort()}, {}, {}, {To: inside.Addr().(*net.TCPAddr).AddrPort()}, {}} {
		held.Forward(way)
		c, err := net.DialTimeout("tcp4", at.String(), patience)
		if way.To.IsValid() {
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
			c.Close()
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("it leads nowhere, and a connection comes to %v", err)
		}
		if other, err := net.Listen("tcp4", at.String()); err == nil {
			other.Close()
			t.Errorf("another program could have it while it leads to %v", way.To)
		}
	}
	held.Close()
	held.Forward(Way{To: netip.MustParseAddrPort("127.0.0.1:9")}) // too late, and no matter
	s.Close()
	if other, err := net.Listen("tcp4", at.String()); err != nil {
		t.Errorf("it was given back: %v", err)
	} else {
		other.Close()
	}
}

// TestShutWhileItWaits: one that nobody has come to yet ends too.
func TestShutWhileItWaits(t *testing.T) {
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	for _, open := range []bool{true, false} {
		held, err := s.Hold("tcp", unused(t))
		if err != nil {
			t.Fatal(err)
		}
		if open {
			held.Forward(Way{To: netip.MustParseAddrPort("127.0.0.1:9")})
		}
		held.Close()
	}
	s.Close()
}
