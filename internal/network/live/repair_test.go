package live_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/exposure"
	"isle/internal/reconcile"
)

// running is a Manager that keeps the kernel in step, as isled's does.
func (h *host) running() *network.Manager {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changed, err := h.kernel.Watch(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	m := h.start()
	m.Changed = changed
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	return m
}

// echo sends back, line by line, what comes in a container.
func (h *host) echo(ns netspec.NS, at string) {
	h.t.Helper()
	l, err := h.kernel.ListenTCP(h.t.Context(), ns, netip.MustParseAddrPort(at))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
}

// lan is a neighbour of the host, at 192.0.2.2; the host is 192.0.2.1.
func lan(t testing.TB) kerneltest.NS {
	t.Helper()
	n := kerneltest.NewNS(t)
	run(t, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "lan0")
	run(t, "ip", "link", "set", "lan0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.File.Fd()))
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
	run(t, "ip", "link", "set", "up0", "up")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "up0").Run() })
	n.IP(`link set lan0 up
		addr add 192.0.2.2/24 dev lan0
		route add default via 192.0.2.1`)
	return n
}

// answering takes connections in a namespace.
func answering(t testing.TB, ns *os.File, at string) {
	t.Helper()
	var l net.Listener
	if err := netns.Do(ns, func() (err error) { l, err = net.Listen("tcp", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// reach connects from a namespace.
func reach(ns *os.File, to string, patience time.Duration) (c net.Conn, err error) {
	err = netns.Do(ns, func() (err error) { c, err = net.DialTimeout("tcp", to, patience); return err })
	return c, err
}

// flow is a connection that is in use while things are broken.
type flow struct {
	net.Conn
	in *bufio.Scanner
}

func newFlow(t testing.TB, ns *os.File, to string) flow {
	t.Helper()
	c, err := reach(ns, to, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return flow{c, bufio.NewScanner(c)}
}

func (f flow) alive(word string) bool {
	_ = f.SetDeadline(time.Now().Add(20 * time.Second))
	_, err := fmt.Fprintln(f, word)
	return err == nil && f.in.Scan() && f.in.Text() == word
}

// harms are what other programs do to us.
var harms = []struct{ name, command string }{
	{"all rules flushed", "nft flush ruleset"},
	{"table deleted", "nft delete table inet isle"},
	{"chain emptied", "nft flush chain inet isle forward"},
	{"rules deleted by a program that reloads", "nft flush table inet isle"},
	{"element deleted", "nft flush set inet isle same"},
	{"address deleted", "ip addr del 10.66.1.1/24 dev BRIDGE"},
	{"the kernel's own route deleted", "ip route del 10.66.1.0/24 dev BRIDGE"},
	{"the kernel's own IPv6 route deleted", "ip -6 route del SUBNET6 dev BRIDGE"},
	{"bridge renamed", "ip link set BRIDGE name foo0"},
	{"bridge renamed to a name of ours", "ip link set BRIDGE name islefoo"},
	{"bridge down", "ip link set BRIDGE down"},
	{"another MTU", "ip link set VETH mtu 1300"},
	{"port taken out of its bridge", "ip link set VETH nomaster"},
	{"guard taken off", "tc qdisc del dev BRIDGE clsact"},
	{"bridge deleted", "ip link del BRIDGE"},
	{"veth deleted", "ip link del VETH"},
	{"forwarding switched off", "sysctl -q -w net.ipv4.ip_forward=0"},
}

// TestRepair: whatever somebody takes away is back at once, and what was connected
// stays connected.
func TestRepair(t *testing.T) {
	h := newHost(t, true)
	m := h.running()
	yes := true
	app, err := m.Create(t.Context(), api.CreateRequest{Name: "app", EnableIPv6: &yes})
	if err != nil {
		t.Fatal(err)
	}
	web := h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "app")
	h.echo("web", "0.0.0.0:80")
	neighbour := lan(t)
	stay := newFlow(t, neighbour.File, "192.0.2.1:8080")
	if !stay.alive("before") {
		t.Fatal("no way through before anything is broken")
	}
	want := observe(t, h.kernel)
	veth := web.Endpoints[0].HostInterface
	bridge := want[netspec.Link{Name: veth}.Key()].(netspec.Link).Master
	for _, harm := range harms {
		time.Sleep(calm) // each is somebody new, and not one who goes on
		if strings.Contains(harm.command, "clsact") && !strings.Contains(run(t, "tc", "qdisc", "show", "dev", bridge), "clsact") {
			continue // the guard is in TCX, where this does not reach it
		}
		command := strings.NewReplacer("BRIDGE", bridge, "VETH", veth, "SUBNET6", app.Pools[1].Subnet.String()).Replace(harm.command)
		took := h.harm(want, command)
		t.Logf("%-45s repaired %6.1f ms after it was done", harm.name, took.Seconds()*1000)
		if !stay.alive(harm.name) {
			t.Errorf("%s: a connection by the published port did not survive", harm.name)
		}
	}
}

// calm is the end of a series of alarms; see network's pace.
const calm = 300 * time.Millisecond

// harm does harm and returns how long it took to be undone, from the end of the
// program that did it.
func (h *host) harm(want netspec.State, command string) time.Duration {
	h.t.Helper()
	before := h.count.done.Load()
	f := strings.Fields(command)
	run(h.t, f[0], f[1:]...)
	begin := time.Now()
	for h.count.done.Load() == before && time.Since(begin) < patience {
		time.Sleep(time.Millisecond)
	}
	for got := observe(h.t, h.kernel); !got.Equal(want); got = observe(h.t, h.kernel) {
		if time.Since(begin) > patience {
			h.t.Fatalf("%q was not repaired: %v", command, reconcile.Diff(got, want))
		}
	}
	return max(time.Unix(0, h.count.done.Load()).Sub(begin), 0)
}

const patience = 10 * time.Second

// BenchmarkRepair is the time from the end of the program that did it to the
// repair, among containers with a published port each.
func BenchmarkRepair(b *testing.B) {
	for _, harm := range []struct{ name, command string }{
		{"table", "nft flush ruleset"}, {"address", "ip addr del 10.77.0.1/16 dev BRIDGE"}, {"bridge", "ip link del BRIDGE"},
	} {
		for _, n := range []int{1, 300} {
			b.Run(fmt.Sprintf("%s/%d", harm.name, n), func(b *testing.B) { benchRepair(b, n, harm.command) })
		}
	}
}

// settled is when the look at everything that follows a repair is over, too: who does
// harm meanwhile waits for it.
const settled = 1500 * time.Millisecond

func benchRepair(b *testing.B, n int, command string) {
	h := newHost(b, true)
	m := h.running()
	if _, err := m.Create(b.Context(), api.CreateRequest{Name: "many", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("10.77.0.0/16")}}}}); err != nil {
		b.Fatal(err)
	}
	var veth string
	for i := range n {
		o := h.open(m, fmt.Sprint("c", i), api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified()}}}, "many")
		veth = o.Endpoints[0].HostInterface
	}
	want := observe(b, h.kernel)
	command = strings.ReplaceAll(command, "BRIDGE", want[netspec.Link{Name: veth}.Key()].(netspec.Link).Master)
	var took time.Duration
	for b.Loop() {
		b.StopTimer()
		time.Sleep(settled)
		b.StartTimer()
		took += h.harm(want, command)
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms-repair")
}

