package live_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/fabric"
	"isle/internal/fabric/fabrictest"
	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/publish"
	"isle/internal/network/pulse"
	"isle/internal/network/seal"
	"isle/internal/reconcile"
	"isle/internal/store/storetest"
)

// member is a host of a cluster, in a namespace of its own, with isled running.
type member struct {
	*host
	ns    kerneltest.NS
	wire  kerneltest.NS // the switch
	keys  *seal.Keys
	later atomic.Int64 // how much its clock is ahead, in nanoseconds
	pulse *pulse.Prober
	dir   *fabrictest.Directory
	m     *network.Manager
	end   func()
}

// gather is a cluster of hosts on one switch: a has 10.8.0.1, b 10.8.0.2, ….
func gather(t testing.TB, n int) (*fabrictest.Cluster, []*member) {
	t.Helper()
	_, c, all := gatherOn(t, n)
	return c, all
}

// gatherOn is gather, and where the switch is.
func gatherOn(t testing.TB, n int) (kerneltest.NS, *fabrictest.Cluster, []*member) {
	t.Helper()
	wire, c := kerneltest.NewNS(t), &fabrictest.Cluster{}
	wire.IP("link add lan type bridge\nlink set lan up")
	var all []*member
	for i := range n {
		h := newMember(t, wire, i+1)
		id := string(rune('a' + i))
		h.dir = c.Join(fabric.Host{ID: id, Name: id, Addr: netip.AddrFrom4([4]byte{10, 8, 0, byte(i + 1)})})
		h.begin()
		all = append(all, h)
	}
	return wire, c, all
}

func newMember(t testing.TB, wire kerneltest.NS, i int) *member {
	t.Helper()
	ns := kerneltest.NewNS(t)
	port := fmt.Sprint("port", i)
	ns.IP("link add under type veth peer name " + port)
	ns.Run("ip", "link", "set", port, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), wire.File.Fd()))
	wire.IP("link set " + port + " master lan up")
	ns.IP(fmt.Sprintf("addr add 10.8.0.%d/24 dev under\nlink set under up", i))
	keys := &seal.Keys{Path: filepath.Join(t.TempDir(), "wireguard.key")}
	cfg := kernel.Config{Table: "isle", LinkGroup: 4712, LinkPrefix: "isle", NSDir: filepath.Join(inMemory(t), "netns"), Secret: keys.Private}
	var k *kernel.Kernel
	var m *member
	ns.Do(func() (err error) { k, err = kernel.New(cfg); return err })
	t.Cleanup(func() {
		_ = reconcile.Apply(context.Background(), m.kernel, reconcile.Diff(observe(t, m.kernel), nil))
		if err := m.kernel.Close(); err != nil {
			t.Error(err)
		}
		_ = exec.Command("umount", "-l", cfg.NSDir).Run()
	})
	m = &member{host: &host{t: t, config: cfg, kernel: k, count: &counting{Kernel: k}, store: &storetest.Mem{}}, ns: ns, wire: wire, keys: keys}
	return m
}

// begin runs isled.
func (h *member) begin() {
	h.t.Helper()
	h.m = h.manager()
	h.pulse = &pulse.Prober{Log: h.m.Log, Open: func(link string) (pulse.Wire, error) {
		w, err := h.kernel.Wire(link)
		if err != nil {
			return nil, err
		}
		return w, nil
	}}
	h.m.Fabric, h.m.Ports, h.m.Seal, h.m.Pulse = h.dir, &publish.Table{}, h.keys, h.pulse
	h.m.Scout, h.m.Surroundings = h.scout(), onlyOurs(h.kernel).Surroundings
	h.m.Now, h.keys.Now = h.now, h.now
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if h.m.Changed, err = h.kernel.Watch(ctx); err == nil {
		err = h.m.Start(h.t.Context())
	}
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = h.m.Run(ctx) })
	running.Go(func() { _ = h.pulse.Run(ctx) })
	h.end = func() { cancel(); running.Wait() }
	h.t.Cleanup(func() { h.end() })
}

func (h *member) now() time.Time { return time.Now().Add(time.Duration(h.later.Load())) }

// die ends isled, and with the process what of the kernel it had open.
func (h *member) die() {
	h.t.Helper()
	h.end()
	if err := h.kernel.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.ns.Do(func() (err error) { h.kernel, err = kernel.New(h.config); return err })
	h.count.Kernel = h.kernel
}

// soon waits for something that other hosts bring about.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come about: %s", what)
		}
	}
}

func (h *member) knows(name string) bool {
	_, err := h.m.Find(h.t.Context(), name)
	return err == nil
}

// behind are the stations that the kernel has behind the tunnel.
func (h *member) behind() (out []netspec.FDB) {
	for _, o := range observe(h.t, h.kernel) {
		if f, ok := o.(netspec.FDB); ok && !f.Alone {
			out = append(out, f)
		}
	}
	return out
}

