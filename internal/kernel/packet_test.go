package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
)

// serve answers, in a namespace, every stream and datagram on port with the
// address that it came from.
func serve(t testing.TB, ns *os.File, ports ...int) {
	t.Helper()
	serveAt(t, ns, "", ports...)
	serveAt(t, ns, "[::]", ports...)
}

func serveAt(t testing.TB, ns *os.File, at string, ports ...int) {
	t.Helper()
	family := "4"
	if strings.Contains(at, ":") {
		family = "6"
	}
	err := netns.Do(ns, func() error {
		for _, p := range ports {
			l, err := net.Listen("tcp"+family, fmt.Sprintf("%s:%d", at, p))
			if err != nil {
				return err
			}
			u, err := net.ListenPacket("udp"+family, fmt.Sprintf("%s:%d", at, p))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close(); u.Close() })
			go serveTCP(l, p)
			go serveUDP(u, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func serveTCP(l net.Listener, port int) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s on %d", host(c.RemoteAddr()), port)
		c.Close()
	}
}

func serveUDP(u net.PacketConn, port int) {
	b := make([]byte, 100)
	for {
		_, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = u.WriteTo(fmt.Appendf(nil, "%s on %d", host(from), port), from)
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

const patience = 250 * time.Millisecond

// ask sends from a namespace and returns the answer, or what went wrong.
func ask(ns *os.File, network, to string) (answer string) {
	err := netns.Do(ns, func() error {
		d := net.Dialer{Timeout: patience}
		c, err := d.DialContext(context.Background(), network, to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if strings.HasPrefix(network, "udp") {
			if _, err := c.Write([]byte("hello")); err != nil {
				return err
			}
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		answer = string(b[:n])
		if err == nil && c.RemoteAddr().String() != to {
			answer += " from " + c.RemoteAddr().String()
		}
		return err
	})
	if err != nil {
		return blocked
	}
	return answer
}

const blocked = "blocked"

// askFor is ask with patience for a busy machine, where something is to come.
func askFor(want string, ns *os.File, network, to string) (got string) {
	for range 8 {
		if got = ask(ns, network, to); got != blocked || want == blocked {
			break
		}
	}
	return got
}

// lan is a host of a neighbour at 192.0.2.n and 2001:db8::n, n from 2 on, that
// routes everything through our machine, which is at 1.
func (m *machine) lan(n int) kerneltest.NS {
	m.t.Helper()
	out := kerneltest.NewNS(m.t)
	here := fmt.Sprintf("up%d", n)
	m.host.IP(fmt.Sprintf(`link add %[1]s type veth peer name lan%[2]d
		link set lan%[2]d netns /proc/%[3]d/fd/%[4]d`, here, n, os.Getpid(), out.File.Fd()))
	if n == 2 {
		m.host.IP(`addr add 192.0.2.1/24 dev up2
			addr add 2001:db8::1/64 dev up2 nodad`)
	} else {
		m.host.IP(fmt.Sprintf(`addr add 198.51.100.1/24 dev %[1]s
			addr add 2001:db8:100::1/64 dev %[1]s nodad`, here))
	}
	m.host.Run("sysctl", "-w", "net.ipv6.conf."+here+".accept_dad=0") // neighbours are not asked for while it lasts
	m.host.IP("link set " + here + " up")
	v4, v6 := "192.0.2", "2001:db8:"
	if n != 2 {
		v4, v6 = "198.51.100", "2001:db8:100:"
	}
	out.IP(fmt.Sprintf(`link set lan%[1]d up
		addr add %[2]s.%[1]d/24 dev lan%[1]d
		addr add %[3]s:%[1]d/64 dev lan%[1]d nodad
		route add default via %[2]s.1
		route add default via %[3]s:1`, n, v4, v6))
	return out
}

// world is a machine with two bridges, an internal one, a container that serves
// on each, and a neighbour.
type world struct {
	*machine
	lan  kerneltest.NS
	c    map[string]kerneltest.NS
	want netspec.State
}

func newWorld(t *testing.T, opts ...option) *world {
	m := newMachine(t, opts...)
	m.foreign()
	w := &world{machine: m, lan: m.lan(2), c: map[string]kerneltest.NS{}, want: netspec.State{}}
	for n, policy := range map[int]netspec.Segment{1: {Masquerade: true}, 2: {Masquerade: true}, 3: {Internal: true}} {
		w.want = merge(w.want, bridge(n, policy))
		for i := 1; i <= 2; i++ {
			c, _ := container(n, i)
			w.want = merge(w.want, c)
		}
	}
	for _, port := range []netspec.Publish{
		{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 8080, Count: 1, ToPort: 80},
		{Proto: "udp", HostIP: ip("0.0.0.0"), HostPort: 8080, Count: 1, ToPort: 80},
		{Proto: "tcp", HostIP: ip("192.0.2.1"), HostPort: 8081, Count: 1, ToPort: 80},
		{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 7000, Count: 3, ToPort: 7000},
		{Proto: "tcp", HostIP: ip("192.0.2.1"), HostPort: 7100, Count: 3, ToPort: 7100},
		{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 6000, Count: 2, ToPort: 7000},
	} {
		port.To, port.Link = ip("10.1.0.2"), "isbr1"
		w.want.Add(port)
		port.To = ip("fd00:1::2")
		if port.HostIP.IsUnspecified() {
			port.HostIP = ip("::")
		} else {
			port.HostIP = ip("2001:db8::1")
		}
		w.want.Add(port)
	}
	m.apply(w.want)
	for n := 1; n <= 3; n++ {
		for i := 1; i <= 2; i++ {
			ns := netspec.NS(fmt.Sprintf("c%d-%d", n, i))
			w.c[string(ns)] = m.in(ns)
			serve(t, w.c[string(ns)].File, 80, 7000, 7001, 7002, 7101)
		}
	}
	serve(t, w.lan.File, 80)
	return w
}

func (w *world) from(who string) *os.File {
	switch who {
	case "host":
		return w.host.File
	case "lan":
		return w.lan.File
	}
	return w.c[who].File
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct{ what, from, network, to, want string }{
		{"published, client's address kept", "lan", "tcp", "192.0.2.1:8080", "192.0.2.2 on 80"},
		{"published udp", "lan", "udp", "192.0.2.1:8080", "192.0.2.2 on 80"},
		{"published v6", "lan", "tcp", "[2001:db8::1]:8080", "2001:db8::2 on 80"},
		{"published udp v6", "lan", "udp", "[2001:db8::1]:8080", "2001:db8::2 on 80"},
		{"published on one address", "lan", "tcp", "192.0.2.1:8081", "192.0.2.2 on 80"},
		{"published on one address v6", "lan", "tcp", "[2001:db8::1]:8081", "2001:db8::2 on 80"},
		{"not published on another address", "lan", "tcp", "10.2.0.1:8081", blocked},
		{"range, first", "lan", "tcp", "192.0.2.1:7000", "192.0.2.2 on 7000"},
		{"range, last", "lan", "tcp", "192.0.2.1:7002", "192.0.2.2 on 7002"},
		{"range v6", "lan", "tcp", "[2001:db8::1]:7001", "2001:db8::2 on 7001"},
		{"range of one address", "lan", "tcp", "192.0.2.1:7101", "192.0.2.2 on 7101"},
		{"range of one address v6", "lan", "tcp", "[2001:db8::1]:7101", "2001:db8::2 on 7101"},
		{"beyond a range", "lan", "tcp", "192.0.2.1:7003", blocked},
		{"range with other numbers", "lan", "tcp", "192.0.2.1:6001", "192.0.2.2 on 7001"},

		{"moby#14041: neighbour routes to a published port of the container", "lan", "tcp", "10.1.0.2:80", blocked},
		{"moby#14041: to an unpublished one", "lan", "tcp", "10.1.0.2:7000", blocked},
		{"moby#14041: udp", "lan", "udp", "10.1.0.2:80", blocked},
		{"moby#14041: v6", "lan", "tcp", "[fd00:1::2]:80", blocked},
		{"moby#14041: to the bridge's own address", "lan", "tcp", "10.1.0.1:80", blocked},

		{"host to container", "host", "tcp", "10.1.0.2:80", "10.1.0.1 on 80"},
		{"host to container v6", "host", "tcp", "[fd00:1::2]:80", "fd00:1::1 on 80"},
		{"host to its own address", "host", "tcp", "192.0.2.1:8080", "192.0.2.1 on 80"},
		{"host to its own address udp", "host", "udp", "192.0.2.1:8080", "192.0.2.1 on 80"},
		{"host to its own address v6", "host", "tcp", "[2001:db8::1]:8080", "2001:db8::1 on 80"},

		{"same network", "c1-2", "tcp", "10.1.0.2:80", "10.1.0.3 on 80"},
		{"same network v6", "c1-2", "tcp", "[fd00:1::2]:80", "fd00:1::3 on 80"},
		{"another network", "c2-1", "tcp", "10.1.0.2:80", blocked},
		{"another network v6", "c2-1", "tcp", "[fd00:1::2]:80", blocked},
		{"another network by published port", "c2-1", "tcp", "192.0.2.1:8080", "10.1.0.1 on 80"},
		{"another network by published port v6", "c2-1", "tcp", "[2001:db8::1]:8080", "fd00:1::1 on 80"},
		{"hairpin: own published port", "c1-1", "tcp", "192.0.2.1:8080", "10.1.0.1 on 80"},
		{"hairpin: that of a neighbour", "c1-2", "tcp", "192.0.2.1:8080", "10.1.0.1 on 80"},
		{"hairpin udp", "c1-2", "udp", "192.0.2.1:8080", "10.1.0.1 on 80"},
		{"hairpin v6", "c1-2", "tcp", "[2001:db8::1]:8080", "fd00:1::1 on 80"},
		{"by the gateway's address", "c1-2", "tcp", "10.1.0.1:8080", "10.1.0.1 on 80"},

		{"out, masqueraded", "c1-1", "tcp", "192.0.2.2:80", "192.0.2.1 on 80"},
		{"out, masqueraded udp", "c1-1", "udp", "192.0.2.2:80", "192.0.2.1 on 80"},
		{"out, masqueraded v6", "c1-1", "tcp", "[2001:db8::2]:80", "2001:db8::1 on 80"},

		{"internal: within", "c3-1", "tcp", "10.3.0.3:80", "10.3.0.2 on 80"},
		{"internal: out", "c3-1", "tcp", "192.0.2.2:80", blocked},
		{"internal: out v6", "c3-1", "tcp", "[2001:db8::2]:80", blocked},
		{"internal: in", "lan", "tcp", "10.3.0.2:80", blocked},
		{"internal: to another network", "c3-1", "tcp", "10.1.0.2:80", blocked},
		{"internal: to a published port", "c3-1", "tcp", "192.0.2.1:8080", blocked},
		{"internal: from another network", "c1-1", "tcp", "10.3.0.2:80", blocked},
		{"internal: from the host", "host", "tcp", "10.3.0.2:80", "10.3.0.1 on 80"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if got := askFor(tt.want, w.from(tt.from), tt.network, tt.to); got != tt.want {
				t.Errorf("%s %s %s = %q, want %q", tt.from, tt.network, tt.to, got, tt.want)
			}
		})
	}
	if got := w.observe(); !got.Equal(w.want) {
		t.Errorf("missing:\n%v\ntoo much:\n%v", w.want.Without(got), got.Without(w.want))
	}
}

// TestCVE202567499 : a router must not take traffic that only passes through
// it for its own, whatever ports are published on it.
func TestCVE202567499(t *testing.T) {
	w := newWorld(t)
	far := w.machine.lan(3)
	serve(t, far.File, 8080)
	if got := askFor("192.0.2.2 on 8080", w.lan.File, "tcp", "198.51.100.3:8080"); got != "192.0.2.2 on 8080" {
		t.Errorf("transit through the host: %q", got)
	}
	if got := askFor("198.51.100.1 on 8080", w.c["c1-1"].File, "tcp", "198.51.100.3:8080"); got != "198.51.100.1 on 8080" {
		t.Errorf("from a container: %q", got)
	}
	if got := askFor("2001:db8::2 on 8080", w.lan.File, "tcp", "[2001:db8:100::3]:8080"); got != "2001:db8::2 on 8080" {
		t.Errorf("transit through the host v6: %q", got)
	}
}

// TestCVE20208558 : packets for 127.0.0.0/8 that come from a wire reach
// nothing, even where somebody switched on route_localnet.
func TestCVE20208558(t *testing.T) {
	w := newWorld(t)
	w.host.Run("sysctl", "-w", "net.ipv4.conf.all.route_localnet=1")
	w.host.Run("sysctl", "-w", "net.ipv4.conf.all.rp_filter=0")
	u := listenUDP(t, w.host.File, "127.0.0.1:9999")
	for _, who := range []kerneltest.NS{w.lan, w.c["c1-1"]} {
		via := "192.0.2.1"
		if who != w.lan {
			via = "10.1.0.1"
		}
		who.Run("sysctl", "-w", "net.ipv4.conf.all.route_localnet=1")
		who.Run("ip", "addr", "flush", "dev", "lo")
		who.Run("ip", "route", "flush", "table", "local", "127.0.0.0/8")
		who.Run("ip", "route", "add", "127.0.0.1/32", "via", via)
		sendUDP(t, who.File, "127.0.0.1:9999")
	}
	if from, ok := receive(u); ok {
		t.Errorf("a packet for 127.0.0.1 came in from %v", from)
	}
	w.host.Run("nft", "delete", "table", "inet", "isle")
	sendUDP(t, w.lan.File, "127.0.0.1:9999")
	if _, ok := receive(u); !ok {
		t.Error("without our table nothing arrives either: this test shows nothing")
	}
}

func listenUDP(t *testing.T, ns *os.File, at string) (u net.PacketConn) {
	t.Helper()
	if err := netns.Do(ns, func() (err error) { u, err = net.ListenPacket("udp", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

func sendUDP(t *testing.T, ns *os.File, to string) {
	t.Helper()
	err := netns.Do(ns, func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("spoof"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func receive(u net.PacketConn) (from net.Addr, ok bool) {
	_ = u.SetReadDeadline(time.Now().Add(patience))
	_, from, err := u.ReadFrom(make([]byte, 100))
	return from, err == nil
}

func TestLoopback(t *testing.T) {
	w := newWorld(t, withBPF)
	needSockAddr(t, w.machine)
	v4, v6 := ip("10.1.0.2"), ip("fd00:1::2")
	w.apply(state(
		netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 8080, Count: 1, To: v4, ToPort: 80},
		netspec.Loopback{Proto: "udp", HostIP: ip("127.0.0.1"), HostPort: 8080, Count: 1, To: v4, ToPort: 80},
		netspec.Loopback{Proto: "tcp", HostIP: ip("::1"), HostPort: 8080, Count: 1, To: v6, ToPort: 80},
		netspec.Loopback{Proto: "udp", HostIP: ip("::1"), HostPort: 8080, Count: 1, To: v6, ToPort: 80},
		netspec.Loopback{Proto: "tcp", HostIP: ip("::1"), HostPort: 8081, Count: 1, To: v4, ToPort: 7000},
		netspec.Loopback{Proto: "udp", HostIP: ip("::1"), HostPort: 8081, Count: 1, To: v4, ToPort: 7000},
		netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.9"), HostPort: 8082, Count: 1, To: v4, ToPort: 7001},
		netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 20000, Count: 10000, To: v4, ToPort: 1000},
		netspec.Loopback{Proto: "udp", HostIP: ip("::1"), HostPort: 1001, Count: 7000, To: v6, ToPort: 2001},
	))
	for _, tt := range []struct{ from, network, to, want string }{
		{"host", "tcp", "127.0.0.1:8080", "10.1.0.1 on 80"},
		{"host", "udp", "127.0.0.1:8080", "10.1.0.1 on 80"},
		{"host", "tcp", "[::1]:8080", "fd00:1::1 on 80"},
		{"host", "udp", "[::1]:8080", "fd00:1::1 on 80"},
		{"host", "tcp", "[::1]:8081", "10.1.0.1 on 7000"},
		{"host", "udp", "[::1]:8081", "10.1.0.1 on 7000"},
		{"host", "tcp", "127.0.0.9:8082", "10.1.0.1 on 7001"},
		{"host", "tcp", "127.0.0.1:8082", blocked},
		{"host", "tcp", "127.0.0.1:26000", "10.1.0.1 on 7000"},
		{"host", "tcp", "127.0.0.1:26001", "10.1.0.1 on 7001"},
		{"host", "tcp", "127.0.0.1:29999", blocked},
		{"host", "tcp", "127.0.0.1:19080", blocked},
		{"host", "udp", "[::1]:6000", "fd00:1::1 on 7000"},
		{"host", "udp", "[::1]:6002", "fd00:1::1 on 7002"},
		{"lan", "tcp", "192.0.2.1:8082", blocked},
		{"lan", "tcp", "127.0.0.1:8080", blocked},
		{"c1-1", "tcp", "127.0.0.1:8080", blocked},
		{"c1-2", "tcp", "127.0.0.1:8080", blocked},
	} {
		if got := askFor(tt.want, w.from(tt.from), tt.network, tt.to); got != tt.want {
			t.Errorf("%s %s %s = %q, want %q", tt.from, tt.network, tt.to, got, tt.want)
		}
	}
	for _, to := range []struct{ network, to string }{
		{"udp4", "127.0.0.1:8080"}, {"udp6", "[::1]:8080"}, {"udp", "127.0.0.1:8080"},
	} {
		if from := unconnected(t, w.host.File, to.network, to.to); from != to.to {
			t.Errorf("unconnected %s to %s answered by %s", to.network, to.to, from)
		}
	}
	if from := unconnected(t, w.host.File, "udp4", "10.1.0.2:80"); from != "10.1.0.2:80" {
		t.Errorf("the container's own address answered as %s", from)
	}
}

// unconnected sends a datagram with sendto and returns where the answer came
// from, as recvfrom says.
func unconnected(t *testing.T, ns *os.File, network, to string) (from string) {
	t.Helper()
	err := netns.Do(ns, func() error {
		u, err := net.ListenPacket(network, ":0")
		if err != nil {
			return err
		}
		defer u.Close()
		if _, err := u.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			return err
		}
		_ = u.SetReadDeadline(time.Now().Add(patience))
		_, a, err := u.ReadFrom(make([]byte, 100))
		if err == nil {
			from = a.String()
		}
		return err
	})
	if err != nil {
		return err.Error()
	}
	return from
}

func needGuards(t testing.TB, m *machine) {
	t.Helper()
	if !m.Features().Guard {
		t.Skip(&probe.NotSupportedError{Feature: "guarding links by eBPF"})
	}
}

func needSockAddr(t testing.TB, m *machine) {
	t.Helper()
	if !m.Features().SockAddr {
		t.Skip(&probe.NotSupportedError{Feature: "redirecting sockets", Err: errors.New(m.Features().SockAddrError)})
	}
}

// TestRedirectsSurvive : what is pinned goes on without isled, and a new isled
// takes it over.
func TestRedirectsSurvive(t *testing.T) {
	w := newWorld(t, withBPF)
	needSockAddr(t, w.machine)
	w.want.Add(netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 8080, Count: 1, To: ip("10.1.0.2"), ToPort: 80})
	w.apply(w.want)
	for i := range 3 {
		if err := w.Kernel.Close(); err != nil {
			t.Fatal(err)
		}
		if got := askFor("10.1.0.1 on 80", w.host.File, "tcp", "127.0.0.1:8080"); got != "10.1.0.1 on 80" {
			t.Errorf("round %d, without isled: %q", i, got)
		}
		w.open()
		if got := askFor("10.1.0.1 on 80", w.host.File, "tcp", "127.0.0.1:8080"); got != "10.1.0.1 on 80" {
			t.Errorf("round %d, with a new isled: %q", i, got)
		}
	}
	got, quiet := w.observe(), netspec.State{}
	for _, o := range w.want {
		if _, ok := o.(netspec.Sysctl); !ok {
			quiet.Add(o)
		}
	}
	if !got.Equal(quiet) {
		t.Errorf("missing:\n%v\ntoo much:\n%v", quiet.Without(got), got.Without(quiet))
	}
}

func TestDNSRedirect(t *testing.T) {
	for name, opts := range map[string][]option{"ebpf": {withBPF}, "nftables": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, opts...)
			if opts != nil {
				needSockAddr(t, m)
			}
			br := bridge(1, netspec.Segment{})
			c, ns := container(1, 1)
			c2, ns2 := container(1, 2)
			m.apply(merge(br, c, c2))
			a, b := m.in(ns), m.in(ns2)
			serveAt(t, a.File, "127.0.0.11", 40053)
			serveAt(t, b.File, "127.0.0.11", 53)
			m.apply(state(netspec.DNSRedirect{NS: ns, Port: 40053}))
			for _, network := range []string{"udp", "tcp"} {
				if got := askFor("", a.File, network, "127.0.0.11:53"); !strings.HasSuffix(got, "on 40053") {
					t.Errorf("%s: %q", network, got)
				}
				if got := askFor("", b.File, network, "127.0.0.11:53"); !strings.HasSuffix(got, "on 53") {
					t.Errorf("another container, %s: %q", network, got)
				}
			}
			if from := unconnected(t, a.File, "udp4", "127.0.0.11:53"); from != "127.0.0.11:53" {
				t.Errorf("unconnected: answered by %s", from)
			}
			if got := m.observe()[netspec.DNSRedirect{NS: ns}.Key()]; got != (netspec.DNSRedirect{NS: ns, Port: 40053}) {
				t.Errorf("observed: %v", got)
			}
			m.remove(state(netspec.DNSRedirect{NS: ns, Port: 40053}))
			if got := ask(a.File, "tcp", "127.0.0.11:53"); got != blocked {
				t.Errorf("after removal: %q", got)
			}
		})
	}
}

// TestRoutedAnswers : without masquerading, answers to what a container began
// come in from outside and pass; nothing else does.
func TestRoutedAnswers(t *testing.T) {
	m := newMachine(t)
	lan := m.lan(2)
	serve(t, lan.File, 80)
	c, ns := container(1, 1)
	m.apply(merge(bridge(1, netspec.Segment{}), c))
	in := m.in(ns)
	serve(t, in.File, 80)
	if got := askFor("10.1.0.2 on 80", in.File, "tcp", "192.0.2.2:80"); got != "10.1.0.2 on 80" {
		t.Errorf("out: %q", got)
	}
	if got := ask(lan.File, "tcp", "10.1.0.2:80"); got != blocked {
		t.Errorf("in: %q", got)
	}
}

// TestUDPFlowsFollow : a client that goes on sending from one socket reaches
// whoever has the port now; made before or after, and on both families
// (moby#53384: the port outside differs from the one inside).
func TestUDPFlowsFollow(t *testing.T) {
	w := newWorld(t)
	for _, f := range []struct{ to, any, a, b, client string }{
		{"192.0.2.1:5000", "0.0.0.0", "10.1.0.2", "10.1.0.3", "192.0.2.2"},
		{"[2001:db8::1]:5000", "::", "fd00:1::2", "fd00:1::3", "2001:db8::2"},
	} {
		send := dialUDP(t, w.lan.File, f.to)
		p := netspec.Publish{Proto: "udp", HostIP: ip(f.any), HostPort: 5000, Count: 1, To: ip(f.a), ToPort: 80, Link: "isbr1"}
		q := p
		q.To, q.ToPort = ip(f.b), 7000
		for i, s := range []struct {
			apply, from netspec.State
			want        string
		}{
			{nil, nil, blocked},
			{state(p), nil, f.client + " on 80"},
			{state(q), state(p), f.client + " on 7000"},
			{nil, state(q), blocked},
		} {
			w.change(s.from, s.apply)
			w.flows.wait()
			if got := send(); got != s.want {
				t.Errorf("%s, step %d: %q, want %q", f.to, i, got, s.want)
			}
		}
	}
}

// TestTCPFlowsEnd : a connection through a port that is no longer published
// ends; one to another port goes on.
func TestTCPFlowsEnd(t *testing.T) {
	w := newWorld(t)
	echo(t, w.c["c1-1"].File, 9)
	for _, to := range []string{"192.0.2.1", "[2001:db8::1]"} {
		p := netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 5000, Count: 1, To: ip("10.1.0.2"), ToPort: 9, Link: "isbr1"}
		if strings.HasPrefix(to, "[") {
			p.HostIP, p.To = ip("::"), ip("fd00:1::2")
		}
		q := p
		q.HostPort = 5001
		w.apply(state(p, q))
		gone, stays := dialTCP(t, w.lan.File, to+":5000"), dialTCP(t, w.lan.File, to+":5001")
		if !gone() || !stays() {
			t.Fatalf("%s: no echo", to)
		}
		w.change(state(p), nil)
		w.flows.wait()
		if gone() {
			t.Errorf("%s: the connection goes on", to)
		}
		if !stays() {
			t.Errorf("%s: the other connection ended", to)
		}
		w.remove(state(q))
	}
}

// TestAllowListCuts : whoever is no longer in a port's list is cut off, others are
// not, and an open port that closes takes its connections along.
func TestAllowListCuts(t *testing.T) {
	w := newWorld(t)
	echo(t, w.c["c1-1"].File, 9)
	port := netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 5000, Count: 1, To: ip("10.1.0.2"), ToPort: 9, Link: "isbr1"}
	other := port
	other.HostPort = 5001
	only := func(from string) netspec.Allow {
		return netspec.Allow{Proto: "tcp", HostIP: port.HostIP, HostPort: 5000, Count: 1, From: pfx(from)}
	}
	w.apply(state(port, other))
	c, stays := dialTCP(t, w.lan.File, "192.0.2.1:5000"), dialTCP(t, w.lan.File, "192.0.2.1:5001")
	for _, step := range []struct {
		from, to netspec.State
		want     bool
	}{
		{nil, state(only("192.0.2.0/24")), true},
		{nil, state(only("198.51.100.0/24")), true},
		{state(only("192.0.2.0/24")), nil, false},
	} {
		w.change(step.from, step.to)
		w.flows.wait()
		if got := c(); got != step.want {
			t.Errorf("after %v to %v: %v", step.from, step.to, got)
		}
	}
	if !stays() {
		t.Error("the port without a list was cut")
	}
	seg := netspec.Segment{Link: "isbr1", Subnet: pfx("10.1.0.0/24"), Masquerade: true}
	wide := seg
	wide.Access = netspec.AccessOpen
	w.change(state(seg), state(wide))
	open := state(netspec.Open{Link: "isbr1", To: ip("10.1.0.2"), Proto: "tcp", Port: 9, Count: 1})
	w.apply(open)
	direct := dialTCP(t, w.lan.File, "10.1.0.2:9")
	if !direct() {
		t.Fatal("no echo from an open port")
	}
	w.remove(open)
	w.flows.wait()
	if direct() {
		t.Error("the connection outlives its open port")
	}
}

// echo gives back what comes on a port of a namespace.
func echo(t *testing.T, ns *os.File, port int) {
	t.Helper()
	var l net.Listener
	if err := netns.Do(ns, func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
}

// dialTCP connects; what it returns reports whether a byte comes back.
func dialTCP(t *testing.T, ns *os.File, to string) func() bool {
	t.Helper()
	var c net.Conn
	if err := netns.Do(ns, func() (err error) { c, err = net.DialTimeout("tcp", to, patience); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() bool {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		return err == nil
	}
}

func dialUDP(t *testing.T, ns *os.File, to string) func() string {
	t.Helper()
	var c net.Conn
	if err := netns.Do(ns, func() (err error) { c, err = net.Dial("udp", to); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() string {
		b := make([]byte, 100)
		for range 2 { // the first may bring the ICMP error of the last
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write([]byte("hello")); err != nil && !errors.Is(err, syscall.Errno(unix.ECONNREFUSED)) {
				return err.Error()
			}
			if n, err := c.Read(b); err == nil {
				return string(b[:n])
			}
		}
		return blocked
	}
}
