package network_test

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// lender has one namespace of others: number 7.
type lender struct {
	world    *world
	there    []string // interfaces of others
	leadsOut bool
	refuses  error
	held     map[netspec.NS]bool
}

func (l *lender) Lent(*os.File) (netspec.NS, error) { return netspec.Lent(7), l.refuses }
func (l *lender) Held(ns netspec.NS) bool           { return l.held[ns] }
func (l *lender) Taken(_ *os.File, link string) (bool, bool, error) {
	return slices.Contains(l.there, link), l.leadsOut, nil
}

func (l *lender) Borrow(ns netspec.NS, _ *os.File) error {
	l.held[ns] = true
	return nil
}

// Inside looks at what the fake kernel has.
func (l *lender) Inside(ns netspec.NS, link string) (in network.Inside, err error) {
	for _, o := range l.world.kernel.State {
		switch o := o.(type) {
		case netspec.Link:
			if o.PeerNS == ns && o.Peer == link {
				in.Up, in.MAC, in.MTU = true, o.PeerMAC, o.MTU
			}
		case netspec.Addr:
			if o.NS == ns && o.Link == link {
				in.Addrs = append(in.Addrs, o.Prefix)
			}
		}
	}
	if !in.Up {
		return in, errdefs.ErrNotFound
	}
	return in, nil
}

