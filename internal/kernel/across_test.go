package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// accepting are what a host needs to take what comes from container i past the tunnel,
// and to know the way back.
func accepting(i int) netspec.State {
	s := netspec.State{}
	for _, f := range [][2]string{{"10.1.0.%d", "10.8.0.%d"}, {"fd00:1::%d", "fd00:8::%d"}} {
		to := ip(fmt.Sprintf(f[0], i+1))
		s.Add(netspec.Across{Link: "isbr1", Addr: to, Way: "under"}, netspec.Hop{To: to, Via: ip(fmt.Sprintf(f[1], i)), Dev: "under"})
	}
	return s
}

// shortcuts lead to container i past the tunnel.
func shortcuts(i int) netspec.State {
	s := netspec.State{}
	for _, f := range []string{"10.1.0.%d", "fd00:1::%d"} {
		s.Add(netspec.Shortcut{Link: "isbr1", Addr: ip(fmt.Sprintf(f, i+1)), MAC: macOf(1, i), Gateway: netspec.MAC{2, 0, 0, 0, 1, 1}})
	}
	return s
}

// besides is a pair of hosts with a tunnel, a container each, and all that they need to
// do without it but the shortcuts. They are strict about where packets may come from.
// called is whether br_netfilter, where it is loaded, shows frames to the rules of packets.
func besides(t testing.TB, called string) (a, b *machine) {
	t.Helper()
	a, b = newMachine(t, withBPF), newMachine(t, withBPF)
	needGuards(t, a)
	for _, m := range []*machine{a, b} { // nobody can be asked for by IPv6 before the asker's own address is settled
		m.host.Run("sysctl", "-w", "net/ipv6/conf/default/accept_dad=0")
		bridgesCall(m.host, called)
	}
	underlay(t, a, b)
	for i, m := range []*machine{a, b} {
		c, _ := container(1, i+1)
		m.host.Run("sysctl", "-w", "net/ipv4/conf/under/rp_filter=1")
		m.apply(merge(bridge(1, netspec.Segment{Masquerade: true}), state(tunnel(fmt.Sprintf("10.8.0.%d", i+1)), netspec.Guard{Link: "isbr1"}, netspec.Tunnel{Port: 4789}, netspec.TunnelPeer{Addr: ip(fmt.Sprintf("10.8.0.%d", 2-i))}), c,
			station(2-i, fmt.Sprintf("10.8.0.%d", 2-i)), accepting(2-i)))
	}
	return a, b
}

// TestShortcut: containers of two hosts reach each other past the tunnel, in either
// family, one way and both; what must not be routed still goes by the tunnel.
func TestShortcut(t *testing.T) {
	t.Parallel()
	for _, called := range []string{"0", "1"} {
		t.Run("br_netfilter="+called, func(t *testing.T) { testShortcut(t, called) })
	}
}

func testShortcut(t *testing.T, called string) {
	a, b := besides(t, called)
	reach := func(when string, tunnelled bool) {
		t.Helper()
		before := b.received() + a.received()
		b.reached(a.in("c1-1"), "c1-2", "10.1.0.3:80")
		b.reached(a.in("c1-1"), "c1-2", "[fd00:1::3]:80")
		a.reached(b.in("c1-2"), "c1-1", "10.1.0.2:80")
		a.reached(b.in("c1-2"), "c1-1", "[fd00:1::2]:80")
		if came := b.received() + a.received() - before; came > 0 != tunnelled {
			t.Errorf("%s: %d frames came by the tunnel", when, came)
		}
	}
	reach("by the tunnel", true)
	a.apply(shortcuts(2))
	reach("one way past it", true)
	b.apply(shortcuts(1))
	reach("both ways past it", false)
	for _, at := range []string{"10.1.0.3:9", "[fd00:1::3]:9"} {
		l := listenUDP(t, b.in("c1-2").File, at)
		defer l.Close()
		for hops, tunnelled := range map[int]bool{1: true, 2: true, 3: false, 254: false, 255: true} {
			before := b.received()
			a.in("c1-1").Do(func() error { return sendHops(at, hops) })
			if _, ok := receive(l); !ok {
				t.Errorf("%d hops to %s: it does not get there", hops, at)
			}
			if came := b.received() - before; came > 0 != tunnelled {
				t.Errorf("%d hops to %s: %d frames came by the tunnel", hops, at, came)
			}
		}
	}
	a.remove(shortcuts(2))
	reach("one way back", true)
}

