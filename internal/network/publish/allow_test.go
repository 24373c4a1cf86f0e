package publish

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestWhoMay: the list, this host, and nobody else.
func TestWhoMay(t *testing.T) {
	m := Mapping{HostIP: netip.IPv4Unspecified(), From: "10.0.0.0/8,192.0.2.7/32,fd00::/8"}
	w := Way{}
	w.From, w.Limited = m.Sources()
	mine := []string{"127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		mine = append(mine, netip.MustParsePrefix(a.String()).Addr().String())
	}
	for _, a := range mine {
		if !w.lets(netip.MustParseAddr(a)) {
			t.Errorf("%s may not", a)
		}
	}
	for _, a := range []string{"203.0.113.9", "192.0.2.8", "fd00::1", "2001:db8::1", "fe80::9%x"} { // of another family than the port
		if w.lets(netip.MustParseAddr(a)) {
			t.Errorf("%s may", a)
		}
	}
	m.From = "fd00::/8"
	if w.From, w.Limited = m.Sources(); w.lets(netip.MustParseAddr("203.0.113.9")) || len(w.From) != 0 {
		t.Error("a list of the other family only lets everybody in")
	}
	if everybody := (&Way{}); !everybody.lets(netip.MustParseAddr("203.0.113.9")) {
		t.Error("without a list somebody is kept out")
	}
}

// TestRelayAsks: a connection of one who may not is closed without a byte.
func TestRelayAsks(t *testing.T) {
	s := &Sockets{Log: slog.New(slog.DiscardHandler)}
	held, err := s.Hold("tcp", unused(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer held.Close()
	h := held.(*known).Held.(*tcpHeld)
	h.Forward(Way{To: netip.MustParseAddrPort("127.0.0.1:9"), Limited: true})
	for peer, want := range map[string]bool{"127.0.0.1": true, "203.0.113.9": false} {
		if _, ok := h.get(netip.MustParseAddr(peer)); ok != want {
			t.Errorf("%s is forwarded: %t", peer, ok)
		}
	}
	h.target.Forward(Way{}) // it still listens, as for one who is not on a list
	c, err := net.DialTimeout("tcp", h.l.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, _ := io.ReadAll(c); len(b) > 0 { // it may end with a reset
		t.Errorf("%q", b)
	}
}

// TestCheck: a row is refused when one of its ports is another program's.
func TestCheck(t *testing.T) {
	var asked string
	s := &Sockets{Log: slog.New(slog.DiscardHandler), InUse: func(proto string) ([]netip.AddrPort, error) {
		asked = proto
		return []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:2000"), netip.MustParseAddrPort("192.0.2.1:3000"), netip.MustParseAddrPort("[::]:4000")}, nil
	}}
	for _, c := range []struct {
		at          string
		iface       string
		first, last uint16
		free        bool
	}{
		{"0.0.0.0", "", 1000, 1999, true},
		{"0.0.0.0", "", 1000, 2000, false},
		{"127.0.0.1", "", 2000, 2100, false},
		{"0.0.0.0", "", 2001, 3100, false},
		{"127.0.0.1", "", 2001, 3100, true},
		{"0.0.0.0", "eth0", 2000, 2000, false},
		{"0.0.0.0", "eth0", 3000, 3000, true}, // whether eth0 has that address nobody knows yet
		{"0.0.0.0", "", 3001, 9000, true},
		{"::", "", 3000, 4000, false},
	} {
		m := Mapping{Proto: "udp", HostIP: netip.MustParseAddr(c.at), Iface: c.iface, HostPort: c.first, Count: c.last - c.first + 1}
		if err := s.Check(m); (err == nil) != c.free || err != nil && !errdefs.IsConflict(err) || asked != "udp" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	s.InUse = func(string) ([]netip.AddrPort, error) { return nil, io.ErrClosedPipe }
	if err := s.Check(Mapping{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 1, Count: 9}); err != nil {
		t.Errorf("the kernel did not answer, and the port is refused: %v", err)
	}
}
