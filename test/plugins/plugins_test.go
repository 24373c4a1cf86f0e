// Package plugins_test runs plugins of Docker's protocol, which are written with
// Docker's own library, against the driver for them on a real kernel.
package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isle/internal/fabric"
	"isle/internal/fabric/fabrictest"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/seat"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/remote"
	"isle/test/plugins/l2"
	"isle/test/plugins/pools"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// machine is a host with a plugin for networks and one for addresses.
type machine struct {
	t       *testing.T
	host    kerneltest.NS
	dir     netns.Dir
	sockets string
	reg     *remote.Registry
	l2      *l2.Driver
	pools   *pools.Driver
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, host: kerneltest.NewNS(t), dir: netns.Dir{Path: t.TempDir()}, sockets: t.TempDir(), pools: &pools.Driver{}}
	var seats *seat.Seats
	m.host.Do(func() (err error) {
		seats, err = seat.Open(rtnl.Mark{Group: 77, Prefix: "isle"})
		return err
	})
	t.Cleanup(func() { _ = seats.Close() })
	m.reg = remote.New(remote.Config{Seats: seats, Sockets: []string{m.sockets}, Specs: []string{t.TempDir()}, Pause: 5 * time.Millisecond, Wait: 20 * time.Second})
	m.startL2("")
	m.serve("pools", m.pools.Serve)
	m.host.IP("link add foreign type ifb\naddr add 192.0.2.9/24 dev foreign")
	return m
}

func (m *machine) serve(name string, serve func(net.Listener) error) (stop func()) {
	m.t.Helper()
	l, err := net.Listen("unix", filepath.Join(m.sockets, name+".sock"))
	if err != nil {
		m.t.Fatal(err)
	}
	go func() { _ = serve(l) }()
	stop = func() { _ = l.Close() }
	m.t.Cleanup(stop)
	return stop
}

// startL2 starts a plugin that knows nothing yet.
func (m *machine) startL2(scope string) (stop func()) {
	m.t.Helper()
	var h *netlink.Handle
	m.host.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	m.t.Cleanup(h.Close)
	m.l2 = &l2.Driver{Links: h, Scope: scope}
	return m.serve("l2", m.l2.Serve)
}

// container makes a namespace.
func (m *machine) container(name string) kerneltest.NS {
	m.t.Helper()
	if _, err := m.dir.New(name); err != nil {
		m.t.Fatal(err)
	}
	f, err := os.Open(m.dir.File(name))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { f.Close(); _ = m.dir.Delete(name) })
	return kerneltest.Wrap(m.t, f)
}

// dress does what package kernel does with a plan.
func (m *machine) dress(in kerneltest.NS, ep network.Endpoint) {
	m.t.Helper()
	s := netspec.State{}
	if err := m.reg.Driver("l2").Plan(s, network.Network{}, []network.Endpoint{ep}, network.Host{IPv6: true}); err != nil {
		m.t.Fatal(err)
	}
	for _, o := range s {
		if a, ok := o.(netspec.Addr); ok {
			in.IP("addr add " + a.Prefix.String() + " dev " + a.Link)
		}
	}
	for _, o := range s {
		if r, ok := o.(netspec.Route); ok {
			in.IP("route add " + r.Dst.String() + " via " + r.Via.String() + " dev " + r.Dev)
		}
	}
	for _, g := range ep.Result.Gateways {
		in.IP("route add default via " + g.String())
	}
}

func (m *machine) network(pool network.PoolGrant, gateway netip.Prefix) network.Network {
	return network.Network{
		ID: strings.Repeat("ab12cd34", 8), Name: "app", Driver: "l2", IPv4: true, Created: time.Now(), IPAMDriver: "pools",
		Options: map[string]string{"route": "198.51.100.0/24"}, Pools: []network.Pool{{Subnet: pool.Subnet, Gateway: gateway.Addr()}},
	}
}

func (m *machine) attachment(n network.Network, name, id string, a netip.Prefix) network.Attachment {
	return network.Attachment{
		Network: n, NSPath: m.dir.File(name), NS: netspec.NS(name), Hostname: name,
		Endpoint: network.Endpoint{ID: strings.Repeat(id, 8), Network: n.ID, Sandbox: name, Interface: "eth0", Addrs: []netip.Prefix{a}},
		Publish:  []network.Publish{{Proto: "udp", HostIP: netip.IPv4Unspecified(), HostPort: 5353, Count: 1, ContainerPort: 53}},
	}
}

