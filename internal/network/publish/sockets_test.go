package publish

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

// TestBind: a port of a protocol that is only held. TCP stands for SCTP, which
// this kernel may not have.
func TestBind(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		first, err := bind(syscall.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
		if err != nil {
			t.Fatal(err)
		}
		ap := boundTo(t, first)
		if _, err := bind(syscall.IPPROTO_TCP, ap); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "another program of this host has it") {
			t.Errorf("%s: what is held could be had: %v", ap, err)
		}
		first.Forward(Way{To: ap})
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		again, err := bind(syscall.IPPROTO_TCP, ap)
		if err != nil {
			t.Fatalf("%s: not free after it was closed: %v", ap, err)
		}
		again.Close()
	}
	for _, addr := range []string{"203.0.113.77", "2001:db8::77", "fe80::77"} {
		if _, err := bind(syscall.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr(addr), 0)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: not an address of this host: %v", addr, err)
		}
	}
}

// TestCheckInterface: a program at one of an interface's addresses has the port of
// the interface too; one of ours there does not.
func TestCheckInterface(t *testing.T) {
	var used []netip.AddrPort
	s := &Sockets{Log: slog.New(slog.DiscardHandler), InUse: func(string) ([]netip.AddrPort, error) { return used, nil }}
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, c := range []struct {
		used  string
		m     Mapping
		taken bool
	}{
		{"127.0.0.1:80", Mapping{HostIP: v4, Iface: "lo", HostPort: 80, Count: 1}, true},
		{"127.0.0.1:85", Mapping{HostIP: v4, Iface: "lo", HostPort: 80, Count: 10}, true},
		{"[::1]:80", Mapping{HostIP: v6, Iface: "lo", HostPort: 80, Count: 1}, true},
		{"127.0.0.1:80", Mapping{HostIP: v6, Iface: "lo", HostPort: 80, Count: 1}, false},
		{"127.0.0.1:81", Mapping{HostIP: v4, Iface: "lo", HostPort: 80, Count: 1}, false},
		{"127.0.0.1:80", Mapping{HostIP: v4, Iface: "nowhere0", HostPort: 80, Count: 1}, false},
		{"192.0.2.1:80", Mapping{HostIP: v4, Iface: "lo", HostPort: 80, Count: 1}, false},
	} {
		used, c.m.Proto = []netip.AddrPort{netip.MustParseAddrPort(c.used)}, "tcp"
		if err := s.Check(c.m); errdefs.IsConflict(err) != c.taken || err != nil && !strings.Contains(err.Error(), "another program of this host has "+c.used) {
			t.Errorf("%s is in use, %v is wanted: %v", c.used, c.m, err)
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	used = []netip.AddrPort{at}
	m := Mapping{Proto: "tcp", HostIP: v4, Iface: "lo", HostPort: at.Port(), Count: 1}
	h, err := s.Hold("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(m); err != nil {
		t.Errorf("it is ours: %v", err)
	}
	h.Close()
	if err := s.Check(m); !errdefs.IsConflict(err) {
		t.Errorf("it was ours: %v", err)
	}
}

func boundTo(t *testing.T, h Held) netip.AddrPort {
	t.Helper()
	sa, err := syscall.Getsockname(int(h.(bound).f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if v4, ok := sa.(*syscall.SockaddrInet4); ok {
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port))
	}
	v6 := sa.(*syscall.SockaddrInet6)
	return netip.AddrPortFrom(netip.AddrFrom16(v6.Addr), uint16(v6.Port))
}

// TestBindBoth: the IPv4 and the IPv6 port of a number are two.
func TestBindBoth(t *testing.T) {
	v6, err := bind(syscall.IPPROTO_TCP, netip.MustParseAddrPort("[::]:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer v6.Close()
	v4, err := bind(syscall.IPPROTO_TCP, netip.AddrPortFrom(netip.IPv4Unspecified(), boundTo(t, v6).Port()))
	if err != nil {
		t.Fatal(err)
	}
	v4.Close()
}

// TestWithoutProtocol: a kernel that has no SCTP publishes it all the same, and
// one that has it holds the port.
func TestWithoutProtocol(t *testing.T) {
	const nobodys = 253 // IANA: for experiments
	if h, err := bind(nobodys, netip.MustParseAddrPort("127.0.0.1:1")); h != nil || err != nil {
		t.Errorf("%v, %v", h, err)
	}
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	h, err := s.Hold("sctp", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	_, serr := os.Stat("/proc/net/sctp")
	if (h != nil) != (serr == nil) {
		t.Errorf("held: %v, SCTP: %v", h, serr)
	}
	if h != nil {
		h.Close()
	}
}
