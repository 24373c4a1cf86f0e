package kernel

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestFailureInTheMiddle : whatever fails, what is done is exact, nothing
// behind it was made, and taking back leaves nothing.
func TestFailureInTheMiddle(t *testing.T) {
	ns := netspec.NS("c1-1")
	for name, bad := range map[string]netspec.Object{
		"sysctl":    netspec.Sysctl{NS: ns, Name: "ipv4/no_such_thing", Value: "1"},
		"address":   netspec.Addr{NS: ns, Link: "eth7", Prefix: pfx("10.1.0.7/24")},
		"route":     netspec.Route{NS: ns, Dst: pfx("10.99.0.0/24"), Via: ip("172.16.0.1"), Dev: "eth0"},
		"link":      netspec.Link{Name: "isbad", Kind: netspec.Veth, Master: "isnone", PeerNS: ns, Peer: "eth1"},
		"peer name": netspec.Link{Name: "isbad", Kind: netspec.Veth, Master: "isbr1", PeerNS: ns, Peer: "lo"},
		"foreign":   netspec.Link{Name: "isfake", Kind: netspec.Veth, Master: "isbr1", PeerNS: ns, Peer: "eth1"},
		"loopback":  netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 1, Count: 1, To: ip("10.1.0.2"), ToPort: 1},
		"port":      netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 9050, Count: 100, To: ip("10.1.0.2"), ToPort: 9050, Link: "isbr1"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.foreign()
			before := m.foreignDump()
			br := bridge(1, netspec.Segment{Masquerade: true})
			br.Add(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 9000, Count: 100, To: ip("10.1.0.9"), ToPort: 9000, Link: "isbr1"})
			m.apply(br)
			c, _ := container(1, 1)
			c.Add(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 80, Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isbr1"},
				netspec.Publish{Proto: "tcp", HostIP: ip("::"), HostPort: 80, Count: 1, To: ip("fd00:1::2"), ToPort: 80, Link: "isbr1"})
			c.Add(bad)
			changes := reconcile.Diff(nil, c)
			done, err := m.Apply(context.Background(), changes)
			if err == nil || done >= len(changes) || changes[done].New != bad {
				t.Fatalf("done %d of %d: %v", done, len(changes), err)
			}
			want := merge(br)
			for _, c := range changes[:done] {
				want.Add(c.New)
			}
			if got := m.observe(); !got.Equal(want) {
				t.Errorf("after %v\nmissing:\n%s\ntoo much:\n%s", err, reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
			}
			if err := reconcile.Apply(context.Background(), m.Kernel, changes); err == nil {
				t.Error("the second time it went well")
			}
			m.settle("isv1-1")
			if got := m.observe(); !got.Equal(br) {
				t.Errorf("left behind:\n%s", reconcile.Dump(got.Without(br)))
			}
			if after := m.foreignDump(); after != before {
				t.Errorf("foreign state changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// TestNameAgain : the name of a veth that the kernel has yet to reap can be
// used at once.
func TestNameAgain(t *testing.T) {
	m := newMachine(t)
	m.apply(bridge(1, netspec.Segment{}))
	c, ns := container(1, 1)
	for range 5 {
		m.apply(c)
		if got := m.observe(); len(c.Without(got)) > 0 {
			t.Fatalf("missing:\n%s", reconcile.Dump(c.Without(got)))
		}
		m.remove(c)
	}
	m.apply(c)
	held := m.in(ns) // a process that stays keeps the namespace, and with it the link
	m.remove(c)
	m.apply(c)
	held.Close()
	if got := m.observe(); len(c.Without(got)) > 0 {
		t.Errorf("missing:\n%s", reconcile.Dump(c.Without(got)))
	}
}

// TestOutlived : a namespace that something holds open, as a connection that
// waits for its end does, does not keep its link on the bridge; nor does the
// memory of it stay. A link that was made again under the name is left alone.
func TestOutlived(t *testing.T) {
	m := newMachine(t)
	base := bridge(1, netspec.Segment{})
	m.apply(base)
	gone, held := container(1, 1)
	again, heldToo := container(1, 2)
	m.apply(merge(gone, again))
	m.in(held)
	m.in(heldToo)
	m.remove(merge(gone, again))
	m.apply(again)
	want := merge(base, again)
	for end := time.Now().Add(10 * time.Second); !m.observe().Equal(want) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
	time.Sleep(2 * grace)
	if got := m.observe(); !got.Equal(want) {
		t.Error("a link in use was reaped")
	}
	if len(m.memory.dying) != 0 {
		t.Errorf("still expected to go: %v", m.memory.dying)
	}
}

// TestTwice : everything can be applied again, and deleted again.
func TestTwice(t *testing.T) {
	m := newMachine(t, withBPF)
	c, ns := container(1, 1)
	all := merge(bridge(1, netspec.Segment{Internal: true}), c, state(everyPort(ns)...))
	m.apply(all)
	m.apply(all)
	if got := m.observe(); !got.Equal(all) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(all.Without(got)), reconcile.Dump(got.Without(all)))
	}
	m.remove(all)
	m.remove(all)
	m.settle("isv1-1")
	if got := m.observe(); len(got) > 0 {
		t.Errorf("left behind:\n%s", reconcile.Dump(got))
	}
}

// TestDisconnect : one network of a running container goes, the other stays.
func TestDisconnect(t *testing.T) {
	m := newMachine(t)
	c, ns := container(1, 1)
	base := merge(bridge(1, netspec.Segment{}), bridge(2, netspec.Segment{}), c)
	m.apply(base)
	second := state(
		netspec.Link{Name: "isv2", Kind: netspec.Veth, MTU: 1500, MAC: netspec.MAC{2, 9, 0, 0, 0, 1}, Master: "isbr2", PeerNS: ns, Peer: "eth1", PeerMAC: netspec.MAC{2, 9, 0, 0, 0, 2}},
		netspec.Addr{NS: ns, Link: "eth1", Prefix: pfx("10.2.0.2/24")})
	m.apply(second)
	m.apply(state(netspec.Addr{NS: ns, Link: "eth1", Prefix: pfx("fd00:2::2/64")})) // had no IPv6 until now
	second.Add(netspec.Addr{NS: ns, Link: "eth1", Prefix: pfx("fd00:2::2/64")})
	if got, want := m.observe(), merge(base, second); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
	m.remove(second)
	if got := m.observe(); !got.Equal(base) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(base.Without(got)), reconcile.Dump(got.Without(base)))
	}
}

