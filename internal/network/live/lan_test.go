package live_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/network"
)

// wire is the LAN of a host: a switch in a namespace of its own that the host is joined
// to by eth9, with 10.9.0.5 and fd00:9::5, and a router there, 10.9.0.1 and fd00:9::1,
// behind which 198.51.100.1 is.
type wire struct {
	*host
	router kerneltest.NS
}

func newLAN(t testing.TB) *wire {
	t.Helper()
	h := newHost(t, false)
	l := &wire{h, kerneltest.NewNS(t)}
	l.plug("eth9")
	run(t, "ip", "addr", "add", "10.9.0.5/24", "dev", "eth9")
	run(t, "ip", "addr", "add", "fd00:9::5/64", "dev", "eth9", "nodad")
	l.router.IP(`addr add 10.9.0.1/24 dev switch
		addr add fd00:9::1/64 dev switch nodad
		addr add 198.51.100.1/32 dev lo
		link set switch up`)
	return l
}

// plug joins the host to the switch by another interface.
func (l *wire) plug(name string) {
	l.t.Helper()
	if _, err := l.router.Try("ip", "link", "show", "switch"); err != nil {
		l.router.IP("link add switch type bridge")
	}
	run(l.t, "ip", "link", "add", name, "type", "veth", "peer", "name", "p-"+name, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.router.File.Fd()))
	l.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	l.router.IP("link set p-" + name + " master switch up")
	run(l.t, "ip", "link", "set", name, "up")
}

// from is what comes back from a connection that is made on the LAN.
func (l *wire) from(ns kerneltest.NS, at string, patience time.Duration) (got string, err error) {
	ns.Do(func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", at, patience); err != nil {
			return nil
		}
		defer c.Close()
		if err = c.SetDeadline(time.Now().Add(patience)); err != nil {
			return nil
		}
		b := make([]byte, 100)
		n, rerr := c.Read(b)
		got, err = string(b[:n]), rerr
		return nil
	})
	return got, err
}

func onLAN(driver string, opts ...string) api.CreateRequest {
	yes := true
	req := api.CreateRequest{Name: "lan", Driver: driver, EnableIPv6: &yes, Options: map[string]string{"parent": "eth9"}, IPAM: &api.IPAM{Config: []api.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.9.0.0/24"), IPRange: netip.MustParsePrefix("10.9.0.128/25"), Gateway: netip.MustParseAddr("10.9.0.1")},
		{Subnet: netip.MustParsePrefix("fd00:9::/64"), IPRange: netip.MustParsePrefix("fd00:9::8000/113"), Gateway: netip.MustParseAddr("fd00:9::1")},
	}}}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		req.Options[k] = v
	}
	return req
}