// TestMTUIsFollowed: bridges and the interfaces of containers get the MTU of the
// way out while they are in use.
func TestMTUIsFollowed(t *testing.T) {
	h := newHost(t, true)
	m := h.running()
	h.open(m, "web", nil, "bridge")
	lan(t)
	inside, err := os.Open(h.kernel.Path("web"))
	if err != nil {
		t.Fatal(err)
	}
	web := kerneltest.Wrap(t, inside)
	defer web.Close()
	for _, step := range []struct {
		command string
		mtu     int
	}{
		{"ip route add default via 192.0.2.2", 1500},
		{"ip link set up0 mtu 1400", 1400},
		{"ip route change default via 192.0.2.2 mtu 1300", 1300},
		{"ip route change default via 192.0.2.2", 1400},
		{"ip link set up0 down", 1500},
	} {
		f := strings.Fields(step.command)
		run(t, f[0], f[1:]...)
		begin := time.Now()
		want := fmt.Sprintf(" mtu %d ", step.mtu)
		for !strings.Contains(run(t, "ip", "link", "show", "isle0"), want) || !strings.Contains(web.Run("ip", "link", "show", "eth0"), want) {
			if time.Since(begin) > patience {
				t.Fatalf("%q: the MTU is not followed", step.command)
			}
		}
		t.Logf("%-50s followed after %.1f ms", step.command, time.Since(begin).Seconds()*1000)
		time.Sleep(calm)
	}
}

