package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// tunnel is the VXLAN of bridge 1 on the host that has an address of the underlay.
func tunnel(local string) netspec.VXLAN {
	return netspec.VXLAN{Name: "isx1", VNI: 4711, Local: ip(local), Port: 4789, MTU: 1450, Master: "isbr1"}
}

// station is container i, which is behind another end of the tunnel.
func station(i int, at string) netspec.State {
	mac := netspec.MAC{2, 2, 0, 0, 1, byte(i)}
	return state(netspec.FDB{Link: "isx1", MAC: mac, Dst: ip(at)},
		netspec.Neigh{Link: "isbr1", Addr: ip(fmt.Sprintf("10.1.0.%d", i+1)), MAC: mac},
		netspec.Neigh{Link: "isbr1", Addr: ip(fmt.Sprintf("fd00:1::%d", i+1)), MAC: mac})
}

// underlay joins hosts by a switch in a namespace of its own: the first has 10.8.0.1 and
// fd00:8::1.
func underlay(t testing.TB, hosts ...*machine) (wire kerneltest.NS) {
	t.Helper()
	wire = kerneltest.NewNS(t)
	wire.IP("link add lan type bridge\nlink set lan up")
	for i, m := range hosts {
		port := fmt.Sprint("port", i)
		m.host.IP("link add under type veth peer name " + port)
		m.host.Run("ip", "link", "set", port, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), wire.File.Fd()))
		wire.IP("link set " + port + " master lan up")
		m.host.IP(fmt.Sprintf("addr add 10.8.0.%d/24 dev under\naddr add fd00:8::%d/64 dev under nodad\nlink set under up", i+1, i+1))
	}
	return wire
}

// TestTunnel: a tunnel and what is behind it are seen by a Kernel that did not make
// them; whatever somebody does to them is put right; and they go without a trace.
func TestTunnel(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.foreign()
	underlay(t, m)
	before := m.names()
	want := merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1"), netspec.Flood{Link: "isx1", Dst: ip("10.8.0.2")}, netspec.Flood{Link: "isx1", Dst: ip("10.8.0.3")}),
		station(2, "10.8.0.2"), station(3, "10.8.0.3"))
	m.apply(want)
	m.is(want)
	for what, spoil := range map[string]func(){
		"nothing":                          func() {},
		"it learns":                        func() { m.host.IP("link set isx1 type vxlan learning") },
		"its port learns":                  func() { m.host.IP("link set isx1 type bridge_slave learning on") },
		"it asks for unknown stations":     func() { m.host.IP("link set isx1 type bridge_slave flood on") },
		"the bridge asks across":           func() { m.host.IP("link set isx1 type bridge_slave neigh_suppress off") },
		"it is down":                       func() { m.host.IP("link set isx1 down") },
		"it left its bridge":               func() { m.host.IP("link set isx1 nomaster") },
		"it is gone":                       func() { m.host.IP("link del isx1") },
		"another end":                      func() { m.host.IP("link set isx1 type vxlan id 4711 local 10.8.0.9") },
		"a station is forgotten by both":   func() { m.host.Run("bridge", "fdb", "del", "02:02:00:00:01:02", "dev", "isx1", "self", "master") },
		"a station is forgotten by it":     func() { m.host.Run("bridge", "fdb", "del", "02:02:00:00:01:02", "dev", "isx1", "self") },
		"a station is forgotten by bridge": func() { m.host.Run("bridge", "fdb", "del", "02:02:00:00:01:02", "dev", "isx1", "master") },
		"a station is elsewhere": func() {
			m.host.Run("bridge", "fdb", "replace", "02:02:00:00:01:02", "dev", "isx1", "dst", "10.8.0.3", "self", "static")
		},
		"a stranger is there": func() {
			m.host.Run("bridge", "fdb", "add", "02:02:00:00:01:77", "dev", "isx1", "dst", "10.8.0.3", "self", "static")
		},
		"a stranger is at the port": func() { m.host.Run("bridge", "fdb", "add", "02:02:00:00:01:78", "dev", "isx1", "master", "static") },
		"a copy more": func() {
			m.host.Run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "isx1", "dst", "10.8.0.7")
		},
		"a copy less": func() {
			m.host.Run("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "isx1", "dst", "10.8.0.2")
		},
		"a neighbour less": func() { m.host.IP("neigh del 10.1.0.3 dev isbr1") },
	} {
		spoil()
		m.restart()
		changes, err := reconcile.Sync(t.Context(), m.Kernel, want)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		kernels := 0
		for _, c := range changes {
			if _, sysctl := c.New.(netspec.Sysctl); !sysctl { // those it cannot know after a restart
				kernels++
			}
		}
		if (kernels == 0) != (what == "nothing") {
			t.Errorf("%s: %v", what, changes)
		}
		m.is(want)
	}
	m.remove(want)
	if after := m.names(); after != before {
		t.Errorf("links %s, before %s", after, before)
	}
}