// TestLife : a network, its addresses and two containers come from plugins, and go
// without a trace. In between the plugin is started again and has forgotten all.
func TestLife(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.host.Run("ip", "-d", "addr")
	d, ipam := m.reg.Driver("l2"), m.reg.IPAM("pools")
	pool, err := ipam.RequestPool(t.Context(), network.PoolWish{})
	if err != nil {
		t.Fatal(err)
	}
	gateway := m.address(ipam, pool, true)
	n := m.network(pool, gateway)
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	web, db := m.container("web"), m.container("db")
	a := m.attach(d, m.attachment(n, "web", "0a1b2c3d", m.address(ipam, pool, false)))
	m.dress(web, a.Endpoint)
	if ports := m.l2.Ports(n.ID, a.Endpoint.ID); !strings.Contains(ports, `"HostPort":5353`) || !strings.Contains(ports, `"Proto":17`) {
		t.Errorf("ports %s", ports)
	}
	b := m.attach(d, m.attachment(n, "db", "1a1b2c3d", m.address(ipam, pool, false)))
	m.dress(db, b.Endpoint)
	m.reach(web, b, gateway)
	if out := web.Run("ip", "route"); !strings.Contains(out, "198.51.100.0/24 via "+gateway.Addr().String()) {
		t.Errorf("routes %s", out)
	}
	if a.Endpoint.Result.MAC != (netspec.MAC{2, 0x1a, 0, 0, 0, 0x0a}) || !slices.Equal(a.Endpoint.Result.Links, []string{"l2h0a1b2c3d"}) || !strings.Contains(string(a.Endpoint.Result.Raw), `"bridge":"l2bab12cd34"`) {
		t.Errorf("result %+v\n%s", a.Endpoint.Result, a.Endpoint.Result.Raw)
	}
	for _, x := range []network.Attachment{a, b} {
		if err := d.Check(t.Context(), x); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := d.Detach(t.Context(), x); err != nil {
				t.Error(err)
			}
		}
		if err := d.Check(t.Context(), x); err == nil {
			t.Error("a link that was taken away is there")
		}
		if err := ipam.ReleaseAddress(t.Context(), pool.ID, x.Endpoint.Addrs[0].Addr()); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := d.Unmake(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	if err := ipam.ReleaseAddress(t.Context(), pool.ID, gateway.Addr()); err != nil {
		t.Error(err)
	}
	if err := ipam.ReleasePool(t.Context(), pool.ID); err != nil {
		t.Error(err)
	}
	if p, as := m.pools.Used(); p != 0 || as != 0 {
		t.Errorf("%d pools and %d addresses are left: %v", p, as, m.pools.Calls())
	}
	if after := m.host.Run("ip", "-d", "addr"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func (m *machine) address(ipam network.ExternalIPAM, pool network.PoolGrant, gateway bool) netip.Prefix {
	m.t.Helper()
	a, err := ipam.RequestAddress(m.t.Context(), pool.ID, netip.Addr{}, gateway, netspec.MAC{2, 1})
	if err != nil {
		m.t.Fatal(err)
	}
	if !pool.Subnet.Contains(a.Addr()) {
		m.t.Fatalf("address %s of pool %s", a, pool.Subnet)
	}
	return a
}

func (m *machine) attach(d network.External, a network.Attachment) network.Attachment {
	m.t.Helper()
	res, err := d.Attach(m.t.Context(), a)
	if err != nil {
		m.t.Fatal(err)
	}
	a.Endpoint.Result = &res
	return a
}

// reach asks another container and the gateway for a port that nobody listens on: they
// must say so.
func (m *machine) reach(from kerneltest.NS, to network.Attachment, gateway netip.Prefix) {
	m.t.Helper()
	for _, a := range []netip.Addr{to.Endpoint.Addrs[0].Addr(), gateway.Addr()} {
		from.Do(func() error {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 9).String(), 20*time.Second)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, unix.ECONNREFUSED) {
				return fmt.Errorf("%s is not reached: %w", a, err)
			}
			return nil
		})
	}
}