// TestNarrowWayOut: where the way out is too narrow for IPv6, networks that have it
// keep it; those without follow all the way.
func TestNarrowWayOut(t *testing.T) {
	h := newHost(t, true)
	m := h.running()
	yes := true
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "six", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	web := h.open(m, "web", nil, "six")
	h.open(m, "old", nil, "bridge")
	h.serve("web", "[::]:80")
	lan(t)
	run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	run(t, "ip", "link", "set", "up0", "mtu", "1200")
	veth := web.Endpoints[0].HostInterface
	begin := time.Now()
	for !strings.Contains(run(t, "ip", "link", "show", "isle0"), " mtu 1200 ") || !strings.Contains(run(t, "ip", "link", "show", veth), " mtu 1280 ") {
		if time.Since(begin) > patience {
			t.Fatalf("the MTU is not followed: %s", run(t, "ip", "-o", "link"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got, err := h.get("", netip.AddrPortFrom(web.Endpoints[0].Addr(false), 80).String(), 10*time.Second); err != nil || got == "" {
		t.Errorf("IPv6: %q, %v", got, err)
	}
}

// TestDamageInside: what a program with NET_ADMIN does to its container is seen by
// whoever asks, is said by its name, and is put right by the next comparison.
func TestDamageInside(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	neighbour := lan(t)
	run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	m.Surroundings = onlyOurs(h.kernel).Surroundings
	yes := true
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "six", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	web := h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "six")
	h.echo("web", "0.0.0.0:80")
	want := observe(t, h.kernel)
	v4 := web.Endpoints[0].Addrs[0]
	for _, tt := range []struct{ commands, said string }{
		{"true", ""},
		{"ip link set eth0 down", "interface eth0 is down or gone"},
		{"ip link set eth0 down && ip link set eth0 up", "route to 0.0.0.0/0 over eth0 is gone"},
		{"ip addr flush dev eth0 scope global", "address " + v4.String() + " on eth0 is gone"},
		{"ip route del " + v4.Masked().String() + " dev eth0", "the kernel's route to " + v4.Masked().String() + " on eth0 is gone"},
		{"ip route del default", "route to 0.0.0.0/0 over eth0 is gone"},
		{"ip link del eth0", "interface eth0 is down or gone"},
	} {
		run(t, "nsenter", "--net="+h.kernel.Path("web"), "sh", "-e", "-c", tt.commands)
		found, err := m.Doctor(t.Context())
		if err != nil || (len(found) > 0) != (tt.said != "") || !strings.Contains(fmt.Sprint(found), tt.said) {
			t.Errorf("%s: found %+v, %v", tt.commands, found, err)
		}
		exposed, err := m.Exposure(t.Context())
		reached := tt.said == "" || strings.Contains(tt.said, "kernel's route") // the default route serves for that too
		if err != nil || len(exposed) != 1 || (exposed[0].Verdict == exposure.Reachable) != reached {
			t.Errorf("%s: exposed %+v, %v", tt.commands, exposed, err)
		}
		c, err := reach(neighbour.File, "192.0.2.1:8080", 300*time.Millisecond)
		if (err == nil) != reached {
			t.Errorf("%s: a neighbour finds %v", tt.commands, err)
		}
		if err == nil {
			c.Close()
		}
		if err := m.Sync(t.Context()); err != nil {
			t.Errorf("%s: %v", tt.commands, err)
		}
		if got := observe(t, h.kernel); !got.Equal(want) {
			t.Errorf("%s: not put right: %v", tt.commands, reconcile.Diff(got, want))
		}
	}
}

// TestRenamedMeanwhile: a bridge that was renamed while isled was away is named
// again by one that remembers nothing, and its containers stay in it.
func TestRenamedMeanwhile(t *testing.T) {
	h := newHost(t, false)
	m := h.start()
	web := h.open(m, "web", nil, "bridge")
	h.serve("web", "0.0.0.0:80")
	want := observe(t, h.kernel)
	stop(m)
	run(t, "ip", "link", "set", "isle0", "name", "foo0")
	var err error
	if h.kernel, err = kernel.New(h.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.kernel.Close() })
	h.count = &counting{Kernel: h.kernel}
	m = h.start()
	defer stop(m)
	if got := observe(t, h.kernel); !got.Equal(want) {
		t.Errorf("%v", reconcile.Diff(got, want))
	}
	if out := run(t, "ip", "-o", "link"); strings.Contains(out, "foo0") {
		t.Errorf("the other name is still there:\n%s", out)
	}
	if _, err := h.get("", netip.AddrPortFrom(web.Endpoints[0].Addr(true), 80).String(), 5*time.Second); err != nil {
		t.Error(err)
	}
}
