package live_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/seat"
	"isle/internal/network"
	"isle/internal/network/driver/remote"
	"isle/test/plugins/l2"
	"isle/test/plugins/pools"
)

// plugged is a host with plugins of Docker's protocol.
type plugged struct {
	*host
	sockets string
	l2      *l2.Driver
	pools   *pools.Driver
	stopL2  func()
}

func newPlugged(t *testing.T) *plugged {
	t.Helper()
	p := &plugged{host: newHost(t, false), sockets: t.TempDir(), pools: &pools.Driver{}}
	t.Cleanup(p.sweep)
	p.startL2()
	p.listen("pools", p.pools.Serve)
	return p
}

// sweep takes away what plugins that died have left: other tests are on this host.
func (p *plugged) sweep() {
	links, err := netlink.LinkList()
	if err != nil {
		p.t.Error(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "l2b") {
			_ = netlink.LinkDel(l)
		}
	}
}

func (p *plugged) listen(name string, serve func(net.Listener) error) (stop func()) {
	p.t.Helper()
	l, err := net.Listen("unix", filepath.Join(p.sockets, name+".sock"))
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { _ = serve(l) }()
	stop = func() { _ = l.Close() }
	p.t.Cleanup(stop)
	return stop
}

// startL2 starts the plugin for networks, which knows nothing yet.
func (p *plugged) startL2() {
	p.t.Helper()
	h, err := netlink.NewHandle()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(h.Close)
	p.l2 = &l2.Driver{Links: h}
	p.stopL2 = p.listen("l2", p.l2.Serve)
}

// manager is another isled on the host.
func (p *plugged) manager() *network.Manager {
	p.t.Helper()
	seats, err := seat.Open(rtnl.Mark{Group: uint32(p.config.LinkGroup), Prefix: p.config.LinkPrefix})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = seats.Close() })
	reg := remote.New(remote.Config{Seats: seats, Sockets: []string{p.sockets}, Specs: []string{p.t.TempDir()}, Wait: 100 * time.Millisecond, Pause: 10 * time.Millisecond})
	m := p.host.manager()
	m.Outside, m.OutsideIPAM = reg.Outside, reg.OutsideIPAM
	if err := m.Start(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// TestPlugins : networks, interfaces and addresses from plugins are as all others to
// those who use them, also after a restart of isled or of the plugin.
func TestPlugins(t *testing.T) {
	for name, ipam := range map[string]string{"addresses of Isle's": "", "addresses of a plugin": "pools"} {
		t.Run(name, func(t *testing.T) { plugins(t, newPlugged(t), ipam) })
	}
}

func plugins(t *testing.T, p *plugged, ipam string) {
	m := p.manager()
	n, err := m.Create(t.Context(), api.CreateRequest{Name: "far", Driver: "l2", IPAM: &api.IPAM{Driver: ipam}, Options: map[string]string{"route": "198.51.100.0/24"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(n.Warnings, "\n"), "plugin l2 moves the packets") {
		t.Errorf("warnings %q", n.Warnings)
	}
	web := p.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "far").Endpoints[0]
	p.open(m, "db", nil, "far")
	p.serve("web", "0.0.0.0:80")
	addr := web.Addr(true)
	if !strings.Contains(p.l2.Ports(n.ID, web.ID), `"HostPort":8080`) {
		t.Errorf("the plugin was told of ports %s", p.l2.Ports(n.ID, web.ID))
	}
	if calls := strings.Join(p.pools.Calls(), "\n"); ipam != "" && !strings.Contains(calls, "com.docker.network.endpoint.macaddress:"+net.HardwareAddr(web.MAC[:]).String()) {
		t.Errorf("the plugin for addresses wants to know the MAC address %v: %s", web.MAC, calls)
	}
	check := func(m *network.Manager, when string) {
		t.Helper()
		p.reach("db", netip.AddrPortFrom(addr, 80), true, when)
		if got, err := p.lookup("db", "udp", "web"); err != nil || got != "NOERROR "+addr.String() {
			t.Errorf("%s: db asks for web: %s, %v", when, got, err)
		}
		gw := n.Pools[0].Gateway.String()
		if out := p.ip("web", "route"); !strings.Contains(out, "default via "+gw) || !strings.Contains(out, "198.51.100.0/24 via "+gw) {
			t.Errorf("%s: routes %s", when, out)
		}
	}
	check(m, "at first")

	stop(m)
	p.count.n = 0
	m = p.manager()
	defer func() { stop(m) }()
	m.Visit(t.Context())
	if p.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", p.count.n)
	}
	check(m, "after a restart")

	_ = p.kernel.Do("web", func() error { run(t, "ip", "addr", "flush", "dev", "eth0"); return nil })
	if err := m.Sync(context.Background()); err != nil {
		t.Error(err)
	}
	check(m, "after a repair")

	p.stopL2()
	p.startL2() // it has forgotten all
	p.open(m, "late", nil, "far")
	p.reach("late", netip.AddrPortFrom(addr, 80), true, "a container of after the plugin's restart")

	for _, id := range []string{"web", "db", "late"} {
		if err := m.Close(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Remove(t.Context(), "far"); err != nil {
		t.Error(err)
	}
	if pools, addrs := p.pools.Used(); pools+addrs != 0 {
		t.Errorf("%d pools and %d addresses are left: %v", pools, addrs, p.pools.Calls())
	}
	if out := run(t, "ip", "-br", "link"); strings.Contains(out, "l2b") {
		t.Errorf("left: %s", out)
	}
}

// TestNoPlugin : a plugin that is not there, or dies, is told of in words, and leaves
// no record.
func TestNoPlugin(t *testing.T) {
	p := newPlugged(t)
	m := p.manager()
	defer func() { stop(m) }()
	for _, req := range []api.CreateRequest{{Name: "x", Driver: "none-of-this-name"}, {Name: "x", Driver: "l2", IPAM: &api.IPAM{Driver: "none-of-this-name"}}} {
		if _, err := m.Create(t.Context(), req); err == nil || !strings.Contains(err.Error(), "could not find plugin none-of-this-name in v1 plugin registry: plugin not found") {
			t.Error(err)
		}
	}
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "x", Driver: "pools"}); err == nil || !strings.Contains(err.Error(), "plugin pools: plugin does not implement the requested driver (NetworkDriver)") {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "far", Driver: "l2"}); err != nil {
		t.Fatal(err)
	}
	p.stopL2()
	_, err := m.Open(t.Context(), network.OpenRequest{ID: "web", Name: "web", Networks: []network.ConnectRequest{{Network: "far", ContainerName: "web", ContainerID: "web"}}})
	if err == nil || !strings.Contains(err.Error(), "could not find plugin l2") {
		t.Error(err)
	}
	if eps, err := m.Endpoints(t.Context()); err != nil || len(eps) != 0 {
		t.Errorf("left: %v, %v", eps, err)
	}
	if _, err := os.Stat(filepath.Join(p.config.NSDir, "web")); err == nil {
		t.Error("the namespace of a container that did not start is there")
	}
}
