package publish

import (
	"log/slog"
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
