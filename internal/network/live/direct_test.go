package live_test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/scout"
)

// scout is one that is in a hurry.
func (h *member) scout() network.Scout {
	return &scout.Scout{
		Open: func(link string, v6 bool, port uint16) (scout.Wire, error) {
			f, err := h.kernel.Frames(link, v6, port)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Path: filepath.Join(filepath.Dir(h.config.NSDir), "direct"), Every: 30 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}
}

// way is how a network reaches the other host.
func (h *member) way(name string) string {
	s, err := h.m.Span(h.t.Context(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, o := range s.Hosts {
		if !o.Self {
			return o.Way
		}
	}
	return ""
}

// tunnelled is how many frames have come out of the host's tunnels.
func (h *member) tunnelled() (n uint64) {
	h.t.Helper()
	links, err := h.kernel.Counters(h.t.Context(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	for name, c := range links {
		if len(name) > 5 && name[:5] == "islex" {
			n += c.RxPackets
		}
	}
	return n
}

// stream goes from a container to another and back, a datagram each millisecond.
type stream struct {
	conn      net.Conn
	sent, got atomic.Int64
}

func newStream(t *testing.T, a *member, from netspec.NS, b *member, to netspec.NS, at netip.AddrPort) *stream {
	t.Helper()
	f := &stream{}
	var far net.PacketConn
	if err := b.kernel.Do(to, func() (err error) { far, err = net.ListenPacket("udp", at.String()); return err }); err != nil {
		t.Fatal(err)
	}
	if err := a.kernel.Do(from, func() (err error) { f.conn, err = net.Dial("udp", at.String()); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); f.conn.Close() })
	go func() {
		for b := make([]byte, 8); ; {
			n, from, err := far.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = far.WriteTo(b[:n], from)
		}
	}()
	go func() {
		for b := make([]byte, 8); ; f.got.Add(1) {
			if _, err := f.conn.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for i := uint64(0); t.Context().Err() == nil; i++ {
			_, _ = f.conn.Write(binary.BigEndian.AppendUint64(nil, i))
			f.sent.Add(1)
			time.Sleep(time.Millisecond)
		}
	}()
	return f
}

// loses is how many datagrams do not come back while something is done; 0 also for some
// that are underway.
func (f *stream) loses(do func()) int64 {
	missing := func() int64 { return f.sent.Load() - f.got.Load() }
	before := missing()
	do()
	for range 400 {
		if missing() <= before {
			return 0
		}
		time.Sleep(5 * time.Millisecond)
	}
	return missing() - before
}

// TestOverlayDirect: between hosts on one wire what containers send goes as it is, while
// it gets there and the hosts are next to each other; else by the tunnel. What goes on
// loses nothing by a change of the way.
func TestOverlayDirect(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	for _, h := range all { // as some distributions have it
		h.ns.Run("sysctl", "-w", "net/ipv4/conf/under/rp_filter=1")
	}
	yes := true
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", EnableIPv6: &yes, Options: map[string]string{"isle.direct": "true"}}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	one := a.open(a.m, "one", nil, "app").Endpoints[0]
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	a.serve("one", "[::]:80")
	b.serve("two", "[::]:80")
	soon(t, "each knows the other's container", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 1 })
	f := newStream(t, a, "one", b, "two", netip.AddrPortFrom(two.Addr(true), 7))
	ways := func(a1, b1 string) func() bool {
		return func() bool { return a.way("app") == a1 && b.way("app") == b1 }
	}
	const direct, tunnel = network.WayDirect, network.WayTunnel
	if n := f.loses(func() { soon(t, "both go directly", ways(direct, direct)) }); n > 0 {
		t.Errorf("%d datagrams were lost on the way out of the tunnel", n)
	}
	crossed := func(when string, tunnelled bool) {
		t.Helper()
		before := a.tunnelled() + b.tunnelled()
		across(t, when, a, "one", two.Addr(true), 80, one.Addr(true))
		across(t, when, b, "two", one.Addr(true), 80, two.Addr(true))
		if n := a.tunnelled() + b.tunnelled() - before; n > 8 != tunnelled {
			t.Errorf("%s: %d frames came by the tunnel", when, n)
		}
		across(t, when+", the other family", a, "one", two.Addr(false), 80, one.Addr(false))
	}
	crossed("directly", false)

	a.end()
	a.count.n = 0
	a.begin()
	soon(t, "it goes on", func() bool { return a.way("app") == direct })
	if a.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", a.count.n)
	}
	soon(t, "so does the other", ways(direct, direct))

	a.ns.IP("route add 10.8.0.2/32 via 10.8.0.2 dev under onlink")
	if n := f.loses(func() {
		if err := a.m.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		soon(t, "the other host is not near any more", ways(tunnel, tunnel))
	}); n > 200 { // what was underway strictly, until b noticed
		t.Errorf("%d datagrams were lost", n)
	}
	crossed("with a router between", true)
	a.ns.IP("route del 10.8.0.2/32")
	if err := a.m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.loses(func() { soon(t, "both go directly again", ways(direct, direct)) }); n > 0 {
		t.Errorf("%d datagrams were lost on the way out of the tunnel", n)
	}
	crossed("directly again", false)
	for _, harm := range []string{"link set under down\nlink set under up", "route del " + two.Addr(true).String()} {
		a.ns.IP(harm)
		soon(t, "the route is back after "+harm, func() bool { return len(of[netspec.Hop](a)) == 1 && a.way("app") == direct })
		crossed("after "+harm, false)
	}
	for _, h := range all {
		for _, c := range []string{"one", "two"} {
			if err := h.m.Close(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range observe(t, h.kernel) {
			switch o := o.(type) {
			case netspec.Hop, netspec.Across, netspec.Shortcut:
				t.Errorf("%v is left", o)
			case netspec.VXLAN:
				if o.Master != "" {
					t.Errorf("%v is left", o)
				}
			}
		}
	}
}

// of are the objects of a type that the kernel has.
func of[T netspec.Object](h *member) (out []T) {
	for _, o := range observe(h.t, h.kernel) {
		if o, ok := o.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// TestOverlayDirectWide: so do containers that are on further bridges of a network.
func TestOverlayDirectWide(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	for _, h := range all {
		h.room = 1
		h.end()
		h.begin()
	}
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"isle.direct": "true"}}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	addrs := map[netspec.NS]netip.Addr{}
	for _, h := range all {
		for i := range 2 {
			name := netspec.NS(fmt.Sprint(h.dir.View().Self, i))
			addrs[name] = h.open(h.m, string(name), nil, "app").Endpoints[0].Addr(true)
			h.serve(name, "0.0.0.0:80")
		}
	}
	soon(t, "both go directly", func() bool {
		return a.way("app") == network.WayDirect && b.way("app") == network.WayDirect && len(of[netspec.Shortcut](a)) == 2 && len(of[netspec.Shortcut](b)) == 2
	})
	before := a.tunnelled() + b.tunnelled()
	for _, from := range []netspec.NS{"a0", "a1"} {
		for _, to := range []netspec.NS{"b0", "b1"} {
			across(t, "wide", a, from, addrs[to], 80, addrs[from])
		}
	}
	if n := a.tunnelled() + b.tunnelled() - before; n > 8 {
		t.Errorf("%d frames came by the tunnel", n)
	}
}

// TestOverlayDirectForbidden: where the wire drops what has addresses that it did not
// give out, containers reach each other by the tunnel, at first and when that begins.
func TestOverlayDirectForbidden(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"isle.direct": "true"}}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	forbid(b.ns)
	one := a.open(a.m, "one", nil, "app").Endpoints[0]
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	b.serve("two", "[::]:80")
	soon(t, "each knows the other's container", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 1 })
	across(t, "forbidden", a, "one", two.Addr(true), 80, one.Addr(true))
	time.Sleep(200 * time.Millisecond)
	if a.way("app") != network.WayTunnel || b.way("app") != network.WayTunnel {
		t.Errorf("the ways are %s and %s", a.way("app"), b.way("app"))
	}
	b.ns.Run("nft", "delete", "table", "netdev", "owner")
	soon(t, "both go directly", func() bool { return a.way("app") == network.WayDirect && b.way("app") == network.WayDirect })
	across(t, "allowed", a, "one", two.Addr(true), 80, one.Addr(true))
	forbid(b.ns)
	soon(t, "neither goes directly", func() bool { return a.way("app") == network.WayTunnel && b.way("app") == network.WayTunnel })
	across(t, "forbidden again", a, "one", two.Addr(true), 80, one.Addr(true))
}

// TestOverlayDirectBarred: where a packet filter of somebody else would drop what is
// routed, on either host, both keep to the tunnel until it is gone.
func TestOverlayDirectBarred(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	_, _ = b.ns.Try("sysctl", "-w", "net/bridge/bridge-nf-call-iptables=0") // it would see what tunnels carry, too
	b.ns.Run("nft", "add table ip other; add chain ip other forward { type filter hook forward priority 0; policy drop; }")
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"isle.direct": "true"}}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	one := a.open(a.m, "one", nil, "app").Endpoints[0]
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	b.serve("two", "[::]:80")
	soon(t, "each knows the other's container", func() bool { return len(of[netspec.Hop](a)) == 1 && len(of[netspec.Hop](b)) == 1 })
	time.Sleep(300 * time.Millisecond)
	if a.way("app") != network.WayTunnel || b.way("app") != network.WayTunnel {
		t.Errorf("the ways are %s and %s", a.way("app"), b.way("app"))
	}
	across(t, "barred", a, "one", two.Addr(true), 80, one.Addr(true))
	b.ns.Run("nft", "delete", "table", "ip", "other")
	soon(t, "both go directly", func() bool { return a.way("app") == network.WayDirect && b.way("app") == network.WayDirect })
	across(t, "not barred", a, "one", two.Addr(true), 80, one.Addr(true))
}

// forbid has a host's wire be one that knows who may have which address.
func forbid(ns kerneltest.NS) {
	for _, s := range []string{
		"add table netdev owner", "add chain netdev owner in { type filter hook ingress device under priority -500; }",
		fmt.Sprintf("add rule netdev owner in ip saddr %s drop", "10.66.0.0/16"),
	} {
		ns.Run("nft", s)
	}
}
