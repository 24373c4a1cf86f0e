package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestFailureInTheMiddle : whatever fails, what is done is exact, nothing
// behind it was made, and taking back leaves nothing.
func TestFailureInTheMiddle(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	m := newMachine(t)
	base := bridge(1, netspec.Segment{})
	m.apply(base)
	gone, held := container(1, 1)
	again, heldToo := container(1, 2)
	m.apply(merge(gone, again))
	m.in(held)
	m.in(heldToo)
	m.remove(merge(gone, again))
	if got := m.observe(); !got.Equal(base) {
		t.Errorf("what is ending is taken for a stray:\n%s", reconcile.Dump(got.Without(base)))
	}
	if out := m.host.Run("bridge", "link", "show", "dev", "isv1-1"); !strings.Contains(out, "state disabled") {
		t.Errorf("what is ending is still heard: %s", out)
	}
	m.apply(again)
	want := merge(base, again)
	for end := time.Now().Add(10 * time.Second); !m.observe().Equal(want) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
	if out := m.host.Run("bridge", "link", "show", "dev", "isv1-2"); !strings.Contains(out, "state forwarding") {
		t.Errorf("what was made again is not heard: %s", out)
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
	for of, ports := range map[int]int{1400: 1500, 1500: 1400} {
		m := newMachine(t)
		br := bridge(1, netspec.Segment{})
		l := br[netspec.Link{Name: "isbr1"}.Key()].(netspec.Link)
		l.MTU = of
		br[l.Key()] = l
		m.apply(br)
		c, _ := container(1, 1)
		l = c[netspec.Link{Name: "isv1-1"}.Key()].(netspec.Link)
		l.MTU = ports
		c[l.Key()] = l
		for range 2 {
			m.apply(c)
			if got, want := m.observe(), merge(br, c); !got.Equal(want) {
				t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
			}
			m.remove(c)
			m.settle("isv1-1")
			if got := m.observe(); !got.Equal(br) {
				t.Errorf("without the port:\n%s", reconcile.Dump(got))
			}
		}
	}
}

// TestHalfABridge: one that cannot be made as it is to be is not made at all.
func TestHalfABridge(t *testing.T) {
	m := newMachine(t)
	huge := netspec.Link{Name: "isbr1", Kind: netspec.Bridge, MTU: 1 << 17}
	if done, err := m.Apply(t.Context(), reconcile.Diff(nil, state(huge))); err == nil || done != 0 {
		t.Errorf("%d done, %v", done, err)
	}
	if out, err := m.host.Try("ip", "link", "show", "isbr1"); err == nil {
		t.Errorf("left behind: %s", out)
	}
}

// TestManyPorts: a bridge that somebody deleted gets all its ports back, with their
// flags, also more of them than one message changes.
func TestManyPorts(t *testing.T) {
	m := newMachine(t)
	want := merge(bridge(1, netspec.Segment{}), state(netspec.Namespace{NS: "c"}))
	for i := range movedMost + few {
		want.Add(netspec.Link{
			Name: fmt.Sprintf("isv%d", i), Kind: netspec.Veth, MTU: 1400, Master: "isbr1", Isolated: i%2 == 0, Hairpin: i%3 == 0,
			PeerNS: "c", Peer: fmt.Sprintf("eth%d", i), PeerMAC: netspec.MAC{2, 2, 0, 0, 1, byte(i)},
		})
	}
	m.apply(want)
	m.host.IP("link del isbr1")
	changes, err := reconcile.SyncSome(t.Context(), m.Kernel, reconcile.Scope{Host: true}, want)
	if err != nil || len(changes) <= movedMost {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
}

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

// harm is what somebody does, and what has to be told of it.
type harm struct {
	command string
	want    reconcile.Scope
	by      string
}

var inTable, onHost, ofPlans = reconcile.Scope{Filter: true}, reconcile.Scope{Host: true}, reconcile.Scope{Facts: true}

// watched checks what is told of harm.
func (m *machine) watched(ch <-chan reconcile.Alarm, harms []harm) {
	m.t.Helper()
	for _, h := range harms {
		m.host.Run("sh", "-c", h.command)
		a := toldAll(ch)
		if a.Filter != h.want.Filter || a.Host != h.want.Host || a.Facts != h.want.Facts || !strings.HasPrefix(a.By, h.by) {
			m.t.Errorf("%q: %+v, want %+v by %q", h.command, a, h.want, h.by)
		}
	}
}

// toldAll are all alarms of one act, which may come in several messages.
func toldAll(ch <-chan reconcile.Alarm) reconcile.Alarm {
	a := told(ch, time.Second)
	for more := a; !more.Empty(); a = a.And(more) {
		more = told(ch, 20*time.Millisecond)
	}
	return a
}

// told is the next alarm; an empty one when there is none.
func told(ch <-chan reconcile.Alarm, patience time.Duration) reconcile.Alarm {
	select {
	case a := <-ch:
		return a
	case <-time.After(patience):
		return reconcile.Alarm{}
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
	c.Add(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 80, Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isbr1"})
	m.apply(c)
	m.remove(c)
	m.host.Run("nft", "add table inet other")
	if a := told(ch, time.Second); !a.Empty() {
		t.Errorf("%+v for our own changes, or for somebody else's own things", a)
	}
	m.watched(ch, []harm{
		{"nft flush chain inet isle forward", inTable, "nft (pid "},
		{"ip addr del 10.1.0.1/24 dev isbr1", onHost, ""},
		{"sysctl -w net.ipv4.ip_forward=0", onHost, ""},
		{"ip link set isbr1 mtu 1300", onHost, ""},
		{"ip link set isbr1 down", onHost, ""},
		{"ip link del isbr1", onHost, ""},
		{"nft delete table inet isle", inTable, "nft (pid "},
		{"ip link add foreign0 mtu 1400 up type bridge", ofPlans, ""},
		{"ip link set foreign0 mtu 1300", ofPlans, ""},
		{"ip addr add 192.0.2.9/24 dev foreign0", ofPlans, ""},
		{"ip route add 203.0.113.0/24 dev foreign0", ofPlans, ""},
		{"ip route add default dev foreign0 table 7", ofPlans, ""},
		{"ip rule add from 192.0.2.9 lookup 7", ofPlans, ""},
		{"ip link set foreign0 down", ofPlans, ""},
	})
	m.host.IP("link set foreign0 up")
	toldAll(ch)
	m.apply(state(netspec.Hop{To: ip("10.1.0.7"), Via: ip("192.0.2.8"), Dev: "foreign0"}))
	if a := told(ch, 200*time.Millisecond); !a.Empty() {
		t.Errorf("%+v for a route of ours", a)
	}
	for _, harm := range []string{"ip route del 10.1.0.7 proto 73", "ip link set foreign0 down; ip link set foreign0 up"} {
		m.apply(state(netspec.Hop{To: ip("10.1.0.7"), Via: ip("192.0.2.8"), Dev: "foreign0"}))
		m.host.Run("sh", "-c", harm)
		if a := toldAll(ch); !slices.Contains(a.Lost, netspec.Hop{To: ip("10.1.0.7")}.Key()) || a.Host {
			t.Errorf("%q: %+v", harm, a)
		}
	}
	cancel()
	if _, open := <-ch; open {
		t.Error("the channel is open after the end")
	}
}

// TestWatchPorts: who lets a container be seen by its neighbours, or takes a guard's
// place, is noticed as who deletes something.
func TestWatchPorts(t *testing.T) {
	m := newMachine(t, withBPF)
	needGuards(t, m)
	br := merge(bridge(1, netspec.Segment{}), state(netspec.Guard{Link: "isbr1"}))
	c, _ := container(1, 1)
	l := c[netspec.Link{Name: "isv1-1"}.Key()].(netspec.Link)
	l.Isolated = true
	c[l.Key()] = l
	ch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.apply(br)
	m.apply(c)
	if a := told(ch, time.Second); a.Host || a.Filter {
		t.Errorf("%+v for our own changes", a)
	}
	harms := []harm{
		{"bridge link set dev isv1-1 isolated off", onHost, ""},
		{"bridge link set dev isv1-1 isolated on", reconcile.Scope{}, ""},
		{"ip link set isv1-1 type bridge_slave hairpin off", onHost, ""},
	}
	if strings.Contains(m.host.Run("tc", "qdisc", "show", "dev", "isbr1"), "clsact") { // nobody is told of TCX
		harms = append(harms, harm{`tc filter replace dev isbr1 egress prio 73 handle 1 protocol all bpf bytecode "1,6 0 0 0"`, onHost, ""})
	}
	m.watched(ch, harms)
	want := merge(br, c)
	if _, err := reconcile.SyncSome(t.Context(), m.Kernel, onHost, want); err != nil {
		t.Fatal(err)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
	m.watched(ch, []harm{{"ip link set isbr1 group 0", onHost, ""}})
	if _, err := reconcile.SyncSome(t.Context(), m.Kernel, onHost, want); err != nil {
		t.Fatal(err)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("in a strange group: missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
}

// TestOthersBridge: a bridge with a name of ours and neither our group nor its MAC
// address is somebody else's.
func TestOthersBridge(t *testing.T) {
	m := newMachine(t)
	m.host.IP("link add isbr1 type bridge\nlink set isbr1 address 02:00:00:00:00:99")
	err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, bridge(1, netspec.Segment{})))
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("taken: %v", err)
	}
	if out := m.host.Run("ip", "-o", "link", "show", "isbr1"); !strings.Contains(out, "group default") || !strings.Contains(out, "02:00:00:00:00:99") {
		t.Errorf("changed: %s", out)
	}
}

// TestRests: when routes are not awaited, the wait for other things has an end.
func TestRests(t *testing.T) {
	m := newMachine(t)
	w := &watcher{k: m.Kernel, out: make(chan reconcile.Alarm, 1)}
	m.host.Do(func() error { return w.open(unix.NETLINK_ROUTE, routeGroups) })
	defer w.close()
	now := time.Now()
	for _, rested := range []time.Duration{-time.Millisecond, 0, 1, time.Millisecond} {
		w.rested = now.Add(rested)
		awaited, patience := w.awaited(now)[1].Fd >= 0, w.patience(now)
		if awaited != (rested <= 0) || awaited != (patience < 0) {
			t.Errorf("rests for %v: routes are awaited: %t, for %d ms", rested, awaited, patience)
		}
	}
}

// TestLostMessages: where more happens than there is room for, all is looked at, and
// no link is taken for another's.
func TestLostMessages(t *testing.T) {
	m := newMachine(t)
	w := &watcher{k: m.Kernel, out: make(chan reconcile.Alarm, 1), links: map[int32]rtnl.Info{}, suspects: map[int32]string{}}
	m.host.Do(func() error { return w.open(unix.NETLINK_ROUTE, routeGroups) })
	defer w.close()
	if err := unix.SetsockoptInt(w.conns[0].FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<12); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m.apply(state(netspec.Link{Name: fmt.Sprintf("isbr%d", i), Kind: netspec.Bridge}))
	}
	w.drain(0)
	if !w.pending.Host || !w.pending.Facts {
		t.Errorf("told: %+v", w.pending)
	}
	ours := 0
	for _, l := range w.links {
		if m.ours(l) {
			ours++
		}
	}
	if ours != 20 {
		t.Errorf("%d links are known", ours)
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
	has := func(us []Used, s string) bool {
		return slices.ContainsFunc(us, func(u Used) bool { return u.Prefix == pfx(s) })
	}
	if f.MTU != 1450 || !has(f.Routes, "192.0.2.0/24") || !has(f.Routes, "203.0.113.0/24") || !has(f.Addrs, "172.31.0.1/16") {
		t.Errorf("facts: %+v", f)
	}
	if has(f.Routes, "10.1.0.0/24") || has(f.Addrs, "10.1.0.1/24") {
		t.Errorf("our own are among the facts: %+v", f)
	}
	i := slices.IndexFunc(f.Links, func(l Link) bool { return l.Name == "up2" })
	if l := f.Links[i]; l.MTU != 1450 || !l.Up || l.Ours || l.Loopback || !slices.Contains(l.Addrs, pfx("192.0.2.1/24")) {
		t.Errorf("up2: %+v", l)
	}
	i = slices.IndexFunc(f.Links, func(l Link) bool { return l.Name == "isbr1" })
	if l := f.Links[i]; !l.Ours {
		t.Errorf("isbr1: %+v", l)
	}
}

// TestObserveSome: a part of the machine is seen as in a look at everything, also by
// a process that has just started.
func TestObserveSome(t *testing.T) {
	m := newMachine(t, withBPF)
	br := bridge(1, netspec.Segment{Masquerade: true})
	c1, ns := container(1, 1)
	c1.Add(everyPort(ns)...)
	c2, _ := container(1, 2)
	needGuards(t, m)
	guards := state(netspec.Guard{Link: "isbr1"}, netspec.PortGuard{NS: ns, Link: "isv1-1"})
	want := merge(br, c1, c2, guards)
	m.apply(want)
	check := func(when string) {
		t.Helper()
		for _, scope := range []reconcile.Scope{{Filter: true}, {Host: true}, {Filter: true, Host: true}, {Namespaces: []netspec.NS{ns}}, {Host: true, Namespaces: []netspec.NS{ns}}} {
			have, covers, err := m.ObserveSome(t.Context(), scope)
			if err != nil {
				t.Fatal(err)
			}
			part := netspec.State{}
			for k, o := range want {
				if covers(o) {
					part[k] = o
				}
			}
			if len(part) == 0 || !have.Equal(part) {
				t.Errorf("%s: %+v: missing:\n%s\ntoo much:\n%s", when, scope, reconcile.Dump(part.Without(have)), reconcile.Dump(have.Without(part)))
			}
		}
	}
	check("by the process that made it")
	m.restart()
	if _, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil { // sysctls are not known by looking
		t.Fatal(err)
	}
	check("by another process")
	m.in(ns).IP(fmt.Sprintf("link set eth0 netns /proc/%d/fd/%d", os.Getpid(), m.host.File.Fd()))
	if m.observe().Equal(want) {
		t.Error("a look at everything does not see that a far end was moved away")
	}
	m.host.IP("link del isv1-1")
	changes, err := reconcile.SyncSome(t.Context(), m.Kernel, reconcile.Scope{Host: true}, want)
	if err != nil || len(changes) < 5 {
		t.Errorf("%d changes, %v: what is behind a link goes with it", len(changes), err)
	}
	if got := m.observe(); !got.Equal(want) {
		t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
}

// TestWayOut: the MTU is that of the way that packets really take.
func TestWayOut(t *testing.T) {
	for _, tt := range []struct {
		what, commands string
		mtu, mtu6      int
	}{
		{"no way out", "", 1500, 0},
		{"one way", "route add default via 192.0.2.2", 1450, 0},
		{"the lowest metric", "route add default via 192.0.2.2 metric 200\nroute add default via 198.51.100.3 metric 100", 1380, 0},
		{"a VPN that takes two halves", "route add default via 192.0.2.2\nroute add 0.0.0.0/1 via 198.51.100.3\nroute add 128.0.0.0/1 via 198.51.100.3", 1380, 0},
		{"a rule that leads to another table", "route add default via 192.0.2.2\nroute add default via 198.51.100.3 table 51820\nrule add not fwmark 0xca6c lookup 51820", 1380, 0},
		{"an MTU of the route", "route add default via 192.0.2.2 mtu 1300", 1300, 0},
		{"two ways at once", "route add default nexthop via 192.0.2.2 nexthop via 198.51.100.3", 1380, 0},
		{"closed", "route add unreachable default", 1500, 0},
		{"IPv6 alone", "-6 route add default via 2001:db8::2", 1450, 1450},
		{"both", "route add default via 192.0.2.2\n-6 route add default via 2001:db8:100::3", 1450, 1380},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m := newMachine(t)
			m.lan(2)
			m.lan(3)
			m.host.IP("link set up2 mtu 1450\nlink set up3 mtu 1380\n" + tt.commands)
			f, err := m.Facts(t.Context())
			if err != nil || f.MTU != tt.mtu || f.Way6.MTU != tt.mtu6 {
				t.Errorf("MTU %d, IPv6 %d, %v; want %d and %d", f.MTU, f.Way6.MTU, err, tt.mtu, tt.mtu6)
			}
		})
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
	// a new port of a bridge passes nothing for a moment
	eventually(t, "an answer", func() bool { return ask(m.host.File, "tcp", "10.1.0.2:80") == "10.1.0.1 on 80" })
	n, err := m.Counters(t.Context(), ns)
	if err != nil || n["eth0"].RxPackets < 3 || n["eth0"].TxBytes < 100 || len(n) != 1 {
		t.Errorf("counters: %+v, %v", n, err)
	}
}