// TestOverlay: containers of two hosts reach each other and find each other by name;
// isled may restart; and who dies is gone.
func TestOverlay(t *testing.T) {
	c, all := gather(t, 2)
	a, b := all[0], all[1]
	yes := true
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	one := a.open(a.m, "one", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "app").Endpoints[0]
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	a.serve("one", "[::]:80")
	b.serve("two", "[::]:80")
	soon(t, "each knows the other's container", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 1 })
	check := func(when string) {
		t.Helper()
		for _, v4 := range []bool{true, false} {
			across(t, when, a, "one", two.Addr(v4), 80, one.Addr(v4))
			across(t, when, b, "two", one.Addr(v4), 80, two.Addr(v4))
		}
		across(t, when+", published", b, "two", netip.MustParseAddr("10.8.0.1"), 8080, netip.MustParseAddr("10.8.0.2"))
		for _, q := range []struct {
			h        *member
			ns, name string
			want     netip.Addr
		}{{a, "one", "two", two.Addr(true)}, {b, "two", "one", one.Addr(true)}} {
			if got, err := q.h.lookup(netspec.NS(q.ns), "udp", q.name); err != nil || got != "NOERROR "+q.want.String() {
				t.Errorf("%s: %s is %s, %v", when, q.name, got, err)
			}
		}
	}
	check("at first")
	a.end()
	a.count.n = 0
	a.begin()
	check("after a restart")
	if a.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", a.count.n)
	}
	b.dir.Cut(false)
	c.Expire("b")
	soon(t, "a host that died is gone", func() bool { return len(a.behind()) == 0 })
	if got, err := a.lookup("one", "udp", "two"); err != nil || got != "NXDOMAIN" {
		t.Errorf("the name of a container on a host that died: %s, %v", got, err)
	}
	across(t, "what the other still knows goes on", b, "two", two.Addr(true), 80, two.Addr(true))
}