// lends starts a Manager that can be lent namespaces.
func (w *world) lends(t *testing.T, l *lender) *network.Manager {
	t.Helper()
	if l.held == nil {
		l.held = map[netspec.NS]bool{}
	}
	l.world = w
	m := w.manager()
	m.Lender = l
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func createNet(t *testing.T, m *network.Manager, name, subnet string) network.Network {
	t.Helper()
	n, err := m.Create(t.Context(), api.CreateRequest{Name: name, IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func joinRequest(n network.Network, link string) network.JoinRequest {
	return network.JoinRequest{NS: os.Stdin, Name: "pod", Place: network.ConnectRequest{
		Network: n.ID, ContainerName: "pod", ContainerID: "pod", Settings: api.EndpointSettings{DriverOpts: map[string]string{network.OptIfname: link}},
	}}
}

// TestJoin: a namespace of others joins two networks, and leaves them.
func TestJoin(t *testing.T) {
	w := newWorld()
	m := w.lends(t, &lender{})
	app, db := createNet(t, m, "app", "10.1.0.0/24"), createNet(t, m, "a-db", "10.2.0.0/24")
	before := reconcile.Dump(w.kernel.State)
	j, err := m.Join(t.Context(), joinRequest(app, "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	if j.Endpoint.Interface != "eth0" || j.HostLink == "" || len(j.Routes) != 1 || j.Routes[0].Via.String() != "10.1.0.1" || !network.IsLent(j.Sandbox) {
		t.Errorf("%+v", j)
	}
	second := joinRequest(db, "eth1")
	second.Ports.Bindings = ports("80/tcp", ":8080")
	if j, err = m.Join(t.Context(), second); err != nil || len(j.Routes) != 0 {
		t.Errorf("the second network leads out: %+v %v", j.Routes, err)
	}
	if got := w.published(j.Sandbox); len(got) == 0 {
		t.Error("nothing is published")
	}
	if lacks, err := m.Missing(j.Sandbox, db.ID); err != nil || len(lacks) != 0 {
		t.Errorf("%q %v", lacks, err)
	}
	for range 2 {
		if err := errors.Join(m.Leave(t.Context(), j.Sandbox, app.ID, network.PortRequest{}), m.Leave(t.Context(), j.Sandbox, db.ID, network.PortRequest{})); err != nil {
			t.Fatal(err)
		}
	}
	if after := reconcile.Dump(w.kernel.State); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if left := slices.Concat(w.keys("sandbox/"), w.keys("endpoint/"), w.keys("publish/")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestJoinRefused leaves all as it was.
func TestJoinRefused(t *testing.T) {
	for what, c := range map[string]struct {
		lender lender
		change func(*network.JoinRequest)
		class  func(error) bool
	}{
		"an interface that is there": {lender{there: []string{"eth0"}}, nil, errdefs.IsAlreadyExists},
		"a namespace that is ours":   {lender{refuses: errdefs.ErrInvalidArgument}, nil, errdefs.IsInvalidArgument},
		"a second way out":           {lender{leadsOut: true}, func(r *network.JoinRequest) { yes := true; r.WayOut = &yes }, errdefs.IsConflict},
		"an address of elsewhere": {lender{}, func(r *network.JoinRequest) {
			r.Place.Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.9.9.9")}
		}, errdefs.IsInvalidArgument},
		"a name server that is none": {lender{}, func(r *network.JoinRequest) { r.DNS.Upstreams = []string{"x"} }, errdefs.IsInvalidArgument},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld()
			m := w.lends(t, &c.lender)
			req := joinRequest(createNet(t, m, "app", "10.1.0.0/24"), "eth0")
			if c.change != nil {
				c.change(&req)
			}
			before := reconcile.Dump(w.kernel.State)
			if _, err := m.Join(t.Context(), req); !c.class(err) {
				t.Error(err)
			}
			if after := reconcile.Dump(w.kernel.State); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if left := w.keys("sandbox/"); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestWayOutOfOthers: a default route that is there stays the only one.
func TestWayOutOfOthers(t *testing.T) {
	w := newWorld()
	m := w.lends(t, &lender{leadsOut: true})
	j, err := m.Join(t.Context(), joinRequest(createNet(t, m, "app", "10.1.0.0/24"), "isle0"))
	if err != nil || len(j.Routes) != 0 {
		t.Errorf("%+v %v", j.Routes, err)
	}
}

// TestLentAfterBoot: the namespaces of others are gone, and are not made.
func TestLentAfterBoot(t *testing.T) {
	w := newWorld()
	l := &lender{}
	m := w.lends(t, l)
	j, err := m.Join(t.Context(), joinRequest(createNet(t, m, "app", "10.1.0.0/24"), "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	if m = w.lends(t, l); len(w.keys("sandbox/")) != 1 {
		t.Errorf("a restart lost it: %q", w.keys(""))
	}
	if lacks, err := m.Missing(j.Sandbox, j.Network.ID); err != nil || len(lacks) != 0 {
		t.Errorf("after a restart: %q %v", lacks, err)
	}
	clear(l.held)
	w.kernel.State = nil
	m = w.lends(t, l)
	if left := slices.Concat(w.keys("sandbox/"), w.keys("endpoint/")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	for k := range w.kernel.State {
		if k.NS.Lent() {
			t.Errorf("made: %v", k)
		}
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
}

// TestLentIsLost: somebody has taken the namespace from under a running isled.
func TestLentIsLost(t *testing.T) {
	w := newWorld()
	l := &lender{}
	m := w.lends(t, l)
	app := createNet(t, m, "app", "10.1.0.0/24")
	before := reconcile.Dump(w.kernel.State)
	j, err := m.Join(t.Context(), joinRequest(app, "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	clear(l.held)
	if err := m.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if after := reconcile.Dump(w.kernel.State); after != before || len(w.keys("endpoint/")) != 0 {
		t.Errorf("before:\n%s\nafter:\n%s\nendpoints: %q", before, after, w.keys("endpoint/"))
	}
	if lacks, err := m.Missing(j.Sandbox, app.ID); err != nil || len(lacks) != 1 {
		t.Errorf("%q %v", lacks, err)
	}
}

// TestMissing says what a place lacks.
func TestMissing(t *testing.T) {
	w := newWorld()
	m := w.lends(t, &lender{})
	j, err := m.Join(t.Context(), joinRequest(createNet(t, m, "app", "10.1.0.0/24"), "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	for k, o := range w.kernel.State {
		if _, ok := o.(netspec.Addr); ok && k.NS.Lent() {
			delete(w.kernel.State, k)
		}
	}
	if lacks, err := m.Missing(j.Sandbox, j.Network.ID); err != nil || len(lacks) != 1 {
		t.Errorf("%q %v", lacks, err)
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lacks, err := m.Missing(j.Sandbox, j.Network.ID); err != nil || len(lacks) != 0 {
		t.Errorf("%q %v", lacks, err)
	}
	if lacks, err := m.Missing(j.Sandbox, "other"); err != nil || len(lacks) != 1 {
		t.Errorf("%q %v", lacks, err)
	}
}
