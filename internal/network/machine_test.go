package network_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/event"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/builtin"
	shared "isle/internal/network/driver/overlay"
	"isle/internal/network/ipam"
	"isle/internal/network/publish"
	"isle/internal/store"
	"isle/internal/store/storetest"
)

// machine is a host without a kernel.
type machine struct {
	host    network.Host
	foreign []ipam.Foreign
	near    map[netip.Addr]bool
	listen  func(netspec.NS, uint16) (net.PacketConn, net.Listener, error)
	shaken  func(link string) map[string]time.Time // handshakes of links that encrypt; nil: none
}

func (m *machine) Handshakes(_ context.Context, link string) (map[string]time.Time, error) {
	if m.shaken == nil {
		return nil, nil
	}
	return m.shaken(link), nil
}

func (m *machine) Host(context.Context) (network.Host, error)      { return m.host, nil }
func (m *machine) Do(_ netspec.NS, fn func() error) error          { return fn() }
func (m *machine) MAC(netspec.NS, string) (netspec.MAC, error)     { return netspec.MAC{2, 7}, nil }
func (m *machine) Foreign(context.Context) ([]ipam.Foreign, error) { return m.foreign, nil }
func (m *machine) Path(ns netspec.NS) string                       { return "/run/netns/" + string(ns) }
func (m *machine) Counters(context.Context, netspec.NS) (map[string]network.Counters, error) {
	return map[string]network.Counters{"lo": {}, "eth0": {RxBytes: 7}, "foreign": {}}, nil
}

func (m *machine) NextTo(_ context.Context, _ string, addrs []netip.Addr) ([]netip.Addr, error) {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !m.near[a] }), nil
}

func (m *machine) Prepare() func() { return func() {} }

func (m *machine) Listen(_ context.Context, ns netspec.NS, port uint16) (net.PacketConn, net.Listener, error) {
	if m.listen == nil {
		return nil, nil, errors.New("no listener here")
	}
	return m.listen(ns, port)
}

// world is what outlives a Manager: the disk, the kernel and the machine.
type world struct {
	store   *storetest.Mem
	kernel  *kerneltest.Fake
	machine *machine
	events  *event.Bus
	lan     *lan // gives out addresses
	outside *outside
	room    int // endpoints on one bridge; 0: as many as the driver says
}

// narrow is a bridge with few ports.
type narrow struct {
	bridge.Driver
	room int
}

func (n narrow) Caps() network.Caps {
	c := n.Driver.Caps()
	if n.room > 0 {
		c.Room, c.Leaves = n.room, 2
	}
	return c
}

// narrowShared is an overlay of bridges with few ports.
type narrowShared struct {
	shared.Driver
	room int
}

func (n narrowShared) Caps() network.Caps {
	c := n.Driver.Caps()
	if n.room > 0 {
		c.Room, c.Leaves = n.room, 2
	}
	return c
}

func newWorld() *world {
	return &world{&storetest.Mem{}, &kerneltest.Fake{}, &machine{host: network.Host{MTU: 1500, IPv6: true, SockAddr: true}}, &event.Bus{}, &lan{}, newOutside(), 0}
}

// manager is a new process on the world.
func (w *world) manager() *network.Manager {
	drivers := builtin.Drivers()
	drivers[network.DriverBridge], drivers["overlay"] = narrow{room: w.room}, narrowShared{room: w.room}
	return w.outside.plug(&network.Manager{
		Store: w.store, Kernel: w.kernel, Machine: w.machine, Drivers: drivers, Events: w.events, Lease: w.lan.lessor(),
		IPAM: &ipam.Allocator{Sources: []ipam.Source{
			{Base: netip.MustParsePrefix("172.16.0.0/12"), Size: 16}, {Base: ipam.ULA("test"), Size: 64},
		}},
		Ports:  &publish.Table{},
		Log:    slog.New(slog.DiscardHandler),
		Config: network.Config{LinkPrefix: "isle", Bridge: "isle0"},
	})
}

func (w *world) start(t *testing.T) *network.Manager {
	t.Helper()
	m := w.manager()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// want is what a fresh machine would be given for the records.
func (w *world) want(t *testing.T) netspec.State {
	t.Helper()
	fresh := *w
	fresh.lan, fresh.outside = &lan{}, newOutside()
	fresh.kernel = &kerneltest.Fake{Parents: w.kernel.Parents}
	fresh.start(t)
	return fresh.kernel.State
}

// keys are the records below prefix.
func (w *world) keys(prefix string) (out []string) {
	_ = w.store.View(context.Background(), func(tx store.Tx) error {
		for k := range tx.Scan(prefix) {
			out = append(out, k)
		}
		return nil
	})
	return out
}

// published are the ports in a sandbox's record.
func (w *world) published(id string) []network.Publish {
	var sb network.Sandbox
	_ = w.store.View(context.Background(), func(tx store.Tx) (err error) {
		sb, err = store.NewTable[network.Sandbox]("sandbox").Get(tx, id)
		return err
	})
	return sb.Publish
}

func open(t testing.TB, m *network.Manager, id string, networks ...string) network.Opened {
	t.Helper()
	out, err := m.Open(t.Context(), request(id, nil, networks...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func request(id string, ports api.PortMap, networks ...string) network.OpenRequest {
	req := network.OpenRequest{ID: id, Name: id, Ports: network.PortRequest{Bindings: ports}}
	for _, n := range networks {
		req.Networks = append(req.Networks, network.ConnectRequest{Network: n, ContainerName: id, ContainerID: id})
	}
	return req
}

func ports(s string, bindings ...string) api.PortMap {
	out := api.PortMap{}
	p := api.MustParsePort(s)
	for _, b := range bindings {
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			panic(err)
		}
		binding := api.PortBinding{HostPort: port}
		if host != "" {
			binding.HostIP = netip.MustParseAddr(host)
		}
		out[p] = append(out[p], binding)
	}
	return out
}