// TestTunnelChanges: whatever of a tunnel changes, its stations stay.
func TestTunnelChanges(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	underlay(t, m)
	from := merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1"), netspec.Flood{Link: "isx1", Dst: ip("10.8.0.2")}), station(2, "10.8.0.2"))
	m.apply(from)
	for what, change := range map[string]func(v *netspec.VXLAN){
		"address": func(v *netspec.VXLAN) { v.Local = ip("10.8.0.4") },
		"MTU":     func(v *netspec.VXLAN) { v.MTU = 1380 },
		"port":    func(v *netspec.VXLAN) { v.Port = 8472 },
		"number":  func(v *netspec.VXLAN) { v.VNI = 7 },
		"way":     func(v *netspec.VXLAN) { v.Via = "under" },
	} {
		v := from[tunnel("10.8.0.1").Key()].(netspec.VXLAN)
		change(&v)
		to := merge(from)
		to[v.Key()] = v
		m.change(from, to)
		if got := m.observe(); !got.Equal(to) {
			t.Errorf("%s: missing:\n%s\ntoo much:\n%s", what, reconcile.Dump(to.Without(got)), reconcile.Dump(got.Without(to)))
		}
		from = to
	}
	moved := merge(from, nil)
	for k, o := range station(2, "10.8.0.3") {
		moved[k] = o
	}
	m.change(from, moved)
	m.is(moved)
}

// lone is a tunnel in no bridge, and what is behind it.
func lone() netspec.State {
	return state(netspec.VXLAN{Name: "isp4789", Local: ip("10.8.0.1"), Port: 4789, MTU: 1450, Whole: true},
		netspec.FDB{Link: "isp4789", MAC: netspec.MAC{2, 5, 0, 0, 0, 2}, Dst: ip("10.8.0.2"), Alone: true},
		netspec.FDB{Link: "isp4789", MAC: netspec.MAC{2, 5, 0, 0, 0, 3}, Dst: ip("10.8.0.3"), Alone: true})
}

// TestLoneTunnel6: over IPv6, which cuts nothing on the way.
func TestLoneTunnel6(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	underlay(t, m)
	want := state(netspec.VXLAN{Name: "isp4789", Local: ip("fd00:8::1"), Port: 4789, MTU: 1430, Whole: true},
		netspec.FDB{Link: "isp4789", MAC: netspec.MAC{2, 5, 0, 0, 0, 2}, Dst: ip("fd00:8::2"), Alone: true})
	m.apply(want)
	m.is(want)
}