// TestOverlayRestart: a new process that does not reach the store at first, and then
// does, writes nothing of what the kernel has of the other hosts: the kernel itself tells
// who asks. What flows goes on.
func TestOverlayRestart(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay"}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	a.open(a.m, "one", nil, "app")
	var remote []network.Endpoint
	for i := range 5 {
		remote = append(remote, b.open(b.m, fmt.Sprint("r", i), nil, "app").Endpoints[0])
	}
	b.echo("r0", "0.0.0.0:80")
	soon(t, "each knows the other's containers", func() bool { return len(a.behind()) == 5 && len(b.behind()) == 1 })
	ns, err := os.Open(a.kernel.Path("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	stay := newFlow(t, ns, netip.AddrPortFrom(remote[0].Addr(true), 80).String())
	told := a.told()
	a.die()
	a.dir.Cut(true)
	a.begin()
	if !stay.alive("while the store is away") {
		t.Error("a flow ended while the store could not be reached")
	}
	a.dir.Heal()
	soon(t, "it knows the names of the others", func() bool {
		got, err := a.lookup("one", "udp", "r4")
		return err == nil && got == "NOERROR "+remote[4].Addr(true).String()
	})
	if !stay.alive("after the restart") {
		t.Error("a flow ended at a restart")
	}
	if lines := told(); len(lines) > 0 {
		t.Errorf("the kernel was written at a restart:\n%s", strings.Join(lines, "\n"))
	}
}

// told collects what the kernel tells of its tunnels, stations and neighbours from now on.
func (h *member) told() func() []string {
	h.t.Helper()
	var cmds []*exec.Cmd
	for _, args := range [][]string{{"ip", "monitor", "link", "address", "route", "neigh"}, {"bridge", "monitor", "fdb"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout = new(bytes.Buffer)
		cmds = append(cmds, cmd)
		h.ns.Do(cmd.Start)
	}
	time.Sleep(200 * time.Millisecond) // until they listen
	return func() (lines []string) {
		time.Sleep(200 * time.Millisecond)
		for _, cmd := range cmds {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			for line := range strings.Lines(cmd.Stdout.(*bytes.Buffer).String()) {
				if strings.Contains(line, "isle") && !strings.Contains(line, "STALE") && !strings.Contains(line, "REACHABLE") {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
		}
		return lines
	}
}

// TestOverlayRepair: what somebody takes away of what is written down of the other hosts
// is back at once, without a timer, and a flow goes on; what goes by itself is let go.
func TestOverlayRepair(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	yes := true
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	a.open(a.m, "one", nil, "app")
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	b.open(b.m, "three", nil, "app")
	b.echo("two", "0.0.0.0:80")
	soon(t, "each knows the other's containers", func() bool { return len(a.behind()) == 2 && len(b.behind()) == 1 })
	ns, err := os.Open(a.kernel.Path("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	stay := newFlow(t, ns, netip.AddrPortFrom(two.Addr(true), 80).String())
	want := observe(t, a.kernel)
	var link netspec.VXLAN
	for _, o := range want {
		if v, ok := o.(netspec.VXLAN); ok && v.Master != "" {
			link = v
		}
	}
	mac, trial := net.HardwareAddr(two.MAC[:]).String(), pulse.MAC("b")
	for _, harm := range []string{
		"bridge fdb del " + mac + " dev " + link.Name + " master", "bridge fdb del " + mac + " dev " + link.Name + " self",
		"bridge fdb del " + net.HardwareAddr(trial[:]).String() + " dev islep4789 self",
		"bridge fdb del 00:00:00:00:00:00 dev " + link.Name + " dst 10.8.0.2 self",
		"ip neigh del " + two.Addr(true).String() + " dev " + link.Master, "ip neigh del " + two.Addr(false).String() + " dev " + link.Master,
	} {
		time.Sleep(calm)
		a.ns.Run("sh", "-c", harm)
		begin := time.Now()
		soon(t, harm+" is repaired", func() bool { return observe(t, a.kernel).Equal(want) })
		t.Logf("%-70s repaired within %6.1f ms", harm, time.Since(begin).Seconds()*1000)
		if !stay.alive(harm) {
			t.Errorf("%s: a connection did not survive", harm)
		}
	}
	time.Sleep(2 * calm) // until all is quiet again
	a.count.n = 0
	if err := b.m.Close(t.Context(), "three"); err != nil {
		t.Fatal(err)
	}
	soon(t, "a container that is gone is gone here", func() bool { return len(a.behind()) == 1 })
	time.Sleep(calm)
	if a.count.n != 3 || len(a.behind()) != 1 { // the station and its two neighbours
		t.Errorf("%d changes of the kernel", a.count.n)
	}
}

// across : a connection from a container gets there, and comes from where it should.
func across(t *testing.T, when string, h *member, from netspec.NS, to netip.Addr, port uint16, as netip.Addr) {
	t.Helper()
	got, err := h.get(from, netip.AddrPortFrom(to, port).String(), 10*time.Second)
	peer, perr := netip.ParseAddrPort(got)
	if err != nil || perr != nil || peer.Addr() != as {
		t.Errorf("%s: from %s to %s:%d as %q, want %s: %v", when, from, to, port, got, as, err)
	}
}

// TestOverlayReused: an address that goes from a container to one on another host leads
// to the new one at once, also for who has talked to the old one just before.
func TestOverlayReused(t *testing.T) {
	_, all := gather(t, 3)
	a, b, c := all[0], all[1], all[2]
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay"}); err != nil {
		t.Fatal(err)
	}
	soon(t, "all know the network", func() bool { return b.knows("app") && c.knows("app") })
	one := a.open(a.m, "one", nil, "app").Endpoints[0]
	at := one.Addr(true)
	for i, from := range []*member{b, c, a, b} {
		to := []*member{b, c, a, b}[i]
		name := netspec.NS(fmt.Sprint("next", i))
		two := to.open(to.m, string(name), nil, "app").Endpoints[0]
		to.serve(name, "0.0.0.0:80")
		if to != a {
			soon(t, "the other end is known", func() bool {
				return slices.ContainsFunc(a.behind(), func(f netspec.FDB) bool { return f.Dst == to.dir.View().Hosts[to.dir.View().Self].Addr })
			})
		}
		across(t, fmt.Sprint("round ", i), a, "one", two.Addr(true), 80, at)
		if err := from.m.Close(t.Context(), string(name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOverlayEncrypted: an encrypted network is one like others; on the wire there is
// WireGuard and no VXLAN. With its last container the keys are out of the kernel.
func TestOverlayEncrypted(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"encrypted": ""}}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	soon(t, "the keys are known", func() bool {
		v := a.dir.View()
		return v.Hosts["a"].Key != "" && v.Hosts["b"].Key != ""
	})
	one := a.open(a.m, "one", nil, "app").Endpoints[0]
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	b.serve("two", "0.0.0.0:80")
	soon(t, "each knows the other's container", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 1 })
	across(t, "encrypted", a, "one", two.Addr(true), 80, one.Addr(true))
	a.die()
	a.dir.Cut(true)
	a.begin()
	a.dir.Heal()
	soon(t, "it has its tunnel again", func() bool { return len(a.behind()) == 1 })
	across(t, "encrypted, after a restart", a, "one", two.Addr(true), 80, one.Addr(true))
	for _, f := range a.behind() {
		if f.Dst != network.SealedAddr("b", a.dir.View().Hosts["b"].Key) || f.Via == "" {
			t.Errorf("a station is at %s, which is not encrypted", f.Dst)
		}
	}
	for _, h := range all {
		for _, c := range []string{"one", "two"} {
			if err := h.m.Close(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range observe(t, h.kernel) {
			switch o := o.(type) {
			case netspec.WireGuard, netspec.Peer:
				t.Errorf("%v is left", o)
			case netspec.VXLAN:
				if o.Master != "" || o.Via != "" {
					t.Errorf("%v is left", o)
				}
			}
		}
	}
}
