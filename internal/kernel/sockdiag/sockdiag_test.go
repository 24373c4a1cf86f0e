package sockdiag_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/sockdiag"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestInUse: what listens is there, at its address, and what is connected is not.
func TestInUse(t *testing.T) {
	var tcp4, both, only6, udp, client uint16
	ns := kerneltest.NewNS(t)
	ns.Do(func() error {
		tcp4, both, only6 = listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp", ":0"), listen(t, "tcp6", "[::]:0")
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		t.Cleanup(func() { u.Close() })
		c, err := net.Dial("udp4", u.LocalAddr().String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		udp, client = port(u.LocalAddr()), port(c.LocalAddr())
		return nil
	})
	for _, c := range []struct {
		proto, addr string
		port        uint16
		want        bool
	}{
		{"tcp", "127.0.0.1", tcp4, true}, {"tcp", "0.0.0.0", tcp4, false},
		{"tcp", "::", both, true}, {"tcp", "0.0.0.0", both, true},
		{"tcp", "::", only6, true}, {"tcp", "0.0.0.0", only6, false},
		{"udp", "127.0.0.1", udp, true}, {"udp", "127.0.0.1", client, false},
	} {
		var all []netip.AddrPort
		ns.Do(func() (err error) { all, err = sockdiag.InUse(c.proto); return err })
		at := netip.AddrPortFrom(netip.MustParseAddr(c.addr), c.port)
		if got := slices.Contains(all, at); got != c.want {
			t.Errorf("%s %s is in use: %t, want %t; all: %v", c.proto, at, got, c.want, all)
		}
	}
	if _, err := sockdiag.InUse("sctp"); err == nil {
		t.Error("sctp has no list, and was answered")
	}
}

func port(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

func listen(t *testing.T, network, addr string) uint16 {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	t.Cleanup(func() { l.Close() })
	return port(l.Addr())
}