// TestLoneTunnel: one in no bridge is as one that is in one, beside it.
func TestLoneTunnel(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.foreign()
	underlay(t, m)
	before := m.names()
	want := merge(lone(), bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1")), station(2, "10.8.0.2"))
	m.apply(want)
	m.is(want)
	for what, spoil := range map[string]func(){
		"it learns":              func() { m.host.IP("link set isp4789 type vxlan learning") },
		"its packets are cut":    func() { m.host.IP("link set isp4789 type vxlan id 0 df unset") },
		"it is in a bridge":      func() { m.host.IP("link set isp4789 master isbr1") },
		"it is down":             func() { m.host.IP("link set isp4789 down") },
		"it is gone":             func() { m.host.IP("link del isp4789") },
		"a station is forgotten": func() { m.host.Run("bridge", "fdb", "del", "02:05:00:00:00:02", "dev", "isp4789", "self") },
		"a station is elsewhere": func() {
			m.host.Run("bridge", "fdb", "replace", "02:05:00:00:00:02", "dev", "isp4789", "dst", "10.8.0.3", "self", "static")
		},
		"a stranger is there": func() {
			m.host.Run("bridge", "fdb", "add", "02:05:00:00:00:77", "dev", "isp4789", "dst", "10.8.0.3", "self", "static")
		},
	} {
		spoil()
		if m.observe().Equal(want) {
			t.Errorf("%s: it is not seen", what)
		}
		if _, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		m.is(want)
	}
	moved := merge(want)
	moved[netspec.VXLAN{Name: "isp4789"}.Key()] = netspec.VXLAN{Name: "isp4789", Local: ip("10.8.0.1"), Port: 4790, MTU: 1380}
	m.change(want, moved)
	m.is(moved)
	m.remove(moved)
	if after := m.names(); after != before {
		t.Errorf("links %s, before %s", after, before)
	}
}

// timers are a bridge's, which go on by themselves.
var timers = regexp.MustCompile(`\w+_timer +[0-9.]+`)

// TestTunnelTaken: a name, or a number, that somebody else has is left alone.
func TestTunnelTaken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	underlay(t, m)
	br := bridge(1, netspec.Segment{})
	m.apply(br)
	for what, other := range map[string]string{
		"name":   "link add isx1 type vxlan id 9 dstport 4789 local 10.8.0.1",
		"number": "link add other type vxlan id 4711 dstport 4789 local 10.8.0.1",
	} {
		m.host.IP(other)
		before := timers.ReplaceAllString(m.host.Run("ip", "-d", "link"), "")
		err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, state(tunnel("10.8.0.1"))))
		if !errdefs.IsConflict(err) && !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: %v", what, err)
		}
		if after := timers.ReplaceAllString(m.host.Run("ip", "-d", "link"), ""); after != before {
			t.Errorf("%s: links are\n%s\nwere\n%s", what, after, before)
		}
		m.host.IP("link del " + strings.Fields(other)[2])
	}
	m.is(br)
}

// across is a pair of hosts with a container each on a network of both. Everything
// that is not a station of the other is nowhere: no frame is copied to all.
func across(t *testing.T, v6 bool) (a, b *machine) {
	t.Helper()
	a, b = newMachine(t), newMachine(t)
	underlay(t, a, b)
	at := func(i int) string {
		if v6 {
			return fmt.Sprintf("fd00:8::%d", i)
		}
		return fmt.Sprintf("10.8.0.%d", i)
	}
	for i, m := range []*machine{a, b} {
		c, _ := container(1, i+1)
		m.apply(merge(bridge(1, netspec.Segment{}), state(tunnel(at(i+1))), c, station(2-i, at(2-i))))
	}
	return a, b
}

// TestAcross: containers of two hosts reach each other over an underlay of either
// family, and nobody is asked where they are: the hosts know.
func TestAcross(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("v6=", v6), func(t *testing.T) {
			a, b := across(t, v6)
			for _, at := range []string{"10.1.0.3:80", "[fd00:1::3]:80"} {
				b.reached(a.in("c1-1"), "c1-2", at)
			}
			for _, at := range []string{"10.1.0.2:80", "[fd00:1::2]:80"} {
				a.reached(b.in("c1-2"), "c1-1", at)
			}
		})
	}
}