func (l *wire) create(m *network.Manager, req api.CreateRequest) network.Network {
	l.t.Helper()
	n, err := m.Create(l.t.Context(), req)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// TestMacvlan: a container is on the LAN, as another machine is: the LAN reaches it,
// it reaches the LAN and what is behind the router, by both families; the host and it
// do not reach each other.
func TestMacvlan(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	l.create(m, onLAN("macvlan"))
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.open(m, "db", nil, "lan")
	l.serve("web", "0.0.0.0:80")
	l.serve("web", "[::]:81")
	l.serveIn(l.router, "198.51.100.1:80")
	a4, a6 := web.Addr(true).String(), web.Addr(false).String()
	for _, at := range []string{a4 + ":80", "[" + a6 + "]:81"} {
		if got, err := l.from(l.router, at, 10*time.Second); err != nil {
			t.Errorf("the LAN to %s: %q, %v", at, got, err)
		}
		if got, err := l.get("db", at, 10*time.Second); err != nil {
			t.Errorf("a container to %s: %q, %v", at, got, err)
		}
	}
	if got, err := l.get("web", "198.51.100.1:80", 10*time.Second); !strings.HasPrefix(got, a4+":") {
		t.Errorf("behind the router it is seen as %q, %v", got, err)
	}
	if got, err := l.get("", a4+":80", 500*time.Millisecond); err == nil {
		t.Errorf("the host got to the container: %q", got)
	}
	for _, proto := range []string{"udp", "tcp"} {
		if got, err := l.lookup("db", proto, "web"); err != nil || got != "NOERROR "+a4 {
			t.Errorf("db asks for web over %s: %s, %v", proto, got, err)
		}
	}
	if c, err := m.Counters(t.Context(), "web"); err != nil || c["eth0"].RxPackets == 0 {
		t.Errorf("counters %v, %v", c, err)
	}
	l.unchanged(m)
	for _, c := range []string{"web", "db"} {
		if err := m.Close(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Error(err)
	}
}

// unchanged: the kernel is what the records say.
func (l *wire) unchanged(m *network.Manager) {
	l.t.Helper()
	l.count.n = 0
	if err := m.Sync(l.t.Context()); err != nil || l.count.n != 0 {
		l.t.Errorf("%d changes, %v", l.count.n, err)
	}
}

// reaches checks who gets to a container.
func (l *wire) reaches(when, at string, lan, host bool) {
	l.t.Helper()
	patience := map[bool]time.Duration{true: 10 * time.Second, false: 500 * time.Millisecond}
	if got, err := l.from(l.router, at, patience[lan]); (err == nil) != lan {
		l.t.Errorf("%s: the LAN to %s: %q, %v; want %t", when, at, got, err, lan)
	}
	if got, err := l.get("", at, patience[host]); (err == nil) != host {
		l.t.Errorf("%s: the host to %s: %q, %v; want %t", when, at, got, err, host)
	}
}

// TestHostAccess: the host and a container see each other by their own addresses, and
// nobody on the LAN hears the host's address at another place; also when the host's
// address changes and its wire comes and goes.
func TestHostAccess(t *testing.T) {
	for _, c := range []struct{ driver, opt string }{{"macvlan", "macvlan_mode=bridge"}, {"ipvlan", "ipvlan_mode=l2"}, {"ipvlan", "ipvlan_mode=l3"}, {"ipvlan", "ipvlan_mode=l3s"}} {
		t.Run(c.driver+c.opt, func(t *testing.T) { hostAccess(t, c.driver, c.opt) })
	}
}

func hostAccess(t *testing.T, driver, opt string) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	l.try(m, onLAN(driver, opt, "isle.host_access=true"))
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.serve("web", "[::]:80")
	l.serve("", "[::]:90")
	a4, a6 := web.Addr(true).String(), "["+web.Addr(false).String()+"]"
	if !strings.Contains(opt, "l3") { // there the LAN needs a route
		l.reaches("at first", a4+":80", true, true)
		l.reaches("at first", a6+":80", true, true)
	}
	l.sees(m, "at first", "10.9.0.5", a4)
	l.sees(m, "at first", "fd00:9::5", a6)
	for _, host := range []string{"10.9.0.5", "fd00:9::5"} {
		if _, err := l.from(l.router, net.JoinHostPort(host, "90"), 10*time.Second); err != nil {
			t.Errorf("the LAN to the host: %v", err)
		}
		if neigh := l.router.Run("ip", "neigh", "show", host); !strings.Contains(neigh, hardware(t, "eth9")) {
			t.Errorf("the LAN knows the host at another place: %s", neigh)
		}
	}
	run(t, "ip", "link", "set", "eth9", "down")
	run(t, "ip", "link", "set", "eth9", "up")
	run(t, "ip", "addr", "del", "10.9.0.5/24", "dev", "eth9")
	run(t, "ip", "addr", "add", "10.9.0.6/24", "dev", "eth9")
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.sees(m, "with another address", "10.9.0.6", a4)
	l.unchanged(m)
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Error(err)
	}
	if left := run(t, "ip", "-o", "link"); strings.Contains(left, "isles") {
		t.Errorf("left behind:\n%s", left)
	}
}