// TestChange : objects that differ are brought to what is wanted, whoever made
// them differ.
func TestChange(t *testing.T) {
	m := newMachine(t)
	c, ns := container(1, 1)
	want := merge(bridge(1, netspec.Segment{Masquerade: true}), c)
	m.apply(want)
	w := m.in(ns)
	w.IP(`link set eth0 mtu 1300
		route del default
		addr del 10.1.0.2/24 dev eth0`)
	m.host.IP(`link set isbr1 down
		link set isv1-1 nomaster
		addr del 10.1.0.1/24 dev isbr1`)
	m.host.Run("nft", "flush", "ruleset")
	m.host.Run("sysctl", "-w", "net.ipv4.ip_forward=0")
	if _, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil {
		t.Fatal(err)
	}
	if _, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil { // what the first one took along
		t.Fatal(err)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
}

// TestBridgeKeepsMTU : a bridge takes the MTU of its ports, and another one when
// the last port leaves, unless it was told.
func TestBridgeKeepsMTU(t *testing.T) {
	m := newMachine(t)
	br := bridge(1, netspec.Segment{})
	l := br[netspec.Link{Name: "isbr1"}.Key()].(netspec.Link)
	l.MTU = 1400
	br[l.Key()] = l
	m.apply(br)
	c, _ := container(1, 1)
	for range 2 {
		if got := m.observe(); !got.Equal(br) {
			t.Errorf("observed:\n%s", reconcile.Dump(got))
		}
		m.apply(c)
		m.remove(c)
		m.settle("isv1-1")
	}
}

// TestLeftToTheKernel : a MAC and an MTU that nobody asked for are no difference.
func TestLeftToTheKernel(t *testing.T) {
	m := newMachine(t)
	br := netspec.Link{Name: "isbr9", Kind: netspec.Bridge}
	m.apply(state(br))
	if got := m.observe(); !got.Equal(state(br)) {
		t.Errorf("observed:\n%s", reconcile.Dump(got))
	}
	m.restart()
	before := m.host.Run("ip", "-o", "link", "show", "isbr9") // begins with the kernel's number of it
	if _, err := reconcile.Sync(t.Context(), m.Kernel, state(br)); err != nil {
		t.Fatal(err)
	}
	if now := m.host.Run("ip", "-o", "link", "show", "isbr9"); now != before {
		t.Errorf("the link was made anew:\n%s", now)
	}
}

func TestWatch(t *testing.T) {
	m := newMachine(t)
	c, _ := container(1, 1)
	m.apply(bridge(1, netspec.Segment{}))
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := m.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	signal := func() bool {
		select {
		case <-ch:
			return true
		case <-time.After(4 * debounce):
			return false
		}
	}
	c.Add(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 80, Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isbr1"})
	m.apply(c)
	m.remove(c)
	m.host.Run("nft", "add table inet other")
	if signal() {
		t.Error("signal for our own changes, or for somebody else's own things")
	}
	for _, harm := range []string{
		"nft flush chain inet isle forward", "ip addr del 10.1.0.1/24 dev isbr1", "ip link set isbr1 down", "ip link del isbr1", "nft delete table inet isle",
	} {
		f := strings.Fields(harm)
		m.host.Run(f[0], f[1:]...)
		if !signal() {
			t.Errorf("no signal for %q", harm)
		}
	}
	cancel()
	if _, open := <-ch; open {
		t.Error("the channel is open after the end")
	}
}

func TestFacts(t *testing.T) {
	m := newMachine(t)
	m.foreign()
	m.lan(2)
	m.host.IP(`link set up2 mtu 1450
		route add default via 192.0.2.2`)
	m.apply(bridge(1, netspec.Segment{}))
	f, err := m.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has := func(ps []netip.Prefix, s string) bool {
		for _, p := range ps {
			if p == pfx(s) {
				return true
			}
		}
		return false
	}
	if f.MTU != 1450 || !has(f.Routes, "192.0.2.0/24") || !has(f.Routes, "203.0.113.0/24") || !has(f.Addrs, "172.31.0.1/16") {
		t.Errorf("facts: %+v", f)
	}
	if has(f.Routes, "10.1.0.0/24") || has(f.Addrs, "10.1.0.1/24") {
		t.Errorf("our own are among the facts: %+v", f)
	}
}

func TestCountersAndListen(t *testing.T) {
	m := newMachine(t)
	c, ns := container(1, 1)
	m.apply(merge(bridge(1, netspec.Segment{}), c))
	l, err := m.ListenTCP(t.Context(), ns, netip.MustParseAddrPort("0.0.0.0:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveTCP(l, 80)
	if got := askFor("10.1.0.1 on 80", m.host.File, "tcp", "10.1.0.2:80"); got != "10.1.0.1 on 80" {
		t.Errorf("answer: %q", got)
	}
	n, err := m.Counters(t.Context(), ns)
	if err != nil || n["eth0"].RxPackets < 3 || n["eth0"].TxBytes < 100 || len(n) != 1 {
		t.Errorf("counters: %+v, %v", n, err)
	}
}