// TestTunnelsUntracked: a tunnel's datagrams are in no table of connections, however many
// connections are within.
func TestTunnelsUntracked(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("v6=", v6), func(t *testing.T) {
			a, b := across(t, v6)
			ends := []string{"10.8.0.1", "10.8.0.2"}
			if v6 {
				ends = []string{"fd00:8::1", "fd00:8::2"}
			}
			for i, m := range []*machine{a, b} {
				m.apply(state(netspec.Tunnel{Port: 4789}, netspec.TunnelPeer{Addr: ip(ends[1-i])}))
				m.host.Run("nft", "add table inet witness; "+
					"add chain inet witness arrived { type filter hook input priority 10; }; add rule inet witness arrived udp dport 4789 ct state != untracked counter comment tracked; add rule inet witness arrived udp dport 4789 ct state untracked counter; "+
					"add chain inet witness left { type filter hook postrouting priority 10; }; add rule inet witness left udp dport 4789 ct state != untracked counter comment tracked; add rule inet witness left udp dport 4789 ct state untracked counter")
			}
			for range 3 {
				b.reached(a.in("c1-1"), "c1-2", "10.1.0.3:80")
			}
			for _, m := range []*machine{a, b} {
				for rule := range strings.Lines(m.host.Run("nft", "list", "table", "inet", "witness")) {
					if strings.Contains(rule, "counter") && strings.Contains(rule, "packets 0 ") != strings.Contains(rule, "tracked\"") {
						t.Errorf("a rule of the witness saw the wrong packets: %s", rule)
					}
				}
			}
		})
	}
}

// received is how many frames have come out of the tunnel.
func (m *machine) received() int {
	m.t.Helper()
	var links []struct {
		Stats64 struct{ Rx struct{ Packets int } }
	}
	if err := json.Unmarshal([]byte(m.host.Run("ip", "-j", "-s", "link", "show", "dev", "isx1")), &links); err != nil {
		m.t.Fatal(err)
	}
	return links[0].Stats64.Rx.Packets
}