// sees checks that host and container know each other by their own addresses.
func (l *wire) sees(m *network.Manager, when, host, container string) {
	l.t.Helper()
	by := host
	if strings.Contains(host, ":") {
		by = "[" + host + "]"
	}
	if got, err := l.get("", container+":80", 10*time.Second); !strings.HasPrefix(got, by+":") {
		l.t.Errorf("%s: the container sees the host as %q, %v", when, got, err)
	}
	if got, err := l.get("web", by+":90", 10*time.Second); !strings.HasPrefix(got, container+":") {
		l.t.Errorf("%s: the host sees the container as %q, %v", when, got, err)
	}
}

func hardware(t *testing.T, link string) string {
	i, err := net.InterfaceByName(link)
	if err != nil {
		t.Fatal(err)
	}
	return i.HardwareAddr.String()
}

// try makes a network that a container can be on, or skips the test where the kernel
// has no such links.
func (l *wire) try(m *network.Manager, req api.CreateRequest) {
	l.t.Helper()
	_, err := m.Create(l.t.Context(), req)
	if err == nil {
		_, err = m.Open(l.t.Context(), network.OpenRequest{ID: "try", Name: "try", Networks: []network.ConnectRequest{{Network: req.Name, ContainerName: "try"}}})
	}
	if probe.NotSupported(err) {
		l.t.Skip(err)
	}
	if err == nil {
		err = m.Close(l.t.Context(), "try")
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestIPvlan: containers are on the LAN with the host's MAC address.
func TestIPvlan(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	l.try(m, onLAN("ipvlan"))
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.serve("web", "0.0.0.0:80")
	l.reaches("l2", web.Addr(true).String()+":80", true, false)
	if neighs := l.router.Run("ip", "neigh", "show", web.Addr(true).String()); !strings.Contains(neighs, hardware(t, "eth9")) {
		t.Errorf("the LAN knows it at %s", neighs)
	}
	l.unchanged(m)
}

// TestIPvlanL3: what is for a container is routed to it by the host, and it needs no
// router itself.
func TestIPvlanL3(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	req := onLAN("ipvlan", "ipvlan_mode=l3")
	req.IPAM.Config[0] = api.IPAMConfig{Subnet: netip.MustParsePrefix("10.44.0.0/24")}
	l.try(m, req)
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.serve("web", "0.0.0.0:80")
	l.router.IP("route add 10.44.0.0/24 via 10.9.0.5")
	l.reaches("l3", web.Addr(true).String()+":80", true, false)
	l.unchanged(m)
}

// TestVLAN: two networks of one VLAN share its interface, which goes with the last of
// them; and one that somebody else made stays.
func TestVLAN(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	first := onLAN("macvlan", "parent=eth9.10.20")
	l.try(m, first)
	second := onLAN("macvlan", "parent=eth9.10.20")
	second.Name, second.IPAM = "more", &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("10.10.0.0/24")}}}
	no := false
	second.EnableIPv6 = &no
	l.create(m, second)
	l.router.IP(`link add link p-eth9 name v10 type vlan id 10
		link add link v10 name v20 type vlan id 20
		addr add 10.10.0.1/24 dev v20
		link set v10 up
		link set v20 up`)
	web := l.open(m, "web", nil, "more").Endpoints[0]
	l.serve("web", "0.0.0.0:80")
	if got, err := l.from(l.router, web.Addr(true).String()+":80", 10*time.Second); err != nil {
		t.Errorf("the VLAN to the container: %q, %v", got, err)
	}
	has := func(when string, want int) {
		t.Helper()
		if links := run(t, "ip", "-o", "link"); strings.Count(links, "eth9.10") != want {
			t.Errorf("%s:\n%s", when, links)
		}
	}
	has("two networks", 3) // one is the other's parent: eth9.10.20@eth9.10
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	has("one of them has gone", 3)
	l.unchanged(m)
	if got, err := l.from(l.router, web.Addr(true).String()+":80", 10*time.Second); err != nil {
		t.Errorf("then: %q, %v", got, err)
	}
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "more"); err != nil {
		t.Fatal(err)
	}
	has("both have gone", 0)
	run(t, "ip", "link", "add", "link", "eth9", "name", "eth9.7", "type", "vlan", "id", "7")
	l.create(m, onLAN("macvlan", "parent=eth9.7"))
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "show", "eth9.7")
}