// sendHops sends a datagram that so many hosts may route, less one.
func sendHops(at string, hops int) error {
	d := net.Dialer{Control: func(network, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			if network == "udp4" {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, hops)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops)
			}
		})
		return errors.Join(cerr, err)
	}}
	c, err := d.Dial("udp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("hello"))
	return err
}

// TestShortcutFlow: a flow loses nothing when one way takes the other's place, whichever
// direction is first.
func TestShortcutFlow(t *testing.T) {
	t.Parallel()
	for _, called := range []string{"0", "1"} {
		t.Run("br_netfilter="+called, func(t *testing.T) { testShortcutFlow(t, called) })
	}
}

func testShortcutFlow(t *testing.T, called string) {
	a, b := besides(t, called)
	for _, v6 := range []bool{false, true} {
		at := "10.1.0.3:7"
		if v6 {
			at = "[fd00:1::3]:7"
		}
		f := newFlow(t, a, b, at)
		for range 20 {
			for _, change := range []func(){
				func() { a.apply(shortcuts(2)) }, func() { b.apply(shortcuts(1)) }, func() { a.remove(shortcuts(2)) }, func() { b.remove(shortcuts(1)) },
			} {
				change()
				time.Sleep(5 * time.Millisecond)
			}
		}
		sent, lost := f.end()
		if lost > 0 || sent < 100 {
			t.Errorf("%s: %d of %d datagrams were lost", at, lost, sent)
		}
	}
}

// flow sends numbers that come back.
type flow struct {
	conn      net.Conn
	stop      chan struct{}
	done      chan struct{}
	sent, got atomic.Int64
}

func newFlow(t *testing.T, a, b *machine, at string) *flow {
	t.Helper()
	to := listenUDP(t, b.in("c1-2").File, at)
	go func() {
		b := make([]byte, 8)
		for {
			n, from, err := to.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = to.WriteTo(b[:n], from)
		}
	}()
	f := &flow{stop: make(chan struct{}), done: make(chan struct{})}
	a.in("c1-1").Do(func() (err error) { f.conn, err = net.Dial("udp", at); return err })
	t.Cleanup(func() { f.conn.Close(); to.Close() })
	go f.receive()
	go f.send()
	return f
}

func (f *flow) receive() {
	for b := make([]byte, 8); ; f.got.Add(1) {
		if _, err := f.conn.Read(b); err != nil {
			return
		}
	}
}

func (f *flow) send() {
	defer close(f.done)
	for i := uint64(0); ; i++ {
		select {
		case <-f.stop:
			return
		case <-time.After(time.Millisecond):
			_, _ = f.conn.Write(binary.BigEndian.AppendUint64(nil, i))
			f.sent.Add(1)
		}
	}
}