// TestCopies: frames for nobody who is known go nowhere, those for all go to the ends
// that are to have copies, and those about the gateway stay where they are: each host
// has it.
func TestCopies(t *testing.T) {
	t.Parallel()
	a, b := across(t, false)
	send := func(to string) {
		a.in("c1-1").Do(func() error {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			return err
		})
	}
	a.in("c1-1").IP("neigh add 10.1.0.99 lladdr 02:00:00:00:00:99 dev eth0")
	a.apply(state(netspec.Flood{Link: "isx1", Dst: ip("10.8.0.2")}))
	b.reached(a.in("c1-1"), "c1-2", "10.1.0.3:80")
	var before, crossed int
	for range 5 { // what has nothing to do with it comes now and then, not each time
		before = b.received()
		send("10.1.0.99:9") // a station that nobody knows
		send("10.1.0.1:9")  // the gateway: asked for, and found here
		a.in("c1-1").IP("neigh flush nud reachable nud stale dev eth0")
		send("10.1.0.1:9")
		time.Sleep(100 * time.Millisecond)
		if crossed = b.received() - before; crossed == 0 {
			break
		}
	}
	if crossed != 0 {
		t.Errorf("%d frames came across that are nobody's there", crossed)
	}
	before = b.received()
	send("10.1.0.77:9") // an address that nobody has: everybody is asked
	for try := 0; b.received() == before; try++ {
		if try == 500 {
			t.Fatal("a frame for all did not come across")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// crowd are many stations behind a tunnel.
func crowd(n int) netspec.State {
	s := netspec.State{}
	a := netip.MustParseAddr("10.1.16.1")
	for i := range n {
		mac := netspec.MAC{2, 3, 0, 0, byte(i >> 8), byte(i)}
		s.Add(netspec.FDB{Link: "isx1", MAC: mac, Dst: netip.AddrFrom4([4]byte{10, 8, 1, byte(i % 100)})}, netspec.Neigh{Link: "isbr1", Addr: a, MAC: mac})
		a = a.Next()
	}
	return s
}

// TestCrowd: thousands of stations are written by one call and taken away by one.
func TestCrowd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	underlay(t, m)
	base := merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1")))
	m.apply(base)
	many := crowd(5000)
	m.apply(many)
	m.is(merge(base, many))
	m.remove(many)
	m.is(base)
}

// BenchmarkStations: 10,000 stations that come by one change.
func BenchmarkStations(b *testing.B) {
	m := newMachine(b)
	underlay(b, m)
	m.apply(merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1"))))
	many := crowd(10000)
	for b.Loop() {
		m.apply(many)
		b.StopTimer()
		m.remove(many)
		b.StartTimer()
	}
}

// TestWatchStations: who deletes a station, a copy or a neighbour of ours is told of with
// what is gone; of what is learned, of what others have and of what comes nobody is.
func TestWatchStations(t *testing.T) {
	m := newMachine(t)
	underlay(t, m)
	m.apply(merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1"))))
	mine := merge(state(netspec.Flood{Link: "isx1", Dst: ip("10.8.0.2")}), station(2, "10.8.0.2"))
	ch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	crowd := crowd(2000)
	m.apply(mine)
	m.apply(crowd)
	m.host.Run("sh", "-c", "ip neigh add 10.8.0.99 lladdr 02:00:00:00:00:99 dev under; ip neigh del 10.8.0.99 dev under")
	m.host.Run("sh", "-c", "ip neigh add 10.1.0.99 lladdr 02:00:00:00:00:99 dev isbr1; ip neigh del 10.1.0.99 dev isbr1")
	m.host.Run("sh", "-c", "bridge fdb add 02:00:00:00:00:99 dev isx1 master dynamic; bridge fdb del 02:00:00:00:00:99 dev isx1 master")
	if a := told(ch, time.Second); a.Host || len(a.Lost) > 0 {
		t.Errorf("%+v for what is ours to do, or others'", a)
	}
	for command, gone := range map[string]string{
		"bridge fdb del 02:02:00:00:01:02 dev isx1 master":            "fdb isx1 020200000102",
		"bridge fdb del 02:02:00:00:01:02 dev isx1 self":              "fdb isx1 020200000102",
		"bridge fdb del 00:00:00:00:00:00 dev isx1 dst 10.8.0.2 self": "flood isx1 10.8.0.2",
		"ip neigh del 10.1.0.3 dev isbr1":                             "isbr1 10.1.0.3",
		"ip neigh del fd00:1::3 dev isbr1":                            "isbr1 fd00:1::3",
	} {
		m.host.Run("sh", "-c", command)
		a := toldAll(ch)
		if len(a.Lost) != 1 || a.Lost[0] != (netspec.Key{Rank: netspec.RankNeigh, ID: gone}) || !a.Single() || mine[a.Lost[0]] == nil {
			t.Errorf("%s: %+v", command, a)
			continue
		}
		m.apply(state(mine[a.Lost[0]]))
		m.is(merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1")), mine, crowd))
	}
	m.remove(crowd) // too many to be told of one by one
	if a := toldAll(ch); !a.Host || len(a.Lost) > lostMost {
		t.Errorf("Host %t, %d single ones", a.Host, len(a.Lost))
	}
}

// TestManyStationsLost: where more goes than there is room for, all is looked at.
func TestManyStationsLost(t *testing.T) {
	m := newMachine(t)
	underlay(t, m)
	m.apply(merge(bridge(1, netspec.Segment{}), state(tunnel("10.8.0.1"))))
	many := crowd(1000)
	m.apply(many)
	w := &watcher{k: m.Kernel, out: make(chan reconcile.Alarm, 1), links: map[int32]rtnl.Info{}, suspects: map[int32]string{}, lost: map[netspec.Key]bool{}}
	m.host.Do(func() error {
		return errors.Join(w.open(unix.NETLINK_ROUTE, nil), w.open(unix.NETLINK_NETFILTER, nil), w.open(unix.NETLINK_ROUTE, neighGroups))
	})
	defer w.close()
	if err := unix.SetsockoptInt(w.conns[ofNeighs].FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<12); err != nil {
		t.Fatal(err)
	}
	m.remove(many)
	if w.drain(ofNeighs); !w.pending.Host || w.pending.Facts {
		t.Errorf("told: %+v", w.pending)
	}
}