// TestPluginForgets : networks survive a plugin that is started again and has
// forgotten them; what was attached goes all the same.
func TestPluginForgets(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.reg.Driver("l2")
	n := m.network(network.PoolGrant{Subnet: netip.MustParsePrefix("10.4.0.0/24")}, netip.MustParsePrefix("10.4.0.1/24"))
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	m.container("web")
	db := m.container("db")
	a := m.attach(d, m.attachment(n, "web", "0a1b2c3d", netip.MustParsePrefix("10.4.0.2/24")))
	if err := os.Remove(filepath.Join(m.sockets, "l2.sock")); err != nil { // as one that is killed leaves nobody behind
		t.Fatal(err)
	}
	m.startL2("")
	b := m.attach(d, m.attachment(n, "db", "1a1b2c3d", netip.MustParsePrefix("10.4.0.3/24")))
	m.dress(db, b.Endpoint)
	if got := strings.Join(m.l2.Calls(), " "); !strings.HasPrefix(got, "GetCapabilities CreateEndpoint RevokeExternalConnectivity Leave DeleteEndpoint CreateNetwork CreateEndpoint Join") {
		t.Error(got)
	}
	for _, x := range []network.Attachment{a, b} {
		if err := d.Detach(t.Context(), x); err != nil {
			t.Error(err)
		}
	}
	m.host.Run("ip", "link", "show", "l2c0a1b2c3d") // of the plugin that forgot: back, for whoever finds it
}

// TestGlobal : a plugin of global scope is asked what all hosts agree on.
func TestGlobal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if err := os.Remove(filepath.Join(m.sockets, "l2.sock")); err != nil {
		t.Fatal(err)
	}
	m.startL2("global")
	d := m.reg.Driver("l2")
	n := m.network(network.PoolGrant{Subnet: netip.MustParsePrefix("10.4.0.0/24")}, netip.MustParsePrefix("10.4.0.1/24"))
	c := &fabrictest.Cluster{}
	dir := c.Join(fabric.Host{ID: "a", Addr: netip.MustParseAddr("192.0.2.7")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.reg.Follow(ctx, dir, slog.New(slog.DiscardHandler)) }()
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(strings.Join(m.l2.Calls(), "|"), "DiscoverNew") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	if err := d.Unmake(t.Context(), n); err != nil {
		t.Error(err)
	}
	const told = "DiscoverNew map[Address:192.0.2.7 Self:true]"
	calls := m.l2.Calls() // it is told at any time after it says what it can
	i := slices.Index(calls, told)
	if got := strings.Join(slices.DeleteFunc(calls, func(c string) bool { return c == told }), "|"); i < 1 || got != "GetCapabilities|AllocateNetwork|CreateNetwork|DeleteNetwork|FreeNetwork" {
		t.Errorf("told of itself as call %d; %s", i, got)
	}
}

// TestNamespaceGone : what went with its container is detached without it.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.reg.Driver("l2")
	n := m.network(network.PoolGrant{Subnet: netip.MustParsePrefix("10.4.0.0/24")}, netip.MustParsePrefix("10.4.0.1/24"))
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	web := m.container("web")
	a := m.attach(d, m.attachment(n, "web", "0a1b2c3d", netip.MustParsePrefix("10.4.0.2/24")))
	web.Close()
	if err := m.dir.Delete("web"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the kernel takes its time
		if _, err := m.host.Try("ip", "link", "show", "l2h0a1b2c3d"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the veth outlived its namespace")
		}
	}
	a.NSPath = ""
	if err := d.Detach(t.Context(), a); err != nil {
		t.Error(err)
	}
	if err := d.Unmake(t.Context(), n); err != nil {
		t.Error(err)
	}
}

// TestRecordLost : what was attached when isled died before it wrote that down is
// attached again, with the plugin's and the kernel's part of it made anew.
func TestRecordLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.reg.Driver("l2")
	n := m.network(network.PoolGrant{Subnet: netip.MustParsePrefix("10.4.0.0/24")}, netip.MustParsePrefix("10.4.0.1/24"))
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	m.container("web")
	lost := m.attachment(n, "web", "0a1b2c3d", netip.MustParsePrefix("10.4.0.2/24"))
	m.attach(d, lost)
	a := m.attach(d, lost)
	if err := d.Check(t.Context(), a); err != nil {
		t.Error(err)
	}
	if err := d.Detach(t.Context(), lost); err != nil { // and lost again
		t.Error(err)
	}
	if err := d.Unmake(t.Context(), n); err != nil {
		t.Error(err)
	}
	if out := m.host.Run("ip", "-br", "link"); strings.Contains(out, "l2") {
		t.Errorf("left: %s", out)
	}
}