// TestVLANInternal: without a parent, containers are among themselves.
func TestVLANInternal(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	req := onLAN("macvlan", "parent=")
	req.Internal = true
	l.try(m, req)
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.open(m, "db", nil, "lan")
	l.serve("web", "0.0.0.0:80")
	if got, err := l.get("db", web.Addr(true).String()+":80", 10*time.Second); err != nil {
		t.Errorf("a neighbour: %q, %v", got, err)
	}
	l.reaches("internal", web.Addr(true).String()+":80", false, false)
	for _, c := range []string{"web", "db"} {
		if err := m.Close(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Error(err)
	}
	if left := run(t, "ip", "-o", "link"); strings.Contains(left, "dm-") {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestLANParent: while the parent is away that is told, and no container can be put
// there; when it is back all is as it was. One that is renamed goes on.
func TestLANParent(t *testing.T) {
	l := newLAN(t)
	m := l.watched(t)
	n := l.create(m, onLAN("macvlan", "isle.host_access=true"))
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.serve("web", "0.0.0.0:80")
	at := web.Addr(true).String() + ":80"
	l.reaches("at first", at, true, true)
	l.told(m, n.ID, "eth9: up")
	run(t, "ip", "link", "set", "eth9", "down")
	l.told(m, n.ID, "eth9: down")
	run(t, "ip", "link", "set", "eth9", "name", "wire0")
	run(t, "ip", "link", "set", "wire0", "up")
	l.told(m, n.ID, "eth9: up, renamed to wire0")
	l.reaches("renamed", at, true, true)
	l.open(m, "new", nil, "lan")                 // also on it
	run(t, "ip", "link", "set", "wire0", "down") // old kernels rename nothing that is up
	run(t, "ip", "link", "set", "wire0", "name", "eth9")
	run(t, "ip", "link", "set", "eth9", "up")
	l.told(m, n.ID, "eth9: up")
	run(t, "ip", "link", "del", "eth9")
	l.told(m, n.ID, "eth9: missing: parent interface eth9 is not there: unavailable")
	_, err := m.Open(t.Context(), network.OpenRequest{ID: "late", Name: "late", Networks: []network.ConnectRequest{{Network: "lan", ContainerName: "late"}}})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("a container on a parent that is away: %v", err)
	}
	l.plug("eth9")
	run(t, "ip", "addr", "add", "10.9.0.5/24", "dev", "eth9")
	run(t, "ip", "addr", "add", "fd00:9::5/64", "dev", "eth9", "nodad")
	l.told(m, n.ID, "eth9: up")
	end := time.Now().Add(10 * time.Second)
	for _, err := l.get("", at, time.Second); err != nil && time.Now().Before(end); _, err = l.get("", at, time.Second) {
		time.Sleep(20 * time.Millisecond)
	}
	l.reaches("back", at, true, true)
	l.open(m, "late", nil, "lan")
}

// watched is a Manager that repairs what others do.
func (l *wire) watched(t *testing.T) *network.Manager {
	ctx, cancel := context.WithCancel(t.Context())
	m := l.manager()
	changed, err := l.kernel.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.Changed = changed
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func (l *wire) told(m *network.Manager, id, want string) {
	l.t.Helper()
	got := ""
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && got != want; time.Sleep(10 * time.Millisecond) {
		var err error
		if got, err = m.Uplink(l.t.Context(), id); err != nil {
			l.t.Fatal(err)
		}
	}
	if got != want {
		l.t.Errorf("it is on %q, want %q", got, want)
	}
}