// end waits for what is underway.
func (f *flow) end() (sent, lost int64) {
	close(f.stop)
	<-f.done
	for range 200 {
		if f.got.Load() == f.sent.Load() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f.sent.Load(), f.sent.Load() - f.got.Load()
}

// TestHop: a route by a link of others is seen by a Kernel that did not make it, what
// somebody does to it is put right, others' routes there are left alone, and it goes.
func TestHop(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.foreign()
	underlay(t, m)
	for _, r := range []string{"10.1.0.7/32 via 10.8.0.2 dev under proto 73", "10.1.0.8/32 via 10.8.0.2 dev under metric 4711", "10.1.0.0/24 dev under proto 73 metric 4711"} {
		m.host.IP("route add " + r)
	}
	before := m.host.Run("ip", "route") + m.host.Run("ip", "-6", "route")
	want := accepting(2)
	hops := func() netspec.State {
		s := netspec.State{}
		for _, o := range m.observe() {
			if h, ok := o.(netspec.Hop); ok {
				s.Add(h)
			}
		}
		return s
	}
	for k, o := range want {
		if _, ok := o.(netspec.Hop); !ok {
			delete(want, k)
		}
	}
	m.apply(want)
	for what, spoil := range map[string]func(){
		"nothing":     func() {},
		"it is gone":  func() { m.host.IP("route del 10.1.0.3/32 proto 73") },
		"v6 is gone":  func() { m.host.IP("-6 route del fd00:1::3/128 proto 73") },
		"elsewhere":   func() { m.host.IP("route replace 10.1.0.3/32 via 10.8.0.9 dev under proto 73 metric 4711") },
		"one more":    func() { m.host.IP("route add 10.1.0.99/32 via 10.8.0.9 dev under proto 73 metric 4711") },
		"link is off": func() { m.host.IP("link set under down\nlink set under up\naddr replace fd00:8::1/64 dev under nodad") },
	} {
		spoil()
		m.restart()
		changes, err := reconcile.Sync(t.Context(), m.Kernel, want)
		if err != nil || (len(changes) == 0) != (what == "nothing") {
			t.Errorf("%s: %v, %v", what, changes, err)
		}
		if got := hops(); !got.Equal(want) {
			t.Errorf("%s: %v", what, got)
		}
	}
	f, err := m.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range f.Routes {
		if u.Prefix == pfx("10.1.0.3/32") {
			t.Errorf("our own route is one of others: %v", u)
		}
	}
	m.remove(want)
	for _, r := range []string{"10.1.0.7/32 via 10.8.0.2 dev under proto 73", "10.1.0.8/32 via 10.8.0.2 dev under metric 4711", "10.1.0.0/24 dev under proto 73 metric 4711"} {
		_, _ = m.host.Try("ip", append([]string{"route", "add"}, strings.Fields(r)...)...) // those that went with the link
	}
	if after := m.host.Run("ip", "route") + m.host.Run("ip", "-6", "route"); after != before {
		t.Errorf("routes are\n%s\nwere\n%s", after, before)
	}
}

// BenchmarkShortcut: what containers of two hosts say to each other past the tunnel, as a
// share of what they do by it: a stream, and how long a byte takes there and back. The
// ways take turns, so that what else the machine does meets both.
func BenchmarkShortcut(b *testing.B) {
	one, two := besides(b, "0")
	for ns, m := range map[netspec.NS]*machine{"c1-1": one, "c1-2": two} {
		m.in(ns).IP("link set eth0 mtu 1450")
	}
	ways := []func(){
		func() { one.remove(shortcuts(2)); two.remove(shortcuts(1)) },
		func() { one.apply(shortcuts(2)); two.apply(shortcuts(1)) },
	}
	for what, turn := range map[string]func(from net.Conn) error{"stream": stream, "latency": pingPong} {
		b.Run(what, func(b *testing.B) {
			from, to := pair(b, one, two)
			go answerAs(what, to)
			var took [2][]time.Duration
			for b.Loop() {
				for i, way := range ways {
					way()
					begin := time.Now()
					if err := turn(from); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(begin))
				}
			}
			b.ReportMetric(float64(median(took[1]))/float64(median(took[0])), "direct/tunnel")
		})
	}
}

func median(of []time.Duration) time.Duration { slices.Sort(of); return of[len(of)/2] }

// answerAs takes a stream and says when a part of it has come, or gives back each byte.
func answerAs(what string, to net.Conn) {
	size := int64(1)
	if what == "stream" {
		size = streamPart
	}
	for {
		if _, err := io.CopyN(io.Discard, to, size); err != nil {
			return
		}
		if _, err := to.Write([]byte{1}); err != nil {
			return
		}
	}
}

const streamPart = 64 << 20

func stream(c net.Conn) error {
	for chunk, n := make([]byte, 1<<20), 0; n < streamPart; n += len(chunk) {
		if _, err := c.Write(chunk); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func pingPong(c net.Conn) error {
	b := make([]byte, 1)
	for range 500 {
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	return nil
}

// pair is a connection between the containers.
func pair(b *testing.B, one, two *machine) (from, to net.Conn) {
	l, err := two.ListenTCP(b.Context(), "c1-2", netip.MustParseAddrPort("10.1.0.3:0"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	one.in("c1-1").Do(func() (err error) { from, err = net.Dial("tcp", l.Addr().String()); return err })
	if to, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}
